//! Blobs: content that documents name by its digest, each a file in the directory `blobs` of the database.
//!
//! | file | what |
//! |---|---|
//! | 40 hexadecimal digits | a whole blob of that digest, on stable storage |
//! | the same and `.part` | the beginning of one, as far as its chunks are sound |
//! | `new-` and a number | one whose digest is not known yet |
//!
//! | module | responsible for |
//! |---|---|
//! | `file` | the bytes of one file |
//! | `parts` | blobs that come in pieces |
//! | `whole` | what there is, and whether it is sound |
//! | `age` | how long they stay |
//! | `named` | which a document names |
//! | `names` | what the files are called |
//!
//! Names come from digests only. A whole blob does not change any more; which documents name it stands in the log, in their
//! own commits (`writer/blobs.rs`). Which go, and when, is in `sweep.rs`.

mod age;
mod file;
mod named;
mod names;
mod parts;
mod whole;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha1::{Digest as _, Sha1};

pub(crate) use self::file::BlobFile;
#[cfg(test)]
pub(crate) use self::file::CHUNK_BYTES;
use self::file::Draft;
pub(super) use self::named::blobs_of;
pub(crate) use self::names::BlobCounts;
use self::names::{NEW_PREFIX, Name, PART_SUFFIX, to_hex, touch};
use self::parts::{After, Parts};
use super::ground::{io_error, sync_directory};
use crate::database::DatabaseError;
use crate::replica::blobs::{BlobDigest, BlobState};

/// Largest blob, bytes.
pub(crate) const BLOB_BYTES_MAX: u64 = 1 << 30;

/// Where they are, in the directory of the database.
const DIRECTORY: &str = "blobs";

const DIRECTORY_MODE: u32 = 0o700;

/// Digests that wait to be looked at; of more none is remembered, and all blobs are looked at.
const SUSPECTS_MAX: usize = 1_024;

/// At the latest all blobs are looked at again.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// A blob that is being saved. Dropping it gives it up.
pub(crate) struct NewBlob {
    path: PathBuf,
    draft: Draft,
}

impl NewBlob {
    /// Adds content.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), DatabaseError> {
        if self.draft.length() + bytes.len() as u64 > BLOB_BYTES_MAX {
            return Err(DatabaseError::BlobTooLarge { max: BLOB_BYTES_MAX });
        }
        self.draft.append(bytes).map_err(|e| io_error("save a blob", e))
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        // Once it has its name there is nothing of this one. The next open would remove it as well.
        let _ = fs::remove_file(&self.path);
    }
}

/// The blobs of a store.
pub(crate) struct Blobs {
    /// `None` in a simulation, which has no files.
    directory: Option<PathBuf>,
    read_only: bool,
    pub(super) parts: Parts,
    /// Held while a file gets its name, is found, or goes.
    naming: Mutex<()>,
    new: AtomicU64,
    suspects: Mutex<Suspects>,
    /// One sweep at a time.
    pub(super) sweep: Mutex<()>,
    /// Whether the log has all that documents name.
    pub(super) is_recorded: AtomicBool,
}

/// Blobs that may have to go.
#[derive(Default)]
struct Suspects {
    /// Those that a document does not name any more; `None`: any may be one.
    digests: Option<BTreeSet<BlobDigest>>,
    /// When all were looked at.
    all: Option<Instant>,
}

impl Blobs {
    /// Those of the database in `path`, none of a simulated one, which has no path. Nothing is made until one is saved.
    /// `is_recorded`: the log has all that documents name.
    pub(super) fn open(path: &Path, read_only: bool, is_recorded: bool) -> Result<Blobs, DatabaseError> {
        let has_files = !path.as_os_str().is_empty();
        let blobs = Blobs {
            directory: has_files.then(|| path.join(DIRECTORY)),
            read_only,
            parts: Parts::default(),
            naming: Mutex::default(),
            new: AtomicU64::new(0),
            suspects: Mutex::default(),
            sweep: Mutex::default(),
            is_recorded: AtomicBool::new(is_recorded),
        };
        if !read_only {
            let mut left = Vec::new();
            blobs.visit(|name, _| {
                left.extend(matches!(Name::of(name), Some(Name::New)).then(|| name.to_owned()));
            })?;
            for name in left {
                // A process that was killed while it saved one.
                fs::remove_file(blobs.directory()?.join(name)).map_err(|e| io_error("remove", e))?;
            }
        }
        Ok(blobs)
    }

    fn directory(&self) -> Result<&Path, DatabaseError> {
        let unsupported = DatabaseError::Unsupported { feature: "a blob on a simulated disk" };
        self.directory.as_deref().ok_or(unsupported)
    }

