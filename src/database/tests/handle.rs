//! What a directory says before it is opened, and what a handle says of its database.

use bytes::Bytes;
use serde_json::json;

use super::Fixture;
use super::replica::{by_a_peer, take_from_a_peer};
use crate::database::clock::{AHEAD_MAX, wall_now};
use crate::database::{Database, DatabaseConfig, DatabaseError};
use crate::replica::store::{CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};

fn files(fixture: &Fixture) -> Vec<String> {
    let entries = std::fs::read_dir(fixture.directory.path().join("db")).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Only opening makes a database: who looks, checks or opens without the wish to create one leaves things as they are, also where
/// a first opening was interrupted after it had made the lock.
#[test]
fn nobody_but_who_asks_for_it_makes_a_database() {
    let fixture = Fixture::new();
    let path = fixture.directory.path().join("db");
    let refused = |case: &str| {
        let before = files(&fixture);
        let only_open = DatabaseConfig { create: false, ..DatabaseConfig::default() };
        let only_read = DatabaseConfig { read_only: true, ..DatabaseConfig::default() };
        for (way, found) in [
            ("open", fixture.try_open(only_open).map(drop)),
            ("open to read", fixture.try_open(only_read).map(drop)),
            ("check", Database::check(&path).map(drop)),
            ("examine", Database::examine(&path).map(drop)),
        ] {
            assert!(matches!(found, Err(DatabaseError::NotADatabase { .. })), "{case}: {way}: {found:?}");
            assert_eq!(files(&fixture), before, "{case}: {way}");
        }
    };
    refused("nothing");
    assert!(!path.exists() && !Database::exists(&path));
    std::fs::create_dir(&path).expect("a directory");
    refused("an empty directory");
    std::fs::write(path.join("lock"), "").expect("write");
    refused("a lock alone");
    assert!(fixture.open().is_new(), "it is made when it is asked for");
}

#[test]
fn a_handle_says_how_it_was_opened() {
    let fixture = Fixture::new();
    let path = fixture.directory.path().join("db");
    let database = fixture.open();
    assert!(database.is_new() && !database.is_read_only() && Database::exists(&path));
    assert!(Database::is_writable(&path));
    assert_eq!(database.path(), path);
    drop(database);
    let database = fixture.open();
    assert!(!database.is_new());
    database.default_collection().expect("default").put("a", &json!({"n": 1})).expect("put");
    database.close().expect("closed");
    drop(database);
    let bytes_of = |log: &str| std::fs::metadata(path.join(log)).expect("there").len();
    let before = (files(&fixture), bytes_of("log-000001/db"), bytes_of("log-000001/seal"));
    let config = DatabaseConfig { read_only: true, ..DatabaseConfig::default() };
    let frozen = fixture.try_open(config.clone()).expect("open to read");
    assert!(frozen.is_read_only() && !frozen.is_new());
    let collection = frozen.default_collection().expect("default");
    assert!(matches!(collection.put("b", &json!({})), Err(DatabaseError::ReadOnly { .. })));
    assert!(matches!(frozen.create_collection("c"), Err(DatabaseError::ReadOnly { .. })));
    assert!(matches!(frozen.compact(), Err(DatabaseError::ReadOnly { .. })));
    // Others may read too, and nobody may write.
    fixture.try_open(config).expect("open to read");
    assert!(matches!(fixture.try_open(DatabaseConfig::default()), Err(DatabaseError::InUse { .. })));
    assert_eq!(
        collection.get("a").expect("read").map(|document| document.body()["n"].clone()),
        Some(json!(1))
    );
    drop((collection, frozen));
    assert_eq!((files(&fixture), bytes_of("log-000001/db"), bytes_of("log-000001/seal")), before);
    // A file in the place of its log's directory: nothing can be written in it.
    std::fs::remove_dir_all(path.join("log-000001")).expect("removed");
    std::fs::write(path.join("log-000001"), "").expect("write");
    assert!(!Database::is_writable(&path));
}

/// Versions never go back: where the system's clock does, theirs is ahead of it, which is told.
#[cfg(feature = "simulation")]
#[test]
fn a_clock_that_was_set_back_is_told() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use crate::database::store::SimulatedDisk;
    use crate::replica::revision::SourceId;
    let wall = Arc::new(AtomicU64::new(wall_now()));
    let clock = Arc::clone(&wall);
    let disk = SimulatedDisk::new(1, SourceId([1; 16]), move || clock.load(Ordering::Relaxed));
    let database = Database::open_simulated(&disk, DatabaseConfig::default()).expect("open");
    let collection = database.default_collection().expect("default");
    assert_eq!((database.wall_ns(), database.clock_ahead()), (wall.load(Ordering::Relaxed), Duration::ZERO));
    collection.put("a", &json!({})).expect("put");
    assert_eq!(database.clock_ahead(), Duration::ZERO);
    const HOUR: Duration = Duration::from_secs(3600);
    wall.fetch_sub(HOUR.as_nanos() as u64, Ordering::Relaxed);
    // Times of versions are rounded.
    let ahead = database.clock_ahead();
    assert!(ahead <= HOUR && HOUR - ahead < Duration::from_millis(1), "{ahead:?}");
}

