//! Making indexes, building them a piece at a time, and letting them go.
//!
//! An index is built in the order of the change feed, a piece at a time, each a commit that says how far it has come; a commit of
//! a document changes its entry where that is built already. So building goes on where it was after a restart.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::super::engine::{Watermarks, Writes};
use super::super::handle::Store;
use super::super::indexes::pages::{self, Edit};
use super::super::indexes::{Definition, IndexUse, Life, Secondary, Stamp};
use super::super::keys::{self, CollectionKey, IndexKey};
use super::super::state::{CollectionState, Counters, WriterState};
use crate::database::DatabaseError;
use crate::database::path::{Path, Place};

/// Most indexes of a collection, paths of one, and bytes of its name. Each index costs each commit a page.
const INDEXES_MAX: usize = 16;
const PATHS_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 100;

/// Records looked at for one piece, and about the bytes of their bodies.
const PIECE_RECORDS: usize = 2_048;
const PIECE_BYTES: usize = 256 << 10;

/// Pages of a dropped index that one commit removes.
const PIECE_PAGES: usize = 256;

/// An index as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexInfo {
    /// What it goes by in its collection.
    pub name: String,
    /// The paths, in order.
    pub paths: Vec<String>,
    /// Whether all documents are in it. Queries use none before.
    pub is_ready: bool,
    /// Documents in it.
    pub entries: u64,
    /// Documents that are to be in it.
    pub documents: u64,
    /// Bytes of its pages.
    pub bytes: u64,
}

/// What a piece of work came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// There is more.
    More,
    /// What is left waits for somebody who reads.
    Waiting,
    /// Nothing is left.
    Done,
}

fn wrong(reason: String) -> DatabaseError {
    DatabaseError::BadIndex { reason }
}

/// Reads the paths of an index.
fn paths_of(name: &str, paths: &[String]) -> Result<Vec<Path>, DatabaseError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._,[]".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
        return Err(wrong(format!(
            "{:?} is no name: 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - . _ , [ ]",
            crate::replica::clip(name)
        )));
    }
    if paths.is_empty() || paths.len() > PATHS_MAX {
        return Err(wrong(format!("{} paths, 1 to {PATHS_MAX} can be", paths.len())));
    }
    let mut parsed: Vec<Path> = Vec::new();
    for path in paths {
        let path = Path::parse(path).map_err(|error| wrong(error.to_string()))?;
        if !matches!(path.place(), Place::Body(_)) {
            return Err(wrong(format!(
                "{:?}: an index is on what documents have; IDs have one",
                path.text()
            )));
        }
        if parsed.iter().any(|other| other.place() == path.place()) {
            return Err(wrong(format!("{:?} stands in it twice", path.text())));
        }
        parsed.push(path);
    }
    Ok(parsed)
}

impl CollectionState {
    /// What it is once a commit has made its counters these.
    pub(in super::super) fn stamp(&self, counters: &Counters) -> Stamp<'_> {
        Stamp { collection: &self.name, last_sequence: counters.last_sequence, documents: counters.documents }
    }
}

impl Store {
    /// Declares an index; that of this name and these paths may be there.
    pub(crate) fn create_index(
        self: &Arc<Store>,
        key: CollectionKey,
        name: &str,
        paths: &[String],
    ) -> Result<(), DatabaseError> {
        let paths = paths_of(name, paths)?;
        self.check_writable()?;
        let state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let collection = self.collection(key)?;
        if let Some(index) = collection.indexes.named(name) {
            let is_same = index.paths.iter().map(Path::place).eq(paths.iter().map(Path::place));
            let taken = || DatabaseError::IndexExists { name: name.to_owned() };
            return if is_same { Ok(()) } else { Err(taken()) };
        }
        if collection.indexes.all().len() >= INDEXES_MAX {
            return Err(wrong(format!("a collection has {INDEXES_MAX} at most: drop one")));
        }
        let paths = paths.iter().map(|path| path.text().to_owned()).collect();
        let definition = Definition { name: name.to_owned(), paths, built: Some(0), is_dropped: false };
        let mut writes = Writes::default();
        let index = self.define(&state, &collection, key, &definition, &mut writes)?;
        let ticket = self.engine().apply(writes, Watermarks::new())?;
        collection.indexes.add(index);
        drop(state);
        self.note_index_work();
        self.sync(ticket)?;
        self.index_later();
        Ok(())
    }

