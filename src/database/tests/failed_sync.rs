//! A sync that fails, and what the page cache shows afterwards.
//!
//! Stable storage is modelled beside the real files, page by page: after a sync that failed Linux counts the pages as written, so
//! only what is written again later gets there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::Fixture;
use crate::database::store::REWRITTEN;
use crate::database::{Collection, Database, DatabaseConfig, DatabaseError, Durability};
use crate::replica::store::{CollectionId, ReplicaStore};

const PAGE: usize = 4096;

const SEEDS: u64 = 24;

/// A log whose medium is known.
struct Medium {
    log: PathBuf,
    /// What a power cut would leave of it at least.
    held: Arc<Mutex<Vec<u8>>>,
}

impl Medium {
    /// Watches a database that is in use: what is in the file now is on stable storage, and then what each sync brings there.
    fn new(fixture: &Fixture, database: &Database) -> Medium {
        let log = fixture.directory.path().join("db/log-000001");
        let medium = Medium { log, held: Arc::default() };
        medium.sync();
        let (held, path) = (Arc::clone(&medium.held), medium.log.join("db"));
        database
            .store
            .observe_syncs(move || *held.lock().expect("lock") = std::fs::read(&path).expect("the log"));
        medium
    }

    fn cached(&self) -> Vec<u8> {
        std::fs::read(self.log.join("db")).expect("the log")
    }

    fn sync(&self) {
        *self.held.lock().expect("lock") = self.cached();
    }

    /// Stable storage after a sync: pages that were written since the cache looked like `before`, or were written again, are there.
    fn sync_what_was_written(&self, before: &[u8], again: &BTreeSet<usize>) {
        let now = self.cached();
        let mut held = self.held.lock().expect("lock");
        held.resize(now.len(), 0);
        for at in (0..now.len()).step_by(PAGE) {
            let page = at..(at + PAGE).min(now.len());
            if before.get(page.clone()) != Some(&now[page.clone()]) || again.contains(&at) {
                held[page.clone()].copy_from_slice(&now[page]);
            }
        }
    }

    /// The database as it is once the cache has been given up. The files beside the log are those of a handle that runs.
    fn evicted(&self) -> Fixture {
        let fixture = Fixture::new();
        let log = fixture.directory.path().join("db/log-000001");
        copy(&self.log, &log);
        std::fs::write(log.join("db"), &*self.held.lock().expect("lock")).expect("write");
        fixture
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("the directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("copy")),
        }
    }
}

/// Pages that this thread has written again since it was last asked.
fn pages_written_again() -> BTreeSet<usize> {
    let ranges = REWRITTEN.take();
    let at = |byte: u64| usize::try_from(byte).expect("a small file");
    ranges.into_iter().flat_map(|range| (at(range.start)..at(range.end)).step_by(PAGE)).collect()
}

fn relaxed() -> DatabaseConfig {
    DatabaseConfig { durability: Durability::Relaxed, ..DatabaseConfig::default() }
}

/// What a peer is shown.
fn shown(database: &Database) -> Vec<(u64, String, String)> {
    let changes = database.changes(CollectionId(0), 0, usize::MAX, true).expect("changes");
    let text =
        |body: Option<bytes::Bytes>| String::from_utf8(body.unwrap_or_default().to_vec()).expect("JSON");
    changes.into_iter().map(|change| (change.sequence, change.id, text(change.body))).collect()
}

fn save_some(collection: &Collection, random: &mut fastrand::Rng, count: usize) {
    for _ in 0..count {
        let text: String = (0..random.usize(0..300)).map(|_| random.alphanumeric()).collect();
        let id = format!("document-{}", random.u32(0..200));
        collection.put(&id, &json!({"text": text})).expect("saved");
    }
}

