//! The log below the engine: the only file that opens, writes and syncs sled.
//!
//! sled's own flush ends in `sync_file_range`, which neither empties the device's cache nor writes the file's size. So
//! stable storage has what was applied after a flush **and** an `fdatasync` of the same file through a second descriptor.
//! In a simulation a disk in memory stands in sled's place.

mod room;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use self::room::{allocate, reserve_blocks};
use super::super::ground::{Entry, LOG_FILE, Pair, SEGMENT_BYTES, io_error, sync_directory};
#[cfg(feature = "simulation")]
use super::super::simulated::DiskHandle;
use super::files::{Frozen, Tip};
use super::seal;
use crate::database::DatabaseError;

/// Name of sled's settings.
const SETTINGS_FILE: &str = "conf";

/// How long sled's threads may take to let go of a log that was closed.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause between two looks whether they have.
const CLOSING_POLL: Duration = Duration::from_millis(2);

/// How long a flush may take before it is looked after: sled forgets to wake the one who waits when a write fails.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// An ordered map that applies batches of writes, each wholly or not at all.
pub(in super::super) enum Log {
    Sled {
        db: Sled,
        /// The log file, opened a second time for `fdatasync`.
        file: File,
        /// Up to where the file has blocks of its own.
        reserved: AtomicU64,
        tip: Mutex<Tip>,
    },
    /// Read from the files, which are not written to.
    Frozen(Arc<Frozen>),
    #[cfg(feature = "simulation")]
    Simulated(DiskHandle),
}

/// sled, let go of without a panic: when it is dropped it syncs its file once more and panics if that fails, as it does after a
/// sync of ours that failed, for each descriptor of a file hears of a failure once. What it would sync was synced before, or
/// was never acknowledged, so nothing is lost by it.
pub(in super::super) struct Sled(Option<sled::Db>);

impl Sled {
    fn get(&self) -> sled::Result<&sled::Db> {
        self.0.as_ref().ok_or_else(|| sled::Error::Unsupported("the log is closed".to_owned()))
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        let db = self.0.take();
        if let Err(panic) = contain(|| drop(db)) {
            tracing::debug!(panic, "sled's own last sync");
            tracing::warn!(
                "the log could not be synced once more while it was closed (what was acknowledged had been before)"
            );
        }
    }
}

/// Entries in order.
#[allow(clippy::large_enum_variant, reason = "one for a scan, on the stack")]
pub(in super::super) enum Entries {
    Sled(sled::Iter),
    Frozen {
        log: Arc<Frozen>,
        next: Vec<u8>,
        to: Vec<u8>,
    },
    #[cfg(feature = "simulation")]
    Simulated(std::vec::IntoIter<Pair>),
}

/// A value as stored.
pub(in super::super) type Value = sled::IVec;

/// A key and its value as stored.
pub(in super::super) type Stored = (Value, Value);

/// What the log answers.
pub(in super::super) type LogResult<T> = Result<T, sled::Error>;