    /// Stages a new index under a number of its own.
    fn define(
        &self,
        state: &WriterState,
        collection: &CollectionState,
        key: CollectionKey,
        definition: &Definition,
        writes: &mut Writes,
    ) -> Result<Arc<Secondary>, DatabaseError> {
        let full = || wrong("there are too many".into());
        let number = collection.indexes.free_number().ok_or_else(full)?;
        let index_key = IndexKey { collection: key, number };
        let index = Secondary::new(index_key, definition, Life::Kept).ok_or_else(full)?;
        writes.insert(keys::definition(index_key), definition.to_bytes());
        if let Some(counters) = state.counters(key) {
            writes.insert(keys::numbered(keys::STAMP, key.0), collection.stamp(&counters).to_bytes());
        }
        Ok(Arc::new(index))
    }

    /// Drops an index; `false` if there is none of this name.
    pub(crate) fn drop_index(
        self: &Arc<Store>,
        key: CollectionKey,
        name: &str,
    ) -> Result<bool, DatabaseError> {
        self.check_writable()?;
        let state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let collection = self.collection(key)?;
        let Some(index) = collection.indexes.named(name) else { return Ok(false) };
        let mut writes = Writes::default();
        writes.insert(keys::definition(index.key), index.definition(Some(0), true).to_bytes());
        let ticket = self.engine().apply(writes, Watermarks::new())?;
        let has_failed = index.life() == Life::Failed;
        index.set_life(if has_failed { Life::Leaving } else { Life::Dropped });
        drop(state);
        self.note_index_work();
        self.sync(ticket)?;
        self.index_later();
        Ok(true)
    }

