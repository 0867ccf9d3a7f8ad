//! The message-endpoint model: who gives which bytes to whom.
//!
//! An application brings a transport, the library brings replication. The transport implements
//! [`MessageEndpointConnection`] and gives what it receives to a [`ReplicatorConnection`]; on the active side a
//! [`MessageEndpointDelegate`] makes a new connection for each attempt, on the passive side the application hands
//! accepted connections to a listener. This module holds what both sides of that contract see. It leaves the
//! replication itself to [`crate::replicator`] and every radio and socket to `crate::transport`.
//!
//! # Order of calls
//! 1. The library calls [`open`](MessageEndpointConnection::open) once and gives a [`ReplicatorConnection`]; the
//!    transport returns when bytes can flow.
//! 2. The library calls [`send`](MessageEndpointConnection::send), one call at a time; its completion is the flow control.
//!    The transport calls [`receive`](ReplicatorConnection::receive), whose completion is the flow control the other way.
//! 3. Either the transport calls [`ReplicatorConnection::close`] because the connection has ended, or the library has
//!    finished. In both cases the library then calls [`close`](MessageEndpointConnection::close), exactly once for each
//!    `open`, also when `open` failed or was given up.
//!
//! The library never calls a transport with a lock held, gives up a call that takes longer than its limit, and drops
//! the future of a call that it gives up.
//! Source: `firmware-notes/message-endpoint.md`.

mod access;
mod connection;
mod error;
#[deny(clippy::disallowed_methods)] // sans-IO
pub(crate) mod framing;
mod message;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use self::access::{AccessRule, CollectionAccess};
#[doc(hidden)]
pub use self::connection::{INBOUND_BYTES_MAX, Inbound};
pub use self::connection::{MessageEndpointConnection, ReplicatorConnection};
pub use self::error::MessagingError;
pub use self::message::{Message, ProtocolType};

/// Makes connections for the active side; implemented by the application.
pub trait MessageEndpointDelegate: Send + Sync {
    /// Makes a connection object that is not yet open. Called once for each attempt, never with a lock held.
    fn create_connection(&self, endpoint: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection>;
}

impl<F> MessageEndpointDelegate for F
where
    F: Fn(&MessageEndpoint) -> Arc<dyn MessageEndpointConnection> + Send + Sync,
{
    fn create_connection(&self, endpoint: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        self(endpoint)
    }
}

/// A remote peer as a replication target.
/// ```
/// use std::sync::Arc;
///
/// use gattway::endpoint::{MessageEndpointConnection, MessagingError, ReplicatorConnection};
/// use gattway::{Message, MessageEndpoint, ProtocolType};
///
/// /// A transport whose cable is not plugged in. One that works keeps the `ReplicatorConnection` and gives it what arrives.
/// struct Cable;
///
/// #[async_trait::async_trait]
/// impl MessageEndpointConnection for Cable {
///     async fn open(&self, _: ReplicatorConnection) -> Result<(), MessagingError> {
///         Err(MessagingError::recoverable("not plugged in"))
///     }
///     async fn send(&self, _: Message) -> Result<(), MessagingError> {
///         Ok(())
///     }
///     async fn close(&self, _: Option<MessagingError>) -> Result<(), MessagingError> {
///         Ok(())
///     }
/// }
///
/// let delegate = |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> { Arc::new(Cable) };
/// let gateway = MessageEndpoint::new("gateway", Arc::new(()), ProtocolType::ByteStream, Arc::new(delegate));
/// assert_eq!(gateway.uid(), "gateway");
/// ```
#[derive(Clone)]
pub struct MessageEndpoint {
    uid: String,
    target: Arc<dyn Any + Send + Sync>,
    protocol_type: ProtocolType,
    delegate: Arc<dyn MessageEndpointDelegate>,
}

impl MessageEndpoint {
    /// Names a peer.
    ///
    /// `uid` identifies the peer's database and is part of the checkpoint's identity: under another `uid` replication
    /// starts over. `target` is whatever the transport needs to find the peer, and is never looked at here.
    pub fn new(
        uid: impl Into<String>,
        target: Arc<dyn Any + Send + Sync>,
        protocol_type: ProtocolType,
        delegate: Arc<dyn MessageEndpointDelegate>,
    ) -> MessageEndpoint {
        MessageEndpoint { uid: uid.into(), target, protocol_type, delegate }
    }

    /// Identifies the peer.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// What the transport needs to find the peer, if that is a `T`.
    pub fn target_as<T: 'static>(&self) -> Option<&T> {
        self.target.downcast_ref()
    }

    /// What the transport keeps of the bytes.
    pub fn protocol_type(&self) -> ProtocolType {
        self.protocol_type
    }

    /// Makes the connections.
    pub(crate) fn delegate(&self) -> &Arc<dyn MessageEndpointDelegate> {
        &self.delegate
    }
}

impl fmt::Debug for MessageEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEndpoint")
            .field("uid", &self.uid)
            .field("protocol_type", &self.protocol_type)
            .finish_non_exhaustive()
    }
}
