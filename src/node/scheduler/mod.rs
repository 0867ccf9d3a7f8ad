//! Whom to visit, and when: a sans-IO core that is given the time and what happens, and says what to do next.
//!
//! A neighbour is visited when it or this database has something new, as its advert tells; a quiet one costs no connection. Each radio
//! has a number of slots and connects to one peer at a time. Of those that wait:
//!
//! - who has waited longest comes first, so nobody starves and above the load that a radio can carry all suffer alike; what is pending
//!   counts like some seconds;
//! - who was heard for the first time comes before the others, at every second choice at most: it may be passing by;
//! - who failed waits, longer each time, and while others wait attempts at such peers take a tenth of the time at most.
//!
//! A full adapter is learned from failures: the radio's slots become those that are in use then, and one more is tried later.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

mod known;
mod radio;
#[cfg(test)]
mod tests;

use self::known::{FRESH, Known};
pub(super) use self::known::{GONE_AFTER, News, RETRY_WAIT_MAX};
pub(super) use self::radio::RadioPlan;
use self::radio::{Radio, SETTLE};

/// How often an idle connection is left alone to look for others. The first look comes at once: who is heard first is visited at once,
/// so the others may be yet unheard.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// The same while documents move and there are slots: listening takes air from them.
const BUSY_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How long such a look takes.
const LOOK_TIME: Duration = Duration::from_secs(3);
/// So many times as long as the last failed attempt lasted, no other neighbour that has failed is tried while others wait.
const FAILURE_SHARE: u32 = 9;
/// Pause before a neighbour is tried again that a full radio had no room for.
const FULL_PAUSE: Duration = Duration::from_secs(2);
/// Neighbours kept in mind.
const KNOWN_MAX: usize = 1_024;

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All that there was has been moved.
    Done,
    /// It failed, or the neighbour was not reached.
    Failed,
    /// The radio had no room for one more connection: no fault of the neighbour.
    Full,
    /// It was left or stopped before its end.
    Left,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action<K> {
    /// Connect to this neighbour through this radio, and sync. `stays`: until it is told to leave, else until all is moved.
    Visit {
        /// Whom.
        key: K,
        /// Through which radio.
        radio: usize,
        /// Whether to stay connected.
        stays: bool,
    },
    /// End the visit of this neighbour: others wait.
    Leave(K),
}

/// How it is planned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Connections that stay although there is nothing to move, while there are no more neighbours than that.
    pub(super) kept: usize,
    /// Whether to visit also those who have nothing new.
    pub(super) all: bool,
    /// For pauses, so that machines do not keep in step.
    pub(super) seed: u64,
}

/// The plan for all radios of a node.
pub(super) struct Scheduler<K> {
    settings: Settings,
    radios: Vec<Radio>,
    known: BTreeMap<K, Known>,
    visits: BTreeMap<K, Visit>,
    random: fastrand::Rng,
    /// A newcomer was chosen last.
    newcomer_was_first: bool,
    /// Before that no neighbour that has failed is tried, if others wait.
    suspects_after: Instant,
    /// When something was new last.
    stirred: Instant,
    /// This database has changed so often.
    own: u64,
}

struct Visit {
    radio: usize,
    began: Instant,
    own: u64,
    stage: Stage,
    stays: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Busy,
    Idle,
    Leaving,
}

impl<K: Copy + Ord> Scheduler<K> {
    /// A plan for these radios.
    pub(super) fn new(settings: Settings, radios: &[RadioPlan]) -> Scheduler<K> {
        Scheduler {
            settings,
            radios: radios.iter().map(|plan| Radio::new(*plan)).collect(),
            known: BTreeMap::new(),
            visits: BTreeMap::new(),
            random: fastrand::Rng::with_seed(settings.seed),
            newcomer_was_first: false,
            suspects_after: Instant::ZERO,
            stirred: Instant::ZERO,
            own: 0,
        }
    }

    /// A neighbour was heard; `news` is what its advert means now. False: there are too many, it is not kept in mind.
    pub(super) fn heard(&mut self, now: Instant, radio: usize, key: K, news: News) -> bool {
        if !self.known.contains_key(&key) && self.known.len() >= KNOWN_MAX {
            // Of those that are gone, the one that was heard longest ago makes room.
            let visits = &self.visits;
            let gone =
                self.known.iter().filter(|(key, known)| !visits.contains_key(key) && !known.is_near(now));
            let Some(longest) = gone.min_by_key(|(_, known)| known.heard).map(|(key, _)| *key) else {
                return false;
            };
            self.known.remove(&longest);
        }
        self.radios[radio].heard = Some(now);
        let known = self.known.entry(key).or_insert_with(|| Known::new(now, news));
        known.hear(now, radio, news);
        if known.first_heard == now || news.is_pending() {
            self.stirred = now;
        }
        true
    }

