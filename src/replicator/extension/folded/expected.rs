//! What is to be expected in a row of a column of numbers, by those before it.

use super::coder::Coder;

/// A mean follows by 1/n, up to this n.
const MEAN_OF_MAX: u16 = 24;
const MEAN_BITS: u32 = 8;

/// The row to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// That before.
    Before,
    /// That so many before.
    Period(usize),
    /// The last that is the same in this other column.
    Same(usize),
}

/// What is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Zero,
    /// As in the row of the reference.
    Value,
    /// The line through that row and the one that is its reference.
    Line,
    /// As before, changed as it changed there.
    Change,
    /// The mean of the row of the reference, of its reference and so on.
    Mean,
}

pub(super) const RULES: [Rule; 5] = [Rule::Zero, Rule::Value, Rule::Line, Rule::Change, Rule::Mean];

/// What other columns say about rows.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Columns of a few texts: which of them stands in each row of the message.
    pub(super) symbols: Vec<Vec<u32>>,
    /// How far the column before was from what was expected, for each row of the message.
    pub(super) surprise: Vec<u8>,
}

/// Other columns that are looked at, at most.
pub(super) const OTHERS_MAX: usize = 4;

/// No row.
const NONE: u32 = u32::MAX;

/// The row that each row is compared with.
pub(super) fn references(reference: Reference, rows: &[u32], others: &Others) -> Vec<u32> {
    let back = |n: usize| (0..rows.len()).map(|t| t.checked_sub(n).map_or(NONE, |q| q as u32)).collect();
    match reference {
        Reference::Before => back(1),
        Reference::Period(n) => back(n),
        Reference::Same(of) => {
            let Some(symbols) = others.symbols.get(of) else { return back(1) };
            let symbol = |row: u32| symbols.get(row as usize).copied().unwrap_or(0) as usize;
            let most = rows.iter().map(|row| symbol(*row)).filter(|s| *s < NONE as usize).max().unwrap_or(0);
            let mut last = vec![NONE; most + 1];
            let mut of_row = |(t, row): (usize, &u32)| match last.get_mut(symbol(*row)) {
                Some(last) => std::mem::replace(last, t as u32),
                None => NONE,
            };
            rows.iter().enumerate().map(&mut of_row).collect()
        }
    }
}

pub(super) fn code_reference<C: Coder>(coder: &mut C, reference: Reference) -> Reference {
    let (kind, value) = match reference {
        Reference::Before => (0, 0),
        Reference::Period(n) => (1, n as u64),
        Reference::Same(of) => (2, of as u64),
    };
    match coder.plain(kind, 2) {
        1 => Reference::Period((coder.plain(value, 11) as usize).max(1)),
        2 => Reference::Same(coder.plain(value, 3) as usize),
        _ => Reference::Before,
    }
}

/// How what is expected comes about, row by row.
pub(super) struct Walk<'a> {
    references: &'a [u32],
    rule: Rule,
    /// For [`Rule::Mean`]: of each row the mean with it, and of how many it is.
    means: Vec<(i64, u16)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(rule: Rule, references: &'a [u32]) -> Walk<'a> {
        let means = if rule == Rule::Mean { Vec::with_capacity(references.len()) } else { Vec::new() };
        Walk { references, rule, means }
    }

    pub(super) fn row(&self, at: usize) -> Option<usize> {
        self.references.get(at).filter(|row| **row != NONE).map(|row| *row as usize)
    }

    /// What is expected in a row of what stands in those before it.
    pub(super) fn expected(&self, values: &[i64], at: usize) -> i64 {
        let before = || at.checked_sub(1).map_or(0, |before| values[before]);
        let Some(row) = self.row(at) else {
            return if self.rule == Rule::Zero { 0 } else { before() };
        };
        match self.rule {
            Rule::Zero => 0,
            Rule::Value => values[row],
            Rule::Line => {
                let step = self.row(row).map_or(0, |its| values[row].wrapping_sub(values[its]));
                values[row].wrapping_add(step)
            }
            Rule::Change => {
                let change = row.checked_sub(1).map_or(0, |its| values[row].wrapping_sub(values[its]));
                before().wrapping_add(change)
            }
            Rule::Mean => (self.means[row].0.wrapping_add(1 << (MEAN_BITS - 1))) >> MEAN_BITS,
        }
    }

    /// Something else that could be expected.
    pub(super) fn other(&self, values: &[i64], at: usize) -> i64 {
        let before = at.checked_sub(1).map_or(0, |before| values[before]);
        match self.rule {
            Rule::Change | Rule::Mean => self.row(at).map_or(before, |row| values[row]),
            Rule::Value | Rule::Line if self.row(at).is_none_or(|row| row + 1 == at) => {
                at.checked_sub(2).map_or(0, |two| values[two])
            }
            _ => before,
        }
    }

    pub(super) fn passed(&mut self, value: i64, at: usize) {
        if self.rule != Rule::Mean {
            return;
        }
        let value = value.wrapping_shl(MEAN_BITS);
        let mean = self.row(at).map_or((value, 1), |row| {
            let (mean, of) = self.means[row];
            let of = (of + 1).min(MEAN_OF_MAX);
            (mean.wrapping_add(value.wrapping_sub(mean) / i64::from(of)), of)
        });
        self.means.push(mean);
    }
}
