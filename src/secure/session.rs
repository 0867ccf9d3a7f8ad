//! One secure session from its first byte to its last, of either side. Sans-IO.
//!
//! # Order of calls
//! 1. [`SecureSession::active`] or [`SecureSession::passive`].
//! 2. [`handle_bytes`](SecureSession::handle_bytes) with what arrived, in any pieces; [`seal`](SecureSession::seal) with what
//!    is to be sent, once [`SecureEvent::Established`] has come.
//! 3. After each call: [`poll_event`](SecureSession::poll_event) until `None`, [`take_output`](SecureSession::take_output)
//!    and send it, in that order, before anything that is sealed later.
//! 4. [`handle_timeout`](SecureSession::handle_timeout) when [`poll_at`](SecureSession::poll_at) has come.
//!
//! After an error the output may still hold a last word to the peer.
//!
//! One file, because each phase of the state machine hands over to the next; what a phase says is in `handshake` and `record`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

use super::crypto::{KEY_BYTES, resume_tag};
use super::error::{RefuseReason, SecureError};
use super::handshake::{
    Accepting, Agreed, Dice, HANDSHAKE_BYTES_MAX, HEAD_BYTES, Kind, MAGIC, Offering, ask, challenge, refuse,
    refused,
};
use super::offer::{FRESH_BYTES, Fresh, Keyring, Said};
use super::record::{DirectionStats, Kind as RecordKind, Opened, Records, RekeyLimits};
use super::{Authentication, Grant, Identity, PeerId, PeerPolicy};
use crate::time::Instant;

/// Time for the handshake, unless configured otherwise: two round trips on a radio that gives a connection event every
/// four seconds, the longest that Bluetooth knows.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// Bits that a WebSocket frame has in its first byte besides the opcode.
const WEBSOCKET_FIN: u8 = 0x80;

/// What a session is made of.
#[derive(Clone)]
pub struct SecureConfig {
    /// Who this side is.
    pub identity: Arc<Identity>,
    /// Who may come in.
    pub policy: Arc<dyn PeerPolicy>,
    /// Time for the handshake.
    pub timeout: Duration,
    /// When keys are changed.
    pub rekey: RekeyLimits,
    /// What both sides have that the passive side has chosen at random for this carrier alone, see
    /// [`fresh_of_carrier`](super::fresh_of_carrier): a link has it. `None`: the passive side is asked for it, which costs a
    /// round trip. Both sides decide it the same way, by what carries the session.
    pub fresh: Option<[u8; FRESH_BYTES]>,
}

impl SecureConfig {
    /// The defaults.
    pub fn new(identity: Arc<Identity>, policy: Arc<dyn PeerPolicy>) -> SecureConfig {
        let (timeout, rekey) = (HANDSHAKE_TIMEOUT, RekeyLimits::default());
        SecureConfig { identity, policy, timeout, rekey, fresh: None }
    }
}

impl fmt::Debug for SecureConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureConfig").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Who the peer is, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Its key.
    pub peer: PeerId,
    /// What it has proven.
    pub via: Authentication,
    /// What it may do here.
    pub grant: Grant,
    /// Names this session: the same on both sides, and nowhere else. Not secret.
    pub hash: [u8; KEY_BYTES],
}

/// What happened; see [`SecureSession::poll_event`].
#[derive(Debug, PartialEq, Eq)]
pub enum SecureEvent {
    /// The peer has proven itself and may come in: bytes flow. On the active side, the peer may still refuse.
    Established(Box<Established>),
    /// What the peer sent, in order, in any pieces.
    Data(Bytes),
    /// What the peer says of the epochs of the group, in order; see `handover`.
    Group(Bytes),
    /// From now on this side proves a resume of the link with [`SecureSession::resume_key`]; the key before stays good.
    ResumeKey,
    /// The peer is known to have the newest key of resumes: the one before is worth nothing any more.
    ResumeConfirmed,
    /// The peer has said that this was all.
    Ended,
}

