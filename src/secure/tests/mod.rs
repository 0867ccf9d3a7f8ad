//! Two sessions joined by bytes, with everything in between that a hostile path can do.

#[allow(clippy::disallowed_methods)] // reads the notes; no part of the core
mod claims;
mod ends;
mod handshake;
mod liar;
mod names;
mod records;
mod replay;

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::*;
use crate::time::Instant;

/// A policy of fixed answers.
pub(super) struct Fixed {
    pub group: Option<[u8; 32]>,
    pub former: Vec<[u8; 32]>,
    pub name: Option<String>,
    pub paired: Vec<PeerId>,
    pub strangers: bool,
    pub denied: Vec<PeerId>,
    /// The first that a peer said of itself.
    pub told: OnceLock<(PeerId, String)>,
}

impl Fixed {
    pub fn group(key: u8) -> Fixed {
        Fixed { group: Some([key; 32]), ..Fixed::alone() }
    }

    pub fn alone() -> Fixed {
        Fixed {
            group: None,
            former: Vec::new(),
            name: None,
            paired: Vec::new(),
            strangers: false,
            denied: Vec::new(),
            told: OnceLock::new(),
        }
    }

    pub fn open() -> Fixed {
        Fixed { strangers: true, ..Fixed::alone() }
    }

    pub fn paired(peers: impl IntoIterator<Item = u8>) -> Fixed {
        let paired = peers.into_iter().map(|n| identity(n).id()).collect();
        Fixed { paired, ..Fixed::alone() }
    }
}

impl PeerPolicy for Fixed {
    fn group_psk(&self) -> Option<Psk> {
        self.group.map(Psk)
    }

    fn own_name(&self) -> Option<String> {
        self.name.clone()
    }

    fn former_psks(&self) -> Vec<Psk> {
        self.former.iter().copied().map(Psk).collect()
    }

    fn paired(&self) -> Vec<PeerId> {
        self.paired.clone()
    }

    fn admits_strangers(&self) -> bool {
        self.strangers
    }

    fn admit(&self, peer: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        if self.denied.contains(peer) {
            return Err(Refusal::Denied);
        }
        match via {
            Authentication::Open if !self.strangers => Err(Refusal::Stranger),
            _ => Ok(Grant::full(None)),
        }
    }

    fn told_name(&self, peer: &PeerId, name: &str) {
        assert!(self.told.set((*peer, name.to_owned())).is_ok(), "told twice");
    }

    fn watch(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
}

pub(super) fn identity(n: u8) -> Identity {
    Identity::from_private([n; 32])
}

pub(super) fn config(n: u8, policy: Fixed) -> SecureConfig {
    SecureConfig::new(Arc::new(identity(n)), Arc::new(policy))
}

pub(super) fn active(config: &SecureConfig) -> SecureSession {
    let keyring = Keyring::new(&config.identity, &*config.policy);
    SecureSession::active(config.clone(), &keyring, [101; 32], Instant::ZERO).expect("something to offer")
}

pub(super) fn passive(config: &SecureConfig) -> SecureSession {
    let keyring = Keyring::new(&config.identity, &*config.policy);
    SecureSession::passive(config.clone(), keyring, [102; 32], Instant::ZERO)
}

/// What became of one side.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub established: Option<Established>,
    pub data: Vec<u8>,
    pub group: Vec<Bytes>,
    pub ended: bool,
    pub error: Option<SecureError>,
    pub resume_keys: usize,
    pub confirmed: usize,
}

impl Outcome {
    pub fn drain(&mut self, session: &mut SecureSession) {
        while let Some(event) = session.poll_event() {
            match event {
                SecureEvent::Established(who) => {
                    assert!(self.established.replace(*who).is_none(), "established twice");
                }
                SecureEvent::Data(data) => {
                    assert!(self.established.is_some(), "data of a peer that is not known");
                    self.data.extend_from_slice(&data);
                }
                SecureEvent::Group(content) => self.group.push(content),
                SecureEvent::Ended => self.ended = true,
                SecureEvent::ResumeKey => self.resume_keys += 1,
                SecureEvent::ResumeConfirmed => self.confirmed += 1,
            }
        }
    }

    pub fn take(&mut self, session: &mut SecureSession, bytes: &[u8]) {
        if self.error.is_none() {
            self.error = session.handle_bytes(bytes).err();
        }
        self.drain(session);
    }
}

/// Two sides and what each has seen.
pub(super) struct Pair {
    pub active: SecureSession,
    pub passive: SecureSession,
    pub at_active: Outcome,
    pub at_passive: Outcome,
}

impl Pair {
    pub fn new(a: &SecureConfig, b: &SecureConfig) -> Pair {
        Pair {
            active: active(a),
            passive: passive(b),
            at_active: Outcome::default(),
            at_passive: Outcome::default(),
        }
    }

    /// Carries bytes both ways, changed by `path`, until both sides are silent; gives the number of flights.
    pub fn run(&mut self, path: &mut dyn FnMut(bool, Bytes) -> Vec<u8>) -> usize {
        for flight in 0.. {
            let to_passive = self.active.take_output();
            let to_active = self.passive.take_output();
            if to_passive.is_empty() && to_active.is_empty() {
                return flight;
            }
            assert!(flight < 100, "the two never come to an end");
            if !to_passive.is_empty() {
                self.at_passive.take(&mut self.passive, &path(true, to_passive));
            }
            if !to_active.is_empty() {
                self.at_active.take(&mut self.active, &path(false, to_active));
            }
        }
        unreachable!()
    }

    pub fn join(&mut self) -> usize {
        self.run(&mut |_, bytes| bytes.to_vec())
    }

    pub fn established(a: &SecureConfig, b: &SecureConfig) -> Pair {
        let mut pair = Pair::new(a, b);
        pair.join();
        assert_eq!((&pair.at_active.error, &pair.at_passive.error), (&None, &None));
        assert!(pair.at_active.established.is_some() && pair.at_passive.established.is_some());
        pair
    }
}
