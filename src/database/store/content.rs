//! Content of blobs, in and out.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::blobs::{Blobs, NewBlob};
use super::handle::Store;
use super::keys::{self, CollectionKey};
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;

impl Store {
    /// Lets so many bytes of a blob through while there is room for them.
    pub(super) fn admit_file(&self, bytes: u64) -> Result<(), DatabaseError> {
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            return Ok(());
        }
        self.space.admit_file(bytes)
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Whether content may be written, as a commit may be.
    fn check_open(&self) -> Result<(), DatabaseError> {
        self.check_writable()?;
        self.engine().get(keys::META).map(drop)
    }

    /// Begins a blob.
    pub(crate) fn begin_blob(&self) -> Result<NewBlob, DatabaseError> {
        self.check_open()?;
        self.blobs.begin()
    }

    /// Adds content to a blob that was begun.
    pub(crate) fn append_to(&self, new: &mut NewBlob, bytes: &[u8]) -> Result<(), DatabaseError> {
        self.admit_file(bytes.len() as u64)?;
        new.append(bytes)
    }

    /// Makes it a whole one, durably; gives its digest and length.
    pub(crate) fn complete_blob(
        self: &Arc<Store>,
        new: &NewBlob,
    ) -> Result<(BlobDigest, u64), DatabaseError> {
        self.check_open()?;
        let saved = self.blobs.complete(new)?;
        self.sweep_later();
        Ok(saved)
    }

    /// Adds to the part of a blob; gives its length then.
    pub(crate) fn append_blob(
        &self,
        digest: &BlobDigest,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, DatabaseError> {
        self.check_open()?;
        self.blobs.append(digest, offset, bytes, |bytes| self.admit_file(bytes))
    }

    /// Makes the part of a blob a whole one; `false` if it was not its content.
    pub(crate) fn finish_blob(self: &Arc<Store>, digest: &BlobDigest) -> Result<bool, DatabaseError> {
        self.check_open()?;
        let is_whole = self.blobs.finish(digest)?;
        self.sweep_later();
        Ok(is_whole)
    }

    /// Shows each name of a blob in a document, by the blobs: its key, and what it says unless it is damaged.
    pub(super) fn scan_blob_names(
        &self,
        mut visit: impl FnMut(&[u8], Option<(BlobDigest, CollectionKey, &str)>) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let (from, to) = keys::kind_range(keys::BLOB);
        self.engine().scan(&from, &to, |key, _| {
            if key != keys::BLOBS_RECORDED {
                visit(key, keys::blob_name_parts(key))?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// All blobs that are here or that documents name, in order.
    pub(crate) fn known_blobs(&self) -> Result<BTreeSet<BlobDigest>, DatabaseError> {
        let mut known: BTreeSet<BlobDigest> = self.blobs.list()?.0.into_iter().collect();
        self.scan_blob_names(|_, name| {
            known.extend(name.map(|(digest, ..)| digest));
            Ok(())
        })?;
        Ok(known)
    }

    /// The first documents that name a blob, at most `limit`, and how many more do.
    pub(crate) fn named_by(
        &self,
        digest: &BlobDigest,
        limit: usize,
    ) -> Result<(Vec<(CollectionKey, String)>, u64), DatabaseError> {
        let (mut named, mut more, (from, to)) = (Vec::new(), 0, keys::blob_names(digest));
        self.engine().scan(&from, &to, |key, _| {
            match keys::blob_name_parts(key) {
                Some((_, collection, id)) if named.len() < limit => named.push((collection, id.to_owned())),
                _ => more += 1,
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((named, more))
    }

    /// Content of a whole blob from `offset` on, to the end of a chunk at most; `None` if it is not here or damaged.
    pub(crate) fn read_blob(
        &self,
        digest: &BlobDigest,
        offset: u64,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let mut content = Vec::new();
        let read = match self.blobs.find(digest) {
            Ok(Some(file)) => file.read_chunk(offset, &mut content),
            Ok(None) => return Ok(None),
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => {
                content.truncate(limit);
                Ok(Some(content))
            }
            Err(error @ DatabaseError::Damaged { .. }) => {
                self.blobs.found_damaged(digest, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves the log as an earlier release does.
    #[cfg(test)]
    pub(crate) fn forget_blob_table(&self) {
        let mut writes = super::engine::Writes::default();
        let (from, to) = keys::kind_range(keys::BLOB);
        let gone = |key: &[u8], _: &[u8]| {
            writes.remove(key);
            Ok(std::ops::ControlFlow::Continue(()))
        };
        self.engine().scan(&from, &to, gone).expect("readable");
        self.engine().apply(writes, Default::default()).expect("applied");
        self.blobs.is_recorded.store(false, std::sync::atomic::Ordering::Release);
    }
}
