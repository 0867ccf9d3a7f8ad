//! The state machine behind a policy. It is given the time and what is pending, and says what to advertise and when to ask again.
//!
//! ```text
//!            something new, and rested            time is over, or all was fetched
//!  slow ------------------------------------> fast ---------------------------------> slow
//!  slow -- nothing pending for silent_after --> silent -- silent_for, or something pending --> slow or fast
//! ```

#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use super::AdvertPolicy;
#[cfg(feature = "bluetooth")]
use crate::secure::advert::Urgency;
use crate::time::Instant;

/// How often to advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Fast,
    Slow,
    Silent,
}

/// What an advert says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The counter of changes, of which each reader knows its own mark.
    pub(crate) change: u32,
    /// Changes that no peer is known to have.
    pub(crate) pending: u64,
    /// Whether the policy calls them urgent.
    pub(crate) is_urgent: bool,
}

#[cfg(feature = "bluetooth")]
impl Summary {
    /// As adverts tell it.
    pub(crate) fn urgency(&self) -> Urgency {
        match (self.pending, self.is_urgent) {
            (0, _) => Urgency::None,
            (_, false) => Urgency::Pending,
            (_, true) => Urgency::Urgent,
        }
    }
}

/// What to advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advert {
    pub(crate) pace: Pace,
    pub(crate) summary: Summary,
}

/// What is new and has not been told fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    None,
    Routine,
    /// It has become urgent, and waits for no rest.
    Urgent,
}

/// Follows a policy.
#[derive(Clone, Debug)]
pub(crate) struct Advertiser {
    policy: AdvertPolicy,
    /// What is true now.
    summary: Summary,
    news: News,
    /// Whether somebody has a session, and looks for this device where it has lost the connection.
    has_sessions: bool,
    /// Since when nothing has been pending and nobody has had a session, if so.
    quiet_since: Option<Instant>,
    fast_until: Option<Instant>,
    rest_until: Instant,
    /// What is advertised, and since when.
    advert: Advert,
    since: Instant,
}

#[cfg(feature = "bluetooth")]
impl Pace {
    /// One word for people and scripts.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Pace::Fast => "fast",
            Pace::Slow => "slow",
            Pace::Silent => "silent",
        }
    }
}

impl Advertiser {
    /// Begins with what is pending, fast if something is. The policy must have passed its check.
    pub(crate) fn new(policy: AdvertPolicy, now: Instant, summary: Summary) -> Advertiser {
        let mut advertiser = Advertiser {
            policy,
            summary: Summary::default(),
            news: News::None,
            has_sessions: false,
            quiet_since: Some(now),
            fast_until: None,
            rest_until: now,
            advert: Advert { pace: Pace::Slow, summary },
            since: now,
        };
        advertiser.handle_summary(now, summary);
        advertiser.begin_fast(now);
        advertiser.advert.pace = advertiser.pace(now);
        advertiser
    }

    /// What it follows.
    #[cfg(feature = "bluetooth")]
    pub(crate) fn policy(&self) -> &AdvertPolicy {
        &self.policy
    }

    /// What is advertised from the last [`poll`](Self::poll) on that gave something.
    pub(crate) fn advert(&self) -> Advert {
        self.advert
    }

    /// The interval of a pace; `None`: silent.
    pub(crate) fn interval(&self, pace: Pace) -> Option<Duration> {
        match pace {
            Pace::Fast => Some(self.policy.fast_interval),
            Pace::Slow => Some(self.policy.slow_interval),
            Pace::Silent => None,
        }
    }

    /// Something was changed here, or a peer has fetched something. Nothing is advertised before the next `poll`.
    pub(crate) fn handle_summary(&mut self, now: Instant, summary: Summary) {
        let before = std::mem::replace(&mut self.summary, summary);
        self.note_quiet(now);
        if summary.pending == 0 {
            self.news = News::None;
        } else if summary.is_urgent && !before.is_urgent {
            self.news = News::Urgent;
        } else if summary.change != before.change && self.news == News::None {
            self.news = News::Routine;
        }
    }

    /// Whether there are sessions: with one it is never silent.
    #[cfg(any(feature = "bluetooth", test))]
    pub(crate) fn handle_sessions(&mut self, now: Instant, any: bool) {
        self.has_sessions = any;
        self.note_quiet(now);
    }

    fn note_quiet(&mut self, now: Instant) {
        let is_quiet = self.summary.pending == 0 && !self.has_sessions;
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(now));
    }

    /// What to advertise from now on, if it is something else.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Advert> {
        if now < self.since + self.policy.change_gap {
            return None;
        }
        if !self.end_fast(now) {
            self.begin_fast(now);
        }
        let advert = Advert { pace: self.pace(now), summary: self.summary };
        if advert == self.advert {
            return None;
        }
        (self.advert, self.since) = (advert, now);
        Some(advert)
    }

    /// When to ask again, unless something happens before; never at `now`, if it was asked then.
    pub(crate) fn poll_at(&self, now: Instant) -> Option<Instant> {
        let earliest = self.since + self.policy.change_gap;
        let is_stale = self.advert != Advert { pace: self.pace(now), summary: self.summary };
        let due = if is_stale { Some(earliest) } else { self.next_turn(now) };
        due.map(|due| due.max(earliest))
    }

    fn next_turn(&self, now: Instant) -> Option<Instant> {
        if let Some(until) = self.fast_until {
            return Some(until);
        }
        if self.summary.pending > 0 {
            return match self.news {
                News::Urgent => Some(now),
                News::None if !self.summary.is_urgent => None,
                _ => Some(self.rest_until),
            };
        }
        let (after, cycle) = self.silence()?;
        let passed = cycle_position(now.since(self.quiet_since?), cycle);
        Some(now + if passed < after { after - passed } else { cycle - passed })
    }

    /// Ends a time of being fast that is over. One that would be over before the next change may be made ends with this one.
    fn end_fast(&mut self, now: Instant) -> bool {
        let Some(until) = self.fast_until else { return false };
        let changes = self.summary != self.advert.summary;
        let is_over = now >= until || (changes && now + self.policy.change_gap > until);
        if !is_over && self.summary.pending > 0 {
            return false;
        }
        self.fast_until = None;
        self.rest_until = now.min(until) + self.policy.fast_rest;
        true
    }

    fn begin_fast(&mut self, now: Instant) {
        let is_due = match self.news {
            News::Urgent => true,
            News::None if !self.summary.is_urgent => false,
            _ => now >= self.rest_until,
        };
        if self.fast_until.is_none() && self.summary.pending > 0 && is_due {
            (self.fast_until, self.news) = (Some(now + self.policy.fast_for), News::None);
        }
    }

    fn pace(&self, now: Instant) -> Pace {
        if self.fast_until.is_some() {
            return Pace::Fast;
        }
        match (self.quiet_since, self.silence()) {
            (Some(since), Some((after, cycle))) if cycle_position(now.since(since), cycle) >= after => {
                Pace::Silent
            }
            _ => Pace::Slow,
        }
    }

    /// For how long it is slow before it is silent, and how long both take; `None`: never silent.
    fn silence(&self) -> Option<(Duration, Duration)> {
        let after = self.policy.silent_after?;
        Some((after, after + self.policy.silent_for))
    }
}

/// How far the cycle is that goes on at this time.
fn cycle_position(passed: Duration, cycle: Duration) -> Duration {
    let micros = passed.as_micros() % cycle.as_micros().max(1);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}