    /// This database has changed; `news` tells what there is to do with each neighbour now.
    pub(super) fn changed(&mut self, now: Instant, mut news: impl FnMut(K) -> News) {
        self.own += 1;
        self.stirred = now;
        for (key, known) in &mut self.known {
            known.set_news(now, news(*key));
        }
    }

    /// A visit's connection stands: the radio may connect to another.
    pub(super) fn connected(&mut self, key: K) {
        if let Some(visit) = self.visits.get_mut(&key)
            && visit.stage == Stage::Connecting
        {
            visit.stage = Stage::Busy;
        }
    }

    /// Whether a visit that stays has nothing to move now.
    pub(super) fn idle(&mut self, key: K, idle: bool) {
        if let Some(visit) = self.visits.get_mut(&key)
            && visit.stays
            && matches!(visit.stage, Stage::Busy | Stage::Idle)
        {
            visit.stage = if idle { Stage::Idle } else { Stage::Busy };
        }
    }

    /// A visit has ended, and its slot is free.
    pub(super) fn ended(&mut self, now: Instant, key: K, ending: Ending) {
        let random = self.random.u32(..);
        let Some(visit) = self.visits.remove(&key) else { return };
        let used = self.used(visit.radio);
        let radio = &mut self.radios[visit.radio];
        if used == 0 {
            radio.alone_since = Some(now);
        }
        let Some(known) = self.known.get_mut(&key) else { return };
        // It was connected until now.
        if ending != Ending::Failed {
            known.was_there(now, visit.radio);
        }
        match ending {
            Ending::Done | Ending::Left => {
                known.retry.succeeded();
                known.not_before = now;
                known.visited = Some((now, (ending == Ending::Done).then_some(visit.own)));
                (known.news, known.since) = (News::None, now);
            }
            Ending::Failed => {
                known.not_before = now + known.retry.failed(random).unwrap_or(RETRY_WAIT_MAX);
                self.suspects_after = now + now.since(visit.began) * FAILURE_SHARE;
            }
            Ending::Full => {
                known.not_before = now + FULL_PAUSE;
                radio.is_full(now, used);
            }
        }
    }

    /// A radio has gone, or come back. What is visited through it ends by itself.
    pub(super) fn set_present(&mut self, now: Instant, radio: usize, present: bool) {
        let radio = &mut self.radios[radio];
        radio.present = present;
        radio.alone_since = present.then_some(now);
        self.stirred = now;
    }

    /// Who is visited through this radio.
    pub(super) fn visited_through(&self, radio: usize) -> impl Iterator<Item = K> {
        self.visits.iter().filter(move |(_, visit)| visit.radio == radio).map(|(key, _)| *key)
    }

    /// Whether any radio is there.
    pub(super) fn is_present(&self) -> bool {
        self.radios.iter().any(|radio| radio.present)
    }

    /// Whether this radio is to listen now.
    pub(super) fn listens(&mut self, now: Instant, radio: usize) -> bool {
        if !self.radios[radio].present || self.connects(radio) {
            return false;
        }
        if self.used(radio) == 0 {
            let (count, stirred) =
                (self.radios.len() as u32, if self.settings.all { now } else { self.stirred });
            return self.radios[radio].listens_alone(now, stirred, radio as u32, count);
        }
        self.radios[radio].alone_since = None;
        let near = self.near(now);
        self.looks(now, radio, near)
    }

    /// Whether a radio with connections looks for others now. Where there are more neighbours than slots it begins with no new
    /// connection meanwhile: only who was heard gets its turn, so all must be heard from time to time.
    fn looks(&mut self, now: Instant, radio: usize, near: usize) -> bool {
        let (busy, slots) = (self.is_busy(radio), self.radios[radio].slots);
        let full = self.used(radio) >= slots;
        let pause = match () {
            () if near > slots => FRESH,
            () if busy => BUSY_LOOK_INTERVAL,
            () => LOOK_INTERVAL,
        };
        let radio = &mut self.radios[radio];
        match radio.look_until {
            Some(until) if now >= until => (radio.look_until, radio.heard_all) = (None, Some(now)),
            None if !(busy && full) && radio.heard_all.is_none_or(|at| now.since(at) >= pause) => {
                radio.look_until = Some(now + LOOK_TIME);
            }
            _ => {}
        }
        radio.look_until.is_some()
    }

