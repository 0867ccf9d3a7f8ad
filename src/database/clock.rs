//! The hybrid logical clock that versions are made of.
//!
//! A time is wall-clock nanoseconds since 1970 with a counter in the low 16 bits. It never repeats and never goes back:
//! not when the wall clock does, not across restarts (see [`RESERVE`]), not after a version from another author was seen.

/// The low bits that count instead of measuring.
const COUNTER_MASK: u64 = 0xffff;

/// How far ahead of the wall clock, in nanoseconds, versions of others may pull this clock: one day. A peer whose clock
/// runs further ahead still replicates, but it cannot make this database write times of the far future.
pub const AHEAD_MAX: u64 = 24 * 3600 * 1_000_000_000;

/// Times of others beyond this one (the year 2100) are not believed, and never followed.
const FOLLOWED_MAX: u64 = 4_102_444_800_000_000_000;

/// The store keeps a limit no time was given out beyond; it moves in steps of this many nanoseconds (1 s), so that a
/// restart continues above everything ever given out while most commits need not store the clock.
pub const RESERVE: u64 = 1_000_000_000;

/// The clock of one database. The wall clock is passed in.
#[derive(Clone, Debug)]
pub(crate) struct HybridClock {
    last: u64,
    /// Every time at or below this may have been given out by an earlier run.
    reserved: u64,
}

impl HybridClock {
    /// Continues above `reserved`, the stored limit of the last run.
    pub(crate) fn resume(reserved: u64) -> HybridClock {
        HybridClock { last: reserved, reserved }
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

    /// Notes a time that another author gave out, so that later local ones are above it, within [`AHEAD_MAX`]. `false` if
    /// it is beyond that and this clock did not follow.
    pub(crate) fn observe(&mut self, time: u64, wall: u64) -> bool {
        if time <= self.last {
            return true;
        }
        let is_near = time <= wall.saturating_add(AHEAD_MAX);
        if is_near {
            self.last = time;
        }
        is_near
    }

    /// Whether a time of our own making can have come from this database: not beyond [`AHEAD_MAX`] unless it gave it out.
    pub(crate) fn is_plausible_own(&self, time: u64, wall: u64) -> bool {
        time <= self.last || time <= wall.saturating_add(AHEAD_MAX)
    }

    /// If times beyond the stored limit were given out: the new limit to store with the commit that uses them.
    pub(crate) fn reserve(&mut self) -> Option<u64> {
        if self.last <= self.reserved {
            return None;
        }
        self.reserved = self.last.saturating_add(RESERVE);
        Some(self.reserved)
    }
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
        #[test]
        fn never_repeats_or_goes_back(steps in prop::collection::vec((0u64..1u64 << 62, 0u64..1 << 62, any::<bool>()), 1..200)) {
            let mut clock = HybridClock::resume(0);
            let (mut last, mut stored) = (0, 0);
            for (wall, seen, restart) in steps {
                clock.observe(seen, wall);
                let time = clock.next(wall);
                prop_assert!(time > last);
                last = time;
                if let Some(limit) = clock.reserve() {
                    stored = limit;
                }
                prop_assert!(stored >= last, "a time beyond the stored limit");
                if restart {
                    clock = HybridClock::resume(stored);
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
    fn a_far_future_version_does_not_drag() {
        let wall = 1_700_000_000_000_000_000;
        let mut clock = HybridClock::resume(0);
        assert!(!clock.observe(wall + AHEAD_MAX + 1, wall));
        assert!(clock.next(wall) <= wall);
        assert!(clock.observe(wall + AHEAD_MAX, wall));
        assert_eq!(clock.next(wall), wall + AHEAD_MAX + 1);
    }

    /// Without a battery a device starts in 1970. Its versions follow each other all the same, and catch up with the wall
    /// clock once that is set.
    #[test]
    fn works_without_the_time_of_day() {
        let peers = 1_800_000_000_000_000_000;
        let mut clock = HybridClock::resume(0);
        assert!(!clock.observe(peers, 5_000_000_000));
        let first = clock.next(5_000_000_000);
        assert!(first < AHEAD_MAX);
        let second = clock.next(0);
        assert!(second > first);
        assert!(clock.next(peers) >= peers & !COUNTER_MASK);
    }
}