/// Versions of a time so far ahead that somebody's clock is wrong are counted.
#[test]
fn what_is_far_ahead_is_counted() {
    let fixture = Fixture::new();
    let database = fixture.open();
    assert!(database.wall_ns().abs_diff(wall_now()) < AHEAD_MAX);
    take_from_a_peer(&database, "near", wall_now() + AHEAD_MAX / 2);
    let collections = ["one", "two"].map(|name| database.create_collection(name).expect("create"));
    assert_eq!(database.versions_ahead(), 0);
    for n in 1..=3 {
        take_from_a_peer(&database, &format!("far-{n}"), wall_now() + 300 * AHEAD_MAX + n);
        assert_eq!(database.versions_ahead(), n);
        assert_eq!(database.count_ahead().expect("counted"), n);
    }
    // Another collection that goes takes nothing of it along.
    for collection in collections {
        database.delete_collection(collection.name()).expect("deleted");
        assert_eq!(database.count_ahead().expect("counted"), 3);
    }
    assert_eq!(database.info().expect("info").versions_ahead, 3);
    // And with its own, what was in it.
    let collection = database.create_collection("three").expect("create");
    let key = ReplicaStore::collection(&database, "three").expect("there");
    let revision = IncomingRevision { collection: key, ..by_a_peer("far", wall_now() + 300 * AHEAD_MAX) };
    database.commit(&[revision], ConflictPolicy::Refuse).expect("commit");
    assert_eq!(database.count_ahead().expect("counted"), 4);
    database.delete_collection(collection.name()).expect("deleted");
    assert_eq!(database.count_ahead().expect("counted"), 3);
}

/// What a batch and a deletion made is told with its sequence, and read with its body.
#[test]
fn what_was_made_is_told() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let before = database.counts();
    let told = database.batch_told(|batch| {
        batch.put(&collection, "a", &json!({"n": 1}))?;
        batch.delete(&collection, "nothing")?;
        batch.put(&collection, "b", &json!({"n": 2}))
    });
    let vector = |id: &str| database.revision(CollectionId(0), id).expect("read").expect("there").vector;
    let expected = vec![Some((vector("a"), 1)), None, Some((vector("b"), 2))];
    assert_eq!(told.expect("batch"), expected);
    let counts = database.counts();
    assert_eq!(counts.commits, before.commits + 1);
    assert!(counts.syncs > before.syncs && counts.log_bytes > before.log_bytes);
    let seen = collection.get("a").expect("read").expect("there");
    let buried = collection.bury(&seen).expect("deleted");
    assert_eq!(buried, Some((vector("a"), 3)));
    assert!(matches!(collection.bury(&seen), Err(DatabaseError::Conflict { .. })));
    let deleted = database.batch(|batch| batch.delete_document(&collection, &seen));
    assert!(matches!(deleted, Err(DatabaseError::Conflict { .. })), "{deleted:?}");
    let changes = collection.changes_with_bodies((1, 3), 9, usize::MAX).expect("read");
    let changes: Vec<_> =
        changes.iter().map(|(of, body)| (&*of.id, of.sequence, of.deleted, body.get("n"))).collect();
    assert_eq!(changes, [("b", 2, false, Some(&json!(2))), ("a", 3, true, None)]);
    assert_eq!(database.disk_bytes().expect("measured"), database.info().expect("measured").disk_bytes);
    assert!(database.wall().abs_diff(wall_now()) < AHEAD_MAX);
    let seen = collection.get("b").expect("read").expect("there");
    database.batch(|batch| batch.delete_document(&collection, &seen)).expect("deleted");
    assert_eq!(collection.count(), 0);
    // What the log before a compaction has done counts on.
    let before = database.counts();
    database.compact().expect("compact");
    let after = database.counts();
    assert!(
        after.syncs >= before.syncs && after.log_bytes >= before.log_bytes && after.commits >= before.commits
    );
}

