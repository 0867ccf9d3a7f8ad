//! Writing: one writer at a time stages revisions, then commits them as one atomic batch.
//!
//! New records go into blocks in order of sequence. A commit that does not fill a block leaves a small one; when
//! [`TAIL_BLOCKS_MAX`] small ones have gathered they are joined. A record whose document was saved again is dead; a
//! block that is dead by half is written again without its dead, one that is dead wholly goes. So at most about half
//! of what the blocks hold is garbage, and no pass over the whole database is ever needed.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::block::{BlockBuilder, Codec, StoredRevision};
use super::engine::{Engine, Ticket, Watermarks, Writes};
use super::index::{IndexEdit, IndexEntry};
use super::keys::{self, CollectionKey};
use super::read::{FoundBlock, Moved, damaged, find_block, read_pieces, write_pieces};
use super::tables::write_new_names;
use super::{CollectionState, Store, wall};
use crate::database::DatabaseError;
use crate::database::clock::HybridClock;
use crate::database::config::COLLECTIONS_MAX;
use crate::database::revision::{Version, VersionVector};

/// Bytes of records (not deflated) after which a block is closed.
pub(super) const BLOCK_BYTES_TARGET: usize = 4096;

/// Small blocks at the end of a collection's feed before they are joined.
const TAIL_BLOCKS_MAX: usize = 32;

/// Blocks whose dead records are counted in memory; beyond it all are forgotten, and counted anew when met.
const COUNTED_BLOCKS_MAX: usize = 8192;

impl WriterState {
    /// Forgets what it knows of the log's blocks, after a compaction.
    pub(super) fn relocate(&mut self, engine: &Engine) -> Result<(), DatabaseError> {
        self.census.clear();
        for (&key, collection) in &mut self.collections {
            collection.tail = load_tail(engine, key)?;
        }
        Ok(())
    }

    /// Documents and tombstones that a collection counts.
    pub(super) fn counted(&self, key: CollectionKey) -> (u64, u64) {
        self.collections.get(&key).map_or((0, 0), |c| (c.counters.documents, c.counters.tombstones))
    }
}

/// Longest checkpoint body, bytes.
pub(crate) const CHECKPOINT_BODY_MAX: usize = 64 * 1024;

/// Most checkpoints one collection keeps; each belongs to a peer and its configuration.
const CHECKPOINTS_MAX: usize = 4096;

/// Counters of a collection as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counters {
    last_sequence: u64,
    documents: u64,
    tombstones: u64,
    /// Newest sequence that some peer is known to have.
    pushed: u64,
}

/// A small block at the end of a feed.
#[derive(Clone, Copy, Debug)]
struct TailBlock {
    sequence: u64,
    /// Bytes of records, not deflated.
    bytes: usize,
}

struct CollectionWriter {
    state: Arc<CollectionState>,
    counters: Counters,
    tail: Vec<TailBlock>,
}

/// Living records of a block.
#[derive(Clone, Copy, Debug)]
struct Census {
    records: usize,
    living: usize,
}

/// What only the writer knows, under its lock.
pub(super) struct WriterState {
    clock: HybridClock,
    names_stored: usize,
    next_collection: u16,
    collections: BTreeMap<CollectionKey, CollectionWriter>,
    census: HashMap<(CollectionKey, u64), Census>,
    codec: Codec,
}

