//! What the store knows of its collections without looking, and what only the writer knows, under its lock.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

pub(super) use super::block::BLOCK_BYTES_TARGET;
use super::block::{Codec, records_len};
use super::engine::Engine;
use super::ground::damaged;
use super::indexes::{self, Indexes, Stamp};
use super::keys::{self, CollectionKey};
use super::pieces::read_pieces;
use super::tables;
use super::twin::{self, Twin};
use crate::database::DatabaseError;
use crate::database::clock::{ClockState, HybridClock};
use crate::replica::revision::SourceId;

/// Small blocks at the end of a collection's feed before they are joined.
pub(super) const TAIL_BLOCKS_MAX: usize = 32;

/// Counting asks the index for each record. So a block that loses records is counted when this part of it was lost since it
/// was first met, and else by lot.
const UNCOUNTED_PART: u32 = 8;

/// What is known of a collection without asking stable storage.
pub(crate) struct CollectionState {
    /// Canonical name.
    pub(crate) name: String,
    /// Newest sequence given out.
    pub(super) applied: AtomicU64,
    /// Newest sequence on stable storage.
    pub(super) durable: AtomicU64,
    /// Documents that are not tombstones.
    pub(super) documents: AtomicU64,
    /// Time up to which revisions were removed for their age ([`super::removed`]); 0 if none were.
    pub(super) horizon: AtomicU64,
    /// For each author the newest of its times in a tombstone that was removed ([`super::removed`]).
    pub(super) author_horizons: RwLock<BTreeMap<SourceId, u64>>,
    /// Those that are declared on paths.
    pub(super) indexes: Indexes,
}

impl CollectionState {
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn documents(&self) -> u64 {
        self.documents.load(Ordering::Acquire)
    }

    pub(crate) fn horizon(&self) -> u64 {
        self.horizon.load(Ordering::Acquire)
    }

    /// The newest time of an author in a tombstone that was removed; 0 if there is none.
    pub(super) fn author_horizon(&self, author: SourceId) -> u64 {
        let horizons = self.author_horizons.read().unwrap_or_else(PoisonError::into_inner);
        horizons.get(&author).copied().unwrap_or(0)
    }
}

/// Counters of a collection as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Counters {
    pub(super) last_sequence: u64,
    pub(super) documents: u64,
    pub(super) tombstones: u64,
    /// Newest sequence that some peer is known to have.
    pub(super) pushed: u64,
}

/// A small block at the end of a feed.
#[derive(Clone, Copy, Debug)]
pub(super) struct TailBlock {
    pub(super) sequence: u64,
    /// Bytes of records, not deflated.
    pub(super) bytes: usize,
}

pub(super) struct CollectionWriter {
    pub(super) state: Arc<CollectionState>,
    pub(super) counters: Counters,
    pub(super) tail: Vec<TailBlock>,
}

/// What is known of how many records of a block are alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveCount {
    pub(super) records: u32,
    /// At most so many: what it has lost before it was first met is not known until they are counted.
    pub(super) live: u32,
    pub(super) is_counted: bool,
}

impl LiveCount {
    /// Records that were counted.
    pub(super) fn counted(records: usize, live: usize) -> LiveCount {
        let [records, live] = [records, live].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        LiveCount { records, live, is_counted: true }
    }

    /// A block that is met for the first time.
    pub(super) fn met(records: usize) -> LiveCount {
        LiveCount { is_counted: false, ..LiveCount::counted(records, records) }
    }

    pub(super) fn without(self, lost: usize) -> LiveCount {
        LiveCount { live: self.live.saturating_sub(u32::try_from(lost).unwrap_or(u32::MAX)), ..self }
    }

    /// Whether so much is known to be lost that the rest is worth counting.
    pub(super) fn is_to_be_counted(self) -> bool {
        !self.is_counted && (self.records - self.live).saturating_mul(UNCOUNTED_PART) >= self.records
    }

    /// Whether it is dead by half.
    pub(super) fn is_garbage(self) -> bool {
        self.live.saturating_mul(2) <= self.records
    }
}

/// What only the writer knows, under its lock.
pub(super) struct WriterState {
    pub(super) clock: HybridClock,
    /// Whether it is remembered of some purged document that it had a time far ahead.
    pub(super) purged_ahead: bool,
    pub(super) twin: Option<Twin>,
    /// The newest time that the clock has given up, as far as it was told.
    pub(super) given_up: u64,
    /// No version in the table of those far ahead has a lower time.
    pub(super) ahead_from: u64,
    pub(super) names_stored: usize,
    pub(super) next_collection: u16,
    pub(super) collections: BTreeMap<CollectionKey, CollectionWriter>,
    pub(super) live_counts: HashMap<(CollectionKey, u64), LiveCount>,
    pub(super) codec: Codec,
    /// What was purged since a backup began; `None` if there is none.
    pub(super) purges: Option<Vec<(CollectionKey, Box<str>)>>,
}

