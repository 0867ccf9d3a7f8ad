//! Writing: one writer at a time stages revisions, then commits them as one atomic batch.
//!
//! New records go into blocks in order of sequence. A commit that does not fill a block leaves a small one; when
//! [`TAIL_BLOCKS_MAX`](super::state::TAIL_BLOCKS_MAX) small ones have gathered they are joined. A record whose document was saved again is dead; a
//! block that is dead by half is written again without its dead, one that is dead wholly goes. So at most about half
//! of what the blocks hold is garbage, and no pass over the whole database is ever needed.
//!
//! One file, because a commit is what was staged.

mod blobs;
mod blocks;
mod checkpoints;
mod collections;
mod indexed;
mod own;
mod removal;
mod retained;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

pub(crate) use self::retained::Memory;
use self::retained::Retained;
use super::block::StoredRevision;
use super::engine::{self, Ticket, Watermarks, Writes};
use super::ground::damaged;
use super::handle::Store;
use super::index::{IndexEdit, IndexEntry};
use super::indexes::Entry;
use super::keys::{self, CollectionKey};
use super::pieces::write_pieces;
use super::purged;
use super::space::REVISION_OVERHEAD;
use super::state::{Counters, LiveCount, TailBlock, WriterState};
use super::tables::write_new_names;
use crate::database::DatabaseError;
use crate::database::clock;
use crate::replica::blobs::BlobDigest;
use crate::replica::revision::{RevId, Version, VersionVector};

/// Blocks whose dead records are counted in memory (some 40 bytes each); beyond it all are forgotten, and met anew.
const COUNTED_BLOCKS_MAX: usize = 65_536;

/// Longest checkpoint body, bytes.
pub(crate) const CHECKPOINT_BODY_MAX: usize = 64 * 1024;

/// What a revision from a peer says of this database's own versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnVersions {
    /// Nothing but what it can have made.
    Known,
    /// A time that nobody can have made yet.
    Impossible,
    /// A time that this database never gave the document: another device has the same source ID.
    OfATwin,
}

/// A revision to store.
pub(crate) struct NewRevision {
    pub(crate) id: Box<str>,
    pub(crate) vector: VersionVector,
    pub(crate) deleted: bool,
    pub(crate) remote_ancestor: Option<RevId>,
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
    /// What indexes on paths have of stored documents that are changed: of each by ID, in their order.
    replaced: HashMap<Box<str>, Vec<Entry>>,
    counters: Counters,
}

/// The exclusive right to write, with what is staged. Dropping it leaves everything as it was.
pub(crate) struct Writer<'s> {
    pub(super) store: &'s Store,
    state: MutexGuard<'s, WriterState>,
    staged: BTreeMap<CollectionKey, Staged>,
    checkpoints: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of checkpoints that give way to them.
    given_up: Vec<Vec<u8>>,
    /// Keys of versions far ahead: whether they come or go.
    ahead: BTreeMap<Vec<u8>, bool>,
    /// Other entries that the commit makes or removes.
    others: Vec<engine::Entry>,
    /// What documents were when a peer had them, by key; `None` goes.
    pub(super) bases: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Blobs that a document of the commit names no more.
    unnamed: Vec<BlobDigest>,
    /// What lets documents go, and stay away.
    retained: Retained,
    wall: u64,
}

impl Store {
    /// Waits for the right to write.
    pub(crate) fn writer(&self) -> Writer<'_> {
        let state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Writer {
            store: self,
            state,
            staged: BTreeMap::new(),
            checkpoints: Vec::new(),
            given_up: Vec::new(),
            ahead: BTreeMap::new(),
            others: Vec::new(),
            bases: BTreeMap::new(),
            unnamed: Vec::new(),
            retained: Retained::default(),
            wall: self.wall(),
        }
    }
}

