//! Purged documents that had a time of this database's own far ahead of the wall clock. Peers may still have that revision, and
//! would take what is made anew under the same ID for older; the clock does not stay where it was, so it is remembered here.
//! There are hardly ever any.

use std::ops::ControlFlow;

use super::engine::{Entry, Writes};
use super::ground::damaged;
use super::handle::Store;
use super::keys::{self, CollectionKey};
use crate::database::DatabaseError;

/// The entry of a document that is being purged.
pub(super) fn entry(collection: CollectionKey, id: &str, own: u64) -> Entry {
    (keys::purged(collection, id), Some(own.to_be_bytes().to_vec()))
}

impl Store {
    /// The time of ours that a purged document had, if it is remembered.
    pub(super) fn purged_time(
        &self,
        collection: CollectionKey,
        id: &str,
    ) -> Result<Option<u64>, DatabaseError> {
        let Some(value) = self.engine().get(&keys::purged(collection, id))? else { return Ok(None) };
        let time = value.as_ref().try_into().map(u64::from_be_bytes);
        time.map(Some).map_err(|_| damaged("the time of a purged document"))
    }

    /// Stages to forget those of a collection that is being deleted; gives the newest of their times, or 0.
    pub(super) fn forget_purged(
        &self,
        collection: CollectionKey,
        writes: &mut Writes,
    ) -> Result<u64, DatabaseError> {
        let (from, to) = keys::kind_range(keys::PURGED);
        let prefix = keys::purged(collection, "");
        let mut newest = 0;
        self.engine().scan(&from, &to, |key, value| {
            if key.starts_with(&prefix) {
                let time = value.try_into().map(u64::from_be_bytes);
                newest = newest.max(time.map_err(|_| damaged("the time of a purged document"))?);
                writes.remove(key);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(newest)
    }
}
