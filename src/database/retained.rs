//! A collection as retention rules see it: how old its documents are, and what to remove of them.

use super::store::{Memory, has_an_age};
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
    /// taken any more. They are on stable storage a moment later.
    pub(crate) fn remove_aged<'a>(
        &self,
        documents: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Result<u64, DatabaseError> {
        let key = self.key()?;
        let mut writer = self.store.writer();
        let mut removed = 0;
        for (id, sequence) in documents {
            let Some(record) = writer.revision(key, id)?.filter(|record| record.sequence == sequence) else {
                continue;
            };
            writer.purge(key, &record, Memory::Horizon)?;
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
