//! The link itself: its state, and the calls of the driver. What the calls lead to is in `handshake`, `traffic` and
//! `ending`.

use core::time::Duration;

use heapless::Deque;

use super::config::{LinkConfig, VERSION_MAX, VERSION_MIN};
use super::control::{Close, Inbox, MessageBytes, Nonce, Outbox, Parameters, Proof, busy_packet};
use super::error::LinkError;
use super::event::{LinkEvent, LinkRole, LinkState, LinkStats, PeerLimits, SuspendCause};
use super::mtu::{PACKET_BYTES_MIN, PacketSize};
use super::packet::DATA_HEADER_BYTES;
use super::prover::{LinkSeed, Nonces, Provers, ResumeProver, SessionOrigin};
use super::reason::{CloseReason, SessionId};
use super::receive::ReceiveWindow;
use super::round_trip::RoundTrip;
use super::send::SendWindow;
use super::timers::{Timer, Timers};
use crate::time::Instant;

/// Events that wait for the driver, besides the two that are flags.
const EVENTS_MAX: usize = 8;
/// A buffer holds at least this many full packets; a smaller one lowers the packet size of its side.
const BUFFER_PACKETS_MIN: usize = 4;

/// One end of a reliable byte stream. `TX` and `RX` are the bytes of its send and receive buffers, 128 at least
/// ([`SEND_BUFFER_BYTES`](super::SEND_BUFFER_BYTES) and [`RECEIVE_BUFFER_BYTES`](super::RECEIVE_BUFFER_BYTES) suit Linux);
/// they are inside of it, so a driver boxes it.
#[derive(Debug)]
pub struct Link<const TX: usize, const RX: usize> {
    pub(super) role: LinkRole,
    pub(super) config: LinkConfig,
    pub(super) nonces: Nonces,
    pub(super) provers: Provers,
    pub(super) phase: Phase,
    pub(super) session: Option<Session>,
    pub(super) closing: Option<Closing>,
    /// The peer's CLOSE, which came before all that it tells of.
    pub(super) peer_close: Option<Close>,
    /// See [`Link::peer_has_ended`].
    pub(super) peer_has_ended: bool,
    /// The highest version that this side speaks; tests speak for older ones.
    pub(super) version_max: u8,
    /// What both speak on this connection.
    pub(super) version: u8,
    pub(super) transport: Transport,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    pub(super) send: SendWindow<TX>,
    pub(super) receive: ReceiveWindow<RX>,
    pub(super) round_trip: RoundTrip,
    pub(super) timers: Timers,
    pub(super) liveness: Liveness,
    /// Connections in a row on which nothing was acknowledged.
    pub(super) attempts_without_ack: u32,
    pub(super) events: Deque<LinkEvent, EVENTS_MAX>,
    pub(super) readable_event: bool,
    pub(super) writable_event: bool,
    /// A write was not taken whole.
    pub(super) write_blocked: bool,
    pub(super) stats: LinkStats,
}

/// Where a link is, with what only that state needs.
#[derive(Debug)]
pub(super) enum Phase {
    Idle,
    /// Central: HELLO is out.
    Greeting {
        hello: MessageBytes,
        credit: u64,
        resume: bool,
    },
    /// Peripheral: waits for HELLO.
    Listening,
    /// Peripheral: WELCOME is out.
    Welcoming(Welcoming),
    Established {
        /// The central's nonce, to know a late HELLO of this connection from a new one.
        nonce: Nonce,
        confirmation: Confirmation,
    },
    Suspended,
    Closed,
    Failed,
}

/// What a peripheral keeps between its WELCOME and the CONFIRM.
#[derive(Debug)]
pub(super) struct Welcoming {
    pub(super) nonce: Nonce,
    pub(super) version: u8,
    pub(super) peer: Parameters,
    pub(super) size: PacketSize,
    /// What was announced to the central, as an offset.
    pub(super) credit: u64,
    /// At a resume: where the central goes on, and the proof that it has to give.
    pub(super) resume: Option<(u64, Proof)>,
}

/// Whether a central knows that its CONFIRM has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    Awaited { resumed: Option<PeerLimits> },
    Done,
}

/// What stays over connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) origin: SessionOrigin,
    /// Both sides have it for certain.
    pub(super) established: bool,
}

/// A close that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) reason: CloseReason,
    /// CLOSE is out on this connection, and with it all that was written.
    pub(super) said: bool,
}

/// What carries packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transport {
    /// The largest packet of this side, while a transport is there.
    pub(super) own: Option<PacketSize>,
    /// The size that counts: of this side until both have agreed.
    pub(super) size: usize,
}

