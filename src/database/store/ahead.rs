//! Which revisions had a time far ahead of the wall clock when they were stored. There are hardly ever any, and where there
//! are they are asked for again and again: so they have a table, and nobody has to look through all documents.
//!
//! A key is time, collection and sequence. An entry goes with its record. One whose time the wall clock has reached since
//! stays and is not counted. A database that was made before there was the table, or by a repair or restore, gets it when it is
//! first asked, or compacted.

use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::engine::{Watermarks, Writes};
use super::handle::Store;
use super::keys::{self, CollectionKey};
use super::redo;
use crate::database::DatabaseError;
use crate::database::clock;

/// Most that are counted; beyond it there are simply many.
pub const AHEAD_COUNTED_MAX: u64 = 10_000;

/// Records looked at in one go, and about the bytes of their bodies.
const RECORDS_AT_ONCE: usize = 1_000;
const BYTES_AT_ONCE: usize = 1 << 20;

impl Store {
    pub(crate) fn versions_ahead(&self) -> u64 {
        self.versions_ahead.load(Ordering::Relaxed)
    }

    /// The table of a new database is complete from the beginning.
    pub(super) fn begin_ahead_table(&self) -> Result<(), DatabaseError> {
        if self.is_new { self.declare_ahead_table() } else { Ok(()) }
    }

    fn declare_ahead_table(&self) -> Result<(), DatabaseError> {
        let mut writes = Writes::default();
        writes.insert(keys::AHEAD_COMPLETE, []);
        let ticket = self.engine().apply(writes, Watermarks::new())?;
        self.sync(ticket)
    }

    /// Makes the table of a database that has none.
    pub(super) fn complete_ahead_table(&self) -> Result<(), DatabaseError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.engine();
        if engine.get(keys::AHEAD_COMPLETE)?.is_some() {
            return Ok(());
        }
        let mut lowest = u64::MAX;
        self.walk_ahead(|found| {
            lowest = lowest.min(found.iter().map(|&(time, ..)| time).min().unwrap_or(u64::MAX));
            let keys = found.iter().map(|&(time, key, sequence)| keys::ahead(time, key, sequence));
            redo::apply_in_steps(&engine, keys.map(|key| (key, Some(Vec::new()))))
        })?;
        writer.see_ahead(lowest);
        self.declare_ahead_table()
    }

    /// Visits what is ahead now by looking at all documents.
    fn walk_ahead(
        &self,
        mut visit: impl FnMut(&[(u64, CollectionKey, u64)]) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let wall = self.wall();
        for (key, state) in self.collections() {
            let (mut after, until) = (0, state.applied());
            loop {
                let records = self.stored_within(key, after, until, RECORDS_AT_ONCE, BYTES_AT_ONCE)?;
                let Some(last) = records.last() else { break };
                after = last.sequence;
                let ahead: Vec<_> = records
                    .iter()
                    .map(|record| (record.vector.current.time, key, record.sequence))
                    .filter(|(time, ..)| clock::is_ahead(*time, wall))
                    .collect();
                visit(&ahead)?;
            }
        }
        Ok(())
    }

    /// Documents and tombstones whose current version is far ahead of the wall clock, as far as [`AHEAD_COUNTED_MAX`].
    pub(crate) fn count_ahead(&self) -> Result<u64, DatabaseError> {
        let mut count = 0;
        if self.is_read_only() && self.engine().get(keys::AHEAD_COMPLETE)?.is_none() {
            self.walk_ahead(|found| {
                count += found.len() as u64;
                Ok(())
            })?;
            return Ok(count.min(AHEAD_COUNTED_MAX));
        }
        if !self.is_read_only() {
            self.complete_ahead_table()?;
        }
        let first = self.wall().saturating_add(clock::AHEAD_MAX).saturating_add(1);
        let from = keys::ahead(first, CollectionKey(0), 0);
        self.engine().scan(&from, &keys::kind_range(keys::AHEAD).1, |_, _| {
            count += 1;
            Ok(if count < AHEAD_COUNTED_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(count)
    }

    /// Takes a collection that is being deleted out of the table.
    pub(super) fn forget_ahead(
        &self,
        collection: CollectionKey,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let (from, to) = keys::kind_range(keys::AHEAD);
        self.engine().scan(&from, &to, |key, _| {
            if keys::ahead_parts(key).is_some_and(|(_, of, _)| of == collection) {
                writes.remove(key);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The newest time of ours that a document of a collection has; 0 if none has one. An edit on top of another's may be
    /// above all that the clock has given out.
    pub(super) fn newest_own(&self, collection: CollectionKey) -> Result<u64, DatabaseError> {
        let (mut after, mut newest) = (0, 0);
        let until = self.collection(collection)?.applied();
        loop {
            let records = self.stored_within(collection, after, until, RECORDS_AT_ONCE, BYTES_AT_ONCE)?;
            let Some(last) = records.last() else { return Ok(newest) };
            after = last.sequence;
            let own = records.iter().filter_map(|record| record.vector.time_of(self.source)).max();
            newest = newest.max(own.unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::database::clock::wall_now;
    use crate::database::tests::{Fixture, replica::take_from_a_peer};

    const YEAR: u64 = 365 * clock::AHEAD_MAX;

    #[test]
    fn counts_what_is_ahead_whatever_becomes_of_it() {
        let fixture = Fixture::new();
        let database = fixture.open();
        let count = |database: &crate::database::Database| database.count_ahead().expect("count");
        let future = wall_now() + 300 * YEAR;
        (0..6).for_each(|n| take_from_a_peer(&database, &format!("d{n}"), future + n));
        take_from_a_peer(&database, "near", wall_now() + clock::AHEAD_MAX / 2);
        assert_eq!(count(&database), 6);
        let collection = database.default_collection().expect("default");
        collection.put("d0", &json!({})).expect("put");
        collection.purge("d1").expect("purge");
        database.batch(|batch| batch.delete(&collection, "d2")).expect("delete");
        assert_eq!(count(&database), 3);
        database.compact().expect("compact");
        drop((collection, database));
        let database = fixture.open();
        let collection = database.default_collection().expect("default");
        assert_eq!(count(&database), 3);
        collection.put("d3", &json!({})).expect("put");
        assert_eq!(count(&database), 2);
        // As an older release left it: the table is made when it is asked for, and then kept.
        let engine = database.store.engine();
        let mut writes = Writes::default();
        engine
            .scan(b"A", b"b", |key, _| {
                writes.remove(key);
                Ok(ControlFlow::Continue(()))
            })
            .expect("scan");
        let ticket = engine.apply(writes, Watermarks::new()).expect("apply");
        database.store.sync(ticket).expect("sync");
        drop((collection, database, engine));
        let config = crate::database::DatabaseConfig { read_only: true, ..Default::default() };
        assert_eq!(count(&fixture.try_open(config).expect("open to read")), 2);
        let database = fixture.open();
        let collection = database.default_collection().expect("default");
        collection.put("d4", &json!({})).expect("put");
        assert_eq!(count(&database), 1);
        collection.put("d5", &json!({})).expect("put");
        assert_eq!(count(&database), 0);
    }
}
