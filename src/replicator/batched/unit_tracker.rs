//! What of a feed that comes in `revs` messages is durable here: the position up to which nothing is missing.

use std::collections::{BTreeMap, HashMap};

use crate::replicator::config::FEED_RANGES_MAX;
use crate::replicator::error::SessionError;
use crate::replicator::sequences::SequenceSet;

/// Messages that may be incomplete at one time.
const UNITS_MAX: usize = 10_000;

/// The position in a feed that comes in `revs` messages, each of which covers a range of sequences. They may arrive in
/// any order.
#[derive(Debug)]
pub(super) struct UnitTracker {
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

    #[test]
    fn messages_in_any_order_with_a_hole() {
        let mut tracker = UnitTracker::new(10);
        assert!(tracker.is_settled());
        tracker.begin(20, 30, 1, true).expect("new");
        assert!(!tracker.is_settled());
        tracker.begin(10, 15, 2, false).expect("new");
        tracker.want(10, 12);
        tracker.settle(20, true);
        assert_eq!((tracker.position(), tracker.is_caught_up()), (10, false));
        tracker.settle(10, true);
        let unit = tracker.arrived(12).expect("wanted");
        tracker.settle(unit, true);
        assert_eq!((tracker.position(), tracker.is_caught_up()), (15, false));
        assert!(tracker.is_settled(), "all that has come");
        (16..=20).for_each(|sequence| tracker.peer_has(sequence));
        assert_eq!((tracker.position(), tracker.is_caught_up()), (30, true));
    }

    /// Of one that is wanted twice in a message one comes; wanted by two messages, it comes for the later.
    #[test]
    fn what_is_wanted_twice_comes_once() {
        let mut tracker = UnitTracker::new(10);
        tracker.begin(10, 15, 2, false).expect("new");
        tracker.want(10, 12);
        tracker.want(10, 12);
        assert_eq!((tracker.expected(), tracker.arrived(12)), (1, Some(10)));
        tracker.settle(10, true);
        assert!(tracker.is_settled());
        tracker.begin(15, 20, 1, false).expect("new");
        tracker.begin(20, 25, 1, false).expect("new");
        tracker.want(15, 17);
        tracker.want(20, 17);
        assert_eq!(tracker.arrived(17), Some(20));
        tracker.settle(20, true);
        assert!(!tracker.is_settled(), "the earlier message waits");
    }
}
