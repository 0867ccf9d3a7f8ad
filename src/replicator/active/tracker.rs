//! What of the peer's feed is durable here: the position up to which nothing is missing.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::super::config::{EXPECTED_REVS_HIGH, FEED_RANGES_MAX, LISTED_ENTRIES_HIGH};
use super::super::error::SessionError;
use super::super::sequences::{RemoteSequence, SequenceSet};

/// Entries behind one that failed, above which it counts as done after all: memory is worth more than one more try.
const ENTRIES_MAX: usize = 100_000;

/// Messages of the extension that may be incomplete at one time.
const UNITS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Pending,
    Done,
    /// To be tried again in the next run: the position stays before it.
    Failed,
}

/// The position in a feed whose sequences have an order that only the peer knows: that in which they come.
#[derive(Debug)]
pub(crate) struct ListTracker {
    position: RemoteSequence,
    entries: VecDeque<(RemoteSequence, EntryState)>,
    /// Ticket of the first entry.
    first: u64,
    /// Tickets of revisions that were asked for and have not come.
    expected: HashMap<RemoteSequence, u64>,
    pending: usize,
}

impl ListTracker {
    pub fn new(position: RemoteSequence) -> ListTracker {
        ListTracker { position, entries: VecDeque::new(), first: 0, expected: HashMap::new(), pending: 0 }
    }

    /// An entry of a list: wanted, or done already.
    pub fn add(&mut self, sequence: RemoteSequence, wanted: bool) {
        let ticket = self.first + self.entries.len() as u64;
        if wanted {
            self.pending += 1;
            // The same sequence twice: what comes counts for the later entry, the earlier one is done with it.
            if let Some(earlier) = self.expected.insert(sequence.clone(), ticket) {
                self.set(earlier, EntryState::Done);
            }
        }
        let state = if wanted { EntryState::Pending } else { EntryState::Done };
        self.entries.push_back((sequence, state));
        self.advance();
    }

    /// The ticket of a revision that has come, if it was asked for.
    pub fn arrived(&mut self, sequence: &RemoteSequence) -> Option<u64> {
        self.expected.remove(sequence)
    }

    /// A revision is durable, or need not be had; or it failed and the next run shall try again.
    pub fn settle(&mut self, ticket: u64, done: bool) {
        self.set(ticket, if done { EntryState::Done } else { EntryState::Failed });
        self.advance();
    }

    fn set(&mut self, ticket: u64, state: EntryState) {
        let Some(at) = ticket.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        if let Some(entry) = self.entries.get_mut(at)
            && entry.1 == EntryState::Pending
        {
            self.pending -= 1;
            entry.1 = state;
        }
    }

