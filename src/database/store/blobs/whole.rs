//! All blobs that there are, and whether they are sound.

use super::Blobs;
use super::names::{BlobCounts, Name, to_hex};
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;

impl Blobs {
    /// The digests of all whole blobs, in order, and of all parts.
    pub(in super::super) fn list(&self) -> Result<(Vec<BlobDigest>, Vec<BlobDigest>), DatabaseError> {
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        self.visit(|name| match Name::of(name) {
            Some(Name::Whole(digest)) => whole.push(digest),
            Some(Name::Part(digest)) => parts.push(digest),
            Some(Name::New) | None => {}
        })?;
        whole.sort_unstable();
        Ok((whole, parts))
    }

    /// How many whole ones there are.
    pub(crate) fn counts(&self) -> Result<BlobCounts, DatabaseError> {
        let mut counts = BlobCounts::default();
        for digest in self.list()?.0 {
            if let Ok(Some(file)) = self.open_whole(&digest) {
                counts.blobs += 1;
                counts.bytes += file.length();
            }
        }
        Ok(counts)
    }

    /// Reads a whole blob and checks it; `false` if it is not here.
    pub(in super::super) fn check(&self, digest: &BlobDigest) -> Result<bool, DatabaseError> {
        let Some(file) = self.open_whole(digest)? else { return Ok(false) };
        let (mut content, mut at) = (Vec::new(), 0);
        while at < file.length() {
            file.read_chunk(at, &mut content)?;
            at += content.len() as u64;
        }
        Ok(true)
    }

    /// Gives a whole blob to another directory on the same or another medium, durably.
    pub(in super::super) fn copy(&self, digest: &BlobDigest, to: &Blobs) -> Result<(), DatabaseError> {
        let target = to.made_directory()?;
        // A whole one does not change any more.
        if self.directory.link(&to_hex(digest), target).is_ok() {
            let mut names = to.lock_names();
            names.has_files = false;
            return to.sync_names(&mut names);
        }
        let Some(file) = self.open_whole(digest)? else { return Ok(()) };
        let (mut content, mut at) = (Vec::new(), 0);
        while at < file.length() {
            file.read_chunk(at, &mut content)?;
            to.append(digest, at, &content, |_| Ok(()))?;
            at += content.len() as u64;
        }
        to.finish(digest).map(drop)
    }

    /// Removes all parts.
    pub(in super::super) fn remove_parts(&self) -> Result<(), DatabaseError> {
        for digest in self.list()?.1 {
            self.remove_part(&digest)?;
        }
        Ok(())
    }
}