enum Phase {
    /// Active: has asked for something fresh.
    Asking(Keyring, Zeroizing<[u8; KEY_BYTES]>),
    Offering(Box<Offering>),
    Listening(Box<Listening>),
    Accepting(Box<Accepting>),
    Open(Box<Open>),
    Over,
}

/// A passive side that has heard no offer yet.
struct Listening {
    keyring: Keyring,
    dice: Dice,
    /// What an offer has to be made for: of the carrier, or of the CHALLENGE that was said.
    fresh: Option<Fresh>,
    /// The versions of the question, which no hash covers: those of the offer have to be the same.
    versions: Option<[u8; 2]>,
}

struct Open {
    records: Records,
    /// Active: the peer has not said yet whether it lets us in.
    awaits_verdict: bool,
    /// Something the peer has sealed has come.
    confirmed: bool,
}

/// One side of a secure session: takes bytes of the peer, gives bytes to send and events.
pub struct SecureSession {
    config: SecureConfig,
    phase: Phase,
    deadline: Option<Instant>,
    input: BytesMut,
    output: BytesMut,
    events: VecDeque<SecureEvent>,
}

impl SecureSession {
    /// The side that connected. `entropy` must be random and used once.
    ///
    /// # Errors
    /// There is no key to offer, and strangers are not let in.
    pub fn active(
        config: SecureConfig,
        keyring: &Keyring,
        entropy: [u8; KEY_BYTES],
        now: Instant,
    ) -> Result<SecureSession, SecureError> {
        if keyring.is_empty() {
            return Err(SecureError::NothingToOffer);
        }
        let mut output = BytesMut::new();
        let phase = match &config.fresh {
            Some(fresh) => {
                let offering = Offering::start(&config.identity, keyring, entropy, fresh, &mut output)?;
                Phase::Offering(Box::new(offering))
            }
            None => {
                ask(&mut output)?;
                Phase::Asking(keyring.clone(), Zeroizing::new(entropy))
            }
        };
        let mut session = SecureSession::new(config, phase, now);
        session.output = output;
        Ok(session)
    }

    /// The side that was connected to. `entropy` must be random and used once.
    pub fn passive(
        config: SecureConfig,
        keyring: Keyring,
        entropy: [u8; KEY_BYTES],
        now: Instant,
    ) -> SecureSession {
        let listening = Listening { keyring, dice: Dice::new(entropy), fresh: config.fresh, versions: None };
        SecureSession::new(config, Phase::Listening(Box::new(listening)), now)
    }

    fn new(config: SecureConfig, phase: Phase, now: Instant) -> SecureSession {
        SecureSession {
            deadline: Some(now + config.timeout),
            config,
            phase,
            input: BytesMut::new(),
            output: BytesMut::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes what arrived: any part of the stream.
    ///
    /// # Errors
    /// The session is over. Events that came before can still be polled, a last word to the peer may be in the output.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), SecureError> {
        self.input.extend_from_slice(bytes);
        let result = self.work();
        if let Err(error) = &result {
            self.fail(error);
        }
        result
    }

    /// The next event; `None` when there is none for now.
    pub fn poll_event(&mut self) -> Option<SecureEvent> {
        self.events.pop_front()
    }

    /// What is to be sent now, in order.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// Whether there is something to be sent.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; `None`: never.
    pub fn poll_at(&self) -> Option<Instant> {
        self.deadline
    }

    /// The time has come, or not.
    ///
    /// # Errors
    /// The handshake has taken too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SecureError> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let error = SecureError::Timeout { limit: self.config.timeout };
        self.fail(&error);
        Err(error)
    }

    /// Encrypts bytes for the peer, into the output.
    ///
    /// # Errors
    /// There is no session (any more).
    pub fn seal(&mut self, data: &[u8]) -> Result<(), SecureError> {
        let Phase::Open(open) = &mut self.phase else { return Err(SecureError::Record) };
        if open.records.seal(data, &mut self.output)? {
            self.events.push_back(SecureEvent::ResumeKey);
        }
        Ok(())
    }

