//! The files beside the log on a simulated disk, as a store has them open.

use std::fmt;
use std::io;
use std::sync::MutexGuard;
use std::time::Duration;

use super::files::{Change, FileLie, Files, Inode, NameChange, name_all};
use super::{Disk, SimulatedDisk};

/// Nanoseconds of a millisecond.
const NS_PER_MS: u64 = 1_000_000;

impl SimulatedDisk {
    /// The names of all files.
    pub fn files(&self) -> Vec<String> {
        self.lock().files.names.keys().cloned().collect()
    }

    /// Lets all files be at least so old.
    pub fn let_files_be_old(&self, age: Duration) {
        let then = (self.wall() / NS_PER_MS).saturating_sub(age.as_millis() as u64);
        let mut disk = self.lock();
        disk.files.files.values_mut().for_each(|file| file.changed_ms = file.changed_ms.min(then));
    }

    /// Makes syncs of files say what is not so. A simulation that does not find that out is of no use.
    pub fn set_file_lie(&self, lie: FileLie) {
        self.lock().file_lie = lie;
    }
}

/// The directory as a store has it open. Clones are the same.
#[derive(Clone)]
pub(in super::super) struct DiskFiles {
    disk: SimulatedDisk,
    life: u64,
}

impl fmt::Debug for DiskFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskFiles").field("life", &self.life).finish_non_exhaustive()
    }
}

impl DiskFiles {
    /// The files of a disk, as the store of its present life has them.
    pub(in super::super) fn of(disk: &SimulatedDisk) -> DiskFiles {
        DiskFiles { disk: disk.clone(), life: disk.lock().life }
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        self.disk.alive(self.life)
    }

    /// Changes names, in which the power may fail.
    fn rename_all(&self, change: impl FnOnce(&mut Files) -> io::Result<NameChange>) -> io::Result<()> {
        self.disk.operate(self.life, |disk, fails| {
            let is_left_out = fails && disk.rng.bool();
            let change = change(&mut disk.files)?;
            if !is_left_out {
                for (name, file) in &change {
                    disk.note(name.as_bytes(), if file.is_some() { b"named" } else { b"gone" });
                }
                disk.files.note(change);
            }
            Ok(())
        })
    }

    pub(in super::super) fn exists(&self) -> bool {
        self.alive().is_ok_and(|disk| disk.files.exists)
    }

    pub(in super::super) fn make(&self) -> io::Result<()> {
        self.disk.operate(self.life, |disk, _| {
            disk.files.exists = true;
            Ok(())
        })
    }

    /// Makes it durable that there is a directory.
    pub(in super::super) fn sync_parent(&self) -> io::Result<()> {
        self.disk.operate(self.life, |disk, fails| {
            if !fails && disk.begin_sync(b"sync of the directory's name")? {
                disk.files.exists_synced = true;
            }
            Ok(())
        })
    }

    pub(in super::super) fn sync_names(&self) -> io::Result<()> {
        self.disk.operate(self.life, |disk, fails| {
            if fails {
                return Ok(());
            }
            let began = disk.begin_sync(b"sync of names");
            let Disk { files, rng, .. } = disk;
            if began.is_ok() && disk.file_lie == FileLie::Names {
                return Ok(());
            }
            let written =
                if began.is_ok() { files.pending.len() } else { rng.usize(0..=files.pending.len()) };
            for change in files.pending.drain(..written) {
                name_all(&mut files.names_synced, &change);
            }
            files.recount();
            began.map(drop)
        })
    }

