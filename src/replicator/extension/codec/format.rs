//! What a `revs` message holds, its flags and its numbers.

use bytes::Bytes;

use crate::blip::varint;
use crate::replica::revision::{RevisionError, SourceId, VERSIONS_MAX, VersionVector};

/// Flags of one revision.
pub(super) mod flag {
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
pub(super) mod head {
    /// The revisions were asked for; otherwise they come from the feed in its order.
    pub const ASKED: u8 = 0x01;
    /// The feed ends here for now.
    pub const LAST: u8 = 0x02;
    /// What follows the authors is folded (`fold.rs`).
    pub const FOLDED: u8 = 0x04;
}

/// The clock's own step: times that differ only by it are sent in units of it. The lower bits are a counter.
pub(super) const COARSE: i64 = 1 << 16;

/// Authors one message may name.
pub(super) const SOURCES_MAX: usize = 2 * VERSIONS_MAX;

/// Versions beside the current ones that all vectors of one message may hold together.
pub(super) const HISTORY_VERSIONS_MAX: usize = 65_536;

/// A revision in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevEntry {
    /// Its place in the sender's feed.
    pub sequence: u64,
    /// The document's ID; not empty, at most [`REVS_ID_BYTES_MAX`](crate::replicator::extension::REVS_ID_BYTES_MAX) bytes; not checked further.
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

/// What a message begins with.
pub(super) struct Beginning {
    pub(super) flags: u8,
    pub(super) from: u64,
    pub(super) through: u64,
    pub(super) count: usize,
    pub(super) sources: Vec<SourceId>,
}

/// A message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {field}")]
pub struct CodecError {
    /// What was being read.
    pub field: &'static str,
}

/// Signed to unsigned so that small magnitudes stay small.
pub(in crate::replicator::extension) fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(in crate::replicator::extension) fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Appends a variable-length integer.
pub(in crate::replicator::extension) fn put(out: &mut Vec<u8>, n: u64) {
    varint::put(n, out);
}

/// Reads a variable-length integer and moves `at` behind it.
pub(in crate::replicator::extension) fn get(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let (n, rest) = varint::take(bytes.get(*at..)?, "revs").ok()?;
    *at = bytes.len() - rest.len();
    Some(n)
}
