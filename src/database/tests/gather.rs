//! Commits that wait for others and share a sync: none is acknowledged before stable storage has it.
//!
//! The delay is an hour where a test wants nobody to go on by himself, so that nothing depends on how fast a machine is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::crash::{remove_what_is_newer, torn};
use super::{Fixture, contents};
use crate::database::edit::{Edit, EditKind, Expects};
use crate::database::{Database, DatabaseConfig, DatabaseError};
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::{CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};

const HOUR: Duration = Duration::from_secs(3_600);

fn gathering(delay: Duration) -> DatabaseConfig {
    DatabaseConfig { commit_delay: delay, ..DatabaseConfig::default() }
}

/// A document from a peer.
fn incoming(id: &str) -> IncomingRevision {
    let source = SourceId([7; 16]);
    IncomingRevision {
        collection: CollectionId(0),
        id: id.into(),
        vector: VersionVector::new(Version { time: 1 << 60, source }),
        deleted: false,
        body: Bytes::from_static(b"{\"by\":\"a peer\"}"),
    }
}

/// Starts a thread that stores a document, of this device or, every second one, of a peer.
fn store_one(database: &Database, number: usize) -> JoinHandle<Result<(), DatabaseError>> {
    let database = database.clone();
    std::thread::spawn(move || {
        let id = format!("document-{number:03}");
        if number.is_multiple_of(2) {
            let collection = database.default_collection().expect("default");
            return collection.put(&id, &json!({"by": "this device"})).map(drop);
        }
        let outcomes = database.commit(&[incoming(&id)], ConflictPolicy::Refuse);
        assert_eq!(outcomes.expect("taken").len(), 1);
        Ok(())
    })
}

/// Waits until so many wait for others.
fn wait_for(database: &Database, count: usize) {
    while database.store.gathered() < count {
        std::thread::yield_now();
    }
}

#[test]
fn commits_that_wait_share_one_sync_and_are_acknowledged_by_it() {
    const DOCUMENTS: usize = 8;
    let alone = Fixture::new();
    let one_by_one = alone.open();
    let before = one_by_one.store.counts().syncs;
    for number in 0..DOCUMENTS {
        store_one(&one_by_one, number).join().expect("no panic").expect("stored");
    }
    let without = one_by_one.store.counts().syncs - before;
    assert!(without >= DOCUMENTS as u64, "{without} syncs without the delay");

    let fixture = Fixture::new();
    let database = fixture.try_open(gathering(HOUR)).expect("open");
    database.sync().expect("nothing is left of the beginning");
    let log = fixture.directory.path().join("db/log-000001/db");
    let held = Arc::new(Mutex::new(std::fs::read(&log).expect("the log")));
    let (image, path) = (Arc::clone(&held), log.clone());
    database
        .store
        .observe_syncs(move || *image.lock().expect("lock") = std::fs::read(&path).expect("the log"));
    let before = database.store.counts();
    let storing: Vec<_> = (0..DOCUMENTS).map(|number| store_one(&database, number)).collect();
    wait_for(&database, DOCUMENTS);
    assert_eq!(database.store.counts().commits, before.commits + DOCUMENTS as u64);
    assert!(storing.iter().all(|storing| !storing.is_finished()), "acknowledged before a sync");
    assert_eq!(database.last_sequence(CollectionId(0)), 0, "no peer is shown what a power cut can take back");
    database.sync().expect("synced");
    storing.into_iter().for_each(|storing| storing.join().expect("no panic").expect("acknowledged"));
    assert_eq!(database.store.counts().syncs, before.syncs + 1, "one for all");
    assert_eq!(database.last_sequence(CollectionId(0)), DOCUMENTS as u64);
    assert!(database.store.counts().log_bytes > before.log_bytes);
    drop(database);

    // The power fails right after that sync.
    std::fs::write(&log, &*held.lock().expect("lock")).expect("written");
    remove_what_is_newer(log.parent().expect("a directory"));
    let database = fixture.open();
    assert_eq!(contents(&database.default_collection().expect("default")).len(), DOCUMENTS);
}

#[test]
fn who_waits_goes_on_when_the_time_is_over_or_too_many_wait_or_the_end_comes() {
    let fixture = Fixture::new();
    let database = fixture.try_open(gathering(Duration::from_millis(20))).expect("open");
    store_one(&database, 0).join().expect("no panic").expect("by itself");
    drop(database);

    let database = fixture.try_open(gathering(HOUR)).expect("open");
    let many: Vec<_> = (1..=65).map(|number| store_one(&database, number)).collect();
    many.into_iter().for_each(|storing| storing.join().expect("no panic").expect("the last one leads"));
    let waiting = store_one(&database, 100);
    wait_for(&database, 1);
    database.store.gather(false);
    waiting.join().expect("no panic").expect("hurried");
    store_one(&database, 101).join().expect("no panic").expect("at once from then on");
    database.store.gather(true);
    let waiting = store_one(&database, 102);
    wait_for(&database, 1);
    database.compact().expect("compacted");
    waiting.join().expect("no panic").expect("a compaction has synced it");
    let before = database.store.counts();
    assert!(before.syncs > 0 && before.log_bytes > 0, "of the log before too: {before:?}");
    let waiting = store_one(&database, 103);
    wait_for(&database, 1);
    database.clone().close().expect("closed");
    waiting.join().expect("no panic").expect("the end has synced it");
    drop(database);
    assert_eq!(contents(&fixture.open().default_collection().expect("default")).len(), 1 + 65 + 4);
}

