//! Who builds indexes in the background, and how fast.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::handle::Store;
use super::super::timer::{Started, Timer};
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
        if !self.index_work.load(Ordering::SeqCst) || self.is_read_only() {
            return;
        }
        let (store, timer) = (Arc::downgrade(self), Arc::clone(&self.indexer));
        self.indexer.look_at(1, || {
            #[cfg(feature = "simulation")]
            if self.simulated.is_some() {
                return simulated(store, timer);
            }
            spawn(store, timer)
        });
    }
}

/// When the next look is due.
enum Look {
    Again(Duration),
    Idle,
    /// The store is closed, or has failed.
    Never,
}

/// Starts the thread; without one indexes are built when the database is opened again.
fn spawn(store: Weak<Store>, timer: Arc<Timer>) -> Started {
    let run = move || {
        loop {
            let wait = match look(&store, &timer) {
                Look::Again(wait) => Some(wait),
                Look::Idle => None,
                Look::Never => return,
            };
            if !timer.wait(wait) {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("gattway-index".into()).spawn(run);
    thread.map_or(Started::Nobody, Started::Thread)
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

/// What the thread does for a store on a real disk. Where there are no tasks, whoever simulates calls for it.
#[cfg(feature = "simulation")]
fn simulated(store: Weak<Store>, timer: Arc<Timer>) -> Started {
    if tokio::runtime::Handle::try_current().is_err() {
        return Started::Nobody;
    }
    crate::task::spawn(async move {
        while let Look::Again(wait) = look(&store, &timer) {
            tokio::time::sleep(wait).await;
        }
        timer.rest();
    });
    Started::Task
}
