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
//! | `directory` | where the files are: what opens, names and syncs them |
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
mod directory;
mod file;
mod named;
mod names;
mod parts;
mod whole;

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha1::{Digest as _, Sha1};

pub(super) use self::directory::Directory;
pub(crate) use self::file::BlobFile;
#[cfg(test)]
pub(crate) use self::file::CHUNK_BYTES;
use self::file::Draft;
pub(super) use self::named::blobs_of;
pub(crate) use self::names::BlobCounts;
use self::names::{NEW_PREFIX, Name, part_name, to_hex};
use self::parts::{After, Parts};
use super::ground::io_error;
use crate::database::DatabaseError;
use crate::replica::blobs::{BlobDigest, BlobState};

/// Largest blob, bytes.
pub(crate) const BLOB_BYTES_MAX: u64 = 1 << 30;

/// Digests that wait to be looked at; of more none is remembered, and all blobs are looked at.
const SUSPECTS_MAX: usize = 1_024;

/// At the latest all blobs are looked at again.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// A blob that is being saved. Dropping it gives it up.
pub(crate) struct NewBlob {
    directory: Directory,
    name: String,
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
        let _ = self.directory.remove(&self.name);
    }
}

/// The blobs of a store.
pub(crate) struct Blobs {
    directory: Directory,
    read_only: bool,
    parts: Parts,
    /// Held while a file gets its name, is found, or goes: which names are durable. Some may not be: of a process that ended before
    /// it synced the directory, or because that failed.
    naming: Mutex<Names>,
    new: AtomicU64,
    suspects: Mutex<Suspects>,
    /// One sweep at a time.
    pub(super) sweep: Mutex<()>,
    /// Whether the log has all that documents name.
    pub(super) is_recorded: AtomicBool,
}

/// Which names are durable for sure.
#[derive(Default)]
struct Names {
    /// That of the directory.
    has_directory: bool,
    /// Those of all files in it.
    has_files: bool,
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
    /// Those in a directory. Nothing is made until one is saved. `is_recorded`: the log has all that documents name.
    pub(super) fn open(
        directory: Directory,
        read_only: bool,
        is_recorded: bool,
    ) -> Result<Blobs, DatabaseError> {
        let blobs = Blobs {
            directory,
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
            blobs.visit(|name| {
                left.extend(matches!(Name::of(name), Some(Name::New)).then(|| name.to_owned()));
            })?;
            for name in left {
                // A process that was killed while it saved one.
                blobs.directory.remove(&name).map_err(|e| io_error("remove", e))?;
            }
        }
        Ok(blobs)
    }

    /// The directory, made if there is none.
    fn made_directory(&self) -> Result<&Directory, DatabaseError> {
        if self.read_only {
            return Err(DatabaseError::ReadOnly { path: self.directory.parent() });
        }
        self.directory.make().map_err(|e| io_error("make the directory of blobs", e))?;
        Ok(&self.directory)
    }

    fn lock_names(&self) -> MutexGuard<'_, Names> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there may be any.
    pub(super) fn has_any(&self) -> bool {
        self.directory.exists()
    }

    /// Shows the name of each file there is.
    fn visit(&self, visit: impl FnMut(&str)) -> Result<(), DatabaseError> {
        self.directory.visit(visit).map_err(|e| io_error("list blobs", e))
    }

    /// A whole blob.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`], as long as nobody has found that before.
    pub(crate) fn find(&self, digest: &BlobDigest) -> Result<Option<BlobFile>, DatabaseError> {
        self.open_whole(digest).inspect_err(|error| self.found_damaged(digest, error))
    }

    fn open_whole(&self, digest: &BlobDigest) -> Result<Option<BlobFile>, DatabaseError> {
        BlobFile::open(&self.directory, &to_hex(digest), digest)
    }

    /// Whether a blob is here as a whole, durably, as far as that is known without reading it.
    pub(crate) fn is_whole(&self, digest: &BlobDigest) -> Result<bool, DatabaseError> {
        let is_found = match self.find(digest) {
            Err(DatabaseError::Damaged { .. }) => false,
            found => found?.is_some(),
        };
        if is_found && !self.read_only {
            self.sync_names(&mut self.lock_names())?;
        }
        Ok(is_found)
    }

