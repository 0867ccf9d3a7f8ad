//! Lines that somebody outside can cause are limited by their rate: whoever connects or sends without end must not fill the
//! card that logs are kept on. What is left out is counted, and the count is told.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Lines of one kind that may come at once.
pub(crate) const BURST: u32 = 20;
/// After those, one more is told each time that so much has passed.
pub(crate) const EVERY: Duration = Duration::from_secs(6);
/// Kinds that are told apart. Beyond them, those are forgotten that owe nothing; if none is, all others are one kind.
const KINDS_MAX: usize = 64;

/// Decides which lines are told, by their kind.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    burst: u32,
    every: Duration,
    kinds: HashMap<K, Kind>,
    /// All kinds that found no place.
    others: Option<Kind>,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Lines that may be told at once.
    left: u32,
    /// Since when the next one grows.
    since: Instant,
    /// Not told, and the count not told either.
    left_out: u64,
}

impl Kind {
    fn refill(&mut self, now: Instant, burst: u32, every: Duration) {
        let passed = now.saturating_duration_since(self.since);
        let grown = u32::try_from(passed.as_nanos() / every.as_nanos().max(1)).unwrap_or(u32::MAX);
        if self.left.saturating_add(grown) >= burst {
            (self.left, self.since) = (burst, now);
        } else {
            self.left += grown;
            self.since += every * grown;
        }
    }
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    pub(crate) fn new(burst: u32, every: Duration) -> Limiter<K> {
        Limiter { burst, every, kinds: HashMap::new(), others: None }
    }

    /// Asks about one more line. `Some`: it is to be told, after the number of those of its kind that were left out.
    pub(crate) fn ask(&mut self, kind: &K, now: Instant) -> Option<u64> {
        let (burst, every) = (self.burst, self.every);
        let fresh = Kind { left: burst, since: now, left_out: 0 };
        if !self.kinds.contains_key(kind) && self.kinds.len() >= KINDS_MAX {
            self.kinds.retain(|_, known| {
                known.refill(now, burst, every);
                known.left < burst || known.left_out > 0
            });
        }
        let known = if self.kinds.contains_key(kind) || self.kinds.len() < KINDS_MAX {
            self.kinds.entry(kind.clone()).or_insert(fresh)
        } else {
            self.others.get_or_insert(fresh)
        };
        known.refill(now, burst, every);
        if known.left == 0 {
            known.left_out += 1;
            return None;
        }
        known.left -= 1;
        Some(std::mem::take(&mut known.left_out))
    }

    /// What was left out and may be told now, though no further line of its kind comes: the kind (`None`: of all others) and
    /// how many.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(Option<K>, u64)> {
        let (burst, every) = (self.burst, self.every);
        let mut due = Vec::new();
        let kinds = self.kinds.iter_mut().map(|(kind, known)| (Some(kind), known));
        for (kind, known) in kinds.chain(self.others.as_mut().map(|known| (None, known))) {
            known.refill(now, burst, every);
            if known.left_out > 0 && known.left > 0 {
                known.left -= 1;
                due.push((kind.cloned(), std::mem::take(&mut known.left_out)));
            }
        }
        due
    }

    /// What was left out and never told, at the end, by kind as [`due`](Self::due) has it.
    pub(crate) fn rest(&mut self) -> Vec<(Option<K>, u64)> {
        let kinds = self.kinds.iter_mut().map(|(kind, known)| (Some(kind.clone()), known));
        let all = kinds.chain(self.others.as_mut().map(|known| (None, known)));
        all.map(|(kind, known)| (kind, std::mem::take(&mut known.left_out)))
            .filter(|(_, left_out)| *left_out > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a flood of `kinds` kinds by turns, with a look each second; gives how many lines were told, and how many were
    /// counted in their place.
    fn flood(kinds: usize, lines: u64, took: Duration) -> (u64, u64) {
        let mut limiter = Limiter::new(BURST, EVERY);
        let began = Instant::now();
        let (mut told, mut counted, mut looked) = (0, 0, began);
        for n in 0..lines {
            let now = began + took.mul_f64(n as f64 / lines as f64);
            if now.duration_since(looked) >= Duration::from_secs(1) {
                looked = now;
                for (_, left_out) in limiter.due(now) {
                    told += 1;
                    counted += left_out;
                }
            }
            if let Some(left_out) = limiter.ask(&(n as usize % kinds), now) {
                told += if left_out > 0 { 2 } else { 1 };
                counted += left_out + 1;
            }
        }
        counted += limiter.rest().into_iter().map(|(_, left_out)| left_out).sum::<u64>();
        assert_eq!(counted, lines, "each line was told or counted");
        assert!(limiter.kinds.len() <= KINDS_MAX);
        (told, counted)
    }

    #[test]
    fn a_flood_is_a_trickle_and_every_line_is_counted() {
        let minute = Duration::from_secs(60);
        let (told, _) = flood(1, 1_000_000, minute);
        assert!(told <= u64::from(BURST) + 2 * 10, "{told}");
        // However many kinds an attacker makes up.
        let (told, _) = flood(100_000, 1_000_000, minute);
        let all = (KINDS_MAX as u64 + 1) * (u64::from(BURST) + 2 * 10);
        assert!(told <= all, "{told} of at most {all}");
    }

    #[test]
    fn what_comes_now_and_then_is_told_whole() {
        let (told, _) = flood(3, 600, Duration::from_secs(3600));
        assert_eq!(told, 600);
    }

    #[test]
    fn a_flood_of_one_kind_leaves_the_others_alone() {
        let mut limiter = Limiter::new(BURST, EVERY);
        let now = Instant::now();
        for _ in 0..1_000 {
            let _ = limiter.ask(&"flood", now);
        }
        assert_eq!((limiter.ask(&"flood", now), limiter.ask(&"honest", now)), (None, Some(0)));
        assert_eq!(limiter.due(now), []);
        assert_eq!(limiter.due(now + EVERY), [(Some("flood"), 1_001 - u64::from(BURST))]);
    }
}
