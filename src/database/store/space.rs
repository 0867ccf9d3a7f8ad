//! Free space. After a write for which there was none, sled's memory is ahead of the storage device and the handle is of no
//! use any more; so a commit is refused before it is begun when it could take the last of the room. The handle reads on,
//! and takes commits again when there is room again.
//!
//! Room has three ends: that of the file system, of the user's quota, and of what this process may make of one file. The file
//! system tells of the first alone; for the others the log's next blocks are reserved before they are needed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::engine::SEGMENT_BYTES;
use crate::database::DatabaseError;

/// What a commit may take of the storage device for a byte that is staged: the log, a redo list, pages that are written anew.
const AMPLIFICATION: u64 = 8;

/// The same for the log alone.
const LOG_AMPLIFICATION: u64 = 3;

/// Blocks that the log has in advance, beside what a commit stages: what sled writes between two syncs, and when it is closed.
const RESERVE_BYTES: u64 = 4 * SEGMENT_BYTES as u64;

/// Most that is reserved for one commit: a redo list of the largest document, and the document.
const RESERVE_BYTES_MAX: u64 = 64 << 20;

/// Bytes that a staged revision takes beside its body and ID, roughly.
pub(super) const REVISION_OVERHEAD: usize = 96;

/// What of the reserve a commit of checkpoints alone must leave: they are small, and a peer that only reads needs them.
const CHECKPOINT_SHARE: u64 = 2;

/// What has come to its end when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// The file system is nearly full.
    Medium,
    /// What this user may store (EDQUOT).
    Quota,
    /// How large a file of this process may be (`ulimit -f`).
    FileSize,
}

impl Lack {
    fn of(error: &io::Error) -> Option<Lack> {
        match error.kind() {
            io::ErrorKind::StorageFull => Some(Lack::Medium),
            io::ErrorKind::QuotaExceeded => Some(Lack::Quota),
            io::ErrorKind::FileTooLarge => Some(Lack::FileSize),
            _ => None,
        }
    }
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lack::Medium => "the disk is nearly full",
            Lack::Quota => "the disk quota of this user is used up",
            Lack::FileSize => "the file-size limit of this process (ulimit -f) is reached",
        })
    }
}

/// Free space of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// Bytes that this process may still use, if the file system says.
    pub free_bytes: Option<u64>,
    /// Bytes that commits leave free:
    /// [`DatabaseConfig::keep_free_bytes`](crate::database::DatabaseConfig::keep_free_bytes).
    pub keep_free_bytes: u64,
    /// Whether the last commit was refused for want of room, or any would be now.
    pub is_short: bool,
    /// What has come to its end, if so.
    pub lack: Option<Lack>,
    /// How often commits were refused for want of room, after others were taken, since the database was opened: also where
    /// there was room again before anybody looked.
    pub shortages: u64,
    /// What had come to its end the last time.
    pub last_lack: Option<Lack>,
}

/// Says before each commit whether stable storage has room for it.
pub(super) struct Space {
    directory: PathBuf,
    keep_free: u64,
    refusals: Mutex<Refusals>,
}

/// Commits that were refused.
#[derive(Clone, Copy, Default)]
struct Refusals {
    /// Whether the last commit was refused; the change is told.
    is_short: bool,
    /// Why the last one that was refused was.
    last_lack: Option<Lack>,
    /// See [`Room::shortages`].
    shortages: u64,
}

impl Space {
    pub(super) fn new(directory: &Path, keep_free: u64) -> Space {
        Space { directory: directory.to_owned(), keep_free, refusals: Mutex::default() }
    }

