//! The policy that lets a device into a session in which nothing but the pairing's messages goes over.

use tokio::sync::watch;

use crate::secure::{Access, Authentication, Grant, PeerId, PeerPolicy, Permissions, Psk, Refusal};

/// Lets everybody into the session of a pairing, and gives access to nothing.
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