/// Where a sync failed, the next process finds in the page cache what is not on stable storage. What it shows of that to peers must
/// be there when it does, and what it saves behind it must not be cut off.
#[test]
fn what_a_failed_sync_left_counts_only_when_it_was_written_again() {
    let mut found_unsynced = 0;
    for seed in 1..=SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let fixture = Fixture::new();
        let database = fixture.try_open(relaxed()).expect("open");
        let collection = database.default_collection().expect("default");
        let medium = Medium::new(&fixture, &database);
        let count = random.usize(1..300);
        save_some(&collection, &mut random, count);
        // The thread that syncs by and by may come first; it is this one that fails then, or that one.
        database.store.fail_syncs(1);
        save_some_or_fail(&collection, &mut random);
        let _ = database.sync();
        assert!(database.failure().is_some(), "seed {seed}: it goes on");
        drop((collection, database));
        let cached = medium.cached();
        found_unsynced += u64::from(cached != *medium.held.lock().expect("lock"));

        drop(pages_written_again());
        let database = fixture.open();
        medium.sync_what_was_written(&cached, &pages_written_again());
        let evicted = medium.evicted();
        let others = evicted.try_open(DatabaseConfig::default());
        let others = others
            .unwrap_or_else(|error| panic!("seed {seed}: on stable storage there is no database: {error}"));
        assert_eq!(
            shown(&database),
            shown(&others),
            "seed {seed}: a peer is shown what is not on stable storage"
        );
        drop(others);

        let collection = database.default_collection().expect("default");
        save_some(&collection, &mut random, 5);
        collection.put("later", &json!({"seed": seed})).expect("acknowledged");
        medium.sync_what_was_written(&cached, &BTreeSet::new());
        let evicted = medium.evicted();
        let others = evicted.try_open(DatabaseConfig::default());
        let others =
            others.unwrap_or_else(|error| panic!("seed {seed}: what came later cannot be read: {error}"));
        assert_eq!(shown(&others), shown(&database), "seed {seed}: an acknowledged document is lost");
        assert!(others.verify().expect("verify").is_sound(), "seed {seed}");
    }
    assert!(
        found_unsynced > SEEDS / 2,
        "in {found_unsynced} cases of {SEEDS} something was not on stable storage"
    );
}

/// The handle may fail meanwhile, since another thread syncs too.
fn save_some_or_fail(collection: &Collection, random: &mut fastrand::Rng) {
    for n in 0..random.usize(1..60) {
        if collection
            .put(&format!("unsynced-{n}"), &json!({"text": "x".repeat(random.usize(0..400))}))
            .is_err()
        {
            return;
        }
    }
}

/// A commit whose sync fails is not acknowledged, and nothing after it: the kernel calls the pages written, so a sync that
/// works again says nothing of them.
#[test]
fn nothing_is_acknowledged_after_a_sync_that_failed() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    collection.put("before", &json!({})).expect("saved");
    let before = shown(&database);
    database.store.fail_syncs(1);
    let failed = collection.put("a", &json!({}));
    assert!(matches!(&failed, Err(DatabaseError::Io { action: "sync", .. })), "{failed:?}");
    // Syncs work again from here.
    let refused = |result: Result<(), DatabaseError>| {
        assert!(matches!(&result, Err(DatabaseError::Failed { .. })), "{result:?}");
    };
    refused(collection.put("b", &json!({})).map(drop));
    refused(collection.delete("before").map(drop));
    refused(database.sync());
    refused(database.compact().map(drop));
    refused(database.create_collection("new").map(drop));
    assert!(database.make_durable().is_err());
    assert!(
        database.set_checkpoint(CollectionId(0), "peer", None, bytes::Bytes::from_static(b"{}")).is_err()
    );
    // The feed has not moved, as far as it can be read at all.
    assert_eq!(database.last_sequence(CollectionId(0)), before.len() as u64);
    let closed = database.close();
    assert!(matches!(&closed, Err(DatabaseError::Failed { .. })), "{closed:?}");
    drop((collection, database));
    assert!(!fixture.directory.path().join("db/log-000001/seal").exists(), "sealed, as if all were well");
    let collection = fixture.open().default_collection().expect("default");
    assert!(collection.get("before").expect("readable").is_some());
}

/// Writers that wait for one sync fail together.
#[test]
fn who_waits_for_a_sync_that_fails_is_not_acknowledged() {
    const WRITERS: usize = 8;
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    database.store.fail_syncs(1);
    let acknowledged = std::thread::scope(|scope| {
        let save = |n: usize| {
            let collection = &collection;
            move || collection.put(&format!("d{n}"), &json!({})).is_ok()
        };
        let writers: Vec<_> = (0..WRITERS).map(|n| scope.spawn(save(n))).collect();
        writers.into_iter().map(|writer| writer.join().expect("no panic")).filter(|ok| *ok).count()
    });
    assert_eq!(
        acknowledged, 0,
        "the first sync failed, so none can have been acknowledged before or after it"
    );
}

/// The last sync of an orderly end: what was left to be synced is not on stable storage, and whoever closes is told.
#[test]
fn a_last_sync_that_fails_is_told() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    collection.put("a", &json!({})).expect("saved");
    database.store.fail_syncs(1);
    let closed = database.close();
    assert!(matches!(&closed, Err(DatabaseError::Io { action: "sync", .. })), "{closed:?}");
    drop((collection, database));
    let database = fixture.open();
    assert_eq!(shown(&database).len(), 1);
    database.close().expect("all is well again");
    database.close().expect("closed is closed");
}
