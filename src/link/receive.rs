//! The receiving half: order, completeness, credit, and when an acknowledgement is due.
//!
//! A packet that comes too early is stored at the place where it belongs if all packets before it are full; only where one
//! of those turns out shorter are stored bytes moved. The sender counts each packet as a full one against its credit, so
//! such a place is always within the buffer, and what is not is a violation.

use super::error::LinkError;
use super::packet::BITMAP_BYTES_MAX;
use super::ring::ByteRing;
use super::sequence::{AHEAD_MAX, SPAN_MAX, Sequence};

/// While a packet is missing, an acknowledgement is due after this many others: soon enough to keep the sender's pipe
/// full, seldom enough to cost little air.
const GAP_ACK_PACKETS: u16 = 8;
/// New credit is announced when it is this part of the buffer.
const CREDIT_STEP: u64 = 4;

const BITMAP_WORDS: usize = SPAN_MAX as usize / u64::BITS as usize;

/// When an acknowledgement is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckDue {
    /// The peer knows all there is to know.
    Never,
    /// When it has waited for a while, or with the next data packet.
    Later,
    /// With the next packet.
    Now,
}

/// What a data packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It brought this many bytes into order.
    InOrder(usize),
    /// Stored until those before it arrive.
    Early,
    /// Here already.
    Duplicate,
}

/// Bytes on their way in.
#[derive(Debug)]
pub(super) struct ReceiveWindow<const N: usize> {
    ring: ByteRing<N>,
    /// Offset of the next byte that the layer above reads.
    read: u64,
    /// Offset of the next byte that is due in order.
    arrived: u64,
    /// The packet that is due next.
    next: Sequence,
    /// Payload of a full packet.
    payload: usize,
    /// By slot: an early packet is stored.
    stored: [u64; BITMAP_WORDS],
    stored_count: u16,
    /// By slot: its length.
    lengths: [u16; SPAN_MAX as usize],
    /// How far ahead of `next` the furthest stored packet can be.
    reach: u16,
    /// The credit that was announced, as an offset.
    credit: u64,
    due: AckDue,
    /// Data packets since the last acknowledgement.
    unacknowledged: u16,
    ack_every: u16,
}

impl<const N: usize> ReceiveWindow<N> {
    pub(super) fn new() -> ReceiveWindow<N> {
        ReceiveWindow {
            ring: ByteRing::new(),
            read: 0,
            arrived: 0,
            next: Sequence::ZERO,
            payload: 0,
            stored: [0; BITMAP_WORDS],
            stored_count: 0,
            lengths: [0; SPAN_MAX as usize],
            reach: 0,
            credit: 0,
            due: AckDue::Never,
            unacknowledged: 0,
            ack_every: 1,
        }
    }

    /// Begins a connection with full packets of `payload` bytes, after the peer was given `credit` in the handshake; an
    /// acknowledgement is due after `ack_every` packets. Early packets of the connection before are forgotten: the peer
    /// cuts the stream anew.
    pub(super) fn begin(&mut self, payload: usize, credit: u64, ack_every: u16) {
        self.payload = payload;
        self.ack_every = ack_every;
        self.next = Sequence::ZERO;
        self.stored = [0; BITMAP_WORDS];
        self.stored_count = 0;
        self.reach = 0;
        self.due = AckDue::Never;
        self.unacknowledged = 0;
        self.credit = credit;
        self.offer_credit();
    }

    /// Bytes that arrived in order, ever.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Offset up to which the peer was allowed to send.
    pub(super) fn credit(&self) -> u64 {
        self.credit
    }

    pub(super) fn next(&self) -> Sequence {
        self.next
    }

    pub(super) fn readable(&self) -> usize {
        (self.arrived - self.read) as usize
    }

    /// Room that is free for what comes, in bytes.
    pub(super) fn window(&self) -> u32 {
        (N - self.readable()) as u32
    }

    fn limit(&self) -> u64 {
        self.read + N as u64
    }

