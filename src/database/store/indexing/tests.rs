//! What becomes of indexes beside commits: other programs, damage, backup and repair.

#[cfg(feature = "simulation")]
mod work;

use serde_json::json;

use super::super::engine::{Watermarks, Writes};
use super::super::handle::Store;
use super::super::indexes::Life;
use super::super::keys::{self, CollectionKey};
use crate::database::tests::Fixture;
use crate::database::{Collection, Database, DatabaseError, Query, Test};

const DEFAULT: CollectionKey = CollectionKey(0);

fn put(collection: &Collection, from: u32, to: u32) {
    for n in from..to {
        let body = json!({"sensor": format!("s{}", n % 3), "n": n});
        collection.put(&format!("d{n:03}"), &body).expect("put");
    }
}

/// A database with an index of forty documents.
fn indexed(fixture: &Fixture) -> (Database, Collection) {
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    collection.create_index("by-n", ["sensor", "n"]).expect("created");
    put(&collection, 0, 40);
    collection.build_indexes().expect("built");
    (database, collection)
}

/// It is built, has what the documents are, and a query uses it.
fn assert_sound(database: &Database) {
    let collection = database.default_collection().expect("default");
    collection.build_indexes().expect("built");
    let listed = collection.indexes().expect("listed");
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(listed[0].is_ready && listed[0].entries == collection.count(), "{listed:?}");
    assert_eq!(
        (&*listed[0].name, &listed[0].paths[..]),
        ("by-n", &["sensor".to_owned(), "n".to_owned()][..])
    );
    let query = Query::new().filter(("sensor", Test::Equal("s1".into()))).sort("n", true);
    assert_eq!(collection.explain(&query).expect("explained")["order"], "as read");
    let found = collection.query(&query).expect("asked").map(|row| row.expect("a row")["n"].as_u64());
    let mut expected: Vec<_> = collection
        .iter()
        .map(|document| document.expect("a document").body().clone())
        .filter(|body| body["sensor"] == "s1")
        .map(|body| body["n"].as_u64())
        .collect();
    expected.sort_unstable();
    expected.reverse();
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let report = database.verify().expect("verified");
    assert!(report.is_sound(), "{report:?}");
}

fn apply(store: &Store, writes: Writes) {
    let ticket = store.engine().apply(writes, Watermarks::new()).expect("applied");
    store.sync(ticket).expect("synced");
}

/// An earlier release commits, and knows of no index.
#[test]
fn what_another_program_has_written_is_noticed_when_it_is_opened() {
    for change in ["put", "purge"] {
        let fixture = Fixture::new();
        let (database, collection) = indexed(&fixture);
        let (store, stamp) = (&database.store, keys::numbered(keys::STAMP, DEFAULT.0));
        let before = store.engine().get(&stamp).expect("readable").expect("a stamp").to_vec();
        let index = store.collection(DEFAULT).expect("default").indexes.named("by-n").expect("the index");
        index.set_life(Life::Leaving);
        if change == "put" {
            put(&collection, 39, 42);
        } else {
            assert!(collection.purge("d007").expect("purged"));
        }
        let mut writes = Writes::default();
        writes.insert(stamp, before);
        apply(store, writes);
        drop((index, collection, database));
        let database = fixture.open();
        assert_sound(&database);
        drop(database);
        // From now on it is as it was.
        let database = fixture.open();
        assert_eq!(database.store.failed_indexes(), 0, "{change}");
        assert_sound(&database);
    }
}

/// Makes what blocks hold unreadable.
pub(super) fn lose_records(database: &Database) {
    let store = &database.store;
    let mut writes = Writes::default();
    let noted = store.engine().scan(&keys::block(DEFAULT, 0)[..3], &keys::block_end(DEFAULT), |key, _| {
        writes.insert(key, [0xff, 0xff, 1]);
        Ok(std::ops::ControlFlow::Continue(()))
    });
    noted.expect("readable");
    assert!(!writes.entries.is_empty());
    apply(store, writes);
}

fn damage(database: &Database) {
    damage_of(database, "by-n");
}

fn damage_of(database: &Database, name: &str) {
    let store = &database.store;
    let index = store.collection(DEFAULT).expect("default").indexes.named(name).expect("the index");
    let mut writes = Writes::default();
    let (from, to) = (keys::entries(index.key, &[]), keys::entries_end(index.key));
    let noted = store.engine().scan(&from, &to, |key, _| {
        writes.insert(key, [0xff, 0xff, 1]);
        Ok(std::ops::ControlFlow::Continue(()))
    });
    noted.expect("readable");
    assert!(!writes.entries.is_empty());
    apply(store, writes);
}

