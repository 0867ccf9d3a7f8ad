//! Staging that a document expires, and what stays of one that is removed.

use super::super::block::StoredRevision;
use super::super::expiry;
use super::super::keys::CollectionKey;
use super::super::removed;
use super::Writer;
use super::retained::Memory;
use crate::database::DatabaseError;
use crate::replica::revision::VersionVector;

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
        let time = before.vector.current.time;
        if memory == Memory::Horizon && removed::has_an_age(time, self.wall) {
            let horizon = self.retained.horizons.entry(key).or_default();
            *horizon = time.max(*horizon);
            return;
        }
        self.retained.marks.insert((key, removed::hash_of(&before.id)), before.vector.clone());
    }

    /// Whether a revision from a peer, of a document that there is not, was removed here; then it is as good as known.
    pub(crate) fn is_removed(
        &self,
        key: CollectionKey,
        id: &str,
        vector: &VersionVector,
    ) -> Result<bool, DatabaseError> {
        let staged = self.retained.marks.get(&(key, removed::hash_of(id)));
        if staged.is_some_and(|staged| removed::is_covered(vector, staged, true)) {
            return Ok(true);
        }
        self.store.is_removed(key, id, vector, true)
    }
}