    /// Moves bytes out, which makes room.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.readable());
        self.ring.get(self.read, &mut out[..count]);
        self.read += count as u64;
        self.offer_credit();
        count
    }

    fn offer_credit(&mut self) {
        if self.limit() - self.credit >= N as u64 / CREDIT_STEP {
            self.due = AckDue::Now;
        }
    }

    /// Takes a data packet; its payload has 1 to `payload` bytes.
    pub(super) fn take(&mut self, sequence: Sequence, payload: &[u8]) -> Result<Arrival, LinkError> {
        let ahead = sequence.since(self.next);
        if ahead >= AHEAD_MAX || (ahead > 0 && ahead < SPAN_MAX && self.is_stored(sequence)) {
            // The peer does not know that it is here: tell it again.
            self.due = AckDue::Now;
            return Ok(Arrival::Duplicate);
        }
        if ahead >= SPAN_MAX {
            let (sequence, expected) = (sequence.number(), self.next.number());
            return Err(LinkError::SequenceBeyondWindow { sequence, expected });
        }
        let offset = self.arrived + u64::from(ahead) * self.payload as u64;
        let end = offset + payload.len() as u64;
        if end > self.credit {
            return Err(LinkError::CreditExceeded { end, limit: self.credit });
        }
        self.ring.put(offset, payload);
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        if ahead > 0 {
            self.store(sequence, ahead, payload.len());
            return Ok(Arrival::Early);
        }
        let filled_gap = self.stored_count > 0;
        let before = self.arrived;
        self.advance(payload.len());
        let enough = self.unacknowledged >= self.ack_every;
        self.due = if filled_gap || enough { AckDue::Now } else { self.due.or_later() };
        Ok(Arrival::InOrder((self.arrived - before) as usize))
    }

    fn store(&mut self, sequence: Sequence, ahead: u16, length: usize) {
        let slot = sequence.slot();
        self.stored[slot / 64] |= 1 << (slot % 64);
        self.stored_count += 1;
        self.lengths[slot] = length as u16;
        self.reach = self.reach.max(ahead);
        let enough = self.unacknowledged >= GAP_ACK_PACKETS.min(self.ack_every);
        self.due = if enough { AckDue::Now } else { self.due.or_later() };
    }

    fn is_stored(&self, sequence: Sequence) -> bool {
        let slot = sequence.slot();
        self.stored[slot / 64] >> (slot % 64) & 1 == 1
    }

    /// The packet that was due has arrived with `length` bytes: takes it, and those stored behind it, into order.
    fn advance(&mut self, length: usize) {
        let (first, base, payload) = (self.next, self.arrived, self.payload as u64);
        let place = |ahead: u16| base + u64::from(ahead) * payload;
        self.arrived += length as u64;
        let mut taken = 1;
        while self.stored_count > 0 && self.is_stored(first.plus(taken)) {
            let slot = first.plus(taken).slot();
            let length = usize::from(self.lengths[slot]);
            if place(taken) != self.arrived {
                self.ring.move_back(place(taken), self.arrived, length);
            }
            self.arrived += length as u64;
            self.stored[slot / 64] &= !(1 << (slot % 64));
            self.stored_count -= 1;
            taken += 1;
        }
        self.next = first.plus(taken);
        let reach = self.reach;
        self.reach = reach.saturating_sub(taken);
        if self.stored_count == 0 {
            self.reach = 0;
        } else if place(taken) != self.arrived {
            for ahead in taken + 1..=reach {
                let sequence = first.plus(ahead);
                if self.is_stored(sequence) {
                    let target = self.arrived + u64::from(ahead - taken) * payload;
                    self.ring.move_back(place(ahead), target, usize::from(self.lengths[sequence.slot()]));
                }
            }
        }
    }

    pub(super) fn due(&self) -> AckDue {
        self.due
    }

    /// An acknowledgement has waited long enough, or the peer asks for one.
    pub(super) fn make_due(&mut self) {
        self.due = AckDue::Now;
    }

    /// An acknowledgement is due, and may wait for data to ride on.
    pub(super) fn make_due_later(&mut self) {
        self.due = self.due.or_later();
    }

    /// Whether the number that data packets carry says all that is due.
    pub(super) fn number_suffices(&self) -> bool {
        self.stored_count == 0 && self.limit() - self.credit < N as u64 / CREDIT_STEP
    }

    /// The number to put on a data packet, which acknowledges with it as far as that goes.
    pub(super) fn piggyback_ack(&mut self) -> Sequence {
        if self.number_suffices() {
            self.due = AckDue::Never;
            self.unacknowledged = 0;
        }
        self.next
    }

    /// Low bits of the credit, and the bitmap for an acknowledgement with room for `room` bytes of it, and its length.
    pub(super) fn acknowledge(&mut self, room: usize) -> (u32, [u8; BITMAP_BYTES_MAX], usize) {
        self.due = AckDue::Never;
        self.unacknowledged = 0;
        self.credit = self.limit();
        let mut bitmap = [0; BITMAP_BYTES_MAX];
        let mut used = 0;
        if self.stored_count > 0 {
            let bits = usize::from(self.reach).min(room * 8);
            for bit in 0..bits {
                if self.is_stored(self.next.plus(1 + bit as u16)) {
                    bitmap[bit / 8] |= 1 << (bit % 8);
                    used = bit / 8 + 1;
                }
            }
        }
        (self.credit as u32, bitmap, used)
    }
}

