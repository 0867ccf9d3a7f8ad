//! Whom to visit next: a plan for many neighbours on few connection slots. Sans-IO: it is given what was heard, how visits have
//! ended and the time, and says whom to connect to and when to leave.
//!
//! - Who has nothing new costs no connection, unless it is the only one: then its connection is kept, so that changes go over
//!   at once.
//! - Who has waited longest comes first. How much an advert says to be pending counts as if that one had waited up to
//!   [`PENDING_BONUS_MAX`] longer, so nobody waits more than that longer for it: there is no starvation, and above what the
//!   radio can carry all wait alike.
//! - Who fails waits 2 s, 4 s .. up to [`RETRY_WAIT_MAX`], and then counts from there: the flaky take no turn of others.
//! - A connection with nothing to move is left when somebody else has something.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::replicator::RetryPolicy;
use crate::time::Instant;

/// A neighbour that was not heard for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// A neighbour is visited only if it was heard this recently.
const FRESH: Duration = Duration::from_secs(15);
/// Pause between two visits of a neighbour whose advert cannot be read, while this database has nothing new.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause before a neighbour that fails is tried again.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);
/// The most that what is pending counts.
const PENDING_BONUS_MAX: Duration = Duration::from_secs(10);
/// Neighbours kept in mind; beyond them the one that was heard longest ago is forgotten.
const KNOWN_MAX: usize = 1_024;

/// What a visit may find to do, as the advert and what was synced before say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    Nothing,
    /// So many changes, of both sides.
    Pending(u32),
    /// The advert cannot be read. `own` is the counter of this database now.
    Unreadable {
        /// It has something for that one if it is another than at the last visit.
        own: u32,
    },
}

/// How a visit has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visited {
    /// All was moved that there was, as far as the counter `own` of this database.
    Done {
        /// The counter before the visit.
        own: u32,
    },
    /// It failed; `random` of any value spreads the pause.
    Failed {
        /// Any value.
        random: u32,
    },
}

/// One neighbour.
struct Target<T> {
    /// What is known of it, for the driver.
    about: T,
    heard: Instant,
    news: News,
    /// Since when it has something and was not visited.
    waits_since: Option<Instant>,
    visited: Option<Instant>,
    /// The counter of this database before the last visit that succeeded.
    own: Option<u32>,
    retry: RetryPolicy,
    not_before: Instant,
    is_connected: bool,
}

/// The plan for one adapter.
pub(super) struct Schedule<K, T> {
    slots: usize,
    /// Visits also those who have nothing new.
    all: bool,
    known: HashMap<K, Target<T>>,
}

impl<K: Clone + Eq + Hash + Ord, T> Schedule<K, T> {
    /// A plan with so many connections at a time. `all`: those who have nothing new are visited too.
    pub(super) fn new(slots: usize, all: bool) -> Schedule<K, T> {
        Schedule { slots, all, known: HashMap::new() }
    }

    /// How many neighbours are about.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// What is known of one.
    pub(super) fn about(&self, key: &K) -> Option<&T> {
        self.known.get(key).map(|target| &target.about)
    }

