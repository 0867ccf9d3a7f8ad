//! The hybrid logical clock that versions are made of.
//!
//! A time is wall-clock nanoseconds since 1970 with a counter in the low 16 bits. It never repeats and never goes back:
//! not when the wall clock does, not across restarts. It is ahead of the wall clock only as far as it has to be for that,
//! and follows nobody else's: a stock peer refuses versions two minutes ahead, and what is ahead wins conflicts it should lose.
//!
//! There is one exception, so that a wall clock that was wrong once does no harm for years: where the clock is more than
//! [`AHEAD_MAX`] ahead of a wall clock that can be right ([`is_plausible`]), it goes back to that. This is safe because a version
//! names a revision of one document: an edit is above all that its document has had of ours, whatever the clock says, and a
//! new document, which may have been there and be gone, is above all that was purged.
//!
//! Each commit stores the newest time it uses in the same batch, so what is found at open is the newest time that the
//! medium knows of. A time beyond it was lost with its commit, and may be given out again: nobody has heard of it, since
//! peers and backups are shown only what is on stable storage.

/// The low bits that count instead of measuring.
const COUNTER_MASK: u64 = 0xffff;

/// How far ahead of the wall clock, in nanoseconds, a version counts as one of a clock that is wrong: one day.
pub const AHEAD_MAX: u64 = 24 * 3600 * 1_000_000_000;

/// A wall clock before this (2026) was not set: it stands where a device without a battery, or the system's installation,
/// left it. Moves with the releases.
const PLAUSIBLE_MIN: u64 = 1_767_225_600_000_000_000;

/// Times of others beyond this one (the year 2100) are not believed: an edit on top of one is not above it.
const FOLLOWED_MAX: u64 = 4_102_444_800_000_000_000;

/// The clock of one database. The wall clock is passed in.
#[derive(Clone, Debug)]
pub(crate) struct HybridClock {
    last: u64,
    /// The newest time of those that the clock has given up because they were far ahead.
    given_up: u64,
    /// The newest time of documents that are gone.
    purged: u64,
    /// What is stored, or handed over to be.
    stored: ClockState,
}

/// What is stored of a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClockState {
    pub(crate) last: u64,
    pub(crate) given_up: u64,
    pub(crate) purged: u64,
}

impl ClockState {
    /// The stored bytes. The newest time comes first: earlier releases know no more.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        postcard::to_stdvec(&(self.last, self.given_up, self.purged)).unwrap_or_default()
    }

    /// Of stored bytes; `None` if they are no clock.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<ClockState> {
        let (last, rest) = postcard::take_from_bytes(bytes).ok()?;
        let (given_up, purged) = match rest {
            [] => (0, 0),
            rest => postcard::from_bytes(rest).ok()?,
        };
        Some(ClockState { last, given_up, purged })
    }
}

impl HybridClock {
    /// Continues above the newest time that is stored.
    pub(crate) fn resume(stored: ClockState) -> HybridClock {
        let ClockState { last, given_up, purged } = stored;
        HybridClock { last, given_up, purged, stored }
    }

    /// The next time for a version, above all before but those given up; `wall` is nanoseconds since 1970.
    pub(crate) fn next(&mut self, wall: u64) -> u64 {
        if is_plausible(wall) && is_ahead(self.last, wall) {
            self.given_up = self.given_up.max(self.last);
            self.last = 0;
        }
        self.last = (wall & !COUNTER_MASK).max(self.last.saturating_add(1));
        self.last
    }

    /// The next time for a document that there is not. `purged` is its own newest time, if that is known.
    pub(crate) fn next_first(&mut self, wall: u64, purged: Option<u64>) -> u64 {
        let purged = purged.max(Some(self.purged));
        self.next_on_top(wall, purged, None)
    }

