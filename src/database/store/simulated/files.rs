//! The files beside the log on a simulated disk: one directory of them, for blobs.
//!
//! A crash takes of each file what was not synced: each write since then may be there, be torn, or be gone, whatever became
//! of those before it. So it is with names: one that was given or taken since the last sync of the directory may be there or
//! not, and a renamed file has either of the two. What a failed sync of a file left is seen until the page cache is given
//! up, and no later sync writes it; names that it left the next sync of the directory writes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::MutexGuard;
use std::time::Duration;

use super::{Disk, SimulatedDisk};

/// Nanoseconds of a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// The directory, and all files that it has or had.
#[derive(Clone, Default)]
pub(super) struct Files {
    files: BTreeMap<u64, Inode>,
    made: u64,
    /// Whether there is a directory, and whether there is one on stable storage.
    exists: bool,
    exists_synced: bool,
    names: BTreeMap<String, u64>,
    names_synced: BTreeMap<String, u64>,
    /// What became of names since the last sync, oldest first.
    pending: Vec<NameChange>,
    /// Bytes of all that have a name.
    pub(super) bytes: u64,
}

#[derive(Clone, Default)]
struct Inode {
    view: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
    changed_ms: u64,
}

/// What was done to the content of a file.
#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetBytes(u64),
}

/// Which names have which file, or none, from now on; all or nothing.
type NameChange = Vec<(String, Option<u64>)>;

/// What syncs of files say and do not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileLie {
    /// They do what they say.
    #[default]
    None,
    /// The content of a file is not on stable storage.
    Content,
    /// The names of files are not.
    Names,
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                let at = *at as usize;
                content.resize(content.len().max(at + bytes.len()), 0);
                content[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::SetBytes(bytes) => content.resize(*bytes as usize, 0),
        }
    }

    /// As a power cut may leave it; `None`: not at all.
    fn torn(self, rng: &mut fastrand::Rng) -> Option<Change> {
        match (self, rng.u32(0..3)) {
            (_, 0) => None,
            (Change::Write(at, mut bytes), 1) => {
                bytes.truncate(rng.usize(0..=bytes.len()));
                Some(Change::Write(at, bytes))
            }
            (change, _) => Some(change),
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.view);
        self.pending.push(change);
    }

    fn write(&mut self, change: &Change) {
        change.apply(&mut self.synced);
    }

    fn reset_view(&mut self) {
        self.view.clone_from(&self.synced);
        self.pending.iter().for_each(|change| change.apply(&mut self.view));
    }
}

impl Files {
    fn note(&mut self, change: NameChange) {
        name_all(&mut self.names, &change);
        self.pending.push(change);
        self.recount();
    }

    /// Forgets files without a name, and counts the bytes of the others.
    fn recount(&mut self) {
        let known: Vec<u64> = self.names.values().chain(self.names_synced.values()).copied().collect();
        let named: Vec<u64> = self.pending.iter().flatten().filter_map(|(_, file)| *file).collect();
        self.files.retain(|number, _| known.contains(number) || named.contains(number));
        let bytes = |number: &u64| self.files.get(number).map_or(0, |file| file.view.len() as u64);
        self.bytes = self.names.values().map(bytes).sum();
    }

    /// The power goes.
    pub(super) fn crash(&mut self, rng: &mut fastrand::Rng) {
        if self.exists && !self.exists_synced && rng.bool() {
            *self = Files { made: self.made, ..Files::default() };
        }
        self.exists_synced = self.exists;
        for change in std::mem::take(&mut self.pending).iter().filter(|_| rng.bool()) {
            name_all(&mut self.names_synced, change);
        }
        self.names.clone_from(&self.names_synced);
        for file in self.files.values_mut() {
            for change in std::mem::take(&mut file.pending).into_iter().filter_map(|change| change.torn(rng))
            {
                file.write(&change);
            }
            file.reset_view();
        }
        self.recount();
    }

    /// The page cache is given up.
    pub(super) fn evict(&mut self) {
        self.files.values_mut().for_each(Inode::reset_view);
        self.recount();
    }

    /// What a crash would leave at least.
    pub(super) fn synced(&self) -> Files {
        let mut synced = Files { made: self.made, ..Files::default() };
        if self.exists_synced {
            (synced.exists, synced.exists_synced) = (true, true);
            synced.names.clone_from(&self.names_synced);
            synced.names_synced.clone_from(&self.names_synced);
            for number in self.names_synced.values() {
                let Some(file) = self.files.get(number) else { continue };
                let (view, changed_ms) = (file.synced.clone(), file.changed_ms);
                let file = Inode { synced: view.clone(), view, pending: Vec::new(), changed_ms };
                synced.files.insert(*number, file);
            }
            synced.recount();
        }
        synced
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, number: u64) -> &mut Inode {
        self.files.entry(number).or_default()
    }
}

fn name_all(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    for (name, file) in change {
        match file {
            Some(file) => drop(names.insert(name.clone(), *file)),
            None => drop(names.remove(name)),
        }
    }
}

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

    /// The files, as the store of the present life has them.
    pub(in super::super) fn open_files(&self) -> DiskFiles {
        DiskFiles { disk: self.clone(), life: self.lock().life }
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
