//! When commits go to stable storage, and who is told.

use std::collections::BTreeMap;
#[cfg(feature = "simulation")]
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use super::engine::{Ticket, Watermarks};
use super::handle::Store;
use super::keys::CollectionKey;
use super::state::CollectionState;
use crate::database::DatabaseError;
use crate::database::config::{Durability, RELAXED_SYNC_MS};

impl Store {
    /// Waits until stable storage has the commit, if this database is so configured; tells listeners.
    pub(crate) fn finish(self: &Arc<Store>, ticket: Ticket) -> Result<(), DatabaseError> {
        self.expire_later();
        match self.durability {
            Durability::Synced => self.sync(ticket),
            Durability::Relaxed => {
                self.sync_later();
                Ok(())
            }
        }
    }

    /// Waits until stable storage has the commit, whatever the configuration.
    pub(crate) fn sync(&self, ticket: Ticket) -> Result<(), DatabaseError> {
        self.engine().sync(ticket, |durable| publish(&self.collections, &self.changed, durable))
    }

    /// The newest commit.
    pub(crate) fn newest(&self) -> Ticket {
        self.engine().newest()
    }

    /// Lets a thread of its own sync what is applied within [`RELAXED_SYNC_MS`].
    pub(crate) fn sync_later(self: &Arc<Store>) {
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            // Without tasks there is no later.
            return match tokio::runtime::Handle::try_current() {
                Ok(_) => simulated_sync_later(Arc::downgrade(self)),
                Err(_) => drop(self.sync(self.newest())),
            };
        }
        let mut syncer = self.syncer.lock().unwrap_or_else(PoisonError::into_inner);
        if syncer.is_some() || self.engine().is_ended() {
            return;
        }
        let store = Arc::downgrade(self);
        let run = move || {
            while let Some(engine) = store.upgrade().map(|store| store.engine()) {
                if engine.wait_dirty().is_none() {
                    // Closed for good, failed, or replaced by a compaction.
                    match store.upgrade() {
                        Some(store) if !Arc::ptr_eq(&store.engine(), &engine) => continue,
                        _ => return,
                    }
                }
                engine.sleep(Duration::from_millis(RELAXED_SYNC_MS / 2));
                let Some(store) = store.upgrade() else { return };
                match store.sync(store.newest()) {
                    Ok(()) => {}
                    Err(DatabaseError::Closed) => return,
                    Err(error) => {
                        tracing::error!(%error, "background sync failed; the database accepts no more writes");
                        return;
                    }
                }
            }
        };
        // Without a thread there is no later: sync now.
        match std::thread::Builder::new().name("gattway-sync".into()).spawn(run) {
            Ok(thread) => *syncer = Some(thread),
            Err(_) => drop(self.sync(self.newest())),
        }
    }
}

/// Shows what became durable to readers of the feed and wakes listeners.
fn publish(
    collections: &RwLock<BTreeMap<CollectionKey, Arc<CollectionState>>>,
    changed: &watch::Sender<u64>,
    durable: Watermarks,
) {
    let collections = collections.read().unwrap_or_else(PoisonError::into_inner);
    for (key, sequence) in durable {
        if let Some(state) = collections.get(&key) {
            state.durable.fetch_max(sequence, Ordering::AcqRel);
        }
    }
    drop(collections);
    changed.send_modify(|count| *count = count.wrapping_add(1));
}

#[cfg(feature = "simulation")]
/// What the thread that syncs does for a store on a real disk.
fn simulated_sync_later(store: Weak<Store>) {
    crate::task::spawn(async move {
        tokio::time::sleep(Duration::from_millis(RELAXED_SYNC_MS / 2)).await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = store.sync(store.newest()) {
            tracing::debug!(%error, "background sync failed");
        }
    });
}
