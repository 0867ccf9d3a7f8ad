//! What a store that wraps a database passes on to it as it is.

/// The methods of [`ReplicaStore`](gattway::replicator::store::ReplicaStore) that a wrapper with the database in this field
/// leaves alone.
macro_rules! delegate_to_database {
    ($field:ident) => {
        fn source(&self) -> gattway::database::revision::SourceId {
            self.$field.source()
        }

        fn collection(&self, name: &str) -> Option<gattway::replicator::store::CollectionId> {
            gattway::replicator::store::ReplicaStore::collection(&self.$field, name)
        }

        fn last_sequence(&self, collection: gattway::replicator::store::CollectionId) -> u64 {
            self.$field.last_sequence(collection)
        }

        fn make_durable(&self) -> Result<(), gattway::replicator::store::ReplicaStoreError> {
            gattway::replicator::store::ReplicaStore::make_durable(&self.$field)
        }

        fn mark_pushed(&self, collection: gattway::replicator::store::CollectionId, sequence: u64) {
            self.$field.mark_pushed(collection, sequence);
        }

        fn checkpoint(
            &self,
            collection: gattway::replicator::store::CollectionId,
            client: &str,
        ) -> Result<
            Option<gattway::replicator::store::StoredCheckpoint>,
            gattway::replicator::store::ReplicaStoreError,
        > {
            self.$field.checkpoint(collection, client)
        }
    };
}
