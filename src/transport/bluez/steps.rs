//! What connecting spends its time on, for the log.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// The steps of one connect, in order, with the time that each took.
pub(super) struct Steps {
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// The first step begins.
    pub(super) fn begin() -> Steps {
        Steps { last: Instant::now(), done: Vec::new() }
    }

    /// A step has ended, and the next one begins.
    pub(super) fn done(&mut self, step: &'static str) {
        let now = Instant::now();
        self.done.push((step, now - std::mem::replace(&mut self.last, now)));
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, took) in &self.done {
            write!(f, "{step} {} ms, ", took.as_millis())?;
        }
        let all: Duration = self.done.iter().map(|(_, took)| *took).sum();
        write!(f, "in all {} ms", all.as_millis())
    }
}