impl AckDue {
    fn or_later(self) -> AckDue {
        if self == AckDue::Now { AckDue::Now } else { AckDue::Later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAYLOAD: usize = 17;
    const N: usize = 512;

    fn window() -> ReceiveWindow<N> {
        let mut window = ReceiveWindow::new();
        window.begin(PAYLOAD, N as u64, 16);
        window
    }

    proptest! {
        /// Packets of any lengths, in any order within the credit, come out in order; bytes are never moved wrongly.
        #[test]
        fn any_order_and_any_lengths_come_out_in_order(
            lengths in prop::collection::vec(1usize..=PAYLOAD, 1..30),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let mut window = window();
            let mut byte = 0u8;
            let packets: Vec<Vec<u8>> = lengths.iter().map(|length| {
                (0..*length).map(|_| { byte = byte.wrapping_add(1); byte }).collect()
            }).collect();
            let sequence = |index: usize| Sequence::new(index as u16);
            for index in order.iter().map(|index| index.index(packets.len())).chain(0..packets.len()) {
                window.take(sequence(index), &packets[index]).expect("within the credit");
            }
            let mut out = [0; N];
            let count = window.read(&mut out);
            prop_assert_eq!(&out[..count], &packets.concat()[..]);
            prop_assert_eq!(window.stored_count, 0);
            prop_assert_eq!(window.reach, 0);
        }
    }

    #[test]
    fn what_is_beyond_the_window_or_the_credit_is_refused_with_the_numbers() {
        let mut window = window();
        let beyond = LinkError::SequenceBeyondWindow { sequence: 256, expected: 0 };
        assert_eq!(window.take(Sequence::new(256), &[1]), Err(beyond));
        let over = LinkError::CreditExceeded { end: 31 * 17 + 1, limit: 512 };
        assert_eq!(window.take(Sequence::new(31), &[1]), Err(over));
        assert_eq!(window.take(Sequence::new(29), &[1; 17]), Ok(Arrival::Early));
        assert_eq!(window.take(Sequence::new(1500), &[1]), Ok(Arrival::Duplicate));
    }

    #[test]
    fn the_bitmap_tells_what_is_stored() {
        let mut window = window();
        for number in [2, 3, 11] {
            window.take(Sequence::new(number), &[0; PAYLOAD]).expect("within the credit");
        }
        let (_, bitmap, used) = window.acknowledge(BITMAP_BYTES_MAX);
        assert_eq!(bitmap[..used], [0b0000_0110, 0b0000_0100]);
        let (_, bitmap, used) = window.acknowledge(1);
        assert_eq!(bitmap[..used], [0b0000_0110]);
    }
}
