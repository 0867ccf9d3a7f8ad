//! A database that goes on under a new source ID: after its directory was copied to a second device, or with versions of the far
//! future in it.
//!
//! Both are troubles of a source ID. Two devices with one source ID take each other's edits for their own earlier ones. And an edit
//! must be above all that its author gave the document before, so with a version from 2039 in it a document stays in 2039; a new
//! author begins at the time of day. Then such documents are saved once more as they are: as successors of what they
//! were, or, where no peer is known to have an edit, without it in the history, so that it meets those of the copy as a conflict.
//!
//! The new ID comes first, as one commit; a crash afterwards leaves documents as they were, and the next call goes on.

use std::path::Path;
use std::sync::Arc;

use super::super::block::StoredRevision;
use super::super::engine::{Watermarks, Writes};
use super::super::ground::damaged;
use super::super::keys::{self, CollectionKey};
use super::super::meta::{self, Meta};
use super::super::{NewRevision, Store, Writer};
use crate::database::config::DatabaseConfig;
use crate::database::{DatabaseError, clock};
use crate::replica::revision::{SourceId, VersionVector};

/// Documents looked at in one go.
const RECORDS_AT_ONCE: usize = 200;

/// About the bytes of their bodies.
const BYTES_AT_ONCE: usize = 1 << 20;

/// What a renewal has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RenewReport {
    /// The source ID it had.
    pub former: SourceId,
    /// The source ID it has now.
    pub source: SourceId,
    /// Documents and tombstones that were far ahead, and have a version of today now.
    pub brought_back: u64,
    /// Edits that no peer is known to have, and that are now those of the new source.
    pub taken_over: u64,
}

/// Gives the database in `path` a new source ID; see [`Database::renew`](crate::database::Database::renew).
pub(crate) fn renew(
    path: &Path,
    take_over: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<RenewReport, DatabaseError> {
    let config = DatabaseConfig { create: false, ..DatabaseConfig::default() };
    let store = Store::open(path, &config)?;
    let former = store.source();
    let take_over = take_over || store.twin().is_some();
    let source = meta::new_source()?;
    store.change_source(source)?;
    store.close()?;
    drop(store);
    let store = Store::open(path, &config)?;
    let mut renewal = Renewal { store: &store, former, take_over, brought_back: 0, taken_over: 0, progress };
    for (key, state) in store.collections() {
        renewal.collection(key, state.applied())?;
    }
    let Renewal { brought_back, taken_over, .. } = renewal;
    store.sync(store.newest())?;
    store.close()?;
    Ok(RenewReport { former, source, brought_back, taken_over })
}

impl Store {
    /// Stores another source ID. This handle goes on under the old one, and is not to be used any more.
    fn change_source(&self, source: SourceId) -> Result<(), DatabaseError> {
        let _writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let engine = self.engine();
        let meta = meta::stored(&engine, &self.path)?.ok_or_else(|| damaged("no format header"))?;
        let former = self.former.iter().chain([&self.source]).flat_map(|source| source.0);
        let mut writes = Writes::default();
        let header = postcard::to_stdvec(&Meta { source, ..meta });
        writes.insert(keys::META, header.map_err(|_| damaged("the format header"))?);
        writes.insert(keys::FORMER, former.collect::<Vec<u8>>());
        // The new author has given out nothing yet.
        writes.remove(keys::CLOCK);
        writes.remove(keys::TWIN);
        self.engine().scan(
            &keys::kind_range(keys::PURGED).0,
            &keys::kind_range(keys::PURGED).1,
            |key, _| {
                writes.remove(key);
                Ok(std::ops::ControlFlow::Continue(()))
            },
        )?;
        let mut sources = self.sources.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        sources.intern(source);
        sources.write_new(&mut writes);
        drop(sources);
        let ticket = engine.apply(writes, Watermarks::new())?;
        self.sync(ticket)
    }
}

struct Renewal<'s, 'p> {
    store: &'s Arc<Store>,
    former: SourceId,
    take_over: bool,
    brought_back: u64,
    taken_over: u64,
    progress: &'p mut dyn FnMut(u64),
}

impl Renewal<'_, '_> {
    fn collection(&mut self, key: CollectionKey, until: u64) -> Result<(), DatabaseError> {
        let mut after = 0;
        loop {
            let records = self.store.changes_within(key, after, until, RECORDS_AT_ONCE, BYTES_AT_ONCE)?;
            let Some(last) = records.last() else { return Ok(()) };
            after = last.sequence;
            let mut writer = self.store.writer();
            for record in records {
                self.document(&mut writer, key, record)?;
            }
            writer.commit()?;
            (self.progress)(self.brought_back + self.taken_over);
        }
    }

    /// Saves a document once more if it has to be.
    fn document(
        &mut self,
        writer: &mut Writer<'_>,
        key: CollectionKey,
        record: StoredRevision,
    ) -> Result<(), DatabaseError> {
        let wall = self.store.wall();
        let is_ours = record.vector.current.source == self.former;
        let is_taken_over = self.take_over && is_ours && !writer.is_pushed(key, record.sequence);
        let is_ahead = clock::is_plausible(wall) && clock::is_ahead(record.vector.current.time, wall);
        let vector = if is_taken_over {
            self.taken_over += 1;
            self.without_former(writer, &record)
        } else if is_ahead {
            self.brought_back += 1;
            record.vector.edited(writer.version_of_today())
        } else {
            return Ok(());
        };
        let before = record.clone();
        let StoredRevision { id, deleted, remote_ancestor, body, .. } = record;
        let remote_ancestor = if is_taken_over { remote_ancestor } else { Some(before.vector.id()) };
        writer.put(key, NewRevision { id, vector, deleted, remote_ancestor, body }, Some(&before))?;
        Ok(())
    }

    /// The vector of an edit of ours that no peer is known to have: without what the former source ID says of it beyond what a
    /// peer had, for the copy may have made something else of that.
    fn without_former(&self, writer: &mut Writer<'_>, record: &StoredRevision) -> VersionVector {
        let ancestor = record.remote_ancestor.map(|ancestor| ancestor.version());
        let others = record.vector.versions().filter(|version| version.source != self.former);
        let mut known = others.chain(ancestor.filter(|version| version.source == self.former));
        let mut vector = VersionVector::new(writer.version_of_today());
        vector.trees.clone_from(&record.vector.trees);
        match known.next() {
            None => vector,
            Some(first) => {
                let history = known.collect();
                vector.with_history_of(&VersionVector { history, ..VersionVector::new(first) })
            }
        }
    }
}
