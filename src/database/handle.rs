//! An open database, and what is done with the files of one that is not.
//!
//! One file, because it is one type of which each method hands on to the store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::batch::Batch;
use super::clock;
use super::collection::Collection;
use super::config::DatabaseConfig;
use super::document::Document;
use super::edit::Edited;
use super::error::DatabaseError;
use super::info::{CollectionInfo, DatabaseInfo};
use super::name::canonical_collection_name;
#[cfg(feature = "simulation")]
use super::store::SimulatedDisk;
use super::store::{
    self, BackupInfo, BlobCounts, RenewReport, RestoreReport, Room, SalvageReport, Store, Twin, VerifyReport,
};
use crate::replica::DEFAULT_NAME;
use crate::replica::revision::{SourceId, VersionVector, Versioning};

/// An open database. Clones are handles to the same one; it closes when the last is dropped.
/// ```
/// use gattway::{Database, DatabaseConfig};
///
/// # let directory = tempfile::tempdir().expect("a directory");
/// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// let (readings, alarms) = (db.create_collection("plant.readings")?, db.create_collection("plant.alarms")?);
/// // Both or neither, also where the power fails.
/// db.batch(|batch| {
///     batch.put(&readings, "boiler", &serde_json::json!({ "celsius": 99.5 }))?;
///     batch.put(&alarms, "boiler", &serde_json::json!({ "limit": 95 }))
/// })?;
/// assert_eq!(db.collections(), ["_default", "plant.alarms", "plant.readings"]);
/// # Ok::<(), gattway::Error>(())
/// ```
#[derive(Clone)]
pub struct Database {
    pub(super) store: Arc<Store>,
}

impl Database {
    /// Opens the database in directory `path`, or creates it there.
    ///
    /// # Errors
    /// [`DatabaseError::InUse`] if another handle has it open, [`DatabaseError::NewerFormat`],
    /// [`DatabaseError::Damaged`], [`DatabaseError::NotADatabase`], [`DatabaseError::Unsupported`], or of input and
    /// output.
    pub fn open(path: impl AsRef<Path>, config: DatabaseConfig) -> Result<Database, DatabaseError> {
        Ok(Database { store: Store::open(path.as_ref(), &config)? })
    }

    /// Opens the database on a simulated disk, or creates it there. Earlier handles of it are refused from then on.
    ///
    /// # Errors
    /// As [`Database::open`].
    #[cfg(feature = "simulation")]
    #[doc(hidden)]
    pub fn open_simulated(disk: &SimulatedDisk, config: DatabaseConfig) -> Result<Database, DatabaseError> {
        Ok(Database { store: Store::open_simulated(disk, &config)? })
    }

    /// Whether there is a database in directory `path`, open or not, whole or damaged.
    pub fn exists(path: impl AsRef<Path>) -> bool {
        store::exists(path.as_ref())
    }

    /// Whether a crash has left a declared redo list, which opening applies.
    #[cfg(test)]
    pub(super) fn has_redo_list(path: &Path) -> bool {
        store::has_redo_list(path)
    }

    /// Whether the files of the database in directory `path` may be written to, as far as permissions and the file system
    /// say. If not, [`DatabaseConfig::read_only`] opens it.
    pub(crate) fn is_writable(path: impl AsRef<Path>) -> bool {
        store::is_writable(path.as_ref())
    }

    /// Whether there was none in its directory before it was opened.
    pub(crate) fn is_new(&self) -> bool {
        self.store.is_new()
    }

    /// Whether it can only be read.
    pub(crate) fn is_read_only(&self) -> bool {
        self.store.is_read_only()
    }

    /// Directory of the database.
    pub fn path(&self) -> &Path {
        self.store.path()
    }

    /// How it identifies revisions.
    pub fn versioning(&self) -> Versioning {
        self.store.versioning
    }

    /// The author of this database's own versions.
    pub(crate) fn source(&self) -> SourceId {
        self.store.source()
    }

    /// The collection of a name (`name`, `scope.name` or `_default`), if it exists.
    pub fn collection(&self, name: &str) -> Option<Collection> {
        let name = canonical_collection_name(name).ok()?;
        let key = self.store.collection_key(&name)?;
        Some(Collection::new(Arc::clone(&self.store), key, name))
    }

