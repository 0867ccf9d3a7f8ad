//! Building and removing a piece at a time, what a restart finds of it, and reading meanwhile.

use serde_json::json;

use super::super::{Cursor, Ranges, Work};
use super::{DEFAULT, apply, damage_of, put};
use crate::database::store::engine::Writes;
use crate::database::store::keys;
use crate::database::value::encoded;
use crate::database::{Collection, Database, DatabaseConfig, SimulatedDisk};
use crate::replica::revision::SourceId;

/// A disk whose databases do nothing in the background: who tests calls for the work.
fn disk() -> SimulatedDisk {
    SimulatedDisk::new(1, SourceId([7; 16]), || 1_795_000_000_000_000_000)
}

fn open(disk: &SimulatedDisk) -> (Database, Collection) {
    let database = Database::open_simulated(disk, DatabaseConfig::default()).expect("open");
    let collection = database.default_collection().expect("default");
    (database, collection)
}

/// The pieces of work until there is nothing left.
fn pieces(database: &Database) -> usize {
    let more = || database.store.work_on_indexes().expect("worked") == Work::More;
    (0..).find(|_| !more()).expect("it ends")
}

fn has_work(database: &Database) -> bool {
    database.store.index_work.load(std::sync::atomic::Ordering::SeqCst)
}

fn entries(collection: &Collection) -> Vec<(String, u64)> {
    collection.indexes().expect("listed").into_iter().map(|index| (index.name, index.entries)).collect()
}

/// Whoever opens a database knows whether an index is still to be built, to be built anew, or to go.
#[test]
fn a_restart_goes_on_with_what_was_begun() {
    let disk = disk();
    let (database, collection) = open(&disk);
    put(&collection, 0, 40);
    assert!(!has_work(&database));
    let stamp = keys::numbered(keys::STAMP, DEFAULT.0);
    assert_eq!(database.store.engine().get(&stamp).expect("readable"), None, "there is no index to speak of");
    collection.create_index("by-n", ["n"]).expect("created");
    drop((collection, database));
    let (database, collection) = open(&disk);
    assert!(has_work(&database));
    assert!(!collection.indexes().expect("listed")[0].is_ready);
    assert_eq!(pieces(&database), 1);
    assert!(!has_work(&database));
    assert_eq!(entries(&collection), [("by-n".to_owned(), 40)]);
    drop((collection, database));
    let (database, collection) = open(&disk);
    assert!(!has_work(&database));
    assert!(collection.drop_index("by-n").expect("dropped"));
    drop((collection, database));
    let (database, collection) = open(&disk);
    assert!(has_work(&database));
    assert!(pieces(&database) > 0 && entries(&collection).is_empty());
}

/// Two have failed, and the process ends when the first was begun anew: nothing says of the other that it is kept.
#[test]
fn of_two_that_have_failed_none_is_forgotten() {
    let disk = disk();
    let (database, collection) = open(&disk);
    for name in ["n", "sensor"] {
        collection.create_index(name, [name]).expect("created");
    }
    put(&collection, 0, 40);
    pieces(&database);
    ["n", "sensor"].into_iter().for_each(|name| damage_of(&database, name));
    put(&collection, 0, 1);
    assert_eq!(database.store.failed_indexes(), 2);
    assert!(collection.indexes().expect("listed").iter().all(|index| !index.is_ready));
    assert_eq!(database.store.work_on_indexes().expect("worked"), Work::More);
    drop((collection, database));
    let (database, collection) = open(&disk);
    pieces(&database);
    assert_eq!(entries(&collection), [("n".to_owned(), 40), ("sensor".to_owned(), 40)]);
    assert!(database.verify().expect("verified").is_sound());
    drop((collection, database));
    assert_eq!(open(&disk).0.store.failed_indexes(), 0, "they are what they were");
}

/// One that has failed and is dropped then does not come back with the next commit.
#[test]
fn one_that_has_failed_can_be_dropped() {
    let (database, collection) = open(&disk());
    collection.create_index("n", ["n"]).expect("created");
    put(&collection, 0, 40);
    pieces(&database);
    damage_of(&database, "n");
    put(&collection, 0, 1);
    assert!(collection.drop_index("n").expect("dropped"));
    put(&collection, 0, 2);
    pieces(&database);
    assert!(entries(&collection).is_empty() && !has_work(&database));
}

/// An index that is read stays until it is no more, and goes in few commits, each of which is small.
#[test]
fn a_dropped_index_waits_for_its_readers_and_goes_in_pieces() {
    let (database, collection) = open(&disk());
    collection.create_index("a", ["a"]).expect("created");
    let saved = database.batch(|batch| {
        let body = |n: u32| json!({"a": format!("{n:04}{}", "x".repeat(150))});
        (0..1_800).try_for_each(|n| batch.put(&collection, &format!("d{n}"), &body(n)))
    });
    saved.expect("saved");
    pieces(&database);
    let uses = database.store.usable_indexes(DEFAULT).expect("there");
    let mut cursor =
        Cursor::new(uses.into_iter().next().expect("one"), Ranges::from([(vec![], None)]), false);
    assert!(collection.drop_index("a").expect("dropped"));
    assert_eq!(database.store.work_on_indexes().expect("worked"), Work::Waiting);
    assert!(has_work(&database), "it is looked at again");
    let mut count = 0;
    while cursor.next(&database.store).expect("readable").is_some() {
        count += 1;
    }
    assert_eq!(count, 1_800);
    drop(cursor);
    let removed = pieces(&database);
    assert!((3..6).contains(&removed), "{removed} pieces");
}

