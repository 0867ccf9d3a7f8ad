//! How long requests waited for their answers, by class of status.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;

use crate::gateway::durations::Durations;

/// Classes of status, and what is none of them.
const CLASSES: [&str; 4] = ["2xx", "4xx", "5xx", "other"];

/// How long requests waited. Clones count together.
#[derive(Clone, Default)]
pub(super) struct Answered(Arc<Mutex<[Durations; CLASSES.len()]>>);

impl Answered {
    /// One was answered.
    pub(super) fn note(&self, status: StatusCode, waited: Duration) {
        let class = match status.as_u16() / 100 {
            2 => 0,
            4 => 1,
            5 => 2,
            _ => 3,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[class].note(waited);
    }

    /// Of each class that there was.
    pub(super) fn read(&self) -> Vec<(&'static str, Durations)> {
        let all = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        CLASSES.into_iter().zip(all).filter(|(_, durations)| durations.count > 0).collect()
    }
}
