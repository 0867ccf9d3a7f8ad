//! Reading a block, whatever it is: its records one after the other, or those that are asked for.

use std::borrow::Cow;

use super::codec::{COLUMNS, Codec, DEFLATED, INFLATE_RATIO_MAX, PLAIN, RECORDS_BYTES_MAX};
use super::record::{REMOTE_ANCESTOR, Records, SourceNumbers, StoredRevision, TOMBSTONE, read_further};
use crate::database::columns::{self, Columns};
use crate::database::packed::Reader;
use crate::replica::revision::{RevId, Version, VersionVector};

/// A block that is read.
#[expect(clippy::large_enum_variant, reason = "it is used where it is made, one at a time")]
pub(in super::super) enum Opened<'v> {
    /// Its records, not deflated.
    Rows(Cow<'v, [u8]>),
    Columns(InColumns<'v>),
}

/// Records in columns.
pub(in super::super) struct InColumns<'v> {
    columns: Columns<'v>,
    /// No body has more bytes, nor have all together.
    bytes_max: usize,
}

/// All records of a block; `None` means damage.
pub(in super::super) fn read_block(
    value: &[u8],
    sources: &impl SourceNumbers,
    codec: &mut Codec,
) -> Option<Vec<StoredRevision>> {
    Opened::read(value, codec)?.all(sources)
}

impl<'v> Opened<'v> {
    /// Opens a block; `None` means damage.
    pub(in super::super) fn read(value: &'v [u8], codec: &mut Codec) -> Option<Opened<'v>> {
        let mut reader = Reader::new(value);
        let kind = reader.byte()?;
        let len = reader.length().filter(|&len| len <= RECORDS_BYTES_MAX)?;
        let rest = reader.take(reader.remaining())?;
        if kind == COLUMNS {
            return InColumns::read(rest, len).map(Opened::Columns);
        }
        if len > rest.len().saturating_mul(INFLATE_RATIO_MAX) {
            return None;
        }
        let records = match kind {
            PLAIN => Cow::Borrowed(rest),
            DEFLATED => Cow::Owned(codec.inflate(rest, len)?),
            _ => return None,
        };
        (records.len() == len).then_some(Opened::Rows(records))
    }

    /// The sequence of the first record.
    pub(in super::super) fn first_sequence(&self) -> Option<u64> {
        match self {
            Opened::Rows(records) => {
                let mut reader = Reader::new(records);
                reader.byte()?;
                reader.varint()
            }
            Opened::Columns(InColumns { columns, .. }) => columns.sequence(0),
        }
    }

    /// How many records there are.
    pub(in super::super) fn count(&self, sources: &impl SourceNumbers) -> Option<usize> {
        match self {
            Opened::Rows(records) => {
                let (mut reader, mut count) = (Records::new(records, sources), 0);
                while reader.next()? {
                    count += 1;
                }
                Some(count)
            }
            Opened::Columns(InColumns { columns, .. }) => Some(columns.count()),
        }
    }

    /// Shows sequence and ID of each record.
    pub(in super::super) fn visit(
        &self,
        sources: &impl SourceNumbers,
        mut visit: impl FnMut(u64, &str),
    ) -> Option<()> {
        match self {
            Opened::Rows(records) => {
                let mut reader = Records::new(records, sources);
                while reader.next()? {
                    visit(reader.sequence, &reader.id);
                }
            }
            Opened::Columns(InColumns { columns, .. }) => {
                let mut id = Vec::new();
                for at in 0..columns.count() {
                    visit(columns.sequence(at)?, columns.id(at, &mut id)?);
                }
            }
        }
        Some(())
    }

    /// All records.
    pub(in super::super) fn all(&self, sources: &impl SourceNumbers) -> Option<Vec<StoredRevision>> {
        match self {
            Opened::Rows(records) => {
                let (mut reader, mut revisions) = (Records::new(records, sources), Vec::new());
                while reader.next()? {
                    revisions.push(reader.revision());
                }
                Some(revisions)
            }
            Opened::Columns(columns) => columns.all(sources),
        }
    }

    /// The records with these sequences, which are in order.
    pub(in super::super) fn some(
        &self,
        sources: &impl SourceNumbers,
        wanted: &[u64],
    ) -> Option<Vec<StoredRevision>> {
        let mut revisions = Vec::with_capacity(wanted.len());
        match self {
            Opened::Rows(records) => {
                let mut reader = Records::new(records, sources);
                let last = wanted.last().copied().unwrap_or(0);
                while reader.next()? && reader.sequence <= last {
                    if wanted.binary_search(&reader.sequence).is_ok() {
                        revisions.push(reader.revision());
                    }
                    if reader.sequence == last {
                        break;
                    }
                }
            }
            Opened::Columns(columns) => {
                let mut id = Vec::new();
                for sequence in wanted {
                    if let Some(at) = columns.columns.find(*sequence) {
                        revisions.push(columns.revision(at, sources, &mut id)?);
                    }
                }
            }
        }
        Some(revisions)
    }
}

impl<'v> InColumns<'v> {
    fn read(bytes: &'v [u8], bytes_max: usize) -> Option<InColumns<'v>> {
        let columns = Columns::read(bytes)?;
        // Columns are made of blocks of the usual size.
        (bytes_max <= columns::BYTES_MAX).then_some(InColumns { columns, bytes_max })
    }

    fn all(&self, sources: &impl SourceNumbers) -> Option<Vec<StoredRevision>> {
        let (mut revisions, mut id) = (Vec::with_capacity(self.columns.count()), Vec::new());
        let mut bytes = 0;
        for at in 0..self.columns.count() {
            let revision = self.revision(at, sources, &mut id)?;
            bytes += revision.body.len();
            let follows =
                revisions.last().is_none_or(|last: &StoredRevision| last.sequence < revision.sequence);
            if bytes > self.bytes_max || !follows {
                return None;
            }
            revisions.push(revision);
        }
        Some(revisions)
    }

    /// A record; `id` is room for its ID.
    fn revision(&self, at: usize, sources: &impl SourceNumbers, id: &mut Vec<u8>) -> Option<StoredRevision> {
        let head = self.columns.head(at)?;
        let current = Version { time: head.time, source: sources.source(head.source)? };
        let further = self.columns.further(at)?;
        let (vector, remote_ancestor) = match head.flags & !TOMBSTONE {
            0 => (VersionVector::new(current), None),
            REMOTE_ANCESTOR if further.is_empty() => {
                let (time, source) = head.ancestor?;
                let ancestor = Version { time, source: sources.source(source)? };
                (VersionVector::new(current), Some(RevId::Version(ancestor)))
            }
            _ => {
                let mut reader = Reader::new(further);
                let read = read_further(&mut reader, head.flags, current, sources)?;
                (reader.remaining() == 0).then_some(read)?
            }
        };
        let id = self.columns.id(at, id)?.into();
        Some(StoredRevision {
            sequence: head.sequence,
            id,
            vector,
            deleted: head.flags & TOMBSTONE != 0,
            remote_ancestor,
            body: self.columns.body(at, self.bytes_max)?,
        })
    }
}
