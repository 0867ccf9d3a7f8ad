//! How many requests a peer may make that bring nothing: at once, and then in time.
//!
//! Revisions cost the peer a document each, and are limited by the store and by quotas. A question, or a revision that is refused or known,
//! costs it nothing, and this side an answer, and those beside it the processor. Who keeps to the protocol asks a few times for each
//! collection, and once for some hundred documents. Beyond what is allowed the peer's input waits; nothing of it is lost.

#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use super::limits::SessionLimits;
use crate::time::Instant;

/// What a peer has asked for lately: a bucket that empties with time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestRate {
    /// When it will be empty.
    empty_at: Instant,
    /// Whether the request at hand was asked for.
    is_waived: bool,
}

impl RequestRate {
    /// The request at hand was asked for by this side, and does not count.
    pub fn waive(&mut self) {
        self.is_waived = true;
    }

    /// A request was handled; it counts if it was answered at once.
    pub fn handled(&mut self, now: Instant, is_answered: bool, limits: &SessionLimits) {
        let is_waived = std::mem::take(&mut self.is_waived);
        if is_answered && !is_waived {
            self.empty_at = self.empty_at.max(now) + limits.request_interval;
        }
    }

    /// When there is room for the next one; `None` if there is.
    pub fn room_at(&self, now: Instant, limits: &SessionLimits) -> Option<Instant> {
        let all: Duration = limits.request_interval * limits.requests_at_once;
        let excess = self.empty_at.since(now).saturating_sub(all);
        (!excess.is_zero()).then(|| now + excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_come_at_once_and_then_one_in_each_interval() {
        let interval = Duration::from_millis(2);
        let limits =
            SessionLimits { requests_at_once: 3, request_interval: interval, ..SessionLimits::default() };
        let start = Instant::from_micros(5_000_000);
        let mut rate = RequestRate::default();
        let mut now = start;
        for n in 0..3 {
            rate.handled(now, true, &limits);
            assert_eq!(rate.room_at(now, &limits), None, "{n}");
        }
        // What is not answered at once, and what was asked for, counts for nothing.
        for _ in 0..10 {
            rate.handled(now, false, &limits);
            rate.waive();
            rate.handled(now, true, &limits);
            rate.waive();
            rate.handled(now, false, &limits);
        }
        assert_eq!(rate.room_at(now, &limits), None);
        // One more than there may be, and two more than that, as of the same moment.
        for n in 1..=3 {
            rate.handled(now, true, &limits);
            assert_eq!(rate.room_at(now, &limits), Some(start + interval * n));
        }
        now = start + (interval * 3 - Duration::from_micros(1));
        assert_eq!(rate.room_at(now, &limits), Some(start + interval * 3));
        now = start + interval * 3;
        assert_eq!(rate.room_at(now, &limits), None);
        rate.handled(now, true, &limits);
        assert_eq!(rate.room_at(now, &limits), Some(now + interval));
        // After a silence it is as in the beginning, and no more than that.
        now = now + interval * 1_000;
        let mut at_once = 0;
        while rate.room_at(now, &limits).is_none() {
            rate.handled(now, true, &limits);
            at_once += 1;
        }
        assert_eq!(at_once, 4, "the one that is too many is handled too");
    }
}