impl WriterState {
    pub(super) fn load(engine: &Engine, names_stored: usize) -> Result<WriterState, DatabaseError> {
        let reserved = match engine.get(keys::CLOCK)? {
            None => 0,
            Some(value) => postcard::from_bytes(&value).map_err(|_| damaged("the clock"))?,
        };
        Ok(WriterState {
            clock: HybridClock::resume(reserved),
            names_stored,
            next_collection: 0,
            collections: BTreeMap::new(),
            census: HashMap::new(),
            codec: Codec::default(),
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
        let bytes = super::block::records_len(&value).ok_or_else(|| damaged("a block of records"))?;
        if bytes >= BLOCK_BYTES_TARGET / 2 {
            break;
        }
        tail.push(TailBlock { sequence, bytes });
        to = block_key.to_vec();
    }
    tail.reverse();
    Ok(tail)
}

/// A revision to store.
pub(crate) struct NewRevision {
    pub(crate) id: Box<str>,
    pub(crate) vector: VersionVector,
    pub(crate) deleted: bool,
    pub(crate) remote_ancestor: Option<Version>,
    /// Packed body.
    pub(crate) body: Vec<u8>,
}

/// What a staged commit does to one collection.
#[derive(Default)]
struct Staged {
    /// By ID; `None` is a purge.
    newest: HashMap<Box<str>, Option<usize>>,
    revisions: Vec<Option<StoredRevision>>,
    /// Sequences of stored records that this commit replaces.
    dead: Vec<u64>,
    index: IndexEdit,
    counters: Counters,
}

/// The exclusive right to write, with what is staged. Dropping it leaves everything as it was.
pub(crate) struct Writer<'s> {
    store: &'s Store,
    state: MutexGuard<'s, WriterState>,
    staged: BTreeMap<CollectionKey, Staged>,
    checkpoints: Vec<(Vec<u8>, Vec<u8>)>,
    wall: u64,
}

impl Store {
    /// Waits for the right to write.
    pub(crate) fn writer(&self) -> Writer<'_> {
        let state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Writer { store: self, state, staged: BTreeMap::new(), checkpoints: Vec::new(), wall: wall() }
    }

    /// Adds a collection; the existing one if there is one of this canonical name.
    pub(crate) fn create_collection(&self, name: &str) -> Result<CollectionKey, DatabaseError> {
        let mut state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = self.collection_key(name) {
            return Ok(key);
        }
        if state.collections.len() >= COLLECTIONS_MAX {
            return Err(DatabaseError::TooManyCollections { max: COLLECTIONS_MAX });
        }
        // Handles of a collection deleted meanwhile must not find another one.
        let number = state.next_collection;
        let key = CollectionKey(number);
        let mut writes = Writes::default();
        writes.insert(&keys::numbered(keys::COLLECTION, number), name.as_bytes());
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
        writes.remove(&keys::numbered(keys::COLLECTION, key.0));
        writes.remove(&keys::numbered(keys::COUNTERS, key.0));
        let ticket = self.engine().apply(writes, Watermarks::new())?;
        state.collections.remove(&key);
        state.census.retain(|(k, _), _| *k != key);
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

    /// Remembers that a peer has all changes up to `sequence`; stored with the next commit to the collection.
    pub(crate) fn mark_pushed(&self, key: CollectionKey, sequence: u64) {
        let mut state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(collection) = state.collections.get_mut(&key) {
            let known = sequence.min(collection.counters.last_sequence);
            collection.counters.pushed = collection.counters.pushed.max(known);
        }
    }
}

impl Writer<'_> {
    /// A new version of this database's own.
    pub(crate) fn next_version(&mut self) -> Version {
        Version { time: self.state.clock.next(self.wall), source: self.store.source }
    }

    /// Notes the versions of a revision from a peer; `false` if it claims a time of our own that cannot be.
    pub(crate) fn observe(&mut self, vector: &VersionVector) -> bool {
        let own = self.store.source;
        if vector.versions().any(|v| v.source == own && !self.state.clock.is_plausible_own(v.time, self.wall))
        {
            return false;
        }
        for version in vector.versions() {
            self.state.clock.observe(version.time, self.wall);
        }
        true
    }

    fn stage(&mut self, key: CollectionKey) -> Result<&mut Staged, DatabaseError> {
        let unknown = || DatabaseError::UnknownCollection { name: format!("#{}", key.0) };
        let counters = self.state.collections.get(&key).ok_or_else(unknown)?.counters;
        Ok(self.staged.entry(key).or_insert_with(|| Staged { counters, ..Staged::default() }))
    }

    /// The newest revision of a document as this writer sees it, tombstones included.
    pub(crate) fn revision(
        &mut self,
        key: CollectionKey,
        id: &str,
    ) -> Result<Option<StoredRevision>, DatabaseError> {
        let store = self.store;
        let staged = self.stage(key)?;
        match staged.newest.get(id) {
            Some(Some(at)) => return Ok(staged.revisions[*at].clone()),
            Some(None) => return Ok(None),
            None => {}
        }
        let Some(entry) = staged.index.find(&store.engine(), key, id)? else { return Ok(None) };
        let record = store.record(key, entry.sequence)?.filter(|record| *record.id == *id);
        record.map(Some).ok_or_else(|| damaged("an index entry leads to no record"))
    }