#[test]
fn one_that_is_damaged_is_built_anew_and_keeps_no_commit() {
    let fixture = Fixture::new();
    let (database, collection) = indexed(&fixture);
    damage(&database);
    let report = database.verify().expect("verified");
    assert!(!report.is_sound() && report.listed.iter().any(|text| text.contains("by-n")), "{report:?}");
    put(&collection, 30, 50);
    assert_eq!(collection.count(), 50);
    assert_sound(&database);
    // Who reads it is told, and the next finds everything.
    damage(&database);
    let query = Query::new().filter(("sensor", Test::Equal("s1".into())));
    let refused = collection.query(&query).expect("asked").find_map(Result::err);
    assert!(matches!(refused, Some(DatabaseError::Damaged { .. })), "{refused:?}");
    assert_sound(&database);
    // Before it could be built the process ends.
    damage(&database);
    put(&collection, 0, 10);
    drop((collection, database));
    assert_sound(&fixture.open());
    // A compaction leaves nothing of the damage.
    let database = fixture.open();
    damage(&database);
    database.compact().expect("compacted");
    assert_sound(&database);
}

#[test]
fn backup_restore_and_repair_take_it_along() {
    let fixture = Fixture::new();
    let (database, collection) = indexed(&fixture);
    collection.create_index("gone", ["n"]).expect("created");
    assert!(collection.drop_index("gone").expect("dropped") && !collection.drop_index("gone").expect("none"));
    let mut backup = Vec::new();
    database.backup(&mut backup, |_, _| ()).expect("backed up");
    drop((collection, database));
    let place = |name: &str| fixture.directory.path().join(name);
    Database::restore(&mut &backup[..], place("restored"), |_| true, |_, _| ()).expect("restored");
    assert_sound(&Database::open(place("restored"), Default::default()).expect("open"));
    super::super::repair(&place("db"), &place("repaired"), &mut |_| ()).expect("repaired");
    assert_sound(&Database::open(place("repaired"), Default::default()).expect("open"));
}

#[test]
fn what_is_no_index_is_refused_and_the_same_one_is_none_twice() {
    let fixture = Fixture::new();
    let (database, collection) = indexed(&fixture);
    collection.create_index("by-n", ["sensor", "n"]).expect("the same");
    let other = collection.create_index("by-n", ["n", "sensor"]);
    assert!(matches!(other, Err(DatabaseError::IndexExists { .. })), "{other:?}");
    for (name, paths) in [
        ("", &["n"][..]),
        ("a b", &["n"]),
        ("x", &[]),
        ("x", &["_id"]),
        ("x", &["n", "n"]),
        ("x", &["n."]),
        ("x", &["a", "b", "c", "d", "e", "f", "g", "h", "i"]),
    ] {
        let refused = collection.create_index(name, paths.iter().copied());
        assert!(matches!(refused, Err(DatabaseError::BadIndex { .. })), "{name:?} {paths:?}: {refused:?}");
    }
    (1..16).for_each(|n| collection.create_index(&format!("i{n}"), [format!("p{n}")]).expect("room"));
    assert!(matches!(collection.create_index("more", ["m"]), Err(DatabaseError::BadIndex { .. })));
    // With the collection they go.
    let made = database.create_collection("made").expect("created");
    made.create_index("by-n", ["n"]).expect("created");
    made.put("a", &json!({"n": 1})).expect("put");
    made.build_indexes().expect("built");
    drop(made);
    database.delete_collection("made").expect("deleted");
    drop((collection, database));
    let database = fixture.open();
    assert!(database.create_collection("other").expect("created").indexes().expect("listed").is_empty());
}

/// The thread that does it, on a real disk: also what was begun before a restart.
#[test]
fn indexes_are_built_and_removed_without_anybody_asking() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    put(&collection, 0, 40);
    let wait_for = |database: &Database, is_so: &dyn Fn() -> bool| {
        let mut changed = database.watch();
        let waited = async {
            while !is_so() {
                // A commit is told of when it is synced, which may be a moment before it is known here.
                let tick = std::time::Duration::from_millis(20);
                if let Ok(told) = tokio::time::timeout(tick, changed.changed()).await {
                    told.expect("it is open");
                }
            }
        };
        let guarded = async { tokio::time::timeout(std::time::Duration::from_secs(60), waited).await };
        runtime.block_on(guarded).expect("it is done");
    };
    collection.create_index("n", ["n"]).expect("created");
    wait_for(&database, &|| collection.indexes().expect("listed")[0].is_ready);
    // Nobody works while this one is dropped, nor until the next has opened the database.
    database.store.indexer.end();
    assert!(collection.drop_index("n").expect("dropped"));
    drop((collection, database));
    let database = fixture.open();
    let state = database.store.collection(DEFAULT).expect("default");
    wait_for(&database, &|| state.indexes.is_empty());
}
