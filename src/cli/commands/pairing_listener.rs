//! Where the other device of a pairing arrives, and the policy that lets it into a session in which nothing else goes over.

use tokio::sync::watch;

use crate::cli::support::error::{CliError, Exit};
use crate::gateway::address::PlaceAddress;
use crate::node::listen;
use crate::node::{Accept, Arrival, Listen, ListenError, Local};
use crate::secure::{Access, Authentication, Grant, PeerId, PeerPolicy, Permissions, Psk, Refusal};
use crate::transport::secure::SecureAcceptor;

/// Where the other device arrives.
pub(crate) struct PairingListener {
    place: Box<dyn Accept>,
    /// For TCP with the real port.
    pub(crate) address: String,
}

impl PairingListener {
    /// Listens; over Bluetooth under `name`, so that a person finds the device; which one it is, is not told.
    pub(crate) async fn bind(address: &PlaceAddress, name: &str) -> Result<PairingListener, CliError> {
        let place: Box<dyn Listen> = match address {
            PlaceAddress::Stream(address) => Box::new(address.clone()),
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(adapter) => Box::new(crate::node::Ble::adapter(adapter).named(name)),
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => {
                let _ = name;
                unreachable!("such an address is refused when it is read")
            }
            #[cfg(feature = "websocket")]
            PlaceAddress::WebSocket(_) => unreachable!("such an address is refused when it is read"),
        };
        let place = match listen::open(&*place, &Local::default()).await {
            Ok(place) => place,
            #[cfg(feature = "bluetooth")]
            Err(error) if address.is_ble() => return Err(crate::cli::support::ble::failed(error.io_error())),
            Err(error) => return Err(listen_failed(&error)),
        };
        Ok(PairingListener { address: place.address(), place })
    }

    /// Gives the next newcomer to the acceptor.
    pub(crate) async fn take(&mut self, acceptor: &SecureAcceptor) -> Result<(), CliError> {
        let accepted = listen::accept(&mut *self.place).await;
        let arrival = accepted.map_err(|error| CliError::new(Exit::Peer, error.to_string()))?;
        let ended = || CliError::new(Exit::Peer, "the listener has ended");
        let Arrival { carrier, label } = arrival.ok_or_else(ended)?;
        acceptor.incoming(carrier, label);
        Ok(())
    }
}

/// It cannot listen there, or not any more.
pub(crate) fn listen_failed(error: &ListenError) -> CliError {
    let told = CliError::new(Exit::Peer, error.to_string());
    #[cfg(feature = "bluetooth")]
    if error.address().parse().is_ok_and(|address: PlaceAddress| address.is_ble()) {
        return told.help(crate::cli::support::ble::DOCTOR);
    }
    if error.is_of_opening() {
        return told.help("choose another address, or end the process that uses it");
    }
    told
}

/// Lets everybody into the session of a pairing, in which nothing but the pairing's messages goes over.
pub(crate) struct PairingPolicy {
    never: watch::Sender<u64>,
}

impl PairingPolicy {
    pub(crate) fn new() -> PairingPolicy {
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
