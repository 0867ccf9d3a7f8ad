//! A disk for simulations: in memory, and it loses what was not synced.
//!
//! It stands where sled does, below everything else of the store. A batch is there wholly or not at all, and never
//! without those before it, which is what the store counts on. After a crash all that was synced is there, and of the
//! batches since then as many, from the oldest on, as chance has it.
//!
//! A sync may fail. Then it has written some of the batches, from the oldest on, and the page cache calls the others
//! clean: readers see them, also in a later life, and no later sync writes them, unless they are written again. What is synced
//! behind one of them lies behind a hole, which shows when the cache is given up: the log is damaged then.
//!
//! Beside the log it has files for blobs (`simulated/files.rs`).
//!
//! One file, because crash, failing sync and page cache all change the same state, and each rule is about the other two.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::files::FileLie;
use self::files::Files;
use super::ground::{Entry, Pair};
use crate::replica::revision::SourceId;

mod files;
pub(super) mod handles;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Hook = Box<dyn FnOnce() + Send>;

/// A disk with one database on it. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    inner: Arc<Mutex<Disk>>,
    /// The wall clock of the device, nanoseconds since 1970.
    wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    source: SourceId,
}

struct Disk {
    /// The logs by name. Compaction makes a second one.
    logs: BTreeMap<PathBuf, LogImage>,
    /// Which of them is the database, and which it is on stable storage.
    current: PathBuf,
    current_synced: PathBuf,
    logs_made: u32,
    files: Files,
    file_lie: FileLie,
    capacity_bytes: Option<u64>,
    /// Counts crashes: a handle of an earlier life is refused.
    life: u64,
    /// Operations until the power fails, and what happens then.
    power: Option<(u64, Hook)>,
    /// Syncs until one fails, and how many fail then.
    failing_syncs: Option<(u64, u64)>,
    /// Whether a sync or the power has failed since the database was last opened.
    has_failed: bool,
    syncs_lie: bool,
    before_sync: Option<Arc<dyn Fn() + Send + Sync>>,
    rng: fastrand::Rng,
    counts: DiskCounts,
    /// Bytes of all keys and values that were written, those of logs that are gone too.
    #[cfg(test)]
    written_bytes: u64,
    /// Hash of all that was done, for comparing two runs.
    digest: u32,
    #[cfg(test)]
    watched: Option<watched::Watched>,
}

/// A log.
#[derive(Clone, Default)]
struct LogImage {
    /// What a crash cannot take.
    synced: Map,
    /// Batches that are not in `synced`, oldest first.
    pending: Vec<Pending>,
    /// What a reader sees.
    view: Map,
    /// Bytes of keys and values in `view`.
    bytes: u64,
    /// Whether there is a hole before something that was synced, and the cache does not cover it any more.
    is_damaged: bool,
}

#[derive(Clone)]
struct Pending {
    batch: Vec<Entry>,
    state: PageState,
}

/// What the page cache and stable storage know of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageState {
    /// The next sync writes it.
    Dirty,
    /// A sync that failed has not written it, and no later one will.
    Clean,
    /// It is on stable storage, behind one that is not.
    BehindHole,
}

/// What a [`SimulatedDisk`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskCounts {
    /// Batches applied.
    pub batches: u64,
    /// Syncs.
    pub syncs: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes in the middle of a write or a sync.
    pub crashes_in_operation: u64,
    /// Crashes that took at least one batch.
    pub crashes_with_loss: u64,
    /// Batches that crashes took.
    pub batches_lost: u64,
    /// Batches refused because the disk was full.
    pub refused_full: u64,
    /// Syncs that failed.
    pub syncs_failed: u64,
    /// Batches that such a sync left unwritten.
    pub batches_left_clean: u64,
    /// Compactions that came to their end.
    pub compactions: u64,
}

