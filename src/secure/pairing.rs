//! Pairing: two devices that know nothing of each other prove that the same person holds a short code at both. Sans-IO.
//!
//! ```text
//! active (the code was typed)                       passive (shows the code)
//!   HELLO    SPAKE2 message A  --->
//!                              <---  ANSWER   SPAKE2 message B
//!   CONFIRM  proof of A        --->           wrong: REFUSE, one attempt is used up
//!                              <---  CONFIRM  proof of B, card of B
//!   CARD     card of A         --->           both have entered the other
//!                              <---  DONE
//! ```
//! It runs inside a secure session of two strangers. SPAKE2 lets whoever takes part try one code for each run, and whoever
//! listens none; the proofs cover the session's hash and both keys, so somebody who holds a session with each of the two
//! has two different ones and passes neither. The active side proves first: before that nothing can be learnt by
//! connecting, so a connection that ends early costs no attempt.
//! Source: `firmware-notes/trust.md`.

mod code;

use std::fmt;

use serde::{Deserialize, Serialize};
use spake2::{Ed25519Group, Identity as Party, Password, Spake2};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use self::code::{CODE_DIGITS, PairingCode, PairingCodeError};

use super::advert::AdvertKey;
use super::derive::derive;
use super::{PEER_NAME_MAX, PeerId};

/// Wrong codes after which the passive side ends: three guesses in a million for one command.
pub const ATTEMPTS_MAX: u32 = 3;
/// Bytes of one message behind its length, at most.
pub const MESSAGE_BYTES_MAX: usize = 255;

/// Length of a SPAKE2 message.
const SPAKE_BYTES: usize = 33;
const PROOF_BYTES: usize = 32;

/// What each side gives the other to enter into its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// What it calls itself; shown to people, proves nothing.
    pub name: String,
    /// The key of its own adverts.
    pub advert_key: AdvertKey,
}

/// Why two devices are not paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairingError {
    /// The other side does not have this code, or somebody is in between.
    #[error("the codes are not the same: mistyped, or another device is in between")]
    WrongCode,
    /// A message that has no place here, or does not hold together.
    #[error("the other side does not keep to the pairing protocol")]
    Malformed,
    /// The other side has ended it.
    #[error("the other side has ended the pairing")]
    Refused,
}

/// What to do after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum PairingStep {
    /// Send what [`Pairing::take_output`] gives, and wait for the next message.
    Continue,
    /// Passive: the other side tries a code. Count it, durably if the code outlives this process, and then call
    /// [`Pairing::judge`]; or end, if it may try none.
    Guess,
    /// The other side has proven the code: enter it into the list, then call [`Pairing::entered`].
    Enter(DeviceInfo),
    /// Both have entered the other.
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Hello = 1,
    Answer = 2,
    Confirm = 3,
    DeviceInfo = 4,
    Done = 5,
    Refuse = 6,
}

enum Phase {
    /// Passive: for HELLO.
    AwaitHello(PairingCode),
    /// Active: for ANSWER.
    AwaitAnswer(Box<Spake2<Ed25519Group>>),
    /// For the other side's proof.
    AwaitConfirm(Proofs),
    /// Passive: the caller is counting a guess, which is kept here.
    Counting(Proofs, Vec<u8>),
    /// Passive: for the other's card.
    AwaitDeviceInfo,
    /// The caller is entering the other into its list.
    Entering,
    /// Active: for DONE.
    AwaitDone,
    Over,
}

/// One side of a pairing in one session: takes the peer's messages, and in the end says whether both know the code.
pub struct Pairing {
    phase: Phase,
    is_active: bool,
    binding: Binding,
    device_info: DeviceInfo,
    output: Vec<u8>,
    input: Vec<u8>,
    failed: bool,
}

/// What the proofs cover.
struct Binding {
    hash: [u8; 32],
    active: PeerId,
    passive: PeerId,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Proofs {
    active: [u8; PROOF_BYTES],
    passive: [u8; PROOF_BYTES],
}

impl Binding {
    fn parties(&self) -> (Party, Party) {
        (Party::new(self.active.as_bytes()), Party::new(self.passive.as_bytes()))
    }

