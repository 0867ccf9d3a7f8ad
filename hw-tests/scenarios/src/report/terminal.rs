//! The table while scenarios run: a line for each that has ended, and on a terminal a last one that moves.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use super::{Record, Report, Status, measured};
use crate::rig::host::Samples;

/// Figures shown in a line.
const FIGURES: usize = 3;
/// Width of the names.
const NAME_WIDTH: usize = 24;

/// The table.
pub struct Table {
    quiet: bool,
    live: bool,
    color: bool,
}

impl Table {
    /// On standard output, unless that is wanted for something else.
    pub fn new(quiet: bool) -> Table {
        let terminal = std::io::stdout().is_terminal();
        Table { quiet, live: terminal && !quiet, color: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    fn out(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Nobody reads: the files are written all the same.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// The head.
    pub fn begin(&self, rig: &str, count: usize, repeat: usize) {
        if self.quiet {
            return;
        }
        let times = if repeat > 1 { format!(", {repeat} times") } else { String::new() };
        self.out(&format!("rig {rig}: {count} scenarios{times}\n"));
        self.out(&format!("{:<NAME_WIDTH$} {:<7} {:>7}  MEASURED\n", "SCENARIO", "RESULT", "SECONDS"));
    }

    /// Says that something takes its time.
    pub fn say(&self, text: &str) {
        if self.live {
            self.out(&format!("\r\x1b[K{text}"));
        }
    }

    /// The line of a scenario that runs.
    pub fn running(&self, name: &str, began: Instant, samples: &Samples) {
        if !self.live {
            return;
        }
        let (mut bytes, mut again) = (0.0, 0);
        if let Ok(samples) = samples.lock() {
            // Of the last second, at all nodes.
            let newest = samples.iter().map(|(.., s)| s.at_us).max().unwrap_or(0);
            let mut first = std::collections::HashMap::new();
            for (machine, node, s) in samples.iter().filter(|(.., s)| s.at_us + 1_000_000 >= newest) {
                let (start, end) =
                    first.entry((*machine, *node, s.session)).or_insert((s.received, s.received));
                *end = s.received;
                let _ = start;
            }
            bytes = first.values().map(|(start, end)| (end - start) as f64).sum();
            again = samples.iter().map(|(.., s)| s.retransmissions).max().unwrap_or(0);
        }
        let seconds = began.elapsed().as_secs_f64();
        self.out(&format!(
            "\r\x1b[K{name:<NAME_WIDTH$} {:<7} {seconds:>7.1}  {:.0} KiB/s, {again} packets sent again",
            "...",
            // A sum of nothing is -0.
            bytes / 1024.0 + 0.0
        ));
    }

    /// The line of a scenario that has ended.
    pub fn ended(&self, record: &Record) {
        if self.quiet {
            return;
        }
        if self.live {
            self.out("\r\x1b[K");
        }
        let (word, color) = match record.status {
            Status::Passed => ("pass", "32"),
            Status::Failed => ("FAIL", "31;1"),
            Status::Skipped => ("skip", "33"),
        };
        let word = if self.color { format!("\x1b[{color}m{word:<7}\x1b[0m") } else { format!("{word:<7}") };
        let measured: Vec<String> =
            record.metrics.iter().take(FIGURES).map(|m| format!("{} {}", m.name, measured(m))).collect();
        let text = record.reason.clone().unwrap_or_else(|| measured.join(", "));
        self.out(&format!("{:<NAME_WIDTH$} {word} {:>7.1}  {text}\n", record.name, record.seconds));
    }

    /// The end.
    pub fn end(&self, report: &Report, files: &[String]) {
        if self.quiet {
            return;
        }
        self.say("");
        let [passed, failed, skipped] =
            [Status::Passed, Status::Failed, Status::Skipped].map(|s| report.count(s));
        self.out(&format!("\n{passed} passed, {failed} failed, {skipped} skipped\n"));
        self.out(&format!("in {:.0} s; {}\n", report.seconds, files.join(", ")));
    }
}
