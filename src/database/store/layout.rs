//! The database's directory: the lock file and the current log.
//!
//! ```text
//! DIR/lock        held (flock) by the process that has the database open
//! DIR/current     name of the log that is the database, and its CRC-32; missing means the first
//! DIR/log-000001  sled's files
//! ```
//! Compaction writes the next log, syncs it and then replaces `current`; any other log found at open is a leftover.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::ground::{io_error, sync_directory};
use crate::database::DatabaseError;
use crate::durable::{OWNER_ONLY, write_atomic, write_new};
use crate::replica::clip;

/// How long the lock is waited for, and between two tries: the last handle of a dropped database may be the one that its
/// syncing thread is just letting go of.
const LOCK_TIME_MAX: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Mode of the directories made here.
const DIRECTORY_MODE: u32 = 0o700;
/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;

const LOCK_FILE: &str = "lock";
pub(super) const CURRENT_FILE: &str = "current";
/// What belongs to a database beside its documents, and may be there before them: a device's identity that was put there first.
const BESIDE: [&str; 9] = [
    "identity",
    "group",
    "trust",
    "trust.lock",
    "present",
    "present.lock",
    "guesses",
    "guesses.lock",
    "tls.pem",
];
const LOG_PREFIX: &str = "log-";
const LOG_DIGITS: usize = 6;

/// The file that is locked by whoever has the database open.
#[cfg(feature = "cli")]
pub(crate) fn lock_file(path: &Path) -> PathBuf {
    path.join(LOCK_FILE)
}

/// Whether the directory is that of a database.
pub(crate) fn exists(path: &Path) -> bool {
    path.join(LOCK_FILE).exists() || path.join(CURRENT_FILE).exists() || log_path(path, 1).exists()
}

/// Whether the files of a database may be written to, as far as permissions and the file system say.
pub(crate) fn is_writable(path: &Path) -> bool {
    let Ok(Logs { current, .. }) = logs(path) else { return true };
    let files = [path.to_owned(), path.join(LOCK_FILE), current.clone(), current.join("db")];
    // What is missing would be made; whether it can be, its directory says.
    let refuses = |file: &PathBuf| {
        rustix::fs::access(file, rustix::fs::Access::WRITE_OK).is_err_and(|e| e != rustix::io::Errno::NOENT)
    };
    !files.iter().any(refuses)
}

/// Takes the database's lock; it is held as long as the file is open.
pub(super) fn lock(path: &Path, create: bool) -> Result<File, DatabaseError> {
    let lock_path = path.join(LOCK_FILE);
    if !lock_path.exists() {
        prepare(path, create)?;
    }
    keep_others_out(path);
    let lock = File::options().create(true).truncate(false).write(true).mode(OWNER_ONLY).open(lock_path);
    take_lock(path, lock.map_err(|e| io_error("open", e))?, FlockOperation::NonBlockingLockExclusive)
}

/// Takes away what others of the machine may do in the directory of this user's database: made by hand, or by an earlier
/// release, it may be open to them, and so its lock, by which anybody could keep the owner out.
fn keep_others_out(path: &Path) {
    let me = rustix::process::geteuid().as_raw();
    let is_open = |metadata: &fs::Metadata| metadata.uid() == me && metadata.mode() & OTHERS != 0;
    let close = |file: &Path, metadata: fs::Metadata, private: u32| {
        let mode = metadata.mode() & 0o7777;
        match fs::set_permissions(file, fs::Permissions::from_mode(mode & private)) {
            Ok(()) if metadata.is_dir() => tracing::warn!(
                path = %file.display(),
                "the database's directory was open to others of this machine (mode {mode:03o}): it is its owner's alone now"
            ),
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(path = %file.display(), %error, "it is open to others of this machine, and cannot be closed");
            }
        }
    };
    // The directory may be named by a link; its files are none.
    if let Some(metadata) = fs::metadata(path).ok().filter(is_open) {
        close(path, metadata, DIRECTORY_MODE);
    }
    for file in [LOCK_FILE, CURRENT_FILE].map(|name| path.join(name)) {
        let metadata =
            fs::symlink_metadata(&file).ok().filter(|metadata| metadata.is_file() && is_open(metadata));
        if let Some(metadata) = metadata {
            close(&file, metadata, OWNER_ONLY);
        }
    }
}

