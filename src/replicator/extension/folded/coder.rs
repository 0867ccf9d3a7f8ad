//! The entropy coder: bits whose chances both sides know, as one long binary fraction.
//!
//! The columns are walked by one piece of code in both directions: to a writer it gives the bits, from a reader it takes them.

/// Chances are of so many.
pub(super) const CHANCE_BITS: u32 = 16;

/// Bits that may be anything are coded in parts of so many, while there is so much room between the bounds.
const PART_BITS: u32 = 12;
const PART_ROOM: u32 = 1 << 20;

/// Bytes at the end, and that a reader has before it begins.
const WORD: usize = 4;

/// Writes bits, or reads them.
pub(super) trait Coder {
    /// Codes a bit that is one with a chance of `chance` in 65,536, which is neither 0 nor 65,536. A reader gives what it has read.
    fn bit(&mut self, bit: bool, chance: u32) -> bool;

    /// Whether nothing more can be read.
    fn has_failed(&self) -> bool;

    /// Codes up to [`PART_BITS`] bits that may be anything.
    fn part(&mut self, value: u32, bits: u32) -> u32;

    /// Codes the lowest bits of a number, which may be anything.
    fn plain(&mut self, value: u64, bits: u32) -> u64 {
        let (mut read, mut left) = (0, bits);
        while left > 0 {
            let part = left.min(PART_BITS);
            left -= part;
            let of_it = value >> left & ((1 << part) - 1);
            read = read << part | u64::from(self.part(of_it as u32, part));
        }
        read
    }

    /// Codes a number that is more often small.
    fn number(&mut self, value: u64) -> u64 {
        let bits = u64::BITS - value.leading_zeros();
        let bits = self.plain(bits.into(), 7).min(64) as u32;
        match bits {
            0 => 0,
            _ => 1 << (bits - 1) | self.plain(value, bits - 1),
        }
    }
}

/// The part of all fractions in which what was coded lies. A writer and a reader narrow it alike.
#[derive(Debug)]
struct Range {
    low: u32,
    high: u32,
}

impl Range {
    const ALL: Range = Range { low: 0, high: u32::MAX };

    /// Where the ones end.
    fn middle(&self, chance: u32) -> u32 {
        self.low + ((u64::from(self.high - self.low) * u64::from(chance)) >> CHANCE_BITS) as u32
    }

    fn narrow_to_bit(&mut self, bit: bool, middle: u32) {
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
    }

    /// The room of each value of so many bits, if there is enough for all.
    fn room_of_each(&self, bits: u32) -> Option<u32> {
        let room = self.high - self.low;
        (room >= PART_ROOM).then_some(room >> bits)
    }

    fn narrow_to_part(&mut self, value: u32, each: u32) {
        self.low += each * value;
        self.high = self.low + each - 1;
    }

    /// Drops the first byte of the bounds if both have the same, and gives it.
    fn settled(&mut self) -> Option<u8> {
        if (self.low ^ self.high) >> 24 != 0 {
            return None;
        }
        let byte = (self.high >> 24) as u8;
        self.low <<= 8;
        self.high = self.high << 8 | 0xff;
        Some(byte)
    }
}

fn bit_by_bit<C: Coder>(coder: &mut C, value: u32, bits: u32) -> u32 {
    let one =
        |read: u32, at: u32| read << 1 | u32::from(coder.bit(value >> at & 1 != 0, 1 << (CHANCE_BITS - 1)));
    (0..bits).rev().fold(0, one)
}

/// Writes.
#[derive(Debug)]
pub(super) struct Writer {
    out: Vec<u8>,
    range: Range,
}

impl Writer {
    /// Appends to what is there.
    pub(super) fn new(out: Vec<u8>) -> Writer {
        Writer { out, range: Range::ALL }
    }

    fn shift(&mut self) {
        while let Some(byte) = self.range.settled() {
            self.out.push(byte);
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(&self.range.low.to_be_bytes());
        self.out
    }
}

impl Coder for Writer {
    fn bit(&mut self, bit: bool, chance: u32) -> bool {
        self.range.narrow_to_bit(bit, self.range.middle(chance));
        self.shift();
        bit
    }

    fn part(&mut self, value: u32, bits: u32) -> u32 {
        let Some(each) = self.range.room_of_each(bits) else {
            return bit_by_bit(self, value, bits);
        };
        self.range.narrow_to_part(value, each);
        self.shift();
        value
    }

    fn has_failed(&self) -> bool {
        false
    }
}

/// Reads.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    range: Range,
    word: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        let mut reader = Reader { bytes, at: 0, range: Range::ALL, word: 0 };
        for _ in 0..WORD {
            reader.word = reader.word << 8 | u32::from(reader.byte());
        }
        reader
    }

    fn shift(&mut self) {
        while self.range.settled().is_some() {
            self.word = self.word << 8 | u32::from(self.byte());
        }
    }

    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at = self.at.saturating_add(1);
        byte
    }

    /// Whether exactly what there is was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

impl Coder for Reader<'_> {
    fn bit(&mut self, _: bool, chance: u32) -> bool {
        let middle = self.range.middle(chance);
        let bit = self.word <= middle;
        self.range.narrow_to_bit(bit, middle);
        self.shift();
        bit
    }

    fn part(&mut self, value: u32, bits: u32) -> u32 {
        let Some(each) = self.range.room_of_each(bits) else {
            return bit_by_bit(self, value, bits);
        };
        // What is damaged may be out of bounds.
        let value = (self.word.wrapping_sub(self.range.low) / each).min((1 << bits) - 1);
        self.range.narrow_to_part(value, each);
        self.shift();
        value
    }

    fn has_failed(&self) -> bool {
        self.at > self.bytes.len()
    }
}
