//! Blocks: the records of consecutive sequences of a collection in one value, so that neither the change feed nor the
//! medium pays for each document.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 0 plain, 1 raw deflate, 2 columns |
//! | varint | length of the records, unpacked |
//! | ... | records, maybe deflated; or their columns ([`crate::database::columns`]) |

mod codec;
mod opened;
mod record;

use std::ops::Range;

use self::codec::{COLUMNS, DEFLATED, PLAIN, with_head};
pub(super) use self::codec::{Codec, records_len};
pub(super) use self::opened::{Opened, read_block};
pub(super) use self::record::SourceNumbers;
pub(crate) use self::record::StoredRevision;
use self::record::{REMOTE_ANCESTOR, Rows, TOMBSTONE};
use crate::database::columns::{self, Head, Row};
use crate::replica::revision::{RevId, Version};

/// Blocks shorter than this are not worth deflating, bytes.
const DEFLATE_MIN: usize = 128;

/// Bytes of records (not deflated) after which a block is closed.
pub(super) const BLOCK_BYTES_TARGET: usize = 4096;

/// The same of a block in columns that are so short that one of so many bytes still fits into one entry.
const LONG_BLOCK_BYTES_MAX: usize = 4 * BLOCK_BYTES_TARGET;
const COLUMNS_BYTES_AIM: usize = 1_300;

/// Columns that take no more of what they stand for than one in so many bytes are not compared with what deflate makes of it.
const COLUMNS_PART: usize = 3;

/// Builds the records of a block.
#[derive(Default)]
pub(super) struct BlockBuilder {
    rows: Rows,
    /// What columns are made of.
    pushed: Vec<Pushed>,
    ids: String,
    /// Bytes of records after which it is closed, if that was asked.
    target: Option<usize>,
}

/// Where the parts of a record are.
struct Pushed {
    head: Head,
    id_end: usize,
    further: Range<usize>,
    body: usize,
}

impl BlockBuilder {
    pub(super) fn push(&mut self, revision: &StoredRevision, sources: &impl SourceNumbers) {
        let (flags, further) = self.rows.push(revision, sources);
        self.ids.push_str(&revision.id);
        let head = head_of(revision, flags, sources);
        self.pushed.push(Pushed { head, id_end: self.ids.len(), further, body: revision.body.len() });
    }

    /// Bytes of records so far, not deflated.
    pub(super) fn len(&self) -> usize {
        self.rows.bytes.len()
    }

    pub(super) fn count(&self) -> usize {
        self.pushed.len()
    }

    /// Sequence of the newest record.
    pub(super) fn last_sequence(&self) -> u64 {
        self.rows.last_sequence
    }

    /// Whether it has so many records that it is to be finished. Columns may be so short that it is worth going on.
    pub(super) fn is_full(&mut self, codec: &Codec) -> bool {
        if self.count() >= columns::COUNT_MAX {
            return true;
        }
        if self.target.is_none() && self.len() >= BLOCK_BYTES_TARGET {
            // Records are mostly as those before them.
            let per_byte = codec.plain_per_column_byte.unwrap_or_else(|| self.plain_per(&self.columns()));
            let is_short = per_byte >= COLUMNS_PART;
            let target = if is_short { per_byte * COLUMNS_BYTES_AIM } else { self.len() };
            self.target = Some(target.min(LONG_BLOCK_BYTES_MAX));
        }
        self.target.is_some_and(|target| self.len() >= target)
    }

    /// How many bytes of plain records a byte of their columns stands for; 0 if they have none.
    fn plain_per(&self, columns: &Option<Vec<u8>>) -> usize {
        columns.as_ref().map_or(0, |columns| self.len() / columns.len().max(1))
    }

    /// The finished value; the builder is empty again.
    pub(super) fn finish(&mut self, codec: &mut Codec) -> Vec<u8> {
        let (columns, len) = (self.columns(), self.len());
        let per_byte = self.plain_per(&columns);
        if len >= BLOCK_BYTES_TARGET / 2 {
            codec.plain_per_column_byte = Some(per_byte);
        }
        let rows = if per_byte >= COLUMNS_PART { None } else { Some(self.finish_rows(codec)) };
        let is_taken = |columns: &Vec<u8>| rows.as_ref().is_none_or(|rows| columns.len() < rows.len());
        let Some(columns) = columns.filter(is_taken) else { return rows.unwrap_or_default() };
        codec.has_written_columns = true;
        *self = BlockBuilder::default();
        with_head(COLUMNS, len, &columns)
    }

    /// The finished value as every release reads it; the builder is empty again.
    pub(super) fn finish_rows(&mut self, codec: &mut Codec) -> Vec<u8> {
        let done = std::mem::take(self);
        let mut value = with_head(DEFLATED, done.rows.bytes.len(), &[]);
        let head = value.len();
        if done.rows.bytes.len() < DEFLATE_MIN || !codec.deflate(&done.rows.bytes, &mut value) {
            value.truncate(head);
            value[0] = PLAIN;
            value.extend_from_slice(&done.rows.bytes);
        }
        value
    }

    /// The value in columns, if its records go there, be it shorter or not.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn in_columns(&self) -> Option<Vec<u8>> {
        Some(with_head(COLUMNS, self.len(), &self.columns()?))
    }

    /// Its records in columns, if they go there.
    fn columns(&self) -> Option<Vec<u8>> {
        let (mut rows, mut id_from) = (Vec::with_capacity(self.count()), 0);
        for pushed in &self.pushed {
            let Pushed { head, id_end, further, body } = pushed;
            // The body stands behind its length.
            let body_end = further.end + varint_len(*body) + body;
            // An ancestor that stands alone has a column; else it is among the others.
            let further = if head.ancestor.is_some() { &[] } else { self.rows.bytes.get(further.clone())? };
            rows.push(Row {
                head: *head,
                id: self.ids.get(id_from..*id_end)?,
                further,
                body: self.rows.bytes.get(body_end - body..body_end)?,
            });
            id_from = *id_end;
        }
        columns::write(&rows)
    }
}

/// What columns have of a record beside ID, further versions and body.
fn head_of(revision: &StoredRevision, flags: u8, sources: &impl SourceNumbers) -> Head {
    let Version { time, source } = revision.vector.current;
    let ancestor = match revision.remote_ancestor {
        Some(RevId::Version(ancestor)) if flags & !TOMBSTONE == REMOTE_ANCESTOR => {
            Some((ancestor.time, sources.number(ancestor.source)))
        }
        _ => None,
    };
    Head { sequence: revision.sequence, flags, time, source: sources.number(source), ancestor }
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()).max(1).div_ceil(7) as usize
}

#[cfg(test)]
mod tests;
