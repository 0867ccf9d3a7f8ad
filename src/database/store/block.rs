//! Blocks: the records of consecutive sequences of a collection in one value, so that neither the change feed nor the
//! medium pays for each document.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 0 plain, 1 raw deflate |
//! | varint | length of the records, unpacked |
//! | ... | records, maybe deflated |
//!
//! A record, ordered by sequence; numbers in postcard's varint, signed ones zigzag:
//!
//! | field | how |
//! |---|---|
//! | flags | 1 byte: 1 tombstone, 2 merged versions, 4 history, 8 remote ancestor, 16 tree IDs, 32 the remote ancestor is a tree ID |
//! | sequence | difference to the record before; the first in full |
//! | ID | bytes shared with the record before, length of the rest, the rest |
//! | version | time: signed difference to the record before (first: to 0); source number |
//! | merged, history | count, then versions as signed difference to the current time, source number |
//! | remote ancestor | one version so, or a tree ID |
//! | tree IDs | count, then each: generation, length of the digest, digest |
//! | body | length, packed bytes ([`crate::database::packed`]) |
//!
//! Source number 0 is followed by the 16 bytes themselves.
//!
//! One file, because what writes a record and what reads it are one format.

use std::borrow::Cow;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::database::packed::{Reader, put_text, put_varint, put_zigzag};
use crate::replica::revision::{RevId, SourceId, TREE_IDS_MAX, TreeId, VERSIONS_MAX, Version, VersionVector};

const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;

const TOMBSTONE: u8 = 1;
const MERGED: u8 = 2;
const HISTORY: u8 = 4;
const REMOTE_ANCESTOR: u8 = 8;
const TREES: u8 = 16;
const REMOTE_TREE: u8 = 32;

/// Blocks shorter than this are not worth deflating, bytes.
const DEFLATE_MIN: usize = 128;

/// Fast: bodies repeat so much that higher levels gain little and the commit path pays.
const DEFLATE_LEVEL: u32 = 2;

/// Longest block unpacked, bytes: a document of the largest size with its ID and versions; earlier releases took 20 MiB of
/// JSON. A damaged length allocates no more than this.
const RECORDS_BYTES_MAX: usize = 2 * (20 << 20) + 64 * 1024;

/// Deflate makes no more than 258 bytes of two bits: a damaged length allocates no more than its block could hold.
const INFLATE_RATIO_MAX: usize = 1_032;

/// One stored revision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredRevision {
    pub(crate) sequence: u64,
    pub(crate) id: Box<str>,
    pub(crate) vector: VersionVector,
    pub(crate) deleted: bool,
    pub(crate) remote_ancestor: Option<RevId>,
    /// Packed body.
    pub(crate) body: Vec<u8>,
}

/// Numbers for sources and back.
pub(crate) trait SourceNumbers {
    /// The number of a source from 1, 0 if it has none.
    fn number(&self, source: SourceId) -> u32;
    /// The source of a number from 1.
    fn source(&self, number: u32) -> Option<SourceId>;
}

/// Builds the records of a block.
#[derive(Default)]
pub(super) struct BlockBuilder {
    records: Vec<u8>,
    last_sequence: u64,
    last_time: u64,
    last_id: String,
    count: usize,
}