    /// How far it is ahead of the wall clock for new documents, nanoseconds.
    pub(crate) fn ahead(&self, wall: u64) -> u64 {
        let last = if is_plausible(wall) && is_ahead(self.last, wall) { 0 } else { self.last };
        last.max(self.purged).saturating_sub(wall)
    }

    /// Whether a time may be one that it gave out.
    pub(crate) fn has_given(&self, time: u64) -> bool {
        time <= self.last.max(self.given_up).max(self.purged)
    }

    /// The next time for a version on top of one whose author's times are given: `own` by this database, `others` by
    /// others, the newest of each. It is above them even where a wall clock is set years ahead or back, because the
    /// resolver goes by times: a revision must never lose against what its ancestor has won against. The clock itself
    /// does not follow.
    pub(crate) fn next_on_top(&mut self, wall: u64, own: Option<u64>, others: Option<u64>) -> u64 {
        let followed = others.filter(|time| *time <= FOLLOWED_MAX).max(own);
        self.next(wall).max(followed.map_or(0, |time| time.saturating_add(1)))
    }

    /// A document with this time of our own is forgotten, and may be made anew: peers that still have it must take what is
    /// made then for newer. `false` if the time is so far ahead that new documents would be wrong for long: it is to be
    /// remembered of this document alone.
    pub(crate) fn forget(&mut self, own: u64, wall: u64) -> bool {
        let is_near = !is_ahead(own, wall);
        if is_near {
            self.purged = self.purged.max(own);
        }
        is_near
    }

    /// Documents are forgotten, none of which has a time of ours beyond this one.
    pub(crate) fn forget_any(&mut self, newest: u64) {
        self.purged = self.purged.max(newest);
    }

    /// Where it stands, to be stored with the commit that uses it; `None` if it is already.
    pub(crate) fn take_unstored(&mut self) -> Option<ClockState> {
        let HybridClock { last, given_up, purged, stored } = *self;
        self.stored = ClockState { last, given_up, purged };
        (self.stored != stored).then_some(self.stored)
    }
}

/// Whether a wall clock can be right: whether it was ever set.
pub(crate) fn is_plausible(wall: u64) -> bool {
    wall >= PLAUSIBLE_MIN
}

/// Whether a version's time is so far ahead that somebody's clock is wrong.
pub(crate) fn is_ahead(time: u64, wall: u64) -> bool {
    time > wall.saturating_add(AHEAD_MAX)
}

