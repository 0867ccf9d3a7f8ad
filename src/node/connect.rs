//! How a node reaches a peer, whatever carries the bytes.

use std::sync::Arc;
use std::time::Duration;

use super::access::Security;
use super::listen::{Local, Sealed};
use crate::endpoint::{MessageEndpoint, MessageEndpointConnection, MessageEndpointDelegate};
use crate::transport::secure::Carrier;
use crate::transport::stream::{Address, StreamConnection};

/// A way to one peer. [`Tcp`](super::Tcp), [`Unix`](super::Unix), [`Packets`](super::Packets) and `Ble` make such ways. What was
/// synced is remembered under its address, unless the peer proves who it is.
pub trait Connect: Sealed + Send + Sync + 'static {
    /// Where the peer is, for people; also the name under which is remembered what was synced with it, unless it proves one.
    #[doc(hidden)]
    fn address(&self) -> String;

    /// A connection for one attempt, not opened yet.
    #[doc(hidden)]
    fn connect(&self, local: &Local) -> Carrier;

    /// What the peer may be called by in the trust list, if that is how this way finds it.
    #[doc(hidden)]
    fn name(&self) -> Option<&str> {
        None
    }

    /// How long making a connection may take, the secure handshake included; `None`: as long as the replicator allows.
    #[doc(hidden)]
    fn open_limit(&self) -> Option<Duration> {
        None
    }
}

impl<T: Connect + ?Sized> Sealed for Arc<T> {}

impl<T: Connect + ?Sized> Connect for Arc<T> {
    fn address(&self) -> String {
        (**self).address()
    }

    fn connect(&self, local: &Local) -> Carrier {
        (**self).connect(local)
    }

    fn name(&self) -> Option<&str> {
        (**self).name()
    }

    fn open_limit(&self) -> Option<Duration> {
        (**self).open_limit()
    }
}

impl Sealed for Address {}

impl Connect for Address {
    fn address(&self) -> String {
        self.to_string()
    }

    fn connect(&self, _: &Local) -> Carrier {
        Carrier::Stream(Arc::new(StreamConnection::connect(self.clone())))
    }
}

/// Makes a new connection for each attempt of a replicator.
pub(super) struct Dial {
    pub(super) security: Security,
    pub(super) way: Arc<dyn Connect>,
    pub(super) local: Local,
}

impl MessageEndpointDelegate for Dial {
    fn create_connection(&self, _: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        self.security.over(self.way.connect(&self.local))
    }
}