impl SimulatedDisk {
    /// An empty disk. `seed` decides what crashes take, `source` is the ID of the database that will be made on it,
    /// `wall` the wall clock of its device in nanoseconds since 1970.
    pub fn new(seed: u64, source: SourceId, wall: impl Fn() -> u64 + Send + Sync + 'static) -> SimulatedDisk {
        let disk = Disk {
            logs: BTreeMap::from([(PathBuf::new(), LogImage::default())]),
            current: PathBuf::new(),
            current_synced: PathBuf::new(),
            logs_made: 0,
            files: Files::default(),
            file_lie: FileLie::None,
            capacity_bytes: None,
            life: 0,
            power: None,
            failing_syncs: None,
            has_failed: false,
            syncs_lie: false,
            before_sync: None,
            rng: fastrand::Rng::with_seed(seed),
            counts: DiskCounts::default(),
            #[cfg(test)]
            written_bytes: 0,
            digest: 0,
            #[cfg(test)]
            watched: None,
        };
        SimulatedDisk { inner: Arc::new(Mutex::new(disk)), wall: Arc::new(wall), source }
    }

    /// The process that has the database open dies here, or the power goes: handles of it are refused from now on.
    pub fn crash(&self) {
        self.lock().crash();
    }

    /// Lets the power fail in the `operations`-th write or sync from now on, which is 1 for the next. `then` is called in
    /// the middle of it.
    pub fn fail_power_after(&self, operations: u64, then: impl FnOnce() + Send + 'static) {
        self.lock().power = Some((operations.max(1), Box::new(then)));
    }

    /// Lets the `first`-th sync from now on fail, which is 1 for the next, and those after it up to `count`.
    pub fn fail_syncs(&self, first: u64, count: u64) {
        self.lock().failing_syncs = (count > 0).then_some((first.max(1), count));
    }

    /// Gives up what the page cache holds of the closed database and stable storage does not have, as Linux does when memory is
    /// short: of what a failed sync left.
    pub fn evict(&self) {
        self.lock().evict();
    }

    /// The process that has the database open ends at once; what it has applied stays in the page cache. Handles of it are
    /// refused from now on.
    pub fn end_life(&self) {
        self.lock().life += 1;
    }

    /// Calls `look` before each sync: between a commit and the moment from which stable storage has it.
    pub fn before_syncs(&self, look: Option<Arc<dyn Fn() + Send + Sync>>) {
        self.lock().before_sync = look;
    }

    /// Takes [`SimulatedDisk::fail_power_after`] and [`SimulatedDisk::fail_syncs`] back.
    pub fn disarm(&self) {
        let mut disk = self.lock();
        (disk.power, disk.failing_syncs) = (None, None);
    }

    /// Whether the power may fail in a write, the disk may be full, or it or a sync has failed since the database was opened.
    pub fn is_troubled(&self) -> bool {
        let disk = self.lock();
        disk.power.is_some()
            || disk.capacity_bytes.is_some()
            || disk.failing_syncs.is_some()
            || disk.has_failed
    }

    /// Sets how many bytes of keys, values and files fit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Bytes of keys, values and files.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Makes syncs return without having done anything, as a disk does whose cache is emptied some time later. A
    /// simulation that does not find that out is of no use.
    pub fn set_syncs_lie(&self, lie: bool) {
        self.lock().syncs_lie = lie;
    }

    /// What a crash would leave at least, as a disk of its own.
    pub fn synced_image(&self) -> SimulatedDisk {
        let image = SimulatedDisk::new(0, self.source, || 0);
        let disk = self.lock();
        let mut copy = image.lock();
        let named = disk.logs.get(&disk.current_synced);
        copy.log_mut().synced = named.map(|log| log.synced.clone()).unwrap_or_default();
        copy.log_mut().is_damaged = named.is_none_or(LogImage::has_hole);
        copy.log_mut().reset_view();
        copy.files = disk.files.synced();
        drop(copy);
        image
    }

    /// Somebody puts the files of an earlier [`SimulatedDisk::synced_image`] in the place of these. The process has ended, or does so
    /// here: its handles are refused from now on.
    pub fn put_back(&self, copy: &SimulatedDisk) {
        let (log, files) = {
            let copy = copy.lock();
            (copy.log().clone(), copy.files.clone())
        };
        let mut disk = self.lock();
        disk.life += 1;
        disk.files = files;
        disk.logs = BTreeMap::from([(PathBuf::new(), log)]);
        disk.current = PathBuf::new();
        disk.current_synced = PathBuf::new();
        disk.power = None;
        disk.has_failed = false;
        disk.note(b"put back", &[]);
    }

