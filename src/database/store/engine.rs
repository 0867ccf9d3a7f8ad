//! sled and the durability rule: the only file that opens sled, applies batches and syncs.
//!
//! - A commit is one sled batch, and sled recovers a batch wholly or not at all.
//! - sled's own flush ends in `sync_file_range`, which neither empties the device's cache nor writes the file's size.
//!   So a commit is acknowledged after flush **and** `fdatasync` of the same file through a second descriptor.
//! - Concurrent writers share syncs: one leads, the others wait for it or lead the next.
//! - A failed write leaves sled's memory ahead of the medium, so the handle refuses everything afterwards.
//! - sled panics on some kinds of damage; panics end here as typed errors.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::keys::CollectionKey;
use crate::database::DatabaseError;

/// Size of sled's log segments and write buffers, bytes. Small ones keep a small database small.
pub(super) const SEGMENT_BYTES: usize = 128 * 1024;

/// Largest value given to sled, bytes. sled writes a node that exceeds a quarter of a segment to a file of its own that
/// no sync of ours covers; a leaf holds up to 18 entries for a moment, and keys and headers need their share.
pub(super) const VALUE_BYTES_MAX: usize = SEGMENT_BYTES / 4 / 18 - 300;

/// Name of sled's log within its directory.
const LOG_FILE: &str = "db";

/// How long sled's threads may take to let go of a log that was closed.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause between two looks whether they have.
const CLOSING_POLL: Duration = Duration::from_millis(2);

/// The writes of one commit.
pub(super) type Writes = sled::Batch;

/// Names a commit for waiting on its durability; later ones are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The newest sequence of each collection that a sync made durable.
pub(super) type Watermarks = BTreeMap<CollectionKey, u64>;

/// How often things happened, for benchmarks and tests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineCounts {
    /// Batches applied.
    pub(crate) commits: u64,
    /// Syncs of the medium.
    pub(crate) syncs: u64,
}

/// An open sled tree with group commit.
pub(super) struct Engine {
    db: sled::Db,
    /// The log file, opened a second time for `fdatasync`.
    log: File,
    group: Mutex<Group>,
    group_changed: Condvar,
    failed: OnceLock<String>,
    syncs: AtomicU64,
}

/// Who waits for which sync.
#[derive(Default)]
struct Group {
    applied: u64,
    synced: u64,
    leading: bool,
    /// Sequences applied and not yet given to a sync.
    dirty: Watermarks,
    closed: bool,
}

