//! What could not be synced, as people are told.

use crate::blip::ErrorReply;
use crate::replicator::direction::Direction;

/// Documents that [`Unsynced`] names.
pub const LISTED_MAX: usize = 100;

/// Collections that a peer may name as its own; further ones are not told.
pub const ONLY_AT_PEER_MAX: usize = 32;

/// What this release takes. Counts up whenever a document that was refused for what it is would now be taken, so that
/// what stands on lists is tried again: kept with each list, and told to gattway peers.
pub const TAKES: u32 = 2;

/// A document that was not synced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnsyncedDocument {
    /// Full name of its collection.
    pub collection: String,
    /// Which way it should have gone.
    pub direction: Direction,
    /// Its ID, cut if it is longer than any may be.
    pub id: String,
    /// The revision that was refused; empty if that could not be read.
    pub revision: String,
    /// Whether that is a tombstone.
    pub deleted: bool,
    /// Why.
    pub error: ErrorReply,
    /// Whether the next run tries it again by itself, because the reason may be gone by then.
    pub is_open: bool,
}

/// Why a collection was not synced, or one direction of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// The peer does not have it, or does not show it.
    MissingAtPeer,
    /// The peer asked for it, and it is not here, or not for that peer.
    MissingHere,
    /// The peer takes nothing.
    PushRefused(ErrorReply),
    /// The peer gives nothing.
    PullRefused(ErrorReply),
    /// The peer may not read it here.
    MayNotRead,
    /// The peer may not write it here.
    MayNotWrite,
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lack::MissingAtPeer => f.write_str("the peer does not have it"),
            Lack::MissingHere => f.write_str("the peer asked for it, and it is not offered here"),
            Lack::PushRefused(error) => write!(f, "nothing was sent, the peer refuses it: {error}"),
            Lack::PullRefused(error) => write!(f, "nothing was received, the peer refuses it: {error}"),
            Lack::MayNotRead => f.write_str("nothing was sent: the peer may not read it"),
            Lack::MayNotWrite => f.write_str("nothing was received: the peer may not write it"),
        }
    }
}

/// A collection that was not synced, or not in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnsyncedCollection {
    /// Full name.
    pub name: String,
    /// Why.
    pub lack: Lack,
}

/// Everything that the sync with one peer leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsynced {
    /// Documents, all together. Above what lists can hold it is counted by refusals, so that one may count twice.
    pub documents: u64,
    /// The first `LISTED_MAX` of them.
    pub listed: Vec<UnsyncedDocument>,
    /// Collections that both sides should have and one lacks or keeps back.
    pub collections: Vec<UnsyncedCollection>,
    /// Collections that the peer offers and that were not asked for. Nothing is wrong with that.
    pub only_at_peer: Vec<String>,
}

impl Unsynced {
    /// Whether everything that should be synced is.
    pub fn is_empty(&self) -> bool {
        self.documents == 0 && self.collections.is_empty()
    }
}
