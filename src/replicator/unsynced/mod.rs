//! What could not be synced: documents and collections, named, for people and for the next run.
//!
//! A document that one side refuses for what it is would be refused again: it is put on a list (`list::UnsyncedList`) that
//! is kept for each peer and collection, the checkpoint passes it, and later runs name it without trying it. It is tried
//! again when it was changed, when the side that refused it has learned to take it, or on demand.
//! Source: `firmware-notes/replication.md`, what could not be synced.

pub(in crate::replicator) mod failure;
pub mod list;
mod named;

pub use self::list::{UnsyncedWithPeer, stored};
pub use self::named::{
    LISTED_MAX, Lack, ONLY_AT_PEER_MAX, TAKES, Unsynced, UnsyncedCollection, UnsyncedDocument,
};
