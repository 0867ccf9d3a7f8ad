//! The secure session with a hostile path between two honest sides, or a hostile side: whatever is changed, cut, repeated
//! or made up, what one side takes for the other's is what the other has sealed, and who knows no key gets nothing.

use std::sync::Arc;
use std::time::Duration;

use gattway::lab::secure::{
    Authentication, Grant, HANDSHAKE_TIMEOUT, Identity, Keyring, PeerId, PeerPolicy, Psk, RECORD_BYTES_MAX,
    Refusal, RekeyLimits, SecureConfig, SecureEvent, SecureSession,
};
use gattway::lab::time::Instant;
use tokio::sync::watch;

use super::super::choices::Choices;

/// What a session keeps for input and output beside the bytes that it was just given, in bytes.
const BUFFERED_MAX: usize = 16 * RECORD_BYTES_MAX;

/// A policy of fixed answers.
struct Fixed {
    group: Option<u8>,
    paired: Option<PeerId>,
    strangers: bool,
}

impl PeerPolicy for Fixed {
    fn group_psk(&self) -> Option<Psk> {
        self.group.map(|key| Psk([key; 32]))
    }

    fn paired(&self) -> Vec<PeerId> {
        self.paired.into_iter().collect()
    }

    fn admits_strangers(&self) -> bool {
        self.strangers
    }

    fn admit(&self, _: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        match via {
            Authentication::Open if !self.strangers => Err(Refusal::Stranger),
            _ => Ok(Grant::full(None)),
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
}

fn config(own: u8, other: u8, mode: u8) -> SecureConfig {
    let identity = Identity::from_private([own; 32]);
    let policy = Fixed {
        group: (mode & 1 != 0).then_some(if mode & 8 == 0 { 5 } else { own }),
        paired: (mode & 2 != 0).then(|| Identity::from_private([other; 32]).id()),
        strangers: mode & 4 != 0,
    };
    let rekey = RekeyLimits { bytes: 300, records: 5 };
    SecureConfig { rekey, ..SecureConfig::new(Arc::new(identity), Arc::new(policy)) }
}

struct Side {
    session: SecureSession,
    established: bool,
    failed: bool,
    sealed: Vec<u8>,
    /// What has arrived from the other side.
    taken: Vec<u8>,
    /// Bytes on their way to this side.
    wire: Vec<u8>,
}

struct World {
    sides: [Side; 2],
    /// Whether the two know a key of each other, and whether strangers are let in on both sides.
    keyed: bool,
    open: bool,
    forged: bool,
    /// Bytes of the largest piece that a side was given.
    largest: usize,
}

impl World {
    fn new(mode: u8, entropy: u8) -> Option<World> {
        let (a, b) = (config(1, 2, mode & 15), config(2, 1, mode >> 4));
        let keyring = |config: &SecureConfig| Keyring::new(&config.identity, &*config.policy);
        let active = SecureSession::active(a.clone(), &keyring(&a), [entropy; 32], Instant::ZERO).ok()?;
        let passive = SecureSession::passive(b.clone(), keyring(&b), [!entropy; 32], Instant::ZERO);
        let side = |session| Side {
            session,
            established: false,
            failed: false,
            sealed: Vec::new(),
            taken: Vec::new(),
            wire: Vec::new(),
        };
        let both = mode & mode >> 4;
        let same_group = both & 1 != 0 && mode & 0x88 == 0;
        let mut world = World {
            sides: [side(active), side(passive)],
            keyed: same_group || both & 2 != 0,
            open: both & 4 != 0,
            forged: false,
            largest: 0,
        };
        world.send(0);
        Some(world)
    }

    fn send(&mut self, from: usize) {
        let output = self.sides[from].session.take_output();
        self.sides[1 - from].wire.extend_from_slice(&output);
    }

    fn take(&mut self, at: usize, bytes: &[u8]) {
        self.largest = self.largest.max(bytes.len());
        let side = &mut self.sides[at];
        if let Err(error) = side.session.handle_bytes(bytes) {
            assert!(!error.to_string().is_empty());
            side.failed = true;
        }
        while let Some(event) = side.session.poll_event() {
            match event {
                SecureEvent::Established(_) => {
                    assert!(!side.established, "established twice");
                    side.established = true;
                    assert!(self.keyed || self.open, "established without a key");
                }
                SecureEvent::Data(data) => {
                    assert!(side.established, "data of a peer that is not known");
                    side.taken.extend_from_slice(&data);
                }
                _ => {}
            }
        }
        // Buffers grow by doubling and are kept: in the product a piece is what one read gives.
        let most = BUFFERED_MAX + 2 * self.largest;
        assert!(side.session.buffered() <= most, "{} of {most}", side.session.buffered());
        let (taken, sealed) = (&self.sides[at].taken, &self.sides[1 - at].sealed);
        assert!(sealed.starts_with(taken), "what arrived is not what was sealed");
        self.send(at);
    }

    fn carry(&mut self, at: usize, count: usize) {
        let wire = &mut self.sides[at].wire;
        let bytes: Vec<u8> = wire.drain(..count.min(wire.len())).collect();
        if !bytes.is_empty() {
            self.take(at, &bytes);
        }
    }

    fn seal(&mut self, from: usize, data: &[u8]) {
        let side = &mut self.sides[from];
        if side.session.seal(data).is_ok() {
            assert!(side.established, "sealed before anybody is known");
            side.sealed.extend_from_slice(data);
        }
        self.send(from);
    }
}

fn step(world: &mut World, choices: &mut Choices<'_>) {
    let operation = choices.byte();
    let at = usize::from(operation >> 7);
    match operation & 7 {
        0 | 1 => {
            for at in [at, 1 - at, at, 1 - at] {
                world.carry(at, usize::MAX);
            }
        }
        2 => world.carry(at, choices.byte().into()),
        3 => {
            let length = choices.u16() as usize % 9_000;
            let data: Vec<u8> = (0..length).map(|n| (n * 7) as u8 ^ operation).collect();
            world.seal(at, &data);
        }
        4 => {
            world.forged = true;
            choices.flip(&mut world.sides[at].wire);
        }
        5 => {
            world.forged = true;
            choices.rearrange(&mut world.sides[at].wire);
        }
        6 => {
            world.forged = true;
            let bytes = choices.blob();
            world.take(at, bytes);
        }
        _ => {
            world.sides[at].session.end();
            world.send(at);
        }
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (mode, entropy) = (choices.byte(), choices.byte());
    let Some(mut world) = World::new(mode, entropy) else { return };
    while !choices.is_empty() {
        step(&mut world, &mut choices);
    }
    for side in &mut world.sides {
        // A handshake that is not done has its time.
        if side.session.poll_at().is_some() {
            let late = Instant::ZERO + HANDSHAKE_TIMEOUT + Duration::from_millis(1);
            assert!(side.session.handle_timeout(late).is_err() && side.session.poll_at().is_none());
        }
        let _ = side.session.handle_end();
        assert!(side.session.seal(b"after the end").is_err());
    }
    if !world.forged && world.keyed {
        assert!(!world.sides.iter().any(|side| side.failed), "an honest path between friends");
    }
}