    fn proofs(&self, shared: &[u8]) -> Proofs {
        let (active, passive) = (self.active.as_bytes(), self.passive.as_bytes());
        let key = Zeroizing::new(derive(&shared[..32], "gattway pairing", &[&self.hash, active, passive]));
        Proofs {
            active: derive(&key[..], "gattway pairing active", &[]),
            passive: derive(&key[..], "gattway pairing passive", &[]),
        }
    }
}

impl Pairing {
    /// The side that connected and where the code was typed. `hash` names the session, `device_info` is given to the other side.
    pub fn active(
        code: &PairingCode,
        hash: [u8; 32],
        me: PeerId,
        peer: PeerId,
        device_info: DeviceInfo,
    ) -> Pairing {
        let binding = Binding { hash, active: me, passive: peer };
        let (active, passive) = binding.parties();
        let (spake, message) = Spake2::<Ed25519Group>::start_a(&Password::new(code.0), &active, &passive);
        let mut pairing = Pairing::new(Phase::AwaitAnswer(Box::new(spake)), true, binding, device_info);
        pairing.send(Kind::Hello, &message);
        pairing
    }

    /// The side that was connected to and shows the code.
    pub fn passive(
        code: PairingCode,
        hash: [u8; 32],
        me: PeerId,
        peer: PeerId,
        device_info: DeviceInfo,
    ) -> Pairing {
        Pairing::new(Phase::AwaitHello(code), false, Binding { hash, active: peer, passive: me }, device_info)
    }

    fn new(phase: Phase, is_active: bool, binding: Binding, mut device_info: DeviceInfo) -> Pairing {
        while device_info.name.len() > PEER_NAME_MAX {
            device_info.name.pop();
        }
        Pairing {
            phase,
            is_active,
            binding,
            device_info,
            output: Vec::new(),
            input: Vec::new(),
            failed: false,
        }
    }