    /// The indexes of a collection, by their names.
    pub(crate) fn indexes(&self, key: CollectionKey) -> Result<Vec<IndexInfo>, DatabaseError> {
        let collection = self.collection(key)?;
        let mut listed = Vec::new();
        for index in &*collection.indexes.all() {
            let life = index.life();
            if !matches!(life, Life::Kept | Life::Failed) {
                continue;
            }
            let (entries, bytes) = match life {
                Life::Kept => pages::count(&self.engine(), index.key)?,
                _ => (0, 0),
            };
            listed.push(IndexInfo {
                name: index.name.clone(),
                paths: index.paths.iter().map(|path| path.text().to_owned()).collect(),
                is_ready: life == Life::Kept && index.is_built(),
                entries,
                documents: collection.documents(),
                bytes,
            });
        }
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// The indexes that a query may use; each is kept as long as it is held.
    pub(crate) fn usable_indexes(&self, key: CollectionKey) -> Result<Vec<IndexUse>, DatabaseError> {
        Ok(self.collection(key)?.indexes.usable())
    }

    /// How many are to be built anew.
    #[cfg(test)]
    pub(crate) fn failed_indexes(&self) -> usize {
        let failed = |collection: &CollectionState| {
            collection.indexes.all().iter().filter(|index| index.life() == Life::Failed).count()
        };
        self.collections().iter().map(|(_, collection)| failed(collection)).sum()
    }

    /// There is something to be built or to go.
    pub(in super::super) fn note_index_work(&self) {
        self.index_work.store(true, Ordering::SeqCst);
    }

    /// Notes whether something is to be built or to go, when the store was opened.
    pub(in super::super) fn look_for_index_work(&self) {
        let has_work = self.collections().iter().any(|(_, collection)| {
            let all = collection.indexes.all();
            all.iter().any(|index| index.life() != Life::Kept || !index.is_built())
        });
        self.index_work.store(has_work, Ordering::SeqCst);
    }

    /// A piece of that work.
    pub(crate) fn work_on_indexes(&self) -> Result<Work, DatabaseError> {
        let state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever is noted from here on is another look.
        self.index_work.store(false, Ordering::SeqCst);
        let worked = self.next_piece(&state);
        drop(state);
        if !matches!(worked, Ok(Work::Done)) {
            self.note_index_work();
        }
        worked
    }

    fn next_piece(&self, state: &WriterState) -> Result<Work, DatabaseError> {
        let mut waiting = Work::Done;
        for (key, collection) in self.collections() {
            collection.indexes.let_go();
            for index in &*collection.indexes.all() {
                match index.life() {
                    Life::Kept if index.is_built() => continue,
                    Life::Kept => self.build_piece(state, key, index)?,
                    Life::Failed => self.renew_index(state, &collection, key, index)?,
                    Life::Leaving => self.remove_piece(&collection, index)?,
                    Life::Dropped => {
                        waiting = Work::Waiting;
                        continue;
                    }
                }
                return Ok(Work::More);
            }
        }
        Ok(waiting)
    }

    /// Takes the next documents into an index.
    fn build_piece(
        &self,
        state: &WriterState,
        key: CollectionKey,
        index: &Secondary,
    ) -> Result<(), DatabaseError> {
        let until = state.counters(key).unwrap_or_default().last_sequence;
        let records = self.stored_within(key, index.built(), until, PIECE_RECORDS, PIECE_BYTES)?;
        let built = records.last().map(|record| record.sequence).filter(|last| *last < until);
        let engine = self.engine();
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<_> = records
            .iter()
            .filter(|record| !record.deleted)
            .map(|record| index.entry(&names, &record.id, &record.body, record.sequence))
            .collect();
        drop(names);
        entries.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let mut edit = Edit::default();
        for entry in entries {
            if let Err(error) = edit.add(&engine, index.key, entry) {
                if matches!(error, DatabaseError::Damaged { .. }) {
                    index.set_life(Life::Failed);
                }
                return Err(error);
            }
        }
        let mut writes = Writes::default();
        edit.write(index.key, &mut writes);
        writes.insert(keys::definition(index.key), index.definition(built, false).to_bytes());
        self.admit(writes.log_bytes(), false)?;
        self.engine().apply(writes, Watermarks::new())?;
        index.set_built(built);
        if built.is_none() {
            tracing::info!(index = index.name(), "an index is built");
        }
        Ok(())
    }

    /// Begins an index that has failed anew, under another number.
    fn renew_index(
        &self,
        state: &WriterState,
        collection: &CollectionState,
        key: CollectionKey,
        index: &Secondary,
    ) -> Result<(), DatabaseError> {
        // The stamp would stand for the others that have failed, too.
        let all = collection.indexes.all();
        let others = all.iter().filter(|other| other.life() == Life::Failed).count();
        let mut writes = Writes::default();
        let fresh = self.define(state, collection, key, &index.definition(Some(0), false), &mut writes)?;
        if others > 1 {
            writes.remove(keys::numbered(keys::STAMP, key.0));
        }
        writes.insert(keys::definition(index.key), index.definition(Some(0), true).to_bytes());
        self.engine().apply(writes, Watermarks::new())?;
        index.set_life(Life::Leaving);
        collection.indexes.add(fresh);
        Ok(())
    }

    /// Removes some pages of an index that nobody reads, at last what is known of it.
    fn remove_piece(&self, collection: &CollectionState, index: &Secondary) -> Result<(), DatabaseError> {
        let mut writes = Writes::default();
        let (from, to) = (keys::entries(index.key, &[]), keys::entries_end(index.key));
        let scanned = self.engine().scan(&from, &to, |key, _| {
            writes.remove(key);
            let is_full = writes.entries.len() >= PIECE_PAGES;
            Ok(if is_full { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) })
        });
        if let Err(error) = scanned {
            // What cannot be read stays until a compaction.
            tracing::warn!(index = index.name(), %error, "pages of an index that is gone cannot be removed");
            writes = Writes::default();
        }
        let is_last = writes.entries.is_empty();
        if is_last {
            writes.remove(keys::definition(index.key));
        }
        self.engine().apply(writes, Watermarks::new())?;
        if is_last {
            collection.indexes.remove(index.key.number);
        }
        Ok(())
    }
}
