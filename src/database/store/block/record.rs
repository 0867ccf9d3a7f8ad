//! Records of a block that is not in columns, ordered by sequence; numbers in postcard's varint, signed ones zigzag:
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

use std::ops::Range;

use crate::database::packed::{Reader, put_text, put_varint, put_zigzag};
use crate::replica::revision::{
    CLOSED_IDS_MAX, RevId, SourceId, TREE_IDS_MAX, TreeId, VERSIONS_MAX, Version, VersionVector,
};

pub(super) const TOMBSTONE: u8 = 1;
const MERGED: u8 = 2;
const HISTORY: u8 = 4;
pub(super) const REMOTE_ANCESTOR: u8 = 8;
const TREES: u8 = 16;
const REMOTE_TREE: u8 = 32;

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

/// Writes records one behind the other.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) bytes: Vec<u8>,
    pub(super) last_sequence: u64,
    last_time: u64,
    last_id: String,
}

impl Rows {
    /// Adds a record; gives its flags, and where what stands between its current version and its body is.
    pub(super) fn push(
        &mut self,
        revision: &StoredRevision,
        sources: &impl SourceNumbers,
    ) -> (u8, Range<usize>) {
        let (out, vector, flags) = (&mut self.bytes, &revision.vector, flags_of(revision));
        out.push(flags);
        put_varint(out, revision.sequence.wrapping_sub(self.last_sequence));
        let shared = shared_prefix(&self.last_id, &revision.id);
        put_varint(out, shared as u64);
        put_text(out, &revision.id[shared..]);
        put_version(out, vector.current, self.last_time, sources);
        let further = out.len();
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
        let further = further..out.len();
        put_varint(out, revision.body.len() as u64);
        out.extend_from_slice(&revision.body);
        self.last_sequence = revision.sequence;
        self.last_time = vector.current.time;
        self.last_id.replace_range(shared.., &revision.id[shared..]);
        (flags, further)
    }
}

fn flags_of(revision: &StoredRevision) -> u8 {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let vector = &revision.vector;
    flag(revision.deleted, TOMBSTONE)
        | flag(!vector.merged.is_empty(), MERGED)
        | flag(!vector.history.is_empty(), HISTORY)
        | flag(matches!(revision.remote_ancestor, Some(RevId::Version(_))), REMOTE_ANCESTOR)
        | flag(!vector.trees.is_empty(), TREES)
        | flag(matches!(revision.remote_ancestor, Some(RevId::Tree(_))), REMOTE_TREE)
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
        (self.vector, self.remote_ancestor) = read_further(reader, self.flags, current, *sources)?;
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

/// What stands behind the current version of a record with these flags.
pub(super) fn read_further(
    reader: &mut Reader<'_>,
    flags: u8,
    current: Version,
    sources: &impl SourceNumbers,
) -> Option<(VersionVector, Option<RevId>)> {
    let time = current.time;
    let merged = read_versions(reader, flags & MERGED != 0, time, sources)?;
    let history = read_versions(reader, flags & HISTORY != 0, time, sources)?;
    let remote_ancestor = match flags & (REMOTE_ANCESTOR | REMOTE_TREE) {
        0 => None,
        REMOTE_ANCESTOR => Some(RevId::Version(read_version(reader, time, sources)?)),
        REMOTE_TREE => Some(RevId::Tree(read_tree(reader)?)),
        _ => return None,
    };
    let trees = read_trees(reader, flags & TREES != 0)?;
    Some((VersionVector { current, merged, history, trees }, remote_ancestor))
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
    let count = reader.length().filter(|&count| (1..=TREE_IDS_MAX + 1 + CLOSED_IDS_MAX).contains(&count))?;
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
