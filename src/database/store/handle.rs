//! An open store: how it is opened, synced and closed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::blobs::{Blobs, Directory};
use super::engine::{self, Engine, EngineCounts, Ticket};
use super::gathering::Gathering;
use super::keys::{self, CollectionKey};
use super::layout;
use super::meta::{self, Meta};
use super::pieces::BlockCache;
#[cfg(feature = "simulation")]
use super::simulated::SimulatedDisk;
#[cfg(feature = "simulation")]
use super::simulated::handles::DiskFiles;
use super::space::{Room, Space};
use super::state::{CollectionState, WriterState};
use super::tables::{self, Sources};
use super::timer::Timer;
use super::twin::Twin;
use crate::database::config::{DatabaseConfig, Durability};
use crate::database::packed::Names;
use crate::database::{DatabaseError, clock};
use crate::replica::revision::{SourceId, Version, Versioning};

/// An open store.
pub(crate) struct Store {
    pub(super) path: PathBuf,
    pub(super) source: SourceId,
    pub(crate) versioning: Versioning,
    /// Version of the stored format.
    pub(super) format: AtomicU32,
    /// Source IDs it had before it was repaired or restored.
    pub(super) former: Vec<SourceId>,
    pub(super) durability: Durability,
    pub(super) gathering: Gathering,
    pub(super) cache_bytes: u64,
    /// Replaced as a whole by a compaction, under the writer's lock.
    pub(super) engine: RwLock<Arc<Engine>>,
    pub(super) names: RwLock<Names>,
    pub(super) sources: RwLock<Sources>,
    pub(super) collections: RwLock<BTreeMap<CollectionKey, Arc<CollectionState>>>,
    pub(super) cache: Mutex<BlockCache>,
    pub(super) writer: Mutex<WriterState>,
    pub(super) space: Space,
    /// One backup at a time.
    pub(super) backup: Mutex<()>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) syncer: Mutex<Option<JoinHandle<()>>>,
    /// The earliest expiration of a document, milliseconds since 1970; the highest number if there is none.
    pub(super) next_expiration: AtomicU64,
    pub(super) timer: Arc<Timer>,
    /// Who builds indexes, and whether there is something to build or to remove.
    pub(super) indexer: Arc<Timer>,
    pub(super) index_work: AtomicBool,
    pub(super) blobs: Blobs,
    pub(super) sweeper: Arc<Timer>,
    /// How many removed documents are remembered one by one.
    pub(super) marks: AtomicU64,
    /// Versions seen from a time so far ahead that the clock did not follow.
    pub(super) versions_ahead: AtomicU64,
    /// Whether there was none before it was opened.
    pub(super) is_new: bool,
    /// `None` in a simulation, and if it is read alone and has none.
    _lock: Option<File>,
    #[cfg(feature = "simulation")]
    pub(super) simulated: Option<SimulatedDisk>,
}

impl Store {
    /// Opens or creates the store in directory `path`.
    pub(crate) fn open(path: &Path, config: &DatabaseConfig) -> Result<Arc<Store>, DatabaseError> {
        if config.read_only {
            return Store::open_to_read(path, config);
        }
        let lock = layout::lock(path, config.create)?;
        let logs = layout::logs(path)?;
        if !config.create && !logs.current.exists() {
            return Err(none(path));
        }
        layout::create_log(path, &logs.current)?;
        let engine = Engine::open(&logs.current, config.cache_bytes, Ticket::default())?;
        logs.clean_up(path)?;
        let (meta, is_new) = meta::open(&engine, path, config, meta::new_source)?;
        let mut store = Store::load(path, config, engine, &meta, Some(lock), Directory::of(path))?;
        store.is_new = is_new;
        store.begin_ahead_table()?;
        let store = Arc::new(store);
        store.expire_later();
        store.index_later();
        store.sweep_later();
        Ok(store)
    }

    /// Opens the store in directory `path` without writing a byte.
    fn open_to_read(path: &Path, config: &DatabaseConfig) -> Result<Arc<Store>, DatabaseError> {
        let lock = layout::lock_to_read(path)?;
        let engine = Engine::open_to_read(&layout::logs(path)?.current)?.ok_or_else(|| none(path))?;
        let meta = meta::to_read(&engine, path, config)?.ok_or_else(|| none(path))?;
        Ok(Arc::new(Store::load(path, config, engine, &meta, lock, Directory::of(path))?))
    }

