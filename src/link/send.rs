//! The sending half: what is in flight, what was lost, what may go next.
//!
//! Losses are told by what overtook them, in the manner of RACK (RFC 8985): every transmission has a number in the order of
//! sending, and a packet counts as lost when one that was sent well after it has arrived: eight transmissions later (more
//! once this turns out too strict, since BlueZ can reorder), or clearly more than a round trip ago. Buffers below hold more than
//! a window, so that an answer may be slow without any loss: see [`SendWindow::arrive`].
//!
//! One file, because what is acknowledged, what is lost and what goes again are rules about one queue.

use core::time::Duration;

use super::error::LinkError;
use super::ring::ByteRing;
use super::round_trip::RoundTrip;
use super::sequence::{AHEAD_MAX, SPAN_MAX, Sequence};
use crate::time::Instant;

/// Transmissions that may overtake a packet before it counts as lost. BlueZ was seen to reorder by up to 7.
const REORDER_PACKETS_MIN: u16 = 8;
/// The most that the threshold is raised to: half of what may be in flight.
const REORDER_PACKETS_MAX: u16 = 64;

/// What is known of a packet that is not acknowledged in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PacketState {
    InFlight,
    /// Arrived, ahead of another.
    Arrived,
    /// To be sent again.
    Lost,
}

/// A packet between the oldest not acknowledged and the next new one.
#[derive(Clone, Copy, Debug)]
struct Sent {
    offset: u64,
    /// Which transmission on this connection was its last.
    order: u64,
    at: Instant,
    length: u16,
    state: PacketState,
    repeated: bool,
    /// Taken for lost by the probe timer, and not because it was overtaken.
    probed: bool,
}

const NEVER: Sent = Sent {
    offset: 0,
    order: 0,
    at: Instant::ZERO,
    length: 0,
    state: PacketState::Arrived,
    repeated: false,
    probed: false,
};

/// A packet that goes out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) sequence: Sequence,
    pub(super) offset: u64,
    pub(super) length: usize,
    /// Bytes of it that were sent before, on this connection or an earlier one.
    pub(super) repeated_bytes: usize,
    /// Sent before on this connection.
    pub(super) repeated: bool,
}

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AckOutcome {
    /// Bytes newly acknowledged in order.
    pub(super) bytes: u64,
    /// Packets of which the peer had not told before.
    pub(super) packets: u16,
    /// Repetitions that were needless.
    pub(super) needless: u16,
}

/// Bytes on their way out.
#[derive(Debug)]
pub(super) struct SendWindow<const N: usize> {
    ring: ByteRing<N>,
    /// Offset of the oldest byte that is not acknowledged.
    acknowledged: u64,
    /// Offset of the next byte to be sent on this connection.
    next_offset: u64,
    /// Offset behind the last byte ever sent.
    sent: u64,
    /// Offset behind the last byte written.
    written: u64,
    /// The oldest packet that is not acknowledged in order.
    oldest: Sequence,
    /// The next new packet.
    next: Sequence,
    packets: [Sent; SPAN_MAX as usize],
    in_flight: u16,
    lost: u16,
    /// Number of the last transmission.
    order: u64,
    /// The latest transmission known to have arrived.
    arrived_order: u64,
    /// Offset up to which the peer takes bytes.
    credit: u64,
    /// The peer's whole buffer.
    peer_buffer: u64,
    payload: usize,
    in_flight_limit: u16,
    reorder_threshold: u16,
}

impl<const N: usize> SendWindow<N> {
    pub(super) fn new() -> SendWindow<N> {
        SendWindow {
            ring: ByteRing::new(),
            acknowledged: 0,
            next_offset: 0,
            sent: 0,
            written: 0,
            oldest: Sequence::ZERO,
            next: Sequence::ZERO,
            packets: [NEVER; SPAN_MAX as usize],
            in_flight: 0,
            lost: 0,
            order: 0,
            arrived_order: 0,
            credit: 0,
            peer_buffer: 0,
            payload: 0,
            in_flight_limit: 0,
            reorder_threshold: REORDER_PACKETS_MIN,
        }
    }

