//! A column of whole numbers: one line that they follow, and how far each is off; or stretches that follow it exactly.
//!
//! | first byte | then |
//! |---|---|
//! | 0 | base, slope |
//! | 1 to 64, the width | base, slope, shift (1 byte), as many bits for each number, from the lowest bit of the first byte on |
//! | 65 | base alone: all are the same |
//! | 66 | slope, length of the stretches in bytes, then of each: how many numbers, difference of its first to the first of the one before |
//!
//! Number `k` is base + `k` x slope + (its bits << shift), within 64 bits. Base, slope and differences are zigzag varints. So each number is
//! read without those before it, of stretches without their numbers.

use super::super::packed::{Reader, put_varint, put_zigzag};

const SAME: u8 = 65;
const STRETCHES: u8 = 66;

/// The most bits of a number.
const WIDTH_MAX: u8 = 64;

/// A column that is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Numbers<'a> {
    Same(u64),
    Packed { base: u64, slope: u64, width: u8, shift: u8, bits: &'a [u8] },
    Stretches { slope: u64, stretches: &'a [u8] },
}

impl<'a> Numbers<'a> {
    /// Reads a column of `count` numbers.
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Option<Numbers<'a>> {
        Some(match reader.byte()? {
            SAME => Numbers::Same(reader.zigzag()? as u64),
            STRETCHES => {
                let slope = reader.zigzag()? as u64;
                let len = reader.length()?;
                Numbers::Stretches { slope, stretches: reader.take(len)? }
            }
            width if width <= WIDTH_MAX => {
                let (base, slope) = (reader.zigzag()? as u64, reader.zigzag()? as u64);
                let shift = if width == 0 { 0 } else { reader.byte()? };
                if shift >= 64 {
                    return None;
                }
                let bits = reader.take(packed_len(count, width))?;
                Numbers::Packed { base, slope, width, shift, bits }
            }
            _ => return None,
        })
    }

    /// Number `at`, which is below the count that the column was read with.
    pub(super) fn get(&self, at: usize) -> Option<u64> {
        match *self {
            Numbers::Same(value) => Some(value),
            Numbers::Packed { base, slope, width, shift, bits } => {
                let off = if width == 0 { 0 } else { bits_at(bits, at, width)? << shift };
                Some(base.wrapping_add(slope.wrapping_mul(at as u64)).wrapping_add(off))
            }
            Numbers::Stretches { slope, stretches } => {
                let (mut reader, mut first, mut left) = (Reader::new(stretches), 0u64, at as u64);
                loop {
                    let len = reader.varint()?;
                    first = first.wrapping_add(reader.zigzag()? as u64);
                    if left < len {
                        return Some(first.wrapping_add(slope.wrapping_mul(left)));
                    }
                    left -= len;
                }
            }
        }
    }

    /// The same as [`get`](Self::get), for what is a place in memory.
    pub(super) fn index(&self, at: usize) -> Option<usize> {
        usize::try_from(self.get(at)?).ok()
    }
}

/// Bytes of so many numbers of a width.
fn packed_len(count: usize, width: u8) -> usize {
    (count * usize::from(width)).div_ceil(8)
}

