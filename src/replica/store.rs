//! What replication needs of a database: the one trait between the two.
//!
//! Calls are synchronous. Reads are short; [`ReplicaStore::commit`] blocks until stable storage has the data, so a driver
//! calls it on a thread that may block. One file, because it is one trait with what it takes and gives.

use std::fmt;

use bytes::Bytes;

use super::blobs::{BlobDigest, BlobState};
use super::revision::{RevId, SourceId, VersionVector, Versioning};
use super::{DOCUMENT_BODY_MAX, Invalid, clip};

/// A collection of one open store, valid as long as the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionId(pub u32);

/// One row of the change feed: the newest revision of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Position in this collection's feed, from 1, growing with each change.
    pub sequence: u64,
    /// The document's ID.
    pub id: String,
    /// Its current revision.
    pub vector: VersionVector,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// Size of the body as JSON text in bytes, exact or a close estimate (it is a hint on the wire).
    pub body_size: u64,
    /// The previous revision that some peer is known to have had when this one was saved, as far as the store knows.
    pub remote_ancestor: Option<RevId>,
    /// The body as JSON text without `_id` and `_rev`, if it was asked for; `{}` for an empty tombstone.
    pub body: Option<Bytes>,
}

impl Change {
    /// A live revision of which only this is known.
    pub(crate) fn known_as(sequence: u64, id: impl Into<String>, vector: VersionVector) -> Change {
        let (id, deleted, body_size, remote_ancestor, body) = (id.into(), false, 0, None, None);
        Change { sequence, id, vector, deleted, body_size, remote_ancestor, body }
    }
}

/// A revision that came from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingRevision {
    /// Which collection.
    pub collection: CollectionId,
    /// The document's ID.
    pub id: String,
    /// The revision with its history. Stored in place of another it gains that one's history, or it would be taken for a
    /// conflict where its predecessor is known.
    pub vector: VersionVector,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// JSON object text without `_id` and `_rev`. Not yet checked.
    pub body: Bytes,
}

/// What became of an incoming revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Stored and on stable storage.
    Inserted {
        /// Its place in the change feed.
        sequence: u64,
    },
    /// The store has this revision or one that descends from it, or has removed it for good. On stable storage too.
    AlreadyKnown {
        /// Place of the stored revision in the change feed; 0 if it was removed.
        sequence: u64,
    },
    /// Refused: it conflicts with the local revision (only under [`ConflictPolicy::Refuse`]). If each contains the other's
    /// current version, the local one stands in the feed once more, so that the peer asks for it again.
    Conflict {
        /// The local revision.
        local: VersionVector,
    },
    /// It conflicted and was resolved; the result is on stable storage.
    Resolved {
        /// Place of the result in the change feed.
        sequence: u64,
        /// Whether the result differs from the incoming revision, so that the peer lacks it.
        push: bool,
        /// Which side was kept.
        outcome: ConflictOutcome,
    },
    /// Refused for what it is: bad JSON, bad ID, too large. Nothing of it was stored.
    Rejected(Rejection),
}

/// What became of a conflict, as seen from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConflictOutcome {
    /// The passive side has refused the peer's revision, and the peer is to resolve it. The outcome follows if it comes within
    /// the connection; a stock peer pushes what it decided with its next sync only.
    Open,
    /// The revision of this side was kept.
    Local,
    /// The peer's revision was kept.
    Remote,
    /// Both were merged into a new revision.
    Merged,
    /// Both were replaced by a tombstone.
    Deleted,
}

/// Why a revision was refused; gives the error on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Not a JSON object, or one with a key that none may have.
    #[error("document body: {0}")]
    BadBody(String),
    /// An ID that no document may have.
    #[error("document ID {id:?}: {reason}")]
    BadId {
        /// The ID, shortened.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Body above the limit.
    #[error("document body of {actual} bytes, at most {max} can be synced: split it")]
    TooLarge {
        /// The limit in bytes.
        max: usize,
        /// What was given, in bytes.
        actual: usize,
    },
    /// A version that cannot be: this database's own author ID with a time it never gave out.
    #[error("revision: {0}")]
    BadRevision(String),
    /// It names a blob, and its content is not here.
    #[error("blob {digest} is not here, so the document would not be whole")]
    MissingBlob {
        /// The digest by which the document names it.
        digest: String,
    },
    /// It names a blob, and what came as its content is not that.
    #[error("blob {digest}: what came is something else")]
    CorruptBlob {
        /// The digest by which the document names it.
        digest: String,
    },
    /// A custom resolver failed.
    #[error("conflict resolver: {0}")]
    Resolver(String),
}

impl Rejection {
    /// An ID that no document may have.
    pub(crate) fn bad_id(id: &str, reason: &dyn fmt::Display) -> Rejection {
        Rejection::BadId { id: clip(id), reason: reason.to_string() }
    }