    /// Begins a connection with full packets of `payload` bytes, at the offset up to which the peer has the stream. Gives the
    /// bytes that were not known to have arrived.
    ///
    /// # Errors
    /// Nothing has changed after an offset that cannot be, or credit taken back.
    pub(super) fn begin(
        &mut self,
        payload: usize,
        arrived: u64,
        window: u32,
        peer_buffer: u32,
        in_flight_limit: u8,
    ) -> Result<u64, LinkError> {
        self.check_offset(arrived)?;
        let credit = arrived.saturating_add(u64::from(window));
        if credit < self.credit {
            return Err(LinkError::CreditWithdrawn { before: self.credit, now: credit });
        }
        let newly = arrived - self.acknowledged;
        self.acknowledged = arrived;
        self.next_offset = arrived;
        (self.oldest, self.next) = (Sequence::ZERO, Sequence::ZERO);
        (self.in_flight, self.lost, self.order, self.arrived_order) = (0, 0, 0, 0);
        (self.credit, self.peer_buffer) = (credit, peer_buffer.into());
        self.payload = payload;
        self.in_flight_limit = in_flight_limit.into();
        self.reorder_threshold = REORDER_PACKETS_MIN;
        Ok(newly)
    }

    /// Whether the peer can have the stream up to `arrived`.
    pub(super) fn check_offset(&self, arrived: u64) -> Result<(), LinkError> {
        if (self.acknowledged..=self.sent).contains(&arrived) {
            return Ok(());
        }
        Err(LinkError::ResumeOffset { claimed: arrived, acknowledged: self.acknowledged, sent: self.sent })
    }

