//! Which blobs documents name, under a commit: each name comes and goes with its document.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::super::blobs::blobs_of;
use super::super::block::StoredRevision;
use super::super::engine::Writes;
use super::super::ground::damaged;
use super::super::handle::Store;
use super::super::keys::{self, CollectionKey};
use super::Writer;
use crate::database::DatabaseError;
use crate::replica::blobs::{BLOBS_MAX, BlobDigest};

impl Writer<'_> {
    fn blobs_of(&self, id: &str, body: &[u8]) -> Vec<BlobDigest> {
        let names = self.store.names.read().unwrap_or_else(PoisonError::into_inner);
        blobs_of(&names, id, body)
    }

    /// Stages what a document names from now on, and no longer.
    pub(super) fn note_blobs(
        &mut self,
        key: CollectionKey,
        id: &str,
        before: Option<&StoredRevision>,
        now: Option<&[u8]>,
    ) {
        let now = now.map(|body| self.blobs_of(id, body)).unwrap_or_default();
        let before = before.filter(|before| !before.deleted);
        let before = before.map(|before| self.blobs_of(id, &before.body)).unwrap_or_default();
        for digest in before.into_iter().filter(|digest| !now.contains(digest)) {
            self.others.push((keys::blob_name(&digest, key, id), None));
            self.unnamed.push(digest);
        }
        for digest in now {
            self.others.push((keys::blob_name(&digest, key, id), Some(Vec::new())));
        }
    }

    /// Stages what a stored document names.
    pub(in super::super) fn name_blobs(&mut self, key: CollectionKey, record: &StoredRevision) {
        self.note_blobs(key, &record.id, None, Some(&record.body));
    }

    /// Stages that all documents were looked through.
    pub(in super::super) fn all_blobs_are_named(&mut self) {
        self.others.push((keys::BLOBS_RECORDED.to_vec(), Some(Vec::new())));
    }

    /// The first blob that a body names and that is not here. What the document has named before may be missing on.
    ///
    /// # Errors
    /// [`DatabaseError::BadBody`] if it names too many; of the store.
    pub(crate) fn missing_blob(
        &self,
        id: &str,
        body: &[u8],
        before: Option<&StoredRevision>,
    ) -> Result<Option<BlobDigest>, DatabaseError> {
        let named = self.blobs_of(id, body);
        if named.is_empty() {
            return Ok(None);
        }
        if named.len() > BLOBS_MAX {
            let reason = format!("it names more than {BLOBS_MAX} blobs");
            return Err(DatabaseError::BadBody { reason });
        }
        let known: BTreeSet<BlobDigest> = match before.filter(|before| !before.deleted) {
            Some(before) => self.blobs_of(id, &before.body).into_iter().collect(),
            None => BTreeSet::new(),
        };
        for digest in named.into_iter().filter(|digest| !known.contains(digest)) {
            if !self.store.blobs.is_whole(&digest)? {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }
}

impl Store {
    /// Stages to forget what the documents of a collection name that is being deleted; gives the blobs.
    pub(super) fn forget_blobs(
        &self,
        key: CollectionKey,
        writes: &mut Writes,
    ) -> Result<Vec<BlobDigest>, DatabaseError> {
        let mut unnamed = BTreeSet::new();
        self.scan_blob_names(|entry, name| {
            let (digest, of, _) = name.ok_or_else(|| damaged("the name of a blob"))?;
            if of == key {
                writes.remove(entry);
                unnamed.insert(digest);
            }
            Ok(())
        })?;
        Ok(unnamed.into_iter().collect())
    }
}
