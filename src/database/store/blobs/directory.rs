//! The directory that has the files of blobs, of the file system or, in a simulation, of a disk in memory: nothing else of
//! this folder opens, names or syncs a file.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[cfg(feature = "simulation")]
use super::super::simulated::handles::{DiskFile, DiskFiles};
use crate::durable::{OWNER_ONLY, no_follow, sync_directory, sync_file};

/// Its name, in the directory of the database.
const NAME: &str = "blobs";

const MODE: u32 = 0o700;

/// Where the files are. Clones are the same directory.
#[derive(Clone)]
pub(in super::super) enum Directory {
    Real(PathBuf),
    #[cfg(feature = "simulation")]
    Simulated(DiskFiles),
}

/// What is known of a file without reading it.
#[derive(Clone, Copy)]
pub(in super::super) struct FileInfo {
    pub(in super::super) bytes: u64,
    /// When it was made or found of use, milliseconds since 1970.
    pub(in super::super) changed_ms: u64,
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Directory {
    /// That of the database in `path`.
    pub(in super::super) fn of(path: &Path) -> Directory {
        Directory::Real(path.join(NAME))
    }

    /// The directory of the database.
    pub(super) fn parent(&self) -> PathBuf {
        match self {
            Directory::Real(path) => path.parent().unwrap_or(path).to_owned(),
            #[cfg(feature = "simulation")]
            Directory::Simulated(_) => PathBuf::new(),
        }
    }

    pub(super) fn exists(&self) -> bool {
        match self {
            Directory::Real(path) => path.exists(),
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => files.exists(),
        }
    }

    /// Makes it, unless it is there.
    pub(super) fn make(&self) -> io::Result<()> {
        match self {
            Directory::Real(path) => match DirBuilder::new().mode(MODE).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                made => made,
            },
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => {
                if files.exists() {
                    Ok(())
                } else {
                    files.make()
                }
            }
        }
    }

    /// Makes it durable that it is there.
    pub(super) fn sync_parent(&self) -> io::Result<()> {
        match self {
            Directory::Real(path) => sync_directory(path.parent().unwrap_or(path)),
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => files.sync_parent(),
        }
    }

    /// Makes its entries durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Directory::Real(path) => sync_directory(path),
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => files.sync_names(),
        }
    }

    /// Shows the name of each file; of none if there is no directory.
    pub(super) fn visit(&self, mut visit: impl FnMut(&str)) -> io::Result<()> {
        let path = match self {
            Directory::Real(path) => path,
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => {
                files.names()?.iter().for_each(|name| visit(name));
                return Ok(());
            }
        };
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            entry?.file_name().to_str().into_iter().for_each(&mut visit);
        }
        Ok(())
    }

    /// `None` if there is no such file.
    pub(super) fn info(&self, name: &str) -> io::Result<Option<FileInfo>> {
        match self {
            Directory::Real(path) => found(fs::metadata(path.join(name)).map(|metadata| {
                let changed = metadata.modified().ok();
                let since = changed.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
                let ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
                FileInfo { bytes: metadata.len(), changed_ms: ms }
            })),
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => {
                Ok(files.info(name)?.map(|(bytes, changed_ms)| FileInfo { bytes, changed_ms }))
            }
        }
    }

    /// Whether there is such a file, as far as that can be seen.
    pub(super) fn has(&self, name: &str) -> bool {
        matches!(self.info(name), Ok(Some(_)))
    }

    /// Lets a file be of use from now on.
    pub(super) fn touch(&self, name: &str) -> io::Result<()> {
        match self {
            Directory::Real(path) => {
                File::options().write(true).open(path.join(name))?.set_modified(SystemTime::now())
            }
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => files.touch(name),
        }
    }

    /// Opens a file; `None` if there is none.
    pub(super) fn open(&self, name: &str, access: Access) -> io::Result<Option<OpenFile>> {
        match self {
            Directory::Real(path) => {
                let mut options = File::options();
                options.read(true).write(access == Access::Write).custom_flags(no_follow());
                found(options.open(path.join(name)).map(OpenFile::Real))
            }
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => Ok(files.open(name)?.map(OpenFile::Simulated)),
        }
    }

    /// Begins a file, in the place of another.
    pub(super) fn create(&self, name: &str) -> io::Result<OpenFile> {
        match self {
            Directory::Real(path) => {
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(true);
                options.mode(OWNER_ONLY).custom_flags(no_follow());
                options.open(path.join(name)).map(OpenFile::Real)
            }
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => files.create(name).map(OpenFile::Simulated),
        }
    }

    /// Gives a file another name, in the place of another.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match self {
            Directory::Real(path) => fs::rename(path.join(from), path.join(to)),
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => files.rename(from, to),
        }
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match self {
            Directory::Real(path) => fs::remove_file(path.join(name)),
            #[cfg(feature = "simulation")]
            Directory::Simulated(files) => files.remove(name),
        }
    }

    /// Lets a file be in another directory too, as one file of two names.
    pub(super) fn link(&self, name: &str, to: &Directory) -> io::Result<()> {
        match (self, to) {
            (Directory::Real(from), Directory::Real(to)) => fs::hard_link(from.join(name), to.join(name)),
            #[cfg(feature = "simulation")]
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// `None` for what is not there.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// An open file.
#[derive(Debug)]
pub(super) enum OpenFile {
    Real(File),
    #[cfg(feature = "simulation")]
    Simulated(DiskFile),
}

impl OpenFile {
    pub(super) fn bytes(&self) -> io::Result<u64> {
        match self {
            OpenFile::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(feature = "simulation")]
            OpenFile::Simulated(file) => file.bytes(),
        }
    }

    /// Reads as much as there is, up to the length of `bytes`.
    pub(super) fn read_up_to(&self, bytes: &mut [u8], mut at: u64) -> io::Result<usize> {
        let file = match self {
            OpenFile::Real(file) => file,
            #[cfg(feature = "simulation")]
            OpenFile::Simulated(file) => return file.read_at(bytes, at),
        };
        let mut read = 0;
        while read < bytes.len() {
            match file.read_at(&mut bytes[read..], at) {
                Ok(0) => break,
                Ok(more) => {
                    read += more;
                    at += more as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            OpenFile::Real(file) => file.write_all_at(bytes, at),
            #[cfg(feature = "simulation")]
            OpenFile::Simulated(file) => file.write_at(bytes, at),
        }
    }

    pub(super) fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        match self {
            OpenFile::Real(file) => file.set_len(bytes),
            #[cfg(feature = "simulation")]
            OpenFile::Simulated(file) => file.set_bytes(bytes),
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            OpenFile::Real(file) => sync_file(file),
            #[cfg(feature = "simulation")]
            OpenFile::Simulated(file) => file.sync(),
        }
    }
}
