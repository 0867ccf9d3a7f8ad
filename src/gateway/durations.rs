//! How long something took, time after time: counts in fixed steps, as Prometheus' histograms have them.

use std::time::Duration;

/// Up to how many milliseconds each step reaches. What took longer is counted beyond them.
const STEPS_MS: [u64; 9] = [10, 50, 250, 1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000];

/// How often it took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Durations {
    counts: [u64; STEPS_MS.len()],
    /// All, beyond the last step too.
    pub(crate) count: u64,
    pub(crate) sum: Duration,
}

impl Durations {
    pub(crate) fn note(&mut self, took: Duration) {
        let step = STEPS_MS.iter().position(|&step| took <= Duration::from_millis(step));
        if let Some(count) = step.and_then(|step| self.counts.get_mut(step)) {
            *count += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// Each step in seconds, with how many took so long or less.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let counts = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        STEPS_MS.iter().map(|&step| Duration::from_millis(step).as_secs_f64()).zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_in_its_step_and_those_above() {
        let mut durations = Durations::default();
        for ms in [0, 10, 11, 5_000, 4_000_000] {
            durations.note(Duration::from_millis(ms));
        }
        let counts: Vec<(f64, u64)> = durations.steps().collect();
        assert_eq!(counts[..3], [(0.01, 2), (0.05, 3), (0.25, 3)]);
        assert_eq!((counts[4], counts[8]), ((5.0, 4), (3_600.0, 4)));
        assert_eq!((durations.count, durations.sum), (5, Duration::from_millis(4_005_021)));
    }
}