    /// What keeps a stored document from being sent.
    pub(crate) fn of_stored(id: &str, invalid: Invalid) -> Rejection {
        match invalid {
            Invalid::IdEmpty | Invalid::IdTooLong { .. } | Invalid::IdReserved | Invalid::IdControl(_) => {
                Rejection::bad_id(id, &invalid)
            }
            Invalid::TooLarge { actual } => Rejection::TooLarge { max: DOCUMENT_BODY_MAX, actual },
            _ => Rejection::BadBody(invalid.to_string()),
        }
    }
}

/// Both sides of a conflict, for a resolver.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Conflict<'a> {
    /// Full name of the collection, `scope.name`, or `_default`.
    pub collection: &'a str,
    /// The document's ID.
    pub id: &'a str,
    /// The local revision.
    pub local: &'a VersionVector,
    /// Local body; `None` if deleted.
    pub local_body: Option<&'a serde_json::Map<String, serde_json::Value>>,
    /// The incoming revision.
    pub remote: &'a VersionVector,
    /// Incoming body; `None` if deleted.
    pub remote_body: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

/// What a resolver decides. A kept revision keeps its version, as with Couchbase Lite; only if local and remote have each
/// been kept against the other before (on other devices, through other revisions) does the kept content get a version of
/// its own, or the two would stay different.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Resolution {
    /// Keep the local revision; the remote one becomes part of its history.
    Local,
    /// Take the remote revision.
    Remote,
    /// Save this body as a merge of both.
    Merge(serde_json::Map<String, serde_json::Value>),
    /// Save a tombstone as a merge of both.
    Delete,
}

/// Decides conflicts, on the active side. Called without any lock held, possibly more than once for one conflict if
/// the document changes meanwhile.
pub trait ConflictResolver: Send + Sync {
    /// Decides one conflict; an `Err` leaves the document as it was and reports the revision as failed.
    fn resolve(&self, conflict: &Conflict<'_>) -> Result<Resolution, String>;
}

/// A function is a resolver: `Arc::new(|conflict: &Conflict<'_>| Ok(Resolution::Local))`.
impl<F> ConflictResolver for F
where
    F: Fn(&Conflict<'_>) -> Result<Resolution, String> + Send + Sync,
{
    fn resolve(&self, conflict: &Conflict<'_>) -> Result<Resolution, String> {
        self(conflict)
    }
}

/// What to do with a revision that conflicts.
#[derive(Clone, Copy)]
pub enum ConflictPolicy<'a> {
    /// Passive side.
    Refuse,
    /// Active side.
    Resolve(&'a dyn ConflictResolver),
}

impl fmt::Debug for ConflictPolicy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConflictPolicy::Refuse => "Refuse",
            ConflictPolicy::Resolve(_) => "Resolve",
        })
    }
}

/// A failure of the store as a whole: full disk, damage, closed. No outcome is known; nothing may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("store: {message}")]
pub struct ReplicaStoreError {
    /// For people.
    pub message: String,
    /// Whether trying again later can help (a full disk) or not (damage).
    pub recoverable: bool,
}

/// A database as replication sees it: an `Arc` of a [`Database`](crate::Database) is one, and nothing else is.
pub trait ReplicaStore: Send + Sync {
    /// This database's own author ID. Part of the checkpoint's identity.
    #[doc(hidden)]
    fn source(&self) -> SourceId;

    /// How it identifies revisions.
    #[doc(hidden)]
    fn versioning(&self) -> Versioning {
        Versioning::VersionVectors
    }

    /// The collection of a full name (`_default`, `_default._default`, `scope.name`), if it exists.
    #[doc(hidden)]
    fn collection(&self, name: &str) -> Option<CollectionId>;

    /// Every collection, with its full name.
    #[doc(hidden)]
    fn collections(&self) -> Vec<(CollectionId, String)>;

    /// The newest sequence of the collection's feed, 0 if nothing was ever saved.
    #[doc(hidden)]
    fn last_sequence(&self, collection: CollectionId) -> u64;

    /// Returns when stable storage has everything that was saved before the call, so that the feed shows it. Blocks.
    #[doc(hidden)]
    fn make_durable(&self) -> Result<(), ReplicaStoreError>;