/// An import asks which IDs there are, or were.
#[test]
fn ids_of_what_was_deleted_are_known_and_of_what_was_purged_are_not() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let ids: Vec<String> = (0..200).map(|n| format!("d{n:03}")).collect();
    database
        .batch(|batch| ids.iter().try_for_each(|id| batch.put(&collection, id, &json!({}))))
        .expect("put");
    collection.delete("d003").expect("delete");
    collection.purge("d004").expect("purge");
    let knows = |id: &str| collection.knows(id).expect("read");
    assert!(knows("d002") && knows("d003") && !knows("d004") && !knows("d") && !knows("d0030"));
    let expected: Vec<&str> = ids.iter().map(String::as_str).filter(|id| *id != "d004").collect();
    let all = |limit: usize| {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = collection.known_ids(&after, limit).expect("read");
            let Some(last) = page.last() else { return found };
            after = last.to_string();
            found.extend(page.iter().map(|id| id.to_string()));
        }
    };
    for limit in [1, 7, 1_000] {
        assert_eq!(all(limit), expected, "{limit}");
    }
}

/// A page of changes ends with the document that fills it, also in the middle of what is stored together.
#[test]
fn a_page_of_changes_ends_where_it_is_full() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let body = json!({"text": "x".repeat(100)});
    database
        .batch(|batch| (0..20).try_for_each(|n| batch.put(&collection, &format!("d{n:02}"), &body)))
        .expect("put");
    let key = collection.key().expect("there");
    let page = |since: u64, until: u64, limit: usize, bytes: usize| -> Vec<u64> {
        let found = database.store.changes_within(key, since, until, limit, bytes).expect("read");
        found.iter().map(|record| record.sequence).collect()
    };
    let all: Vec<u64> = (1..=20).collect();
    assert_eq!(page(0, u64::MAX, usize::MAX, usize::MAX), all);
    assert_eq!(page(3, 7, usize::MAX, usize::MAX), [4, 5, 6, 7]);
    assert_eq!(page(0, u64::MAX, 3, usize::MAX), [1, 2, 3]);
    assert_eq!(page(5, u64::MAX, usize::MAX, 1), [6]);
    assert_eq!(page(5, u64::MAX, usize::MAX, 150), [6, 7]);
    for (since, until, limit, bytes) in
        [(0, u64::MAX, 0, usize::MAX), (0, u64::MAX, usize::MAX, 0), (7, 7, 20, usize::MAX)]
    {
        assert!(page(since, until, limit, bytes).is_empty(), "{since} to {until}, {limit}, {bytes}");
    }
}

#[test]
fn where_no_room_must_be_left_commits_are_refused_and_the_handle_goes_on() {
    let fixture = Fixture::new();
    let config = DatabaseConfig { keep_free_bytes: u64::MAX, ..DatabaseConfig::default() };
    let database = fixture.try_open(config).expect("open");
    let collection = database.default_collection().expect("default");
    let refused = collection.put("a", &json!({}));
    assert!(matches!(refused, Err(DatabaseError::Full { .. })), "{refused:?}");
    let checkpoint = database.set_checkpoint(CollectionId(0), "client", None, Bytes::from_static(b"{}"));
    assert!(checkpoint.is_err_and(|error| error.recoverable), "it takes room as well");
    assert!(database.failure().is_none() && collection.get("a").expect("read").is_none());
    drop((collection, database));
    fixture.open().default_collection().expect("default").put("a", &json!({})).expect("room");
}

#[test]
fn who_may_try_again_is_told() {
    let full = DatabaseError::Full { detail: String::new() };
    let conflict = DatabaseError::Conflict { id: String::new() };
    let in_use = DatabaseError::InUse { path: "db".into() };
    let damaged = DatabaseError::Damaged { detail: String::new() };
    let gone = DatabaseError::NotFound { id: String::new() };
    let recoverable = [full, conflict, in_use, damaged, gone].map(|error| error.is_recoverable());
    assert_eq!(recoverable, [true, true, true, false, false]);
}
