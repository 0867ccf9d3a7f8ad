//! Staging that a document expires, and what stays of one that is removed.

use std::sync::PoisonError;

use super::super::block::StoredRevision;
use super::super::expiry;
use super::super::keys::CollectionKey;
use super::super::removed;
use super::Writer;
use super::retained::Memory;
use crate::database::DatabaseError;
use crate::replica::revision::{SourceId, Version, VersionVector};

impl Writer<'_> {
    /// Stages when a document expires, in milliseconds since 1970; it must be there.
    pub(crate) fn set_expiration(&mut self, key: CollectionKey, id: &str, time_ms: Option<u64>) {
        self.retained.expirations.insert((key, id.into()), time_ms);
    }

    /// Whether a document has expired, as this writer sees it.
    pub(super) fn is_due(&self, key: CollectionKey, id: &str) -> Result<bool, DatabaseError> {
        if self.retained.expirations.is_empty() {
            return self.store.is_due(key, id);
        }
        match self.retained.expirations.get(&(key, id.into())) {
            Some(staged) => Ok(staged.is_some_and(|time_ms| expiry::is_over(time_ms, self.wall))),
            None => self.store.is_due(key, id),
        }
    }

    /// Stages what stays of a document that is removed.
    pub(super) fn remember(&mut self, key: CollectionKey, before: &StoredRevision, memory: Memory) {
        self.set_expiration(key, &before.id, None);
        if memory == Memory::Nothing {
            return;
        }
        let time = before.vector.current.time;
        if memory == Memory::Horizon && removed::has_an_age(time, self.wall) {
            let horizon = self.retained.horizons.entry(key).or_default();
            *horizon = time.max(*horizon);
            return;
        }
        if memory == Memory::AuthorHorizons && self.raise_author_horizons(key, &before.vector) {
            return;
        }
        self.retained.marks.insert((key, removed::hash_of(&before.id)), before.vector.clone());
    }

    /// Stages that all versions of a document are known; `false` if a horizon cannot say that: no right clock gave one of
    /// them, as that of a tree ID never is, or there are too many authors.
    fn raise_author_horizons(&mut self, key: CollectionKey, vector: &VersionVector) -> bool {
        let wall = self.wall;
        let Ok(collection) = self.store.collection(key) else { return false };
        let known = collection.author_horizons.read().unwrap_or_else(PoisonError::into_inner);
        let staged = &mut self.retained.author_horizons;
        let is_new = |author: SourceId| !known.contains_key(&author) && !staged.contains_key(&(key, author));
        let new = vector.all_versions().filter(|version| is_new(version.source)).count();
        let fits = known.len() + staged.len() + new <= removed::AUTHORS_MAX;
        let is_dated = |version: Version| removed::has_an_age(version.time, wall);
        if !fits || !vector.all_versions().all(is_dated) {
            return false;
        }
        for version in vector.all_versions() {
            let horizon = staged.entry((key, version.source)).or_default();
            *horizon = version.time.max(*horizon);
        }
        true
    }

    /// Whether a revision from a peer, of a document that there is not, was removed here; then it is as good as known.
    pub(crate) fn is_removed(
        &self,
        key: CollectionKey,
        id: &str,
        vector: &VersionVector,
    ) -> Result<bool, DatabaseError> {
        // A hash costs more than all the rest, and hardly ever is anything removed in a commit of a peer.
        let marks = Some(&self.retained.marks).filter(|marks| !marks.is_empty());
        let staged = marks.and_then(|marks| marks.get(&(key, removed::hash_of(id))));
        if staged.is_some_and(|staged| removed::is_covered(vector, staged, true)) {
            return Ok(true);
        }
        self.store.is_removed(key, id, vector, true)
    }
}