    /// The collection of a name, created if it does not exist.
    ///
    /// # Errors
    /// [`DatabaseError::InvalidCollectionName`], [`DatabaseError::TooManyCollections`] or of the store.
    pub fn create_collection(&self, name: &str) -> Result<Collection, DatabaseError> {
        let name = canonical_collection_name(name)?;
        let key = self.store.create_collection(&name)?;
        Ok(Collection::new(Arc::clone(&self.store), key, name))
    }

    /// The default collection, created if it was deleted.
    ///
    /// # Errors
    /// Of the store, only if it has to be created.
    pub fn default_collection(&self) -> Result<Collection, DatabaseError> {
        self.create_collection(DEFAULT_NAME)
    }

    /// Full names of all collections, in order.
    pub fn collections(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.store.collections().into_iter().map(|(_, c)| c.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Deletes a collection with all its documents. They are not deleted at peers.
    ///
    /// # Errors
    /// [`DatabaseError::UnknownCollection`] or of the store.
    pub fn delete_collection(&self, name: &str) -> Result<(), DatabaseError> {
        let name = canonical_collection_name(name)?;
        let key = self.store.collection_key(&name).ok_or(DatabaseError::UnknownCollection { name })?;
        self.store.delete_collection(key)
    }

    /// Collects operations on any documents in `fill` and applies all of them, or none, as one commit.
    ///
    /// # Errors
    /// What `fill` returns; [`DatabaseError::Conflict`] if a document it saves was changed meanwhile; of the store.
    /// Nothing was changed then.
    pub fn batch<T>(
        &self,
        fill: impl FnOnce(&mut Batch) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut batch = Batch::new(Arc::clone(&self.store));
        let value = fill(&mut batch)?;
        batch.commit()?;
        Ok(value)
    }

    /// As [`Database::batch`]; also gives the revision and the sequence that each operation has made, in their order, `None` for
    /// one that had nothing to do.
    ///
    /// # Errors
    /// As of [`Database::batch`].
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the gateway
    pub(crate) fn batch_told(
        &self,
        fill: impl FnOnce(&mut Batch) -> Result<(), DatabaseError>,
    ) -> Result<Vec<Option<(VersionVector, u64)>>, DatabaseError> {
        let mut batch = Batch::new(Arc::clone(&self.store));
        fill(&mut batch)?;
        let told = |edited: Edited| (edited.vector, edited.sequence);
        Ok(batch.commit()?.into_iter().map(|edited| edited.map(told)).collect())
    }

    /// A counter that grows with each change, for asynchronous code to wait on. A slow receiver holds nobody up.
    #[doc(hidden)]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.store.watch()
    }

    /// Waits until stable storage has everything saved so far. Only of use with [`Durability::Relaxed`](super::Durability::Relaxed).
    ///
    /// # Errors
    /// Of the store.
    pub fn sync(&self) -> Result<(), DatabaseError> {
        self.store.sync(self.store.newest())
    }

    /// Writes the database anew without what is no longer needed, and swaps it in by one step that a crash cannot
    /// split. Needs room for a second copy meanwhile; writers wait, readers do not. Returns the bytes of all files
    /// before and after.
    ///
    /// # Errors
    /// Of the store; the database is as it was then.
    pub fn compact(&self) -> Result<(u64, u64), DatabaseError> {
        let before = self.store.disk_bytes()?;
        self.store.compact()?;
        Ok((before, self.store.disk_bytes()?))
    }

    /// Bytes of all its files.
    pub(crate) fn disk_bytes(&self) -> Result<u64, DatabaseError> {
        self.store.disk_bytes()
    }

    /// The wall clock, nanoseconds since 1970.
    pub(crate) fn wall(&self) -> u64 {
        self.store.wall()
    }

    /// Checks the database in directory `path`, which nobody may have open: its files, each page in use, and whether what
    /// they say holds together. A damaged one is not opened and stays as it is; one that cannot be written to stays as it is
    /// whatever it holds. Memory: the IDs of one collection.
    ///
    /// # Errors
    /// [`DatabaseError::InUse`], [`DatabaseError::NotADatabase`], or if the storage device cannot be read at all. What is damaged
    /// stands in the report.
    pub fn check(path: impl AsRef<Path>) -> Result<VerifyReport, DatabaseError> {
        let read_only = !Database::is_writable(&path);
        store::check(path.as_ref(), &DatabaseConfig { create: false, read_only, ..DatabaseConfig::default() })
    }

    /// [`Database::check`] that leaves every byte as it is, also of a database that is sound and could be written to.
    ///
    /// # Errors
    /// As of [`Database::check`].
    pub(crate) fn examine(path: impl AsRef<Path>) -> Result<VerifyReport, DatabaseError> {
        store::check(path.as_ref(), &DatabaseConfig { read_only: true, ..DatabaseConfig::default() })
    }

    /// Saves what is whole of the damaged database in `path`, which nobody may have open, into a new one in `to`, a
    /// directory that is new or empty. Nothing in `path` is changed. Revisions and sequences stay; the new database has a
    /// source ID of its own, since the old one may have given out versions that are lost here and known to peers. What it
    /// remembered of its peers is left out, so the next replication compares everything and brings back what a peer has.
    /// `progress` hears the number of revisions saved. Memory: the sequences of one collection.
    ///
    /// # Errors
    /// [`DatabaseError::InUse`], [`DatabaseError::NotADatabase`], [`DatabaseError::Damaged`] if nothing can be read, or
    /// of input and output. There is nothing in `to` then.
    pub fn repair(
        path: impl AsRef<Path>,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(u64),
    ) -> Result<SalvageReport, DatabaseError> {
        store::repair(path.as_ref(), to.as_ref(), &mut progress)
    }

    /// Shows what is whole of a collection of the database in `path`, which nobody may have open, in the order of the
    /// change feed. Nothing is changed.
    ///
    /// # Errors
    /// As of [`Database::repair`]; [`DatabaseError::UnknownCollection`]; what `visit` returns.
    pub(crate) fn salvage(
        path: impl AsRef<Path>,
        collection: &str,
        mut visit: impl FnMut(Document) -> Result<(), DatabaseError>,
    ) -> Result<SalvageReport, DatabaseError> {
        store::salvage(path.as_ref(), &canonical_collection_name(collection)?, &mut visit)
    }

    /// Writes a backup of this database, which may be in use meanwhile: it shows all collections as of one moment near the
    /// end, batches whole, with the files that stand beside the store (identity, group, trust list: keep it as secret as
    /// the database). Writers wait only while the last changes are read. `progress` hears the revisions written and the
    /// number expected.
    ///
    /// # Errors
    /// Of the store, or of `out`. What was written so far is then no backup, and [`Database::restore`] says so.
    pub fn backup(
        &self,
        out: &mut dyn std::io::Write,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<BackupInfo, DatabaseError> {
        self.store.backup(out, &mut progress)
    }

    /// Reads a whole backup and checks it.
    ///
    /// # Errors
    /// [`DatabaseError::BadBackup`], or of `input`.
    pub(crate) fn check_backup(input: &mut dyn std::io::Read) -> Result<BackupInfo, DatabaseError> {
        store::check_backup(input)
    }

    /// Makes a database of a backup, in directory `to`, which is new or empty. It stands there when all of it is on the
    /// medium, or not at all.
    ///
    /// The new database has a source ID of its own. Under the old one it would give out versions that the original, which
    /// may still run, or had been running after the backup was taken, gave out for something else; peers would take an
    /// edit made here for one that replaces what they have from there. What the original remembered of its peers is left
    /// out. `keep_file` chooses by name which of the files beside the store are restored.
    ///
    /// # Errors
    /// [`DatabaseError::BadBackup`], [`DatabaseError::NotADatabase`] if there is something in `to`, or of input and
    /// output. There is nothing in `to` then.
    pub fn restore(
        input: &mut dyn std::io::Read,
        to: impl AsRef<Path>,
        keep_file: impl Fn(&str) -> bool,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<RestoreReport, DatabaseError> {
        store::restore(input, to.as_ref(), &keep_file, &mut progress)
    }

    /// Reads everything and checks that it holds together. Writers wait.
    ///
    /// # Errors
    /// If the storage device cannot be read at all. What is damaged stands in the report.
    pub fn verify(&self) -> Result<VerifyReport, DatabaseError> {
        self.store.verify()
    }

    /// Lets the database in `path`, which nobody may have open, go on under a new source ID. That is the way out of two
    /// troubles. Its directory was copied to a second device, or its files were set back: then both give out versions under one
    /// ID, and edits of one replace the other's; give one of them a new one, with `take_over`, so that its
    /// edits that no peer is known to have become those of the new author. Or the system's clock was wrong by years for a while:
    /// documents and tombstones whose version is far ahead are saved once more as they are, with a version of today that
    /// replaces the other one everywhere; not if the system's clock was never set.
    ///
    /// Peers compare everything at the next replication. The ID is new when this returns an error later on, and it can be
    /// called again. `progress` hears how many documents were saved.
    ///
    /// # Errors
    /// [`DatabaseError::InUse`], [`DatabaseError::NotADatabase`], or of the store.
    pub fn renew(
        path: impl AsRef<Path>,
        take_over: bool,
        mut progress: impl FnMut(u64),
    ) -> Result<RenewReport, DatabaseError> {
        store::renew(path.as_ref(), take_over, &mut progress)
    }

    /// What showed that another device goes on with a copy of this database under the same source ID, if anything did.
    /// [`Database::renew`] is the way out.
    pub(crate) fn twin(&self) -> Option<Twin> {
        self.store.twin()
    }

    /// How far the clock that versions are made of is ahead of the system's. A stock peer refuses versions more than two
    /// minutes ahead. More than a day it is only while the system's clock is not set.
    pub(crate) fn clock_ahead(&self) -> Duration {
        Duration::from_nanos(self.store.clock_ahead())
    }

    /// Whether the system's clock can be right: whether it was set since this release was made.
    pub(crate) fn is_clock_plausible() -> bool {
        clock::is_plausible(clock::wall_now())
    }

    /// What the database holds.
    ///
    /// # Errors
    /// Of the operating system, when the files are measured.
    pub fn info(&self) -> Result<DatabaseInfo, DatabaseError> {
        let counts = self.store.counts();
        let BlobCounts { blobs, bytes: blob_bytes } = self.store.blobs().counts()?;
        let collection =
            |(key, state): &(store::CollectionKey, Arc<store::CollectionState>)| CollectionInfo {
                name: state.name.clone(),
                documents: self.store.count_documents(*key).unwrap_or_else(|_| state.documents()),
                last_sequence: state.applied(),
            };
        Ok(DatabaseInfo {
            room: self.room(),
            source: self.source(),
            versioning: self.versioning(),
            format: self.store.format(),
            collections: self.store.collections().iter().map(collection).collect(),
            disk_bytes: self.store.disk_bytes()?,
            commits: counts.commits,
            syncs: counts.syncs,
            versions_ahead: self.store.versions_ahead(),
            blobs,
            blob_bytes,
        })
    }

    /// Removes some of what has expired, as a thread does by itself.
    #[cfg(test)]
    pub(crate) fn remove_due(&self, limit: usize) -> Result<Option<u64>, DatabaseError> {
        self.store.remove_due(limit)
    }

    /// Free space. While it is short, commits are refused with [`DatabaseError::Full`] and the rest goes on.
    pub(crate) fn room(&self) -> Room {
        self.store.room()
    }

    /// Documents and tombstones whose current version has a time more than a day ahead of the wall clock,
    /// counted up to [`AHEAD_COUNTED_MAX`](super::AHEAD_COUNTED_MAX).
    ///
    /// # Errors
    /// Of the store.
    pub(crate) fn count_ahead(&self) -> Result<u64, DatabaseError> {
        self.store.count_ahead()
    }

    /// Versions seen since it was opened whose time is more than a day ahead of the wall clock.
    pub(crate) fn versions_ahead(&self) -> u64 {
        self.store.versions_ahead()
    }

    /// Brings everything to stable storage and seals the files, so that the next open can tell every damage. All handles of
    /// this database refuse everything from then on. Dropping the last handle does the same; this is for a process that
    /// ends while others of its threads still hold some.
    ///
    /// # Errors
    /// [`DatabaseError::Failed`] if the handle had failed before; of the storage device. What was acknowledged under
    /// [`Durability::Synced`](super::Durability::Synced) is on it all the same, what was saved under [`Durability::Relaxed`](super::Durability::Relaxed) may not be.
    pub fn close(&self) -> Result<(), DatabaseError> {
        self.store.close()
    }

    /// What went wrong so that this handle accepts no more (a full disk, damage), if so; an orderly
    /// [`Database::close`] is no failure. Opening the database again is the way on.
    pub fn failure(&self) -> Option<String> {
        self.store.failure()
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("path", &self.path()).field("source", &self.source()).finish()
    }
}