    /// Whether a peer is known to have the collection's changes up to `sequence`.
    pub(crate) fn is_pushed(&self, key: CollectionKey, sequence: u64) -> bool {
        self.state.collections.get(&key).is_some_and(|c| sequence <= c.counters.pushed)
    }

    /// Stages a revision that replaces `before`; returns its sequence.
    pub(crate) fn put(
        &mut self,
        key: CollectionKey,
        new: NewRevision,
        before: Option<&StoredRevision>,
    ) -> Result<u64, DatabaseError> {
        let staged = self.stage(key)?;
        staged.forget(&new.id, before);
        staged.counters.last_sequence += 1;
        let sequence = staged.counters.last_sequence;
        let count =
            if new.deleted { &mut staged.counters.tombstones } else { &mut staged.counters.documents };
        *count += 1;
        staged.newest.insert(new.id.clone(), Some(staged.revisions.len()));
        staged.revisions.push(Some(StoredRevision {
            sequence,
            id: new.id,
            vector: new.vector,
            deleted: new.deleted,
            remote_ancestor: new.remote_ancestor,
            body: new.body,
        }));
        Ok(sequence)
    }

    /// Stages the removal of every trace of a document; `before` is what there is of it.
    pub(crate) fn purge(&mut self, key: CollectionKey, before: &StoredRevision) -> Result<(), DatabaseError> {
        let staged = self.stage(key)?;
        staged.forget(&before.id, Some(before));
        staged.newest.insert(before.id.clone(), None);
        Ok(())
    }

    /// Stages a checkpoint's bytes. `Ok(false)` if the collection has too many.
    pub(crate) fn put_checkpoint(
        &mut self,
        key: CollectionKey,
        client: &str,
        bytes: Vec<u8>,
    ) -> Result<bool, DatabaseError> {
        let stored_key = keys::checkpoint(key, client);
        self.stage(key)?;
        if self.store.engine().get(&stored_key)?.is_none() {
            let mut count = 0;
            self.store.engine().scan(&keys::checkpoint(key, ""), &keys::checkpoint_end(key), |_, _| {
                count += 1;
                Ok(ControlFlow::Continue(()))
            })?;
            if count >= CHECKPOINTS_MAX {
                return Ok(false);
            }
        }
        self.checkpoints.push((stored_key, bytes));
        Ok(true)
    }

    /// Applies what was staged as one atomic batch and lets the next writer in. Durable with [`Store::finish`].
    pub(crate) fn commit(mut self) -> Result<Ticket, DatabaseError> {
        let mut writes = Writes::default();
        let mut sequences = Watermarks::new();
        for (key, bytes) in &self.checkpoints {
            write_pieces(&mut writes, key, bytes);
        }
        let mut done = Vec::new();
        for (key, staged) in std::mem::take(&mut self.staged) {
            if let Some(pass) = self.commit_collection(key, staged, &mut writes)? {
                sequences.insert(key, pass.counters.last_sequence);
                done.push((key, pass));
            }
        }
        if done.is_empty() && self.checkpoints.is_empty() {
            return Ok(self.store.newest());
        }
        if let Some(limit) = self.state.clock.reserve() {
            writes.insert(keys::CLOCK, postcard::to_stdvec(&limit).unwrap_or_default());
        }
        let names = self.store.names.read().unwrap_or_else(PoisonError::into_inner);
        write_new_names(&names, &mut self.state.names_stored, &mut writes);
        drop(names);
        self.store.sources.write().unwrap_or_else(PoisonError::into_inner).write_new(&mut writes);
        let ticket = self.store.engine().apply(writes, sequences)?;
        for (key, pass) in done {
            self.accept(key, pass);
        }
        Ok(ticket)
    }

    /// Takes over what a commit changed in memory, once it is applied.
    fn accept(&mut self, key: CollectionKey, pass: Pass) {
        if self.state.census.len() > COUNTED_BLOCKS_MAX {
            self.state.census.clear();
        }
        for sequence in pass.gone {
            self.state.census.remove(&(key, sequence));
        }
        self.state.census.extend(pass.census.into_iter().map(|(sequence, census)| ((key, sequence), census)));
        if let Some(collection) = self.state.collections.get_mut(&key) {
            let pushed = collection.counters.pushed.max(pass.counters.pushed);
            collection.counters = Counters { pushed, ..pass.counters };
            collection.tail = pass.tail;
            collection.state.applied.store(collection.counters.last_sequence, Ordering::Release);
            collection.state.documents.store(collection.counters.documents, Ordering::Release);
        }
    }

