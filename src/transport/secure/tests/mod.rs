//! Secure connections over pipes and over the modelled radio: who comes in, what comes through, what an attacker beside
//! them can do.

mod changes;
mod epochs;
mod pipes;
mod radio;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::endpoint::{Inbound, Message, MessageEndpointConnection, MessagingError, ReplicatorConnection};
use crate::secure::{Authentication, Grant, Identity, PeerId, PeerPolicy, Psk, Refusal};

const INBOUND: usize = 16 * 1024;

/// A group whose members can be denied while they are connected.
pub(super) struct Club {
    key: Mutex<[u8; 32]>,
    denied: AtomicBool,
    version: watch::Sender<u64>,
}

impl Club {
    pub fn new(key: u8) -> Arc<Club> {
        let version = watch::Sender::new(0);
        Arc::new(Club { key: Mutex::new([key; 32]), denied: AtomicBool::new(false), version })
    }

    /// The group gets another secret.
    pub fn change_key(&self, key: u8) {
        *self.key.lock().expect("not poisoned") = [key; 32];
        self.version.send_modify(|version| *version += 1);
    }

    pub fn deny_all(&self) {
        self.denied.store(true, Ordering::SeqCst);
        self.version.send_modify(|version| *version += 1);
    }
}

impl PeerPolicy for Club {
    fn group_psk(&self) -> Option<Psk> {
        Some(Psk(*self.key.lock().expect("not poisoned")))
    }

    fn paired(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn admit(&self, _: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        match via {
            _ if self.denied.load(Ordering::SeqCst) => Err(Refusal::Denied),
            Authentication::Group => Ok(Grant::full(Some("member".to_owned()))),
            _ => Err(Refusal::Stranger),
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

pub(super) fn config(device: u8, policy: Arc<Club>) -> SecureConnectionConfig {
    let mut config = SecureConnectionConfig::new(Arc::new(Identity::from_private([device; 32])), policy);
    config.seed = Some(u64::from(device));
    config
}

/// One side after its handshake.
pub(super) struct End {
    pub connection: Arc<SecureConnection>,
    pub inbound: Inbound,
}

impl End {
    pub async fn open(connection: Arc<SecureConnection>) -> Result<End, MessagingError> {
        let (handle, inbound) = ReplicatorConnection::detached(INBOUND);
        connection.open(handle).await?;
        Ok(End { connection, inbound })
    }

    pub async fn send(&self, bytes: &[u8]) {
        self.connection.send(Message::from_bytes(bytes.to_vec())).await.expect("send");
    }

    pub async fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let Some(message) = self.inbound.next().await else {
                panic!("{} of {count} bytes, then {:?}", bytes.len(), self.inbound.closed());
            };
            bytes.extend_from_slice(&message);
        }
        bytes
    }

    /// How it ended, after everything that was received.
    pub async fn end(&mut self) -> Option<MessagingError> {
        while self.inbound.next().await.is_some() {}
        self.inbound.closed().expect("closed")
    }
}

pub(super) fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| rng.u8(..)).collect()
}

/// Sends both ways at once, in pieces of all sizes, and compares what arrives.
pub(super) async fn exchange(a: &mut End, b: &mut End, count: usize, seed: u64) {
    let (up, down) = (pattern(seed, count), pattern(!seed, count));
    // Not an async closure: rustc 1.95 runs into a cycle of queries with it when it does not compile incrementally.
    async fn send(connection: Arc<SecureConnection>, bytes: &[u8], seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rng.usize(1..=rest.len().min(20_000)));
            connection.send(Message::from_bytes(piece.to_vec())).await.expect("send");
            rest = later;
        }
    }
    let (from_a, from_b) = (Arc::clone(&a.connection), Arc::clone(&b.connection));
    let (_, _, at_b, at_a) =
        tokio::join!(send(from_a, &up, seed), send(from_b, &down, seed), b.receive(count), a.receive(count));
    assert!(at_b == up && at_a == down, "seed {seed}");
}

/// The next newcomer that may come in.
pub(super) async fn accepted(acceptor: &SecureAcceptor) -> Accepted {
    match timeout(Duration::from_secs(120), acceptor.next()).await.expect("somebody") {
        Some(Incoming::Accepted(accepted)) => *accepted,
        Some(Incoming::Refused { label, error, .. }) => panic!("{label} was refused: {error}"),
        None => panic!("the acceptor is gone"),
    }
}
