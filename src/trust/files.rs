//! Files that hold secrets or decide who may what: the owner's alone, replaced whole, durable, checked when read.
//!
//! ```text
//! magic (4) | version (1) | content | CRC-32 of all before (4, LE)
//! ```
//! The sum finds damage, nothing else: whoever can write the file can also write a right sum. Its mode keeps others out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

use crate::durable::{self, OWNER_ONLY, no_follow, sync_file, sync_parent};

/// Bits of a mode that let others in.
pub(super) const OTHERS: u32 = 0o077;
/// Bytes beside the content.
const OVERHEAD_BYTES: usize = MAGIC_BYTES + 1 + SUM_BYTES;
const MAGIC_BYTES: usize = 4;
const SUM_BYTES: usize = 4;
/// How long [`lock`] waits for another process, which holds it for one read and one write.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Pause between two tries to lock.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Why a private file could not be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// Somebody else may read or write it, or it is somebody else's.
    #[error("{} is not private: mode {mode:03o}, owner {owner}", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner's user ID.
        owner: u32,
    },
    /// Its content does not hold together.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// It was there once, and nobody has removed it on purpose.
    #[error("{} is missing, although this database has had it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a later version.
    #[error("{} has version {found}, this program knows {supported}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The newest one known here.
        supported: u8,
    },
    /// Another process keeps it locked.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The lock's file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{} cannot be {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a participle.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl PrivateFileError {
    /// What the owner can do about it.
    pub fn advice(&self) -> String {
        match self {
            PrivateFileError::NotPrivate { path, .. } => format!(
                "make it yours and private (chown, `chmod 600 {}`); if others may have read it, replace what it holds",
                path.display()
            ),
            PrivateFileError::Damaged { path, .. } | PrivateFileError::Missing { path } => {
                let anew = match path.file_name().and_then(|name| name.to_str()) {
                    Some("identity") => {
                        "`gattway db renew --identity` makes a new one: pair this database again"
                    }
                    Some("group") => "`gattway group leave`, then `group join` again",
                    _ => {
                        "`gattway peers reset` begins a new list, which lets nobody in until you say who may"
                    }
                };
                format!("nobody is let in until it is put back as it was, from a backup; without one, {anew}")
            }
            PrivateFileError::Newer { .. } => {
                "use the version of gattway that wrote it, or a later one".into()
            }
            PrivateFileError::InUse { .. } => "try again when the other command has ended".into(),
            PrivateFileError::Io { .. } => "check the directory, its owner and its free space".into(),
        }
    }
}

/// What kind of private file it is.
#[derive(Clone, Copy, Debug)]
pub struct PrivateFile {
    /// Name in the database's directory.
    pub name: &'static str,
    /// First bytes.
    pub magic: [u8; MAGIC_BYTES],
    /// Version that is written; older ones are read.
    pub version: u8,
    /// Longest content in bytes.
    pub content_max: usize,
}

impl PrivateFile {
    /// Where it is in the database's directory.
    pub fn path(&self, directory: &Path) -> PathBuf {
        directory.join(self.name)
    }

    /// Its version and content; `None` if there is no such file.
    ///
    /// # Errors
    /// [`PrivateFileError`]: also if others can get at it, or it does not hold together.
    pub fn read(&self, directory: &Path) -> Result<Option<Content>, PrivateFileError> {
        let path = self.path(directory);
        let Some(bytes) = read_private(&path, self.content_max + OVERHEAD_BYTES)? else { return Ok(None) };
        self.unpack(&bytes, path).map(Some)
    }

    /// Version and content of the bytes of such a file.
    pub(crate) fn unpack(&self, bytes: &[u8], path: PathBuf) -> Result<Content, PrivateFileError> {
        let damaged = |detail| PrivateFileError::Damaged { path: path.clone(), detail };
        let Some(end) = bytes.len().checked_sub(SUM_BYTES).filter(|_| bytes.len() >= OVERHEAD_BYTES) else {
            return Err(damaged("too short"));
        };
        if bytes[..MAGIC_BYTES] != self.magic {
            return Err(damaged("not a file of this kind"));
        }
        if crc32fast::hash(&bytes[..end]).to_le_bytes() != bytes[end..] {
            return Err(damaged("its check sum does not fit"));
        }
        let found = bytes[MAGIC_BYTES];
        if found > self.version {
            return Err(PrivateFileError::Newer { path, found, supported: self.version });
        }
        Ok((found, Zeroizing::new(bytes[MAGIC_BYTES + 1..end].to_vec())))
    }