impl BlockBuilder {
    pub(super) fn push(&mut self, revision: &StoredRevision, sources: &impl SourceNumbers) {
        let out = &mut self.records;
        let vector = &revision.vector;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            flag(revision.deleted, TOMBSTONE)
                | flag(!vector.merged.is_empty(), MERGED)
                | flag(!vector.history.is_empty(), HISTORY)
                | flag(matches!(revision.remote_ancestor, Some(RevId::Version(_))), REMOTE_ANCESTOR)
                | flag(!vector.trees.is_empty(), TREES)
                | flag(matches!(revision.remote_ancestor, Some(RevId::Tree(_))), REMOTE_TREE),
        );
        put_varint(out, revision.sequence.wrapping_sub(self.last_sequence));
        let shared = shared_prefix(&self.last_id, &revision.id);
        put_varint(out, shared as u64);
        put_text(out, &revision.id[shared..]);
        put_version(out, vector.current, self.last_time, sources);
        for list in [&vector.merged, &vector.history] {
            if !list.is_empty() {
                put_varint(out, list.len() as u64);
                list.iter().for_each(|&v| put_version(out, v, vector.current.time, sources));
            }
        }
        match revision.remote_ancestor {
            Some(RevId::Version(ancestor)) => put_version(out, ancestor, vector.current.time, sources),
            Some(RevId::Tree(ancestor)) => put_tree(out, ancestor),
            None => {}
        }
        if !vector.trees.is_empty() {
            put_varint(out, vector.trees.len() as u64);
            vector.trees.iter().for_each(|id| put_tree(out, *id));
        }
        put_varint(out, revision.body.len() as u64);
        out.extend_from_slice(&revision.body);
        self.last_sequence = revision.sequence;
        self.last_time = vector.current.time;
        self.last_id.replace_range(shared.., &revision.id[shared..]);
        self.count += 1;
    }

    /// Bytes of records so far, not deflated.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Sequence of the newest record.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// The finished value; the builder is empty again.
    pub(super) fn finish(&mut self, codec: &mut Codec) -> Vec<u8> {
        let done = std::mem::take(self);
        let mut value = vec![DEFLATED];
        put_varint(&mut value, done.records.len() as u64);
        let head = value.len();
        if done.records.len() < DEFLATE_MIN || !codec.deflate(&done.records, &mut value) {
            value.truncate(head);
            value[0] = PLAIN;
            value.extend_from_slice(&done.records);
        }
        value
    }
}

/// Deflate states, kept because each is some 100 KiB to set up.
#[derive(Default)]
pub(super) struct Codec {
    compress: Option<Compress>,
    decompress: Option<Decompress>,
}

impl Codec {
    /// Appends the deflated bytes; `false` if that saves nothing.
    fn deflate(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let compress =
            self.compress.get_or_insert_with(|| Compress::new(Compression::new(DEFLATE_LEVEL), false));
        compress.reset();
        out.reserve_exact(bytes.len());
        matches!(compress.compress_vec(bytes, out, FlushCompress::Finish), Ok(Status::StreamEnd))
            && (compress.total_out() as usize) < bytes.len()
    }

    fn inflate(&mut self, bytes: &[u8], len: usize) -> Option<Vec<u8>> {
        let decompress = self.decompress.get_or_insert_with(|| Decompress::new(false));
        decompress.reset(false);
        let mut out = Vec::with_capacity(len);
        let status = decompress.decompress_vec(bytes, &mut out, FlushDecompress::Finish).ok()?;
        (status == Status::StreamEnd && out.len() == len).then_some(out)
    }
}

fn shared_prefix(a: &str, b: &str) -> usize {
    let mut shared = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    // In the other it is one as well: what they share ends with a whole character in both or in neither.
    while !a.is_char_boundary(shared) {
        shared -= 1;
    }
    shared
}

fn put_version(out: &mut Vec<u8>, version: Version, base: u64, sources: &impl SourceNumbers) {
    put_zigzag(out, version.time.wrapping_sub(base) as i64);
    let number = sources.number(version.source);
    put_varint(out, u64::from(number));
    if number == 0 {
        out.extend_from_slice(&version.source.0);
    }
}

fn put_tree(out: &mut Vec<u8>, id: TreeId) {
    put_varint(out, id.generation().into());
    put_varint(out, id.digest().len() as u64);
    out.extend_from_slice(id.digest());
}

/// Bytes of a block's records, not deflated; `None` means damage.
pub(super) fn records_len(value: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(value);
    reader.byte()?;
    reader.length()
}

/// All records of a block; `None` means damage.
pub(super) fn read_block(
    value: &[u8],
    sources: &impl SourceNumbers,
    codec: &mut Codec,
) -> Option<Vec<StoredRevision>> {
    read_records(&unpack(value, codec)?, sources)
}

/// All of a block's records, not deflated; `None` means damage.
pub(super) fn read_records(records: &[u8], sources: &impl SourceNumbers) -> Option<Vec<StoredRevision>> {
    let mut reader = Records::new(records, sources);
    let mut revisions = Vec::new();
    while reader.next()? {
        revisions.push(reader.revision());
    }
    Some(revisions)
}