fn bits_at(bits: &[u8], at: usize, width: u8) -> Option<u64> {
    let from = at * usize::from(width);
    let (byte, skipped) = (from / 8, from % 8);
    let mask = u64::MAX >> (WIDTH_MAX - width);
    let low = match bits.get(byte..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => {
            let rest = bits.get(byte..)?;
            rest.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
    };
    let mut value = low >> skipped;
    if skipped + usize::from(width) > 64 {
        value |= u64::from(*bits.get(byte + 8)?) << (64 - skipped);
    }
    Some(value & mask)
}

/// A line, and how far numbers are off it.
struct Line {
    slope: u64,
    base: u64,
    width: u8,
    shift: u8,
}

impl Line {
    fn along(values: &[u64], slope: u64) -> Line {
        let first = values.first().copied().unwrap_or_default();
        let off = |(at, value): (usize, &u64)| {
            value.wrapping_sub(first).wrapping_sub(slope.wrapping_mul(at as u64)) as i64
        };
        let lowest = values.iter().enumerate().map(off).min().unwrap_or_default();
        let mut all = 0;
        for (at, value) in values.iter().enumerate() {
            all |= off((at, value)).wrapping_sub(lowest) as u64;
        }
        let shift = if all == 0 { 0 } else { all.trailing_zeros() as u8 };
        let width = WIDTH_MAX - (all >> shift).leading_zeros() as u8;
        Line { slope, base: first.wrapping_add(lowest as u64), width, shift }
    }

    fn len(&self, count: usize) -> usize {
        let head = zigzag_len(self.base) + zigzag_len(self.slope);
        head + 1 + usize::from(self.width > 0) + packed_len(count, self.width)
    }

    fn write(&self, values: &[u64], out: &mut Vec<u8>) {
        out.push(self.width);
        put_zigzag(out, self.base as i64);
        put_zigzag(out, self.slope as i64);
        if self.width == 0 {
            return;
        }
        out.push(self.shift);
        let (mut held, mut held_bits) = (0u128, 0u32);
        for (at, value) in values.iter().enumerate() {
            let line = self.base.wrapping_add(self.slope.wrapping_mul(at as u64));
            held |= u128::from(value.wrapping_sub(line) >> self.shift) << held_bits;
            held_bits += u32::from(self.width);
            while held_bits >= 8 {
                out.push(held as u8);
                held >>= 8;
                held_bits -= 8;
            }
        }
        if held_bits > 0 {
            out.push(held as u8);
        }
    }
}

fn zigzag_len(value: u64) -> usize {
    let value = value as i64;
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (70 - zigzag.leading_zeros() as usize).max(7) / 7
}

/// The difference that most neighbours have, if more than half have one.
fn usual_step(values: &[u64]) -> u64 {
    let (mut usual, mut votes) = (0, 0u32);
    for pair in values.windows(2) {
        let step = pair[1].wrapping_sub(pair[0]);
        match (step == usual, votes) {
            (true, _) => votes += 1,
            (false, 0) => (usual, votes) = (step, 1),
            (false, _) => votes -= 1,
        }
    }
    usual
}

/// Stretches at most: to read a number is to pass over those before it.
const STRETCHES_MAX: usize = 16;

/// The stretches that follow a slope, unless they are many or take as many bytes as this.
fn stretches_of(values: &[u64], slope: u64, bytes_max: usize) -> Option<Vec<u8>> {
    let (mut out, mut last, mut at, mut count) = (Vec::new(), 0u64, 0, 0);
    while at < values.len() {
        let first = values[at];
        count += 1;
        let more = values[at..].windows(2).take_while(|pair| pair[1].wrapping_sub(pair[0]) == slope).count();
        put_varint(&mut out, more as u64 + 1);
        put_zigzag(&mut out, first.wrapping_sub(last) as i64);
        if out.len() >= bytes_max || count > STRETCHES_MAX {
            return None;
        }
        last = first;
        at += more + 1;
    }
    Some(out)
}

/// Appends a column, in the fewest bytes.
pub(super) fn write(values: &[u64], out: &mut Vec<u8>) {
    let first = values.first().copied().unwrap_or_default();
    if values.iter().all(|value| *value == first) {
        out.push(SAME);
        return put_zigzag(out, first as i64);
    }
    let step = usual_step(values);
    let last = values.last().copied().unwrap_or_default();
    let mean = (last.wrapping_sub(first) as i64) / (values.len() as i64 - 1).max(1);
    let mut best = Line::along(values, step);
    for slope in [0, mean as u64] {
        if slope != step {
            let line = Line::along(values, slope);
            if line.len(values.len()) < best.len(values.len()) {
                best = line;
            }
        }
    }
    let mut len = best.len(values.len());
    let mut found = None;
    for slope in [step, 0] {
        let head = 3 + zigzag_len(slope);
        if let Some(stretches) = len.checked_sub(head).and_then(|max| stretches_of(values, slope, max)) {
            len = head + stretches.len();
            found = Some((slope, stretches));
        }
        if step == 0 {
            break;
        }
    }
    match found {
        None => best.write(values, out),
        Some((slope, stretches)) => {
            out.push(STRETCHES);
            put_zigzag(out, slope as i64);
            put_varint(out, stretches.len() as u64);
            out.extend_from_slice(&stretches);
        }
    }
}

/// Appends a number with at least so many digits.
pub(super) fn push_decimal(mut value: u64, digits: usize, out: &mut Vec<u8>) {
    let mut reversed = [b'0'; 20];
    let mut len = 0;
    while value > 0 || len < digits.max(1) {
        reversed[len] = b'0' + (value % 10) as u8;
        value /= 10;
        len += 1;
    }
    out.extend(reversed[..len].iter().rev());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(values: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        write(values, &mut out);
        out
    }

    fn back(bytes: &[u8], count: usize) -> Option<Vec<u64>> {
        let mut reader = Reader::new(bytes);
        let numbers = Numbers::read(&mut reader, count)?;
        if reader.remaining() > 0 {
            return None;
        }
        (0..count).map(|at| numbers.get(at)).collect()
    }

    /// What numbers of sensors look like, and what they do not.
    fn any_numbers() -> impl Strategy<Value = Vec<u64>> {
        let line =
            (any::<u64>(), -1000i64..1000, 0u32..30, 0u32..20).prop_flat_map(|(base, slope, bits, shift)| {
                prop::collection::vec(0..1u64 << bits, 1..200).prop_map(move |off| {
                    let value = |(at, off): (u64, u64)| {
                        base.wrapping_add((slope as u64).wrapping_mul(at)).wrapping_add(off << shift)
                    };
                    (0..).zip(off).map(value).collect()
                })
            });
        let turns = (1u64..60, any::<u64>())
            .prop_map(|(turn, from)| (0..150u64).map(|at| from.wrapping_add(at % turn)).collect());
        prop_oneof![prop::collection::vec(any::<u64>(), 1..100), line, turns]
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(values in any_numbers()) {
            let bytes = written(&values);
            prop_assert_eq!(back(&bytes, values.len()), Some(values.clone()));
            prop_assert!(bytes.len() <= 22 + 8 * values.len());
            prop_assert_eq!(back(&bytes[..bytes.len() - 1], values.len()), None);
        }

        #[test]
        fn hostile_bytes_are_refused_not_followed(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0usize..2000) {
            let mut reader = Reader::new(&bytes);
            if let Some(numbers) = Numbers::read(&mut reader, count) {
                (0..count).for_each(|at| { let _ = numbers.get(at); });
            }
        }
    }

    /// Numbers of each width come back from wherever in a byte they begin.
    #[test]
    fn every_width_comes_back() {
        for width in 1..=64 {
            let mut random = fastrand::Rng::with_seed(width);
            let mut values: Vec<u64> = (0..40).map(|_| random.u64(..) >> (64 - width)).collect();
            (values[0], values[1]) = (0, u64::MAX >> (64 - width));
            let bytes = written(&values);
            assert_eq!(back(&bytes, values.len()), Some(values), "{width} bits");
        }
    }

    /// What a clock or a counter says takes hardly a byte, what is off it its bits alone.
    #[test]
    fn a_line_costs_nothing() {
        for (values, len) in [
            ((0..100).map(|at| 1_000_000 + 7 * at).collect::<Vec<u64>>(), 5),
            (vec![7; 100], 2),
            ((0..100).map(|at| 50_000 + at % 50).collect(), 12),
            ((0..100).map(|at| at / 25).collect(), 11),
            ((0..96).map(|at| at * 7_919 % 400).collect(), 4 + 96 * 9 / 8),
            ((0..96).map(|at| 1 << 60 | (at * 7_919 % 400) << 16).collect(), 13 + 96 * 9 / 8),
        ] {
            let bytes = written(&values);
            assert!(bytes.len() <= len, "{} bytes, {len} expected: {values:?}", bytes.len());
            assert_eq!(back(&bytes, values.len()), Some(values));
        }
    }
}
