//! Pairing by a code, with a path between the two that cuts, joins, repeats, changes and makes up bytes: who does not have
//! the code enters nobody and is entered by nobody, an honest path between two who have it always succeeds, and what is
//! kept and sent stays small.

use gattway::lab::secure::PeerId;
use gattway::lab::secure::advert::AdvertKey;
use gattway::lab::secure::pairing::{
    DeviceInfo, MESSAGE_BYTES_MAX, Pairing, PairingCode, PairingError, PairingStep,
};

use super::super::choices::Choices;

/// Bytes that one side may say in a whole run.
const SAID_MAX: usize = 6 * (MESSAGE_BYTES_MAX + 1);

/// Session hashes and names of the two.
const HASHES: [[u8; 32]; 2] = [[9; 32], [8; 32]];
const IDS: [PeerId; 2] = [PeerId([1; 32]), PeerId([2; 32])];

struct Side {
    pairing: Pairing,
    /// Bytes on their way to this side.
    wire: Vec<u8>,
    said: usize,
    guesses: usize,
    entered: Option<DeviceInfo>,
    done: bool,
    error: Option<PairingError>,
}

struct World {
    sides: [Side; 2],
    /// Whether both have the same code and the same session.
    friends: bool,
    forged: bool,
}

fn device_info(of: usize, name: &str) -> DeviceInfo {
    DeviceInfo { name: name.to_owned(), advert_key: AdvertKey::from_bytes([of as u8 + 40; 32]) }
}

impl World {
    fn new(choices: &mut Choices<'_>) -> World {
        let mode = choices.byte();
        let (same_code, same_session) = (mode & 1 == 0, mode & 2 == 0);
        let code = |n: u8| PairingCode::from_entropy([n; 16]);
        let name = choices.text().into_owned();
        let active = Pairing::active(&code(7), HASHES[0], IDS[0], IDS[1], device_info(0, &name));
        let passive = Pairing::passive(
            code(if same_code { 7 } else { 6 }),
            HASHES[usize::from(!same_session)],
            IDS[1],
            IDS[0],
            device_info(1, &name),
        );
        let side = |pairing| Side {
            pairing,
            wire: Vec::new(),
            said: 0,
            guesses: 0,
            entered: None,
            done: false,
            error: None,
        };
        let friends = same_code && same_session;
        let mut world = World { sides: [side(active), side(passive)], friends, forged: false };
        world.send(0);
        world
    }

    fn send(&mut self, from: usize) {
        let output = self.sides[from].pairing.take_output();
        self.sides[from].said += output.len();
        assert!(self.sides[from].said <= SAID_MAX, "it talks without end");
        self.sides[1 - from].wire.extend_from_slice(&output);
    }

    fn take(&mut self, at: usize, bytes: &[u8]) {
        let side = &mut self.sides[at];
        let mut result = side.pairing.handle_bytes(bytes);
        loop {
            result = match result {
                Ok(PairingStep::Guess) => {
                    side.guesses += 1;
                    side.pairing.judge()
                }
                Ok(PairingStep::Enter(device_info)) => {
                    assert!(self.friends, "entered without the code");
                    assert!(side.entered.replace(device_info).is_none(), "entered twice");
                    side.pairing.entered()
                }
                _ => break,
            };
        }
        assert!(side.guesses <= at, "more than one guess, or one at the active side");
        match result {
            Ok(PairingStep::Done) => {
                assert!(side.entered.is_some() && !side.done);
                side.done = true;
            }
            Ok(_) => {}
            Err(error) => {
                assert!(!error.to_string().is_empty());
                side.error.get_or_insert(error);
            }
        }
        if side.error.is_some() {
            assert!(side.pairing.entered().is_err(), "nobody is entered after an error");
        }
        self.send(at);
    }

    fn carry(&mut self, at: usize, count: usize) {
        let wire = &mut self.sides[at].wire;
        let bytes: Vec<u8> = wire.drain(..count.min(wire.len())).collect();
        if !bytes.is_empty() {
            self.take(at, &bytes);
        }
    }
}

fn step(world: &mut World, choices: &mut Choices<'_>) {
    let operation = choices.byte();
    let at = usize::from(operation >> 7);
    match operation & 7 {
        0 => world.carry(at, usize::MAX),
        1 => world.carry(at, choices.byte().into()),
        2 => world.take(at, &[]),
        3 | 4 => {
            world.forged = true;
            choices.flip(&mut world.sides[at].wire);
        }
        5 => {
            world.forged = true;
            choices.rearrange(&mut world.sides[at].wire);
        }
        _ => {
            world.forged = true;
            let bytes = choices.blob();
            world.take(at, bytes);
        }
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let mut world = World::new(&mut choices);
    while !choices.is_empty() {
        step(&mut world, &mut choices);
    }
    for _ in 0..8 {
        world.carry(1, usize::MAX);
        world.carry(0, usize::MAX);
    }
    let [active, passive] = &world.sides;
    if !world.forged {
        let paired = active.done && passive.done;
        assert_eq!(paired, world.friends, "{:?} {:?}", active.error, passive.error);
        assert!(paired || passive.error == Some(PairingError::WrongCode));
        assert_eq!(passive.guesses, 1, "every guess is counted");
    }
}
