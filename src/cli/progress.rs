//! Progress of long work: a bar on a terminal, a line now and then otherwise, nothing when a script reads events.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// How often a line tells of progress when there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows how far one step of the work is.
pub(super) struct Progress {
    view: View,
    what: String,
}

enum View {
    Bar(ProgressBar),
    Lines { next: Instant },
    Hidden,
}

impl Progress {
    /// Starts a step of `total` units (0 if unknown), for instance documents.
    pub(super) fn start(what: &str, total: u64, hidden: bool) -> Progress {
        let view = if hidden {
            View::Hidden
        } else if output::stderr_is_terminal() {
            View::Bar(bar(what, total))
        } else {
            View::Lines { next: Instant::now() + LINE_INTERVAL }
        };
        Progress { view, what: what.to_owned() }
    }

    /// Tells how far it is.
    pub(super) fn update(&mut self, done: u64, total: u64, note: &str) {
        match &mut self.view {
            View::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(note.to_owned());
            }
            View::Lines { next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + LINE_INTERVAL;
                    let of =
                        if total > 0 { format!(" of {}", output::thousands(total)) } else { String::new() };
                    let comma = if note.is_empty() { "" } else { ", " };
                    output::note(&format!("{}: {}{of}{comma}{note}", self.what, output::thousands(done)));
                }
            }
            View::Hidden => {}
        }
    }

    /// Prints a line for people above the bar, or by itself.
    pub(super) fn say(&self, line: &str) {
        match &self.view {
            View::Bar(bar) => bar.println(line),
            View::Lines { .. } => output::note(line),
            View::Hidden => {}
        }
    }

    /// Ends the step; `summary` stays on the screen.
    pub(super) fn finish(self, summary: &str) {
        match &self.view {
            View::Bar(bar) => {
                bar.finish_and_clear();
                output::note(summary);
            }
            View::Lines { .. } => output::note(summary),
            View::Hidden => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let template = "{prefix:<22} {bar:30} {human_pos:>8} of {human_len} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total);
    bar.set_style(style);
    bar.set_prefix(what.to_owned());
    bar
}
