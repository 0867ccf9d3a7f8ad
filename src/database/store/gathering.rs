//! How long commits wait for others, and what was written before the log was replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::engine::EngineCounts;

/// Whether commits wait for others to share their sync, and for how long.
pub(super) struct Gathering {
    delay: Duration,
    is_wanted: AtomicBool,
    /// What engines did that a compaction has replaced.
    before: Mutex<EngineCounts>,
}

impl Gathering {
    pub(super) fn new(delay: Duration) -> Gathering {
        Gathering { delay, is_wanted: AtomicBool::new(true), before: Mutex::default() }
    }

    /// How long a commit waits.
    pub(super) fn delay(&self) -> Duration {
        if self.is_wanted.load(Ordering::Relaxed) { self.delay } else { Duration::ZERO }
    }

    pub(super) fn want(&self, wanted: bool) {
        self.is_wanted.store(wanted, Ordering::Relaxed);
    }

    /// What engines before the present one have done.
    pub(super) fn before(&self) -> EngineCounts {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An engine has done this, and is replaced.
    pub(super) fn replaced(&self, counts: EngineCounts) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        *before = counts.after(*before);
    }
}
