//! How long a collection keeps tombstones: a sans-IO core that is given the time and how far the feed is, and says up to which
//! sequence tombstones go.
//!
//! A tombstone goes when every peer that is known has it and it has been here for a day, and in any case after a time that is
//! set. What counts is how long it has been *here*: its own time may be long over when it comes, as in the first sync with an
//! archive. To know that, it is noted now and then how far the feed had come; a tombstone is as old as the first note that covers
//! it.

#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Notes in the time that is set.
const NOTES: u64 = 32;

/// Most notes that are kept: those of the time that is set, and some of a time that was set before.
const NOTES_MAX: usize = 4 * NOTES as usize;

/// How long a tombstone is kept that all peers have: they may hand an older revision to one that is not known yet.
const SETTLED: Duration = Duration::from_secs(24 * 3_600);

/// Between two looks: the wall clock may be set, and peers come.
const LOOK_MAX: Duration = Duration::from_secs(3_600);
/// The shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_secs(1);

/// Form of what is stored.
const FORMAT: u8 = 1;

/// How far the feed of a collection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Nanoseconds since 1970.
    time: u64,
    sequence: u64,
}

/// Keeps the tombstones of one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TombstoneKeeper {
    format: u8,
    /// In order of time and sequence.
    notes: Vec<Note>,
    /// No tombstone is left up to here.
    removed_until: u64,
}

/// What is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// All tombstones after this sequence,
    pub(crate) after: u64,
    /// up to this one.
    pub(crate) until: u64,
}

impl TombstoneKeeper {
    /// As it was stored; a new one if that is none.
    pub(crate) fn from_bytes(bytes: &[u8]) -> TombstoneKeeper {
        let stored: Option<TombstoneKeeper> = postcard::from_bytes(bytes).ok();
        stored.filter(TombstoneKeeper::is_sound).unwrap_or_default()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(&TombstoneKeeper { format: FORMAT, ..self.clone() }).unwrap_or_default()
    }

    fn is_sound(&self) -> bool {
        let is_in_order =
            |pair: &[Note]| pair[0].time <= pair[1].time && pair[0].sequence <= pair[1].sequence;
        self.format == FORMAT && self.notes.len() <= NOTES_MAX && self.notes.windows(2).all(is_in_order)
    }

    /// Notes how far the feed has come, if it is time to; gives whether anything has changed that is to be stored.
    pub(crate) fn note(&mut self, now: u64, last_sequence: u64, limit: Duration) -> bool {
        let before = (self.notes.len(), self.removed_until);
        // The clock was ahead, or the database was put back: what was noted since says nothing.
        self.notes.retain(|note| note.time <= now && note.sequence <= last_sequence);
        self.removed_until = self.removed_until.min(last_sequence);
        let is_due = self.notes.last().is_none_or(|last| now - last.time >= nanoseconds(limit) / NOTES);
        let is_news = self.notes.last().is_none_or(|last| last.sequence < last_sequence);
        if is_due && is_news {
            self.notes.push(Note { time: now, sequence: last_sequence });
        }
        // Of those that are older than the limit the newest says all.
        let over = self.notes.partition_point(|note| is_over(note, now, limit));
        self.notes.drain(..over.saturating_sub(1));
        let too_many = self.notes.len().saturating_sub(NOTES_MAX);
        self.notes.drain(..too_many);
        before != (self.notes.len(), self.removed_until) || (is_due && is_news)
    }

    /// What is to go now; `delivered`: every peer that is known has the feed up to there.
    pub(crate) fn due(&self, now: u64, delivered: u64, limit: Duration) -> Option<Span> {
        let covered = |age: Duration| {
            self.notes.iter().rev().find(|note| is_over(note, now, age)).map_or(0, |note| note.sequence)
        };
        let settled = covered(SETTLED.min(limit)).min(delivered);
        let until = covered(limit).max(settled);
        (until > self.removed_until).then_some(Span { after: self.removed_until, until })
    }