    /// An advert was heard.
    pub(super) fn heard(&mut self, key: K, about: T, news: News, now: Instant) {
        if !self.known.contains_key(&key) && self.known.len() >= KNOWN_MAX {
            self.forget_gone(now);
        }
        if !self.known.contains_key(&key) && self.known.len() >= KNOWN_MAX {
            let idle = self.known.iter().filter(|(_, target)| !target.is_connected);
            let oldest = idle.min_by_key(|(key, target)| (target.heard, *key)).map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) => drop(self.known.remove(&oldest)),
                None => return,
            }
        }
        match self.known.get_mut(&key) {
            Some(target) => {
                (target.about, target.heard) = (about, now);
                target.learn(news, now);
            }
            None => {
                let target = Target {
                    about,
                    heard: now,
                    news: News::Nothing,
                    waits_since: None,
                    visited: None,
                    own: None,
                    retry: RetryPolicy::new(None, RETRY_WAIT_MAX),
                    not_before: now,
                    is_connected: false,
                };
                self.known.entry(key).or_insert(target).learn(news, now);
            }
        }
    }

    /// This database has changed, so there may be something for everybody.
    pub(super) fn reconsider(&mut self, now: Instant, mut news: impl FnMut(&T) -> News) {
        for target in self.known.values_mut() {
            let news = news(&target.about);
            target.learn(news, now);
        }
    }

    fn forget_gone(&mut self, now: Instant) {
        self.known.retain(|_, target| target.is_connected || now.since(target.heard) < GONE_AFTER);
    }

    /// Whom to connect to now, if anybody. `settled`: it was listened long enough to say that somebody is alone; that one is
    /// connected to although there is nothing new.
    pub(super) fn next(&mut self, now: Instant, settled: bool) -> Option<K> {
        self.forget_gone(now);
        if self.known.values().filter(|target| target.is_connected).count() >= self.slots {
            return None;
        }
        let wants_company = settled && self.known.len() == 1;
        self.most_urgent(now, wants_company)
    }

    /// Whether somebody waits who may be connected to, apart from a free slot: a connection with nothing to move is left then.
    pub(super) fn is_anybody_waiting(&self, now: Instant) -> bool {
        self.most_urgent(now, false).is_some()
    }

    fn most_urgent(&self, now: Instant, any: bool) -> Option<K> {
        let due = self.known.iter().filter(|(_, target)| target.is_due(now));
        let wanted = due.filter(|(_, target)| any || self.all || target.has_something(now));
        // The key makes it the same for the same neighbours, in whatever order the map has them.
        wanted
            .max_by_key(|(key, target)| (target.urgency(now), std::cmp::Reverse(*key)))
            .map(|(key, _)| key.clone())
    }

    /// It is being connected to.
    pub(super) fn begin(&mut self, key: &K) {
        if let Some(target) = self.known.get_mut(key) {
            target.is_connected = true;
        }
    }

    /// Its connection has ended.
    pub(super) fn ended(&mut self, key: &K, visited: Visited, now: Instant) {
        let Some(target) = self.known.get_mut(key) else { return };
        target.is_connected = false;
        // It was there until now.
        (target.heard, target.visited) = (now, Some(now));
        match visited {
            Visited::Done { own } => {
                target.retry.succeeded();
                // What the last advert said has been dealt with.
                (target.news, target.waits_since, target.own) = (News::Nothing, None, Some(own));
                target.not_before = now;
            }
            Visited::Failed { random } => {
                let wait = target.retry.failed(random).unwrap_or(RETRY_WAIT_MAX);
                (target.own, target.not_before) = (None, now + wait);
                target.waits_since = Some(target.not_before);
            }
        }
    }
}

impl<T> Target<T> {
    fn learn(&mut self, news: News, now: Instant) {
        self.news = news;
        match news {
            News::Nothing => self.waits_since = None,
            News::Pending(_) | News::Unreadable { .. } => {
                self.waits_since.get_or_insert(now);
            }
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_connected && self.not_before <= now && now.since(self.heard) < FRESH
    }

    fn has_something(&self, now: Instant) -> bool {
        match self.news {
            News::Nothing => false,
            News::Pending(changes) => changes > 0,
            News::Unreadable { own } => {
                self.own != Some(own) || self.visited.is_none_or(|at| now.since(at) >= UNREADABLE_PAUSE)
            }
        }
    }

    /// How long it has waited, and what is pending on top.
    fn urgency(&self, now: Instant) -> Duration {
        let waited = now.since(self.waits_since.or(self.visited).unwrap_or(Instant::ZERO));
        let changes = match self.news {
            News::Pending(changes) => changes,
            News::Nothing | News::Unreadable { .. } => 0,
        };
        let bonus = Duration::from_secs(changes.checked_ilog2().unwrap_or(0).into());
        waited + bonus.min(PENDING_BONUS_MAX)
    }
}

#[cfg(test)]
#[path = "schedule/tests.rs"]
mod tests;