    /// Reads what is kept in memory.
    fn load(
        path: &Path,
        config: &DatabaseConfig,
        engine: Engine,
        meta: &Meta,
        lock: Option<File>,
        blobs: Directory,
    ) -> Result<Store, DatabaseError> {
        let former = engine.get(keys::FORMER)?.map(|value| meta::former_sources(&value)).unwrap_or_default();
        let names = tables::load_names(&engine)?;
        let sources = Sources::load(&engine)?;
        let next_expiration = AtomicU64::new(tables::next_expiration(&engine)?);
        let marks = AtomicU64::new(tables::marks(&engine)?);
        let blobs = Blobs::open(blobs, engine.is_frozen(), engine.get(keys::BLOBS_RECORDED)?.is_some())?;
        let mut writer = WriterState::load(&engine, names.len())?;
        let collections = writer.load_collections(&engine)?;
        let store = Store {
            path: path.to_owned(),
            source: meta.source,
            versioning: meta.versioning().unwrap_or_default(),
            format: AtomicU32::new(meta.format),
            former,
            durability: config.durability,
            gathering: Gathering::new(config.commit_delay),
            cache_bytes: config.cache_bytes,
            engine: RwLock::new(Arc::new(engine)),
            names: RwLock::new(names),
            sources: RwLock::new(sources),
            collections: RwLock::new(collections),
            cache: Mutex::default(),
            writer: Mutex::new(writer),
            space: Space::new(path, config.keep_free_bytes),
            backup: Mutex::default(),
            changed: watch::Sender::new(0),
            syncer: Mutex::new(None),
            next_expiration,
            timer: Arc::default(),
            indexer: Arc::default(),
            index_work: AtomicBool::new(false),
            blobs,
            sweeper: Arc::default(),
            marks,
            versions_ahead: AtomicU64::new(0),
            is_new: false,
            _lock: lock,
            #[cfg(feature = "simulation")]
            simulated: None,
        };
        if !store.is_read_only() {
            store.create_default_collection()?;
        }
        store.look_for_index_work();
        Ok(store)
    }

    /// Opens or creates the store on a simulated disk.
    #[cfg(feature = "simulation")]
    pub(crate) fn open_simulated(
        disk: &SimulatedDisk,
        config: &DatabaseConfig,
    ) -> Result<Arc<Store>, DatabaseError> {
        let path = Path::new("");
        let engine = Engine::open_simulated(disk)?;
        let (meta, is_new) = meta::open(&engine, path, config, || Ok(disk.source()))?;
        let mut store =
            Store::load(path, config, engine, &meta, None, Directory::Simulated(DiskFiles::of(disk)))?;
        store.simulated = Some(disk.clone());
        store.is_new = is_new;
        store.begin_ahead_table()?;
        let store = Arc::new(store);
        store.expire_later();
        store.index_later();
        Ok(store)
    }

    /// Whether there was no database before it was opened.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether it can only be read.
    pub(crate) fn is_read_only(&self) -> bool {
        self.engine().is_frozen()
    }

    pub(super) fn check_writable(&self) -> Result<(), DatabaseError> {
        if self.is_read_only() {
            return Err(DatabaseError::ReadOnly { path: self.path.clone() });
        }
        Ok(())
    }

    /// Wall clock in nanoseconds since 1970.
    pub(crate) fn wall(&self) -> u64 {
        #[cfg(feature = "simulation")]
        if let Some(disk) = &self.simulated {
            return disk.wall();
        }
        clock::wall_now()
    }

