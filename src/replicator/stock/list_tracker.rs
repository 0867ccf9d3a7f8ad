//! What of a feed that comes in lists is durable here: the position up to which nothing is missing.

use std::collections::{BTreeMap, HashMap};

use crate::replicator::config::{EXPECTED_REVS_HIGH, LISTED_ENTRIES_HIGH};
use crate::replicator::in_flight::Ticket;
use crate::replicator::sequences::RemoteSequence;

/// Entries behind one that failed, above which it counts as done after all: memory is worth more than one more try.
const ENTRIES_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Pending,
    Done,
    /// To be tried again in the next run: the position stays before it.
    Failed,
}

/// The position in a feed whose sequences have an order that only the peer knows: that of its lists.
#[derive(Debug)]
pub(super) struct ListTracker {
    position: RemoteSequence,
    entries: BTreeMap<Ticket, (RemoteSequence, EntryState)>,
    /// All lists with a lower number have come.
    come_until: u64,
    /// Tickets of revisions that were asked for and have not come.
    expected: HashMap<RemoteSequence, Ticket>,
    pending: usize,
}

impl ListTracker {
    pub fn new(position: RemoteSequence) -> ListTracker {
        let (entries, expected) = (BTreeMap::new(), HashMap::new());
        ListTracker { position, entries, come_until: 0, expected, pending: 0 }
    }

    /// Notes that all lists with a number below `until` are added: only a list after them can still be on its way.
    pub fn lists_have_come(&mut self, until: u64) {
        self.come_until = until;
        self.advance();
    }

    /// Whether all lists with a lower number are added.
    pub fn has_come_until(&self, list: u64) -> bool {
        list <= self.come_until
    }

    /// The next entry of a list: wanted, or done already.
    pub fn add(&mut self, list: u64, entry: usize, sequence: RemoteSequence, wanted: bool) {
        let ticket = Ticket { list, entry };
        if wanted {
            self.pending += 1;
            // The same sequence twice: what comes counts for the later entry, the earlier one is done with it.
            if let Some(earlier) = self.expected.insert(sequence.clone(), ticket) {
                self.set(earlier, EntryState::Done);
            }
        }
        let state = if wanted { EntryState::Pending } else { EntryState::Done };
        self.entries.insert(ticket, (sequence, state));
        self.advance();
    }

    /// The ticket of a revision that has come, if it was asked for.
    pub fn arrived(&mut self, sequence: &RemoteSequence) -> Option<Ticket> {
        self.expected.remove(sequence)
    }

    /// A revision that has come is of no use: the peer sends it once more.
    pub fn expect_again(&mut self, ticket: Ticket) {
        if let Some((sequence, EntryState::Pending)) = self.entries.get(&ticket) {
            self.expected.insert(sequence.clone(), ticket);
        }
    }

    /// A revision is durable, or need not be had; or it failed and the next run shall try again.
    pub fn settle(&mut self, ticket: Ticket, done: bool) {
        self.set(ticket, if done { EntryState::Done } else { EntryState::Failed });
        self.advance();
    }

    fn set(&mut self, ticket: Ticket, state: EntryState) {
        if let Some((_, stored)) = self.entries.get_mut(&ticket)
            && *stored == EntryState::Pending
        {
            self.pending -= 1;
            *stored = state;
        }
    }

    fn advance(&mut self) {
        loop {
            let many = self.entries.len() > ENTRIES_MAX;
            let Some(first) = self.entries.first_entry() else { return };
            let state = first.get().1;
            let give_up = state == EntryState::Failed && many;
            if first.key().list >= self.come_until || (state != EntryState::Done && !give_up) {
                break;
            }
            let (sequence, _) = first.remove();
            // A peer that lists again from an earlier place takes nothing away from what is here.
            let is_earlier =
                matches!((sequence.number(), self.position.number()), (Some(new), Some(old)) if new < old);
            if !is_earlier {
                self.position = sequence;
            }
        }
    }

    /// Revisions asked for that have not come.
    pub fn expected(&self) -> usize {
        self.expected.len()
    }

    /// Whether further lists have to wait.
    pub fn is_full(&self) -> bool {
        self.expected.len() >= EXPECTED_REVS_HIGH || self.entries.len() >= LISTED_ENTRIES_HIGH
    }

    /// Whether lists that waited have their turn.
    pub fn has_room(&self) -> bool {
        self.expected.len() < EXPECTED_REVS_HIGH / 2 && self.entries.len() < LISTED_ENTRIES_HIGH
    }

