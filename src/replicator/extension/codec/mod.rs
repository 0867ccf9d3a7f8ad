//! The body of a `revs` message: revisions in columns, so that like stands beside like when deflate sees it.
//!
//! Source: `firmware-notes/replication.md`, extension, byte tables.

mod decode;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bytes::Bytes;

pub use self::decode::decode;
use super::{REVS_ENTRIES_MAX, RevsFormat};
use crate::blip::varint;
use crate::replica::revision::{RevisionError, SourceId, VERSIONS_MAX, VersionVector};
use crate::replica::store::Change;

/// Flags of one revision.
mod flag {
    /// A tombstone.
    pub const DELETED: u8 = 0x01;
    /// Its body follows; otherwise it is an offer.
    pub const BODY: u8 = 0x02;
    /// Its sequence is not one more than that of the revision before.
    pub const SEQUENCE: u8 = 0x04;
    /// It has merged versions or a history.
    pub const HISTORY: u8 = 0x08;
    /// Its author is not that of the revision before.
    pub const AUTHOR: u8 = 0x10;
    /// Its time differs from that of the revision before by a multiple of [`super::COARSE`].
    pub const COARSE: u8 = 0x20;
    /// It was asked for and is not there any more.
    pub const GONE: u8 = 0x40;
    /// It is at a tree ID or has some in its history.
    pub const TREES: u8 = 0x80;
}

/// Flags of a message.
mod head {
    /// The revisions were asked for; otherwise they come from the feed in its order.
    pub const ASKED: u8 = 0x01;
    /// The feed ends here for now.
    pub const LAST: u8 = 0x02;
}

/// The clock's own step: times that differ only by it are sent in units of it. The lower bits are a counter.
const COARSE: i64 = 1 << 16;

/// Authors one message may name.
const SOURCES_MAX: usize = 2 * VERSIONS_MAX;

/// Versions beside the current ones that all vectors of one message may hold together.
const HISTORY_VERSIONS_MAX: usize = 65_536;

/// A revision in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevEntry {
    /// Its place in the sender's feed.
    pub sequence: u64,
    /// The document's ID; not empty, at most [`REVS_ID_BYTES_MAX`](super::REVS_ID_BYTES_MAX) bytes; not checked further.
    pub id: String,
    /// The revision.
    pub vector: VersionVector,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// What comes with it.
    pub content: Content,
    /// Why its vector is not accepted. With more versions than are, it has the current one alone.
    pub refused: Option<RevisionError>,
}

/// What comes with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its body as JSON text.
    Body(Bytes),
    /// Nothing yet: does the receiver want it?
    Offer,
    /// Nothing any more: a newer revision took its place, which comes later.
    Gone,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevsMessage {
    /// Whether the revisions were asked for.
    pub asked: bool,
    /// Whether the feed ends here for now.
    pub last: bool,
    /// Where the feed stood before this message.
    pub from: u64,
    /// Where it stands after: all changes in between are in this message or need not be sent.
    pub through: u64,
    /// The revisions.
    pub revisions: Vec<RevEntry>,
}

/// A message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {field}")]
pub struct CodecError {
    /// What was being read.
    pub field: &'static str,
}

/// Builds a message, one revision after the other.
#[derive(Debug)]
pub struct RevsEncoder {
    format: RevsFormat,
    asked: bool,
    from: u64,
    count: usize,
    sources: Vec<SourceId>,
    /// Their numbers.
    source_numbers: HashMap<SourceId, usize>,
    flags: Vec<u8>,
    sequences: Vec<u8>,
    ids: Vec<u8>,
    versions: Vec<u8>,
    lengths: Vec<u8>,
    bodies: Vec<u8>,
    last_sequence: u64,
    last_id: String,
    last_time: u64,
    last_source: usize,
}

impl RevsEncoder {
    /// An empty message.
    pub fn new(format: RevsFormat, asked: bool, from: u64) -> RevsEncoder {
        RevsEncoder {
            format,
            asked,
            from,
            count: 0,
            sources: Vec::new(),
            source_numbers: HashMap::new(),
            flags: Vec::new(),
            sequences: Vec::new(),
            ids: Vec::new(),
            versions: Vec::new(),
            lengths: Vec::new(),
            bodies: Vec::new(),
            last_sequence: from,
            last_id: String::new(),
            last_time: 0,
            last_source: usize::MAX,
        }
    }

    /// Revisions so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far, roughly.
    pub fn size(&self) -> usize {
        self.bodies.len() + self.ids.len() + self.versions.len() + 2 * self.count + 16 * self.sources.len()
    }

    /// Whether another revision belongs into another message: the table of authors might overflow.
    pub fn is_full(&self) -> bool {
        self.count >= REVS_ENTRIES_MAX || self.sources.len() + VERSIONS_MAX > SOURCES_MAX
    }

