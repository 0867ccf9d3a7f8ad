//! Indexes on paths under a commit: each document's entry goes with what it was, and comes with what it is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::super::block::StoredRevision;
use super::super::engine::Writes;
use super::super::indexes::{Edit, Entry, Life, Secondary};
use super::super::keys::{self, CollectionKey};
use super::{Staged, Writer};
use crate::database::DatabaseError;

impl Writer<'_> {
    /// Notes the entries of a stored document before it is changed or removed for the first time.
    pub(super) fn note_entries(&mut self, key: CollectionKey, before: Option<&StoredRevision>) {
        let Some(collection) = self.state.collections.get(&key) else { return };
        if collection.state.indexes.is_empty() {
            return;
        }
        let Some(before) = before.filter(|before| !before.deleted) else { return };
        let Some(staged) = self.staged.get_mut(&key) else { return };
        if staged.newest.contains_key(&before.id) {
            return;
        }
        let names = self.store.names.read().unwrap_or_else(PoisonError::into_inner);
        let entry = |index: &Arc<Secondary>| index.entry(&names, &before.id, &before.body, before.sequence);
        let entries = collection.state.indexes.all().iter().map(entry).collect();
        staged.replaced.insert(before.id.clone(), entries);
    }

    /// Changes the entries of what is staged. An index that is damaged has failed: the commit goes on without it, and nothing
    /// says of it that it is kept.
    pub(super) fn edit_indexes(
        &self,
        key: CollectionKey,
        staged: &Staged,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let Some(collection) = self.state.collections.get(&key) else { return Ok(()) };
        if collection.state.indexes.is_empty() {
            return Ok(());
        }
        let all = collection.state.indexes.all();
        for (at, index) in all.iter().enumerate().filter(|(_, index)| index.is_kept()) {
            match self.edit_index(at, index, staged) {
                Ok(edit) => edit.write(index.key, writes),
                Err(error @ DatabaseError::Damaged { .. }) => {
                    tracing::warn!(index = index.name(), %error, "an index is damaged: it is built anew");
                    index.set_life(Life::Failed);
                    self.store.note_index_work();
                }
                Err(error) => return Err(error),
            }
        }
        let stamp = keys::numbered(keys::STAMP, key.0);
        if all.iter().any(|index| index.life() == Life::Failed) {
            writes.remove(stamp);
        } else {
            writes.insert(stamp, collection.state.stamp(&staged.counters).to_bytes());
        }
        Ok(())
    }

    fn edit_index(&self, at: usize, index: &Secondary, staged: &Staged) -> Result<Edit, DatabaseError> {
        let built = index.built();
        // In order, so that neighbours share a page; of an entry that goes and comes again the latter holds.
        let mut changes: BTreeMap<&[u8], (&Entry, bool)> = BTreeMap::new();
        let gone = staged.replaced.values().filter_map(|entries| entries.get(at));
        for entry in gone.filter(|entry| entry.sequence <= built) {
            changes.insert(entry.key(), (entry, false));
        }
        let names = self.store.names.read().unwrap_or_else(PoisonError::into_inner);
        let newest = staged.newest.values().flatten().filter_map(|at| staged.revisions.get(*at)?.as_ref());
        let come: Vec<Entry> = newest
            .filter(|revision| !revision.deleted && revision.sequence <= built)
            .map(|revision| index.entry(&names, &revision.id, &revision.body, revision.sequence))
            .collect();
        drop(names);
        for entry in &come {
            changes.insert(entry.key(), (entry, true));
        }
        let (engine, mut edit) = (self.store.engine(), Edit::default());
        for (entry, comes) in changes.into_values() {
            if comes {
                edit.add(&engine, index.key, entry.clone())?;
            } else {
                edit.take(&engine, index.key, entry)?;
            }
        }
        Ok(edit)
    }
}