/// A large commit is synced before it is whole, and what waits is on stable storage from then on: a transfer is not slowed down to one
/// commit in the delay.
#[test]
fn what_waits_is_acknowledged_by_a_sync_in_passing() {
    let fixture = Fixture::new();
    let database = fixture.try_open(gathering(HOUR)).expect("open");
    let collection = database.default_collection().expect("default");
    let waiting = store_one(&database, 0);
    wait_for(&database, 1);
    let mut random = fastrand::Rng::with_seed(1);
    let text: String = (0..1_000_000).map(|_| random.alphanumeric()).collect();
    let body = json!({"text": text});
    let packed =
        crate::database::edit::pack_body(&database.store, "large", body.as_object().expect("an object"));
    let edit = Edit {
        collection: collection.key().expect("there"),
        id: "large".to_owned(),
        kind: EditKind::Save(packed.expect("packed")),
        expects: Expects::Anything,
    };
    let mut writer = database.store.writer();
    edit.stage(&database.store, &mut writer).expect("staged");
    let ticket = writer.commit().expect("committed");
    waiting.join().expect("no panic").expect("acknowledged");
    assert_eq!(database.last_sequence(CollectionId(0)), 1, "shown to peers, and the large one is not yet");
    database.store.sync(ticket).expect("synced");
    assert_eq!(database.last_sequence(CollectionId(0)), 2);
}

/// Several write and wait for each other until the power fails; of what was written since the last sync any page may be old or new.
#[test]
fn what_was_acknowledged_together_survives_power_cuts() {
    const WRITERS: usize = 4;
    let cuts =
        std::env::var("GATTWAY_TEST_POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(8u64);
    let (all_commits, all_syncs) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for seed in 1..=cuts {
        let mut random = fastrand::Rng::with_seed(seed);
        let fixture = Fixture::new();
        let log = fixture.directory.path().join("db/log-000001");
        let database = fixture.try_open(gathering(Duration::from_millis(random.u64(1..5)))).expect("open");
        let synced = Arc::new(Mutex::new(std::fs::read(log.join("db")).expect("the log")));
        let (image, path) = (Arc::clone(&synced), log.join("db"));
        database
            .store
            .observe_syncs(move || *image.lock().expect("lock") = std::fs::read(&path).expect("the log"));
        let before = database.store.counts();
        let (acknowledged, told) = mpsc::channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (database, acknowledged) = (database.clone(), acknowledged.clone());
                let mut random = random.fork();
                std::thread::spawn(move || {
                    let collection = database.default_collection().expect("default");
                    for number in 0.. {
                        let id = format!("document-{writer}-{}", random.u8(0..20));
                        let text = "x".repeat(random.usize(0..300));
                        collection.put(&id, &json!({"number": number, "text": text})).expect("stored");
                        if acknowledged.send((id, number)).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        drop(acknowledged);
        let wanted = random.usize(20..150);
        let expected: Vec<(String, u64)> = told.iter().take(wanted).collect();
        // What stable storage has, and then what is on its way.
        let held = synced.lock().expect("lock").clone();
        let later = std::fs::read(log.join("db")).expect("the log");
        drop(told);
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        let counts = database.store.counts();
        all_commits.fetch_add((counts.commits - before.commits) as usize, Ordering::Relaxed);
        all_syncs.fetch_add((counts.syncs - before.syncs) as usize, Ordering::Relaxed);
        drop(database);
        std::fs::write(log.join("db"), torn(held, &later, &mut random)).expect("write the torn log");
        remove_what_is_newer(&log);
        let database = fixture.open();
        let collection = database.default_collection().expect("default");
        for (id, number) in expected {
            let found = collection.get(&id).expect("readable");
            let found = found.unwrap_or_else(|| panic!("seed {seed}: {id} is lost"));
            assert!(found.body()["number"].as_u64() >= Some(number), "seed {seed}: {id} is old");
        }
        assert!(database.verify().expect("verify").is_sound(), "seed {seed}");
    }
    let (commits, syncs) = (all_commits.into_inner(), all_syncs.into_inner());
    println!("{commits} commits, {syncs} syncs");
}