/// Signs of life, and of trouble, of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Liveness {
    /// When the last packet arrived.
    pub(super) heard: Instant,
    /// The peer is to be asked for an acknowledgement.
    pub(super) ask: bool,
    /// Probes since the last acknowledgement of something.
    pub(super) probes: u8,
    /// Questions for credit since it last grew.
    pub(super) credit_asks: u8,
    /// How long the peer may hold acknowledgements back.
    pub(super) peer_delay: Duration,
    /// Times the current control message was sent again.
    pub(super) control_repeats: u8,
    /// When the current control message was sent first.
    pub(super) control_sent: Option<Instant>,
    /// Packets with a wrong length in a row.
    pub(super) damaged: u32,
    /// Central: packets that came before the WELCOME, and the first byte of the first.
    pub(super) strays: u32,
    pub(super) stray_first: u8,
}

impl<const TX: usize, const RX: usize> Link<TX, RX> {
    const BUFFERS_SUFFICE: () = {
        let min = BUFFER_PACKETS_MIN * (PACKET_BYTES_MIN as usize - DATA_HEADER_BYTES);
        assert!(TX >= min && RX >= min, "a buffer holds four of the smallest packets");
        assert!(
            RX as u64 <= super::config::WINDOW_BYTES_MAX as u64,
            "a receive buffer is announced in 24 bits"
        );
    };

    /// A link that was never connected. Names, nonces and tokens come of `seed`, which is random, from the driver.
    pub fn new(role: LinkRole, config: LinkConfig, seed: impl Into<LinkSeed>) -> Self {
        let () = Self::BUFFERS_SUFFICE;
        Link {
            role,
            nonces: Nonces::new(seed.into()),
            provers: Provers::default(),
            phase: Phase::Idle,
            session: None,
            closing: None,
            peer_close: None,
            peer_has_ended: false,
            version_max: VERSION_MAX,
            version: VERSION_MIN,
            transport: Transport::default(),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            send: SendWindow::new(),
            receive: ReceiveWindow::new(),
            round_trip: RoundTrip::default(),
            timers: Timers::default(),
            liveness: Liveness::default(),
            attempts_without_ack: 0,
            events: Deque::new(),
            readable_event: false,
            writable_event: false,
            write_blocked: false,
            stats: LinkStats::default(),
            config,
        }
    }

    /// A transport carries packets of up to `size` bytes now. As central: after it has subscribed. Ends a connection that
    /// was there before; does nothing in a final state.
    pub fn connected(&mut self, now: Instant, size: PacketSize) {
        self.disconnected(now);
        if self.state().is_final() {
            return;
        }
        if let Some(LinkEvent::Suspended(SuspendCause::ConnectionLost)) = self.events.back() {
            // The driver knows, and might take it for the end of the new connection.
            self.events.pop_back();
        }
        let own = self.own_size(size);
        self.transport = Transport { own: Some(own), size: own.bytes() };
        self.inbox.clear();
        self.round_trip = RoundTrip::default();
        self.liveness = Liveness { heard: now, ..Liveness::default() };
        self.timers.set(Timer::Handshake, now + self.config.handshake_timeout);
        match self.role {
            LinkRole::Central => self.greet(),
            LinkRole::Peripheral => self.phase = Phase::Listening,
        }
    }

    /// The largest packet that the buffers can do with, too.
    pub(super) fn own_size(&self, size: PacketSize) -> PacketSize {
        let buffers = PacketSize::fitting(DATA_HEADER_BYTES + TX.min(RX) / BUFFER_PACKETS_MIN);
        size.min(buffers.unwrap_or(PacketSize::MIN))
    }

    /// The transport is gone; the session stays until its time-out.
    pub fn disconnected(&mut self, now: Instant) {
        match self.phase {
            Phase::Idle | Phase::Suspended | Phase::Closed | Phase::Failed => {}
            _ => self.suspend(now, SuspendCause::ConnectionLost),
        }
        self.transport = Transport::default();
        self.outbox.clear();
    }

    /// A packet has arrived. Packets with a wrong length are dropped and counted, since radios cut; all else that the
    /// protocol forbids is an error.
    ///
    /// # Errors
    /// The peer broke the protocol: the connection is of no use any more. [`Link::state`] says whether the session is
    /// gone too (`Failed`) or waits for another connection (`Suspended`). A last word to the peer may wait in
    /// [`Link::poll_packet`].
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<(), LinkError> {
        let result = self.take_packet(now, packet);
        if let Err(error) = result {
            self.break_off(now, error);
        }
        result
    }

    /// Writes the next packet to be sent into `out` and returns its length; `None` when there is none now, or when `out`
    /// is smaller than the packet size given to [`Link::connected`]. Call it only when the transport can take a packet,
    /// until `None`.
    pub fn poll_packet(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let own = self.transport.own?;
        if out.len() < own.bytes() {
            return None;
        }
        let length = self.next_packet(now, out)?;
        self.stats.packets_sent += 1;
        self.stats.packet_bytes_sent += length as u64;
        Some(length)
    }

