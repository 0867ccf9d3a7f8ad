//! What ends a session.

use std::time::Duration;

use crate::blip::{BlipError, ErrorReply};
use crate::replica::store::ReplicaStoreError;

/// Why a session ended before its work was done. The session is over: it sends what is queued and takes nothing in.
/// What was committed stays committed, what was acknowledged stays acknowledged, and the checkpoint last saved holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer broke the framing below.
    #[error("peer broke BLIP: {0}")]
    Blip(
        #[doc(hidden)]
        #[from]
        BlipError,
    ),
    /// The peer answered a request that must succeed with an error.
    #[error("peer refused {request}: {error}")]
    Refused {
        /// Profile of our request.
        request: &'static str,
        /// Its answer.
        error: ErrorReply,
    },
    /// The peer has no such collection.
    #[error("peer has no collection {name:?}")]
    RemoteCollectionMissing {
        /// Full name.
        name: String,
    },
    /// The peer lacks collections without which the run may go on: a new connection that does not ask for them will do.
    #[error("peer has no collections {names:?}")]
    SomeCollectionsMissing {
        /// Full names.
        names: Vec<String>,
    },
    /// This database has no such collection.
    #[error("no collection {name:?} here")]
    LocalCollectionMissing {
        /// Full name.
        name: String,
    },
    /// The configuration cannot be replicated. Nothing was sent.
    #[error("configuration: {reason}")]
    Configuration {
        /// What is wrong.
        reason: &'static str,
    },
    /// The peer sent something that is not of the protocol.
    #[error("malformed {what} from the peer")]
    Malformed {
        /// Which message or field.
        what: &'static str,
    },
    /// The peer sent more of something than is accepted.
    #[error("{actual} {what} from the peer, at most {max} are accepted")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
        /// What was given.
        actual: usize,
    },
    /// The peer keeps its documents in another generation of revision IDs.
    #[error("peer uses another kind of revision IDs: one has rev-trees, the other version-vectors")]
    Versioning,
    /// The peer owes an answer and nothing moves.
    #[error("peer has owed an answer for {waited:?}")]
    TimedOut {
        /// Since when.
        waited: Duration,
    },
    /// The local database failed.
    #[error(transparent)]
    Store(
        #[doc(hidden)]
        #[from]
        ReplicaStoreError,
    ),
}

impl SessionError {
    /// Whether a new connection may do better.
    pub(crate) fn recoverable(&self) -> bool {
        match self {
            // The other peers' messages end, and then there is room.
            SessionError::Blip(BlipError::SharedBytesUsedUp { .. }) => true,
            SessionError::Blip(_) | SessionError::Malformed { .. } | SessionError::TooMany { .. } => false,
            SessionError::TimedOut { .. } => true,
            SessionError::Store(error) => error.recoverable,
            SessionError::Refused { error, .. } => is_transient(error),
            SessionError::RemoteCollectionMissing { .. }
            | SessionError::SomeCollectionsMissing { .. }
            | SessionError::LocalCollectionMissing { .. }
            | SessionError::Configuration { .. }
            | SessionError::Versioning => false,
        }
    }
}

/// Whether a peer refuses a revision because it has another one that this one does not know.
pub(crate) fn is_conflict(error: &ErrorReply) -> bool {
    matches!((error.domain.as_str(), error.code), ("HTTP", 409) | ("LiteCore", 8))
}

/// HTTP statuses that mean "later".
pub(in crate::replicator) fn is_transient(error: &ErrorReply) -> bool {
    error.domain == "HTTP" && matches!(error.code, 408 | 429 | 500 | 502 | 503 | 504)
}
