//! What a store that wraps a database passes on to it as it is.

/// The methods of [`ReplicaStore`](gattway::lab::replica::store::ReplicaStore) that a wrapper with the database in this field
/// leaves alone.
macro_rules! delegate_to_database {
    ($field:ident) => {
        fn source(&self) -> gattway::lab::replica::revision::SourceId {
            self.$field.source()
        }

        fn versioning(&self) -> gattway::lab::replica::revision::Versioning {
            self.$field.versioning()
        }

        fn collection(&self, name: &str) -> Option<gattway::lab::replica::store::CollectionId> {
            gattway::lab::replica::store::ReplicaStore::collection(&self.$field, name)
        }

        fn wall_ns(&self) -> u64 {
            gattway::lab::replica::store::ReplicaStore::wall_ns(&self.$field)
        }

        fn last_sequence(&self, collection: gattway::lab::replica::store::CollectionId) -> u64 {
            self.$field.last_sequence(collection)
        }

        fn make_durable(&self) -> Result<(), gattway::lab::replica::store::ReplicaStoreError> {
            gattway::lab::replica::store::ReplicaStore::make_durable(&self.$field)
        }

        fn mark_pushed(&self, collection: gattway::lab::replica::store::CollectionId, sequence: u64) {
            self.$field.mark_pushed(collection, sequence);
        }

        fn checkpoint(
            &self,
            collection: gattway::lab::replica::store::CollectionId,
            client: &str,
        ) -> Result<
            Option<gattway::lab::replica::store::StoredCheckpoint>,
            gattway::lab::replica::store::ReplicaStoreError,
        > {
            self.$field.checkpoint(collection, client)
        }

        fn collections(&self) -> Vec<(gattway::lab::replica::store::CollectionId, String)> {
            gattway::lab::replica::store::ReplicaStore::collections(&self.$field)
        }

        fn lose(
            &self,
            collection: gattway::lab::replica::store::CollectionId,
            id: &str,
        ) -> Result<bool, gattway::lab::replica::store::ReplicaStoreError> {
            gattway::lab::replica::store::ReplicaStore::lose(&self.$field, collection, id)
        }

        fn read_blob(
            &self,
            digest: &gattway::lab::replica::blobs::BlobDigest,
            offset: u64,
            limit: usize,
        ) -> Result<Option<bytes::Bytes>, gattway::lab::replica::store::ReplicaStoreError> {
            gattway::lab::replica::store::ReplicaStore::read_blob(&self.$field, digest, offset, limit)
        }

        fn append_blob(
            &self,
            digest: &gattway::lab::replica::blobs::BlobDigest,
            offset: u64,
            bytes: &[u8],
        ) -> Result<u64, gattway::lab::replica::store::ReplicaStoreError> {
            gattway::lab::replica::store::ReplicaStore::append_blob(&self.$field, digest, offset, bytes)
        }

        fn finish_blob(
            &self,
            digest: &gattway::lab::replica::blobs::BlobDigest,
        ) -> Result<bool, gattway::lab::replica::store::ReplicaStoreError> {
            gattway::lab::replica::store::ReplicaStore::finish_blob(&self.$field, digest)
        }

        fn checkpoint_clients(
            &self,
            collection: gattway::lab::replica::store::CollectionId,
            prefix: &str,
        ) -> Result<Vec<String>, gattway::lab::replica::store::ReplicaStoreError> {
            self.$field.checkpoint_clients(collection, prefix)
        }
    };
}
