//! A disk for simulations: in memory, and it loses what was not synced.
//!
//! It stands where sled does, below everything else of the store. A batch is there wholly or not at all, and never
//! without those before it, which is what the store counts on. After a crash all that was synced is there, and of the
//! batches since then as many, from the oldest on, as chance has it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::Store;
use super::engine::Entry;
use super::files::Pair;
use crate::database::config::RELAXED_SYNC_MS;
use crate::replica::revision::SourceId;

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
    /// What a crash cannot take.
    synced: Map,
    /// Batches since the last sync, oldest first.
    unsynced: Vec<Vec<Entry>>,
    /// What a reader sees.
    view: Map,
    /// Bytes of keys and values in `view`.
    bytes: u64,
    capacity_bytes: Option<u64>,
    /// Counts crashes: a handle of an earlier life is refused.
    life: u64,
    /// Operations until the power fails, and what happens then.
    power: Option<(u64, Hook)>,
    syncs_lie: bool,
    rng: fastrand::Rng,
    counts: DiskCounts,
    /// Hash of all that was done, for comparing two runs.
    digest: u32,
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
}

impl SimulatedDisk {
    /// An empty disk. `seed` decides what crashes take, `source` is the ID of the database that will be made on it,
    /// `wall` the wall clock of its device in nanoseconds since 1970.
    pub fn new(seed: u64, source: SourceId, wall: impl Fn() -> u64 + Send + Sync + 'static) -> SimulatedDisk {
        let disk = Disk {
            synced: Map::new(),
            unsynced: Vec::new(),
            view: Map::new(),
            bytes: 0,
            capacity_bytes: None,
            life: 0,
            power: None,
            syncs_lie: false,
            rng: fastrand::Rng::with_seed(seed),
            counts: DiskCounts::default(),
            digest: 0,
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

    /// Takes [`SimulatedDisk::fail_power_after`] back.
    pub fn disarm(&self) {
        self.lock().power = None;
    }

    /// Whether the power may fail in a write, or the disk may be full.
    pub fn is_troubled(&self) -> bool {
        let disk = self.lock();
        disk.power.is_some() || disk.capacity_bytes.is_some()
    }

    /// Sets how many bytes of keys and values fit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Bytes of keys and values.
    pub fn used_bytes(&self) -> u64 {
        self.lock().bytes
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
        copy.synced.clone_from(&disk.synced);
        copy.reset_view();
        drop(copy);
        image
    }

    /// What was done so far.
    pub fn counts(&self) -> DiskCounts {
        self.lock().counts
    }

    /// A hash of all operations so far with their bytes: the same in two runs that did the same.
    pub fn digest(&self) -> u32 {
        self.lock().digest
    }

    pub(super) fn open(&self) -> DiskHandle {
        let mut disk = self.lock();
        disk.life += 1;
        // As the real log when it is opened: what was found then is on the medium before anybody hears of it.
        disk.sync();
        DiskHandle { disk: self.clone(), life: disk.life }
    }

    pub(super) fn wall(&self) -> u64 {
        (self.wall)()
    }

    pub(super) fn source(&self) -> SourceId {
        self.source
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
            .field("bytes", &disk.bytes)
            .field("unsynced", &disk.unsynced.len())
            .field("counts", &disk.counts)
            .finish_non_exhaustive()
    }
}

impl Disk {
    fn crash(&mut self) {
        let kept = self.rng.usize(0..=self.unsynced.len());
        let lost = self.unsynced.len() - kept;
        let unsynced = std::mem::take(&mut self.unsynced);
        for batch in unsynced.into_iter().take(kept) {
            put_all(&mut self.synced, batch);
        }
        self.reset_view();
        self.life += 1;
        self.power = None;
        self.counts.crashes += 1;
        self.counts.crashes_with_loss += u64::from(lost > 0);
        self.counts.batches_lost += lost as u64;
        self.note(b"crash", &(kept as u64).to_le_bytes());
    }

    fn reset_view(&mut self) {
        self.view.clone_from(&self.synced);
        self.bytes = self.view.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
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

    fn apply(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let grown: u64 =
            entries.iter().map(|(key, value)| (key.len() + value.as_ref().map_or(0, Vec::len)) as u64).sum();
        if self.capacity_bytes.is_some_and(|capacity| self.bytes + grown > capacity) {
            self.counts.refused_full += 1;
            self.note(b"full", &[]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        for (key, value) in &entries {
            self.note(key, value.as_deref().unwrap_or(b"removed"));
        }
        for (key, value) in entries.iter().cloned() {
            let len = |value: &Vec<u8>| (key.len() + value.len()) as u64;
            let added = value.as_ref().map_or(0, len);
            let removed = self.view.get(&key).map_or(0, len);
            self.bytes = self.bytes + added - removed;
            put(&mut self.view, key, value);
        }
        self.unsynced.push(entries);
        self.counts.batches += 1;
        Ok(())
    }

    fn sync(&mut self) {
        self.counts.syncs += 1;
        self.note(b"sync", &[]);
        if !self.syncs_lie {
            let unsynced = std::mem::take(&mut self.unsynced);
            unsynced.into_iter().for_each(|batch| put_all(&mut self.synced, batch));
        }
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
}

impl DiskHandle {
    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock();
        if disk.life == self.life {
            return Ok(disk);
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "the device has lost its power"))
    }

    pub(super) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.alive()?.view.get(key).cloned())
    }

    /// The entries at or after `from` and before `to`.
    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<Pair>> {
        Ok(range(&self.alive()?.view, from, to).map(owned).collect())
    }

    pub(super) fn first(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Pair>> {
        Ok(range(&self.alive()?.view, from, to).next().map(owned))
    }

    pub(super) fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Pair>> {
        Ok(range(&self.alive()?.view, from, to).next_back().map(owned))
    }

    pub(super) fn apply(&self, entries: Vec<Entry>) -> io::Result<()> {
        self.operate(|disk, fails| {
            // The power may fail before or after the batch.
            if fails && disk.rng.bool() {
                return Ok(());
            }
            disk.apply(entries)
        })
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.operate(|disk, fails| {
            if !fails {
                disk.sync();
            }
            Ok(())
        })
    }

    /// Does something in which the power may fail.
    fn operate(&self, operation: impl FnOnce(&mut Disk, bool) -> io::Result<()>) -> io::Result<()> {
        let mut disk = self.alive()?;
        let hook = disk.count_operation();
        let result = operation(&mut disk, hook.is_some());
        let Some(hook) = hook else { return result };
        disk.counts.crashes_in_operation += 1;
        disk.crash();
        drop(disk);
        hook();
        Err(io::Error::new(io::ErrorKind::NotConnected, "the power failed"))
    }
}

/// What the thread that syncs does for a store on a real disk.
pub(super) fn sync_later(store: Weak<Store>) {
    crate::task::spawn(async move {
        tokio::time::sleep(Duration::from_millis(RELAXED_SYNC_MS / 2)).await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = store.sync(store.newest()) {
            tracing::debug!(%error, "background sync failed");
        }
    });
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
