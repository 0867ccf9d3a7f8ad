//! Columns of numbers: each is told as its distance from what was to be expected of those before it.
//!
//! What is to be expected is one of a few rules. The writer tries them: the value before, the line through the two before, a mean, and the
//! same from the row of a period before (a day, a round of sensors) or from the row before that has the same text in another column.

use super::coder::Coder;
use super::expected::{OTHERS_MAX, Others, RULES, Reference, Rule, Walk, code_reference, references};
use super::mixer::{Mixer, Slot, context};

/// Rows of a period at most.
const PERIOD_MAX: usize = 1_024;

/// Rows that a period is looked for in, and that a rule is tried with.
const PERIOD_SAMPLES: usize = 64;
const TRIED_ROWS: usize = 512;

/// Bits of a distance from which on it is noise.
const NOISE_BITS: f64 = 5.0;

const CONTEXTS: usize = 3;
const SLOT_BITS: u32 = 10;

/// Nodes of a distance: is it none, its sign, then how many bits it has, then those.
const NODE_ZERO: u32 = 0;
const NODE_SIGN: u32 = 1;
const NODE_BITS: u32 = 2;
const NODE_REST: u32 = 80;
const SETS: usize = 12;

/// Bits below the first that are modelled; the others may be anything.
const MODELLED_BITS: u32 = 3;

/// How a column is told.
#[derive(Clone, Copy, Debug)]
struct Plan {
    reference: Reference,
    rule: Rule,
    /// From this row on all is as expected.
    exact_from: usize,
    /// All are `first` and so many steps.
    first: i64,
    step: u64,
    /// Distances are noise: no context says anything of them.
    noise: bool,
}

/// Writes a column of numbers, one for each of these rows of the message.
pub(super) fn write<C: Coder>(coder: &mut C, values: &[i64], rows: &[u32], others: &mut Others) {
    let first = values.first().copied().unwrap_or(0);
    let step = common_step(values, first);
    // Where the step is not 1, all distances are numbers of 63 bits.
    let steps = |value: &i64| match step {
        1 => value.wrapping_sub(first),
        _ => value.wrapping_sub(first) / step as i64,
    };
    let mut values: Vec<i64> = values.iter().map(steps).collect();
    let (reference, rule, exact_from, noise) = plan(&values, rows, others);
    code(coder, &mut values, rows, others, Plan { reference, rule, exact_from, first, step, noise });
}

/// Reads a column of numbers for these rows.
pub(super) fn read<C: Coder>(coder: &mut C, rows: &[u32], others: &mut Others) -> Vec<i64> {
    let mut values = vec![0; rows.len()];
    let plan = Plan {
        reference: Reference::Before,
        rule: Rule::Zero,
        exact_from: 0,
        first: 0,
        step: 1,
        noise: false,
    };
    let plan = code(coder, &mut values, rows, others, plan);
    let back = |value: &mut i64| *value = value.wrapping_mul(plan.step as i64).wrapping_add(plan.first);
    values.iter_mut().for_each(back);
    values
}

/// What divides all distances from the first, if these are small enough to be told in it.
fn common_step(values: &[i64], first: i64) -> u64 {
    let mut step = 0;
    for value in values {
        let (mut a, mut b) = (step, value.abs_diff(first));
        if b > i64::MAX as u64 {
            return 1;
        }
        while b != 0 {
            (a, b) = (b, a % b);
        }
        step = a;
        if step == 1 {
            break;
        }
    }
    // A later one may still be too far.
    if values.iter().any(|value| value.abs_diff(first) > i64::MAX as u64) { 1 } else { step.max(1) }
}

fn code<C: Coder>(coder: &mut C, values: &mut [i64], rows: &[u32], others: &mut Others, plan: Plan) -> Plan {
    let first = coder.number(zigzag(plan.first));
    let first = (first >> 1) as i64 ^ -((first & 1) as i64);
    let step = coder.number(plan.step);
    let exact_from = coder.number(plan.exact_from as u64).min(values.len() as u64) as usize;
    let reference = code_reference(coder, plan.reference);
    let rule = RULES.iter().position(|rule| *rule == plan.rule).unwrap_or(0) as u64;
    let rule = RULES[(coder.plain(rule, 3) as usize).min(RULES.len() - 1)];
    let noise = coder.plain(plan.noise.into(), 1) != 0;
    let plan = Plan { reference, rule, exact_from, first, step, noise };
    let references = references(reference, rows, others);
    let mut walk = Walk::new(rule, &references);
    let mut distances = Distances::new(values.len());
    let mut alone = Alone::new();
    for at in 0..values.len() {
        let expected = walk.expected(values, at);
        if at < exact_from && !coder.has_failed() {
            let is = values[at].wrapping_sub(expected);
            let distance = if noise {
                alone.code(coder, is)
            } else {
                let other = walk.other(values, at).wrapping_sub(expected);
                let surprise = others.surprise.get(rows[at] as usize).copied().unwrap_or(0);
                distances.code(coder, is, at, walk.row(at), other, surprise)
            };
            values[at] = expected.wrapping_add(distance);
        } else {
            values[at] = expected;
        }
        walk.passed(values[at], at);
    }
    if exact_from > 1 && !noise {
        for (at, row) in rows.iter().enumerate() {
            if let Some(surprise) = others.surprise.get_mut(*row as usize) {
                *surprise = rough(distances.before[at]) as u8;
            }
        }
    }
    plan
}

