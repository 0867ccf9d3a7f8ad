//! Where the other device of a pairing arrives, and the policy that lets it into a session in which nothing else goes over.

use std::sync::Arc;

use tokio::sync::watch;

use super::address::PlaceAddress;
use super::{CliError, Exit};
use crate::secure::{Access, Authentication, Grant, PeerId, PeerPolicy, Permissions, Psk, Refusal};
use crate::transport::secure::{Carrier, SecureAcceptor};
use crate::transport::stream::StreamListener;

/// Where the other device arrives.
pub(super) struct PairingListener {
    kind: PairingListenerKind,
    /// For TCP with the real port.
    pub(super) address: String,
}

enum PairingListenerKind {
    Stream(StreamListener),
    #[cfg(feature = "bluetooth")]
    Bluetooth(crate::transport::bluez::listener::BluetoothListener),
}

impl PairingListener {
    /// Listens; over Bluetooth under `name`.
    pub(super) async fn bind(address: &PlaceAddress, name: &str) -> Result<PairingListener, CliError> {
        match address {
            PlaceAddress::Stream(address) => {
                let listener = super::listening::bind(address).await?;
                let address = listener.local_address().to_string();
                Ok(PairingListener { kind: PairingListenerKind::Stream(listener), address })
            }
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(adapter) => {
                let listener = super::ble::listen_to_pair(adapter, name).await?;
                let address = format!("ble:{}", listener.adapter());
                Ok(PairingListener { kind: PairingListenerKind::Bluetooth(listener), address })
            }
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => {
                let _ = name;
                unreachable!("such an address is refused when it is read")
            }
        }
    }

    /// Gives the next newcomer to the acceptor.
    pub(super) async fn take(&self, acceptor: &SecureAcceptor) -> Result<(), CliError> {
        match &self.kind {
            PairingListenerKind::Stream(listener) => {
                let accepted = listener.accept().await.map_err(|error| {
                    CliError::new(Exit::Peer, format!("cannot accept on {}: {error}", self.address))
                })?;
                let ended = || CliError::new(Exit::Peer, "the listener has ended");
                let connection = accepted.ok_or_else(ended)?;
                let label = connection.peer().to_owned();
                acceptor.incoming(Carrier::Stream(Arc::new(connection)), label);
            }
            #[cfg(feature = "bluetooth")]
            PairingListenerKind::Bluetooth(listener) => {
                let ended = || CliError::new(Exit::Peer, "Bluetooth has ended");
                let connection = listener.accept().await.ok_or_else(ended)?;
                acceptor.incoming(Carrier::Link(connection), "Bluetooth central");
            }
        }
        Ok(())
    }
}

/// Lets everybody into the session of a pairing, in which nothing but the pairing's messages goes over.
pub(super) struct PairingPolicy {
    never: watch::Sender<u64>,
}

impl PairingPolicy {
    pub(super) fn new() -> PairingPolicy {
        PairingPolicy { never: watch::Sender::new(0) }
    }
}

impl PeerPolicy for PairingPolicy {
    fn group_psk(&self) -> Option<Psk> {
        None
    }

    fn paired(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn admit(&self, _: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        match via {
            Authentication::Open => Ok(Grant { name: None, permissions: Permissions::all(Access::None) }),
            _ => Err(Refusal::Stranger),
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.never.subscribe()
    }
}
