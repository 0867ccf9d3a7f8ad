//! Two devices with one source ID, and a clock that was wrong by years: both are noticed, nothing is replaced without a word,
//! and a new source ID is the way out.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Fixture, replica::take_from_a_peer};
use crate::database::clock::{AHEAD_MAX, wall_now};
use crate::database::{Database, DatabaseConfig, DatabaseError};
use crate::replica::revision::{Causality, SourceId, Version, VersionVector};
use crate::replica::store::{
    Change, CollectionId, CommitOutcome, Conflict, ConflictPolicy, ConflictResolver, IncomingRevision,
    ReplicaStore, Resolution,
};

const DEFAULT: CollectionId = CollectionId(0);

/// Joins the fields of both.
struct Join;

impl ConflictResolver for Join {
    fn resolve(&self, conflict: &Conflict<'_>) -> Result<Resolution, String> {
        let fields = |body: Option<&Map<String, Value>>| body.cloned().unwrap_or_default();
        let mut joined = fields(conflict.local_body);
        joined.extend(fields(conflict.remote_body));
        Ok(Resolution::Merge(joined))
    }
}

struct Keep;

impl ConflictResolver for Keep {
    fn resolve(&self, _: &Conflict<'_>) -> Result<Resolution, String> {
        Ok(Resolution::Local)
    }
}

fn open(path: &Path) -> Database {
    Database::open(path, DatabaseConfig::default()).expect("open")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the directory");
    for entry in std::fs::read_dir(from).expect("the directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copy");
        }
    }
}

fn get(database: &Database, id: &str) -> Change {
    database.document(DEFAULT, id).expect("read").expect("there")
}

/// What a replication brings of a document from one to the other.
fn bring(from: &Database, to: &Database, id: &str, policy: ConflictPolicy<'_>) -> CommitOutcome {
    let Change { vector, deleted, body, .. } = get(from, id);
    let body = body.unwrap_or_else(|| Bytes::from_static(b"{}"));
    let revision = IncomingRevision { collection: DEFAULT, id: id.into(), vector, deleted, body };
    to.commit(&[revision], policy).expect("commit").remove(0)
}

fn put(database: &Database, id: &str, body: Value) {
    database.default_collection().expect("default").put(id, &body).expect("put");
}

fn body(database: &Database, id: &str) -> Value {
    serde_json::from_slice(&get(database, id).body.expect("a body")).expect("JSON")
}

/// A database and a copy of it, with a document that both have edited since, the copy later.
fn copies(fixture: &Fixture) -> (Database, Database) {
    let (first, second) = (fixture.directory.path().join("db"), fixture.directory.path().join("copy"));
    let database = open(&first);
    put(&database, "x", json!({"old": 1}));
    put(&database, "y", json!({"old": 1}));
    drop(database);
    copy(&first, &second);
    let (first, second) = (open(&first), open(&second));
    assert_eq!(first.source(), second.source());
    put(&first, "x", json!({"first": 1}));
    put(&second, "x", json!({"second": 1}));
    (first, second)
}

fn authors_once(change: &Change) {
    let mut authors: Vec<_> = change.vector.versions().map(|version| version.source).collect();
    authors.sort_unstable();
    authors.dedup();
    assert_eq!(authors.len(), change.vector.versions().count(), "{}", change.vector);
}

