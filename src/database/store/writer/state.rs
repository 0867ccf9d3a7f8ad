//! What the writer knows between commits: collections, counters, the small blocks at the end of each feed.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};

use super::super::block::{Codec, records_len};
use super::super::engine::{Engine, Watermarks, Writes};
use super::super::keys::{self, CollectionKey};
use super::super::read::{damaged, read_pieces};
use super::super::twin::Twin;
use super::super::{CollectionState, Store};
use super::{BLOCK_BYTES_TARGET, CollectionWriter, Counters, TAIL_BLOCKS_MAX, TailBlock, WriterState};
use crate::database::DatabaseError;
use crate::database::clock::{ClockState, HybridClock};
use crate::database::config::COLLECTIONS_MAX;

impl WriterState {
    pub(in crate::database::store) fn load(
        engine: &Engine,
        names_stored: usize,
    ) -> Result<WriterState, DatabaseError> {
        let clock = match engine.get(keys::CLOCK)? {
            None => ClockState::default(),
            Some(value) => ClockState::from_bytes(&value).ok_or_else(|| damaged("the clock"))?,
        };
        Ok(WriterState {
            clock: HybridClock::resume(clock),
            given_up: clock.given_up,
            purged_ahead: super::super::purged::any(engine)?,
            twin: super::super::twin::stored(engine)?,
            ahead_from: super::super::ahead::lowest(engine)?,
            names_stored,
            next_collection: 0,
            collections: BTreeMap::new(),
            live_counts: HashMap::new(),
            codec: Codec::default(),
            purges: None,
        })
    }

    pub(in crate::database::store) fn load_collections(
        &mut self,
        engine: &Engine,
    ) -> Result<BTreeMap<CollectionKey, Arc<CollectionState>>, DatabaseError> {
        let (from, to) = keys::kind_range(keys::COLLECTION);
        let mut names = Vec::new();
        engine.scan(&from, &to, |key, value| {
            let number = key.get(1..3).and_then(|k| k.try_into().ok()).map(u16::from_be_bytes);
            let name = String::from_utf8(value.to_vec()).ok();
            names.push(number.zip(name).ok_or_else(|| damaged("the collections"))?);
            Ok(ControlFlow::Continue(()))
        })?;
        for (number, name) in names {
            let key = CollectionKey(number);
            let counters = match engine.get(&keys::numbered(keys::COUNTERS, number))? {
                None => Counters::default(),
                Some(value) => {
                    postcard::from_bytes(&value).map_err(|_| damaged("a collection's counters"))?
                }
            };
            let tail = load_tail(engine, key)?;
            self.add_collection(key, name, counters, tail);
        }
        Ok(self.collections.iter().map(|(&key, c)| (key, Arc::clone(&c.state))).collect())
    }

    fn add_collection(&mut self, key: CollectionKey, name: String, counters: Counters, tail: Vec<TailBlock>) {
        let state = Arc::new(CollectionState {
            name,
            applied: AtomicU64::new(counters.last_sequence),
            durable: AtomicU64::new(counters.last_sequence),
            documents: AtomicU64::new(counters.documents),
        });
        self.collections.insert(key, CollectionWriter { state, counters, tail });
        self.next_collection = self.next_collection.max(key.0.saturating_add(1));
    }

    /// How far the clock is ahead of the wall clock, nanoseconds.
    pub(in crate::database::store) fn clock_ahead(&self, wall: u64) -> u64 {
        self.clock.ahead(wall)
    }

    /// What showed that another device uses this database's source ID, if anything did.
    pub(in crate::database::store) fn twin(&self) -> Option<&Twin> {
        self.twin.as_ref()
    }

    /// A version with this time stands in the table of those far ahead.
    pub(in crate::database::store) fn see_ahead(&mut self, time: u64) {
        self.ahead_from = self.ahead_from.min(time);
    }

    /// Forgets what it knows of the log's blocks, after a compaction.
    pub(in crate::database::store) fn relocate(&mut self, engine: &Engine) -> Result<(), DatabaseError> {
        self.live_counts.clear();
        for (&key, collection) in &mut self.collections {
            collection.tail = load_tail(engine, key)?;
        }
        Ok(())
    }

    /// Begins, or ends, to note what is purged.
    pub(in crate::database::store) fn note_purges(&mut self, wanted: bool) {
        self.purges = wanted.then(Vec::new);
    }

    /// What was purged since.
    pub(in crate::database::store) fn take_purges(&mut self) -> Vec<(CollectionKey, Box<str>)> {
        self.purges.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Each collection with its newest sequence and the newest that a peer has.
    pub(in crate::database::store) fn ends(&self) -> Vec<(u16, u64, u64)> {
        let end = |(key, collection): (&CollectionKey, &CollectionWriter)| {
            (key.0, collection.counters.last_sequence, collection.counters.pushed)
        };
        self.collections.iter().map(end).collect()
    }

    /// Documents and tombstones that a collection counts.
    pub(in crate::database::store) fn counted(&self, key: CollectionKey) -> (u64, u64) {
        self.collections.get(&key).map_or((0, 0), |c| (c.counters.documents, c.counters.tombstones))
    }
}

/// The small blocks that an earlier run left at the end of a feed.
fn load_tail(engine: &Engine, key: CollectionKey) -> Result<Vec<TailBlock>, DatabaseError> {
    let (from, mut to) = (keys::block(key, 0), keys::block_end(key));
    let mut tail = Vec::new();
    while tail.len() < TAIL_BLOCKS_MAX {
        let Some((block_key, value)) = engine.last(&from, &to)? else { break };
        // The last entry is a further piece if the block is large; that ends the tail as well.
        let Some(sequence) = keys::block_sequence(&block_key) else { break };
        let Some((value, _)) = read_pieces(engine, &block_key, &value)? else { break };
        let bytes = records_len(&value).ok_or_else(|| damaged("a block of records"))?;
        if bytes >= BLOCK_BYTES_TARGET / 2 {
            break;
        }
        tail.push(TailBlock { sequence, bytes });
        to = block_key.to_vec();
    }
    tail.reverse();
    Ok(tail)
}

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
        state.add_collection(key, name.to_owned(), Counters::default(), Vec::new());
        if let Some(added) = state.collections.get(&key) {
            let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
            collections.insert(key, Arc::clone(&added.state));
        }
        drop(state);
        self.sync(ticket)?;
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
        writes.remove(keys::numbered(keys::COLLECTION, key.0));
        writes.remove(keys::numbered(keys::COUNTERS, key.0));
        self.forget_ahead(key, &mut writes)?;
        // Documents made anew have to be newer than what peers still have.
        let purged = self.forget_purged(key, &mut writes)?;
        state.clock.forget_any(self.newest_own(key)?.max(purged));
        if let Some(clock) = state.clock.take_unstored() {
            writes.insert(keys::CLOCK, clock.to_bytes());
        }
        let ticket = self.engine().apply(writes, Watermarks::new())?;
        state.collections.remove(&key);
        state.live_counts.retain(|(k, _), _| *k != key);
        self.collections.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
        drop(state);
        self.sync(ticket)
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
