//! How long blobs stay that nobody wants, and which were looked at.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Instant;

use super::super::ground::io_error;
use super::directory::Directory;
use super::names::{part_name, to_hex};
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
        is_old(&self.directory, &to_hex(digest), now, UNNAMED_MS)
    }

    pub(in super::super) fn is_old_part(&self, digest: &BlobDigest, now: u64) -> Result<bool, DatabaseError> {
        is_old(&self.directory, &part_name(digest), now, PART_MS)
    }

    /// Removes a whole blob if it is still old; somebody may have saved it anew.
    pub(in super::super) fn remove_old(&self, digest: &BlobDigest, now: u64) -> Result<bool, DatabaseError> {
        let name = to_hex(digest);
        let _naming = self.lock_names();
        if !is_old(&self.directory, &name, now, UNNAMED_MS)? {
            return Ok(false);
        }
        self.directory.remove(&name).map_err(|e| io_error("remove a blob", e))?;
        Ok(true)
    }
}

/// Whether a file is at least so old.
fn is_old(directory: &Directory, name: &str, now: u64, age: u64) -> Result<bool, DatabaseError> {
    let info = directory.info(name).map_err(|e| io_error("look at a blob", e))?;
    let Some(changed) = info.map(|info| info.changed_ms) else { return Ok(false) };
    if changed > now || !clock::is_plausible(changed.saturating_mul(NS_PER_MS)) {
        directory.touch(name).map_err(|e| io_error("keep a blob", e))?;
        return Ok(false);
    }
    Ok(now - changed >= age)
}
