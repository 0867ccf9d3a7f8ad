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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::store::indexes::Life;
    use crate::database::store::keys::CollectionKey;
    use crate::database::tests::Fixture;

    /// A store that has failed is left alone; what cannot be done now is tried again.
    #[test]
    fn building_is_tried_again_unless_the_store_has_failed() {
        for has_failed in [false, true] {
            let fixture = Fixture::new();
            let database = fixture.open();
            let collection = database.default_collection().expect("default");
            let (store, timer) = (&database.store, Timer::default());
            // Nobody else is to build it.
            store.indexer.end();
            collection.create_index("n", ["n"]).expect("created");
            if has_failed {
                store.fail_syncs(1);
                assert!(collection.put("x", &serde_json::json!({})).is_err());
            } else {
                // A record that is not there.
                let state = store.collection(CollectionKey(0)).expect("default");
                collection.put("x", &serde_json::json!({})).expect("put");
                let index = state.indexes.named("n").expect("the index");
                assert_eq!(index.life(), Life::Kept);
                super::super::tests::lose_records(&database);
            }
            match look(&Arc::downgrade(store), &timer) {
                Look::Again(wait) => assert!(!has_failed && wait == LATER, "{wait:?}"),
                Look::Never => assert!(has_failed),
                Look::Idle => unreachable!("it is not built"),
            }
        }
    }
}
