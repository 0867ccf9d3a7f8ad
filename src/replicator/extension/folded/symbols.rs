//! Columns of a few different things: which of them stands where.

use super::coder::Coder;
use super::expected::{OTHERS_MAX, Others, Reference, code_reference, references};
use super::mixer::{Mixer, context};

const CONTEXTS: usize = 4;
const SLOT_BITS: u32 = 11;
const SETS: usize = 3;

/// Node of the question whether it is what is expected; the others are those of a tree.
const NODE_HIT: u32 = 1 << 20;

/// Rows of a period at most.
const PERIOD_MAX: usize = 1_024;

/// Writes which of so many different ones stands in each row.
pub(super) fn write<C: Coder>(coder: &mut C, symbols: &[u32], kinds: usize, rows: &[u32], others: &Others) {
    code(coder, &mut symbols.to_vec(), kinds, rows, others, plan(symbols, rows, others));
}

/// Reads it; each is below `kinds`, which is not 0.
pub(super) fn read<C: Coder>(coder: &mut C, kinds: usize, rows: &[u32], others: &Others) -> Vec<u32> {
    let mut symbols = vec![0; rows.len()];
    code(coder, &mut symbols, kinds, rows, others, (Reference::Before, 0));
    symbols
}

fn code<C: Coder>(
    coder: &mut C,
    symbols: &mut [u32],
    kinds: usize,
    rows: &[u32],
    others: &Others,
    (reference, exact_from): (Reference, usize),
) {
    if kinds < 2 {
        return;
    }
    let exact_from = coder.number(exact_from as u64).min(symbols.len() as u64) as usize;
    let reference = code_reference(coder, reference);
    let references = references(reference, rows, others);
    let bits = usize::BITS - (kinds - 1).leading_zeros();
    let mut mixer = Mixer::<CONTEXTS>::new(SLOT_BITS, SETS);
    for at in 0..symbols.len() {
        let before = |n: usize| at.checked_sub(n).map_or(kinds as u32, |at| symbols[at]);
        let expected = symbols.get(references[at] as usize).copied();
        let expected = expected.unwrap_or(before(1)).min(kinds as u32);
        if at >= exact_from || coder.has_failed() {
            symbols[at] = expected.min(kinds as u32 - 1);
            continue;
        }
        let other = |n: usize| {
            let symbols = others.symbols.get(n)?;
            symbols.get(rows[at] as usize).copied()
        };
        let contexts = [
            context(&[2, before(1), before(2)]),
            context(&[3, expected]),
            context(&[4, other(0).unwrap_or(0), expected]),
            context(&[5, other(1).unwrap_or(0), other(2).unwrap_or(0)]),
        ];
        let is = symbols[at];
        if expected < kinds as u32 && mixer.bit(coder, &contexts, NODE_HIT, 0, is == expected) {
            symbols[at] = expected;
            continue;
        }
        let mut node = 1;
        for bit in (0..bits).rev() {
            let set = if bit + 1 == bits { 1 } else { 2 };
            node = node << 1 | u32::from(mixer.bit(coder, &contexts, node, set, is >> bit & 1 != 0));
        }
        symbols[at] = (node - (1 << bits)).min(kinds as u32 - 1);
    }
}

/// The row by which most are told, and from where on all are.
fn plan(symbols: &[u32], rows: &[u32], others: &Others) -> (Reference, usize) {
    let hits = |reference: Reference| {
        let references = references(reference, rows, others);
        let of = |(t, q): (usize, &u32)| symbols.get(*q as usize) == Some(&symbols[t]);
        let hits = references.iter().enumerate().filter(|pair| of(*pair)).count();
        let last = references.iter().enumerate().rev().find(|pair| !of(*pair)).map_or(0, |(t, _)| t + 1);
        (hits, last)
    };
    let (most, from) = hits(Reference::Before);
    let mut found = (Reference::Before, most, from);
    if found.1 + 1 < symbols.len() {
        let same = (0..others.symbols.len().min(OTHERS_MAX)).map(Reference::Same);
        for reference in period(symbols).map(Reference::Period).into_iter().chain(same) {
            let (most, from) = hits(reference);
            if most > found.1 {
                found = (reference, most, from);
            }
        }
    }
    (found.0, found.2)
}

/// A period in which they come again.
fn period(symbols: &[u32]) -> Option<usize> {
    let most = PERIOD_MAX.min(symbols.len() / 3);
    let from = most + 1;
    let count = symbols.len().checked_sub(from).filter(|count| *count >= 8)?;
    let samples = count.min(96);
    let at: Vec<usize> = (0..samples).map(|n| from + n * count / samples).collect();
    let hits = |n: usize| at.iter().filter(|t| symbols[**t] == symbols[**t - n]).count();
    (2..=most).map(|n| (hits(n), std::cmp::Reverse(n))).max().map(|(_, n)| n.0)
}
