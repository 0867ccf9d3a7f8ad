//! What of a collection a peer does not have yet, as far as its checkpoint says.

use std::collections::HashSet;

use super::checkpoint::{Checkpoint, checkpoint_id};
use super::config::{CollectionConfig, FilterInput, ReplicatorType};
use super::delivery::own_checkpoint;
use super::names::canonical_name;
use crate::replica::store::{Change, CollectionId, ReplicaStore, ReplicaStoreError};

/// Changes that are read at a time.
const PAGE_ROWS: usize = 200;

/// A collection as one replicator sees it.
pub(crate) struct Pending<'a> {
    store: &'a dyn ReplicaStore,
    config: &'a CollectionConfig,
    id: CollectionId,
    name: String,
    /// The documents that are chosen.
    chosen: Option<HashSet<&'a str>>,
    /// What the peer has confirmed.
    confirmed: Checkpoint,
}

impl<'a> Pending<'a> {
    /// For the peer of this name. `None`: there is no such collection, or nothing of it is pushed.
    pub(crate) fn of(
        store: &'a dyn ReplicaStore,
        peer_uid: &str,
        direction: ReplicatorType,
        config: &'a CollectionConfig,
    ) -> Result<Option<Pending<'a>>, ReplicaStoreError> {
        let name = canonical_name(&config.name);
        let Some(id) = store.collection(&name).filter(|_| direction.pushes()) else { return Ok(None) };
        let named = CollectionConfig { name: name.clone(), ..config.clone() };
        let client = checkpoint_id(store.source(), peer_uid, direction, &named);
        let own = store.checkpoint(id, &own_checkpoint(&client))?;
        let confirmed = own.map(|own| Checkpoint::from_json(&own.body)).unwrap_or_default();
        let chosen = config.document_ids.as_ref().map(|ids| ids.iter().map(String::as_str).collect());
        Ok(Some(Pending { store, config, id, name, chosen, confirmed }))
    }

    /// The IDs of all documents whose newest revision the peer is not known to have, in the order of their changes.
    pub(crate) fn ids(&self) -> Result<Vec<String>, ReplicaStoreError> {
        let (mut ids, mut since) = (Vec::new(), self.confirmed.local_sequence());
        loop {
            let page = self.store.changes(self.id, since, PAGE_ROWS, self.config.push_filter.is_some())?;
            let Some(last) = page.last() else { return Ok(ids) };
            since = last.sequence;
            ids.extend(page.into_iter().filter(|change| self.is_pending(change)).map(|change| change.id));
        }
    }

    /// Whether one document is among them.
    pub(crate) fn contains(&self, id: &str) -> Result<bool, ReplicaStoreError> {
        let change = match self.config.push_filter {
            Some(_) => self.store.document(self.id, id)?,
            None => self.store.revision(self.id, id)?,
        };
        Ok(change.is_some_and(|change| self.is_pending(&change)))
    }

    fn is_pending(&self, change: &Change) -> bool {
        let (name, body) = (&*self.name, change.body.as_deref().unwrap_or_default());
        let input = FilterInput { collection: name, id: &change.id, deleted: change.deleted, body };
        !self.confirmed.local.contains(change.sequence)
            && self.chosen.as_ref().is_none_or(|ids| ids.contains(&*change.id))
            && self.config.push_filter.as_ref().is_none_or(|filter| filter(&input))
    }
}
