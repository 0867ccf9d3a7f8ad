//! The hybrid logical clock that versions are made of.
//!
//! A time is wall-clock nanoseconds since 1970 with a counter in the low 16 bits. It never repeats and never goes back:
//! not when the wall clock does, not across restarts. It is ahead of the wall clock only as far as it has to be for that,
//! and follows nobody else's: a stock peer refuses versions two minutes ahead, and what is ahead wins conflicts it should lose.
//!
//! Each commit stores the newest time it uses in the same batch, so what is found at open is the newest time that the
//! medium knows of. A time beyond it was lost with its commit, and may be given out again: nobody has heard of it, since
//! peers and backups are shown only what is on the medium.

/// The low bits that count instead of measuring.
const COUNTER_MASK: u64 = 0xffff;

/// How far ahead of the wall clock, in nanoseconds, a version counts as one of a clock that is wrong: one day.
pub const AHEAD_MAX: u64 = 24 * 3600 * 1_000_000_000;

/// Times of others beyond this one (the year 2100) are not believed: an edit on top of one is not above it.
const FOLLOWED_MAX: u64 = 4_102_444_800_000_000_000;

/// The clock of one database. The wall clock is passed in.
#[derive(Clone, Debug)]
pub(crate) struct HybridClock {
    last: u64,
    /// The newest time that is stored, or handed over to be.
    stored: u64,
}

impl HybridClock {
    /// Continues above the newest time that is stored.
    pub(crate) fn resume(stored: u64) -> HybridClock {
        HybridClock { last: stored, stored }
    }

    /// The next time for a version, above all before; `wall` is nanoseconds since 1970.
    pub(crate) fn next(&mut self, wall: u64) -> u64 {
        self.last = (wall & !COUNTER_MASK).max(self.last.saturating_add(1));
        self.last
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
    /// made then for newer. Unless the time is so far ahead that the clock would be wrong for long.
    pub(crate) fn forget(&mut self, own: u64, wall: u64) {
        if !is_ahead(own, wall) {
            self.last = self.last.max(own);
        }
    }

    /// Whether a time of our own making can have come from this database: not beyond [`AHEAD_MAX`] unless it gave it out.
    pub(crate) fn is_plausible_own(&self, time: u64, wall: u64) -> bool {
        time <= self.last || !is_ahead(time, wall)
    }

    /// The newest time, to be stored with the commit that uses it; `None` if it is already.
    pub(crate) fn take_unstored(&mut self) -> Option<u64> {
        let is_newer = self.last > self.stored;
        self.stored = self.last;
        is_newer.then_some(self.last)
    }
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
            let mut clock = HybridClock::resume(0);
            // What the medium has, and what peers and the next process know of.
            let mut durable = 0;
            for (wall, versions, lost, restart) in steps {
                let mut newest = clock.last;
                for _ in 0..versions {
                    let time = clock.next(wall);
                    prop_assert!(time > newest);
                    prop_assert!(time <= wall.max(newest + 1), "{time} is ahead of {wall} without need");
                    newest = time;
                }
                let stored = clock.take_unstored();
                prop_assert_eq!(stored, Some(newest));
                if !(lost && restart) {
                    durable = newest;
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
        let mut clock = HybridClock::resume(0);
        let first = clock.next_on_top(wall, None, Some(ahead));
        assert_eq!(first, ahead + 1);
        assert_eq!(clock.next_on_top(wall, Some(first), Some(ahead)), first + 1);
        assert!(clock.next_on_top(wall, None, Some(u64::MAX)) < ahead, "beyond all reason");
        assert!(clock.next(wall) < ahead, "other documents do not follow");
    }

    #[test]
    fn what_is_forgotten_is_not_given_out_again() {
        let wall = 1_700_000_000_000_000_000;
        let mut clock = HybridClock::resume(0);
        clock.forget(wall + AHEAD_MAX, wall);
        assert_eq!(clock.next(wall), wall + AHEAD_MAX + 1);
        clock.forget(wall + 2 * AHEAD_MAX, wall);
        assert_eq!(clock.next(wall), wall + AHEAD_MAX + 2, "too far ahead");
        assert_eq!(clock.take_unstored(), Some(wall + AHEAD_MAX + 2));
        assert_eq!(clock.take_unstored(), None);
    }

    /// Without a battery a device starts in 1970. Its versions follow each other all the same, and catch up with the wall
    /// clock once that is set.
    #[test]
    fn works_without_the_time_of_day() {
        let peers = 1_800_000_000_000_000_000;
        let mut clock = HybridClock::resume(0);
        assert!(is_ahead(peers, 5_000_000_000));
        let first = clock.next(5_000_000_000);
        assert!(first < AHEAD_MAX);
        let second = clock.next(0);
        assert!(second > first);
        assert!(clock.next(peers) >= peers & !COUNTER_MASK);
    }
}
