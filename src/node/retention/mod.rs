//! What a collection keeps: a sans-IO core that is given the time and what there is, and says what goes.
//!
//! A rule limits age, number and bytes of a collection's documents. What is beyond goes, the oldest first by the time of its
//! newest version; once a limit is passed a share of it is made free, so that not every document that comes makes work. The
//! documents are looked through in pages (a [`Sweep`]), of which only as many are kept in mind as one sweep removes. When the
//! next sweep is due shows from what has come since, and from the oldest that was left.
//!
//! A document that no right clock has dated has no age. By number and bytes it goes in the order in which it came: it counts as
//! old as the newest before it.

#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use crate::database::retained::AgedDocument;

pub(crate) mod files;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;
pub(crate) mod tombstones;

/// Part of a limit that is made free when it is reached, and of an age after which it is looked again.
const SHARE: u64 = 32;

/// Documents that one sweep removes at most; there is another one at once if that was not enough.
pub(crate) const SWEPT_MAX: usize = 4_096;

/// Between two looks at an age: the wall clock may be set meanwhile.
const LOOK_MAX: Duration = Duration::from_secs(3_600);
/// The wait after a sweep that removed nothing although something should go.
const HELD_WAIT: Duration = Duration::from_secs(60);
/// The same if more was confirmed since: so many times as long as the sweep took, within limits.
const CONFIRMED_PAUSE_FACTOR: u32 = 8;
const CONFIRMED_PAUSE_MAX: Duration = Duration::from_secs(15);
/// The wait between two looks at what is confirmed, if nothing tells that it has changed.
const CONFIRMED_WAIT: Duration = Duration::from_secs(15);
/// The shortest wait.
const LOOK_MIN: Duration = Duration::from_secs(1);

/// What is kept of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Nothing that is older.
    pub(crate) age: Option<Duration>,
    /// No more documents.
    pub(crate) documents: Option<u64>,
    /// No more bytes of documents, as they are stored, before they are compressed.
    pub(crate) bytes: Option<u64>,
}

/// What there is of a collection, as far as it is known without looking at documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) documents: u64,
    pub(crate) last_sequence: u64,
    /// Only documents up to this sequence may go.
    pub(crate) confirmed: u64,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Look at the documents after this sequence, and tell [`Keeper::look`] of each.
    Look { after: u64 },
    /// Look at all documents, tell the sweep of each, and give it back to [`Keeper::swept`].
    Sweep(Sweep),
    /// Nothing, so long, or until something changes.
    Wait(Duration),
}

/// A document that goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Aged {
    /// By which it is sorted.
    age_time: u64,
    pub(crate) sequence: u64,
    pub(crate) bytes: u64,
    pub(crate) id: Box<str>,
}

/// Looks after one collection.
#[derive(Debug)]
pub(crate) struct Keeper {
    rule: Rule,
    /// A limit of bytes beside that of the rule.
    bytes_max: Option<u64>,
    /// What the last sweep and the looks since have found; `None` before the first.
    known: Option<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Of the sweep alone.
    documents: u64,
    bytes: u64,
    /// The time of the oldest; the highest number if there is none.
    oldest: u64,
    /// The newest time of a right clock.
    newest: u64,
    looked_until: u64,
    /// When the last sweep ended, if it could remove nothing though something should go.
    held: Option<u64>,
    /// How long it took.
    swept_for: Duration,
    /// What the last sweep could have removed.
    confirmed: u64,
    /// The time of the oldest that is not confirmed; the highest number if there is none.
    waiting: u64,
    /// Whether there was too much although all that is confirmed is gone.
    is_stuck: bool,
}

impl Keeper {
    pub(crate) fn new(rule: Rule) -> Keeper {
        Keeper { rule, bytes_max: None, known: None }
    }

    /// Keeps no more bytes, whatever the rule allows.
    pub(crate) fn limit_bytes(&mut self, limit: Option<u64>) {
        self.bytes_max = limit;
    }

    fn bytes_limit(&self) -> Option<u64> {
        self.rule.bytes.into_iter().chain(self.bytes_max).min()
    }