    pub(super) fn writable(&self) -> usize {
        N - (self.written - self.acknowledged) as usize
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.writable());
        self.ring.put(self.written, &bytes[..count]);
        self.written += count as u64;
        count
    }

    /// Bytes written and not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.written - self.acknowledged
    }

    /// Whether all that was written has been sent on this connection.
    pub(super) fn is_all_sent(&self) -> bool {
        self.next_offset == self.written
    }

    /// The peer has all of it; gives the bytes that this was not known of.
    pub(super) fn acknowledge_all(&mut self) -> u64 {
        let rest = self.unacknowledged();
        self.acknowledged = self.written;
        rest
    }

    /// Offset behind the last byte written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    pub(super) fn reorder_threshold(&self) -> u16 {
        self.reorder_threshold
    }

    /// Packets between the oldest not acknowledged and the next new one.
    fn span(&self) -> u16 {
        self.next.since(self.oldest)
    }

    /// Whether something is to be sent, but the peer's credit alone forbids it and nothing is in flight.
    pub(super) fn waits_for_credit(&self) -> bool {
        self.in_flight == 0 && self.lost == 0 && self.next_offset < self.written && self.new_length() == 0
    }

    /// Whether a data packet could go now.
    pub(super) fn is_ready(&self) -> bool {
        self.in_flight < self.in_flight_limit && (self.lost > 0 || self.new_length() > 0)
    }

    /// Bytes that a new packet would have now; 0: none may go. Each packet in flight counts as a full one against the
    /// credit, because the peer stores it as if it were when it comes early.
    fn new_length(&self) -> usize {
        let span = self.span();
        let length = (self.written - self.next_offset).min(self.payload as u64);
        let end = self.acknowledged + u64::from(span) * self.payload as u64 + length;
        if span >= SPAN_MAX || end > self.credit { 0 } else { length as usize }
    }

    /// The next packet to be sent: the oldest lost one, or a new one.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Outgoing> {
        if !self.is_ready() {
            return None;
        }
        let outgoing = if self.lost > 0 { self.repeat_lost()? } else { self.send_new() };
        self.order += 1;
        self.in_flight += 1;
        let sent = &mut self.packets[outgoing.sequence.slot()];
        (sent.order, sent.at, sent.state) = (self.order, now, PacketState::InFlight);
        Some(outgoing)
    }

    fn repeat_lost(&mut self) -> Option<Outgoing> {
        let sequence =
            self.sequences().find(|sequence| self.packets[sequence.slot()].state == PacketState::Lost)?;
        self.lost -= 1;
        let sent = &mut self.packets[sequence.slot()];
        sent.repeated = true;
        let length = usize::from(sent.length);
        Some(Outgoing { sequence, offset: sent.offset, length, repeated_bytes: length, repeated: true })
    }

    fn send_new(&mut self) -> Outgoing {
        let (sequence, offset, length) = (self.next, self.next_offset, self.new_length());
        let repeated_bytes = length.min(self.sent.saturating_sub(offset) as usize);
        self.packets[sequence.slot()] = Sent { offset, length: length as u16, ..NEVER };
        self.next = sequence.plus(1);
        self.next_offset += length as u64;
        self.sent = self.sent.max(self.next_offset);
        Outgoing { sequence, offset, length, repeated_bytes, repeated: false }
    }

    /// Copies the payload of an outgoing packet.
    pub(super) fn copy(&self, outgoing: &Outgoing, out: &mut [u8]) {
        self.ring.get(outgoing.offset, &mut out[..outgoing.length]);
    }

    /// The packets of the window, oldest first.
    fn sequences(&self) -> impl Iterator<Item = Sequence> + use<N> {
        let oldest = self.oldest;
        (0..self.span()).map(move |ahead| oldest.plus(ahead))
    }

    /// Takes the number of the packet that the peer expects next, and the bitmap of those that arrived ahead of it.
    ///
    /// # Errors
    /// [`LinkError::AckOfUnsent`]; nothing has changed.
    pub(super) fn take_ack(
        &mut self,
        now: Instant,
        expected: Sequence,
        bitmap: &[u8],
        round_trip: &mut RoundTrip,
    ) -> Result<AckOutcome, LinkError> {
        let mut outcome = AckOutcome::default();
        let (oldest, count) = (self.oldest, expected.since(self.oldest));
        if count >= AHEAD_MAX {
            // One that comes late; a newer one has told more.
            return Ok(outcome);
        }
        let bits = bitmap.iter().enumerate().filter(|(_, bits)| **bits != 0).flat_map(|(byte, bits)| {
            (0..8u16).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| byte as u16 * 8 + bit + 1)
        });
        let last = bits.clone().last().unwrap_or_default();
        if count + last > self.span() || (last > 0 && count + last == self.span()) {
            return Err(LinkError::AckOfUnsent {
                acknowledged: expected.plus(last).number(),
                next: self.next.number(),
            });
        }
        let arrivals = (0..count).chain(bits.map(|ahead| count + ahead)).map(|ahead| oldest.plus(ahead));
        // What was sent once tells where the channel has got to, and with it which transmission of the others it was.
        let mut newest = None;
        for repeated in [false, true] {
            for sequence in arrivals.clone() {
                if self.packets[sequence.slot()].repeated == repeated {
                    self.arrive(now, sequence, round_trip, &mut newest, &mut outcome);
                }
            }
            if let Some((_, at)) = newest.take() {
                round_trip.sample(now.since(at));
            }
        }
        outcome.bytes =
            (0..count).map(|ahead| u64::from(self.packets[oldest.plus(ahead).slot()].length)).sum();
        self.oldest = expected;
        self.acknowledged += outcome.bytes;
        Ok(outcome)
    }

    /// A packet has arrived. `newest` collects the packet to measure the round trip with: the last one sent, unless it was
    /// repeated.
    ///
    /// An acknowledgement does not tell which transmission of a repeated packet has arrived: the repetition, unless that is
    /// sooner than any round trip took. For what the probe repeats this would not do, since nothing has overtaken it and a
    /// round trip grows from 30 ms to more than a second in the buffers below: there it was the repetition only when the
    /// channel has got about as far as it, or once a whole round trip as they are now has passed.
    fn arrive(
        &mut self,
        now: Instant,
        sequence: Sequence,
        round_trip: &RoundTrip,
        newest: &mut Option<(u64, Instant)>,
        outcome: &mut AckOutcome,
    ) {
        let sent = &mut self.packets[sequence.slot()];
        match sent.state {
            PacketState::Arrived => return,
            PacketState::InFlight => self.in_flight -= 1,
            PacketState::Lost => self.lost -= 1,
        }
        let is_last = if sent.repeated {
            let since = now.since(sent.at);
            sent.state == PacketState::InFlight
                && since >= round_trip.smallest()
                && (!sent.probed
                    || sent.order <= self.arrived_order + u64::from(REORDER_PACKETS_MIN)
                    || since >= round_trip.recent())
        } else {
            true
        };
        if is_last {
            self.arrived_order = self.arrived_order.max(sent.order);
        }
        // One that counted as lost may have arrived long before this tells it.
        let measures = !sent.repeated && sent.state == PacketState::InFlight;
        if measures && newest.is_none_or(|(order, _)| sent.order > order) {
            *newest = Some((sent.order, sent.at));
        }
        if (sent.state == PacketState::Lost || !is_last) && !sent.probed {
            // It was overtaken and only late: be more patient from now on.
            self.reorder_threshold = (self.reorder_threshold * 2).min(REORDER_PACKETS_MAX);
        }
        outcome.needless += u16::from(!is_last);
        outcome.packets += 1;
        sent.state = PacketState::Arrived;
    }

    /// Takes the low bits of the offset up to which the peer takes bytes; tells whether that is more than before.
    ///
    /// # Errors
    /// [`LinkError::CreditTooLarge`].
    pub(super) fn take_credit(&mut self, low: u32) -> Result<bool, LinkError> {
        let growth = low.wrapping_sub(self.credit as u32);
        if growth > u32::MAX / 2 {
            // An older one that comes late: credit never shrinks.
            return Ok(false);
        }
        let credit = self.credit + u64::from(growth);
        let beyond = credit.saturating_sub(self.acknowledged);
        if beyond > self.peer_buffer {
            return Err(LinkError::CreditTooLarge { credit: beyond, max: self.peer_buffer });
        }
        self.credit = credit;
        Ok(growth > 0)
    }

    /// Marks as lost what was overtaken by enough others, or was overtaken and sent `reorder_window` ago; tells when the next packet
    /// counts as too late.
    pub(super) fn detect_losses(&mut self, now: Instant, reorder_window: Duration) -> Option<Instant> {
        let mut next = None;
        for sequence in self.sequences() {
            let sent = &mut self.packets[sequence.slot()];
            if sent.state != PacketState::InFlight || sent.order > self.arrived_order {
                continue;
            }
            let reorder_until = sent.at + reorder_window;
            if self.arrived_order - sent.order >= u64::from(self.reorder_threshold) || reorder_until <= now {
                (sent.state, sent.probed) = (PacketState::Lost, false);
                self.in_flight -= 1;
                self.lost += 1;
            } else if next.is_none_or(|next| reorder_until < next) {
                next = Some(reorder_until);
            }
        }
        next
    }

    /// Marks the oldest packet in flight as lost, so that it goes again and provokes an acknowledgement. `false` when
    /// nothing is in flight.
    pub(super) fn probe(&mut self) -> bool {
        let oldest =
            self.sequences().find(|sequence| self.packets[sequence.slot()].state == PacketState::InFlight);
        let Some(sequence) = oldest else { return false };
        let sent = &mut self.packets[sequence.slot()];
        (sent.state, sent.probed) = (PacketState::Lost, true);
        self.in_flight -= 1;
        self.lost += 1;
        true
    }
}
