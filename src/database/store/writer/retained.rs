//! What a commit says of documents that are to go, and of those that have gone: expirations, marks, horizons.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::engine::Writes;
use super::super::expiry;
use super::super::ground::damaged;
use super::super::handle::Store;
use super::super::keys::{self, CollectionKey, IdHash};
use super::super::removed::{self, Mark};
use crate::database::DatabaseError;
use crate::replica::revision::{SourceId, VersionVector};

/// Marks that a commit drops for each that it makes, while there are too many or they are too old, and some more.
const DROPPED_FOR_EACH: usize = 2;
const DROPPED_MORE: usize = 16;

/// What stays of a document that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// A mark of its own.
    Mark,
    /// The collection's horizon, which comes to its time.
    Horizon,
    /// The horizons of its authors.
    AuthorHorizons,
    /// None: it may come back.
    Nothing,
}

/// What is staged of it.
#[derive(Default)]
pub(super) struct Retained {
    /// Milliseconds since 1970; `None` for never.
    pub(super) expirations: BTreeMap<(CollectionKey, Box<str>), Option<u64>>,
    pub(super) marks: BTreeMap<(CollectionKey, IdHash), VersionVector>,
    pub(super) horizons: BTreeMap<CollectionKey, u64>,
    pub(super) author_horizons: BTreeMap<(CollectionKey, SourceId), u64>,
}

impl Retained {
    pub(super) fn is_empty(&self) -> bool {
        self.expirations.is_empty()
            && self.marks.is_empty()
            && self.horizons.is_empty()
            && self.author_horizons.is_empty()
    }

    /// Adds it to a commit; gives how many marks there are then.
    pub(super) fn write(&self, store: &Store, wall: u64, writes: &mut Writes) -> Result<u64, DatabaseError> {
        self.write_expirations(store, writes)?;
        for (key, time) in &self.horizons {
            let horizon = store.collection(*key)?.horizon().max(*time);
            writes.insert(keys::numbered(keys::HORIZON, key.0), horizon.to_be_bytes());
        }
        for ((key, author), time) in &self.author_horizons {
            if *time > store.collection(*key)?.author_horizon(*author) {
                writes.insert(keys::author_horizon(*key, Some(*author)), time.to_be_bytes());
            }
        }
        self.write_marks(store, wall, writes)
    }

    fn write_expirations(&self, store: &Store, writes: &mut Writes) -> Result<(), DatabaseError> {
        for ((key, id), time) in &self.expirations {
            let stored = keys::expiration(*key, id);
            let before = match store.engine().get(&stored)? {
                None => None,
                Some(value) => Some(expiry::time_of(&value).ok_or_else(|| damaged("an expiration"))?),
            };
            if before == *time {
                continue;
            }
            if let Some(before) = before {
                writes.remove(keys::due(before, *key, id));
            }
            match time {
                None => writes.remove(stored),
                Some(time) => {
                    writes.insert(stored, time.to_be_bytes());
                    writes.insert(keys::due(*time, *key, id), []);
                }
            }
        }
        Ok(())
    }

    fn write_marks(&self, store: &Store, wall: u64, writes: &mut Writes) -> Result<u64, DatabaseError> {
        let mut count = store.marks.load(Ordering::Acquire);
        if self.marks.is_empty() {
            return Ok(count);
        }
        let minute = removed::minute_of(wall);
        for ((key, hash), vector) in &self.marks {
            let earlier = store.mark_at(*key, *hash)?;
            match &earlier {
                Some(earlier) => writes.remove(keys::marked(earlier.minute, *key, *hash)),
                None => count += 1,
            }
            let mark = Mark { minute, vector: vector.clone() }.joined(earlier);
            let value = store.with_sources(|sources, codec| mark.to_bytes(sources, codec));
            writes.insert(keys::mark(*key, Some(*hash)), value);
            writes.insert(keys::marked(minute, *key, *hash), []);
        }
        count -= self.drop_oldest(store, minute, count, writes)?;
        writes.insert(keys::MARKS, count.to_be_bytes());
        Ok(count)
    }

    /// Lets some of the oldest marks go that are too old or too many; gives how many.
    fn drop_oldest(
        &self,
        store: &Store,
        minute: u32,
        count: u64,
        writes: &mut Writes,
    ) -> Result<u64, DatabaseError> {
        let allowed = self.marks.len() * DROPPED_FOR_EACH + DROPPED_MORE;
        let oldest = minute.saturating_sub(removed::MARK_MINUTES);
        let (from, to) = keys::kind_range(keys::MARKED);
        let (mut looked_at, mut dropped) = (0, 0);
        store.engine().scan(&from, &to, |entry, _| {
            let (of, key, hash) = keys::marked_parts(entry).ok_or_else(|| damaged("a mark by its time"))?;
            looked_at += 1;
            if looked_at > allowed || (of >= oldest && count - dropped <= removed::MARKS_MAX) {
                return Ok(ControlFlow::Break(()));
            }
            // One that this commit makes anew has left this place already.
            if !self.marks.contains_key(&(key, hash)) {
                writes.remove(entry);
                writes.remove(keys::mark(key, Some(hash)));
                dropped += 1;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(dropped)
    }

    /// Takes over in memory what was applied, under the writer's lock; `marks` is how many there are.
    pub(super) fn accept(self, store: &Store, marks: u64) {
        store.marks.store(marks, Ordering::Release);
        for (key, time) in self.horizons {
            if let Ok(collection) = store.collection(key) {
                collection.horizon.fetch_max(time, Ordering::AcqRel);
            }
        }
        for ((key, author), time) in self.author_horizons {
            let Ok(collection) = store.collection(key) else { continue };
            let mut horizons = collection.author_horizons.write().unwrap_or_else(PoisonError::into_inner);
            let horizon = horizons.entry(author).or_default();
            *horizon = time.max(*horizon);
        }
        if !self.expirations.is_empty() {
            store.look_for_next_expiration();
        }
    }
}