    /// What to do now; `now` is nanoseconds since 1970.
    pub(crate) fn next(&self, now: u64, extent: Extent) -> Step {
        let Some(known) = self.known else { return Step::Sweep(self.sweep(now, extent, 0)) };
        if extent.last_sequence > known.looked_until {
            return Step::Look { after: known.looked_until };
        }
        let may_remove_more = extent.confirmed != known.confirmed;
        let due = self.due(if may_remove_more { known.oldest.min(known.waiting) } else { known.oldest });
        let is_over = self.is_over(&known, extent) && (may_remove_more || !known.is_stuck);
        if !is_over && due.is_none_or(|due| due > now) {
            let wait = due.map_or(LOOK_MAX, |due| Duration::from_nanos(due.saturating_sub(now)));
            let longest = if self.is_waiting(now, extent) { CONFIRMED_WAIT } else { LOOK_MAX };
            return Step::Wait(wait.clamp(LOOK_MIN, longest));
        }
        let pause = if may_remove_more { known.confirmed_pause() } else { HELD_WAIT };
        // Also over if the clock was set back.
        let left = known.held.map(|at| pause.saturating_sub(Duration::from_nanos(now.abs_diff(at))));
        match left.filter(|left| !left.is_zero()) {
            Some(left) => Step::Wait(left.clamp(LOOK_MIN, CONFIRMED_WAIT)),
            None => Step::Sweep(self.sweep(now, extent, known.bytes)),
        }
    }

    /// When a document of that time has been too old for a while.
    fn due(&self, oldest: u64) -> Option<u64> {
        let age = self.rule.age.map(nanoseconds)?;
        Some(oldest.saturating_add(age).saturating_add(age / SHARE))
    }

    fn is_over(&self, known: &Known, extent: Extent) -> bool {
        let is_over = |limit: Option<u64>, there: u64| limit.is_some_and(|limit| there > limit);
        is_over(self.rule.documents, extent.documents) || is_over(self.bytes_limit(), known.bytes)
    }

    /// Whether documents stay beyond the rule because they are not confirmed.
    pub(crate) fn is_waiting(&self, now: u64, extent: Extent) -> bool {
        let Some(known) = &self.known else { return false };
        let is_too_old = self.due(known.waiting).is_some_and(|due| due <= now);
        is_too_old || (known.is_stuck && self.is_over(known, extent))
    }

    fn sweep(&self, now: u64, extent: Extent, bytes: u64) -> Sweep {
        let found = Known {
            documents: 0,
            bytes: 0,
            oldest: u64::MAX,
            newest: 0,
            looked_until: extent.last_sequence,
            held: None,
            swept_for: Duration::ZERO,
            confirmed: extent.confirmed,
            waiting: u64::MAX,
            is_stuck: false,
        };
        Sweep {
            cutoff: self.rule.age.map_or(0, |age| now.saturating_sub(nanoseconds(age))),
            documents: excess(self.rule.documents, extent.documents),
            bytes: excess(self.bytes_limit(), bytes),
            began: now,
            too_old: BinaryHeap::new(),
            too_many: BinaryHeap::new(),
            too_many_bytes: 0,
            found,
        }
    }

    /// A document that has come since the last look.
    pub(crate) fn look(&mut self, seen: &AgedDocument) {
        let Some(known) = &mut self.known else { return };
        known.see(seen, seen.sequence <= known.confirmed);
        known.looked_until = known.looked_until.max(seen.sequence);
    }

    /// All that there was up to this sequence has been looked at.
    pub(crate) fn looked(&mut self, until: u64) {
        if let Some(known) = &mut self.known {
            known.looked_until = known.looked_until.max(until);
        }
    }

