//! What a user can say of adverts, and what cannot be.

use std::time::Duration;

/// Shortest advertising interval of a connectable advert. Source: Core Specification 5.4, Vol 4, Part E, 7.8.5.
const INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Longest interval of a legacy advert; a central that looks for 15 s hears one at least. Source: the same.
const INTERVAL_MAX: Duration = Duration::from_millis(10_240);

/// Longest time of any other number: a year.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// When a device advertises, and how fast: often for a moment when there is something new, else seldom, or not at all. Make the
/// default and change what differs; it is never silent.
///
/// On BlueZ of 5.66 and thereabouts intervals are the daemon's unless it runs with `--experimental` (`firmware-notes/bluez.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdvertPolicy {
    /// Interval while something is new; 100 ms unless changed.
    pub fast_interval: Duration,
    /// How long it is fast at most; 30 s unless changed. It ends sooner when a peer has fetched all.
    pub fast_for: Duration,
    /// How long it is not fast after that, whatever else is new; 5 min unless changed. What becomes urgent does not wait for it, and is
    /// told fast again after each such rest until a peer has fetched it.
    pub fast_rest: Duration,
    /// Interval otherwise; 1 s unless changed, 10.24 s at most.
    pub slow_interval: Duration,
    /// After how long with nothing pending it is silent; never unless set. A silent device is not found, and peers cannot bring anything.
    pub silent_after: Option<Duration>,
    /// How long it is silent at most; 10 min unless changed. Then it is slow for `silent_after` again, for those who have something for it.
    pub silent_for: Duration,
    /// From how many pending changes on the advert says that it is urgent; never unless set.
    pub urgent_changes: Option<u64>,
    /// Collections, by full names, of which any pending change is urgent; none unless set.
    pub urgent_collections: Vec<String>,
    /// Shortest time between two changes of what is advertised; 1 s unless changed. Each costs a moment without an advert.
    pub change_gap: Duration,
}

impl Default for AdvertPolicy {
    fn default() -> AdvertPolicy {
        AdvertPolicy {
            fast_interval: Duration::from_millis(100),
            fast_for: Duration::from_secs(30),
            fast_rest: Duration::from_secs(300),
            slow_interval: Duration::from_secs(1),
            silent_after: None,
            silent_for: Duration::from_secs(600),
            urgent_changes: None,
            urgent_collections: Vec::new(),
            change_gap: Duration::from_secs(1),
        }
    }
}

/// Why a policy cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertPolicyError {
    /// An interval that Bluetooth does not have.
    #[error("an advertising interval of {actual:?}: it must be 20 ms to 10.24 s")]
    Interval {
        /// What was given.
        actual: Duration,
    },
    /// The fast interval is longer than the slow one.
    #[error("the fast interval of {fast:?} is longer than the slow one of {slow:?}: swap them")]
    FastIsSlower {
        /// The fast one.
        fast: Duration,
        /// The slow one.
        slow: Duration,
    },
    /// The shortest time between two changes must fit into each phase.
    #[error("adverts change each {gap:?} at most, so no phase can last {actual:?}: make it longer")]
    PhaseTooShort {
        /// The phase that was given.
        actual: Duration,
        /// The shortest time between two changes.
        gap: Duration,
    },
    /// A time that is none: zero between two changes, or more than a year.
    #[error("a time of {actual:?}: it must be more than zero and at most 366 days")]
    Time {
        /// What was given.
        actual: Duration,
    },
}

impl AdvertPolicy {
    /// Whether it can be followed.
    ///
    /// # Errors
    /// [`AdvertPolicyError`] says what is wrong, and what would be right.
    pub fn check(&self) -> Result<(), AdvertPolicyError> {
        let gap = self.change_gap;
        for actual in [self.fast_interval, self.slow_interval] {
            if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&actual) {
                return Err(AdvertPolicyError::Interval { actual });
            }
        }
        if self.fast_interval > self.slow_interval {
            let (fast, slow) = (self.fast_interval, self.slow_interval);
            return Err(AdvertPolicyError::FastIsSlower { fast, slow });
        }
        let phases = [Some(self.fast_for), self.silent_after, Some(self.silent_for)];
        for actual in phases.into_iter().flatten() {
            if actual < gap {
                return Err(AdvertPolicyError::PhaseTooShort { actual, gap });
            }
        }
        let mut times = phases.into_iter().flatten().chain([gap, self.fast_rest]);
        let wrong = if gap.is_zero() { Some(gap) } else { times.find(|actual| *actual > TIME_MAX) };
        match wrong {
            Some(actual) => Err(AdvertPolicyError::Time { actual }),
            None => Ok(()),
        }
    }

    /// Whether so many pending changes are urgent, of which `of_urgent` are in collections that always are.
    #[cfg(any(feature = "bluetooth", test))]
    pub(crate) fn is_urgent(&self, pending: u64, of_urgent: u64) -> bool {
        of_urgent > 0 || (pending > 0 && self.urgent_changes.is_some_and(|limit| pending >= limit))
    }
}