impl WriterState {
    pub(super) fn load(engine: &Engine, names_stored: usize) -> Result<WriterState, DatabaseError> {
        let clock = match engine.get(keys::CLOCK)? {
            None => ClockState::default(),
            Some(value) => ClockState::from_bytes(&value).ok_or_else(|| damaged("the clock"))?,
        };
        Ok(WriterState {
            clock: HybridClock::resume(clock),
            given_up: clock.given_up,
            purged_ahead: tables::has_purged(engine)?,
            twin: twin::stored(engine)?,
            ahead_from: tables::lowest_ahead(engine)?,
            names_stored,
            next_collection: 0,
            collections: BTreeMap::new(),
            live_counts: HashMap::new(),
            codec: Codec::default(),
            purges: None,
        })
    }

    pub(super) fn load_collections(
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
            let (last_sequence, documents) = (counters.last_sequence, counters.documents);
            let indexes = indexes::load(engine, key, &Stamp { collection: &name, last_sequence, documents })?;
            self.add_collection(key, name, counters, tail, indexes);
            let horizon = tables::number(engine, &keys::numbered(keys::HORIZON, number))?;
            if let Some(collection) = self.collections.get(&key) {
                collection.state.horizon.store(horizon, Ordering::Release);
                *collection.state.author_horizons.write().unwrap_or_else(PoisonError::into_inner) =
                    tables::author_horizons(engine, key)?;
            }
        }
        Ok(self.collections.iter().map(|(&key, c)| (key, Arc::clone(&c.state))).collect())
    }

    pub(super) fn add_collection(
        &mut self,
        key: CollectionKey,
        name: String,
        counters: Counters,
        tail: Vec<TailBlock>,
        indexes: Indexes,
    ) {
        let state = Arc::new(CollectionState {
            name,
            applied: AtomicU64::new(counters.last_sequence),
            durable: AtomicU64::new(counters.last_sequence),
            documents: AtomicU64::new(counters.documents),
            horizon: AtomicU64::new(0),
            author_horizons: RwLock::default(),
            indexes,
        });
        self.collections.insert(key, CollectionWriter { state, counters, tail });
        self.next_collection = self.next_collection.max(key.0.saturating_add(1));
    }

    /// How far the clock is ahead of the wall clock, nanoseconds.
    pub(super) fn clock_ahead(&self, wall: u64) -> u64 {
        self.clock.ahead(wall)
    }

    /// What showed that another device uses this database's source ID, if anything did.
    pub(super) fn twin(&self) -> Option<&Twin> {
        self.twin.as_ref()
    }

    /// A version with this time stands in the table of those far ahead.
    pub(super) fn see_ahead(&mut self, time: u64) {
        self.ahead_from = self.ahead_from.min(time);
    }

    /// Forgets what it knows of the log's blocks, after a compaction.
    pub(super) fn relocate(&mut self, engine: &Engine) -> Result<(), DatabaseError> {
        self.live_counts.clear();
        for (&key, collection) in &mut self.collections {
            collection.tail = load_tail(engine, key)?;
        }
        Ok(())
    }

    /// Begins, or ends, to note what is purged.
    pub(super) fn note_purges(&mut self, wanted: bool) {
        self.purges = wanted.then(Vec::new);
    }

    /// What was purged since.
    pub(super) fn take_purges(&mut self) -> Vec<(CollectionKey, Box<str>)> {
        self.purges.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Each collection with its newest sequence and the newest that a peer has.
    pub(super) fn ends(&self) -> Vec<(u16, u64, u64)> {
        let end = |(key, collection): (&CollectionKey, &CollectionWriter)| {
            (key.0, collection.counters.last_sequence, collection.counters.pushed)
        };
        self.collections.iter().map(end).collect()
    }

    /// The counters of a collection.
    pub(super) fn counters(&self, key: CollectionKey) -> Option<Counters> {
        self.collections.get(&key).map(|collection| collection.counters)
    }

    /// Documents and tombstones that a collection counts.
    pub(super) fn counted(&self, key: CollectionKey) -> (u64, u64) {
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
