//! What the database remembers of documents that could not be synced.

use super::store::{CollectionKey, Store};
use super::{Database, DatabaseError};
use crate::replicator::store::{CollectionId, ReplicaStore, ReplicaStoreError};
use crate::replicator::unsynced::UnsyncedDocument;
use crate::replicator::unsynced::list::{self, PREFIX};

/// Documents of one collection that could not be synced with one peer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnsyncedWithPeer {
    /// Who the peer has proven to be, or the name it was given; empty for peers that were let in without one.
    pub peer: String,
    /// Full name of the collection.
    pub collection: String,
    /// By direction and ID.
    pub documents: Vec<UnsyncedDocument>,
    /// How often others were refused that found no room on the list.
    pub more: u64,
}

impl Database {
    /// What could not be synced so far, by collection and peer, without what has come another way since.
    ///
    /// # Errors
    /// Of the store.
    pub fn unsynced(&self) -> Result<Vec<UnsyncedWithPeer>, DatabaseError> {
        let mut all = Vec::new();
        for (key, collection) in self.store.collections() {
            for name in names(&self.store, key)? {
                let id = CollectionId(key.0.into());
                let Some(stored) = self.checkpoint(id, &name).map_err(failed)? else { continue };
                let shown = list::show(self, id, &collection.name, &stored.body).map_err(failed)?;
                let Some((peer, documents, more)) = shown else { continue };
                if !documents.is_empty() || more > 0 {
                    all.push(UnsyncedWithPeer { peer, collection: collection.name.clone(), documents, more });
                }
            }
        }
        all.sort_by(|a, b| (&a.peer, &a.collection).cmp(&(&b.peer, &b.collection)));
        Ok(all)
    }
}

/// Names of the records that hold lists.
fn names(store: &Store, key: CollectionKey) -> Result<Vec<String>, DatabaseError> {
    store.checkpoint_names(key, PREFIX)
}

fn failed(error: ReplicaStoreError) -> DatabaseError {
    DatabaseError::Damaged { detail: error.message }
}
