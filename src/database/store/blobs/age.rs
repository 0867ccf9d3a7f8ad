//! How long blobs stay that nobody wants, and which were looked at.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime};

use super::super::ground::io_error;
use super::names::{changed_ms, touch};
use super::{Blobs, LOOK_MAX};
use crate::database::{DatabaseError, clock};
use crate::replica::blobs::BlobDigest;

/// Nanoseconds of a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// A blob that no document names stays so long: one may be about to be saved, here or by a peer.
const UNNAMED_MS: u64 = 24 * 60 * 60 * 1000;

/// A part that nobody continues stays so long.
const PART_MS: u64 = 7 * UNNAMED_MS;

impl Blobs {
    pub(in super::super) fn take_suspects(&self) -> Option<BTreeSet<BlobDigest>> {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = suspects.all.is_some_and(|all| all.elapsed() < LOOK_MAX);
        let digests = suspects.digests.replace(BTreeSet::new()).filter(|_| is_recent);
        if digests.is_none() {
            suspects.all = Some(Instant::now());
        }
        digests
    }

    /// Lets all be looked at.
    pub(crate) fn suspect_all(&self) {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).digests = None;
    }

    /// Whether a whole blob came so long ago that it may go. One from when no clock was right comes now.
    pub(in super::super) fn is_old(&self, digest: &BlobDigest, now: u64) -> Result<bool, DatabaseError> {
        is_old(&self.whole_path(digest)?, now, UNNAMED_MS)
    }

    pub(in super::super) fn is_old_part(&self, digest: &BlobDigest, now: u64) -> Result<bool, DatabaseError> {
        is_old(&self.part_path(digest)?, now, PART_MS)
    }

    /// Removes a whole blob if it is still old; somebody may have saved it anew.
    pub(in super::super) fn remove_old(&self, digest: &BlobDigest, now: u64) -> Result<bool, DatabaseError> {
        let path = self.whole_path(digest)?;
        let _naming = self.lock_names();
        if !is_old(&path, now, UNNAMED_MS)? {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(|e| io_error("remove a blob", e))?;
        Ok(true)
    }
}

/// Whether a file is at least so old.
fn is_old(path: &Path, now: u64, age: u64) -> Result<bool, DatabaseError> {
    let changed = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        metadata => changed_ms(&metadata.map_err(|e| io_error("look at a blob", e))?),
    };
    if changed > now || !clock::is_plausible(changed.saturating_mul(NS_PER_MS)) {
        touch(path, SystemTime::now())?;
        return Ok(false);
    }
    Ok(now - changed >= age)
}
