//! The order in which a large commit's list is declared, carried out and withdrawn, for a test.

use std::sync::{Arc, Mutex};

use super::{Entry, SimulatedDisk};
use crate::database::store::keys;

/// What was done, and how many batches were not on stable storage just before.
type Steps = Arc<Mutex<Vec<(&'static str, usize)>>>;

#[derive(Default)]
pub(super) struct Watched {
    steps: Steps,
    is_declared: bool,
}

impl Watched {
    pub(super) fn see(&mut self, entries: &[Entry], pending: usize) {
        let declaration = entries.iter().find(|(key, _)| key == keys::REDO_COMPLETE);
        let step = match declaration {
            Some((_, Some(_))) => "declared",
            Some((_, None)) => "withdrawn",
            None if std::mem::take(&mut self.is_declared) => "carried out",
            None => return,
        };
        self.is_declared = step == "declared";
        self.steps.lock().expect("lock").push((step, pending));
    }
}

impl SimulatedDisk {
    /// Notes from now on what becomes of lists of writes.
    pub(crate) fn watch_lists(&self) -> Steps {
        let watched = Watched::default();
        let steps = Arc::clone(&watched.steps);
        self.lock().watched = Some(watched);
        steps
    }
}
