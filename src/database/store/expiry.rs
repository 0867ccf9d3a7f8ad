//! Documents that expire: from that moment on nobody finds them, whether they are removed yet or not.
//!
//! The time stands beside the document, by ID and in order of time, in the commit that sets it. It stays through edits,
//! deletions and conflicts, and goes when the document is removed. A thread removes what is due in small commits, so that
//! neither writers nor a sync wait for it; until it has come to a document, reading leaves the document out.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::background::{Look, Worker};
use super::ground::damaged;
use super::handle::Store;
use super::index;
use super::keys::{self, CollectionKey};
use super::tables;
use super::timer::Timer;
use crate::database::DatabaseError;

/// Documents that one commit removes.
const REMOVED_AT_ONCE: usize = 64;

/// Between two such commits.
const PACE: Duration = Duration::from_millis(50);

/// The longest wait while something is to expire: the wall clock may be set meanwhile.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// Nanoseconds of a millisecond.
pub(super) const NS_PER_MS: u64 = 1_000_000;

impl Store {
    /// The wall clock in milliseconds since 1970.
    fn wall_ms(&self) -> u64 {
        self.wall() / NS_PER_MS
    }

    /// The earliest expiration there is; the highest number if there is none.
    pub(super) fn next_expiration(&self) -> u64 {
        self.next_expiration.load(Ordering::SeqCst)
    }

    /// Notes the earliest expiration, under the writer's lock. Where it cannot be read all documents are looked up.
    pub(super) fn look_for_next_expiration(&self) {
        let next = tables::next_expiration(&self.engine()).unwrap_or(0);
        self.next_expiration.store(next, Ordering::SeqCst);
    }

    /// Whether anything has expired and is not removed yet.
    pub(super) fn has_due(&self) -> bool {
        let next = self.next_expiration();
        next != u64::MAX && next <= self.wall_ms()
    }

    /// When a document expires, in milliseconds since 1970, if it does.
    pub(crate) fn expiration(&self, key: CollectionKey, id: &str) -> Result<Option<u64>, DatabaseError> {
        if self.next_expiration() == u64::MAX {
            return Ok(None);
        }
        let Some(value) = self.engine().get(&keys::expiration(key, id))? else { return Ok(None) };
        time_of(&value).map(Some).ok_or_else(|| damaged("the expiration of a document"))
    }

    /// Whether a document has expired.
    pub(crate) fn is_due(&self, key: CollectionKey, id: &str) -> Result<bool, DatabaseError> {
        if !self.has_due() {
            return Ok(false);
        }
        Ok(self.expiration(key, id)?.is_some_and(|time| is_over(time, self.wall())))
    }

    /// Documents of a collection, without tombstones and what has expired.
    pub(crate) fn count_documents(&self, key: CollectionKey) -> Result<u64, DatabaseError> {
        let documents = self.collection(key)?.documents();
        if !self.has_due() {
            return Ok(documents);
        }
        let (engine, mut due) = (self.engine(), 0);
        self.scan_due(|of, id| {
            let is_document = of == key && index::find(&engine, key, id)?.is_some_and(|e| !e.deleted);
            due += u64::from(is_document);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(documents.saturating_sub(due))
    }

    /// Visits what has expired, the oldest first.
    fn scan_due(
        &self,
        mut visit: impl FnMut(CollectionKey, &str) -> Result<ControlFlow<()>, DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let (from, _) = keys::kind_range(keys::DUE);
        let to = keys::due(self.wall_ms().saturating_add(1), CollectionKey(0), "");
        self.engine().scan(&from, &to, |key, _| {
            let (_, collection, id) = keys::due_parts(key).ok_or_else(|| damaged("an expiration"))?;
            visit(collection, id)
        })
    }

    /// Removes some of what has expired, at most `limit` documents. Gives the time of the next that is to go, which may be
    /// over already.
    pub(crate) fn remove_due(self: &Arc<Store>, limit: usize) -> Result<Option<u64>, DatabaseError> {
        if self.has_due() {
            let mut writer = self.writer();
            let mut due = Vec::new();
            self.scan_due(|collection, id| {
                due.push((collection, id.to_owned()));
                Ok(if due.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            for (key, id) in due {
                // Whoever looks at it for a change takes it out; what is not there any more leaves its time.
                if self.collection(key).is_ok() {
                    writer.revision(key, &id)?;
                }
                writer.set_expiration(key, &id, None);
            }
            writer.commit()?;
            self.sync_later();
        }
        Ok(Some(self.next_expiration()).filter(|next| *next != u64::MAX))
    }

    /// Sees to it that what expires is removed then.
    pub(crate) fn expire_later(self: &Arc<Store>) {
        let next = self.next_expiration();
        // Without a thread what has expired stays on the medium, hidden, until the database is opened again.
        self.timer.look_at(next, || Worker { name: "gattway-expiry", timer: &self.timer, look }.start(self));
    }
}

/// Whether a time in milliseconds is over.
pub(super) fn is_over(time_ms: u64, wall: u64) -> bool {
    time_ms <= wall / NS_PER_MS
}

/// The time in the value of an expiration.
pub(super) fn time_of(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// Removes some of what has expired.
fn look(store: &Weak<Store>, timer: &Timer) -> Look {
    let Some(store) = store.upgrade() else { return Look::Never };
    timer.plan(0);
    let next = match store.remove_due(REMOVED_AT_ONCE) {
        Ok(next) => next,
        Err(DatabaseError::Closed) => return Look::Never,
        Err(_) if store.failure().is_some() => return Look::Never,
        Err(error) => {
            tracing::warn!(%error, "what has expired cannot be removed now; it is tried again");
            return Look::Again(LOOK_MAX);
        }
    };
    timer.plan(next.unwrap_or(u64::MAX));
    // One may have been set meanwhile.
    match store.next_expiration() {
        u64::MAX => Look::Idle,
        next => {
            let wait = Duration::from_millis(next.saturating_sub(store.wall_ms()));
            Look::Again(wait.clamp(PACE, LOOK_MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::engine::{Watermarks, Writes};
    use super::*;
    use crate::database::tests::Fixture;

    /// A store that has failed is left alone: it takes nothing more. What cannot be read may be readable the next time.
    #[test]
    fn removing_is_tried_again_unless_the_store_has_failed() {
        for has_failed in [false, true] {
            let fixture = Fixture::new();
            let database = fixture.open();
            let collection = database.default_collection().expect("default");
            collection.put("x", &serde_json::json!({})).expect("put");
            let (store, timer) = (&database.store, Timer::default());
            // Nobody else is to remove it.
            store.timer.end();
            let soon = SystemTime::now() + Duration::from_millis(1);
            collection.set_expiration("x", Some(soon)).expect("set");
            while !store.has_due() {
                std::thread::yield_now();
            }
            if has_failed {
                store.fail_syncs(1);
                assert!(collection.put("y", &serde_json::json!({})).is_err());
            } else {
                let mut writes = Writes::default();
                writes.insert([keys::DUE, 0], []);
                store.engine().apply(writes, Watermarks::new()).expect("applied");
            }
            match look(&Arc::downgrade(store), &timer) {
                Look::Again(wait) => assert!(!has_failed && wait == LOOK_MAX, "{wait:?}"),
                Look::Never => assert!(has_failed),
                Look::Idle => unreachable!("it is still there"),
            }
        }
    }
}
