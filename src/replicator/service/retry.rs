//! When the next attempt is due. No clock and no randomness of its own.

use std::time::Duration;

/// Attempts of a one-shot replicator before it gives up, the first included.
pub const ONE_SHOT_ATTEMPTS_MAX: u32 = 10;

/// The longest wait between two attempts.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(300);

/// Part of the wait that is random, in percent: peers that lost the same link should not all come back at once.
const JITTER_PERCENT: u32 = 10;

/// Counts failed attempts and gives the wait before the next: 2 s, 4 s, 8 s ... up to a limit.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    attempts_max: Option<u32>,
    wait_max: Duration,
    failed: u32,
}

impl RetryPolicy {
    /// `attempts_max` counts all attempts since the last success, `None` is without limit.
    pub fn new(attempts_max: Option<u32>, wait_max: Duration) -> RetryPolicy {
        RetryPolicy { attempts_max, wait_max, failed: 0 }
    }

    /// A connection did its work: the count starts again.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// Attempts that failed since the last success.
    pub fn failures(&self) -> u32 {
        self.failed
    }

    /// An attempt failed. Gives the wait before the next, or `None` if there is to be no other.
    /// `random` of any value spreads the wait, never above the limit.
    pub fn failed(&mut self, random: u32) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        if self.attempts_max.is_some_and(|max| self.failed >= max) {
            return None;
        }
        // 2^31 s is above every limit.
        let base = Duration::from_secs(1 << self.failed.min(31)).min(self.wait_max);
        Some(base - base * (random % (JITTER_PERCENT + 1)) / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_the_count_resets() {
        let mut policy = RetryPolicy::new(None, RETRY_WAIT_MAX);
        let waits: Vec<u64> = (0..10).filter_map(|_| policy.failed(0)).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(policy.failures(), 10);
        policy.succeeded();
        assert_eq!(policy.failures(), 0);
        assert_eq!(policy.failed(0), Some(Duration::from_secs(2)));
        assert_eq!(policy.failed, 1);
    }

    #[test]
    fn one_shot_gives_up_and_jitter_stays_small() {
        let mut policy = RetryPolicy::new(Some(ONE_SHOT_ATTEMPTS_MAX), RETRY_WAIT_MAX);
        for n in 1..ONE_SHOT_ATTEMPTS_MAX {
            let whole = Duration::from_secs(1 << n).min(RETRY_WAIT_MAX);
            let wait = policy.failed(n * 7).expect("another attempt");
            assert!(wait <= whole && wait >= whole * 9 / 10, "{wait:?} of {whole:?}");
        }
        assert_eq!(policy.failed(0), None);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut policy = RetryPolicy { attempts_max: None, wait_max: Duration::MAX, failed: u32::MAX - 1 };
        assert!(policy.failed(u32::MAX).is_some() && policy.failed(0).is_some());
    }
}