    fn advance(&mut self) {
        while let Some((_, state)) = self.entries.front() {
            let give_up = *state == EntryState::Failed && self.entries.len() > ENTRIES_MAX;
            if *state != EntryState::Done && !give_up {
                break;
            }
            let Some((sequence, _)) = self.entries.pop_front() else { break };
            self.position = sequence;
            self.first += 1;
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

/// The position in a feed that comes in `revs` messages, each of which covers a range of sequences. They may arrive in
/// any order.
#[derive(Debug)]
pub(crate) struct UnitTracker {
    done: SequenceSet,
    /// As `done`, with what failed for this run.
    settled: SequenceSet,
    units: BTreeMap<u64, Unit>,
    /// Offers that were wanted: which unit they belong to.
    wanted: HashMap<u64, u64>,
    /// Where the peer said its feed ends.
    end: Option<u64>,
    /// How far messages have come.
    announced: u64,
}

#[derive(Debug)]
struct Unit {
    through: u64,
    outstanding: usize,
    failed: bool,
}

impl UnitTracker {
    pub fn new(since: u64) -> UnitTracker {
        UnitTracker {
            done: SequenceSet::up_to(since),
            settled: SequenceSet::up_to(since),
            units: BTreeMap::new(),
            wanted: HashMap::new(),
            end: None,
            announced: since,
        }
    }

    /// A message of the feed has come; `outstanding` of its revisions are not durable yet.
    pub fn begin(
        &mut self,
        from: u64,
        through: u64,
        outstanding: usize,
        last: bool,
    ) -> Result<(), SessionError> {
        if self.units.len() >= UNITS_MAX {
            return Err(SessionError::TooMany {
                what: "open revs messages",
                max: UNITS_MAX,
                actual: UNITS_MAX + 1,
            });
        }
        if self.settled.range_count() >= FEED_RANGES_MAX {
            let (max, actual) = (FEED_RANGES_MAX, FEED_RANGES_MAX + 1);
            return Err(SessionError::TooMany { what: "ranges of a feed", max, actual });
        }
        self.announced = self.announced.max(through);
        if last {
            // An earlier end that comes late says nothing new.
            self.end = self.end.max(Some(through));
        }
        if outstanding == 0 {
            self.complete(from, through, false);
        } else if self.units.insert(from, Unit { through, outstanding, failed: false }).is_some() {
            return Err(SessionError::Malformed { what: "feed position" });
        }
        Ok(())
    }

    /// An offer of this message was answered as wanted.
    pub fn want(&mut self, unit: u64, sequence: u64) {
        if self.wanted.insert(sequence, unit).is_some_and(|earlier| earlier == unit) {
            // Twice in one message: only one of them will come.
            self.settle(unit, true);
        }
    }

    /// The message to which a revision belongs that was asked for.
    pub fn arrived(&mut self, sequence: u64) -> Option<u64> {
        self.wanted.remove(&sequence)
    }

    /// Offers that were wanted and have not come.
    pub fn expected(&self) -> usize {
        self.wanted.len()
    }

    /// One revision of a message is durable, or need not be had; or it failed.
    pub fn settle(&mut self, unit: u64, done: bool) {
        let Some(open) = self.units.get_mut(&unit) else { return };
        open.failed |= !done;
        open.outstanding = open.outstanding.saturating_sub(1);
        if open.outstanding == 0 {
            let (through, failed) = (open.through, open.failed);
            self.units.remove(&unit);
            self.complete(unit, through, failed);
        }
    }

    fn complete(&mut self, from: u64, through: u64, failed: bool) {
        let first = from.saturating_add(1);
        if first > through {
            return;
        }
        self.settled.insert_range(first..=through);
        if !failed {
            self.done.insert_range(first..=through);
        }
    }

    /// The peer has something of ours as this sequence. Forgotten when the feed has holes without number: it will then
    /// be offered once more.
    pub fn peer_has(&mut self, sequence: u64) {
        if self.settled.range_count() >= FEED_RANGES_MAX {
            return;
        }
        self.done.insert(sequence);
        self.settled.insert(sequence);
    }

    /// Whether the feed has come to its end and every message is settled.
    pub fn is_caught_up(&self) -> bool {
        self.end.is_some_and(|end| self.settled.prefix() >= end) && self.units.is_empty()
    }

    /// How far in the feed messages have come, durable or not.
    pub fn announced(&self) -> u64 {
        self.announced
    }

    /// Whether every message that has come is settled.
    pub fn is_settled(&self) -> bool {
        self.units.is_empty()
    }

    /// Everything up to here is durable.
    pub fn position(&self) -> u64 {
        self.done.prefix()
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
            wanted.iter().enumerate().for_each(|(n, want)| tracker.add(number(n), *want));
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
    fn messages_in_any_order_with_a_hole() {
        let mut tracker = UnitTracker::new(10);
        tracker.begin(20, 30, 1, true).expect("new");
        tracker.begin(10, 15, 2, false).expect("new");
        tracker.want(10, 12);
        tracker.settle(20, true);
        assert_eq!((tracker.position(), tracker.is_caught_up()), (10, false));
        tracker.settle(10, true);
        let unit = tracker.arrived(12).expect("wanted");
        tracker.settle(unit, true);
        assert_eq!((tracker.position(), tracker.is_caught_up()), (15, false));
        (16..=20).for_each(|sequence| tracker.peer_has(sequence));
        assert_eq!((tracker.position(), tracker.is_caught_up()), (30, true));
    }
}