    /// The bytes of such a file.
    pub(crate) fn pack(&self, content: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(content.len() + OVERHEAD_BYTES));
        bytes.extend_from_slice(&self.magic);
        bytes.push(self.version);
        bytes.extend_from_slice(content);
        let sum = crc32fast::hash(&bytes).to_le_bytes();
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// Replaces it by `content`, whole, on stable storage when this returns.
    ///
    /// # Errors
    /// [`PrivateFileError`]; the old file is in place then, unless only the last sync of the directory failed.
    pub fn write(&self, directory: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
        write_private(&self.path(directory), &self.pack(content))
    }

    /// Overwrites what it held and removes it. Whether there was one.
    ///
    /// A flash medium may keep old blocks all the same.
    ///
    /// # Errors
    /// [`PrivateFileError`].
    pub fn remove(&self, directory: &Path) -> Result<bool, PrivateFileError> {
        let path = self.path(directory);
        let failed = |source| PrivateFileError::Io { path: path.clone(), what: "removed", source };
        match OpenOptions::new().write(true).custom_flags(no_follow()).open(&path) {
            Ok(mut file) => {
                let len = file.metadata().map_err(failed)?.len();
                io::copy(&mut io::repeat(0).take(len), &mut file).map_err(failed)?;
                sync_file(&file).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        fs::remove_file(&path).map_err(failed)?;
        sync_parent(&path).map_err(failed)?;
        Ok(true)
    }

    /// Something that changes whenever the file is replaced, without reading it; `None` if there is none.
    pub fn stamp(&self, directory: &Path) -> Option<FileStamp> {
        let metadata = fs::symlink_metadata(self.path(directory)).ok()?;
        Some(FileStamp {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            len: metadata.len(),
        })
    }
}

/// Version and content of a private file.
pub type Content = (u8, Zeroizing<Vec<u8>>);

/// See [`PrivateFile::stamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    len: u64,
}

/// Reads a file that nobody else may read; `None` if there is none.
///
/// # Errors
/// [`PrivateFileError`].
pub fn read_private(path: &Path, max: usize) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateFileError> {
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), what: "read", source };
    let file = match OpenOptions::new().read(true).custom_flags(no_follow()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(PrivateFileError::Damaged { path: path.to_owned(), detail: "not a regular file" });
    }
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let me = rustix::process::geteuid().as_raw();
    if !is_private(mode, owner, me) {
        return Err(PrivateFileError::NotPrivate { path: path.to_owned(), mode, owner });
    }
    // Room for all of it at once, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > max {
        return Err(PrivateFileError::Damaged { path: path.to_owned(), detail: "too long" });
    }
    Ok(Some(bytes))
}

/// Whether a file is this user's, and nobody else can read or change it. The superuser may use everybody's.
fn is_private(mode: u32, owner: u32, user: u32) -> bool {
    mode & OTHERS == 0 && (owner == user || user == 0)
}

/// Replaces a file by one that nobody else may read, on stable storage when this returns.
///
/// # Errors
/// [`PrivateFileError`]; the old file is in place then, unless only the last sync of the directory failed.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), what: "written", source };
    durable::write_atomic(path, OWNER_ONLY, bytes).map_err(failed)
}

/// Keeps other processes from changing the same private file; ends when dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// Locks the file `name` in `directory` for one change. Blocks while another process is at it.
///
/// # Errors
/// [`PrivateFileError::InUse`] after ten seconds, or of the operating system.
pub fn lock(directory: &Path, name: &str) -> Result<FileLock, PrivateFileError> {
    lock_within(directory, name, LOCK_WAIT)
}

fn lock_within(directory: &Path, name: &str, wait: Duration) -> Result<FileLock, PrivateFileError> {
    let path = directory.join(name);
    let failed = |source| PrivateFileError::Io { path: path.clone(), what: "locked", source };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(OWNER_ONLY).custom_flags(no_follow());
    let file = options.open(&path).map_err(failed)?;
    let until = Instant::now() + wait;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(FileLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(LOCK_RETRY),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(PrivateFileError::InUse { path: path.clone() }),
            Err(error) => return Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests;
