//! Places in change feeds: sets of local sequences, and the opaque sequences of a peer.

use std::fmt;
use std::ops::RangeInclusive;

/// A set of sequences, kept as sorted ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceSet {
    /// First and last of each range.
    ranges: Vec<(u64, u64)>,
}

impl SequenceSet {
    /// The empty set.
    pub fn new() -> SequenceSet {
        SequenceSet::default()
    }

    /// All sequences up to `last`, from 0.
    pub fn up_to(last: u64) -> SequenceSet {
        SequenceSet { ranges: vec![(0, last)] }
    }

    /// Adds one.
    pub fn insert(&mut self, sequence: u64) {
        self.insert_range(sequence..=sequence);
    }

    /// Adds a range; an empty one changes nothing.
    pub fn insert_range(&mut self, range: RangeInclusive<u64>) {
        let (first, last) = range.into_inner();
        if first > last {
            return;
        }
        // Ranges that touch or overlap the new one stand together; they become one with it.
        let from = self.ranges.partition_point(|r| r.1 < first.saturating_sub(1));
        let to = self.ranges.partition_point(|r| r.0 <= last.saturating_add(1));
        if from == to {
            self.ranges.insert(from, (first, last));
            return;
        }
        let joined = (first.min(self.ranges[from].0), last.max(self.ranges[to - 1].1));
        self.ranges.splice(from..to, [joined]);
    }

    /// Takes out everything from `first` on.
    pub fn remove_from(&mut self, first: u64) {
        self.ranges.retain(|range| range.0 < first);
        if let Some(last) = self.ranges.last_mut() {
            last.1 = last.1.min(first.saturating_sub(1));
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, sequence: u64) {
        let at = self.ranges.partition_point(|r| r.1 < sequence);
        let Some(&(first, last)) = self.ranges.get(at) else { return };
        if first > sequence {
            return;
        }
        let mut rest = Vec::with_capacity(2);
        if first < sequence {
            rest.push((first, sequence - 1));
        }
        if sequence < last {
            rest.push((sequence + 1, last));
        }
        self.ranges.splice(at..=at, rest);
    }

    /// Whether it is in the set.
    pub fn contains(&self, sequence: u64) -> bool {
        let at = self.ranges.partition_point(|r| r.1 < sequence);
        self.ranges.get(at).is_some_and(|r| r.0 <= sequence)
    }

    /// The range that it is in.
    pub fn range_of(&self, sequence: u64) -> Option<RangeInclusive<u64>> {
        let at = self.ranges.partition_point(|r| r.1 < sequence);
        self.ranges.get(at).filter(|r| r.0 <= sequence).map(|&(first, last)| first..=last)
    }

    /// The last sequence of the run that begins at 0 or 1: everything up to it is in the set. 0 if there is none.
    pub fn prefix(&self) -> u64 {
        match self.ranges.first() {
            Some(&(first, last)) if first <= 1 => last,
            _ => 0,
        }
    }

    /// The ranges in order.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.ranges.iter().map(|&(first, last)| first..=last)
    }

    /// How many ranges there are: the memory it takes.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// Forgets the lowest ranges until at most `max` are left.
    pub fn keep_newest(&mut self, max: usize) {
        let excess = self.ranges.len().saturating_sub(max);
        self.ranges.drain(..excess);
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &SequenceSet) -> SequenceSet {
        let (mut a, mut b) = (0, 0);
        let mut ranges = Vec::new();
        while let (Some(x), Some(y)) = (self.ranges.get(a), other.ranges.get(b)) {
            let (first, last) = (x.0.max(y.0), x.1.min(y.1));
            if first <= last {
                ranges.push((first, last));
            }
            if x.1 <= y.1 { a += 1 } else { b += 1 }
        }
        SequenceSet { ranges }
    }
}

/// A place in the peer's change feed. gattway peers count; a server may write anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RemoteSequence {
    /// A number; 0 is before the first change.
    Number(u64),
    /// Any other JSON value, as text.
    Other(Box<str>),
}

impl RemoteSequence {
    /// Before the first change.
    pub const START: RemoteSequence = RemoteSequence::Number(0);

    /// From JSON text.
    pub fn from_json(text: &str) -> RemoteSequence {
        match text.parse() {
            Ok(number) => RemoteSequence::Number(number),
            Err(_) => RemoteSequence::Other(text.into()),
        }
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<u64> {
        match self {
            RemoteSequence::Number(number) => Some(*number),
            RemoteSequence::Other(_) => None,
        }
    }
}

impl fmt::Display for RemoteSequence {
    /// JSON text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteSequence::Number(number) => fmt::Display::fmt(number, f),
            RemoteSequence::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn members(set: &SequenceSet) -> BTreeSet<u64> {
        set.ranges().flatten().collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in prop::collection::vec((0u8..3, 0u64..60, 0u64..8), 0..60)) {
            let mut set = SequenceSet::new();
            let mut model = BTreeSet::new();
            for (step, first, length) in steps {
                match step {
                    0 => {
                        set.insert_range(first..=first + length);
                        model.extend(first..=first + length);
                    }
                    1 => {
                        set.remove(first);
                        model.remove(&first);
                    }
                    _ => {
                        set.remove_from(first + 30);
                        model.retain(|n| *n < first + 30);
                    }
                }
                prop_assert_eq!(&members(&set), &model);
                for n in 0..70 {
                    let range = set.range_of(n);
                    prop_assert_eq!((set.contains(n), range.is_some()), (model.contains(&n), model.contains(&n)));
                    prop_assert!(range.is_none_or(|range| range.contains(&n) && set.ranges().any(|r| r == range)));
                }
                prop_assert!(set.ranges.windows(2).all(|w| w[0].1 + 1 < w[1].0));
                for n in 0..70 {
                    prop_assert_eq!(set.contains(n), model.contains(&n));
                }
                let prefix = (1..).take_while(|n| model.contains(n)).last().unwrap_or(0);
                let starts = model.contains(&0) || model.contains(&1);
                prop_assert_eq!(set.prefix(), if starts { prefix } else { 0 });
            }
        }

        #[test]
        fn intersects_like_a_set(
            a in prop::collection::btree_set(0u64..40, 0..30),
            b in prop::collection::btree_set(0u64..40, 0..30),
        ) {
            let set = |of: &BTreeSet<u64>| {
                let mut set = SequenceSet::new();
                of.iter().for_each(|n| set.insert(*n));
                set
            };
            let both: BTreeSet<u64> = a.intersection(&b).copied().collect();
            prop_assert_eq!(members(&set(&a).intersection(&set(&b))), both);
        }
    }

    #[test]
    fn ends_of_the_range_do_not_overflow() {
        let mut set = SequenceSet::up_to(u64::MAX);
        set.insert_range(0..=u64::MAX);
        set.remove(u64::MAX);
        assert_eq!(set.prefix(), u64::MAX - 1);
    }
}