    /// What was done so far.
    pub fn counts(&self) -> DiskCounts {
        self.lock().counts
    }

    /// Bytes of keys and values that were written so far.
    #[cfg(test)]
    pub(crate) fn written_bytes(&self) -> u64 {
        self.lock().written_bytes
    }

    /// A hash of all operations so far with their bytes: the same in two runs that did the same.
    pub fn digest(&self) -> u32 {
        self.lock().digest
    }

    /// Opens the log that is the database, as the real one is opened: what a failed sync left is written again, all is
    /// synced before anybody hears of it, and other logs go.
    pub(super) fn open(&self) -> io::Result<DiskHandle> {
        let mut disk = self.lock();
        disk.life += 1;
        let current = disk.current.clone();
        if disk.logs.get(&current).is_none_or(|log| log.is_damaged) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a hole in the log, or no log"));
        }
        let handle = DiskHandle { disk: self.clone(), life: disk.life, log: current.clone() };
        disk.log_mut().write_again();
        disk.sync(&current)?;
        disk.current_synced.clone_from(&current);
        disk.logs.retain(|name, _| *name == current);
        disk.has_failed = false;
        Ok(handle)
    }

    /// Begins a log beside the one that is the database.
    pub(super) fn begin_log(&self) -> PathBuf {
        let mut disk = self.lock();
        disk.logs_made += 1;
        let name = PathBuf::from(format!("log-{}", disk.logs_made));
        disk.logs.insert(name.clone(), LogImage::default());
        name
    }

    /// Opens a log that was begun. Handles of the others stay.
    pub(super) fn open_log(&self, name: &Path) -> DiskHandle {
        DiskHandle { disk: self.clone(), life: self.lock().life, log: name.to_owned() }
    }

    /// Makes a log the database, durably. The power may fail before, or before stable storage has the name.
    pub(super) fn set_current(&self, name: &Path) -> io::Result<()> {
        let handle = self.open_log(name);
        let name = name.to_owned();
        handle.operate(|disk, _| {
            disk.current = name;
            Ok(())
        })?;
        handle.operate(|disk, fails| {
            if !fails {
                disk.current_synced.clone_from(&disk.current);
                disk.counts.compactions += 1;
            }
            Ok(())
        })
    }

    /// Removes a log, which no crash brings back.
    pub(super) fn remove_log(&self, name: &Path) {
        self.lock().logs.remove(name);
    }

    pub(super) fn wall(&self) -> u64 {
        (self.wall)()
    }

    pub(super) fn source(&self) -> SourceId {
        self.source
    }

    /// The disk, for a handle of the present life.
    fn alive(&self, life: u64) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.lock();
        if disk.life == life {
            return Ok(disk);
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "the device has lost its power"))
    }

    /// Does something in which the power may fail, for a handle of this life.
    fn operate(
        &self,
        life: u64,
        operation: impl FnOnce(&mut Disk, bool) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut disk = self.alive(life)?;
        let hook = disk.count_operation();
        let result = operation(&mut disk, hook.is_some());
        let Some(hook) = hook else { return result };
        disk.counts.crashes_in_operation += 1;
        disk.crash();
        disk.has_failed = true;
        drop(disk);
        hook();
        Err(io::Error::new(io::ErrorKind::NotConnected, "the power failed"))
    }

    /// No change under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.lock();
        f.debug_struct("SimulatedDisk")
            .field("bytes", &disk.log().bytes)
            .field("pending", &disk.log().pending.len())
            .field("counts", &disk.counts)
            .finish_non_exhaustive()
    }
}

impl LogImage {
    fn reset_view(&mut self) {
        self.view.clone_from(&self.synced);
        for pending in &self.pending {
            put_all(&mut self.view, pending.batch.clone());
        }
        self.bytes = self.view.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    }

    /// Whether something that was synced lies behind what was not.
    fn has_hole(&self) -> bool {
        self.is_damaged || self.pending.iter().any(|pending| pending.state == PageState::BehindHole)
    }

