//! What became of the files beside the log on a simulated disk: one directory of them, for blobs.
//!
//! A crash takes of each file what was not synced: each write since then may be there, be torn, or be gone, whatever became
//! of those before it. So it is with names: one that was given or taken since the last sync of the directory may be there or
//! not, and a renamed file has either of the two. What a failed sync of a file left is seen until the page cache is given
//! up, and no later sync writes it; names that it left the next sync of the directory writes.

use std::collections::BTreeMap;
use std::io;

/// The directory, and all files that it has or had.
#[derive(Clone, Default)]
pub(super) struct Files {
    pub(super) files: BTreeMap<u64, Inode>,
    pub(super) made: u64,
    /// Whether there is a directory, and whether there is one on stable storage.
    pub(super) exists: bool,
    pub(super) exists_synced: bool,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) names_synced: BTreeMap<String, u64>,
    /// What became of names since the last sync, oldest first.
    pub(super) pending: Vec<NameChange>,
    /// Bytes of all that have a name.
    pub(super) bytes: u64,
}

/// A file, as it is seen and as it is on stable storage.
#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) view: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) pending: Vec<Change>,
    pub(super) changed_ms: u64,
}

/// What was done to the content of a file.
#[derive(Clone)]
pub(super) enum Change {
    Write(u64, Vec<u8>),
    SetBytes(u64),
}

/// Which names have which file, or none, from now on; all or nothing.
pub(super) type NameChange = Vec<(String, Option<u64>)>;

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
    pub(super) fn torn(self, rng: &mut fastrand::Rng) -> Option<Change> {
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
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.view);
        self.pending.push(change);
    }

    pub(super) fn write(&mut self, change: &Change) {
        change.apply(&mut self.synced);
    }

    fn reset_view(&mut self) {
        self.view.clone_from(&self.synced);
        self.pending.iter().for_each(|change| change.apply(&mut self.view));
    }
}

impl Files {
    pub(super) fn note(&mut self, change: NameChange) {
        name_all(&mut self.names, &change);
        self.pending.push(change);
        self.recount();
    }

    /// Forgets files without a name, and counts the bytes of the others.
    pub(super) fn recount(&mut self) {
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

    pub(super) fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn file(&mut self, number: u64) -> &mut Inode {
        self.files.entry(number).or_default()
    }
}

pub(super) fn name_all(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    for (name, file) in change {
        match file {
            Some(file) => drop(names.insert(name.clone(), *file)),
            None => drop(names.remove(name)),
        }
    }
}
