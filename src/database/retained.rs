//! A collection as retention rules see it: how old its documents are, and what to remove of them.

use super::store::{Memory, StoredRevision, has_an_age};
use super::{Collection, DatabaseError};

/// About the bytes of bodies that one look reads.
const LOOK_BYTES: usize = 256 << 10;

/// Bytes that a document counts beside its ID and body: versions, numbers, its place in the index.
const OVERHEAD_BYTES: u64 = 24;

/// A document as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgedDocument {
    pub(crate) id: Box<str>,
    pub(crate) sequence: u64,
    /// The time of its newest version, nanoseconds since 1970; `None` if no clock that can be right gave it.
    pub(crate) time: Option<u64>,
    /// As it is stored, before it is compressed.
    pub(crate) bytes: u64,
}

/// ID and sequence of a document.
pub(crate) type Place = (Box<str>, u64);

impl Collection {
    /// Documents after sequence `since` in order, about `limit` at most, and the sequence up to which everything was looked at.
    pub(crate) fn ages_since(
        &self,
        since: u64,
        limit: usize,
    ) -> Result<(Vec<AgedDocument>, u64), DatabaseError> {
        let key = self.key()?;
        let until = self.store.collection(key)?.applied();
        let found = self.store.changes_within(key, since, until, limit, LOOK_BYTES)?;
        let last = found.last().map_or(until, |record| record.sequence);
        let wall = self.store.wall();
        let living = found.into_iter().filter(|record| !record.deleted);
        let aged = living.map(|record| AgedDocument {
            bytes: (record.id.len() + record.body.len()) as u64 + OVERHEAD_BYTES,
            sequence: record.sequence,
            time: Some(record.vector.current.time).filter(|time| has_an_age(*time, wall)),
            id: record.id,
        });
        Ok((aged.collect(), last))
    }

    /// Removes documents for their age, those that are still at these sequences; gives how many. What has a time up to theirs is not
    /// taken any more; if `takes_late` is set, only not what their authors made up to then, so that what comes late and was never
    /// here is taken. They are on stable storage a moment later.
    pub(crate) fn remove_aged<'a>(
        &self,
        documents: impl IntoIterator<Item = (&'a str, u64)>,
        takes_late: bool,
    ) -> Result<u64, DatabaseError> {
        let memory = if takes_late { Memory::AuthorHorizons } else { Memory::Horizon };
        self.remove_with(documents, false, memory)
    }

    /// Tombstones after sequence `since` in order, those of about `limit` documents, up to sequence `until`; and the sequence up
    /// to which everything was looked at.
    pub(crate) fn tombstones_since(
        &self,
        since: u64,
        until: u64,
        limit: usize,
    ) -> Result<(Vec<Place>, u64), DatabaseError> {
        let key = self.key()?;
        let until = until.min(self.store.collection(key)?.applied());
        let found = self.store.changes_within(key, since, until, limit, LOOK_BYTES)?;
        let last = found.last().map_or(until, |record| record.sequence);
        let dead = found.into_iter().filter(|record| record.deleted);
        Ok((dead.map(|record| (record.id, record.sequence)).collect(), last))
    }

    /// Removes tombstones, those that are still at these sequences; gives how many. What was deleted stays away all the same. They
    /// are on stable storage a moment later.
    pub(crate) fn remove_tombstones<'a>(
        &self,
        tombstones: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Result<u64, DatabaseError> {
        self.remove_with(tombstones, true, Memory::AuthorHorizons)
    }

    fn remove_with<'a>(
        &self,
        documents: impl IntoIterator<Item = (&'a str, u64)>,
        are_deleted: bool,
        memory: Memory,
    ) -> Result<u64, DatabaseError> {
        let key = self.key()?;
        let mut writer = self.store.writer();
        let mut removed = 0;
        for (id, sequence) in documents {
            let is_it =
                |record: &StoredRevision| record.sequence == sequence && record.deleted == are_deleted;
            let Some(record) = writer.revision(key, id)?.filter(is_it) else { continue };
            writer.purge(key, &record, memory)?;
            removed += 1;
        }
        writer.commit()?;
        self.store.sync_later();
        Ok(removed)
    }

    /// The wall clock of its database, nanoseconds since 1970.
    pub(crate) fn wall(&self) -> u64 {
        self.store.wall()
    }
}

#[cfg(feature = "simulation")]
impl Collection {
    /// Removes a document, or a tombstone, and remembers nothing of it: what no release does. It is durable with the next sync.
    ///
    /// # Errors
    /// Of the store; nothing has gone then.
    #[doc(hidden)]
    pub fn remove_and_forget(&self, id: &str) -> Result<(), DatabaseError> {
        let key = self.key()?;
        let mut writer = self.store.writer();
        if let Some(record) = writer.revision(key, id)? {
            writer.purge(key, &record, Memory::Nothing)?;
        }
        writer.commit().map(drop)
    }

    /// Removes documents as a rule of so many would, the oldest first; gives the IDs of those that went.
    ///
    /// # Errors
    /// Of the store; nothing has gone then.
    #[doc(hidden)]
    pub fn keep_newest(&self, documents: usize) -> Result<Vec<Box<str>>, DatabaseError> {
        let (mut all, _) = self.ages_since(0, usize::MAX)?;
        all.retain(|seen| seen.time.is_some());
        all.sort_unstable_by_key(|seen| (seen.time, seen.sequence));
        all.truncate(all.len().saturating_sub(documents));
        self.remove_aged(all.iter().map(|seen| (&*seen.id, seen.sequence)), false)?;
        Ok(all.into_iter().map(|seen| seen.id).collect())
    }
}