    /// Brings the `count` oldest of what is pending to stable storage, without those that the cache calls clean.
    fn write(&mut self, count: usize) {
        for pending in self.pending.iter_mut().take(count) {
            if pending.state == PageState::Dirty {
                pending.state = PageState::BehindHole;
            }
        }
        let is_there = |pending: &&Pending| pending.state == PageState::BehindHole;
        let whole = self.pending.iter().take_while(is_there).count();
        self.pending.drain(..whole).for_each(|pending| put_all(&mut self.synced, pending.batch));
    }

    /// Makes what a failed sync left dirty again.
    fn write_again(&mut self) {
        for pending in &mut self.pending {
            pending.state = PageState::Dirty;
        }
    }

    /// Loses what is pending, but for as many of the oldest as `kept` and are no more than in the cache alone.
    fn lose(&mut self, kept: usize) -> usize {
        let before = self.pending.len();
        self.is_damaged |= self.has_hole();
        self.write(kept);
        self.pending.clear();
        self.reset_view();
        before.saturating_sub(kept)
    }
}

impl Disk {
    fn log(&self) -> &LogImage {
        static NONE: LogImage = LogImage {
            synced: Map::new(),
            pending: Vec::new(),
            view: Map::new(),
            bytes: 0,
            is_damaged: true,
        };
        self.logs.get(&self.current).unwrap_or(&NONE)
    }

    fn log_mut(&mut self) -> &mut LogImage {
        self.logs.entry(self.current.clone()).or_default()
    }

    fn crash(&mut self) {
        if self.current != self.current_synced && self.rng.bool() {
            self.current.clone_from(&self.current_synced);
        }
        let mut lost = 0;
        let mut digest = 0;
        for (name, log) in &mut self.logs {
            let kept = self.rng.usize(0..=log.pending.len());
            let lost_here = log.lose(kept);
            if *name == self.current {
                (lost, digest) = (lost_here, kept);
            }
        }
        self.current_synced.clone_from(&self.current);
        self.files.crash(&mut self.rng);
        self.life += 1;
        self.power = None;
        self.has_failed = false;
        self.counts.crashes += 1;
        self.counts.crashes_with_loss += u64::from(lost > 0);
        self.counts.batches_lost += lost as u64;
        self.note(b"crash", &(digest as u64).to_le_bytes());
    }

    fn evict(&mut self) {
        for log in self.logs.values_mut() {
            let clean = |pending: &Pending| pending.state == PageState::Clean;
            let Some(first) = log.pending.iter().position(clean) else { continue };
            log.is_damaged |= log.pending.iter().skip(first).any(|pending| !clean(pending));
            log.pending.truncate(first);
            log.reset_view();
        }
        self.files.evict();
        self.note(b"evict", &[]);
    }

