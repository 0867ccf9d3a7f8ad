//! Why a replicator stopped or went offline.

use std::time::Duration;

use crate::endpoint::framing::FramingError;
use crate::endpoint::{MessagingError, ProtocolType};
use crate::replicator::error::SessionError;

/// Close codes of ByteStream that replication knows.
/// Source: `firmware-notes/message-endpoint.md`, close codes.
pub mod close_code {
    /// Orderly end.
    pub const NORMAL: u16 = 1000;
    /// The peer is shutting down or has been told to close.
    pub const GOING_AWAY: u16 = 1001;
    /// The other side broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Stands for a closing frame without a code.
    pub const NONE: u16 = 1005;
    /// Stands for an end without a closing frame.
    pub const ABNORMAL: u16 = 1006;
    /// The peer restarts.
    pub const SERVICE_RESTART: u16 = 1012;
    /// The peer is overloaded.
    pub const TRY_AGAIN_LATER: u16 = 1013;
    /// Replication failed; a new connection may do better.
    pub const TRANSIENT: u16 = 4001;
    /// Replication failed and would fail again.
    pub const PERMANENT: u16 = 4002;
}

/// The call of a transport that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportCall {
    /// `MessageEndpointConnection::open`.
    Open,
    /// `MessageEndpointConnection::send`.
    Send,
}

impl std::fmt::Display for TransportCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TransportCall::Open => "open",
            TransportCall::Send => "send",
        })
    }
}

/// What ended a connection before replication had finished. The connection is closed; what was confirmed stays.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicatorError {
    /// The transport reported an error.
    #[error("transport: {0}")]
    Messaging(#[from] MessagingError),
    /// A call of the transport did not complete in time.
    #[error("transport did not complete `{call}` within {limit:?}")]
    TransportTimeout {
        /// Which call.
        call: TransportCall,
        /// The limit.
        limit: Duration,
    },
    /// The peer sent bytes that are not the framing of a byte stream.
    #[error("peer broke the framing: {0}")]
    Framing(
        #[doc(hidden)]
        #[from]
        FramingError,
    ),
    /// Replication failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The peer closed normally while this side had more to do (close code 1000 or 1001).
    #[error("peer is going away")]
    GoingAway,
    /// The peer closed the connection with an error.
    #[error("peer closed the connection with code {code}: {reason}")]
    ClosedByPeer {
        /// The close code.
        code: u16,
        /// What the peer says about it.
        reason: String,
    },
    /// The connection ended without a word from the peer.
    #[error("connection to the peer was lost")]
    Lost,
    /// The peer does not answer heartbeats.
    #[error("peer has not answered a heartbeat for {limit:?}")]
    PeerSilent {
        /// The limit.
        limit: Duration,
    },
    /// A peer connected and did not begin replication.
    #[error("peer has not begun to replicate within {limit:?}")]
    HandshakeTimeout {
        /// The limit.
        limit: Duration,
    },
    /// A peer has sent nothing at all for too long.
    #[error("peer has sent nothing for {limit:?}")]
    IdleTimeout {
        /// The limit.
        limit: Duration,
    },
    /// Code of the application or of this library panicked.
    #[error("{what} panicked")]
    Panicked {
        /// Where.
        what: &'static str,
    },
}

impl ReplicatorError {
    /// Whether a new connection may do better.
    pub fn is_recoverable(&self) -> bool {
        use close_code::{GOING_AWAY, SERVICE_RESTART, TRANSIENT, TRY_AGAIN_LATER};
        match self {
            ReplicatorError::Messaging(error) => error.is_recoverable(),
            ReplicatorError::Session(error) => error.recoverable(),
            ReplicatorError::ClosedByPeer { code, .. } => {
                matches!(*code, GOING_AWAY | SERVICE_RESTART | TRANSIENT | TRY_AGAIN_LATER)
            }
            ReplicatorError::TransportTimeout { .. }
            | ReplicatorError::GoingAway
            | ReplicatorError::Lost
            | ReplicatorError::PeerSilent { .. }
            | ReplicatorError::HandshakeTimeout { .. }
            | ReplicatorError::IdleTimeout { .. } => true,
            ReplicatorError::Framing(_) | ReplicatorError::Panicked { .. } => false,
        }
    }

    /// Whether a replicator tries again. A peer that goes away while there is more to do may be back soon, as a hub that is
    /// restarted is; but a transport of whole messages that ends without an error has ended a one-shot replication on purpose.
    pub(crate) fn is_worth_retry(&self, continuous: bool, protocol_type: ProtocolType) -> bool {
        let is_over = protocol_type == ProtocolType::MessageStream && !continuous;
        self.is_recoverable() && !(is_over && matches!(self, ReplicatorError::GoingAway))
    }

    /// The code that tells the peer, or `None` if the connection is past telling.
    pub(crate) fn close_code(&self) -> Option<u16> {
        match self {
            ReplicatorError::Session(error) if error.recoverable() => Some(close_code::TRANSIENT),
            ReplicatorError::Framing(_)
            | ReplicatorError::Session(
                SessionError::Blip(_) | SessionError::Malformed { .. } | SessionError::TooMany { .. },
            ) => Some(close_code::PROTOCOL_ERROR),
            // The store is this side's matter: whatever is wrong with it (a full disk, damage) is put right here, and the
            // peer must not give up for it.
            ReplicatorError::Session(SessionError::Store(_)) => Some(close_code::TRANSIENT),
            // Nothing is wrong with the peer.
            ReplicatorError::Session(
                SessionError::RemoteCollectionMissing { .. } | SessionError::SomeCollectionsMissing { .. },
            ) => Some(close_code::NORMAL),
            ReplicatorError::Session(_) | ReplicatorError::Panicked { .. } => Some(close_code::PERMANENT),
            ReplicatorError::HandshakeTimeout { .. } | ReplicatorError::IdleTimeout { .. } => {
                Some(close_code::TRANSIENT)
            }
            // The peer has closed already, or the transport cannot tell it.
            ReplicatorError::GoingAway
            | ReplicatorError::ClosedByPeer { .. }
            | ReplicatorError::Messaging(_)
            | ReplicatorError::TransportTimeout { .. }
            | ReplicatorError::Lost
            | ReplicatorError::PeerSilent { .. } => None,
        }
    }

    /// What the transport is told when its connection is closed for this: a transport that tells the peer says the same as the
    /// closing frame, which may not arrive.
    pub(crate) fn to_messaging(&self) -> MessagingError {
        match self {
            ReplicatorError::Messaging(error) => error.clone(),
            other if other.is_recoverable() || other.close_code() == Some(close_code::TRANSIENT) => {
                MessagingError::recoverable(other.to_string()).with_source(other.clone())
            }
            other => MessagingError::permanent(other.to_string()).with_source(other.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::store::ReplicaStoreError;

    /// The peer of a device whose storage has failed must not give up for it, however it hears of that.
    #[test]
    fn a_failure_of_our_store_is_nothing_that_the_peer_gives_up_for() {
        let store = |recoverable| {
            let error = ReplicaStoreError { message: "no storage space".into(), recoverable };
            ReplicatorError::Session(SessionError::Store(error))
        };
        assert!(!store(false).is_recoverable(), "it cannot be mended by another attempt from here");
        for error in [store(false), store(true)] {
            assert_eq!(error.close_code(), Some(close_code::TRANSIENT));
            assert!(error.to_messaging().is_recoverable(), "{error:?}");
        }
        let protocol = ReplicatorError::Session(SessionError::Malformed { what: "changes" });
        assert!(!protocol.to_messaging().is_recoverable());
    }
}