/// Takes the lock of those who only read: with others that read, and not while somebody writes. Nothing is made, so there
/// is none where the lock file is gone.
pub(super) fn lock_to_read(path: &Path) -> Result<Option<File>, DatabaseError> {
    match File::open(path.join(LOCK_FILE)) {
        Ok(lock) => take_lock(path, lock, FlockOperation::NonBlockingLockShared).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => prepare(path, false).map(|()| None),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            prepare(path, false).map(|()| None)
        }
        Err(error) => Err(io_error("open", error)),
    }
}

fn take_lock(path: &Path, lock: File, operation: FlockOperation) -> Result<File, DatabaseError> {
    let give_up = Instant::now() + LOCK_TIME_MAX;
    loop {
        match rustix::fs::flock(&lock, operation) {
            Ok(()) => return Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => std::thread::sleep(LOCK_POLL),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DatabaseError::InUse { path: path.to_owned() }),
            Err(error) => return Err(io_error("lock", error.into())),
        }
    }
}

/// Makes the directory of a new database, durably; refuses one with foreign files.
fn prepare(path: &Path, create: bool) -> Result<(), DatabaseError> {
    let refuse = |reason: &str| DatabaseError::NotADatabase { path: path.to_owned(), reason: reason.into() };
    match fs::read_dir(path) {
        Ok(mut entries) => {
            let is_ours = |entry: &std::io::Result<fs::DirEntry>| {
                let name = entry.as_ref().map(fs::DirEntry::file_name);
                name.is_ok_and(|name| name == CURRENT_FILE || name.to_string_lossy().starts_with(LOG_PREFIX))
            };
            if fs::read_dir(path).is_ok_and(|mut entries| entries.any(|entry| is_ours(&entry))) {
                // Only the lock is gone.
                return Ok(());
            }
            let is_foreign = |entry: std::io::Result<fs::DirEntry>| {
                entry.map_or(true, |entry| !BESIDE.iter().any(|name| entry.file_name() == *name))
            };
            if entries.any(is_foreign) {
                return Err(refuse("the directory holds other files"));
            }
            if create {
                return Ok(());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|e| io_error("create", e))?;
            }
            // Another process may be making it at this moment.
            match create_private_dir(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(io_error("create", error));
                }
                _ => {}
            }
            if let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
                // Best effort: the parent may be unreadable.
                let _ = sync_directory(parent);
            }
            return Ok(());
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(refuse("not a directory"));
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io_error("open", error)),
        Err(_) => {}
    }
    Err(refuse(NONE))
}

/// Why a directory is no database that can be read.
pub(super) const NONE: &str = "there is none, and creating it was not asked for";

/// The logs of a directory.
pub(super) struct Logs {
    /// The one that is the database.
    pub(super) current: PathBuf,
    /// Others, left by an interrupted compaction.
    pub(super) leftovers: Vec<PathBuf>,
}

impl Logs {
    /// Removes the leftovers, once the current log has shown that it can be opened.
    pub(super) fn clean_up(self, path: &Path) -> Result<(), DatabaseError> {
        if self.leftovers.is_empty() {
            return Ok(());
        }
        // The name in `current` may have got no further than the cache of the process that wrote it. A power cut could bring the
        // former name back when the log of that name has gone.
        sync_directory(path)?;
        for leftover in self.leftovers {
            tracing::info!(path = %leftover.display(), "removing what an interrupted compaction left");
            fs::remove_dir_all(leftover).map_err(|e| io_error("remove a leftover of compaction", e))?;
        }
        Ok(())
    }
}