    /// A sweep has seen all documents now; gives what is to be removed, the oldest first.
    pub(crate) fn swept(&mut self, now: u64, mut sweep: Sweep) -> Vec<Aged> {
        let was_sought = sweep.documents > 0 || sweep.bytes > 0;
        // By what there really was: what was known before counts a document that was changed twice.
        sweep.documents = excess(self.rule.documents, sweep.found.documents);
        sweep.bytes = excess(self.bytes_limit(), sweep.found.bytes);
        sweep.spare();
        let is_beyond = sweep.documents > 0 || sweep.bytes > 0;
        let is_any_too_old = sweep.found.oldest.min(sweep.found.waiting) <= sweep.cutoff;
        let should = (was_sought && is_beyond) || is_any_too_old;
        let Sweep { too_old, too_many, mut found, began, .. } = sweep;
        let goes: BTreeMap<u64, Aged> =
            too_old.into_iter().chain(too_many).map(|aged| (aged.sequence, aged)).collect();
        found.held = (should && goes.is_empty()).then_some(now);
        found.swept_for = Duration::from_nanos(now.saturating_sub(began));
        found.is_stuck = was_sought && is_beyond && goes.is_empty();
        found.bytes -= goes.values().map(|aged| aged.bytes).sum::<u64>();
        self.known = Some(found);
        let mut goes: Vec<Aged> = goes.into_values().collect();
        goes.sort_unstable();
        goes
    }

    /// Bytes of the collection's documents, as far as they are known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.known.map(|known| known.bytes)
    }
}

impl Known {
    /// How long after a sweep that removed nothing there is another one for what was confirmed since.
    fn confirmed_pause(&self) -> Duration {
        let pause = self.swept_for.saturating_mul(CONFIRMED_PAUSE_FACTOR);
        pause.clamp(LOOK_MIN, CONFIRMED_PAUSE_MAX)
    }

    /// Counts a document; gives by what time it is sorted.
    fn see(&mut self, seen: &AgedDocument, is_confirmed: bool) -> u64 {
        self.newest = self.newest.max(seen.time.unwrap_or(0));
        let oldest = if is_confirmed { &mut self.oldest } else { &mut self.waiting };
        *oldest = seen.time.unwrap_or(u64::MAX).min(*oldest);
        self.documents += 1;
        self.bytes = self.bytes.saturating_add(seen.bytes);
        seen.time.unwrap_or(self.newest)
    }
}

/// One look through all documents of a collection, in the order of their sequences.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// Whatever is not later goes.
    cutoff: u64,
    /// How much goes at least.
    documents: u64,
    bytes: u64,
    began: u64,
    /// The oldest of those that are not later than the cutoff.
    too_old: BinaryHeap<Aged>,
    /// The oldest, as many as have to go for number and bytes.
    too_many: BinaryHeap<Aged>,
    too_many_bytes: u64,
    found: Known,
}

impl Sweep {
    /// Looks at the next document.
    pub(crate) fn see(&mut self, seen: AgedDocument) {
        let oldest = self.found.oldest;
        let is_confirmed = seen.sequence <= self.found.confirmed;
        let age_time = self.found.see(&seen, is_confirmed);
        if !is_confirmed {
            return;
        }
        let aged = Aged { age_time, sequence: seen.sequence, bytes: seen.bytes, id: seen.id };
        if self.documents > 0 || self.bytes > 0 {
            self.too_many_bytes += aged.bytes;
            self.too_many.push(aged.clone());
            self.spare();
        }
        if seen.time.is_some_and(|time| time <= self.cutoff) {
            // What goes is not the oldest that there is.
            self.found.oldest = oldest;
            self.too_old.push(aged);
            if self.too_old.len() > SWEPT_MAX
                && let Some(left) = self.too_old.pop()
            {
                self.found.oldest = self.found.oldest.min(left.age_time);
            }
        }
    }

    /// Counts a document that stays whatever the rule says.
    pub(crate) fn keep(&mut self, seen: &AgedDocument) {
        self.found.documents += 1;
        self.found.bytes = self.found.bytes.saturating_add(seen.bytes);
    }

    /// Takes out what need not go for number and bytes.
    fn spare(&mut self) {
        while let Some(youngest) = self.too_many.peek() {
            let without = self.too_many.len() - 1;
            let is_needed =
                (without as u64) < self.documents || self.too_many_bytes - youngest.bytes < self.bytes;
            if is_needed && without < SWEPT_MAX {
                break;
            }
            self.too_many_bytes -= youngest.bytes;
            self.too_many.pop();
        }
    }
}

/// What is beyond a limit, with the share that is made free.
fn excess(limit: Option<u64>, there: u64) -> u64 {
    match limit {
        Some(limit) if there > limit => there - (limit - limit / SHARE),
        _ => 0,
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
