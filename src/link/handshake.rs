//! How a connection begins: HELLO, WELCOME, CONFIRM, and the proofs of a resume.
//!
//! ```text
//! central                                                   peripheral
//!   HELLO    versions, session?, nonce, limits, offset  --->
//!       <---  WELCOME   version, session, nonce, limits, new token | offset + proof
//!   CONFIRM  proof?                                     --->
//! ```
//! The central repeats HELLO until WELCOME comes and CONFIRM until anything comes; the peripheral only answers.

use core::time::Duration;

use super::config::{VERSION_MAX, VERSION_MIN};
use super::control::{
    Confirm, Grant, Hello, Kind, Message, MessageBytes, Nonce, Parameters, Proof, Welcome, transcript,
};
use super::error::LinkError;
use super::event::{LinkEvent, LinkRole, PeerLimits};
use super::machine::{Closing, Confirmation, Link, Phase, Session, Welcoming};
use super::mtu::PacketSize;
use super::packet::DATA_HEADER_BYTES;
use super::prover::SessionOrigin;
use super::reason::{CloseReason, RefuseReason, SessionId};
use super::timers::Timer;
use crate::time::Instant;

/// A peer's word on how long it holds acknowledgements back is taken up to this.
const PEER_ACK_DELAY_MAX: Duration = Duration::from_secs(1);