    /// What to do now; to be asked until it is nothing. Something else may be due once something was heard, changed or ended, or
    /// after a moment.
    pub(super) fn next(&mut self, now: Instant) -> Option<Action<K>> {
        (0..self.radios.len()).find_map(|radio| self.next_of(now, radio))
    }

    fn next_of(&mut self, now: Instant, radio: usize) -> Option<Action<K>> {
        if !self.radios[radio].present || self.connects(radio) {
            return None;
        }
        let (used, slots) = (self.used(radio), self.radios[radio].slots(now));
        if used >= slots && !self.visits(radio).any(|visit| visit.stage == Stage::Idle) {
            return None;
        }
        let near = self.near(now);
        if used > 0 && near > slots && self.looks(now, radio, near) {
            return None;
        }
        // With more neighbours than may be kept connected, none is: each may want to be connected by others.
        if near > self.settings.kept
            && let Some(key) = self.leave_idle(radio)
        {
            return Some(Action::Leave(key));
        }
        let (key, is_newcomer) = self.choose(now, radio, near)?;
        if used >= slots {
            return self.leave_idle(radio).map(Action::Leave);
        }
        let kept = self.visits.values().filter(|visit| visit.stays).count();
        let stays = near <= self.settings.kept && kept < self.settings.kept;
        self.newcomer_was_first = is_newcomer;
        let own = self.own;
        self.visits.insert(key, Visit { radio, began: now, own, stage: Stage::Connecting, stays });
        Some(Action::Visit { key, radio, stays })
    }

    /// Has the connection end that has been idle on this radio and began first.
    fn leave_idle(&mut self, radio: usize) -> Option<K> {
        let idle =
            self.visits.iter_mut().filter(|(_, visit)| visit.radio == radio && visit.stage == Stage::Idle);
        let (key, visit) = idle.min_by_key(|(_, visit)| visit.began)?;
        visit.stage = Stage::Leaving;
        Some(*key)
    }

    /// The neighbour whose turn it is on this radio, of so many that are near, and whether it may be passing by.
    fn choose(&self, now: Instant, radio: usize, near: usize) -> Option<(K, bool)> {
        let settled = self.radios[radio].alone_since.is_some_and(|since| now.since(since) >= SETTLE);
        let alone = near == 1 && settled && self.settings.kept > 0;
        let due = self.known.iter().filter(|(key, known)| {
            !self.visits.contains_key(key)
                && known.not_before <= now
                && known.is_heard_by(now, radio)
                && (alone || self.settings.all || known.wants(now, self.own))
        });
        // The best of each kind, in one pass.
        let (mut newcomer, mut resident, mut suspect) = (None, None, None);
        for (key, known) in due {
            let (rank, best) = match () {
                () if known.retry.failures() > 0 => (known.rank(), &mut suspect),
                () if known.is_newcomer(now) => (known.first_heard, &mut newcomer),
                () => (known.rank(), &mut resident),
            };
            if best.is_none_or(|(least, _)| rank < least) {
                *best = Some((rank, *key));
            }
        }
        let suspect = suspect.filter(|(rank, _)| match resident.or(newcomer) {
            None => true,
            Some((other, _)) => now >= self.suspects_after && *rank < other,
        });
        match (newcomer, suspect.or(resident)) {
            (Some((_, newcomer)), None) => Some((newcomer, true)),
            (Some((_, newcomer)), Some(_)) if !self.newcomer_was_first => Some((newcomer, true)),
            (_, other) => Some((other?.1, false)),
        }
    }

    fn visits(&self, radio: usize) -> impl Iterator<Item = &Visit> {
        self.visits.values().filter(move |visit| visit.radio == radio)
    }

    fn used(&self, radio: usize) -> usize {
        self.visits(radio).count()
    }

    fn connects(&self, radio: usize) -> bool {
        self.visits(radio).any(|visit| visit.stage == Stage::Connecting)
    }

    /// Whether documents move through it, or may.
    fn is_busy(&self, radio: usize) -> bool {
        self.visits(radio).any(|visit| visit.stage != Stage::Idle)
    }

    /// Neighbours that are connected or were heard within the last minute.
    fn near(&self, now: Instant) -> usize {
        let near = |(key, known): &(&K, &Known)| known.is_near(now) || self.visits.contains_key(key);
        self.known.iter().filter(near).count()
    }
}