impl Log {
    /// Opens or creates the log in `directory`, which exists. The caller holds the database's lock.
    pub(in super::super) fn open(directory: &Path, cache_bytes: u64) -> Result<Log, DatabaseError> {
        seal::admit(directory)?;
        remove_unfinished_settings(directory)
            .map_err(|source| DatabaseError::Io { action: "open", source })?;
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None);
        let db = Sled(Some(open_sled(&config, directory)?));
        let io = |source| DatabaseError::Io { action: "open", source };
        let file = File::options().read(true).write(true).open(directory.join(LOG_FILE)).map_err(io)?;
        file.sync_all().map_err(io)?;
        // sled does not sync its settings.
        File::open(directory.join(SETTINGS_FILE)).and_then(|file| file.sync_all()).map_err(io)?;
        sync_directory(directory)?;
        Ok(Log::Sled { db, file, reserved: AtomicU64::new(0), tip: Mutex::default() })
    }

    /// Opens the log in `directory` to be read alone; `None` if there is nothing yet. Nothing is written.
    pub(in super::super) fn open_to_read(directory: &Path) -> Result<Option<Log>, DatabaseError> {
        Ok(seal::admit_to_read(directory)?.map(|salvage| Log::Frozen(Arc::new(Frozen::new(salvage)))))
    }

    pub(in super::super) fn get(&self, key: &[u8]) -> sled::Result<Option<sled::IVec>> {
        match self {
            Log::Sled { db, .. } => db.get()?.get(key),
            Log::Frozen(log) => Ok(log.get(key).map_err(unreadable)?.map(sled::IVec::from)),
            #[cfg(feature = "simulation")]
            Log::Simulated(disk) => Ok(disk.get(key)?.map(sled::IVec::from)),
        }
    }

    /// The first entry at or after `from` and before `to`.
    pub(in super::super) fn first(&self, from: &[u8], to: &[u8]) -> sled::Result<Option<Stored>> {
        match self {
            Log::Sled { db, .. } => db.get()?.range(from..to).next().transpose(),
            Log::Frozen(log) => Ok(log.first(from, to).map_err(unreadable)?.map(stored)),
            #[cfg(feature = "simulation")]
            Log::Simulated(disk) => Ok(disk.first(from, to)?.map(stored)),
        }
    }

    /// The last entry at or after `from` and before `to`.
    pub(in super::super) fn last(&self, from: &[u8], to: &[u8]) -> sled::Result<Option<Stored>> {
        match self {
            Log::Sled { db, .. } => db.get()?.range(from..to).next_back().transpose(),
            Log::Frozen(log) => Ok(log.last(from, to).map_err(unreadable)?.map(stored)),
            #[cfg(feature = "simulation")]
            Log::Simulated(disk) => Ok(disk.last(from, to)?.map(stored)),
        }
    }

    /// The entries at or after `from` and before `to`.
    pub(in super::super) fn range(&self, from: &[u8], to: &[u8]) -> sled::Result<Entries> {
        match self {
            Log::Sled { db, .. } => Ok(Entries::Sled(db.get()?.range(from..to))),
            Log::Frozen(log) => {
                Ok(Entries::Frozen { log: Arc::clone(log), next: from.to_vec(), to: to.to_vec() })
            }
            #[cfg(feature = "simulation")]
            Log::Simulated(disk) => Ok(Entries::Simulated(disk.range(from, to)?.into_iter())),
        }
    }

    /// Makes the writes as one batch, visible at once.
    pub(in super::super) fn apply(&self, entries: Vec<Entry>) -> sled::Result<()> {
        match self {
            Log::Sled { db, .. } => {
                let mut batch = sled::Batch::default();
                for (key, value) in entries {
                    match value {
                        Some(value) => batch.insert(key, value),
                        None => batch.remove(key),
                    }
                }
                db.get()?.apply_batch(batch)
            }
            Log::Frozen(_) => Err(sled::Error::Unsupported("it is open to be read alone".to_owned())),
            #[cfg(feature = "simulation")]
            Log::Simulated(disk) => Ok(disk.apply(entries)?),
        }
    }

    /// Hands everything applied so far to the operating system. When a write fails on one of its threads, sled does not
    /// wake who waits for it; a second flush does, so one is made now and then.
    pub(in super::super) fn flush(&self) -> sled::Result<()> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let db = match self {
            Log::Sled { db, .. } => db.get()?,
            Log::Frozen(_) => return Ok(()),
            #[cfg(feature = "simulation")]
            Log::Simulated(_) => return Ok(()),
        };
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut flush = pin!(db.flush_async());
        let mut looked = Instant::now();
        loop {
            if let Poll::Ready(result) = flush.as_mut().poll(&mut Context::from_waker(&waker)) {
                return result.map(drop);
            }
            std::thread::park_timeout(FLUSH_PATIENCE);
            if looked.elapsed() >= FLUSH_PATIENCE {
                db.flush()?;
                looked = Instant::now();
            }
        }
    }

    /// How far the log is written; `None` if that is not to be seen.
    pub(in super::super) fn tip(&self) -> Option<u64> {
        let Log::Sled { file, tip, .. } = self else { return None };
        let read = tip.lock().unwrap_or_else(PoisonError::into_inner).read(file);
        read.unwrap_or_else(|error| {
            tracing::debug!(%error, "the end of the log could not be read");
            None
        })
    }

    /// Sees to it that the file can grow by so many bytes: below the limit that this process has for files, and on blocks that are
    /// its own from now on, so that neither a quota nor another program can stop what was begun.
    ///
    /// # Errors
    /// It cannot; nothing was changed.
    pub(in super::super) fn reserve(&self, bytes: u64) -> io::Result<()> {
        let (file, reserved) = match self {
            Log::Sled { file, reserved, .. } => (file, reserved),
            Log::Frozen(_) => return Ok(()),
            #[cfg(feature = "simulation")]
            Log::Simulated(_) => return Ok(()),
        };
        let limit = getrlimit(Resource::Fsize).current;
        reserve_blocks(reserved, file.metadata()?.len(), bytes, limit, |from, to| allocate(file, from, to))
    }

    /// Whether it is made of files that sled writes.
    pub(in super::super) fn is_on_files(&self) -> bool {
        matches!(self, Log::Sled { .. })
    }

    /// Whether it can only be read.
    pub(in super::super) fn is_frozen(&self) -> bool {
        matches!(self, Log::Frozen(_))
    }

    /// Brings what was flushed to stable storage.
    pub(in super::super) fn sync_data(&self) -> io::Result<()> {
        match self {
            Log::Sled { file, .. } => file.sync_data(),
            Log::Frozen(_) => Ok(()),
            #[cfg(feature = "simulation")]
            Log::Simulated(disk) => disk.sync(),
        }
    }
}