    /// Changes after sequence `since` in order, at most `limit`, bodies included if asked for. Large documents make it
    /// fewer, so that what is read at a time stays small; it is empty only if there are none.
    #[doc(hidden)]
    fn changes(
        &self,
        collection: CollectionId,
        since: u64,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Vec<Change>, ReplicaStoreError>;

    /// The newest revision of one document, tombstones included, with its body.
    #[doc(hidden)]
    fn document(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError>;

    /// The newest revision of one document without its body.
    #[doc(hidden)]
    fn revision(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError>;

    /// The body of a document at this revision as JSON text, if it is here: as it is now, or as it was when a peer had it. The base
    /// of a delta.
    #[doc(hidden)]
    fn body_at(
        &self,
        _collection: CollectionId,
        _id: &str,
        _revision: RevId,
    ) -> Result<Option<Bytes>, ReplicaStoreError> {
        Ok(None)
    }

    /// Whether a document has expired since it was read: it is not to be sent any more.
    #[doc(hidden)]
    fn is_expired(&self, _collection: CollectionId, _id: &str) -> Result<bool, ReplicaStoreError> {
        Ok(false)
    }

    /// Whether a revision of a document that there is not was removed here for good (purged, expired, too old), so that it is as
    /// good as known. `is_whole`: the vector is all of it, and not the name in a list.
    #[doc(hidden)]
    fn is_removed(
        &self,
        _collection: CollectionId,
        _id: &str,
        _vector: &VersionVector,
        _is_whole: bool,
    ) -> Result<bool, ReplicaStoreError> {
        Ok(false)
    }

    /// Removes a document that is no longer for us, unless it was changed here since a peer had it. Nothing keeps it from coming
    /// back. Durable with the next synced commit, and before any checkpoint written after it. `false`: it stays, or there is none.
    #[doc(hidden)]
    fn lose(&self, _collection: CollectionId, _id: &str) -> Result<bool, ReplicaStoreError> {
        Ok(false)
    }

    /// Stores revisions and returns when all are on stable storage (group commit with other writers); outcomes in order.
    ///
    /// # Errors
    /// The store failed as a whole; some may be stored, none may be acknowledged.
    #[doc(hidden)]
    fn commit(
        &self,
        revisions: &[IncomingRevision],
        policy: ConflictPolicy<'_>,
    ) -> Result<Vec<CommitOutcome>, ReplicaStoreError>;

    /// What is here of a blob.
    #[doc(hidden)]
    fn blob(&self, _digest: &BlobDigest) -> Result<BlobState, ReplicaStoreError> {
        Ok(BlobState::Part(0))
    }

    /// Content of a whole blob from `offset` on, checked, at most `limit` bytes and empty only at its end. `None`: it is not
    /// here as a whole, or is damaged.
    #[doc(hidden)]
    fn read_blob(
        &self,
        _digest: &BlobDigest,
        _offset: u64,
        _limit: usize,
    ) -> Result<Option<Bytes>, ReplicaStoreError> {
        Ok(None)
    }

    /// Adds to the part of a blob that is here, and gives its new length. Bytes that are here already are passed over, so that two
    /// peers may give the same blob; `offset` is at most the part's length, or nothing is done. Nothing of it is durable yet.
    #[doc(hidden)]
    fn append_blob(
        &self,
        _digest: &BlobDigest,
        _offset: u64,
        _bytes: &[u8],
    ) -> Result<u64, ReplicaStoreError> {
        Ok(0)
    }

    /// Makes the part of a blob that is here a whole one, on stable storage, if its content has the digest; else removes the
    /// part and gives `false`. `true` as well if it is whole already. A blob that no document names yet stays for a day at least. Blocks.
    #[doc(hidden)]
    fn finish_blob(&self, _digest: &BlobDigest) -> Result<bool, ReplicaStoreError> {
        Ok(false)
    }

    /// A counter that grows with every change of any collection, to wait on. It may grow without a change.
    #[doc(hidden)]
    fn watch(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Tells that a peer has all local changes up to `sequence`, so that later edits remember what it had.
    #[doc(hidden)]
    fn mark_pushed(&self, collection: CollectionId, sequence: u64);

    /// Nanoseconds since 1970 by the clock that its versions come from.
    #[doc(hidden)]
    fn wall_ns(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A checkpoint this database keeps for itself (active) or for a peer (passive), by its client ID.
    #[doc(hidden)]
    fn checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
    ) -> Result<Option<StoredCheckpoint>, ReplicaStoreError>;

    /// The client IDs of all checkpoints that begin with `prefix`.
    #[doc(hidden)]
    fn checkpoint_clients(
        &self,
        collection: CollectionId,
        prefix: &str,
    ) -> Result<Vec<String>, ReplicaStoreError>;

    /// Replaces a checkpoint if `expected` is its revision (`None`: there must be none). Returns the new one's
    /// revision (`N-cc`), or `None` if the revision did not match and nothing was written. Durable with the next
    /// synced commit, or within 1 s; losing the last one only costs work.
    #[doc(hidden)]
    fn set_checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
        expected: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, ReplicaStoreError>;

    /// The same for a peer, under the name that it has proven (empty: none): a store may keep a limited number for each, and
    /// give up the oldest.
    #[doc(hidden)]
    fn set_peer_checkpoint(
        &self,
        collection: CollectionId,
        peer: &str,
        client: &str,
        expected: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, ReplicaStoreError> {
        let _ = peer;
        self.set_checkpoint(collection, client, expected, body)
    }
}

/// A checkpoint as stored: opaque to its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// `N-cc`.
    pub revision: String,
    /// Whatever the client wrote.
    pub body: Bytes,
}
