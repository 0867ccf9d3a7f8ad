//! A neighbour, as the plan knows it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::replicator::RetryPolicy;
use crate::time::Instant;

/// What there is to do with a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum News {
    /// So many changes, of both sides.
    Pending(u32),
    /// The same, and the neighbour says that they are urgent.
    Urgent(u32),
    /// There is nothing to do.
    None,
    /// Its advert cannot be read.
    Unknown,
}

impl News {
    /// Whether there is something to do for sure.
    pub(super) fn is_pending(self) -> bool {
        matches!(self, News::Pending(_) | News::Urgent(_))
    }
}

/// A neighbour that was not heard for so long is gone.
pub(in crate::node) const GONE_AFTER: Duration = Duration::from_secs(60);
/// A neighbour is visited only by a radio that has heard it this recently.
pub(super) const FRESH: Duration = Duration::from_secs(15);
/// How long after it was heard first a neighbour may be one that passes by.
const NEWCOMER: Duration = Duration::from_secs(60);
/// Who was not heard for so long comes anew.
const RETURN: Duration = Duration::from_secs(600);
/// Pause between two visits of a neighbour whose advert cannot be read, while this database has nothing new.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(60);
/// How much younger a neighbour's wait counts for each failure since it was reached last, and the failures that count.
const FAILURE_HANDICAP: Duration = Duration::from_secs(30);
const FAILURES_MAX: u32 = 20;
/// The most that what is pending counts: a second for each doubling.
const PENDING_BONUS_MAX: Duration = Duration::from_secs(10);
/// What is urgent counts as having waited so much longer; no more, or whoever cries loudest would come first for ever.
const URGENT_BONUS: Duration = Duration::from_secs(30);
/// Longest pause before a neighbour that fails is tried again.
pub(in crate::node) const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) struct Known {
    /// When each radio that has heard it heard it last.
    by: BTreeMap<usize, Instant>,
    /// When any did.
    pub(super) heard: Instant,
    pub(super) first_heard: Instant,
    pub(super) news: News,
    /// Since when there has been something to do with it.
    pub(super) since: Instant,
    /// When its last visit ended, and this database's count of changes before, if all went over.
    pub(super) visited: Option<(Instant, Option<u64>)>,
    pub(super) retry: RetryPolicy,
    pub(super) not_before: Instant,
}

impl Known {
    /// One that is heard for the first time.
    pub(super) fn new(now: Instant, news: News) -> Known {
        Known {
            by: BTreeMap::new(),
            heard: now,
            first_heard: now,
            news,
            since: now,
            visited: None,
            retry: RetryPolicy::new(None, RETRY_WAIT_MAX),
            not_before: now,
        }
    }

    /// It was heard by this radio.
    pub(super) fn hear(&mut self, now: Instant, radio: usize, news: News) {
        if now.since(self.heard) >= RETURN {
            self.first_heard = now;
        }
        self.was_there(now, radio);
        self.set_news(now, news);
    }

    /// It was heard by this radio, or connected through it until now.
    pub(super) fn was_there(&mut self, now: Instant, radio: usize) {
        self.by.insert(radio, now);
        self.heard = now;
    }

    /// Whether this radio may visit it: it must have heard it itself.
    pub(super) fn is_heard_by(&self, now: Instant, radio: usize) -> bool {
        self.by.get(&radio).is_some_and(|at| now.since(*at) < FRESH)
    }

    /// Since when it counts as waiting: later for each failure, earlier for much that is pending and for what is urgent.
    pub(super) fn rank(&self) -> Instant {
        let (changes, urgent) = match self.news {
            News::Urgent(changes) => (changes, URGENT_BONUS),
            News::Pending(changes) => (changes, Duration::ZERO),
            News::None | News::Unknown => (0, Duration::ZERO),
        };
        let bonus = Duration::from_secs(changes.checked_ilog2().unwrap_or(0).into()).min(PENDING_BONUS_MAX);
        self.since
            + FAILURE_HANDICAP * self.retry.failures().min(FAILURES_MAX)
            + (PENDING_BONUS_MAX + URGENT_BONUS).saturating_sub(bonus + urgent)
    }

    pub(super) fn set_news(&mut self, now: Instant, news: News) {
        if !self.news.is_pending() && news.is_pending() {
            self.since = now;
        }
        self.news = news;
    }

    pub(super) fn is_near(&self, now: Instant) -> bool {
        now.since(self.heard) < GONE_AFTER
    }

    /// Whether it may be passing by.
    pub(super) fn is_newcomer(&self, now: Instant) -> bool {
        let met = self.visited.is_some_and(|(at, _)| at >= self.first_heard);
        !met && now.since(self.first_heard) < NEWCOMER
    }

    pub(super) fn wants(&self, now: Instant, own: u64) -> bool {
        match self.news {
            News::Pending(_) | News::Urgent(_) => true,
            News::None => false,
            News::Unknown => match self.visited {
                Some((at, before)) => before != Some(own) || now.since(at) >= UNREADABLE_PAUSE,
                None => true,
            },
        }
    }
}
