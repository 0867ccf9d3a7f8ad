//! What is measured beside one attack, and what is aimed at.

use std::time::Duration;

use serde_json::{Value, json};

/// What is aimed at: times of the quiet median, and MiB beyond what the gateway had before.
pub const RATIO_TARGET: f64 = 2.0;
pub const MEMORY_TARGET: usize = 64 << 20;

/// What was measured beside one attack.
pub struct Row {
    pub name: &'static str,
    pub quiet: Vec<Duration>,
    pub beside: Vec<Duration>,
    pub failed: Vec<String>,
    /// Connections or messages of the attacker meanwhile.
    pub made: usize,
    pub memory_before: usize,
    pub memory_most: usize,
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Row {
    fn ratio(&self) -> f64 {
        ms(median(&self.beside)) / ms(median(&self.quiet)).max(f64::MIN_POSITIVE)
    }

    fn memory(&self) -> usize {
        self.memory_most.saturating_sub(self.memory_before)
    }

    fn worst(times: &[Duration]) -> Duration {
        times.iter().max().copied().unwrap_or_default()
    }

    pub fn is_met(&self) -> bool {
        self.failed.is_empty() && self.ratio() <= RATIO_TARGET && self.memory() <= MEMORY_TARGET
    }

    pub fn print(&self) {
        let verdict = match () {
            () if !self.failed.is_empty() => "FAILED",
            () if self.is_met() => "met",
            () => "missed",
        };
        println!(
            "{:<40} {:>8.0} {:>8.0} {:>8.0} {:>6.1} {:>7} {:>9} {:>8.1} {verdict}",
            self.name,
            ms(median(&self.quiet)),
            ms(median(&self.beside)),
            ms(Row::worst(&self.beside)),
            self.ratio(),
            format!("{}/{}", self.failed.len(), self.failed.len() + self.beside.len()),
            self.made,
            self.memory() as f64 / f64::from(1 << 20),
        );
        self.failed.iter().take(3).for_each(|error| println!("    {error}"));
    }

    pub fn json(&self) -> Value {
        json!({
            "attack": self.name, "quiet_median_ms": ms(median(&self.quiet)), "quiet_worst_ms": ms(Row::worst(&self.quiet)),
            "median_ms": ms(median(&self.beside)), "worst_ms": ms(Row::worst(&self.beside)), "ratio": self.ratio(),
            "syncs": self.beside.len() + self.failed.len(), "failed": self.failed, "attempts": self.made,
            "memory_bytes": self.memory(), "is_met": self.is_met(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each bound by itself decides about a row, and so about the exit code.
    #[test]
    fn a_row_is_met_within_all_its_bounds_alone() {
        let ms = Duration::from_millis;
        let row = |beside: u64, failed: usize, memory: usize| Row {
            name: "test",
            quiet: vec![ms(4), ms(5), ms(90)],
            beside: vec![ms(1), ms(beside), ms(900)],
            failed: vec!["no".into(); failed],
            made: 1,
            memory_before: 10 << 20,
            memory_most: (10 << 20) + memory,
        };
        assert!(row(10, 0, MEMORY_TARGET).is_met());
        assert!(row(1, 0, 0).is_met());
        for (beside, failed, memory) in [(11, 0, 0), (10, 1, 0), (10, 0, MEMORY_TARGET + 1)] {
            assert!(!row(beside, failed, memory).is_met(), "{beside} {failed} {memory}");
        }
    }
}
