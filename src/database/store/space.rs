//! Room on the medium. After a write for which there was none, sled's memory is ahead of the medium and the handle is of no
//! use any more; so a commit is refused before it is begun when it could take the last of the room. The handle reads on,
//! and takes commits again when there is room again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::database::DatabaseError;

/// What a commit may take of the medium for a byte that is staged: the log, a redo list, pages that are written anew.
const AMPLIFICATION: u64 = 8;

/// Bytes that a staged revision takes beside its body and ID, roughly.
pub(super) const REVISION_OVERHEAD: usize = 96;

/// What of the reserve a commit of checkpoints alone must leave: they are small, and a peer that only reads needs them.
const CHECKPOINT_SHARE: u64 = 2;

/// Room on the medium of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// Bytes that this process may still use, if the file system says.
    pub free_bytes: Option<u64>,
    /// Bytes that commits leave free:
    /// [`DatabaseConfig::keep_free_bytes`](crate::database::DatabaseConfig::keep_free_bytes).
    pub keep_free_bytes: u64,
    /// Whether the last commit was refused for want of room, or any would be now.
    pub is_short: bool,
}

/// See the head of the file.
pub(super) struct Space {
    directory: PathBuf,
    keep_free: u64,
    /// Whether the last commit was refused; the change is told.
    short: AtomicBool,
}

impl Space {
    pub(super) fn new(directory: &Path, keep_free: u64) -> Space {
        Space { directory: directory.to_owned(), keep_free, short: AtomicBool::new(false) }
    }

    /// Bytes of the medium that this process may still use; `None` if the file system does not say.
    fn free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.directory).ok().filter(|found| found.f_blocks > 0)?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// How much room there is.
    pub(super) fn room(&self) -> Room {
        let (free_bytes, keep_free_bytes) = (self.free(), self.keep_free);
        let is_short =
            self.short.load(Ordering::Acquire) || free_bytes.is_some_and(|free| free < keep_free_bytes);
        Room { free_bytes, keep_free_bytes, is_short }
    }

    /// Lets a commit of that many staged bytes through, or refuses it.
    ///
    /// # Errors
    /// [`DatabaseError::Full`]; nothing was changed.
    pub(super) fn admit(&self, staged: usize, only_checkpoints: bool) -> Result<(), DatabaseError> {
        if self.keep_free == 0 {
            return Ok(());
        }
        let Some(free) = self.free() else { return Ok(()) };
        let keep = if only_checkpoints { self.keep_free / CHECKPOINT_SHARE } else { self.keep_free };
        let is_short = free < keep.saturating_add((staged as u64).saturating_mul(AMPLIFICATION));
        let was_short = self.short.swap(is_short && !only_checkpoints, Ordering::AcqRel);
        if !is_short {
            if was_short && !only_checkpoints {
                tracing::info!(path = %self.directory.display(), free, "there is room again: writes are taken");
            }
            return Ok(());
        }
        if !was_short {
            let keep_free = self.keep_free;
            tracing::warn!(path = %self.directory.display(), free, keep_free, "the medium is nearly full: writes are \
                refused until there is room; nothing that was acknowledged is lost");
        }
        Err(DatabaseError::Full { detail: format!("{free} bytes are free, {keep} must stay so") })
    }
}