/// A cursor gives exactly what the ranges say, in order, in both directions, however they lie in pages.
#[test]
fn a_cursor_gives_what_is_in_its_ranges_and_nothing_twice() {
    let (database, collection) = open(&disk());
    collection.create_index("n", ["n"]).expect("created");
    put(&collection, 0, 400);
    pieces(&database);
    let key = |n: u32| encoded(&n.into());
    for bounds in [
        &[(3, Some(5)), (9, Some(11))][..],
        &[(0, Some(1)), (70, Some(140)), (141, Some(142)), (390, None)],
        &[(20, Some(20)), (399, Some(500))],
        &[(0, None)],
        &[(500, None)],
    ] {
        let ranges: Ranges = bounds.iter().map(|(from, to)| (key(*from), to.map(key))).collect();
        let mut expected: Vec<String> = (0..400)
            .filter(|n| bounds.iter().any(|(from, to)| from <= n && to.is_none_or(|to| *n < to)))
            .map(|n| format!("d{n:03}"))
            .collect();
        for is_backwards in [false, true] {
            let uses = database.store.usable_indexes(DEFAULT).expect("there");
            let index = uses.into_iter().next().expect("one");
            let mut cursor = Cursor::new(index, ranges.clone(), is_backwards);
            let next = || cursor.next(&database.store).expect("readable");
            let found: Vec<String> = std::iter::from_fn(next).map(|entry| entry.id().to_owned()).collect();
            assert_eq!(found, expected, "{bounds:?}, backwards {is_backwards}");
            expected.reverse();
        }
    }
}

/// Of an index no more is read than the ranges say: damage elsewhere is not met.
#[test]
fn a_cursor_reads_no_page_beyond_its_ranges() {
    let key = |n: u32| encoded(&n.into());
    for (is_backwards, from, to) in [(false, key(0), Some(key(50))), (true, key(350), None)] {
        let (database, collection) = open(&disk());
        collection.create_index("n", ["n"]).expect("created");
        put(&collection, 0, 400);
        pieces(&database);
        let index = database.store.usable_indexes(DEFAULT).expect("there").remove(0);
        let (first, last) = (keys::entries(index.key, &[]), keys::entries_end(index.key));
        let mut pages = vec![];
        let noted = database.store.engine().scan(&first, &last, |key, _| {
            pages.push(key.to_vec());
            Ok(std::ops::ControlFlow::Continue(()))
        });
        noted.expect("readable");
        let mut writes = Writes::default();
        writes.insert(if is_backwards { pages.remove(0) } else { pages.pop().expect("a page") }, [0xff; 3]);
        assert!(pages.len() > 3);
        apply(&database.store, writes);
        let mut cursor = Cursor::new(index, Ranges::from([(from, to)]), is_backwards);
        let found = std::iter::from_fn(|| cursor.next(&database.store).expect("readable"));
        assert_eq!(found.count(), 50, "backwards {is_backwards}");
    }
}

/// What has expired is found by nobody, also not by who has read its entry before it was removed.
#[test]
fn what_has_expired_is_not_found_because_it_is_removed() {
    for is_backwards in [false, true] {
        let (database, collection) = open(&disk());
        collection.create_index("n", ["n"]).expect("created");
        put(&collection, 0, 40);
        pieces(&database);
        for id in ["d005", "d030"] {
            collection.set_expiration(id, Some(std::time::SystemTime::UNIX_EPOCH)).expect("set");
        }
        let index = database.store.usable_indexes(DEFAULT).expect("there").remove(0);
        let mut cursor = Cursor::new(index, Ranges::from([(vec![], None)]), is_backwards);
        let next = |cursor: &mut Cursor| cursor.next(&database.store).expect("readable");
        let mut entries = vec![next(&mut cursor).expect("an entry")];
        assert_eq!(database.remove_due(9).expect("removed"), None);
        entries.extend(std::iter::from_fn(|| next(&mut cursor)));
        let revisions = cursor.revisions(&database.store, &entries).expect("readable").expect("small");
        let found: Vec<_> =
            revisions.into_iter().flatten().map(|revision| revision.id.into_string()).collect();
        assert_eq!(found.len(), 38, "{found:?}");
        assert!(!found.iter().any(|id| id == "d005" || id == "d030"), "{found:?}");
    }
}

/// Bodies of several documents are held together up to a limit; one alone may be larger.
#[test]
fn large_documents_of_an_index_are_read_in_smaller_pieces() {
    let (database, collection) = open(&disk());
    collection.create_index("n", ["n"]).expect("created");
    for n in 0..3 {
        let body = json!({"n": n, "text": "x".repeat(3 << 20)});
        collection.put(&format!("d{n}"), &body).expect("put");
    }
    pieces(&database);
    let index = database.store.usable_indexes(DEFAULT).expect("there").remove(0);
    let mut cursor = Cursor::new(index, Ranges::from([(vec![], None)]), false);
    let next = || cursor.next(&database.store).expect("readable");
    let entries: Vec<_> = std::iter::from_fn(next).collect();
    for (len, fits) in [(3, false), (2, true), (1, true)] {
        let found = cursor.revisions(&database.store, &entries[..len]).expect("readable");
        assert_eq!(found.map(|revisions| revisions.into_iter().flatten().count()), fits.then_some(len));
    }
}