#[test]
fn an_edit_of_a_copy_is_a_conflict_where_conflicts_are_resolved() {
    for (resolver, expected) in
        [(&Join as &dyn ConflictResolver, json!({"first": 1, "second": 1})), (&Keep, json!({"first": 1}))]
    {
        let fixture = Fixture::new();
        let (first, second) = copies(&fixture);
        let theirs = get(&second, "x").vector;
        let outcome = bring(&second, &first, "x", ConflictPolicy::Resolve(resolver));
        assert!(matches!(outcome, CommitOutcome::Resolved { push: true, .. }), "{outcome:?}");
        assert_eq!(body(&first, "x"), expected);
        let resolved = get(&first, "x");
        assert_eq!(resolved.vector.compare(&theirs), Causality::Newer);
        authors_once(&resolved);
        let twin = first.twin().expect("noticed");
        assert_eq!((twin.id.as_str(), twin.version), ("x", theirs.current));
        // At the other end as well, as soon as it hears of this one. It is remembered.
        assert_eq!(second.twin(), None);
        bring(&first, &second, "x", ConflictPolicy::Resolve(resolver));
        assert!(second.twin().is_some());
        drop(second);
        let second = open(&fixture.directory.path().join("copy"));
        assert!(second.twin().is_some());
        let _ = second.compact().expect("compact");
        drop(second);
        assert!(open(&fixture.directory.path().join("copy")).twin().is_some());
    }
}

/// Where conflicts are only refused, a refusal would last for ever: the later edit stays, as by default, and it is told.
#[test]
fn an_edit_of_a_copy_is_noticed_by_the_passive_side() {
    let fixture = Fixture::new();
    let (first, second) = copies(&fixture);
    let outcome = bring(&second, &first, "x", ConflictPolicy::Refuse);
    assert!(matches!(outcome, CommitOutcome::Inserted { .. }), "{outcome:?}");
    assert!(first.twin().is_some());
    // So is a document that only the copy has made since.
    let fixture = Fixture::new();
    let (first, second) = copies(&fixture);
    put(&second, "new", json!({}));
    bring(&second, &first, "new", ConflictPolicy::Refuse);
    assert_eq!(first.twin().expect("noticed").id, "new");
}

/// What comes back to its author is no copy's: after a purge, an edit by others, a restore, in a collection made anew.
#[test]
fn what_comes_back_is_no_sign_of_a_copy() {
    let fixture = Fixture::new();
    let (database, peer) = (fixture.open(), open(&fixture.directory.path().join("peer")));
    let collection = database.default_collection().expect("default");
    for round in 0..3 {
        put(&database, "x", json!({"round": round}));
        bring(&database, &peer, "x", ConflictPolicy::Refuse);
        put(&peer, "x", json!({"peer": round}));
        bring(&peer, &database, "x", ConflictPolicy::Resolve(&Join));
        bring(&peer, &database, "x", ConflictPolicy::Refuse);
        collection.purge("x").expect("purge");
        bring(&peer, &database, "x", ConflictPolicy::Resolve(&Join));
        collection.purge("x").expect("purge");
        put(&database, "x", json!({"anew": round}));
        bring(&peer, &database, "x", ConflictPolicy::Resolve(&Join));
        bring(&database, &peer, "x", ConflictPolicy::Resolve(&Join));
    }
    let mut backup = Vec::new();
    database.backup(&mut backup, |_, _| ()).expect("backup");
    put(&database, "x", json!({"later": 1}));
    let restored = fixture.directory.path().join("restored");
    Database::restore(&mut backup.as_slice(), &restored, |_| true, |_, _| ()).expect("restore");
    let restored = open(&restored);
    put(&restored, "x", json!({"restored": 1}));
    bring(&database, &restored, "x", ConflictPolicy::Resolve(&Join));
    bring(&restored, &database, "x", ConflictPolicy::Resolve(&Join));
    for database in [&database, &peer, &restored] {
        assert_eq!(database.twin(), None);
    }
}