    fn create_default_collection(&self) -> Result<(), DatabaseError> {
        if self.collection_key(crate::replica::DEFAULT_NAME).is_none() {
            self.create_collection(crate::replica::DEFAULT_NAME)?;
        }
        Ok(())
    }

    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls `synced` after each sync to stable storage.
    #[cfg(test)]
    pub(crate) fn observe_syncs(&self, synced: impl Fn() + Send + 'static) {
        *self.engine().synced.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(synced));
    }

    /// Lets so many of the next syncs to stable storage fail.
    #[cfg(test)]
    pub(crate) fn fail_syncs(&self, count: u64) {
        self.engine().failing_syncs.store(count, Ordering::Relaxed);
    }

    /// How many wait for others to share their sync.
    #[cfg(test)]
    pub(crate) fn gathered(&self) -> usize {
        self.engine().gathered()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn source(&self) -> SourceId {
        self.source
    }

    /// Source IDs it had before it was repaired or restored.
    pub(crate) fn former(&self) -> &[SourceId] {
        &self.former
    }

    /// Whether this database wrote versions of that source, now or before it was repaired or restored.
    pub(crate) fn is_own(&self, source: SourceId) -> bool {
        source == self.source || self.former.contains(&source)
    }

    pub(crate) fn names(&self) -> &RwLock<Names> {
        &self.names
    }

    /// A counter that grows when something became visible to the change feed.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn counts(&self) -> EngineCounts {
        self.engine().counts().after(self.gathering.before())
    }

    /// Counts a version from so far ahead that the clock did not follow; the first is told.
    pub(super) fn note_ahead(&self, version: Version) {
        if self.versions_ahead.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(%version, "a peer's clock, or this device's, is wrong by more than a day: its versions are \
                kept, the clock of this database does not follow");
        }
    }

    /// How far the clock of versions is ahead of the system's, nanoseconds.
    pub(crate) fn clock_ahead(&self) -> u64 {
        let state = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock_ahead(self.wall())
    }

    /// What showed that another device uses this database's source ID, if anything did.
    pub(crate) fn twin(&self) -> Option<Twin> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).twin().cloned()
    }

    /// Syncs, seals and refuses everything afterwards. When it returns, the thread that syncs has ended: an orderly end
    /// leaves nobody behind who would find the store closed and take that for a failure.
    ///
    /// # Errors
    /// Of the storage device: it does not have what [`Durability::Relaxed`] left to be synced, or is not sealed.
    pub(crate) fn close(&self) -> Result<(), DatabaseError> {
        self.timer.end();
        self.indexer.end();
        self.sweeper.end();
        self.blobs.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.engine();
        // By way of the group, so that those who wait for these commits hear that stable storage has them. If it fails, the
        // engine knows, and is not sealed.
        let synced = match self.sync(self.newest()) {
            Err(DatabaseError::Closed) => Ok(()),
            synced => synced,
        };
        let sealed = engine.seal();
        engine.refuse();
        engine.close();
        drop(writer);
        self.join_syncer();
        synced.and(sealed)
    }

    fn join_syncer(&self) {
        let syncer = self.syncer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The thread itself may be the one that drops the last handle.
        if let Some(thread) = syncer.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }

    /// Why the handle accepts nothing more, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.engine().failure()
    }

    /// How much room there is on stable storage.
    pub(crate) fn room(&self) -> Room {
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            return Room::default();
        }
        self.space.room()
    }

    /// Lets a commit of that many staged bytes through while there is room for it.
    pub(super) fn admit(&self, staged: usize, only_checkpoints: bool) -> Result<(), DatabaseError> {
        self.check_writable()?;
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            return Ok(());
        }
        self.space.admit(staged, only_checkpoints, |bytes| self.engine().reserve(bytes))
    }

    /// Bytes of all files.
    pub(crate) fn disk_bytes(&self) -> Result<u64, DatabaseError> {
        #[cfg(feature = "simulation")]
        if let Some(disk) = &self.simulated {
            return Ok(disk.used_bytes());
        }
        engine::directory_bytes(&self.path).map_err(|source| engine::io_error("measure", source))
    }

    /// The collection of a canonical name.
    pub(crate) fn collection_key(&self, name: &str) -> Option<CollectionKey> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        collections.iter().find(|(_, state)| state.name == name).map(|(&key, _)| key)
    }

    pub(crate) fn collections(&self) -> Vec<(CollectionKey, Arc<CollectionState>)> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        collections.iter().map(|(&key, state)| (key, Arc::clone(state))).collect()
    }

    pub(crate) fn collection(&self, key: CollectionKey) -> Result<Arc<CollectionState>, DatabaseError> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        let unknown = || DatabaseError::UnknownCollection { name: format!("#{}", key.0) };
        collections.get(&key).cloned().ok_or_else(unknown)
    }
}

fn none(path: &Path) -> DatabaseError {
    DatabaseError::NotADatabase { path: path.to_owned(), reason: layout::NONE.to_owned() }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.timer.end();
        self.indexer.end();
        self.sweeper.end();
        self.blobs.close();
        self.engine().close();
        self.join_syncer();
        // It was logged; nobody is left to be told.
        let _ = self.engine().seal();
    }
}