    /// Bytes of the storage device that this process may still use; `None` if the file system does not say.
    fn free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.directory).ok().filter(|found| found.f_blocks > 0)?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much room there is.
    pub(super) fn room(&self) -> Room {
        let (free_bytes, keep_free_bytes) = (self.free(), self.keep_free);
        let is_full = free_bytes.is_some_and(|free| free < keep_free_bytes);
        let Refusals { is_short, last_lack, shortages } = *self.refusals();
        let lack = last_lack.filter(|_| is_short).or(is_full.then_some(Lack::Medium));
        Room { free_bytes, keep_free_bytes, is_short: lack.is_some(), lack, shortages, last_lack }
    }

    /// Lets a commit of that many staged bytes through, or refuses it. `reserve` sees to it that the log can grow by so many.
    ///
    /// # Errors
    /// [`DatabaseError::Full`]; nothing was changed.
    pub(super) fn admit(
        &self,
        staged: usize,
        only_checkpoints: bool,
        reserve: impl FnOnce(u64) -> io::Result<()>,
    ) -> Result<(), DatabaseError> {
        if self.keep_free == 0 {
            return Ok(());
        }
        let (staged, free) = (staged as u64, self.free());
        let keep = if only_checkpoints { self.keep_free / CHECKPOINT_SHARE } else { self.keep_free };
        let least = keep.saturating_add(staged.saturating_mul(AMPLIFICATION));
        let lack = if free.is_some_and(|free| free < least) {
            Some(Lack::Medium)
        } else {
            let share = if only_checkpoints { CHECKPOINT_SHARE } else { 1 };
            let ahead = RESERVE_BYTES / share + (staged * LOG_AMPLIFICATION).min(RESERVE_BYTES_MAX);
            // Another error of the reservation is that of the commit as well, if it is one.
            reserve(ahead).err().as_ref().and_then(Lack::of)
        };
        self.note(lack, only_checkpoints, free);
        match (lack, free) {
            (None, _) => Ok(()),
            (Some(Lack::Medium), Some(free)) => Err(DatabaseError::Full {
                detail: format!("{} KiB are free, {} KiB must stay so", free >> 10, keep >> 10),
            }),
            (Some(lack), _) => Err(DatabaseError::Full { detail: lack.to_string() }),
        }
    }

    /// Whether a file beside the log may grow by so many bytes.
    ///
    /// # Errors
    /// [`DatabaseError::Full`].
    pub(super) fn admit_file(&self, bytes: u64) -> Result<(), DatabaseError> {
        let least = self.keep_free.saturating_add(bytes);
        match self.free().filter(|free| self.keep_free > 0 && *free < least) {
            None => Ok(()),
            Some(free) => Err(DatabaseError::Full {
                detail: format!("{} KiB are free, {} KiB must stay so", free >> 10, self.keep_free >> 10),
            }),
        }
    }

    /// Tells when room comes to its end, and when there is some again.
    fn note(&self, lack: Option<Lack>, only_checkpoints: bool, free: Option<u64>) {
        if only_checkpoints {
            return;
        }
        let mut refusals = self.refusals();
        let was_short = std::mem::replace(&mut refusals.is_short, lack.is_some());
        refusals.last_lack = lack.or(refusals.last_lack);
        match (was_short, lack) {
            (false, Some(lack)) => {
                refusals.shortages += 1;
                tracing::warn!(path = %self.directory.display(), free, keep_free = self.keep_free, "{lack}: writes are \
                    refused until there is room; nothing that was acknowledged is lost");
            }
            (true, None) => {
                tracing::info!(path = %self.directory.display(), free, "there is room again: writes are taken");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no test machine has at hand: a quota.
    #[test]
    fn each_end_of_the_room_refuses_and_is_over_when_there_is_room() {
        for (error, lack) in [
            (io::ErrorKind::QuotaExceeded, Lack::Quota),
            (io::ErrorKind::FileTooLarge, Lack::FileSize),
            (io::ErrorKind::StorageFull, Lack::Medium),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let space = Space::new(directory.path(), 1);
            space.admit(100, false, |_| Ok(())).expect("room");
            for _ in 0..2 {
                let refused = space.admit(100, false, |_| Err(error.into()));
                assert!(matches!(refused, Err(DatabaseError::Full { .. })), "{refused:?}");
            }
            assert_eq!((space.room().is_short, space.room().lack), (true, Some(lack)));
            space
                .admit(0, true, |bytes| if bytes < RESERVE_BYTES { Ok(()) } else { Err(error.into()) })
                .expect("a checkpoint is small");
            assert!(space.room().is_short, "{lack}");
            space.admit(100, false, |_| Ok(())).expect("room again");
            assert_eq!((space.room().is_short, space.room().lack), (false, None));
            // Who looks only now hears of it too.
            assert_eq!((space.room().shortages, space.room().last_lack), (1, Some(lack)));
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        Space::new(directory.path(), 1)
            .admit(1, false, |_| Err(io::ErrorKind::PermissionDenied.into()))
            .expect("no want of room");
    }
}