    /// All tombstones up to a sequence were removed.
    pub(crate) fn removed(&mut self, until: u64) {
        self.removed_until = self.removed_until.max(until);
    }

    /// When to look again.
    pub(crate) fn wait(limit: Duration) -> Duration {
        (limit / NOTES as u32).clamp(LOOK_MIN, LOOK_MAX)
    }
}

fn is_over(note: &Note, now: u64, age: Duration) -> bool {
    note.time.saturating_add(nanoseconds(age)) <= now
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600 * 1_000_000_000;
    const DAY: u64 = 24 * HOUR;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        /// Against the time at which each change came: none goes before its time, and each has gone soon after.
        #[test]
        fn each_goes_in_its_time(
            days in 1u64..200,
            steps in prop::collection::vec((0u64..60 * 24, 0u64..9, 0u64..12, any::<bool>()), 1..80),
        ) {
            let limit = Duration::from_nanos(days * DAY);
            let settled = DAY.min(days * DAY);
            let mut keeper = TombstoneKeeper::default();
            let (mut came, mut now, mut delivered, mut removed) = (Vec::new(), 1_000 * DAY, 0u64, 0u64);
            for (hours, new, behind, stores) in steps {
                // What happens is looked at once an hour at least, and each thirty-second of the limit.
                for _ in 0..hours {
                    now += HOUR;
                    keeper.note(now, came.len() as u64, limit);
                    let due = keeper.due(now, delivered, limit);
                    if let Some(Span { after, until }) = due {
                        prop_assert_eq!(after, removed);
                        for sequence in after + 1..=until {
                            let age = now - came[sequence as usize - 1];
                            prop_assert!(age >= days * DAY || (sequence <= delivered && age >= settled));
                        }
                        keeper.removed(until);
                        removed = until;
                    }
                    let slack = days * DAY / NOTES + 2 * HOUR;
                    for sequence in removed + 1..=came.len() as u64 {
                        let age = now - came[sequence as usize - 1];
                        prop_assert!(age <= days * DAY + slack, "{} is {} h old", sequence, age / HOUR);
                        prop_assert!(sequence > delivered || age <= settled + slack, "{}", sequence);
                    }
                }
                came.extend((0..new).map(|_| now));
                delivered = delivered.max((came.len() as u64).saturating_sub(behind));
                if stores {
                    keeper = TombstoneKeeper::from_bytes(&keeper.to_bytes());
                }
                prop_assert!(keeper.notes.len() <= NOTES_MAX);
            }
        }
    }

    #[test]
    fn what_was_noted_by_a_wrong_clock_or_of_another_past_counts_no_more() {
        let (limit, start) = (Duration::from_nanos(32 * DAY), 1_000 * DAY);
        let mut keeper = TombstoneKeeper::default();
        assert!(keeper.note(start, 10, limit));
        assert!(!keeper.note(start + HOUR, 20, limit), "it is too early");
        assert!(keeper.note(start + 900 * DAY, 30, limit), "the clock is ahead");
        assert!(keeper.note(start + 2 * DAY, 40, limit));
        let span = |until| Some(Span { after: 0, until });
        assert_eq!(keeper.due(start + 33 * DAY, 0, limit), span(10));
        assert_eq!(keeper.due(start + 34 * DAY, 0, limit), span(40));
        // It was put back to the twentieth change.
        assert!(keeper.note(start + 3 * DAY, 20, limit));
        assert_eq!(keeper.due(start + 33 * DAY, 0, limit), span(10));
        assert_eq!(keeper.due(start + 34 * DAY, 0, limit), span(10));
        assert_eq!(keeper.due(start + 35 * DAY, 0, limit), span(20));
        for garbage in [&b""[..], b"\x02\x00\x00", b"garbage"] {
            assert_eq!(TombstoneKeeper::from_bytes(garbage), TombstoneKeeper::default());
        }
    }
}
