//! A folded message: the columns of [`folded`] in place of those of a plain message.

use super::format::flag;
use crate::replicator::extension::folded::{self, Has, Rows, Texts};

/// Flags that say something of a revision; the others say how its columns are written.
pub(super) const KEPT: u8 = flag::DELETED | flag::BODY | flag::HISTORY | flag::GONE | flag::TREES;

/// Bits of a time below the clock's own step.
pub(super) const COUNTER_BITS: u32 = 16;

pub(super) const HAS: Has = Has {
    further: |flags| flags & i64::from(flag::HISTORY | flag::TREES) != 0,
    body: |flags| flags & i64::from(flag::BODY) != 0,
};

/// Columns of numbers: flags, sequence, author, time, counter.
pub(super) const NUMBERS: usize = 5;

/// The parts of a revision.
pub(super) struct Row<'r> {
    pub(super) flags: u8,
    pub(super) sequence: u64,
    pub(super) id: &'r str,
    /// The number of its author in the message.
    pub(super) source: usize,
    pub(super) time: u64,
    /// Its merged versions, history and tree IDs, as a plain message has them.
    pub(super) further: &'r [u8],
    pub(super) body: Option<&'r [u8]>,
}

/// What an encoder keeps of the revisions of a message, beside their plain columns.
#[derive(Debug, Default)]
pub(super) struct FoldRows {
    numbers: [Vec<i64>; NUMBERS],
    ids: Texts,
    /// Where further versions of the revision begin that is being written.
    pub(super) further_from: usize,
    further: Vec<(usize, usize)>,
    pub(super) body_ends: Vec<usize>,
}

impl FoldRows {
    pub(super) fn push(
        &mut self,
        flags: u8,
        sequence: u64,
        id: &str,
        (source, time): (usize, u64),
        versions_end: usize,
    ) {
        let numbers = [
            u64::from(flags & KEPT),
            sequence,
            source as u64,
            time >> COUNTER_BITS,
            time & ((1 << COUNTER_BITS) - 1),
        ];
        self.numbers.iter_mut().zip(numbers).for_each(|(column, number)| column.push(number as i64));
        self.ids.push(id.as_bytes());
        self.further.push((self.further_from, versions_end));
    }

    /// Appends the columns, and keeps none of them.
    pub(super) fn write(
        &mut self,
        from: u64,
        versions: &[u8],
        bodies: &[u8],
        out: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let mut numbers: Vec<Vec<i64>> = self.numbers.iter_mut().map(std::mem::take).collect();
        numbers[1].iter_mut().for_each(|sequence| *sequence = sequence.wrapping_sub(from as i64));
        let is = |of: fn(i64) -> bool| numbers[0].iter().map(move |flags| of(*flags));
        let further = self.further.iter().zip(is(HAS.further)).filter(|(_, has)| *has);
        let further = further.map(|((from, to), _)| &versions[*from..*to]).collect();
        let starts = std::iter::once(&0).chain(&self.body_ends);
        let bodies_of = starts.zip(&self.body_ends).zip(is(HAS.body)).filter(|(_, has)| *has);
        let bodies = bodies_of.map(|((from, to), _)| &bodies[*from..*to]).collect();
        let ids = std::mem::take(&mut self.ids);
        folded::write(Rows { numbers, ids, further, bodies }, HAS, out)
    }
}