    fn commit_collection(
        &mut self,
        key: CollectionKey,
        mut staged: Staged,
        writes: &mut Writes,
    ) -> Result<Option<Pass>, DatabaseError> {
        let counters = postcard::to_stdvec(&staged.counters).unwrap_or_default();
        writes.insert(&keys::numbered(keys::COUNTERS, key.0), counters);
        if staged.newest.is_empty() {
            return Ok(None);
        }
        staged.dead.sort_unstable();
        let place = |r: &Option<StoredRevision>| {
            let (sequence, deleted) = r.as_ref().map_or((0, false), |r| (r.sequence, r.deleted));
            IndexEntry { sequence, deleted }
        };
        let places: Vec<IndexEntry> = staged.revisions.iter().map(place).collect();
        let mut revisions: Vec<StoredRevision> = staged.revisions.into_iter().flatten().collect();
        let mut sources = self.store.sources.write().unwrap_or_else(PoisonError::into_inner);
        for revision in &revisions {
            revision.vector.versions().for_each(|v| sources.intern(v.source));
        }
        drop(sources);
        let tail = self.state.collections.get(&key).map(|c| c.tail.clone()).unwrap_or_default();
        let mut pass = Pass {
            counters: staged.counters,
            tail,
            dead: staged.dead,
            index: staged.index,
            ..Pass::default()
        };
        self.join_tail(key, &mut pass, &mut revisions, writes)?;
        self.collect_garbage(key, &mut pass, writes)?;
        self.write_blocks(key, &mut pass, &revisions, writes);
        let mut index = std::mem::take(&mut pass.index);
        for (id, at) in staged.newest {
            let place = at.map(|at| places[at]);
            index.set(&self.store.engine(), key, &id, place)?;
        }
        index.write(key, writes);
        Ok(Some(pass))
    }

    /// If too many small blocks have gathered, takes their living records in front of the new ones.
    fn join_tail(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        revisions: &mut Vec<StoredRevision>,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let tail_bytes: usize = pass.tail.iter().map(|block| block.bytes).sum();
        let new_bytes: usize = revisions.iter().map(|r| r.body.len() + r.id.len()).sum();
        let is_long = pass.tail.len() >= TAIL_BLOCKS_MAX || tail_bytes >= 2 * BLOCK_BYTES_TARGET;
        if pass.tail.is_empty() || revisions.is_empty() || !(is_long || new_bytes >= BLOCK_BYTES_TARGET / 2) {
            return Ok(());
        }
        let (mut joined, mut first) = (Vec::new(), u64::MAX);
        for block in std::mem::take(&mut pass.tail) {
            let Some(found) = self.block_at(key, block.sequence)? else { continue };
            first = first.min(self.store.decode(&found.value)?.first().map_or(u64::MAX, |r| r.sequence));
            joined.extend(self.living(key, &found, pass)?);
            pass.remove(&found, writes);
        }
        // The tail is the end of the feed: what died at or after its first record died in it.
        pass.dead.retain(|&sequence| sequence < first);
        joined.append(revisions);
        *revisions = joined;
        Ok(())
    }

    /// The block that ends exactly at `sequence`.
    fn block_at(&self, key: CollectionKey, sequence: u64) -> Result<Option<FoundBlock>, DatabaseError> {
        let found = find_block(&self.store.engine(), key, sequence)?;
        let found = found.map_err(|Moved| damaged("a piece of a block is missing"))?;
        Ok(found.filter(|block| block.sequence == sequence))
    }

    /// The records of a block that are alive and will be after this commit.
    fn living(
        &self,
        key: CollectionKey,
        block: &FoundBlock,
        pass: &mut Pass,
    ) -> Result<Vec<StoredRevision>, DatabaseError> {
        let mut living = Vec::new();
        for record in self.store.decode(&block.value)? {
            let entry = pass.index.find(&self.store.engine(), key, &record.id)?;
            let is_newest = entry.is_some_and(|e| e.sequence == record.sequence);
            if is_newest && pass.dead.binary_search(&record.sequence).is_err() {
                living.push(record);
            }
        }
        Ok(living)
    }