    /// Adds a revision.
    pub fn push(&mut self, change: &Change, content: &Content) {
        let mut flags = u8::from(change.deleted) * flag::DELETED;
        self.push_sequence(change.sequence, &mut flags);
        self.push_id(&change.id);
        match self.format {
            RevsFormat::Versions if !change.vector.trees.is_empty() => {
                self.push_vector(&change.vector.with_trees_as_versions(), &mut flags);
            }
            _ => self.push_vector(&change.vector, &mut flags),
        }
        match content {
            Content::Body(body) => {
                flags |= flag::BODY;
                put(&mut self.lengths, body.len() as u64);
                self.bodies.extend_from_slice(body);
            }
            Content::Offer => {}
            Content::Gone => flags |= flag::GONE,
        }
        self.flags.push(flags);
        self.count += 1;
    }

    fn push_sequence(&mut self, sequence: u64, flags: &mut u8) {
        let step = sequence.wrapping_sub(self.last_sequence) as i64;
        if step != 1 {
            *flags |= flag::SEQUENCE;
            put(&mut self.sequences, zigzag(step));
        }
        self.last_sequence = sequence;
    }

    fn push_id(&mut self, id: &str) {
        let shared = id.bytes().zip(self.last_id.bytes()).take_while(|(a, b)| a == b).count();
        put(&mut self.ids, shared as u64);
        put(&mut self.ids, (id.len() - shared) as u64);
        self.ids.extend_from_slice(&id.as_bytes()[shared..]);
        self.last_id.clear();
        self.last_id.push_str(id);
    }

    fn push_vector(&mut self, vector: &VersionVector, flags: &mut u8) {
        let source = self.source(vector.current.source);
        if source != self.last_source {
            *flags |= flag::AUTHOR;
            put(&mut self.versions, source as u64);
            self.last_source = source;
        }
        let step = vector.current.time.wrapping_sub(self.last_time) as i64;
        if step % COARSE == 0 && step != 0 {
            *flags |= flag::COARSE;
            put(&mut self.versions, zigzag(step / COARSE));
        } else {
            put(&mut self.versions, zigzag(step));
        }
        self.last_time = vector.current.time;
        self.push_history(vector, flags);
        self.push_trees(vector, flags);
    }

    fn push_history(&mut self, vector: &VersionVector, flags: &mut u8) {
        if vector.merged.is_empty() && vector.history.is_empty() {
            return;
        }
        *flags |= flag::HISTORY;
        put(&mut self.versions, vector.merged.len() as u64);
        put(&mut self.versions, vector.history.len() as u64);
        for version in vector.merged.iter().chain(&vector.history) {
            let source = self.source(version.source);
            put(&mut self.versions, source as u64);
            put(&mut self.versions, zigzag(version.time.wrapping_sub(vector.current.time) as i64));
        }
    }

    fn push_trees(&mut self, vector: &VersionVector, flags: &mut u8) {
        if vector.trees.is_empty() {
            return;
        }
        *flags |= flag::TREES;
        put(&mut self.versions, vector.trees.len() as u64);
        for id in &vector.trees {
            put(&mut self.versions, id.generation().into());
            put(&mut self.versions, id.digest().len() as u64);
            self.versions.extend_from_slice(id.digest());
        }
    }

    /// The number of an author in this message.
    fn source(&mut self, source: SourceId) -> usize {
        // Nearly always it is the one that was named last.
        if let Some(last) = self.sources.len().checked_sub(1).filter(|last| self.sources[*last] == source) {
            return last;
        }
        let next = self.sources.len();
        let number = *self.source_numbers.entry(source).or_insert(next);
        if number == next {
            self.sources.push(source);
        }
        number
    }

    /// The message: the feed stands at `through` after it.
    pub fn finish(self, through: u64, last: bool) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.size() + 64 + self.count * 6);
        body.push((u8::from(self.asked) * head::ASKED) | (u8::from(last) * head::LAST));
        put(&mut body, self.from);
        put(&mut body, through.saturating_sub(self.from));
        put(&mut body, self.count as u64);
        put(&mut body, self.sources.len() as u64);
        for source in &self.sources {
            body.extend_from_slice(&source.0);
        }
        for column in [&self.flags, &self.sequences, &self.ids, &self.versions, &self.lengths, &self.bodies] {
            body.extend_from_slice(column);
        }
        body
    }
}

/// Signed to unsigned so that small magnitudes stay small.
pub(super) fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(super) fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Appends a variable-length integer.
pub(super) fn put(out: &mut Vec<u8>, n: u64) {
    varint::put(n, out);
}

/// Reads a variable-length integer and moves `at` behind it.
pub(super) fn get(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let (n, rest) = varint::take(bytes.get(*at..)?, "revs").ok()?;
    *at = bytes.len() - rest.len();
    Some(n)
}
