//! Databases with revision trees: the choice stays, and edits, deletions and what peers send make the line that they should.

use bytes::Bytes;
use serde_json::json;

use super::Fixture;
use crate::database::{Collection, Database, DatabaseConfig, DatabaseError, Versioning};
use crate::replica::revision::{TREE_IDS_MAX, TreeId, VersionVector};
use crate::replica::store::{
    Change, CollectionId, CommitOutcome, ConflictPolicy, IncomingRevision, Rejection, ReplicaStore,
};

const DEFAULT: CollectionId = CollectionId(0);

fn config(versioning: Versioning) -> DatabaseConfig {
    DatabaseConfig { versioning: Some(versioning), ..DatabaseConfig::default() }
}

fn open(fixture: &Fixture) -> (Database, Collection) {
    let database = fixture.try_open(config(Versioning::RevisionTrees)).expect("made");
    let collection = database.default_collection().expect("open");
    (database, collection)
}

fn newest(database: &Database, id: &str) -> Change {
    ReplicaStore::document(database, DEFAULT, id).expect("read").expect("there")
}

fn generations(change: &Change) -> Vec<u32> {
    change.vector.line().iter().map(TreeId::generation).collect()
}

/// A revision of a peer with these tree IDs.
fn incoming(ids: &[TreeId], deleted: bool) -> IncomingRevision {
    let vector = VersionVector { trees: ids.to_vec(), ..VersionVector::at_tree(ids[0]) };
    let body = Bytes::from_static(if deleted { b"{}" } else { br#"{"by":"peer"}"# });
    IncomingRevision { collection: DEFAULT, id: "x".into(), vector, deleted, body }
}

fn take(database: &Database, revision: IncomingRevision) -> CommitOutcome {
    database.commit(&[revision], ConflictPolicy::Refuse).expect("committed").remove(0)
}

fn id(generation: u32, byte: u8) -> TreeId {
    TreeId::new(generation, &[byte; 20]).expect("an ID")
}

#[test]
fn edits_deletions_and_resurrections_go_up_by_one() {
    let fixture = Fixture::new();
    let (database, collection) = open(&fixture);
    collection.put("x", &json!({"n": 1})).expect("saved");
    collection.put("x", &json!({"n": 2})).expect("saved");
    assert!(collection.delete("x").expect("deleted"));
    assert_eq!(generations(&newest(&database, "x")), [3, 2, 1]);
    assert!(newest(&database, "x").deleted);
    collection.put("x", &json!({"n": 3})).expect("saved");
    assert_eq!(generations(&newest(&database, "x")), [4, 3, 2, 1]);
    for n in 0..100 {
        collection.put("x", &json!({"n": n})).expect("saved");
    }
    assert_eq!(generations(&newest(&database, "x")), (85..=104).rev().collect::<Vec<u32>>());
    assert_eq!(newest(&database, "x").vector.trees.len(), TREE_IDS_MAX);
    // The same edit on top of the same revision is the same revision, wherever it is made.
    let other = Fixture::new();
    let (second, its) = open(&other);
    its.put("x", &json!({"n": 1})).expect("saved");
    its.put("x", &json!({"n": 2})).expect("saved");
    collection.purge("x").expect("purged");
    collection.put("x", &json!({"n": 1})).expect("saved");
    collection.put("x", &json!({"n": 2})).expect("saved");
    assert_eq!(newest(&database, "x").vector, newest(&second, "x").vector);
}

/// What a peer had is named among the IDs, however many edits follow: of what came from it, and of what it was given.
#[test]
fn what_a_peer_had_stays_among_the_ids() {
    let fixture = Fixture::new();
    let (database, collection) = open(&fixture);
    assert!(matches!(
        take(&database, incoming(&[id(2, 7), id(1, 7)], false)),
        CommitOutcome::Inserted { .. }
    ));
    let ancestor = || newest(&database, "x").remote_ancestor.and_then(|known| known.tree());
    for n in 0..60 {
        collection.put("x", &json!({"n": n})).expect("saved");
    }
    assert_eq!(ancestor(), Some(id(2, 7)));
    assert!(newest(&database, "x").vector.trees.contains(&id(2, 7)));
    assert_eq!(newest(&database, "x").vector.line()[0].generation(), 62);
    let given = newest(&database, "x");
    database.mark_pushed(DEFAULT, given.sequence);
    collection.put("x", &json!({"n": "next"})).expect("saved");
    assert_eq!(ancestor(), given.vector.trees.first().copied());
}

#[test]
fn the_choice_stays_with_the_database_and_all_that_is_made_of_it() {
    let fixture = Fixture::new();
    let (database, collection) = open(&fixture);
    collection.put("x", &json!({"n": 1})).expect("saved");
    let vector = newest(&database, "x").vector;
    database.compact().expect("compacted");
    let mut backup = Vec::new();
    database.backup(&mut backup, |_, _| ()).expect("backed up");
    Database::check_backup(&mut &backup[..]).expect("whole");
    drop((database, collection));
    for versioning in [None, Some(Versioning::RevisionTrees)] {
        let config = DatabaseConfig { versioning, ..DatabaseConfig::default() };
        assert_eq!(fixture.try_open(config).expect("opened").versioning(), Versioning::RevisionTrees);
    }
    let refused = fixture.try_open(config(Versioning::VersionVectors)).expect_err("the other kind");
    assert!(matches!(refused, DatabaseError::OtherVersioning { .. }), "{refused}");
    assert!(refused.to_string().contains("has rev-trees, and not version-vectors"), "{refused}");
    let read_only = DatabaseConfig { read_only: true, ..config(Versioning::VersionVectors) };
    assert!(matches!(fixture.try_open(read_only), Err(DatabaseError::OtherVersioning { .. })));
    let place = |name: &str| fixture.directory.path().join(name);
    Database::restore(&mut &backup[..], place("restored"), |_| true, |_, _| ()).expect("restored");
    Database::repair(place("db"), place("repaired"), |_| ()).expect("repaired");
    Database::renew(place("db"), true, |_| ()).expect("renewed");
    for name in ["db", "restored", "repaired"] {
        let database = Database::open(place(name), DatabaseConfig::default()).expect("opened");
        assert_eq!(database.versioning(), Versioning::RevisionTrees, "{name}");
        assert_eq!(database.info().expect("info").versioning, Versioning::RevisionTrees, "{name}");
        assert_eq!(newest(&database, "x").vector, vector, "{name}");
        database.default_collection().expect("open").put("x", &json!({"n": 2})).expect("saved");
        assert_eq!(generations(&newest(&database, "x")), [2, 1], "{name}");
    }
    // The default is the other kind.
    let vectors = Database::open(place("new"), DatabaseConfig::default()).expect("made");
    assert_eq!(vectors.versioning(), Versioning::VersionVectors);
}

#[test]
fn a_version_of_the_other_kind_is_refused() {
    let fixture = Fixture::new();
    let (database, _) = open(&fixture);
    let vector: VersionVector =
        "18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ; 1-66ff51e18aabc8f6".parse().expect("one");
    let revision = IncomingRevision { vector, ..incoming(&[id(1, 1)], false) };
    let outcome = take(&database, revision);
    assert!(matches!(outcome, CommitOutcome::Rejected(Rejection::BadRevision(_))), "{outcome:?}");
}

/// Of the highest generation nothing can follow: an edit says so, and the document stays.
#[test]
fn a_peer_that_gives_the_highest_generation_ends_the_edits_of_that_document() {
    let fixture = Fixture::new();
    let (database, collection) = open(&fixture);
    let highest = [id((1 << 20) - 1, 3)];
    assert!(matches!(take(&database, incoming(&highest, false)), CommitOutcome::Inserted { .. }));
    let refused = collection.put("x", &json!({})).expect_err("no more");
    assert!(matches!(refused, DatabaseError::Unsupported { .. }), "{refused}");
    assert!(collection.delete("x").is_err());
    assert_eq!(newest(&database, "x").vector.trees, highest);
    collection.put("y", &json!({})).expect("others are as they were");
    assert!(collection.purge("x").expect("purged"));
}
