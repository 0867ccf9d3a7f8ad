//! What a run of scenarios found, for people, for continuous integration and for scripts.
//!
//! | module | writes |
//! |---|---|
//! | [`terminal`] | a table that grows while the scenarios run |
//! | [`junit`] | `junit.xml` |
//! | [`html`], [`plot`] | `report.html`, with nothing outside of it |

pub mod html;
pub mod junit;
pub mod plot;
pub mod terminal;

use serde::Serialize;

use crate::agent::protocol::{Machine, Sample};
use crate::rig::Config;

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All that it demands was so.
    Passed,
    /// Something was not.
    Failed,
    /// The rig cannot do it: nothing was shown.
    Skipped,
}

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub struct Metric {
    /// What.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// What it has to be.
    pub target: Option<String>,
}

/// Something happened.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// When, microseconds since 1970.
    pub at_us: u64,
    /// What.
    pub text: String,
}

/// One run of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// How the machines were set up.
    pub config: Config,
    /// Which repetition, from 1.
    pub run: usize,
    /// How it ended.
    pub status: Status,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
    /// When it began, microseconds since 1970.
    pub began_us: u64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Figures.
    pub metrics: Vec<Metric>,
    /// What happened when.
    pub marks: Vec<Mark>,
    /// Output of programs, errors as they were told.
    pub notes: Vec<String>,
    /// Each connect, seconds.
    pub connects: Vec<f64>,
    /// Each time from a cut to the first new byte, seconds.
    pub reconnects: Vec<f64>,
    /// Counters of sessions with the place of their node.
    #[serde(skip)]
    pub samples: Vec<(usize, Sample)>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The rig.
    pub rig: String,
    /// What carries its packets.
    pub radio: String,
    /// When it began, as text.
    pub began: String,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Long forms.
    pub full: bool,
    /// The machines, as each configuration had them.
    pub machines: Vec<(Config, Vec<Machine>)>,
    /// The scenarios, in the order of the table, run after run.
    pub records: Vec<Record>,
}

impl Report {
    /// How many ended so.
    pub fn count(&self, status: Status) -> usize {
        self.records.iter().filter(|record| record.status == status).count()
    }

    /// Figures of this name in this scenario, over all runs.
    pub fn figures(&self, scenario: &str, metric: &str) -> Vec<&Metric> {
        let records = self.records.iter().filter(|record| record.name == scenario);
        records.flat_map(|record| record.metrics.iter().filter(|m| m.name == metric)).collect()
    }
}

impl Record {
    /// One that has not begun.
    pub fn new(name: &'static str, about: &'static str, config: Config, run: usize) -> Record {
        Record {
            name,
            about,
            config,
            run,
            status: Status::Failed,
            reason: None,
            began_us: crate::agent::now_us(),
            seconds: 0.0,
            metrics: Vec::new(),
            marks: Vec::new(),
            notes: Vec::new(),
            connects: Vec::new(),
            reconnects: Vec::new(),
            samples: Vec::new(),
        }
    }
}

/// The median; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// A figure with as many digits as it deserves.
pub fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => {
            let whole = format!("{value:.0}");
            let digits = whole.len();
            let mut text = String::new();
            for (n, digit) in whole.chars().enumerate() {
                if n > 0 && digit != '-' && (digits - n).is_multiple_of(3) && !text.ends_with('-') {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        v if v >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A figure with its unit.
pub fn measured(metric: &Metric) -> String {
    format!("{} {}", figure(metric.value), metric.unit).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_grouped() {
        for (value, text) in [
            (0.0, "0"),
            (9103.0, "9,103"),
            (1_234_567.0, "1,234,567"),
            (0.987, "0.99"),
            (12.34, "12.3"),
            (-52.0, "-52"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