#[test]
fn a_new_source_id_makes_another_one_of_a_copy() {
    let fixture = Fixture::new();
    let (first, second) = copies(&fixture);
    // The first edit of `y` reached a peer before it was copied; this one of the first device did not.
    first.mark_pushed(DEFAULT, 2);
    put(&first, "y", json!({"first": 1}));
    put(&second, "only", json!({"second": 1}));
    let (path, old) = (first.path().to_owned(), first.source());
    assert!(matches!(
        Database::renew(&path, true, |_| ()),
        Err(crate::database::DatabaseError::InUse { .. })
    ));
    drop(first);
    let report = Database::renew(&path, true, |_| ()).expect("renew");
    assert_eq!((report.former, report.taken_over, report.brought_back), (old, 2, 0));
    let first = open(&path);
    assert!(first.source() == report.source && first.source() != old && first.twin().is_none());
    assert_eq!(body(&first, "x"), json!({"first": 1}));
    // The edits of the two conflict now, whichever came first, and in both directions.
    for (from, to) in [(&first, &second), (&second, &first)] {
        assert_eq!(get(from, "x").vector.compare(&get(to, "x").vector), Causality::Conflict);
    }
    // What a peer had is known to be an ancestor.
    assert_eq!(get(&first, "y").vector.compare(&get(&second, "y").vector), Causality::Newer);
    let outcome = bring(&second, &first, "x", ConflictPolicy::Resolve(&Join));
    assert!(matches!(outcome, CommitOutcome::Resolved { .. }), "{outcome:?}");
    assert!(matches!(bring(&first, &second, "x", ConflictPolicy::Refuse), CommitOutcome::Inserted { .. }));
    assert_eq!(body(&second, "x"), json!({"first": 1, "second": 1}));
    bring(&second, &first, "only", ConflictPolicy::Refuse);
    put(&first, "x", json!({"more": 1}));
    bring(&first, &second, "x", ConflictPolicy::Refuse);
    put(&second, "x", json!({"even": "more"}));
    bring(&second, &first, "x", ConflictPolicy::Refuse);
    assert_eq!(body(&first, "x"), json!({"even": "more"}));
    assert!(first.twin().is_none() && second.twin().is_none());
    assert!(first.verify().expect("verify").is_sound());
}

/// An edit that is taken over descends from what peers wrote, and from nothing that the copy may have replaced.
#[test]
fn what_is_taken_over_keeps_what_others_wrote() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let (now, former) = (wall_now(), database.source());
    let version = |author: u8| Version { time: now - u64::from(author), source: SourceId([author; 16]) };
    let theirs = VersionVector::new(version(1)).edited(version(2)).edited(version(3));
    let body = Bytes::from_static(b"{}");
    let id = "x".to_owned();
    let revision = IncomingRevision { collection: DEFAULT, id, vector: theirs.clone(), deleted: false, body };
    database.commit(&[revision], ConflictPolicy::Refuse).expect("commit");
    put(&database, "x", json!({"ours": 1}));
    assert!(get(&database, "x").vector.time_of(former).is_some());
    let path = database.path().to_owned();
    drop(database);
    let report = Database::renew(&path, true, |_| ()).expect("renew");
    assert_eq!(report.taken_over, 1);
    let found = get(&open(&path), "x").vector;
    let mut authors: Vec<_> = found.versions().map(|version| version.source).collect();
    authors.sort_unstable();
    let mut expected: Vec<_> = theirs.versions().map(|version| version.source).collect();
    expected.push(report.source);
    expected.sort_unstable();
    assert_eq!(authors, expected, "{found}");
    assert_eq!(found.compare(&theirs), Causality::Newer);
}

