//! Content of blobs, in and out.

use std::io::Read;
use std::sync::Arc;

use super::blobs::Blobs;
use super::handle::Store;
use super::keys;
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;

impl Store {
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Whether content may be written, as a commit may be.
    fn check_open(&self) -> Result<(), DatabaseError> {
        self.check_writable()?;
        self.engine().get(keys::META).map(drop)
    }

    /// Saves a blob, durably; gives its digest and length.
    pub(crate) fn save_blob(
        self: &Arc<Store>,
        content: &mut dyn Read,
    ) -> Result<(BlobDigest, u64), DatabaseError> {
        self.check_open()?;
        let saved = self.blobs.save(content, |bytes| self.space.admit_file(bytes))?;
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
        self.blobs.append(digest, offset, bytes, |bytes| self.space.admit_file(bytes))
    }

    /// Makes the part of a blob a whole one; `false` if it was not its content.
    pub(crate) fn finish_blob(self: &Arc<Store>, digest: &BlobDigest) -> Result<bool, DatabaseError> {
        self.check_open()?;
        let is_whole = self.blobs.finish(digest)?;
        self.sweep_later();
        Ok(is_whole)
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