impl<const TX: usize, const RX: usize> Link<TX, RX> {
    /// Central: says HELLO.
    pub(super) fn greet(&mut self) {
        let (parameters, credit) = self.parameters();
        let resumable = self.session.filter(|session| session.established);
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: self.version_max,
            session: resumable.map(|session| session.id),
            nonce: self.nonces.next_eight(),
            parameters,
            offset: self.receive.arrived(),
            prover: self.provers.oldest(),
        };
        let hello = Message::Hello(hello).encode();
        self.say_bytes(Kind::Hello, hello.clone());
        self.phase = Phase::Greeting { hello, credit, resume: resumable.is_some() };
    }

    /// What this side announces, and the credit in it as an offset.
    fn parameters(&self) -> (Parameters, u64) {
        self.parameters_for(self.transport.own.unwrap_or(PacketSize::MIN))
    }

    fn parameters_for(&self, own: PacketSize) -> (Parameters, u64) {
        let window = self.receive.window();
        let parameters = Parameters {
            packet_size: own.bytes_u16(),
            buffer_bytes: RX as u32,
            window_bytes: window,
            send_bytes: TX as u32,
            window_packets: self.config.window_packets.clamp(1, super::config::PACKETS_IN_FLIGHT_MAX),
            ack_delay_ms: u16::try_from(self.config.ack_delay.as_millis()).unwrap_or(u16::MAX),
        };
        (parameters, self.receive.arrived() + u64::from(window))
    }

    /// Puts a control message in the place of the one before.
    pub(super) fn say(&mut self, message: &Message) {
        self.say_bytes(message.kind(), message.encode());
    }

    fn say_bytes(&mut self, kind: Kind, bytes: MessageBytes) {
        self.outbox.put(kind, bytes);
        self.liveness.control_repeats = 0;
        self.liveness.control_sent = None;
        self.timers.stop(Timer::Control);
    }

    /// Peripheral: a HELLO has come.
    pub(super) fn on_hello(&mut self, now: Instant, hello: Hello, bytes: &[u8]) -> Result<(), LinkError> {
        let unexpected = LinkError::UnexpectedControl { kind: Kind::Hello as u8 };
        if self.role == LinkRole::Central {
            return Err(unexpected);
        }
        match &self.phase {
            Phase::Listening => {}
            Phase::Welcoming(welcoming) if welcoming.nonce == hello.nonce => {
                self.outbox.again();
                return Ok(());
            }
            Phase::Welcoming(_) => {}
            Phase::Established { nonce, .. } if *nonce == hello.nonce => {
                self.stats.ignored += 1;
                return Ok(());
            }
            Phase::Established { .. } if hello.session.is_some() && hello.session == self.session_id() => {
                // The central lost the connection and came back before this side noticed.
                self.timers.stop_connection();
                self.timers.set(Timer::Handshake, now + self.config.handshake_timeout);
                self.timers.set(Timer::Session, now + self.config.session_timeout);
                self.phase = Phase::Listening;
            }
            Phase::Established { .. } => return Err(LinkError::PeerRestarted),
            _ => return Err(unexpected),
        }
        let size = hello.parameters.agree(self.transport.own.unwrap_or(PacketSize::MIN))?;
        if hello.session.is_none() {
            self.forget_unproven_session();
        }
        match (hello.session, self.session) {
            (None, None) => self.welcome_new(&hello, size),
            (Some(asked), Some(session)) if asked == session.id => {
                self.welcome_back(&hello, bytes, size, session.id)?;
            }
            (Some(_), None) => self.say(&Message::Refuse(RefuseReason::SessionUnknown)),
            (_, Some(session)) => return Err(LinkError::SessionMismatch { ours: session.id }),
        }
        Ok(())
    }

    /// A session that its central never confirmed is nothing when the central begins again.
    fn forget_unproven_session(&mut self) {
        if self.session.is_some_and(|session| !session.established) {
            self.session = None;
        }
    }

    fn welcome_new(&mut self, hello: &Hello, size: PacketSize) {
        let id = SessionId(self.nonces.next_eight());
        let token = self.nonces.next_bytes();
        self.provers.set_token(token);
        let origin = SessionOrigin::new(id.0, token);
        self.session = Some(Session { id, origin, established: false });
        let (parameters, credit) = self.parameters();
        let welcome = self.welcome(hello, id, parameters, Grant::New(token));
        let (nonce, version, peer) = (hello.nonce, welcome.version, hello.parameters);
        let welcoming = Welcoming { nonce, version, peer, size, credit, resume: None };
        self.begin_welcoming(Message::Welcome(welcome).encode(), welcoming);
    }

    fn welcome_back(
        &mut self,
        hello: &Hello,
        bytes: &[u8],
        size: PacketSize,
        id: SessionId,
    ) -> Result<(), LinkError> {
        let own = self.transport.own.unwrap_or(PacketSize::MIN);
        let (welcome, welcoming) = self.resumed_welcome(hello, bytes, own, size, id)?;
        self.begin_welcoming(welcome, welcoming);
        Ok(())
    }

    fn begin_welcoming(&mut self, welcome: MessageBytes, welcoming: Welcoming) {
        self.say_bytes(Kind::Welcome, welcome);
        self.transport.size = welcoming.size.bytes();
        self.phase = Phase::Welcoming(welcoming);
    }

    fn welcome(
        &mut self,
        hello: &Hello,
        session: SessionId,
        parameters: Parameters,
        grant: Grant,
    ) -> Welcome {
        let nonce = self.nonces.next_eight();
        Welcome { version: self.version_max.min(hello.version_max), session, nonce, parameters, grant }
    }

    /// The WELCOME to a session that goes on, with this side's proof, and what to keep until the central has given its own.
    /// Nothing of the link changes.
    pub(super) fn resumed_welcome(
        &mut self,
        hello: &Hello,
        bytes: &[u8],
        own: PacketSize,
        size: PacketSize,
        id: SessionId,
    ) -> Result<(MessageBytes, Welcoming), LinkError> {
        self.send.check_offset(hello.offset)?;
        let prover = self.provers.common(hello.prover).ok_or(LinkError::ResumeProof)?;
        let (parameters, credit) = self.parameters_for(own);
        let offset = self.receive.arrived();
        let mut welcome =
            self.welcome(hello, id, parameters, Grant::Resumed { offset, proof: Proof::default() });
        // With an empty proof at its end, which a transcript leaves out.
        let unproven = Message::Welcome(welcome).encode();
        let proof = prover.prove(&transcript(Kind::Welcome, bytes, &unproven));
        welcome.grant = Grant::Resumed { offset, proof };
        let expected = prover.prove(&transcript(Kind::Confirm, bytes, &unproven));
        let resume = Some((hello.offset, expected));
        let (nonce, version, peer) = (hello.nonce, welcome.version, hello.parameters);
        let welcoming = Welcoming { nonce, version, peer, size, credit, resume };
        Ok((Message::Welcome(welcome).encode(), welcoming))
    }

    /// Central: a WELCOME has come.
    pub(super) fn on_welcome(
        &mut self,
        now: Instant,
        welcome: Welcome,
        bytes: &[u8],
    ) -> Result<(), LinkError> {
        let unexpected = LinkError::UnexpectedControl { kind: Kind::Welcome as u8 };
        if self.role == LinkRole::Peripheral {
            return Err(unexpected);
        }
        let (hello, credit, resume) = match &self.phase {
            Phase::Greeting { hello, credit, resume } => (hello.clone(), *credit, *resume),
            Phase::Established { confirmation: Confirmation::Awaited { .. }, .. } => {
                self.outbox.again();
                return Ok(());
            }
            Phase::Established { .. } => {
                self.stats.ignored += 1;
                return Ok(());
            }
            _ => return Err(unexpected),
        };
        let size = welcome.parameters.agree(self.transport.own.unwrap_or(PacketSize::MIN))?;
        let (peer_offset, proof) = self.check_grant(&welcome, bytes, &hello, resume)?;
        self.begin(&welcome.parameters, welcome.version, size, peer_offset, credit)?;
        self.measure_control(now);
        let begun = match welcome.grant {
            Grant::New(token) => Some(SessionOrigin::new(welcome.session.0, token)),
            Grant::Resumed { .. } => self.session.map(|session| session.origin),
        };
        let origin = begun.ok_or(unexpected)?;
        self.session = Some(Session { id: welcome.session, origin, established: true });
        let limits = limits(welcome.version, size, &welcome.parameters);
        self.say(&Message::Confirm(Confirm { proof }));
        let resumed = proof.map(|_| limits);
        self.phase =
            Phase::Established { nonce: Nonce::default(), confirmation: Confirmation::Awaited { resumed } };
        if resumed.is_none() {
            self.announce(limits, false);
        }
        self.heard(now);
        Ok(())
    }

    /// Central: what the peripheral grants must be what was asked for; gives where the stream goes on there, and the own
    /// proof of a resume.
    fn check_grant(
        &mut self,
        welcome: &Welcome,
        bytes: &[u8],
        hello: &[u8],
        resume: bool,
    ) -> Result<(u64, Option<Proof>), LinkError> {
        let unexpected = LinkError::UnexpectedControl { kind: Kind::Welcome as u8 };
        match (welcome.grant, self.session.filter(|_| resume)) {
            (Grant::New(token), None) => {
                self.provers.set_token(token);
                Ok((0, None))
            }
            (Grant::Resumed { offset, proof }, Some(session)) if session.id == welcome.session => {
                let theirs = transcript(Kind::Welcome, hello, bytes);
                let prover = self.provers.find(&theirs, &proof).ok_or(LinkError::ResumeProof)?;
                Ok((offset, Some(prover.prove(&transcript(Kind::Confirm, hello, bytes)))))
            }
            (_, Some(session)) => Err(LinkError::SessionMismatch { ours: session.id }),
            (Grant::Resumed { .. }, None) => Err(unexpected),
        }
    }

    /// Peripheral: a CONFIRM has come.
    pub(super) fn on_confirm(&mut self, now: Instant, confirm: Confirm) -> Result<(), LinkError> {
        match &self.phase {
            Phase::Welcoming(Welcoming { resume: Some((_, expected)), .. }) => {
                if !same(&confirm.proof.unwrap_or_default(), expected) {
                    return Err(LinkError::ResumeProof);
                }
            }
            Phase::Welcoming(_) => {}
            Phase::Established { .. } if self.role == LinkRole::Peripheral => {}
            _ => return Err(LinkError::UnexpectedControl { kind: Kind::Confirm as u8 }),
        }
        let is_new = matches!(&self.phase, Phase::Welcoming(Welcoming { resume: None, .. }));
        self.enter(now)?;
        self.acknowledge_confirm(now, is_new);
        Ok(())
    }

    /// Peripheral: the central has shown that WELCOME arrived. Nothing if that was known.
    pub(super) fn enter(&mut self, now: Instant) -> Result<(), LinkError> {
        let (Phase::Welcoming(Welcoming { nonce, version, peer, size, credit, resume }), Some(session)) =
            (&self.phase, self.session)
        else {
            return Ok(());
        };
        let (nonce, version, peer, size, credit, resume) = (*nonce, *version, *peer, *size, *credit, *resume);
        self.begin(&peer, version, size, resume.map_or(0, |(offset, _)| offset), credit)?;
        self.measure_control(now);
        let before = self.session.replace(Session { established: true, ..session });
        self.outbox.clear();
        self.phase = Phase::Established { nonce, confirmation: Confirmation::Done };
        // The first connection may have ended before its CONFIRM arrived: then this is the beginning to this side.
        let resumed = before.is_some_and(|session| session.established);
        self.announce(limits(version, size, &peer), resumed);
        self.heard(now);
        Ok(())
    }

    /// Central: something has come that shows that CONFIRM arrived. Nothing if that was known.
    pub(super) fn confirmed(&mut self) {
        let Phase::Established { confirmation, .. } = &mut self.phase else { return };
        let Confirmation::Awaited { resumed } = core::mem::replace(confirmation, Confirmation::Done) else {
            return;
        };
        self.timers.stop(Timer::Control);
        self.timers.stop(Timer::Handshake);
        self.outbox.clear();
        if let Some(limits) = resumed {
            self.announce(limits, true);
        }
    }

    /// Begins both windows of a connection.
    fn begin(
        &mut self,
        peer: &Parameters,
        version: u8,
        size: PacketSize,
        arrived: u64,
        credit: u64,
    ) -> Result<(), LinkError> {
        let payload = size.bytes() - DATA_HEADER_BYTES;
        let (window, buffer) = (peer.window_bytes, peer.buffer_bytes);
        let newly = self.send.begin(payload, arrived, window, buffer, peer.window_packets)?;
        self.note_acknowledged(newly);
        self.version = version;
        // What was said of the end on another connection may not have arrived, and is said again.
        self.peer_close = None;
        self.closing = self.closing.map(|closing| Closing { said: false, ..closing });
        self.receive.begin(payload, credit, self.ack_every(payload, peer));
        self.transport.size = size.bytes();
        self.liveness.peer_delay = Duration::from_millis(peer.ack_delay_ms.into()).min(PEER_ACK_DELAY_MAX);
        Ok(())
    }

    /// Data packets without an acknowledgement: as configured, but not more than half of what either side can have on its
    /// way, so that the peer never waits for the delay.
    fn ack_every(&self, payload: usize, peer: &Parameters) -> u16 {
        let buffers = RX.min(peer.send_bytes as usize) / payload;
        let most = buffers.min(self.config.window_packets.into()) / 2;
        u16::from(self.config.ack_every_packets).min(most as u16).max(1)
    }

    /// The handshake is the first measurement of the round trip, unless something of it was repeated.
    fn measure_control(&mut self, now: Instant) {
        if let (Some(sent), 0) = (self.liveness.control_sent, self.liveness.control_repeats) {
            self.round_trip.sample(now.since(sent));
        }
    }

    fn announce(&mut self, peer: PeerLimits, resumed: bool) {
        let Some(Session { id: session, .. }) = self.session else { return };
        self.timers.stop(Timer::Session);
        if self.role == LinkRole::Peripheral {
            self.timers.stop(Timer::Handshake);
        }
        self.stats.resumes += u32::from(resumed);
        self.push_event(LinkEvent::Established { session, resumed, peer });
        if self.readable() > 0 {
            self.readable_event = true;
        }
    }

    /// A REFUSE has come.
    pub(super) fn on_refuse(&mut self, reason: RefuseReason) -> Result<(), LinkError> {
        if reason == RefuseReason::SessionUnknown && self.role == LinkRole::Central && self.session.is_some()
        {
            self.finish(CloseReason::SessionUnknown, true);
            return Ok(());
        }
        Err(match reason {
            RefuseReason::Version { min, max } => LinkError::Version {
                ours_min: VERSION_MIN,
                ours_max: VERSION_MAX,
                theirs_min: min,
                theirs_max: max,
            },
            reason => LinkError::Refused(reason),
        })
    }
}

const fn limits(version: u8, packet_size: PacketSize, peer: &Parameters) -> PeerLimits {
    PeerLimits { version, packet_size, window_bytes: peer.buffer_bytes, window_packets: peer.window_packets }
}

/// Compares in the same time wherever the two differ.
pub(super) fn same(a: &Proof, b: &Proof) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    core::hint::black_box(difference) == 0
}
