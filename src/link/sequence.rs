//! Sequence numbers of data packets: 11 bits, counted anew on each connection.

use core::fmt;

/// Bits of a sequence number.
const SEQUENCE_BITS: u32 = 11;
/// Sequence numbers are counted modulo this.
const MODULUS: u16 = 1 << SEQUENCE_BITS;

/// Packets between the oldest that is not acknowledged and the next new one, at most: the reach of both windows. With the
/// packets in flight limited below it, the rest covers what was sent after a loss and has arrived.
pub(super) const SPAN_MAX: u16 = 256;

/// A packet that is less than this ahead of another is newer; else it is older. Half of the numbers, so that packets and
/// acknowledgements may come late by 1,024 packets before they are taken for something else.
pub(super) const AHEAD_MAX: u16 = MODULUS / 2;

/// The number of a data packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence(u16);

impl Sequence {
    pub(super) const ZERO: Sequence = Sequence(0);

    /// The low bits of `number`.
    pub(super) const fn new(number: u16) -> Sequence {
        Sequence(number % MODULUS)
    }

    pub(super) const fn number(self) -> u16 {
        self.0
    }

    pub(super) const fn plus(self, packets: u16) -> Sequence {
        Sequence(self.0.wrapping_add(packets) % MODULUS)
    }

    /// How far `self` is ahead of `earlier`, modulo 2,048.
    pub(super) const fn since(self, earlier: Sequence) -> u16 {
        self.0.wrapping_sub(earlier.0) % MODULUS
    }

    /// Where a table of one entry a packet of the window keeps this one.
    pub(super) const fn slot(self) -> usize {
        (self.0 % SPAN_MAX) as usize
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        let last = Sequence::new(2047);
        assert_eq!(last.plus(1), Sequence::ZERO);
        assert_eq!(Sequence::ZERO.since(last), 1);
        assert_eq!(last.since(Sequence::ZERO), 2047);
        assert_eq!(Sequence::new(2048), Sequence::ZERO);
    }
}