    pub(in super::super) fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.files.names.keys().cloned().collect())
    }

    /// Bytes, and when it was last of use, milliseconds since 1970.
    pub(in super::super) fn info(&self, name: &str) -> io::Result<Option<(u64, u64)>> {
        let disk = self.alive()?;
        let file = disk.files.names.get(name).and_then(|number| disk.files.files.get(number));
        Ok(file.map(|file| (file.view.len() as u64, file.changed_ms)))
    }

    pub(in super::super) fn touch(&self, name: &str) -> io::Result<()> {
        let now = self.disk.wall() / NS_PER_MS;
        let mut disk = self.alive()?;
        let number = disk.files.find(name)?;
        disk.files.file(number).changed_ms = now;
        Ok(())
    }

    pub(in super::super) fn open(&self, name: &str) -> io::Result<Option<DiskFile>> {
        let number = self.alive()?.files.names.get(name).copied();
        Ok(number.map(|number| DiskFile { files: self.clone(), number }))
    }

    /// A new file of this name; another one of it has none any more.
    pub(in super::super) fn create(&self, name: &str) -> io::Result<DiskFile> {
        let changed_ms = self.disk.wall() / NS_PER_MS;
        let mut made = 0;
        self.rename_all(|files| {
            if !files.exists {
                return Err(io::ErrorKind::NotFound.into());
            }
            files.made += 1;
            made = files.made;
            files.files.insert(made, Inode { changed_ms, ..Inode::default() });
            Ok(vec![(name.to_owned(), Some(made))])
        })?;
        Ok(DiskFile { files: self.clone(), number: made })
    }

    pub(in super::super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_all(|files| Ok(vec![(to.to_owned(), Some(files.find(from)?)), (from.to_owned(), None)]))
    }

    pub(in super::super) fn remove(&self, name: &str) -> io::Result<()> {
        self.rename_all(|files| files.find(name).map(|_| vec![(name.to_owned(), None)]))
    }
}

/// A file as a store has it open.
#[derive(Debug)]
pub(in super::super) struct DiskFile {
    files: DiskFiles,
    number: u64,
}

impl DiskFile {
    fn read<T>(&self, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let disk = self.files.alive()?;
        Ok(read(disk.files.files.get(&self.number).map_or(&[], |file| &file.view)))
    }

    pub(in super::super) fn bytes(&self) -> io::Result<u64> {
        self.read(|content| content.len() as u64)
    }

    /// Reads as much as there is, up to the length of `bytes`.
    pub(in super::super) fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.read(|content| {
            let rest = content.get(at as usize..).unwrap_or_default();
            let read = rest.len().min(bytes.len());
            bytes[..read].copy_from_slice(&rest[..read]);
            read
        })
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let now = self.files.disk.wall() / NS_PER_MS;
        self.files.disk.operate(self.files.life, |disk, fails| {
            let change = match fails {
                true => change.torn(&mut disk.rng),
                false => Some(change),
            };
            let Some(change) = change else { return Ok(()) };
            let end = match &change {
                Change::Write(at, bytes) => at + bytes.len() as u64,
                Change::SetBytes(bytes) => *bytes,
            };
            let grown = end.saturating_sub(disk.files.file(self.number).view.len() as u64);
            disk.admit(grown)?;
            match &change {
                Change::Write(_, bytes) => disk.note(b"write", bytes),
                Change::SetBytes(bytes) => disk.note(b"set", &bytes.to_le_bytes()),
            }
            let file = disk.files.file(self.number);
            file.changed_ms = now;
            file.change(change);
            disk.files.recount();
            Ok(())
        })
    }

    pub(in super::super) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.change(Change::Write(at, bytes.to_vec()))
    }

    pub(in super::super) fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::SetBytes(bytes))
    }

    pub(in super::super) fn sync(&self) -> io::Result<()> {
        self.files.disk.operate(self.files.life, |disk, fails| {
            if fails {
                return Ok(());
            }
            let began = disk.begin_sync(b"sync of a file");
            if began.is_ok() && disk.file_lie == FileLie::Content {
                return Ok(());
            }
            let Disk { files, rng, .. } = disk;
            let file = files.file(self.number);
            // After a failure the page cache calls clean what was not written.
            for change in std::mem::take(&mut file.pending) {
                if began.is_ok() || rng.bool() {
                    file.write(&change);
                }
            }
            began.map(drop)
        })
    }
}