/// The records of a block with these sequences, which are in order. `None` means damage.
pub(super) fn read_some(
    value: &[u8],
    sources: &impl SourceNumbers,
    codec: &mut Codec,
    wanted: &[u64],
) -> Option<Vec<StoredRevision>> {
    find_records(&unpack(value, codec)?, sources, wanted)
}

/// Those of a block's records, not deflated, that have these sequences, which are in order. `None` means damage.
pub(super) fn find_records(
    records: &[u8],
    sources: &impl SourceNumbers,
    wanted: &[u64],
) -> Option<Vec<StoredRevision>> {
    let mut reader = Records::new(records, sources);
    let mut revisions = Vec::with_capacity(wanted.len());
    let last = wanted.last().copied().unwrap_or(0);
    while reader.next()? && reader.sequence <= last {
        if wanted.binary_search(&reader.sequence).is_ok() {
            revisions.push(reader.revision());
        }
        if reader.sequence == last {
            break;
        }
    }
    Some(revisions)
}

/// The sequence of the first of a block's records, not deflated.
pub(super) fn first_sequence(records: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(records);
    reader.byte()?;
    reader.varint()
}

/// The records of a block, not deflated; `None` means damage.
pub(super) fn unpack<'a>(value: &'a [u8], codec: &mut Codec) -> Option<Cow<'a, [u8]>> {
    let mut reader = Reader::new(value);
    let kind = reader.byte()?;
    let len = reader.length().filter(|&len| len <= RECORDS_BYTES_MAX)?;
    let rest = reader.take(reader.remaining())?;
    if len > rest.len().saturating_mul(INFLATE_RATIO_MAX) {
        return None;
    }
    let records = match kind {
        PLAIN => Cow::Borrowed(rest),
        DEFLATED => Cow::Owned(codec.inflate(rest, len)?),
        _ => return None,
    };
    (records.len() == len).then_some(records)
}

/// Reads the records of a block one after the other, and copies only what is asked for.
pub(super) struct Records<'a, S> {
    reader: Reader<'a>,
    sources: &'a S,
    flags: u8,
    /// Of the record last read, as is what follows.
    pub(super) sequence: u64,
    pub(super) id: String,
    vector: VersionVector,
    remote_ancestor: Option<RevId>,
    body: &'a [u8],
}

impl<'a, S: SourceNumbers> Records<'a, S> {
    pub(super) fn new(records: &'a [u8], sources: &'a S) -> Records<'a, S> {
        Records {
            reader: Reader::new(records),
            sources,
            flags: 0,
            sequence: 0,
            id: String::with_capacity(64),
            vector: VersionVector::new(Version { time: 0, source: SourceId([0; 16]) }),
            remote_ancestor: None,
            body: &[],
        }
    }

    /// Reads the next record; `false` if there is none, `None` means damage.
    pub(super) fn next(&mut self) -> Option<bool> {
        let Records { reader, sources, .. } = self;
        if reader.remaining() == 0 {
            return Some(false);
        }
        self.flags = reader.byte()?;
        self.sequence = self.sequence.checked_add(reader.varint()?)?;
        let shared = reader.length()?;
        let rest_len = reader.length()?;
        let rest = std::str::from_utf8(reader.take(rest_len)?).ok()?;
        self.id.get(..shared)?;
        self.id.truncate(shared);
        self.id.push_str(rest);
        let current = read_version(reader, self.vector.current.time, *sources)?;
        let time = current.time;
        let merged = read_versions(reader, self.flags & MERGED != 0, time, *sources)?;
        let history = read_versions(reader, self.flags & HISTORY != 0, time, *sources)?;
        self.remote_ancestor = match self.flags & (REMOTE_ANCESTOR | REMOTE_TREE) {
            0 => None,
            REMOTE_ANCESTOR => Some(RevId::Version(read_version(reader, time, *sources)?)),
            REMOTE_TREE => Some(RevId::Tree(read_tree(reader)?)),
            _ => return None,
        };
        let trees = read_trees(reader, self.flags & TREES != 0)?;
        self.vector = VersionVector { current, merged, history, trees };
        let body_len = reader.length()?;
        self.body = reader.take(body_len)?;
        Some(true)
    }

    /// The record last read.
    pub(super) fn revision(&self) -> StoredRevision {
        StoredRevision {
            sequence: self.sequence,
            id: self.id.as_str().into(),
            vector: self.vector.clone(),
            deleted: self.flags & TOMBSTONE != 0,
            remote_ancestor: self.remote_ancestor,
            body: self.body.to_vec(),
        }
    }
}