impl Writer<'_> {
    /// A new version of this database's own, on top of these revisions. Where what they are is of today, what is far ahead in
    /// their history counts no more: they were made to replace it (`store/renew.rs`).
    pub(crate) fn next_version(&mut self, below: &[&VersionVector]) -> Version {
        let source = self.store.source;
        let (mut own, mut others) = (None, None);
        for vector in below {
            let is_of_today = !clock::is_ahead(vector.current.time, self.wall);
            for version in vector.all_versions() {
                if version.source == source {
                    own = own.max(Some(version.time));
                } else if !(is_of_today && clock::is_ahead(version.time, self.wall)) {
                    others = others.max(Some(version.time));
                }
            }
        }
        Version { time: self.state.clock.next_on_top(self.wall, own, others), source }
    }

    /// A new version of a document that there is not, above what it had if it was purged.
    pub(crate) fn first_version(&mut self, key: CollectionKey, id: &str) -> Result<Version, DatabaseError> {
        let purged = if self.state.purged_ahead { self.store.purged_time(key, id)? } else { None };
        let time = self.state.clock.next_first(self.wall, purged);
        Ok(Version { time, source: self.store.source })
    }

    /// A new version of this moment, on top of nothing.
    pub(super) fn version_of_today(&mut self) -> Version {
        Version { time: self.state.clock.next(self.wall), source: self.store.source }
    }

    fn stage(&mut self, key: CollectionKey) -> Result<&mut Staged, DatabaseError> {
        let unknown = || DatabaseError::UnknownCollection { name: format!("#{}", key.0) };
        let counters = self.state.collections.get(&key).ok_or_else(unknown)?.counters;
        Ok(self.staged.entry(key).or_insert_with(|| Staged { counters, ..Staged::default() }))
    }

    /// The newest revision of a document as this writer sees it, tombstones included. One that has expired goes with this
    /// commit, as if it had gone before.
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
        let record = record.ok_or_else(|| damaged("an index entry leads to no record"))?;
        if self.is_due(key, id)? {
            self.purge(key, &record, Memory::Mark)?;
            return Ok(None);
        }
        Ok(Some(record))
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
        self.replace_ahead(key, before);
        self.stage(key)?;
        self.note_entries(key, before);
        self.note_blobs(key, &new.id, before, Some(&*new.body).filter(|_| !new.deleted));
        self.note_base(key, Some(&new), before)?;
        let staged = self.stage(key)?;
        staged.forget(&new.id, before);
        staged.counters.last_sequence += 1;
        let sequence = staged.counters.last_sequence;
        let time = new.vector.current.time;
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
        if clock::is_ahead(time, self.wall) {
            self.state.see_ahead(time);
            self.ahead.insert(keys::ahead(time, key, sequence), true);
        }
        Ok(sequence)
    }

    /// Takes a revision that is replaced out of the table of those far ahead.
    fn replace_ahead(&mut self, key: CollectionKey, before: Option<&StoredRevision>) {
        let Some(before) = before else { return };
        let time = before.vector.current.time;
        if time >= self.state.ahead_from {
            self.ahead.insert(keys::ahead(time, key, before.sequence), false);
        }
    }

    /// Stages the removal of a document; `before` is what there is of it. What stays is what `memory` says.
    pub(crate) fn purge(
        &mut self,
        key: CollectionKey,
        before: &StoredRevision,
        memory: Memory,
    ) -> Result<(), DatabaseError> {
        self.remember(key, before, memory);
        if let Some(own) = before.vector.time_of(self.store.source)
            && !self.state.clock.forget(own, self.wall)
        {
            self.state.purged_ahead = true;
            self.others.push(purged::entry(key, &before.id, own));
        }
        self.replace_ahead(key, Some(before));
        self.stage(key)?;
        self.note_entries(key, Some(before));
        self.note_blobs(key, &before.id, Some(before), None);
        self.note_base(key, None, Some(before))?;
        let staged = self.stage(key)?;
        staged.forget(&before.id, Some(before));
        staged.newest.insert(before.id.clone(), None);
        Ok(())
    }

    /// Applies what was staged as one atomic batch and lets the next writer in. Durable with [`Store::finish`].
    ///
    /// # Errors
    /// [`DatabaseError::Full`] before anything is changed if storage is nearly full; what else the store says.
    pub(crate) fn commit(mut self) -> Result<Ticket, DatabaseError> {
        let revisions = || self.staged.values().flat_map(|staged| staged.revisions.iter().flatten());
        let bytes = |revision: &StoredRevision| REVISION_OVERHEAD + revision.id.len() + revision.body.len();
        let stages_nothing = self.staged.values().all(|staged| staged.newest.is_empty());
        if !stages_nothing || !self.checkpoints.is_empty() || !self.retained.is_empty() {
            // What only removes makes room in the end.
            let admitted = self.store.admit(revisions().map(bytes).sum(), revisions().next().is_none());
            self.store.tell_failure(admitted)?;
        }
        let mut writes = Writes::default();
        let mut sequences = Watermarks::new();
        self.given_up.drain(..).for_each(|key| writes.remove(key));
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
        let retained = std::mem::take(&mut self.retained);
        let is_idle = done.is_empty() && self.checkpoints.is_empty() && self.others.is_empty();
        if is_idle && retained.is_empty() {
            return Ok(self.store.newest());
        }
        let marks = retained.write(self.store, self.wall, &mut writes)?;
        if let Some(clock) = self.state.clock.take_unstored() {
            if clock.given_up > self.state.given_up {
                self.state.given_up = clock.given_up;
                tracing::warn!(
                    ahead_days = (clock.given_up - clock.last) / clock::AHEAD_MAX,
                    "the system's clock was far ahead \
                    once, and is not any more: versions follow it again; `gattway db renew` mends those from then"
                );
            }
            writes.insert(keys::CLOCK, clock.to_bytes());
        }
        writes.entries.append(&mut self.others);
        writes.entries.extend(std::mem::take(&mut self.bases));
        for (key, comes) in std::mem::take(&mut self.ahead) {
            if comes { writes.insert(key, []) } else { writes.remove(key) }
        }
        let names = self.store.names.read().unwrap_or_else(PoisonError::into_inner);
        write_new_names(&names, &mut self.state.names_stored, &mut writes);
        drop(names);
        self.store.sources.write().unwrap_or_else(PoisonError::into_inner).write_new(&mut writes);
        self.raise_format(&mut writes);
        let ticket = self.store.tell_failure(self.store.engine().apply(writes, sequences))?;
        for (key, pass) in done {
            self.accept(key, pass);
        }
        retained.accept(self.store, marks);
        self.store.suspect(std::mem::take(&mut self.unnamed));
        Ok(ticket)
    }

    /// Takes over what a commit changed in memory, once it is applied.
    fn accept(&mut self, key: CollectionKey, pass: Pass) {
        if self.state.live_counts.len() > COUNTED_BLOCKS_MAX {
            self.state.live_counts.clear();
        }
        for sequence in pass.gone {
            self.state.live_counts.remove(&(key, sequence));
        }
        self.state.live_counts.extend(
            pass.live_counts.into_iter().map(|(sequence, live_counts)| ((key, sequence), live_counts)),
        );
        if let Some(collection) = self.state.collections.get_mut(&key) {
            collection.counters = pass.counters;
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
        writes.insert(keys::numbered(keys::COUNTERS, key.0), counters);
        if staged.newest.is_empty() {
            return Ok(None);
        }
        self.edit_indexes(key, &staged, writes)?;
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
        // In order: neighbours share an index page, and the same commit gives the same pages.
        let mut newest: Vec<_> = staged.newest.into_iter().collect();
        newest.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(purges) = &mut self.state.purges {
            purges.extend(newest.iter().filter(|(_, at)| at.is_none()).map(|(id, _)| (key, id.clone())));
        }
        for (id, at) in newest {
            let place = at.map(|at| places[at]);
            index.set(&self.store.engine(), key, &id, place)?;
        }
        index.write(key, writes);
        Ok(Some(pass))
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
    live_counts: BTreeMap<u64, LiveCount>,
    gone: Vec<u64>,
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
