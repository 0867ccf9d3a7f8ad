//! What goes on while a connection stands: packets in, packets out, and the timers.

use super::control::Message;
use super::error::LinkError;
use super::event::{LinkRole, SuspendCause};
use super::machine::{Closing, Confirmation, Link, Phase};
use super::packet::{
    ACK_HEADER_BYTES, Ack, Answer, BITMAP_BYTES_MAX, MAGIC, Packet, PacketError, emit_data_header,
};
use super::receive::{AckDue, Arrival};
use super::send::{AckOutcome, Outgoing};
use super::sequence::Sequence;
use super::timers::Timer;
use crate::time::Instant;

/// Packets with a wrong length in a row that count as accidents; more, and the transport cuts what it should not.
const DAMAGED_MAX: u32 = 32;
/// Packets before the WELCOME that a central takes for the rest of an earlier connection: a window and its repetitions.
const STRAYS_MAX: u32 = 160;

impl<const TX: usize, const RX: usize> Link<TX, RX> {
    /// A packet has arrived.
    pub(super) fn take_packet(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LinkError> {
        if self.transport.own.is_none()
            || matches!(self.phase, Phase::Idle | Phase::Suspended | Phase::Failed)
        {
            self.stats.ignored += 1;
            return Ok(());
        }
        self.stats.packets_received += 1;
        let packet = match Packet::parse(bytes, self.transport.size) {
            Ok(packet) => packet,
            Err(error) => return self.on_unreadable(bytes, error),
        };
        self.liveness.damaged = 0;
        if let Packet::Control { kind, piece, length, chunk } = packet {
            self.heard(now);
            return match self.inbox.take(kind, piece, length, chunk)? {
                Some((kind, message)) => self.on_message(now, kind, &message),
                None => Ok(()),
            };
        }
        match &self.phase {
            Phase::Greeting { .. } => return self.on_stray(bytes),
            Phase::Listening => return Err(not_ours(bytes)),
            // The CONFIRM of a new session holds nothing: any packet serves.
            Phase::Welcoming(welcoming) if welcoming.resume.is_none() => self.enter(now)?,
            Phase::Established { .. } => {}
            _ => {
                self.stats.ignored += 1;
                return Ok(());
            }
        }
        self.confirmed();
        self.heard(now);
        match packet {
            Packet::Data { sequence, ack, payload } => self.on_data(now, sequence, ack, payload),
            Packet::Ack(ack) => self.on_ack(now, &ack),
            Packet::Control { .. } => Ok(()),
        }
    }

    fn on_unreadable(&mut self, bytes: &[u8], error: PacketError) -> Result<(), LinkError> {
        let shaking = matches!(self.phase, Phase::Greeting { .. } | Phase::Listening);
        let ours = !bytes.is_empty() && MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]);
        match (&self.phase, error) {
            (Phase::Closed, _) => {
                self.stats.ignored += 1;
                Ok(())
            }
            (Phase::Listening, _) if !ours && !bytes.is_empty() => Err(not_ours(bytes)),
            (Phase::Greeting { .. }, _) if !ours && !bytes.is_empty() => self.on_stray(bytes),
            (_, PacketError::Kind { first }) if !shaking => Err(LinkError::UnknownPacket { first }),
            (_, error) => {
                self.stats.damaged += 1;
                self.liveness.damaged += 1;
                let (count, actual) = (self.liveness.damaged, bytes.len());
                let expected =
                    if let PacketError::Length { expected, .. } = error { expected } else { MAGIC.len() };
                if count < DAMAGED_MAX { Ok(()) } else { Err(LinkError::Damaged { count, expected, actual }) }
            }
        }
    }

    /// Central: what comes before the WELCOME may be the rest of an earlier connection.
    fn on_stray(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.stats.ignored += 1;
        if self.liveness.strays == 0 {
            self.liveness.stray_first = bytes.first().copied().unwrap_or_default();
        }
        self.liveness.strays += 1;
        if self.liveness.strays < STRAYS_MAX {
            Ok(())
        } else {
            Err(LinkError::NotOurs { first: self.liveness.stray_first })
        }
    }

    fn on_message(&mut self, now: Instant, kind: u8, bytes: &[u8]) -> Result<(), LinkError> {
        let message = Message::decode(kind, bytes)?;
        if matches!(self.phase, Phase::Closed) && !matches!(message, Message::Close(_) | Message::CloseAck) {
            self.stats.ignored += 1;
            return Ok(());
        }
        match message {
            Message::Hello(hello) => self.on_hello(now, hello, bytes),
            Message::Welcome(welcome) => self.on_welcome(now, welcome, bytes),
            Message::Confirm(confirm) => self.on_confirm(now, confirm),
            Message::Refuse(reason) => self.on_refuse(reason),
            Message::Close(close) => {
                self.confirmed();
                self.on_close(close)
            }
            Message::CloseAck => self.on_close_ack(),
        }
    }

    fn on_data(
        &mut self,
        now: Instant,
        sequence: Sequence,
        ack: Sequence,
        payload: &[u8],
    ) -> Result<(), LinkError> {
        if payload.is_empty() {
            return Err(LinkError::EmptyData { sequence: sequence.number() });
        }
        let outcome = self.send.take_ack(now, ack, &[], &mut self.round_trip)?;
        self.acknowledged(now, outcome);
        match self.receive.take(sequence, payload)? {
            Arrival::InOrder(bytes) => {
                self.stats.bytes_received += bytes as u64;
                self.readable_event = true;
            }
            Arrival::Early => self.stats.out_of_order += 1,
            Arrival::Duplicate => self.stats.duplicates += 1,
        }
        self.close_when_arrived()?;
        if self.state().is_final() {
            return Ok(());
        }
        if self.receive.due() == AckDue::Later && !self.timers.is_set(Timer::Ack) {
            self.timers.set(Timer::Ack, now + self.config.ack_delay);
        }
        Ok(())
    }

    /// CONFIRM has come: that of a new session is acknowledged with the first data, which serves as well and mostly goes at once.
    pub(super) fn acknowledge_confirm(&mut self, now: Instant, is_new: bool) {
        if is_new && self.receive.due() != AckDue::Now {
            self.receive.make_due_later();
            self.timers.set(Timer::Ack, now + self.config.ack_delay);
        } else {
            self.receive.make_due();
        }
    }

    fn on_ack(&mut self, now: Instant, ack: &Ack<'_>) -> Result<(), LinkError> {
        self.stats.acks_received += 1;
        let outcome = self.send.take_ack(now, ack.next, ack.bitmap, &mut self.round_trip)?;
        if self.send.take_credit(ack.credit)? {
            self.liveness.credit_asks = 0;
        }
        if ack.answer == Answer::AtOnce {
            self.receive.make_due();
        }
        self.acknowledged(now, outcome);
        Ok(())
    }

    /// The peer has told of packets that arrived.
    fn acknowledged(&mut self, now: Instant, outcome: AckOutcome) {
        if outcome.packets > 0 {
            self.liveness.probes = 0;
            self.attempts_without_ack = 0;
            self.detect_losses(now);
            self.timers.stop(Timer::Probe);
        }
        self.stats.retransmissions_needless += u64::from(outcome.needless);
        self.note_acknowledged(outcome.bytes);
        self.watch(now);
    }

    /// Room for so many bytes that were written: the peer has them.
    pub(super) fn note_acknowledged(&mut self, bytes: u64) {
        self.stats.bytes_acknowledged += bytes;
        if bytes > 0 && core::mem::take(&mut self.write_blocked) {
            self.writable_event = true;
        }
    }

    fn detect_losses(&mut self, now: Instant) {
        match self.send.detect_losses(now, self.round_trip.reorder_window(self.liveness.peer_delay)) {
            Some(next) => self.timers.set(Timer::Late, next),
            None => self.timers.stop(Timer::Late),
        }
    }

    /// Keeps the probe timer running while something is awaited from the peer.
    fn watch(&mut self, now: Instant) {
        let doubled = if self.send.in_flight() > 0 {
            self.liveness.probes
        } else if self.send.waits_for_credit() {
            self.liveness.credit_asks
        } else {
            return self.timers.stop(Timer::Probe);
        };
        if !self.timers.is_set(Timer::Probe) {
            self.timers.set(Timer::Probe, now + self.round_trip.rto(self.liveness.peer_delay, doubled));
        }
    }

    /// A sign of life.
    pub(super) fn heard(&mut self, now: Instant) {
        self.liveness.heard = now;
        if let (Phase::Established { .. }, Some(interval)) = (&self.phase, self.config.keep_alive) {
            // The peripheral asks a little later, so that the two do not ask each other at the same time.
            let later =
                if self.role == LinkRole::Peripheral { interval / 4 } else { core::time::Duration::ZERO };
            self.timers.set(Timer::KeepAlive, now + interval + later);
            self.timers.set(Timer::Dead, now + self.config.dead_after);
        }
    }

    /// Writes the next packet. Control messages go first; then acknowledgements that data cannot carry; then data, lost
    /// before new.
    pub(super) fn next_packet(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.say_close_when_due();
        if let Some(length) = self.outbox.poll(out, self.transport.size) {
            self.control_is_out(now);
            return Some(length);
        }
        if !matches!(self.phase, Phase::Established { .. }) {
            return None;
        }
        let due = self.receive.due() == AckDue::Now;
        let ready = self.send.is_ready();
        if self.liveness.ask || (due && !(ready && self.receive.number_suffices())) {
            return Some(self.emit_ack(out));
        }
        match self.send.poll(now) {
            Some(outgoing) => Some(self.emit_data(now, &outgoing, out)),
            None => {
                self.watch(now);
                None
            }
        }
    }

    /// Whether [`Link::poll_packet`] has anything to do now: a packet to give, or a wait to begin. After a
    /// [`write`](Link::write) or a [`read`](Link::read) that leave it `false` the driver need not be woken: the next packet,
    /// or the next deadline, is soon enough.
    pub fn wants_poll(&self) -> bool {
        let awaits_credit = || self.send.waits_for_credit() && !self.timers.is_set(Timer::Probe);
        self.outbox.is_pending()
            || self.closing.is_some()
            || matches!(self.phase, Phase::Established { .. })
                && (self.liveness.ask
                    || self.receive.due() == AckDue::Now
                    || self.send.is_ready()
                    || awaits_credit())
    }

    /// A message that wants an answer is repeated until one comes.
    fn control_is_out(&mut self, now: Instant) {
        if self.outbox.is_pending() {
            return;
        }
        self.liveness.control_sent.get_or_insert(now);
        let awaits = match self.phase {
            Phase::Greeting { .. } => true,
            Phase::Established { confirmation: Confirmation::Awaited { .. }, .. } => true,
            Phase::Established { .. } => matches!(self.closing, Some(Closing { said: true, .. })),
            _ => false,
        };
        if awaits {
            let rto = self.round_trip.rto(self.liveness.peer_delay, self.liveness.control_repeats);
            self.timers.set(Timer::Control, now + rto);
        }
    }

    fn emit_ack(&mut self, out: &mut [u8]) -> usize {
        let room = (self.transport.size - ACK_HEADER_BYTES).min(BITMAP_BYTES_MAX);
        let (credit, bitmap, used) = self.receive.acknowledge(room);
        let answer = if core::mem::take(&mut self.liveness.ask) { Answer::AtOnce } else { Answer::None };
        let ack = Ack { answer, next: self.receive.next(), credit, bitmap: &bitmap[..used] };
        self.timers.stop(Timer::Ack);
        self.stats.acks_sent += 1;
        Packet::Ack(ack).emit(out, self.transport.size)
    }

    fn emit_data(&mut self, now: Instant, outgoing: &Outgoing, out: &mut [u8]) -> usize {
        let ack = self.receive.piggyback_ack();
        if self.receive.due() == AckDue::Never {
            self.timers.stop(Timer::Ack);
        }
        let header = emit_data_header(out, outgoing.sequence, ack, outgoing.length, self.transport.size);
        self.send.copy(outgoing, &mut out[header..]);
        self.stats.bytes_sent += (outgoing.length - outgoing.repeated_bytes) as u64;
        self.stats.bytes_retransmitted += outgoing.repeated_bytes as u64;
        self.stats.retransmissions += u64::from(outgoing.repeated);
        self.stats.in_flight_max = self.stats.in_flight_max.max(self.send.in_flight());
        // Patience counts from the last packet: what was sent before it is answered first.
        self.timers.stop(Timer::Probe);
        self.watch(now);
        header + outgoing.length
    }

    /// A timer has run out.
    pub(super) fn expire(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Close => self.force_close(),
            Timer::Session => {
                self.fail(LinkError::SessionTimeout {
                    limit_ms: self.config.session_timeout.as_millis() as u64,
                });
            }
            Timer::Handshake => self.handshake_expired(now),
            Timer::Dead => self.suspend(now, SuspendCause::PeerSilent(self.config.dead_after)),
            Timer::Control => {
                self.liveness.control_repeats = self.liveness.control_repeats.saturating_add(1);
                self.outbox.again();
            }
            Timer::Late => {
                self.detect_losses(now);
                self.watch(now);
            }
            Timer::Probe => self.probe(now),
            Timer::Ack => self.receive.make_due(),
            Timer::KeepAlive => {
                self.liveness.ask = true;
                if let Some(interval) = self.config.keep_alive {
                    self.timers.set(Timer::KeepAlive, now + interval);
                }
            }
        }
    }

    fn handshake_expired(&mut self, now: Instant) {
        let error = if self.liveness.strays > 0 {
            LinkError::NotOurs { first: self.liveness.stray_first }
        } else {
            LinkError::HandshakeTimeout { limit_ms: self.config.handshake_timeout.as_millis() as u64 }
        };
        self.suspend(now, SuspendCause::Handshake(error));
    }

    /// No acknowledgement came: sends the oldest packet again, or asks for credit.
    fn probe(&mut self, now: Instant) {
        if self.send.in_flight() > 0 {
            self.liveness.probes += 1;
            if self.liveness.probes > self.config.retries_max {
                return self.suspend(now, SuspendCause::Unacknowledged(self.config.retries_max.into()));
            }
            self.send.probe();
        } else if self.send.waits_for_credit() {
            if now.since(self.liveness.heard) >= self.config.dead_after {
                return self.suspend(now, SuspendCause::PeerSilent(self.config.dead_after));
            }
            self.liveness.credit_asks = self.liveness.credit_asks.saturating_add(1);
            self.liveness.ask = true;
        }
        self.watch(now);
    }
}

fn not_ours(bytes: &[u8]) -> LinkError {
    LinkError::NotOurs { first: bytes.first().copied().unwrap_or_default() }
}