    /// Takes bytes of the other side, in any pieces. What comes behind a step that asks something of the caller waits for
    /// the next call; call again with nothing.
    ///
    /// # Errors
    /// [`PairingError`]; it is over, nobody may be entered, and the output holds a last word to the other side.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<PairingStep, PairingError> {
        if self.input.len() + bytes.len() > 2 * (MESSAGE_BYTES_MAX + 1) {
            return Err(self.fail(PairingError::Malformed));
        }
        self.input.extend_from_slice(bytes);
        while !matches!(self.phase, Phase::Entering | Phase::Counting(..)) {
            let Some(len) = self.input.first().map(|len| usize::from(*len)) else { break };
            if self.input.len() < len + 1 {
                break;
            }
            let message: Vec<u8> = self.input.drain(..len + 1).skip(1).collect();
            if let [kind, reason @ ..] = &message[..]
                && *kind == Kind::Refuse as u8
            {
                // Not answered: it is over on both sides.
                self.phase = Phase::Over;
                let is_wrong = reason.first() == Some(&u8::from(true));
                return Err(if is_wrong { PairingError::WrongCode } else { PairingError::Refused });
            }
            match self.handle(&message) {
                Ok(PairingStep::Continue) => {}
                Ok(step) => return Ok(step),
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(PairingStep::Continue)
    }

    fn handle(&mut self, message: &[u8]) -> Result<PairingStep, PairingError> {
        let (kind, body) = message.split_first().ok_or(PairingError::Malformed)?;
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let is = |wanted: Kind| *kind == wanted as u8;
        match phase {
            Phase::AwaitHello(code) if is(Kind::Hello) && body.len() == SPAKE_BYTES => {
                let (active, passive) = self.binding.parties();
                let (spake, message) =
                    Spake2::<Ed25519Group>::start_b(&Password::new(code.0), &active, &passive);
                let shared = Zeroizing::new(spake.finish(body).map_err(|_| PairingError::Malformed)?);
                self.phase = Phase::AwaitConfirm(self.binding.proofs(&shared));
                self.send(Kind::Answer, &message);
                Ok(PairingStep::Continue)
            }
            Phase::AwaitAnswer(spake) if is(Kind::Answer) && body.len() == SPAKE_BYTES => {
                let shared = Zeroizing::new(spake.finish(body).map_err(|_| PairingError::Malformed)?);
                let proofs = self.binding.proofs(&shared);
                self.send(Kind::Confirm, &proofs.active);
                self.phase = Phase::AwaitConfirm(proofs);
                Ok(PairingStep::Continue)
            }
            Phase::AwaitConfirm(proofs) if is(Kind::Confirm) && self.is_active => {
                let (proof, device_info) =
                    body.split_at_checked(PROOF_BYTES).ok_or(PairingError::Malformed)?;
                if !bool::from(proof.ct_eq(&proofs.passive)) {
                    return Err(PairingError::WrongCode);
                }
                self.enter(device_info)
            }
            Phase::AwaitConfirm(proofs) if is(Kind::Confirm) => {
                self.phase = Phase::Counting(proofs, body.to_vec());
                Ok(PairingStep::Guess)
            }
            Phase::AwaitDeviceInfo if is(Kind::DeviceInfo) => self.enter(body),
            Phase::AwaitDone if is(Kind::Done) => Ok(PairingStep::Done),
            _ => Err(PairingError::Malformed),
        }
    }

    fn enter(&mut self, device_info: &[u8]) -> Result<PairingStep, PairingError> {
        let device_info: DeviceInfo =
            postcard::from_bytes(device_info).map_err(|_| PairingError::Malformed)?;
        if device_info.name.len() > PEER_NAME_MAX {
            return Err(PairingError::Malformed);
        }
        self.phase = Phase::Entering;
        Ok(PairingStep::Enter(device_info))
    }

    /// The guess is counted: is it right?
    ///
    /// # Errors
    /// [`PairingError::WrongCode`], or [`PairingError::Malformed`] if there was no guess.
    pub fn judge(&mut self) -> Result<PairingStep, PairingError> {
        let (proofs, guess) = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Counting(proofs, guess) => (proofs, guess),
            phase => {
                self.phase = phase;
                return Err(PairingError::Malformed);
            }
        };
        if !bool::from(guess.ct_eq(&proofs.active)) {
            return Err(self.fail(PairingError::WrongCode));
        }
        let mut answer = proofs.passive.to_vec();
        answer.extend_from_slice(&self.encoded_device_info()?);
        self.send(Kind::Confirm, &answer);
        self.phase = Phase::AwaitDeviceInfo;
        self.handle_bytes(&[])
    }

    /// The other side is in the list, on stable storage.
    ///
    /// # Errors
    /// [`PairingError::Malformed`] if there was nobody to enter.
    pub fn entered(&mut self) -> Result<PairingStep, PairingError> {
        if !matches!(self.phase, Phase::Entering) {
            return Err(PairingError::Malformed);
        }
        if self.is_active {
            let device_info = self.encoded_device_info()?;
            self.send(Kind::DeviceInfo, &device_info);
            self.phase = Phase::AwaitDone;
            self.handle_bytes(&[])
        } else {
            self.send(Kind::Done, &[]);
            self.phase = Phase::Over;
            Ok(PairingStep::Done)
        }
    }

    /// Bytes to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn encoded_device_info(&self) -> Result<Zeroizing<Vec<u8>>, PairingError> {
        postcard::to_stdvec(&self.device_info).map(Zeroizing::new).map_err(|_| PairingError::Malformed)
    }

    fn send(&mut self, kind: Kind, body: &[u8]) {
        debug_assert!(body.len() < MESSAGE_BYTES_MAX);
        self.output.extend([body.len() as u8 + 1, kind as u8]);
        self.output.extend_from_slice(body);
    }

    /// Tells the other side, once.
    fn fail(&mut self, error: PairingError) -> PairingError {
        if !self.failed {
            self.failed = true;
            self.send(Kind::Refuse, &[u8::from(error == PairingError::WrongCode)]);
        }
        self.phase = Phase::Over;
        self.input.clear();
        error
    }
}

impl fmt::Debug for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pairing").field("is_active", &self.is_active).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