impl Entries {
    /// The next entry. Not an iterator: a panic of sled's ends with the call.
    pub(in super::super) fn next(&mut self) -> sled::Result<Option<Stored>> {
        match self {
            Entries::Sled(entries) => entries.next().transpose(),
            Entries::Frozen { log, next, to } => {
                let found = log.first(next, to).map_err(unreadable)?;
                if let Some((key, _)) = &found {
                    next.clone_from(key);
                    next.push(0);
                }
                Ok(found.map(stored))
            }
            #[cfg(feature = "simulation")]
            Entries::Simulated(entries) => Ok(entries.next().map(stored)),
        }
    }
}

fn stored((key, value): Pair) -> Stored {
    (key.into(), value.into())
}

/// A page that could be read when the log was opened cannot be any more, or the device fails.
fn unreadable(error: io::Error) -> sled::Error {
    match error.kind() {
        io::ErrorKind::InvalidData => sled::Error::ReportableBug(error.to_string()),
        _ => sled::Error::Io(error),
    }
}

/// sled writes its settings in two steps, before it creates the log, and does not open the log without them. A crash between the two,
/// or a power cut before they are on stable storage, leaves a part of them or zeros; nothing of ours was stored then.
fn remove_unfinished_settings(directory: &Path) -> io::Result<()> {
    let settings = directory.join(SETTINGS_FILE);
    let content = match std::fs::read(&settings) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        content => content?,
    };
    let log_bytes = match std::fs::metadata(directory.join(LOG_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        metadata => metadata?.len(),
    };
    if log_bytes == 0 || content.iter().all(|byte| *byte == 0) {
        tracing::debug!(path = %settings.display(), "settings of a log whose creation was interrupted");
        std::fs::remove_file(&settings)?;
    }
    Ok(())
}

/// Opens sled. The caller holds the database's lock, so if sled's own is taken, it is by a handle that this process
/// dropped and that sled's threads have not let go of yet.
fn open_sled(config: &sled::Config, directory: &Path) -> Result<sled::Db, DatabaseError> {
    let give_up = Instant::now() + CLOSING_TIME_MAX;
    loop {
        let error = match contain(|| config.open()) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) => translate("open", error, directory),
            Err(detail) => DatabaseError::Damaged { detail },
        };
        if !matches!(error, DatabaseError::InUse { .. }) || Instant::now() >= give_up {
            return Err(error);
        }
        std::thread::sleep(CLOSING_POLL);
    }
}

thread_local! {
    static CONTAINS_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread ends in the store as an error, so that nobody need be shown it.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command's panic hook asks"))]
pub(crate) fn contains_panics() -> bool {
    CONTAINS_PANICS.get()
}

/// Calls sled, which panics on some kinds of damage and of failures; gives what the panic said.
pub(in super::super) fn contain<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    let before = CONTAINS_PANICS.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CONTAINS_PANICS.set(before);
    result.map_err(|panic| panic_text(&*panic))
}

/// What a panic says.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the store panicked").to_owned()
}

/// An error of sled's in the database's terms; `path` is what was opened.
pub(in super::super) fn translate(action: &'static str, error: sled::Error, path: &Path) -> DatabaseError {
    match error {
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            DatabaseError::InUse { path: PathBuf::from(path) }
        }
        sled::Error::Io(source) => io_error(action, source),
        other => DatabaseError::Damaged { detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