#[test]
fn documents_from_2039_are_brought_back() {
    let fixture = Fixture::new();
    let (database, peer) = (fixture.open(), open(&fixture.directory.path().join("peer")));
    let in_2039 = wall_now() + 13 * 365 * AHEAD_MAX;
    for id in ["theirs", "edited", "purged", "deleted"] {
        take_from_a_peer(&database, id, in_2039);
    }
    let collection = database.default_collection().expect("default");
    for id in ["edited", "purged"] {
        put(&database, id, json!({"by": "us"}));
        assert!(
            get(&database, id).vector.current.time > in_2039,
            "or it would lose against what it replaces"
        );
    }
    collection.delete("deleted").expect("delete");
    bring(&database, &peer, "edited", ConflictPolicy::Refuse);
    bring(&database, &peer, "purged", ConflictPolicy::Refuse);
    // Other documents are of today, and one that is purged and made anew is newer than what peers have.
    put(&database, "other", json!({}));
    assert!(get(&database, "other").vector.current.time <= wall_now() && database.clock_ahead().is_zero());
    collection.purge("purged").expect("purge");
    drop((collection, database));
    let database = fixture.open();
    put(&database, "purged", json!({"anew": 1}));
    assert_eq!(get(&database, "purged").vector.compare(&get(&peer, "purged").vector), Causality::Newer);
    assert_eq!(database.count_ahead().expect("count"), 4);
    let path = database.path().to_owned();
    drop(database);
    let report = Database::renew(&path, false, |_| ()).expect("renew");
    assert_eq!((report.brought_back, report.taken_over), (4, 0));
    let database = fixture.open();
    assert_eq!(database.count_ahead().expect("count"), 0);
    assert_eq!(
        (body(&database, "edited"), body(&database, "theirs")),
        (json!({"by": "us"}), json!({"by": "a peer"}))
    );
    // It replaces what peers have, and so does the next edit, which is of today too.
    for round in 0..2 {
        let Version { time, source } = get(&database, "edited").vector.current;
        assert!(time <= wall_now() && source == report.source, "round {round}");
        assert!(matches!(
            bring(&database, &peer, "edited", ConflictPolicy::Refuse),
            CommitOutcome::Inserted { .. }
        ));
        put(&database, "edited", json!({"round": round}));
    }
    assert_eq!(database.default_collection().expect("default").get("deleted").expect("read"), None);
    assert!(database.twin().is_none());
}

#[cfg(feature = "simulation")]
#[test]
fn a_wall_clock_in_2039_is_forgotten() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::database::SimulatedDisk;

    let today = 1_795_000_000_000_000_000;
    let in_2039 = today + 13 * 365 * AHEAD_MAX;
    let wall = Arc::new(AtomicU64::new(today));
    let now = Arc::clone(&wall);
    let disk = SimulatedDisk::new(1, SourceId([7; 16]), move || now.load(Ordering::Relaxed));
    let open = || Database::open_simulated(&disk, DatabaseConfig::default()).expect("open");
    let time = |database: &Database, id: &str| get(database, id).vector.current.time;
    let database = open();
    put(&database, "before", json!({}));
    wall.store(in_2039, Ordering::Relaxed);
    ["edited", "purged"].into_iter().for_each(|id| put(&database, id, json!({})));
    assert!(time(&database, "edited") > in_2039 - AHEAD_MAX);
    wall.store(today + 1_000_000, Ordering::Relaxed);
    let first = time(&database, "edited");
    put(&database, "edited", json!({"again": 1}));
    assert!(time(&database, "edited") > first, "an edit is above what it replaces");
    put(&database, "after", json!({}));
    assert!(time(&database, "after") <= today + 1_000_000 && database.clock_ahead().is_zero());
    let purged = time(&database, "purged");
    database.default_collection().expect("default").purge("purged").expect("purge");
    drop(database);
    let database = open();
    put(&database, "purged", json!({}));
    assert!(time(&database, "purged") > purged);
    put(&database, "more", json!({}));
    assert!(time(&database, "more") <= today + 1_000_010);
    // Its own versions from then, coming back, are no sign of a copy.
    let change = get(&database, "edited");
    database.default_collection().expect("default").purge("edited").expect("purge");
    let revision = IncomingRevision {
        collection: DEFAULT,
        id: change.id,
        vector: change.vector,
        deleted: false,
        body: change.body.unwrap_or_default(),
    };
    let outcome = database.commit(&[revision], ConflictPolicy::Refuse).expect("commit").remove(0);
    assert!(matches!(outcome, CommitOutcome::AlreadyKnown { .. }), "{outcome:?}");
    assert_eq!(database.twin(), None);
}

/// There has to be one: none is made.
#[test]
fn nothing_is_made_by_a_renewal() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let nothing = place.path().join("nothing");
    assert!(matches!(Database::renew(&nothing, false, |_| ()), Err(DatabaseError::NotADatabase { .. })));
    assert!(!nothing.exists());
}