/// Distances that are noise: their bits by how often they were there.
struct Alone {
    bits: [Slot; 128],
    sign: Slot,
    below: Vec<Slot>,
}

impl Alone {
    fn new() -> Alone {
        Alone { bits: [Slot::FRESH; 128], sign: Slot::FRESH, below: vec![Slot::FRESH; 65 << MODELLED_BITS] }
    }

    fn code<C: Coder>(&mut self, coder: &mut C, distance: i64) -> i64 {
        let size = distance.unsigned_abs();
        let bits = u64::BITS - size.leading_zeros();
        let mut node = 1;
        for bit in (0..7).rev() {
            node = node << 1 | usize::from(self.bits[node].code(coder, bits >> bit & 1 != 0));
        }
        let bits = (node as u32 & 127).min(64);
        if bits == 0 {
            return 0;
        }
        let is_negative = self.sign.code(coder, distance < 0);
        let modelled = (bits - 1).min(MODELLED_BITS);
        let mut value = 1u64;
        for n in 1..=modelled {
            let below = &mut self.below[(bits << MODELLED_BITS) as usize | value as usize];
            value = value << 1 | u64::from(below.code(coder, size >> (bits - 1 - n) & 1 != 0));
        }
        let rest = bits - 1 - modelled;
        let value = (value << rest | coder.plain(size, rest)) as i64;
        if is_negative { value.wrapping_neg() } else { value }
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Distances of a column.
struct Distances {
    /// Made when the first is not as expected without being asked.
    mixer: Option<Mixer<CONTEXTS>>,
    before: Vec<i64>,
}

impl Distances {
    fn new(rows: usize) -> Distances {
        Distances { mixer: None, before: vec![0; rows] }
    }

    fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        distance: i64,
        at: usize,
        row: Option<usize>,
        other: i64,
        surprise: u8,
    ) -> i64 {
        let before = |n: usize| at.checked_sub(n).map_or(0, |at| self.before[at]);
        let there = |n: usize| row.map_or(0, |row| row + n).min(at);
        let (last, second) = (before(1), before(2));
        let (here, next) = (self.before[there(0)], self.before[there(1)]);
        let contexts = [
            context(&[2, fine(here), rough(next)]),
            context(&[4, fine(other), fine(last)]),
            context(&[5, surprise.into(), rough(last.wrapping_add(second).wrapping_add(before(3)))]),
        ];
        let distance = self.distance(coder, &contexts, distance);
        self.before[at] = distance;
        distance
    }

    fn distance<C: Coder>(&mut self, coder: &mut C, contexts: &[u32; CONTEXTS], distance: i64) -> i64 {
        let mixer = self.mixer.get_or_insert_with(|| Mixer::new(SLOT_BITS, SETS));
        if mixer.bit(coder, contexts, NODE_ZERO, 0, distance == 0) {
            return 0;
        }
        let is_negative = mixer.bit(coder, contexts, NODE_SIGN, 1, distance < 0);
        let size = distance.unsigned_abs();
        let sign = u32::from(is_negative);
        let bits = 63 - size.max(1).leading_zeros();
        let mut read = 0;
        while read < 63 {
            let set = 2 + (read as usize).min(7);
            if !mixer.bit(coder, contexts, NODE_BITS + read, set, bits > read) {
                break;
            }
            read += 1;
        }
        let mut value = 1u64;
        let modelled = read.min(MODELLED_BITS);
        for n in 1..=modelled {
            let bit = size >> (read - n) & 1 != 0;
            let node = NODE_REST + ((read << 4 | value as u32) << 1 | sign);
            value = value << 1 | u64::from(mixer.bit(coder, contexts, node, 9 + n as usize % 3, bit));
        }
        let rest = read - modelled;
        value = value.checked_shl(rest).unwrap_or(0) | coder.plain(size, rest);
        let value = value as i64;
        if is_negative { value.wrapping_neg() } else { value }
    }
}

/// A distance as a context: small ones exactly.
fn fine(distance: i64) -> u32 {
    match distance {
        -12..=12 => (distance + 12) as u32,
        _ => 32 + rough(distance),
    }
}

/// A distance as a context: sign and number of bits.
fn rough(distance: i64) -> u32 {
    (u64::BITS - distance.unsigned_abs().leading_zeros()) << 1 | u32::from(distance < 0)
}

/// The reference and the rule by which little is to be told.
fn plan(values: &[i64], rows: &[u32], others: &Others) -> (Reference, Rule, usize, bool) {
    let mut found = (Reference::Before, Rule::Zero, f64::INFINITY);
    let mut consider = |reference: Reference, rules: &[Rule]| {
        let references = references(reference, rows, others);
        for rule in rules {
            let cost = cost(values, *rule, &references);
            if cost < found.2 {
                found = (reference, *rule, cost);
            }
        }
        found.2
    };
    let best = consider(Reference::Before, &[Rule::Zero, Rule::Value, Rule::Line, Rule::Mean]);
    if best > 64.0 {
        let of_others = [Rule::Value, Rule::Line, Rule::Change, Rule::Mean];
        for period in periods(values).into_iter().flatten() {
            consider(Reference::Period(period), &of_others);
        }
        for of in 0..others.symbols.len().min(OTHERS_MAX) {
            consider(Reference::Same(of), &[Rule::Value, Rule::Line, Rule::Mean]);
        }
    }
    let (reference, rule, bits) = found;
    let noise = bits > NOISE_BITS * values.len().min(TRIED_ROWS) as f64;
    let compared = references(reference, rows, others);
    let exact_from = exact_from(values, rule, &compared);
    (reference, rule, exact_from, noise)
}

fn exact_from(values: &[i64], rule: Rule, references: &[u32]) -> usize {
    let mut walk = Walk::new(rule, references);
    let mut exact_from = 0;
    for (at, value) in values.iter().enumerate() {
        if walk.expected(values, at) != *value {
            exact_from = at + 1;
        }
        walk.passed(*value, at);
    }
    exact_from
}

/// About how many bits the last rows take.
fn cost(values: &[i64], rule: Rule, references: &[u32]) -> f64 {
    let mut walk = Walk::new(rule, references);
    let mut seen = [0u32; 256];
    let mut bits = 0;
    let tried = values.len().min(TRIED_ROWS);
    let from = values.len() - tried;
    for (at, value) in values.iter().enumerate().skip(if rule == Rule::Mean { 0 } else { from }) {
        if at >= from {
            let distance = value.wrapping_sub(walk.expected(values, at));
            let symbol = match distance {
                -24..=24 => (distance + 24) as usize,
                _ => {
                    let rough = rough(distance) as usize;
                    bits += rough as u64 / 2 - 1;
                    64 + rough
                }
            };
            seen[symbol] += 1;
        }
        walk.passed(*value, at);
    }
    let entropy = |n: &u32| f64::from(*n) * (tried as f64 / f64::from(*n)).log2() + 2.0;
    seen.iter().filter(|n| **n > 0).map(entropy).sum::<f64>() + bits as f64
}

/// Periods in which values come again, and in which they change alike.
fn periods(values: &[i64]) -> [Option<usize>; 2] {
    let most = PERIOD_MAX.min(values.len() / 3);
    let from = most + 1;
    let Some(count) = values.len().checked_sub(from).filter(|count| *count >= 8) else { return [None, None] };
    let samples = PERIOD_SAMPLES.min(count);
    let at: Vec<usize> = (0..samples).map(|n| from + n * count / samples).collect();
    let value = period(most, &at, |t, n| values[t].wrapping_sub(values[t - n]));
    let change = |t: usize| values[t].wrapping_sub(values[t - 1]);
    let changes = period(most, &at, |t, n| change(t).wrapping_sub(change(t - n)));
    [value, changes.filter(|n| value != Some(*n))]
}

/// The period of the smallest distances in some rows.
fn period(most: usize, rows: &[usize], distance: impl Fn(usize, usize) -> i64) -> Option<usize> {
    let mut found = (u32::MAX, None);
    for n in 2..=most {
        let mut bits = 0;
        for row in rows {
            bits += u64::BITS - distance(*row, n).unsigned_abs().leading_zeros();
            if bits >= found.0 {
                break;
            }
        }
        if bits < found.0 {
            found = (bits, Some(n));
        }
    }
    found.1
}