    /// Makes the names of files durable, unless they are.
    fn sync_names(&self, names: &mut Names) -> Result<(), DatabaseError> {
        if !names.has_directory {
            self.directory.sync_parent().map_err(|e| io_error("sync", e))?;
            names.has_directory = true;
        }
        if !names.has_files {
            self.directory.sync().map_err(|e| io_error("sync", e))?;
            names.has_files = true;
        }
        Ok(())
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
        let (whole, part) = (to_hex(digest), part_name(digest));
        let naming = self.lock_names();
        let moved = if self.directory.has(&part) {
            self.directory.remove(&whole)
        } else {
            self.directory.rename(&whole, &part)
        };
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
        let (directory, name) = (self.made_directory()?.clone(), format!("{NEW_PREFIX}{number}"));
        let draft = Draft::create(&directory, &name).map_err(|e| io_error("save a blob", e))?;
        Ok(NewBlob { directory, name, draft })
    }

    /// Makes it a whole blob, durably; gives its digest and length.
    pub(super) fn complete(&self, new: &NewBlob) -> Result<(BlobDigest, u64), DatabaseError> {
        let digest = new.draft.digest();
        new.draft.complete(&digest).map_err(|e| io_error("save a blob", e))?;
        self.name(&new.name, &digest)?;
        Ok((digest, new.draft.length()))
    }

    /// Gives a complete file the name of a whole blob, durably. One of that name has the same content, or had.
    fn name(&self, name: &str, digest: &BlobDigest) -> Result<(), DatabaseError> {
        let mut names = self.lock_names();
        self.directory.rename(name, &to_hex(digest)).map_err(|e| io_error("name a blob", e))?;
        names.has_files = false;
        self.sync_names(&mut names)
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
        if bytes.is_empty() {
            return self.part_length(digest);
        }
        let directory = self.made_directory()?;
        let (length, added) = self.parts.with(directory, digest, true, |draft| {
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
        let is_of_nothing = digest.0[..] == Sha1::digest([])[..];
        if is_of_nothing {
            self.made_directory()?;
        }
        self.parts.with(&self.directory, digest, is_of_nothing, |draft| {
            let Some(draft) = draft else { return Ok((false, After::Close)) };
            let made = if draft.digest() == *digest {
                let completed = draft.complete(digest).map_err(|e| io_error("save a blob", e));
                completed.and_then(|()| self.name(&part_name(digest), digest)).map(|()| true)
            } else {
                Ok(false)
            };
            if !matches!(made, Ok(true)) {
                // Of what could not be synced nobody knows what is there.
                match self.directory.remove(&part_name(digest)) {
                    // It has its name, and that is not durable.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed.map_err(|e| io_error("remove a part of a blob", e))?,
                }
            }
            Ok((made?, After::Close))
        })
    }

    pub(super) fn part_length(&self, digest: &BlobDigest) -> Result<u64, DatabaseError> {
        if self.read_only {
            return Ok(0);
        }
        let length = |draft: Option<&mut Draft>| Ok((draft.map_or(0, |draft| draft.length()), After::Keep));
        self.parts.with(&self.directory, digest, false, length)
    }

    /// Removes the part of a blob, if there is one.
    pub(super) fn remove_part(&self, digest: &BlobDigest) -> Result<(), DatabaseError> {
        self.parts.remove(&self.directory, digest)
    }

    /// The length of a whole blob, which is of use from now on for another day.
    fn whole(&self, digest: &BlobDigest) -> Result<Option<u64>, DatabaseError> {
        let mut names = self.lock_names();
        let found = match self.open_whole(digest) {
            // It is written anew.
            Err(DatabaseError::Damaged { .. }) => None,
            found => found?,
        };
        if let Some(file) = &found {
            self.sync_names(&mut names)?;
            self.directory.touch(&to_hex(digest)).map_err(|e| io_error("keep a blob", e))?;
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