impl Engine {
    /// Opens or creates the log in `directory` (which exists). The caller holds the database's lock.
    pub(super) fn open(directory: &Path, cache_bytes: u64) -> Result<Engine, DatabaseError> {
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None);
        let db = open_log(&config, directory)?;
        let io = |source| DatabaseError::Io { action: "open", source };
        let log = File::options().read(true).write(true).open(directory.join(LOG_FILE)).map_err(io)?;
        log.sync_all().map_err(io)?;
        sync_directory(directory)?;
        Ok(Engine {
            db,
            log,
            group: Mutex::default(),
            group_changed: Condvar::new(),
            failed: OnceLock::new(),
            syncs: AtomicU64::new(0),
        })
    }

    /// Runs a sled call: refuses after a failure, turns panics into errors.
    fn guarded<T>(
        &self,
        action: &'static str,
        call: impl FnOnce() -> sled::Result<T>,
    ) -> Result<T, DatabaseError> {
        if let Some(reason) = self.failed.get() {
            return Err(DatabaseError::Failed { reason: reason.clone() });
        }
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.fail(translate(action, error, Path::new(LOG_FILE)))),
            Err(panic) => Err(self.fail(DatabaseError::Damaged { detail: panic_text(&*panic) })),
        }
    }

    /// Marks the handle as failed, with the first reason.
    fn fail(&self, error: DatabaseError) -> DatabaseError {
        let _ = self.failed.set(error.to_string());
        error
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, DatabaseError> {
        self.guarded("read", || self.db.get(key))
    }

    /// The first entry at or after `from` and before `to`.
    pub(super) fn first(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(sled::IVec, sled::IVec)>, DatabaseError> {
        self.guarded("read", || self.db.range(from..to).next().transpose())
    }

    /// The last entry at or after `from` and before `to`.
    pub(super) fn last(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(sled::IVec, sled::IVec)>, DatabaseError> {
        self.guarded("read", || self.db.range(from..to).next_back().transpose())
    }

    /// Shows the entries at or after `from` and before `to` in order until `visit` breaks.
    pub(super) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let mut entries = self.db.range(from..to);
        while let Some((key, value)) = self.guarded("read", || entries.next().transpose())? {
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Applies a commit; it becomes visible at once and durable with [`Engine::sync`]. One caller at a time.
    pub(super) fn apply(&self, writes: Writes, sequences: Watermarks) -> Result<Ticket, DatabaseError> {
        self.guarded("write", || self.db.apply_batch(writes))?;
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        group.applied += 1;
        group.dirty.extend(sequences);
        let ticket = Ticket(group.applied);
        drop(group);
        self.group_changed.notify_all();
        Ok(ticket)
    }

    /// The newest commit.
    pub(super) fn newest(&self) -> Ticket {
        Ticket(self.group.lock().unwrap_or_else(PoisonError::into_inner).applied)
    }

    /// Waits until the medium has the commit, leading a sync if nobody does. `publish` is called with what became
    /// durable, without a lock held, by the one who led.
    pub(super) fn sync(&self, ticket: Ticket, publish: impl FnOnce(Watermarks)) -> Result<(), DatabaseError> {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        let (target, dirty) = loop {
            if group.synced >= ticket.0 {
                return Ok(());
            }
            if let Some(reason) = self.failed.get() {
                return Err(DatabaseError::Failed { reason: reason.clone() });
            }
            if !group.leading {
                group.leading = true;
                break (group.applied, std::mem::take(&mut group.dirty));
            }
            group = self.group_changed.wait(group).unwrap_or_else(PoisonError::into_inner);
        };
        drop(group);
        let result = self.guarded("write", || self.db.flush()).and_then(|_| self.sync_log());
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        group.leading = false;
        if result.is_ok() {
            group.synced = target;
        }
        drop(group);
        self.group_changed.notify_all();
        if result.is_ok() {
            publish(dirty);
        }
        result
    }

    fn sync_log(&self) -> Result<(), DatabaseError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        // After a failed fdatasync the kernel may have dropped the pages: nothing later may count on them.
        self.log.sync_data().map_err(|source| self.fail(io_error("sync", source)))
    }

    /// Blocks until a commit waits for a sync; `None` once the engine is closed.
    pub(super) fn wait_dirty(&self) -> Option<Ticket> {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if group.closed || self.failed.get().is_some() {
                return None;
            }
            if group.applied > group.synced {
                return Some(Ticket(group.applied));
            }
            group = self.group_changed.wait(group).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sleeps for at most `time`, less if the engine is closed.
    pub(super) fn sleep(&self, time: Duration) {
        let group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.group_changed.wait_timeout_while(group, time, |group| !group.closed);
    }

    /// Ends [`Engine::wait_dirty`] and [`Engine::sleep`].
    pub(super) fn close(&self) {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.group_changed.notify_all();
    }

    /// Why the handle accepts nothing more, if so.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    pub(super) fn counts(&self) -> EngineCounts {
        let commits = self.group.lock().unwrap_or_else(PoisonError::into_inner).applied;
        EngineCounts { commits, syncs: self.syncs.load(Ordering::Relaxed) }
    }

    /// Checks sled's own checksums.
    pub(super) fn verify(&self) -> Result<(), DatabaseError> {
        self.guarded("verify", || self.db.verify_integrity())
    }
}

/// Opens sled. The caller holds the database's lock, so if sled's own is taken, it is by a handle that this process
/// dropped and that sled's threads have not let go of yet.
fn open_log(config: &sled::Config, directory: &Path) -> Result<sled::Db, DatabaseError> {
    let give_up = Instant::now() + CLOSING_TIME_MAX;
    loop {
        let error = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) => translate("open", error, directory),
            Err(panic) => DatabaseError::Damaged { detail: panic_text(&*panic) },
        };
        if !matches!(error, DatabaseError::InUse { .. }) || Instant::now() >= give_up {
            return Err(error);
        }
        std::thread::sleep(CLOSING_POLL);
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), DatabaseError> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(|source| io_error("sync", source))
}

/// Bytes in all files of a directory.
pub(crate) fn directory_bytes(directory: &Path) -> std::io::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { directory_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

/// An operating system's error, with a full medium told apart.
pub(super) fn io_error(action: &'static str, source: std::io::Error) -> DatabaseError {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => DatabaseError::Full { detail: source.to_string() },
        _ => DatabaseError::Io { action, source },
    }
}

fn translate(action: &'static str, error: sled::Error, path: &Path) -> DatabaseError {
    match error {
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            DatabaseError::InUse { path: PathBuf::from(path) }
        }
        sled::Error::Io(source) => io_error(action, source),
        other => DatabaseError::Damaged { detail: other.to_string() },
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the store panicked").to_owned()
}
