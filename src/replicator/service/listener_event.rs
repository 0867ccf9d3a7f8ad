//! What the passive side tells of its connections.

use std::fmt;
use std::sync::Arc;

use super::listener_config::PEER_CONNECTIONS_MAX;
use super::status::ReplicatorStatus;
use crate::endpoint::MessageEndpointConnection;

/// Why a connection was not accepted. It was not opened and belongs to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerError {
    /// As many as are allowed.
    #[error("{max} connections are open, which is the limit")]
    TooManyConnections {
        /// The limit.
        max: usize,
    },
    /// The peer opens connections faster than its old ones end.
    #[error("{PEER_CONNECTIONS_MAX} earlier connections of this peer are just ending")]
    TooManyOfPeer,
    /// The same object again.
    #[error("the connection has been accepted before")]
    AlreadyAccepted,
}

/// A change of the status of one connection.
#[derive(Clone)]
#[non_exhaustive]
pub struct MessageEndpointListenerChange {
    /// Which connection.
    pub connection: Arc<dyn MessageEndpointConnection>,
    /// Its status now; [`ReplicatorActivity::Stopped`](crate::replicator::ReplicatorActivity::Stopped) is the last.
    pub status: ReplicatorStatus,
}

impl fmt::Debug for MessageEndpointListenerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEndpointListenerChange").field("status", &self.status).finish_non_exhaustive()
    }
}
