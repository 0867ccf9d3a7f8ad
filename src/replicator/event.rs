//! What a session tells its driver.

pub use super::direction::Direction;
use super::error::SessionError;
use super::unsynced::Unsynced;
use crate::blip::ErrorReply;
use crate::replica::blobs::{BlobDigest, BlobState};
use crate::replica::store::{
    CommitOutcome, ConflictOutcome, ConflictPolicy, IncomingRevision, Rejection, ReplicaStore,
    ReplicaStoreError,
};

/// Whether there is work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Documents are moving, or may be.
    Busy,
    /// Everything known is exchanged; a continuous session waits for changes.
    Idle,
}

/// How far a session is. Units are revisions; `total` grows while more are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Revisions dealt with: sent and confirmed, received and durable, or found to be known already.
    pub completed: u64,
    /// Revisions that are to be dealt with; what is not read yet is estimated from sequences, so that it may shrink.
    pub total: u64,
    /// Revisions whose body really went over the connection.
    pub documents: u64,
    /// How many revisions were given to the transport and are not confirmed yet, by the bytes of the messages that carry
    /// them: many travel in one message, and several messages take turns.
    pub under_way: u64,
    /// Bytes of frames that were given to the transport, compressed as they go.
    pub bytes_sent: u64,
    /// Bytes of frames that came.
    pub bytes_received: u64,
}

/// One document that was replicated, or failed to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DocumentReplication {
    /// Which way it went.
    pub direction: Direction,
    /// Full name of its collection.
    pub collection: String,
    /// Its ID.
    pub id: String,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// Whether the peer says that it is no longer for us: it was removed here, or stays with an error.
    pub access_removed: bool,
    /// Why it failed.
    pub error: Option<ErrorReply>,
}

/// News for the driver.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// How far the session is. Several changes may come as one event.
    Progress(Progress),
    /// Busy or idle.
    Activity(Activity),
    /// A document was replicated, or failed to be.
    DocumentReplicated(DocumentReplication),
    /// Both sides have changed a document since they last had the same of it: how that was resolved, or is to be.
    Conflict {
        /// Full name of the collection.
        collection: String,
        /// The document's ID.
        id: String,
        /// How.
        outcome: ConflictOutcome,
    },
    /// What this session and those before it could not sync, all together; when that has changed, and before the end.
    Unsynced(Box<Unsynced>),
    /// The session is over; nothing follows. Frames that are queued may still be sent.
    Finished(Result<(), SessionError>),
}

/// Identifies a commit of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// Revisions to be made durable, or blobs: the driver calls [`CommitRequest::run`] where it may block and gives the result to `handle_commit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// For `handle_commit`.
    pub id: CommitId,
    /// Blobs whose content has come; then there are no revisions.
    pub blobs: Vec<BlobDigest>,
    /// Blobs of which something else came: revisions that name them are refused for that.
    pub corrupt: Vec<BlobDigest>,
    /// In the order in which they came.
    pub revisions: std::sync::Arc<Vec<IncomingRevision>>,
}

impl CommitRequest {
    /// Makes revisions or blobs durable. Blocks. One outcome for each: a blob that is not what its digest says was thrown away and is
    /// rejected.
    ///
    /// # Errors
    /// The store failed as a whole; some may be stored, none may be acknowledged.
    pub fn run(&self, store: &dyn ReplicaStore, policy: ConflictPolicy<'_>) -> CommitResult {
        if !self.blobs.is_empty() {
            return self.blobs.iter().map(|digest| finish(digest, store)).collect();
        }
        let corrupt: Vec<String> = self.corrupt.iter().map(BlobDigest::to_string).collect();
        let mut outcomes = store.commit(&self.revisions, policy)?;
        for outcome in &mut outcomes {
            if let CommitOutcome::Rejected(Rejection::MissingBlob { digest }) = outcome
                && corrupt.contains(digest)
            {
                let digest = std::mem::take(digest);
                *outcome = CommitOutcome::Rejected(Rejection::CorruptBlob { digest });
            }
        }
        Ok(outcomes)
    }
}

fn finish(digest: &BlobDigest, store: &dyn ReplicaStore) -> Result<CommitOutcome, ReplicaStoreError> {
    // Another session may have done the same meanwhile.
    if store.finish_blob(digest)? || matches!(store.blob(digest)?, BlobState::Whole(_)) {
        return Ok(CommitOutcome::AlreadyKnown { sequence: 0 });
    }
    Ok(CommitOutcome::Rejected(Rejection::CorruptBlob { digest: digest.to_string() }))
}

/// What `handle_commit` takes.
pub type CommitResult = Result<Vec<CommitOutcome>, ReplicaStoreError>;
