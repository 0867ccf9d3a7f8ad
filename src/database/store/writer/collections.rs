//! Collections come and go, and what is kept of them beside documents.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::super::engine::{Watermarks, Writes};
use super::super::expiry;
use super::super::ground::damaged;
use super::super::handle::Store;
use super::super::indexes::Indexes;
use super::super::keys::{self, CollectionKey};
use super::super::pieces::read_pieces;
use super::super::state::Counters;
use super::super::tables;
use crate::database::DatabaseError;
use crate::database::config::COLLECTIONS_MAX;

impl Store {
    /// Adds a collection; the existing one if there is one of this canonical name.
    pub(crate) fn create_collection(&self, name: &str) -> Result<CollectionKey, DatabaseError> {
        let mut state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = self.collection_key(name) {
            return Ok(key);
        }
        self.check_writable()?;
        if state.collections.len() >= COLLECTIONS_MAX {
            return Err(DatabaseError::TooManyCollections { max: COLLECTIONS_MAX });
        }
        // Handles of a collection deleted meanwhile must not find another one.
        let number = state.next_collection;
        let key = CollectionKey(number);
        let mut writes = Writes::default();
        writes.insert(keys::numbered(keys::COLLECTION, number), name.as_bytes());
        let ticket = self.engine().apply(writes, Watermarks::new())?;
        state.add_collection(key, name.to_owned(), Counters::default(), Vec::new(), Indexes::default());
        if let Some(added) = state.collections.get(&key) {
            let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
            collections.insert(key, Arc::clone(&added.state));
        }
        drop(state);
        self.sync(ticket)?;
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        Ok(key)
    }

    /// Removes a collection with all it holds.
    pub(crate) fn delete_collection(&self, key: CollectionKey) -> Result<(), DatabaseError> {
        self.check_writable()?;
        let mut state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writes = Writes::default();
        let remove = |from: &[u8], to: &[u8], writes: &mut Writes| {
            self.engine().scan(from, to, |key, _| {
                writes.remove(key);
                Ok(ControlFlow::Continue(()))
            })
        };
        remove(&keys::index(key, ""), &keys::index_end(key), &mut writes)?;
        remove(&keys::block(key, 0)[..3], &keys::block_end(key), &mut writes)?;
        remove(&keys::checkpoint(key, ""), &keys::checkpoint_end(key), &mut writes)?;
        let (from, to) = keys::definitions(key);
        remove(&from, &to, &mut writes)?;
        let (from, to) = keys::entries_of(key);
        remove(&from, &to, &mut writes)?;
        writes.remove(keys::numbered(keys::STAMP, key.0));
        writes.remove(keys::numbered(keys::COLLECTION, key.0));
        writes.remove(keys::numbered(keys::COUNTERS, key.0));
        self.forget_ahead(key, &mut writes)?;
        let marks = self.forget_retained(key, &mut writes)?;
        let unnamed = self.forget_blobs(key, &mut writes)?;
        self.forget_bases(key, &mut writes)?;
        // Documents made anew have to be newer than what peers still have.
        let purged = self.forget_purged(key, &mut writes)?;
        state.clock.forget_any(self.newest_own(key)?.max(purged));
        if let Some(clock) = state.clock.take_unstored() {
            writes.insert(keys::CLOCK, clock.to_bytes());
        }
        let ticket = self.engine().apply(writes, Watermarks::new())?;
        self.marks.store(marks, Ordering::Release);
        self.suspect(unnamed);
        self.look_for_next_expiration();
        state.collections.remove(&key);
        state.live_counts.retain(|(k, _), _| *k != key);
        self.collections.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
        drop(state);
        self.sync(ticket)
    }

    /// Stages to forget what is to expire and what was removed in a collection that is being deleted; gives how many marks are
    /// left.
    fn forget_retained(&self, key: CollectionKey, writes: &mut Writes) -> Result<u64, DatabaseError> {
        let engine = self.engine();
        let prefix = keys::expiration(key, "");
        engine.scan(&prefix, &keys::kind_range(keys::EXPIRATION).1, |entry, value| {
            let parts = keys::expiration_parts(entry).zip(expiry::time_of(value));
            let ((of, id), time) = parts.ok_or_else(|| damaged("an expiration"))?;
            if of != key {
                return Ok(ControlFlow::Break(()));
            }
            writes.remove(keys::due(time, key, id));
            writes.remove(entry);
            Ok(ControlFlow::Continue(()))
        })?;
        let (mut gone, prefix) = (0, keys::mark(key, None));
        engine.scan(&prefix, &keys::kind_range(keys::MARK).1, |entry, value| {
            let minute = value.first_chunk::<4>().map(|minute| u32::from_be_bytes(*minute));
            let parts = keys::mark_parts(entry).zip(minute);
            let ((of, hash), minute) = parts.ok_or_else(|| damaged("the mark of a removed document"))?;
            if of != key {
                return Ok(ControlFlow::Break(()));
            }
            writes.remove(keys::marked(minute, key, hash));
            writes.remove(entry);
            gone += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        writes.remove(keys::numbered(keys::HORIZON, key.0));
        for author in tables::author_horizons(&engine, key)?.into_keys() {
            writes.remove(keys::author_horizon(key, Some(author)));
        }
        let left = self.marks.load(Ordering::Acquire).saturating_sub(gone);
        if gone > 0 {
            writes.insert(keys::MARKS, left.to_be_bytes());
        }
        Ok(left)
    }

    /// A checkpoint's stored bytes.
    pub(crate) fn checkpoint(
        &self,
        key: CollectionKey,
        client: &str,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let key = keys::checkpoint(key, client);
        let Some(first) = self.engine().get(&key)? else { return Ok(None) };
        Ok(read_pieces(&self.engine(), &key, &first)?.map(|(value, _)| value))
    }

    /// Names of the checkpoints that begin so, in order.
    pub(crate) fn checkpoint_names(
        &self,
        key: CollectionKey,
        prefix: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        let start = keys::checkpoint(key, prefix);
        let skipped = start.len() - prefix.len();
        let mut names: Vec<String> = Vec::new();
        self.engine().scan(&start, &keys::checkpoint_end(key), |key, _| {
            if !key.starts_with(&start) {
                return Ok(ControlFlow::Break(()));
            }
            // The further pieces of a long one have numbers after its name, which are no text.
            let name = key.get(skipped..).and_then(|name| std::str::from_utf8(name).ok());
            let is_piece = |name: &str| names.last().is_some_and(|last| name.starts_with(last.as_str()));
            if let Some(name) = name.filter(|name| !is_piece(name)) {
                names.push(name.to_owned());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(names)
    }

    /// Remembers that a peer has all changes up to `sequence`; stored with the next commit to the collection.
    pub(crate) fn mark_pushed(&self, key: CollectionKey, sequence: u64) {
        let mut state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(collection) = state.collections.get_mut(&key) {
            let known = sequence.min(collection.counters.last_sequence);
            collection.counters.pushed = collection.counters.pushed.max(known);
        }
    }
}