    fn note(&mut self, what: &[u8], bytes: &[u8]) {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.digest);
        hasher.update(what);
        hasher.update(bytes);
        self.digest = hasher.finalize();
    }

    /// Counts a write or a sync. If the power fails in it: what is to be called.
    fn count_operation(&mut self) -> Option<Hook> {
        let (left, _) = self.power.as_mut()?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.power.take().map(|(_, hook)| hook)
    }

    fn used_bytes(&self) -> u64 {
        self.log().bytes + self.files.bytes
    }

    /// Lets through what makes so many bytes more, if they fit.
    fn admit(&mut self, grown: u64) -> io::Result<()> {
        let used = self.used_bytes();
        if self.capacity_bytes.is_some_and(|capacity| used + grown > capacity) {
            self.counts.refused_full += 1;
            self.note(b"full", &[]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn apply(&mut self, name: &Path, entries: Vec<Entry>) -> io::Result<()> {
        let grown: u64 =
            entries.iter().map(|(key, value)| (key.len() + value.as_ref().map_or(0, Vec::len)) as u64).sum();
        self.admit(grown)?;
        for (key, value) in &entries {
            self.note(key, value.as_deref().unwrap_or(b"removed"));
        }
        let log = self.logs.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        #[cfg(test)]
        if let Some(watched) = &mut self.watched {
            watched.see(&entries, log.pending.len());
        }
        for (key, value) in entries.iter().cloned() {
            let len = |value: &Vec<u8>| (key.len() + value.len()) as u64;
            let added = value.as_ref().map_or(0, len);
            let removed = log.view.get(&key).map_or(0, len);
            log.bytes = log.bytes + added - removed;
            put(&mut log.view, key, value);
        }
        log.pending.push(Pending { batch: entries, state: PageState::Dirty });
        self.counts.batches += 1;
        #[cfg(test)]
        (self.written_bytes += grown);
        Ok(())
    }

    /// Counts a sync; `Ok(false)`: it says that it has done what it has not.
    ///
    /// # Errors
    /// It fails.
    fn begin_sync(&mut self, what: &[u8]) -> io::Result<bool> {
        self.counts.syncs += 1;
        self.note(what, &[]);
        let fails = match &mut self.failing_syncs {
            Some((first, _)) if *first > 1 => {
                *first -= 1;
                false
            }
            Some((_, count)) => {
                *count -= 1;
                true
            }
            None => false,
        };
        self.failing_syncs = self.failing_syncs.filter(|(_, count)| *count > 0);
        if fails && !self.syncs_lie {
            self.has_failed = true;
            self.counts.syncs_failed += 1;
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(!self.syncs_lie)
    }

    fn sync(&mut self, name: &Path) -> io::Result<()> {
        let began = self.begin_sync(b"sync");
        if matches!(began, Ok(false)) {
            return Ok(());
        }
        let log = self.logs.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        let Err(failure) = began else {
            log.write(usize::MAX);
            return Ok(());
        };
        log.write(self.rng.usize(0..=log.pending.len()));
        let left = log.pending.iter_mut().filter(|pending| pending.state == PageState::Dirty);
        let left = left.map(|pending| pending.state = PageState::Clean).count();
        self.counts.batches_left_clean += left as u64;
        self.note(b"sync failed", &(left as u64).to_le_bytes());
        Err(failure)
    }
}

fn put_all(map: &mut Map, batch: Vec<Entry>) {
    batch.into_iter().for_each(|(key, value)| put(map, key, value));
}

fn put(map: &mut Map, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// A disk as the store has it open.
pub(super) struct DiskHandle {
    disk: SimulatedDisk,
    life: u64,
    log: PathBuf,
}

impl DiskHandle {
    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        self.disk.alive(self.life)
    }

    /// Name of the log.
    pub(super) fn name(&self) -> &Path {
        &self.log
    }

    fn read<T>(&self, read: impl FnOnce(&Map) -> T) -> io::Result<T> {
        let disk = self.alive()?;
        let log = disk.logs.get(&self.log).ok_or(io::ErrorKind::NotFound)?;
        Ok(read(&log.view))
    }

    pub(super) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.read(|view| view.get(key).cloned())
    }

    /// The entries at or after `from` and before `to`.
    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<Pair>> {
        self.read(|view| range(view, from, to).map(owned).collect())
    }

    pub(super) fn first(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Pair>> {
        self.read(|view| range(view, from, to).next().map(owned))
    }

    pub(super) fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Pair>> {
        self.read(|view| range(view, from, to).next_back().map(owned))
    }

    pub(super) fn apply(&self, entries: Vec<Entry>) -> io::Result<()> {
        self.operate(|disk, fails| {
            // The power may fail before or after the batch.
            if fails && disk.rng.bool() {
                return Ok(());
            }
            disk.apply(&self.log, entries)
        })
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let look = self.alive()?.before_sync.clone();
        if let Some(look) = look {
            look();
        }
        self.operate(|disk, fails| if fails { Ok(()) } else { disk.sync(&self.log) })
    }

    /// Does something in which the power may fail.
    fn operate(&self, operation: impl FnOnce(&mut Disk, bool) -> io::Result<()>) -> io::Result<()> {
        self.disk.operate(self.life, operation)
    }
}

fn range<'m>(
    map: &'m Map,
    from: &[u8],
    to: &[u8],
) -> impl DoubleEndedIterator<Item = (&'m Vec<u8>, &'m Vec<u8>)> + use<'m> {
    let empty = from >= to;
    let bounds = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(to));
    (!empty).then(|| map.range::<[u8], _>(bounds)).into_iter().flatten()
}

fn owned((key, value): (&Vec<u8>, &Vec<u8>)) -> Pair {
    (key.clone(), value.clone())
}

#[cfg(test)]
#[path = "simulated/watched.rs"]
mod watched;