    /// Says something of the epochs of the group, into the output.
    ///
    /// # Errors
    /// There is no session (any more).
    pub fn seal_group(&mut self, content: &[u8]) -> Result<(), SecureError> {
        let Phase::Open(open) = &mut self.phase else { return Err(SecureError::Record) };
        open.records.put(RecordKind::Group, content, &mut self.output)
    }

    /// Says that this was all. Nothing can be sealed afterwards.
    pub fn end(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            // Fails only if it was said before.
            let _ = open.records.seal_end(&mut self.output);
        }
    }

    /// The peer may not go on: tells it why, and ends the session.
    pub fn refuse(&mut self, reason: RefuseReason) {
        match &mut self.phase {
            Phase::Open(open) => {
                let _ = open.records.seal_refused(reason, &mut self.output);
            }
            // The handshake is still under way: only it has a deadline.
            _ if self.deadline.is_some() => refuse(reason, &mut self.output),
            _ => {}
        }
        self.over();
    }

    /// The bytes have ended.
    ///
    /// # Errors
    /// Before the peer has said that this was all: somebody may have cut them short.
    pub fn handle_end(&mut self) -> Result<(), SecureError> {
        let ended = matches!(self.phase, Phase::Over);
        self.over();
        if ended { Ok(()) } else { Err(SecureError::Truncated) }
    }

    /// What a resume of the link is proven with; `None` before the handshake is done.
    pub fn resume_key(&self) -> Option<[u8; KEY_BYTES]> {
        match &self.phase {
            Phase::Open(open) => Some(*open.records.resume_key()),
            _ => None,
        }
    }

    /// The function that goes with [`resume_key`](Self::resume_key): keyed BLAKE2s, cut to 16 bytes.
    pub fn resume_tag(key: &[u8; KEY_BYTES], transcript: &[u8]) -> [u8; 16] {
        resume_tag(key, transcript)
    }

    /// Whether the peer has shown a key that this side knows, or was let in without: a stranger cannot come that far.
    pub fn knows_a_key(&self) -> bool {
        match &self.phase {
            Phase::Accepting(accepting) => accepting.is_keyed(),
            Phase::Open(_) => true,
            _ => false,
        }
    }

    /// Whether nothing more comes of it.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Counters of what was sent and received.
    pub fn stats(&self) -> Option<(DirectionStats, DirectionStats)> {
        match &self.phase {
            Phase::Open(open) => Some(open.records.stats()),
            _ => None,
        }
    }

    /// Bytes that wait inside, for the memory tests.
    pub fn buffered(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    fn over(&mut self) {
        self.phase = Phase::Over;
        self.deadline = None;
        self.input = BytesMut::new();
    }

    /// Tells the peer what is of use to it, and ends.
    pub(crate) fn fail(&mut self, error: &SecureError) {
        match error.reason() {
            Some(reason) => self.refuse(reason),
            None => self.over(),
        }
    }

    fn work(&mut self) -> Result<(), SecureError> {
        loop {
            let again = match &self.phase {
                Phase::Over => {
                    self.input.clear();
                    false
                }
                Phase::Open(_) => self.take_record()?,
                _ => self.take_message()?,
            };
            if !again {
                return Ok(());
            }
        }
    }

    /// Takes one message of the handshake; false if there is no whole one yet.
    fn take_message(&mut self) -> Result<bool, SecureError> {
        let Some(&first) = self.input.first() else { return Ok(false) };
        if first != MAGIC {
            let plain = first & WEBSOCKET_FIN != 0;
            return Err(if plain { SecureError::Plain } else { SecureError::NotOurs { first } });
        }
        let Some(&[_, kind, low, high]) = self.input.first_chunk::<HEAD_BYTES>() else { return Ok(false) };
        let length = usize::from(u16::from_le_bytes([low, high]));
        if length > HANDSHAKE_BYTES_MAX {
            return Err(SecureError::TooLong { max: HANDSHAKE_BYTES_MAX, actual: length });
        }
        if self.input.len() < HEAD_BYTES + length {
            return Ok(false);
        }
        let message = self.input.split_to(HEAD_BYTES + length);
        let body = &message[HEAD_BYTES..];
        let kind = Kind::from_code(kind).ok_or(SecureError::Unexpected { kind })?;
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        match (kind, phase) {
            (Kind::Refuse, Phase::Asking(..) | Phase::Offering(_) | Phase::Accepting(_)) => {
                return Err(refused(body));
            }
            (Kind::Challenge, Phase::Asking(keyring, entropy)) => {
                let fresh = body.try_into().map_err(|_| SecureError::Malformed)?;
                let identity = &self.config.identity;
                let offering = Offering::start(identity, &keyring, *entropy, fresh, &mut self.output)?;
                self.phase = Phase::Offering(Box::new(offering));
            }
            (Kind::Accept, Phase::Offering(offering)) => self.on_accept(*offering, body)?,
            (Kind::Offer, Phase::Listening(listening)) => self.on_offer(*listening, body)?,
            (Kind::Prove, Phase::Accepting(accepting)) => self.on_prove(*accepting, body)?,
            (kind, _) => return Err(SecureError::Unexpected { kind: kind as u8 }),
        }
        Ok(true)
    }

    fn on_offer(&mut self, listening: Listening, body: &[u8]) -> Result<(), SecureError> {
        let fresh = listening.fresh;
        match (Said::read(body)?, fresh) {
            (Said::Question, None) => {
                let fresh = listening.dice.fresh;
                challenge(&fresh, &mut self.output)?;
                let (fresh, versions) = (Some(fresh), body.first_chunk().copied());
                self.phase = Phase::Listening(Box::new(Listening { fresh, versions, ..listening }));
            }
            (Said::Offers(offers), Some(fresh)) => {
                if listening.versions.is_some_and(|versions| !body.starts_with(&versions)) {
                    return Err(SecureError::Downgrade);
                }
                let Listening { keyring, dice, .. } = listening;
                let identity = &self.config.identity;
                let name = self.config.policy.own_name();
                let (offers, name) = ((body, &offers), name.as_deref());
                let accepting =
                    Accepting::start(identity, &keyring, name, offers, &fresh, dice, &mut self.output)?;
                self.phase = Phase::Accepting(Box::new(accepting));
            }
            // Asks twice, or offers what cannot be made for this connection.
            _ => return Err(SecureError::Unexpected { kind: Kind::Offer as u8 }),
        }
        Ok(())
    }

    fn on_accept(&mut self, offering: Offering, body: &[u8]) -> Result<(), SecureError> {
        let mut granted = None;
        let config = &self.config;
        let admit = |peer, via| admit(config, peer, via).map(|grant| granted = Some(grant));
        let mut proof = BytesMut::new();
        let name = config.policy.own_name();
        let agreed = offering.accept(body, name.as_deref(), admit, &mut proof)?;
        self.output.unsplit(proof);
        let grant = granted.ok_or(SecureError::Handshake)?;
        self.open(agreed, grant, true);
        Ok(())
    }

    fn on_prove(&mut self, accepting: Accepting, body: &[u8]) -> Result<(), SecureError> {
        let agreed = accepting.prove(body)?;
        match admit(&self.config, agreed.peer, agreed.via) {
            Ok(grant) => {
                self.open(agreed, grant, false);
                if let Phase::Open(open) = &mut self.phase {
                    open.records.seal_admitted(&mut self.output)?;
                }
                // It has proven itself with what the key of resumes comes from.
                self.events.push_back(SecureEvent::ResumeConfirmed);
                Ok(())
            }
            Err(error) => {
                let Agreed { noise, resume_key, .. } = agreed;
                let mut records = Records::new(noise, resume_key, self.config.rekey);
                if let Some(reason) = error.reason() {
                    records.seal_refused(reason, &mut self.output)?;
                }
                // Said under encryption; nothing is left to say in the clear.
                self.over();
                Err(error)
            }
        }
    }

    fn open(&mut self, agreed: Agreed, grant: Grant, active: bool) {
        let Agreed { noise, peer, via, hash, resume_key, name } = agreed;
        if let Some(name) = name.filter(|_| via != Authentication::Open) {
            self.config.policy.told_name(&peer, &name);
        }
        let records = Records::new(noise, resume_key, self.config.rekey);
        self.phase = Phase::Open(Box::new(Open { records, awaits_verdict: active, confirmed: !active }));
        if !active {
            self.deadline = None;
        }
        self.events.push_back(SecureEvent::Established(Box::new(Established { peer, via, grant, hash })));
        self.events.push_back(SecureEvent::ResumeKey);
    }

    /// Takes one record; false if there is no whole one yet.
    fn take_record(&mut self) -> Result<bool, SecureError> {
        let Phase::Open(open) = &mut self.phase else { return Ok(false) };
        if open.awaits_verdict && self.input.first() == Some(&MAGIC) && self.input.get(1) == Some(&4) {
            // A refusal in the clear: the passive side could not read PROVE, so it cannot seal either. As a record this
            // would be one of 1,095 bytes, and the first one is never that long.
            return self.take_late_refusal();
        }
        let Some(opened) = open.records.open(&mut self.input, &mut self.output)? else { return Ok(false) };
        if open.awaits_verdict && !matches!(opened, Opened::Admitted | Opened::Refused(_)) {
            return Err(SecureError::Malformed);
        }
        if !std::mem::replace(&mut open.confirmed, true) {
            self.events.push_back(SecureEvent::ResumeConfirmed);
        }
        match opened {
            Opened::Data(data) => self.events.push_back(SecureEvent::Data(data)),
            Opened::Group(content) => self.events.push_back(SecureEvent::Group(content)),
            Opened::Admitted if open.awaits_verdict => {
                open.awaits_verdict = false;
                self.deadline = None;
            }
            Opened::Admitted => return Err(SecureError::Malformed),
            Opened::NewKey { first } => {
                if first {
                    self.events.push_back(SecureEvent::ResumeKey);
                }
                self.events.push_back(SecureEvent::ResumeConfirmed);
            }
            Opened::End => {
                self.events.push_back(SecureEvent::Ended);
                self.over();
                return Ok(false);
            }
            Opened::Refused(reason) => return Err(SecureError::Refused { reason, proven: true }),
        }
        Ok(true)
    }

    fn take_late_refusal(&mut self) -> Result<bool, SecureError> {
        let Some(&[_, _, low, high]) = self.input.first_chunk::<HEAD_BYTES>() else { return Ok(false) };
        let length = usize::from(u16::from_le_bytes([low, high]));
        if length > HANDSHAKE_BYTES_MAX {
            return Err(SecureError::Record);
        }
        match self.input.get(HEAD_BYTES..HEAD_BYTES + length) {
            Some(body) => Err(refused(body)),
            None => Ok(false),
        }
    }
}

impl fmt::Debug for SecureSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.phase {
            Phase::Asking(..) => "asking",
            Phase::Offering(_) => "offering",
            Phase::Listening(_) => "listening",
            Phase::Accepting(_) => "accepting",
            Phase::Open(_) => "open",
            Phase::Over => "over",
        };
        f.debug_struct("SecureSession").field("phase", &phase).finish_non_exhaustive()
    }
}

/// Asks the policy, after what no policy may allow.
fn admit(config: &SecureConfig, peer: PeerId, via: Authentication) -> Result<Grant, SecureError> {
    if peer == config.identity.id() {
        return Err(SecureError::SameIdentity);
    }
    config.policy.admit(&peer, via).map_err(|refusal| SecureError::NotAdmitted { peer, refusal })
}
