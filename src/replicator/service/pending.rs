//! What a replicator has still to push.

use super::replicator::Replicator;
use super::status::lock;
use crate::replica::store::ReplicaStoreError;
use crate::replicator::driver::error::ReplicatorError;
use crate::replicator::error::SessionError;
use crate::replicator::names::canonical_name;
use crate::replicator::pending::Pending;

impl Replicator {
    /// The IDs of the documents of a collection, by its full name, that are to be pushed and of which the peer has not confirmed the
    /// newest revision, in the order of their changes. Empty if nothing of the collection is pushed. Reads all changes since the
    /// last that was confirmed. By what the checkpoint said last: it is saved every 5 s and at the end of a connection. A peer that
    /// proves who it is has one of its own: before the first connection of this replicator all counts as pending.
    ///
    /// # Errors
    /// Of the store.
    pub fn pending_document_ids(&self, collection: &str) -> Result<Vec<String>, ReplicatorError> {
        self.pending(collection, Vec::new(), |pending| pending.ids())
    }

    /// Whether a document is among the [`pending_document_ids`](Self::pending_document_ids).
    ///
    /// # Errors
    /// Of the store.
    pub fn is_document_pending(&self, collection: &str, id: &str) -> Result<bool, ReplicatorError> {
        self.pending(collection, false, |pending| pending.contains(id))
    }

    fn pending<T>(
        &self,
        collection: &str,
        none: T,
        ask: impl FnOnce(&Pending<'_>) -> Result<T, ReplicaStoreError>,
    ) -> Result<T, ReplicatorError> {
        let config = &self.inner.config;
        let name = canonical_name(collection);
        let Some(of_it) = config.collections.iter().find(|of_it| canonical_name(&of_it.name) == name) else {
            return Ok(none);
        };
        let peer = lock(&self.inner.peer).clone().unwrap_or_else(|| config.endpoint.uid().to_owned());
        let asked = match Pending::of(&*config.store, &peer, config.replicator_type, of_it) {
            Ok(Some(pending)) => ask(&pending),
            Ok(None) => Ok(none),
            Err(error) => Err(error),
        };
        asked.map_err(|error| ReplicatorError::Session(SessionError::from(error)))
    }
}