/// Wall clock in nanoseconds since 1970; 0 if it is set before that.
pub(crate) fn wall_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the wall clock does, whenever the process dies, and whatever of the last commits that takes along.
        #[test]
        fn never_repeats_and_is_ahead_only_as_far_as_it_must(
            steps in prop::collection::vec((0u64..1u64 << 62, 1usize..4, any::<bool>(), any::<bool>()), 1..200)
        ) {
            let mut clock = HybridClock::resume(ClockState::default());
            // Not a wall clock that can be right: to such a one it goes back.
            let steps = steps.into_iter().map(|(wall, a, b, c)| (wall % PLAUSIBLE_MIN, a, b, c));
            // What stable storage has, and what peers and the next process know of.
            let mut durable = ClockState::default();
            for (wall, versions, lost, restart) in steps {
                let mut newest = clock.last;
                for _ in 0..versions {
                    let time = clock.next(wall);
                    prop_assert!(time > newest);
                    prop_assert!(time <= wall.max(newest + 1), "{time} is ahead of {wall} without need");
                    newest = time;
                }
                let stored = clock.take_unstored();
                prop_assert_eq!(stored.map(|stored| stored.last), Some(newest));
                let stored = stored.unwrap_or_default();
                prop_assert_eq!(ClockState::from_bytes(&stored.to_bytes()), Some(stored));
                if !(lost && restart) {
                    durable = stored;
                }
                if restart {
                    clock = HybridClock::resume(durable);
                }
            }
        }
    }

    #[test]
    fn a_version_is_above_those_it_goes_on_top_of() {
        let wall = 1_700_000_000_000_000_000;
        let ahead = wall + 500 * AHEAD_MAX;
        let mut clock = HybridClock::resume(ClockState::default());
        let first = clock.next_on_top(wall, None, Some(ahead));
        assert_eq!(first, ahead + 1);
        assert_eq!(clock.next_on_top(wall, Some(first), Some(ahead)), first + 1);
        assert!(clock.next_on_top(wall, None, Some(u64::MAX)) < ahead, "beyond all reason");
        assert!(clock.next(wall) < ahead, "other documents do not follow");
    }

    #[test]
    fn what_is_forgotten_is_not_given_out_again() {
        let wall = 1_700_000_000_000_000_000;
        let mut clock = HybridClock::resume(ClockState::default());
        assert!(clock.forget(wall + AHEAD_MAX, wall) && !clock.forget(wall + 2 * AHEAD_MAX, wall));
        let mut clock = HybridClock::resume(clock.take_unstored().expect("new"));
        assert_eq!(clock.next_first(wall, None), wall + AHEAD_MAX + 1);
        assert_eq!(clock.next_first(wall, Some(wall + 2 * AHEAD_MAX)), wall + 2 * AHEAD_MAX + 1);
        assert!(clock.next(wall) <= wall + 2, "what is there does not follow");
        assert_eq!(clock.take_unstored().map(|stored| stored.purged), Some(wall + AHEAD_MAX));
        assert_eq!(clock.take_unstored(), None);
    }

    /// The wall clock was in 2039 for a while: what was given out there is not forgotten, and the clock does not stay.
    #[test]
    fn comes_back_from_a_wall_clock_that_was_wrong() {
        let (today, in_2039) = (PLAUSIBLE_MIN + 300 * AHEAD_MAX, PLAUSIBLE_MIN + 5_000 * AHEAD_MAX);
        let mut clock = HybridClock::resume(ClockState::default());
        clock.next(today);
        assert_eq!(clock.next(in_2039), in_2039 & !COUNTER_MASK);
        let mut clock = HybridClock::resume(clock.take_unstored().expect("new"));
        // A wall clock that was not set yet is no reason to believe it.
        assert_eq!(clock.next(5), (in_2039 & !COUNTER_MASK) + 1);
        assert!(clock.next(today) <= today && clock.ahead(today) == 0);
        let mut clock = HybridClock::resume(clock.take_unstored().expect("new"));
        assert!(
            clock.next(today + AHEAD_MAX) <= today + AHEAD_MAX && clock.has_given(in_2039 & !COUNTER_MASK)
        );
        // On top of what it gave out there it stays above.
        assert_eq!(clock.next_on_top(today, Some(in_2039), None), in_2039 + 1);
        // What was purged there keeps new documents there, since it cannot be told which of them they are.
        assert!(clock.forget(in_2039, in_2039));
        assert_eq!(clock.next_first(today, None), in_2039 + 1);
        assert!(clock.next(today + 2 * AHEAD_MAX) <= today + 2 * AHEAD_MAX && clock.ahead(today) > AHEAD_MAX);
        // An earlier release stored one number.
        let old = postcard::to_stdvec(&in_2039).expect("bytes");
        assert_eq!(ClockState::from_bytes(&old), Some(ClockState { last: in_2039, ..ClockState::default() }));
    }

    /// Without a battery a device starts in 1970. Its versions follow each other all the same, and catch up with the wall
    /// clock once that is set.
    #[test]
    fn works_without_the_time_of_day() {
        let peers = 1_800_000_000_000_000_000;
        let mut clock = HybridClock::resume(ClockState::default());
        assert!(is_ahead(peers, 5_000_000_000));
        let first = clock.next(5_000_000_000);
        assert!(first < AHEAD_MAX);
        let second = clock.next(0);
        assert!(second > first);
        assert!(clock.next(peers) >= peers & !COUNTER_MASK);
    }
}