/// Finds the logs of a database.
pub(super) fn logs(path: &Path) -> Result<Logs, DatabaseError> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| io_error("open", e))? {
        let entry = entry.map_err(|e| io_error("open", e))?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(LOG_PREFIX)) {
            logs.push(entry.path());
        }
    }
    let damaged = |found: &str| {
        let detail = format!("{CURRENT_FILE}: {:?} names no log", clip(found));
        DatabaseError::Damaged { detail }
    };
    let (current, is_named) = match fs::read_to_string(path.join(CURRENT_FILE)) {
        Ok(text) => (path.join(log_name(&text).ok_or_else(|| damaged(&text))?), true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (log_path(path, 1), false),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(damaged("no text")),
        Err(error) => return Err(io_error("open", error)),
    };
    match logs.iter().position(|log| *log == current) {
        Some(index) => drop(logs.swap_remove(index)),
        None if logs.is_empty() && !is_named => {}
        None => return Err(DatabaseError::Damaged { detail: format!("{} is missing", current.display()) }),
    }
    Ok(Logs { current, leftovers: logs })
}

/// The log with the lowest number.
pub(super) fn oldest_log(path: &Path) -> Result<PathBuf, DatabaseError> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        logs.extend(name.to_str().and_then(log_name).map(|name| path.join(name)));
    }
    logs.into_iter().min().ok_or_else(|| DatabaseError::Damaged { detail: "there is no log".into() })
}

/// Files beside the store that hold something and belong to others: identity, group, trust list.
pub(super) fn other_files(path: &Path) -> Result<Vec<PathBuf>, DatabaseError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && metadata.len() > 0 && entry.file_name().to_str().is_some_and(is_other_file) {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Whether a file of this name beside the store belongs to others.
pub(super) fn is_other_file(name: &str) -> bool {
    let is_ours = [LOCK_FILE, CURRENT_FILE].contains(&name) || name.starts_with(LOG_PREFIX);
    let is_plain = !name.is_empty() && !name.contains(['/', '\0']) && !name.starts_with('.');
    is_plain && !is_ours && !name.ends_with(".partial") && !name.ends_with(".lock")
}

/// Writes a file that is its owner's alone, durably.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), DatabaseError> {
    write_new(path, OWNER_ONLY, content).map_err(|e| io_error("write", e))
}

/// Makes the directory of the first log if there is none.
pub(super) fn create_log(path: &Path, log: &Path) -> Result<(), DatabaseError> {
    if log.exists() {
        return Ok(());
    }
    create_private_dir(log).map_err(|e| io_error("create", e))?;
    sync_directory(path)
}

/// The name in `current`. It was written without the checksum once.
fn log_name(text: &str) -> Option<&str> {
    let (name, crc) = match text.trim_end().split_once(' ') {
        Some((name, crc)) => (name, Some(crc)),
        None => (text.trim_end(), None),
    };
    let digits = name.strip_prefix(LOG_PREFIX)?;
    let is_name = digits.len() == LOG_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    (is_name && crc.is_none_or(|crc| crc == checksum(name))).then_some(name)
}

fn checksum(name: &str) -> String {
    format!("{:08x}", crc32fast::hash(name.as_bytes()))
}

/// A new, empty log directory beside `current`, for a compaction.
pub(super) fn next_log(path: &Path, current: &Path) -> Result<PathBuf, DatabaseError> {
    let number = current.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(LOG_PREFIX));
    let number: u32 = number.and_then(|n| n.parse().ok()).unwrap_or(1);
    let next = log_path(path, number.wrapping_add(1));
    create_private_dir(&next).map_err(|e| io_error("create", e))?;
    sync_directory(path)?;
    Ok(next)
}

/// Makes a complete and synced log the current one, in one step that a crash cannot split.
pub(super) fn set_current(path: &Path, log: &Path) -> Result<(), DatabaseError> {
    let name = log.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let content = format!("{name} {}\n", checksum(&name));
    write_atomic(&path.join(CURRENT_FILE), OWNER_ONLY, content.as_bytes())
        .map_err(|e| io_error("switch to the compacted log", e))
}

/// Documents are their owner's business: others of the same machine cannot enter.
fn create_private_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

fn log_path(path: &Path, number: u32) -> PathBuf {
    path.join(format!("{LOG_PREFIX}{number:0LOG_DIGITS$}"))
}

#[cfg(test)]
mod tests;