    /// Removes or rewrites the blocks that lost records to this commit.
    fn collect_garbage(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let mut at = 0;
        while let Some(&first) = pass.dead.get(at) {
            let found = find_block(&self.store.engine(), key, first)?;
            let found = found.map_err(|Moved| damaged("a piece of a block is missing"))?;
            let Some(block) = found else { return Err(damaged("a record is missing")) };
            let end = pass.dead.partition_point(|&sequence| sequence <= block.sequence);
            self.shrink(key, pass, &block, end - at, writes)?;
            at = end;
        }
        Ok(())
    }

    fn shrink(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        block: &FoundBlock,
        lost: usize,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let known = self.state.census.get(&(key, block.sequence)).copied();
        if let Some(census) = known.map(|c| Census { living: c.living.saturating_sub(lost), ..c })
            && census.living * 2 > census.records
        {
            pass.census.insert(block.sequence, census);
            return Ok(());
        }
        let living = self.living(key, block, pass)?;
        if known.is_none() {
            let records = self.store.decode(&block.value)?.len();
            if living.len() * 2 > records {
                pass.census.insert(block.sequence, Census { records, living: living.len() });
                return Ok(());
            }
        }
        let small = pass.tail.iter().position(|b| b.sequence == block.sequence);
        if let Some(at) = small {
            pass.tail.remove(at);
        }
        pass.remove(block, writes);
        let mut builder = BlockBuilder::default();
        let sources = self.store.sources.read().unwrap_or_else(PoisonError::into_inner);
        living.iter().for_each(|record| builder.push(record, &*sources));
        if builder.count() > 0 {
            let (sequence, bytes) = (builder.last_sequence(), builder.len());
            write_pieces(writes, &keys::block(key, sequence), &builder.finish(&mut self.state.codec));
            pass.census.insert(sequence, Census { records: living.len(), living: living.len() });
            if let Some(at) = small {
                pass.tail.insert(at, TailBlock { sequence, bytes });
            }
        }
        Ok(())
    }

    /// Writes records as blocks; a small last one joins the tail.
    fn write_blocks(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        revisions: &[StoredRevision],
        writes: &mut Writes,
    ) {
        let sources = self.store.sources.read().unwrap_or_else(PoisonError::into_inner);
        let mut builder = BlockBuilder::default();
        for (at, revision) in revisions.iter().enumerate() {
            builder.push(revision, &*sources);
            // A large document gets a block of its own, so that its neighbours stay cheap to read.
            let next_is_large = revisions.get(at + 1).is_none_or(|next| next.body.len() > BLOCK_BYTES_TARGET);
            if builder.len() < BLOCK_BYTES_TARGET && !next_is_large {
                continue;
            }
            let (sequence, bytes, records) = (builder.last_sequence(), builder.len(), builder.count());
            write_pieces(writes, &keys::block(key, sequence), &builder.finish(&mut self.state.codec));
            pass.census.insert(sequence, Census { records, living: records });
            if bytes < BLOCK_BYTES_TARGET / 2 {
                pass.tail.push(TailBlock { sequence, bytes });
            } else {
                // Joining is for neighbours only.
                pass.tail.clear();
            }
        }
    }
}

/// What a commit changes of a collection, taken over once it is applied.
#[derive(Default)]
struct Pass {
    counters: Counters,
    /// Sequences of stored records that this commit replaces, in order.
    dead: Vec<u64>,
    index: IndexEdit,
    tail: Vec<TailBlock>,
    census: BTreeMap<u64, Census>,
    gone: Vec<u64>,
}

impl Pass {
    /// Removes all pieces of a block.
    fn remove(&mut self, block: &FoundBlock, writes: &mut Writes) {
        writes.remove(block.key.as_slice());
        for piece in 1..block.pieces {
            writes.remove(keys::piece(&block.key, piece));
        }
        self.gone.push(block.sequence);
    }
}

impl Staged {
    /// Takes the newest revision of a document out of the counts, staged or stored.
    fn forget(&mut self, id: &str, before: Option<&StoredRevision>) {
        let Some(before) = before else { return };
        let count = if before.deleted { &mut self.counters.tombstones } else { &mut self.counters.documents };
        *count = count.saturating_sub(1);
        match self.newest.get(id) {
            Some(Some(at)) => self.revisions[*at] = None,
            Some(None) => {}
            None => self.dead.push(before.sequence),
        }
    }
}
