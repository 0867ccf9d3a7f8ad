//! What a bit will be: several contexts each say what they have seen, and are trusted as far as they were right.
//!
//! All of it is whole numbers, so that every machine says the same.

use super::coder::{CHANCE_BITS, Coder};

/// Chances for -8.5, -8 .. 8.5 in units of the logarithm of the odds: 65,536 / (1 + e^-x).
const SQUASH: [i32; 35] = [
    13, 22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793,
    47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
    65523,
];

/// One unit of the logarithm of the odds, and the largest that is told apart.
const UNIT: i32 = 256;
const ODDS_MAX: i32 = 8 * UNIT + UNIT / 2 - 1;

/// Chances are looked up by so many bits.
const STRETCH_BITS: u32 = 12;

/// A slot has a chance in its upper bits and below how often it was used.
const COUNT_BITS: u32 = 10;
const COUNT: u32 = (1 << COUNT_BITS) - 1;

/// A context adapts by 1/(n + 1.5), up to this n.
const COUNT_MAX: u32 = 400;

/// What a weight of 1 is, and each at first.
const WEIGHT_ONE: i32 = 1 << 16;
const WEIGHT_FIRST: i32 = WEIGHT_ONE * 2 / 5;

/// How fast weights follow: 1 in 2^(n) of the error, slower once a set was used often.
const RATE_FIRST: i32 = 24;
const RATE_LAST: i32 = 5;

const fn squash(odds: i32) -> i32 {
    let odds = if odds > ODDS_MAX {
        ODDS_MAX
    } else if odds < -ODDS_MAX {
        -ODDS_MAX
    } else {
        odds
    };
    let from = odds + 8 * UNIT + UNIT / 2;
    let (at, rest) = ((from / (UNIT / 2)) as usize, from % (UNIT / 2));
    SQUASH[at] + (SQUASH[at + 1] - SQUASH[at]) * rest / (UNIT / 2)
}

/// The inverse of [`squash`], by the upper bits of a chance.
static STRETCH: [i16; 1 << STRETCH_BITS] = {
    let mut table = [0; 1 << STRETCH_BITS];
    let (mut at, mut odds) = (0, -ODDS_MAX);
    while at < table.len() {
        let chance = ((at * 2 + 1) << (CHANCE_BITS - STRETCH_BITS - 1)) as i32;
        while odds < ODDS_MAX && squash(odds) < chance {
            odds += 1;
        }
        table[at] = odds as i16;
        at += 1;
    }
    table
};

/// 65,536 / (n + 1.5).
static SHARE: [u32; COUNT_MAX as usize + 1] = {
    let mut table = [0; COUNT_MAX as usize + 1];
    let mut n = 0;
    while n < table.len() {
        table[n] = (65_536 * 2 / (2 * n + 3)) as u32;
        n += 1;
    }
    table
};

/// The chance of a one, by those before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(u32);

impl Slot {
    pub(super) const FRESH: Slot = Slot(1 << 31);

    /// Codes a bit by this chance alone.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, bit: bool) -> bool {
        let chance = (self.0 >> (32 - CHANCE_BITS)).clamp(16, (1 << CHANCE_BITS) - 16);
        let bit = coder.bit(bit, chance);
        self.passed(bit);
        bit
    }

    /// Where its logarithm of odds stands in [`STRETCH`].
    fn place(self) -> usize {
        (self.0 >> (32 - STRETCH_BITS)) as usize
    }

    fn passed(&mut self, bit: bool) {
        let count = (self.0 & COUNT).min(COUNT_MAX);
        let chance = (self.0 >> COUNT_BITS) as i32;
        let goal = if bit { (1 << (32 - COUNT_BITS)) - 1 } else { 0 };
        let step = (i64::from(goal - chance) * i64::from(SHARE[count as usize])) >> 16;
        self.0 = ((chance + step as i32) as u32) << COUNT_BITS | (count + 1).min(COUNT_MAX);
    }
}

/// Chances of `K` contexts.
#[derive(Debug)]
pub(super) struct Mixer<const K: usize> {
    slots: Vec<Slot>,
    slot_bits: u32,
    sets: Vec<([i32; K], i32)>,
}

impl<const K: usize> Mixer<K> {
    /// So many slots for each context, as a power of two, and so many sets of weights.
    pub(super) fn new(slot_bits: u32, sets: usize) -> Mixer<K> {
        let sets = vec![([WEIGHT_FIRST; K], RATE_FIRST * 16); sets];
        Mixer { slots: vec![Slot::FRESH; K << slot_bits], slot_bits, sets }
    }

    /// Codes a bit: at this node of what is coded, in these contexts, with this set of weights.
    pub(super) fn bit<C: Coder>(
        &mut self,
        coder: &mut C,
        contexts: &[u32; K],
        node: u32,
        set: usize,
        bit: bool,
    ) -> bool {
        let mut at = [0; K];
        let mut odds = [0i32; K];
        let (weights, rate) = &mut self.sets[set];
        let (node, bits) = (node.wrapping_mul(0x9E37_79B1), self.slot_bits);
        let mut sum = 0i64;
        for k in 0..K {
            let hash = (contexts[k] ^ node).wrapping_mul(0x85EB_CA6B);
            at[k] = (k << bits) | (hash >> (32 - bits)) as usize;
            odds[k] = i32::from(STRETCH[self.slots[at[k]].place()]);
            sum += i64::from(odds[k]) * i64::from(weights[k]);
        }
        let mixed = (sum >> 16).clamp(-i64::from(ODDS_MAX), i64::from(ODDS_MAX)) as i32;
        let chance = squash(mixed);
        let bit = coder.bit(bit, chance as u32);
        let error = ((i32::from(bit) << CHANCE_BITS) - chance) * (*rate >> 4);
        for k in 0..K {
            let change = (i64::from(odds[k]) * i64::from(error)) >> 18;
            weights[k] = (weights[k] + change as i32).clamp(-8 * WEIGHT_ONE, 8 * WEIGHT_ONE);
            self.slots[at[k]].passed(bit);
        }
        *rate = (*rate - 1).max(RATE_LAST * 16);
        bit
    }
}

/// One context of several values.
pub(super) fn context(parts: &[u32]) -> u32 {
    parts.iter().fold(0x2545_F491, |hash: u32, part| (hash ^ part).wrapping_mul(0x9E37_79B1).rotate_left(13))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_and_chances_are_inverse() {
        assert!(STRETCH.windows(2).all(|pair| pair[0] <= pair[1]));
        for odds in -ODDS_MAX..=ODDS_MAX {
            let chance = squash(odds);
            assert!((1..65_536).contains(&chance));
            let again = i32::from(STRETCH[(chance >> (CHANCE_BITS - STRETCH_BITS)) as usize]);
            assert!((squash(again) - chance).abs() <= 80, "{odds}: {chance}, {again}");
        }
    }
}