fn read_tree(reader: &mut Reader<'_>) -> Option<TreeId> {
    let generation = reader.number()?;
    let len = reader.length()?;
    TreeId::new(generation, reader.take(len)?)
}

fn read_trees(reader: &mut Reader<'_>, present: bool) -> Option<Vec<TreeId>> {
    if !present {
        return Some(Vec::new());
    }
    let count = reader.length().filter(|&count| (1..=TREE_IDS_MAX).contains(&count))?;
    (0..count).map(|_| read_tree(reader)).collect()
}

fn read_version(reader: &mut Reader<'_>, base: u64, sources: &impl SourceNumbers) -> Option<Version> {
    let time = base.wrapping_add(reader.zigzag()? as u64);
    let source = match reader.number()? {
        0 => SourceId(reader.take(16)?.try_into().ok()?),
        number => sources.source(number)?,
    };
    Some(Version { time, source })
}

fn read_versions(
    reader: &mut Reader<'_>,
    present: bool,
    base: u64,
    sources: &impl SourceNumbers,
) -> Option<Vec<Version>> {
    if !present {
        return Some(Vec::new());
    }
    let count = reader.length().filter(|&count| count <= VERSIONS_MAX)?;
    (0..count).map(|_| read_version(reader, base, sources)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Some sources have a number, the others stand in full.
    struct Numbers;

    impl SourceNumbers for Numbers {
        fn number(&self, source: SourceId) -> u32 {
            u32::from(source.0[0] % 4)
        }

        fn source(&self, number: u32) -> Option<SourceId> {
            (1..4).contains(&number).then_some(SourceId([number as u8; 16]))
        }
    }

    fn version() -> impl Strategy<Value = Version> {
        (any::<u64>(), 0u8..8).prop_map(|(time, n)| {
            // What has a number is known by it.
            let source = SourceId([if n % 4 == 0 { n } else { n % 4 }; 16]);
            Version { time, source }
        })
    }

    fn tree() -> impl Strategy<Value = TreeId> {
        let digest = prop::collection::vec(any::<u8>(), 1..=20);
        (1u32..1000, digest).prop_map(|(generation, digest)| TreeId::new(generation, &digest).expect("an ID"))
    }

    fn revision() -> impl Strategy<Value = (Box<str>, VersionVector, bool, Option<RevId>, Vec<u8>)> {
        let versions = || prop::collection::vec(version(), 0..4);
        let trees = prop::collection::vec(tree(), 0..4);
        let vector = (version(), versions(), versions(), trees)
            .prop_map(|(current, merged, history, trees)| VersionVector { current, merged, history, trees });
        let ancestor =
            prop::option::of(prop_oneof![version().prop_map(RevId::Version), tree().prop_map(RevId::Tree)]);
        let body = prop_oneof![prop::collection::vec(any::<u8>(), 0..20), Just(vec![7; 300])];
        ("[a-c\u{e4}]{0,6}".prop_map(String::into_boxed_str), vector, any::<bool>(), ancestor, body)
    }

    proptest! {
        /// Whatever is in a record comes back, whatever stands before it, deflated or not.
        #[test]
        fn what_went_in_comes_out(revisions in prop::collection::vec((revision(), 1u64..1000), 1..20)) {
            let (mut codec, mut builder, mut sequence) = (Codec::default(), BlockBuilder::default(), 0);
            let mut stored = Vec::new();
            for ((id, vector, deleted, remote_ancestor, body), step) in revisions {
                sequence += step;
                stored.push(StoredRevision { sequence, id, vector, deleted, remote_ancestor, body });
            }
            stored.iter().for_each(|revision| builder.push(revision, &Numbers));
            prop_assert_eq!((builder.count(), builder.last_sequence()), (stored.len(), sequence));
            let len = builder.len();
            let value = builder.finish(&mut codec);
            prop_assert_eq!(records_len(&value), Some(len));
            prop_assert_eq!(read_block(&value, &Numbers, &mut codec), Some(stored));
            // A part of it is none.
            prop_assert_eq!(read_block(&value[..value.len() - 1], &Numbers, &mut codec), None);
        }
    }
}
