//! Who builds indexes in the background, and how fast.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::background::{Look, Worker};
use super::super::handle::Store;
use super::super::timer::Timer;
use super::build::Work;
use crate::database::DatabaseError;

/// Between two pieces; as long as the last one took, so that writers have half of the time, within these.
const PACE_MIN: Duration = Duration::from_millis(1);
const PACE_MAX: Duration = Duration::from_millis(500);

/// The wait after a failure, and while a dropped index is still being read.
const LATER: Duration = Duration::from_secs(2);

impl Store {
    /// Sees to it that indexes are built, and that those which are dropped go.
    pub(crate) fn index_later(self: &Arc<Store>) {
        if !self.index_work.load(Ordering::SeqCst) {
            return;
        }
        // Without a thread indexes are built when the database is opened again.
        self.indexer.look_at(1, || Worker { name: "gattway-index", timer: &self.indexer, look }.start(self));
    }
}

fn look(store: &Weak<Store>, timer: &Timer) -> Look {
    let Some(store) = store.upgrade() else { return Look::Never };
    timer.plan(0);
    let began = Instant::now();
    match store.work_on_indexes() {
        Ok(Work::More) => {
            store.sync_later();
            return Look::Again(began.elapsed().clamp(PACE_MIN, PACE_MAX));
        }
        Ok(Work::Waiting) => return Look::Again(LATER),
        Ok(Work::Done) => {}
        Err(DatabaseError::Closed) => return Look::Never,
        Err(_) if store.failure().is_some() => return Look::Never,
        Err(error) => {
            tracing::warn!(%error, "an index cannot be built now; it is tried again");
            return Look::Again(LATER);
        }
    }
    timer.plan(u64::MAX);
    // One may have been declared meanwhile.
    if store.index_work.load(Ordering::SeqCst) { Look::Again(PACE_MIN) } else { Look::Idle }
}
