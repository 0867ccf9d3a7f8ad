//! One WebSocket as a connection of the message endpoint.

use async_trait::async_trait;

use crate::endpoint::{AccessRule, Message, MessageEndpointConnection, MessagingError, ReplicatorConnection};
use crate::transport::stream::StreamConnection;

/// A connection over WebSocket, of either role, with the [`ProtocolType`](crate::endpoint::ProtocolType) `ByteStream`.
pub struct WebSocketConnection {
    stream: StreamConnection,
    user: Option<String>,
    access: Option<AccessRule>,
}

impl WebSocketConnection {
    pub(super) fn new(
        stream: StreamConnection,
        user: Option<String>,
        access: Option<AccessRule>,
    ) -> WebSocketConnection {
        WebSocketConnection { stream, user, access }
    }

    /// The other side, for logs and errors: a URL, or an address with the user's name.
    pub fn peer(&self) -> &str {
        self.stream.peer()
    }

    /// Who the peer has proven to be by a password; on the passive side alone.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

#[async_trait]
impl MessageEndpointConnection for WebSocketConnection {
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        self.stream.open(connection).await
    }

    async fn send(&self, message: Message) -> Result<(), MessagingError> {
        self.stream.send(message).await
    }

    async fn close(&self, error: Option<MessagingError>) -> Result<(), MessagingError> {
        self.stream.close(error).await
    }

    fn peer_uid(&self) -> Option<String> {
        self.user.as_ref().map(|user| format!("user:{user}"))
    }

    fn access(&self) -> Option<AccessRule> {
        self.access.clone()
    }
}
