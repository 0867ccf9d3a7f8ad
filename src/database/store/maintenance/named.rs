//! Whether documents and the blobs that they name hold together.

use std::sync::PoisonError;

use super::super::Store;
use super::super::blobs::blobs_of;
use super::super::keys;
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;

impl Store {
    /// Reads each blob that documents name, and the documents.
    pub(super) fn check_blobs(&self, problem: &mut dyn FnMut(String)) -> Result<(), DatabaseError> {
        let mut last = None;
        self.scan_blob_names(|_, name| {
            let Some((digest, key, id)) = name else {
                problem(format!("an entry of table {:?} is damaged", char::from(keys::BLOB)));
                return Ok(());
            };
            if last.replace(digest) != Some(digest)
                && let Some(found) = self.check_blob(&digest)?
            {
                problem(format!("{found}; {id:?} names it"));
            }
            let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
            // What is wrong with the document itself is told where all are read.
            let is_named = match self.stored_revision(key, id) {
                Ok(Some(found)) => !found.deleted && blobs_of(&names, id, &found.body).contains(&digest),
                Ok(None) => false,
                Err(_) => true,
            };
            if !is_named {
                problem(format!("blob {digest}: {id:?} does not name it"));
            }
            Ok(())
        })
    }

    /// Reads a blob; what is wrong with it.
    fn check_blob(&self, digest: &BlobDigest) -> Result<Option<String>, DatabaseError> {
        match self.blobs.check(digest) {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(format!("blob {digest} is missing"))),
            Err(error @ DatabaseError::Damaged { .. }) => {
                self.blobs.found_damaged(digest, &error);
                Ok(Some(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }
}