    /// The directory, made if there is none.
    fn made_directory(&self) -> Result<&Path, DatabaseError> {
        let directory = self.directory()?;
        if self.read_only {
            let path = directory.parent().unwrap_or(directory).to_owned();
            return Err(DatabaseError::ReadOnly { path });
        }
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            Ok(()) => sync_directory(directory.parent().unwrap_or(directory))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("make the directory of blobs", error)),
        }
        Ok(directory)
    }

    fn whole_path(&self, digest: &BlobDigest) -> Result<PathBuf, DatabaseError> {
        Ok(self.directory()?.join(to_hex(digest)))
    }

    pub(super) fn part_path(&self, digest: &BlobDigest) -> Result<PathBuf, DatabaseError> {
        Ok(self.directory()?.join(to_hex(digest) + PART_SUFFIX))
    }

    fn lock_names(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there may be any.
    pub(super) fn has_any(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| directory.exists())
    }

    /// Shows each file there is.
    fn visit(&self, mut visit: impl FnMut(&str, &fs::DirEntry)) -> Result<(), DatabaseError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| io_error("list blobs", e))?,
        };
        for entry in entries {
            let entry = entry.map_err(|e| io_error("list blobs", e))?;
            if let Some(name) = entry.file_name().to_str() {
                visit(name, &entry);
            }
        }
        Ok(())
    }

    /// A whole blob.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`], as long as nobody has found that before.
    pub(crate) fn find(&self, digest: &BlobDigest) -> Result<Option<BlobFile>, DatabaseError> {
        if self.directory.is_none() {
            return Ok(None);
        }
        self.open_whole(digest).inspect_err(|error| self.found_damaged(digest, error))
    }

    fn open_whole(&self, digest: &BlobDigest) -> Result<Option<BlobFile>, DatabaseError> {
        BlobFile::open(&self.whole_path(digest)?, digest)
    }

    /// Whether a blob is here as a whole, as far as that is known without reading it.
    pub(crate) fn is_whole(&self, digest: &BlobDigest) -> Result<bool, DatabaseError> {
        match self.find(digest) {
            Err(DatabaseError::Damaged { .. }) => Ok(false),
            found => Ok(found?.is_some()),
        }
    }

    /// What is here of a blob.
    pub(crate) fn state(&self, digest: &BlobDigest) -> Result<BlobState, DatabaseError> {
        match self.find(digest) {
            Err(DatabaseError::Damaged { .. }) | Ok(None) => Ok(BlobState::Part(self.part_length(digest)?)),
            found => Ok(found?.map_or(BlobState::Part(0), |file| BlobState::Whole(file.length()))),
        }
    }

    /// Takes a blob of which damage was found for the part of one: as far as it is sound nobody has to send it again.
    pub(crate) fn found_damaged(&self, digest: &BlobDigest, error: &DatabaseError) {
        if self.read_only || !matches!(error, DatabaseError::Damaged { .. }) {
            return;
        }
        let (Ok(whole), Ok(part)) = (self.whole_path(digest), self.part_path(digest)) else { return };
        let naming = self.lock_names();
        let moved = if part.exists() { fs::remove_file(&whole) } else { fs::rename(&whole, &part) };
        drop(naming);
        match moved {
            Ok(()) => {
                self.parts.recount();
                tracing::warn!(%digest, %error, "a blob is damaged: it is fetched again from a peer that has it");
            }
            // Somebody else has found it.
            Err(failed) if failed.kind() == io::ErrorKind::NotFound => {}
            Err(failed) => {
                tracing::warn!(%digest, %error, %failed, "a blob is damaged, and cannot be put aside")
            }
        }
    }

    /// Begins a blob whose digest is not known yet.
    pub(super) fn begin(&self) -> Result<NewBlob, DatabaseError> {
        let number = self.new.fetch_add(1, Ordering::Relaxed);
        let path = self.made_directory()?.join(format!("{NEW_PREFIX}{number}"));
        let draft = Draft::create(&path).map_err(|e| io_error("save a blob", e))?;
        Ok(NewBlob { path, draft })
    }

    /// Makes it a whole blob, durably; gives its digest and length.
    pub(super) fn complete(&self, new: &NewBlob) -> Result<(BlobDigest, u64), DatabaseError> {
        let digest = new.draft.digest();
        new.draft.complete(&digest).map_err(|e| io_error("save a blob", e))?;
        self.name(&new.path, &digest)?;
        Ok((digest, new.draft.length()))
    }

    /// Gives a complete file the name of a whole blob, durably. One of that name has the same content, or had.
    fn name(&self, path: &Path, digest: &BlobDigest) -> Result<(), DatabaseError> {
        let whole = self.whole_path(digest)?;
        let _naming = self.lock_names();
        fs::rename(path, &whole).map_err(|e| io_error("name a blob", e))?;
        sync_directory(self.directory()?)
    }

    /// Adds to the part of a blob; see [`ReplicaStore::append_blob`](crate::replica::store::ReplicaStore::append_blob).
    pub(super) fn append(
        &self,
        digest: &BlobDigest,
        offset: u64,
        bytes: &[u8],
        admit: impl Fn(u64) -> Result<(), DatabaseError>,
    ) -> Result<u64, DatabaseError> {
        if let Some(whole) = self.whole(digest)? {
            return Ok(whole);
        }
        let path = self.part_path(digest)?;
        if bytes.is_empty() {
            return self.part_length(digest);
        }
        let directory = self.made_directory()?;
        let (length, added) = self.parts.with(digest, &path, true, |draft| {
            let Some(draft) = draft else { return Ok(((0, 0), After::Close)) };
            let known = usize::try_from(draft.length().saturating_sub(offset)).unwrap_or(usize::MAX);
            let new = bytes.get(known..).filter(|_| offset <= draft.length()).unwrap_or_default();
            if draft.length() + new.len() as u64 > BLOB_BYTES_MAX {
                return Err(DatabaseError::BlobTooLarge { max: BLOB_BYTES_MAX });
            }
            if !new.is_empty() {
                admit(new.len() as u64)?;
                draft.append(new).map_err(|e| io_error("save a part of a blob", e))?;
            }
            Ok(((draft.length(), new.len() as u64), After::Keep))
        })?;
        self.parts.grew(directory, digest, added)?;
        Ok(length)
    }

    /// Makes the part of a blob a whole one; see
    /// [`ReplicaStore::finish_blob`](crate::replica::store::ReplicaStore::finish_blob).
    pub(super) fn finish(&self, digest: &BlobDigest) -> Result<bool, DatabaseError> {
        if self.whole(digest)?.is_some() {
            return Ok(true);
        }
        let path = self.part_path(digest)?;
        let is_of_nothing = digest.0[..] == Sha1::digest([])[..];
        if is_of_nothing {
            self.made_directory()?;
        }
        self.parts.with(digest, &path, is_of_nothing, |draft| {
            let Some(draft) = draft else { return Ok((false, After::Close)) };
            let made = if draft.digest() == *digest {
                let completed = draft.complete(digest).map_err(|e| io_error("save a blob", e));
                completed.and_then(|()| self.name(&path, digest)).map(|()| true)
            } else {
                Ok(false)
            };
            if !matches!(made, Ok(true)) {
                // Of what could not be synced nobody knows what is there.
                fs::remove_file(&path).map_err(|e| io_error("remove a part of a blob", e))?;
            }
            Ok((made?, After::Close))
        })
    }

    pub(super) fn part_length(&self, digest: &BlobDigest) -> Result<u64, DatabaseError> {
        if self.directory.is_none() || self.read_only {
            return Ok(0);
        }
        let length = |draft: Option<&mut Draft>| Ok((draft.map_or(0, |draft| draft.length()), After::Keep));
        self.parts.with(digest, &self.part_path(digest)?, false, length)
    }

    /// The length of a whole blob, which is of use from now on for another day.
    fn whole(&self, digest: &BlobDigest) -> Result<Option<u64>, DatabaseError> {
        let _naming = self.lock_names();
        let found = match self.directory.as_ref().map(|_| self.open_whole(digest)) {
            // It is written anew.
            Some(Err(DatabaseError::Damaged { .. })) | None => None,
            Some(found) => found?,
        };
        if let Some(file) = &found {
            touch(&self.whole_path(digest)?, SystemTime::now())?;
            return Ok(Some(file.length()));
        }
        Ok(None)
    }

    /// Some documents name these no more.
    pub(super) fn suspect(&self, digests: impl IntoIterator<Item = BlobDigest>) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = &mut suspects.digests else { return };
        known.extend(digests);
        if known.len() > SUSPECTS_MAX {
            suspects.digests = None;
        }
    }

    #[cfg(test)]
    pub(crate) fn set_part_bytes_max(&self, bytes: u64) {
        self.parts.set_bytes_max(bytes);
    }

    /// Writes what is in memory alone.
    pub(super) fn close(&self) {
        self.parts.close();
    }
}