    /// Whether every entry is settled.
    pub fn is_settled(&self) -> bool {
        self.pending == 0
    }

    /// Everything up to here is durable.
    pub fn position(&self) -> &RemoteSequence {
        &self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the order in which revisions become durable, the position never passes one that is not.
        #[test]
        fn the_position_never_passes_what_is_not_durable(
            wanted in prop::collection::vec(any::<bool>(), 1..40),
            order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..40),
        ) {
            let mut tracker = ListTracker::new(RemoteSequence::START);
            let number = |n: usize| RemoteSequence::Number(n as u64 + 1);
            // Three to a list.
            wanted.iter().enumerate().for_each(|(n, want)| tracker.add(n as u64 / 3, n % 3, number(n), *want));
            tracker.lists_have_come(u64::MAX);
            let mut open: Vec<usize> = (0..wanted.len()).filter(|n| wanted[*n]).collect();
            let mut durable: Vec<bool> = wanted.iter().map(|want| !want).collect();
            for (pick, done) in order {
                if open.is_empty() {
                    break;
                }
                let n = open.remove(pick.index(open.len()));
                let ticket = tracker.arrived(&number(n)).expect("asked for");
                tracker.settle(ticket, done);
                durable[n] = done;
                let expected = durable.iter().take_while(|d| **d).count() as u64;
                prop_assert_eq!(tracker.position(), &RemoteSequence::Number(expected));
                prop_assert_eq!(tracker.is_settled(), open.is_empty());
            }
        }
    }

    #[test]
    fn what_is_listed_again_does_not_take_the_position_back() {
        let mut tracker = ListTracker::new(RemoteSequence::Number(20));
        tracker.add(0, 0, RemoteSequence::Number(38), false);
        tracker.add(1, 0, RemoteSequence::Number(33), false);
        tracker.add(1, 1, RemoteSequence::Number(34), true);
        tracker.lists_have_come(2);
        assert_eq!(tracker.position(), &RemoteSequence::Number(38));
        tracker.add(2, 0, RemoteSequence::Number(40), false);
        tracker.lists_have_come(3);
        assert_eq!(tracker.position(), &RemoteSequence::Number(38), "34 has not come");
        let ticket = tracker.arrived(&RemoteSequence::Number(34)).expect("asked for");
        tracker.settle(ticket, true);
        assert_eq!(tracker.position(), &RemoteSequence::Number(40));
    }

    /// Memory is bounded by what failed, which counts as done in the end; by what is on its way never.
    #[test]
    fn behind_what_failed_no_more_than_so_many_entries_wait() {
        for (failed, behind, passed) in [
            (true, ENTRIES_MAX - 1, false),
            (true, ENTRIES_MAX, true),
            (false, ENTRIES_MAX - 1, false),
            (false, ENTRIES_MAX + 10, false),
        ] {
            let mut tracker = ListTracker::new(RemoteSequence::START);
            tracker.lists_have_come(u64::MAX);
            tracker.add(1, 0, RemoteSequence::Number(1), true);
            if failed {
                let ticket = tracker.arrived(&RemoteSequence::Number(1)).expect("asked for");
                tracker.settle(ticket, false);
            }
            (1..=behind).for_each(|n| tracker.add(1, n, RemoteSequence::Number(n as u64 + 1), false));
            let position =
                if passed { RemoteSequence::Number(behind as u64 + 1) } else { RemoteSequence::START };
            assert_eq!(tracker.position(), &position, "failed {failed}, {behind} behind");
            assert_eq!(tracker.is_settled(), failed);
        }
    }

    #[test]
    fn a_list_that_was_overtaken_holds_the_position() {
        let mut tracker = ListTracker::new(RemoteSequence::START);
        tracker.lists_have_come(7);
        tracker.add(8, 0, RemoteSequence::Number(30), false);
        assert_eq!(tracker.position(), &RemoteSequence::START);
        tracker.add(7, 0, RemoteSequence::Number(10), true);
        tracker.add(7, 1, RemoteSequence::Number(20), false);
        tracker.lists_have_come(9);
        assert_eq!((tracker.position(), tracker.has_come_until(10)), (&RemoteSequence::START, false));
        let ticket = tracker.arrived(&RemoteSequence::Number(10)).expect("asked for");
        tracker.settle(ticket, true);
        assert_eq!(tracker.position(), &RemoteSequence::Number(30));
    }
}
