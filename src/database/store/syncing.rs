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
        self.index_later();
        match self.durability {
            Durability::Synced => self.sync_together(ticket),
            Durability::Relaxed => {
                self.sync_later();
                Ok(())
            }
        }
    }

    /// Waits until stable storage has the commit, whatever the configuration; the sync is made at once.
    pub(crate) fn sync(&self, ticket: Ticket) -> Result<(), DatabaseError> {
        self.sync_within(ticket, || Duration::ZERO)
    }

    /// Waits until stable storage has the commit, by a sync that others may come to share for as long as the configuration says.
    pub(crate) fn sync_together(&self, ticket: Ticket) -> Result<(), DatabaseError> {
        self.sync_within(ticket, || self.commit_delay())
    }

    fn sync_within(&self, ticket: Ticket, delay: impl Fn() -> Duration) -> Result<(), DatabaseError> {
        let synced =
            self.engine().sync(ticket, delay, |durable| publish(&self.collections, &self.changed, durable));
        self.tell_failure(synced)
    }

    /// Wakes those who watch the store when something failed, so that nobody has to ask again and again.
    pub(super) fn tell_failure<T>(&self, result: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        if result.is_err() {
            self.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
        result
    }

    fn commit_delay(&self) -> Duration {
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            // Whoever waits there holds up virtual time.
            return Duration::ZERO;
        }
        self.gathering.delay()
    }

    /// Whether commits wait for others as the configuration says, or are synced at once from now on.
    pub(crate) fn gather(&self, wanted: bool) {
        self.gathering.want(wanted);
        self.engine().hurry();
    }

    /// The newest commit.
    pub(crate) fn newest(&self) -> Ticket {
        self.engine().newest()
    }

    /// Lets a thread of its own sync what is applied within [`RELAXED_SYNC_MS`], or the delay of commits if that is longer.
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
        if syncer.is_some() {
            return;
        }
        let store = Arc::downgrade(self);
        let run = move || {
            while let Some(engine) = store.upgrade().map(|store| store.engine()) {
                let delay = store.upgrade().map_or(Duration::ZERO, |store| store.commit_delay());
                if engine.wait_due(delay.max(Duration::from_millis(RELAXED_SYNC_MS / 2))).is_none() {
                    // Closed for good, failed, or replaced by a compaction.
                    match store.upgrade() {
                        Some(store) if !Arc::ptr_eq(&store.engine(), &engine) => continue,
                        _ => return,
                    }
                }
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