    /// When [`Link::handle_timeout`] is due, if nothing happens before.
    pub fn poll_at(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due at `now`; nothing if nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..Timers::COUNT {
            match self.timers.take_due(now) {
                Some(timer) => self.expire(now, timer),
                None => return,
            }
        }
    }

    /// Takes bytes into the send buffer and returns how many: none once the link is closing or in a final state. Poll for
    /// packets after it.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let count = if self.writable() == 0 { 0 } else { self.send.write(bytes) };
        self.write_blocked |= count < bytes.len();
        count
    }

    /// Bytes that [`Link::write`] would take now.
    pub fn writable(&self) -> usize {
        if self.closing.is_some() || self.state().is_final() { 0 } else { self.send.writable() }
    }

    /// Bytes that [`Link::read`] would give now; what arrived before a close or a failure is still there after it.
    pub fn readable(&self) -> usize {
        self.receive.readable()
    }

    /// Moves received bytes to `out`, which gives the peer new credit, and returns how many. Poll for packets after it.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        self.receive.read(out)
    }

    /// Whether all that was written has been acknowledged.
    pub fn is_flushed(&self) -> bool {
        self.send.unacknowledged() == 0
    }

    /// Closes in order: flushes, then tells the peer. Reaches a final state within `close_timeout`, also without a
    /// connection; a link that has no session yet is closed at once. The first reason stands.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        if self.closing.is_some() || self.state().is_final() {
            return;
        }
        if !self.session.is_some_and(|session| session.established) {
            return self.finish(reason, false);
        }
        self.closing = Some(Closing { reason, said: false });
        self.timers.set(Timer::Close, now + self.config.close_timeout);
    }

    /// What happened since the last call, oldest first; call it until `None`.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        let begins = matches!(self.events.front(), Some(LinkEvent::Established { .. }));
        if !begins && core::mem::take(&mut self.readable_event) {
            return Some(LinkEvent::Readable);
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        core::mem::take(&mut self.writable_event).then_some(LinkEvent::Writable)
    }

    /// Where the link is in its life.
    pub fn state(&self) -> LinkState {
        match self.phase {
            Phase::Idle => LinkState::Idle,
            Phase::Greeting { .. } | Phase::Listening | Phase::Welcoming(_) => LinkState::Handshaking,
            Phase::Established { confirmation: Confirmation::Awaited { resumed: Some(_) }, .. } => {
                LinkState::Handshaking
            }
            Phase::Established { .. } if self.closing.is_some() => LinkState::Closing,
            Phase::Established { .. } => LinkState::Established,
            Phase::Suspended => LinkState::Suspended,
            Phase::Closed => LinkState::Closed,
            Phase::Failed => LinkState::Failed,
        }
    }

    /// The session, once there is one.
    pub fn session_id(&self) -> Option<SessionId> {
        self.session.map(|session| session.id)
    }

    /// What the peripheral chose when the session began, once there is one; the same on both ends, over all its connections.
    pub fn session_origin(&self) -> Option<SessionOrigin> {
        self.session.map(|session| session.origin)
    }

    /// Counters.
    pub fn stats(&self) -> LinkStats {
        LinkStats {
            in_flight: self.send.in_flight(),
            bytes_unsent: self.send.written().saturating_sub(self.stats.bytes_sent),
            srtt: self.round_trip.smoothed(),
            reorder_threshold: self.send.reorder_threshold(),
            ..self.stats
        }
    }

    /// From the next resume on, this side takes this prover beside the one before (at first the session's random token).
    /// Both sides set the same ones in the same order; [`Link::confirm_resume_prover`] retires the one before.
    pub fn set_resume_prover(&mut self, prover: ResumeProver) {
        self.provers.push(prover);
    }

    /// The peer is known to have the newest prover too (something under its key has arrived): no other is taken any more.
    pub fn confirm_resume_prover(&mut self) {
        self.provers.confirm();
    }

    /// Keeps an event for the driver. One that does not ask loses the oldest.
    pub(super) fn push_event(&mut self, event: LinkEvent) {
        if self.events.is_full() {
            self.events.pop_front();
        }
        let kept = self.events.push_back(event);
        debug_assert!(kept.is_ok(), "there is room: the oldest was dropped");
    }
}

/// Writes the packet with which a peripheral without room turns a central away, without a link of its own, and gives its
/// length; `None` if `out` is too short, which no packet size allows. The central hears
/// [`Busy`](super::RefuseReason::Busy), whether it asked for a new session or for an old one, which it keeps.
pub fn busy_refusal(out: &mut [u8]) -> Option<usize> {
    busy_packet(out)
}
