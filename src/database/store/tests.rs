//! What the store makes of documents: how many blocks they take, however they came, and what of them is garbage.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::engine::{Watermarks, Writes};
use super::keys::{self, CollectionKey};
use super::pieces::{Moved, find_block};
use super::state::{BLOCK_BYTES_TARGET, TAIL_BLOCKS_MAX};
use super::tables::{self, Sources};
use super::{FORMAT, NewRevision, PEER_CHECKPOINTS_MAX, Store};
use crate::database::tests::{Fixture, contents};
use crate::database::{Collection, Database, DatabaseConfig, DatabaseError, RestoreReport};
use crate::replica::revision::{SourceId, VersionVector};
use crate::replica::store::{CollectionId, ReplicaStore};

mod formats;

const DEFAULT: CollectionKey = CollectionKey(0);

/// Sequences of the records of each block, in order.
fn blocks(store: &Store) -> Vec<Vec<u64>> {
    let (mut found, mut after) = (Vec::new(), 0);
    while let Some(block) = find_block(&store.engine(), DEFAULT, after + 1)
        .expect("readable")
        .unwrap_or_else(|Moved| panic!("a piece of a block is missing"))
    {
        found.push(store.decode(&block.value).expect("a block").iter().map(|r| r.sequence).collect());
        after = block.sequence;
    }
    found
}

fn text(seed: u64, len: usize) -> Value {
    let mut random = fastrand::Rng::with_seed(seed);
    json!({"text": (0..len).map(|_| random.alphanumeric()).collect::<String>()})
}

fn put_all(database: &Database, collection: &Collection, ids: std::ops::Range<u64>, len: usize) {
    let put = |batch: &mut crate::database::Batch| {
        ids.clone().try_for_each(|n| batch.put(collection, &format!("d{n:04}"), &text(n, len)))
    };
    database.batch(put).expect("saved");
}

/// A save writes a small block of its own, until they are many, or much together; then they are joined. So it is over a restart too.
#[test]
fn small_blocks_are_joined_when_they_are_many_or_large_together() {
    // Length of a text, documents; how many blocks there are at most, and from which save on.
    for (len, saves, most) in [(10, 200, 2 * TAIL_BLOCKS_MAX), (1_000, 60, 40)] {
        let fixture = Fixture::new();
        let mut database = fixture.open();
        let few = 7;
        for n in 0..saves {
            let collection = database.default_collection().expect("default");
            collection.put(&format!("d{n:04}"), &text(n, len)).expect("put");
            let count = blocks(&database.store).len();
            assert!(count <= most, "{count} blocks after {n} saves of {len}");
            if n < few {
                assert_eq!(count as u64, n + 1, "a save writes nothing that others saved");
            }
            if n % 10 == 9 {
                drop((collection, database));
                database = fixture.open();
            }
        }
        let before = blocks(&database.store).len();
        let collection = database.default_collection().expect("default");
        // Of all that is in small blocks, a large commit leaves nothing there.
        put_all(&database, &collection, saves..saves + 60, 100);
        let after = blocks(&database.store);
        assert_eq!(after.concat(), (1..=saves + 60).collect::<Vec<u64>>(), "each in its place");
        let small = |blocks: &[Vec<u64>]| blocks.iter().filter(|block| block.len() == 1).count();
        println!("{before} blocks of texts of {len}, then {}", after.len());
        assert!(small(&after) == 0 || len > 10, "{after:?}");
        assert!(database.verify().expect("verify").is_sound());
    }
}

/// What only removes writes nothing of others, however many small blocks there are.
#[test]
fn a_purge_joins_nothing() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    for n in 0..TAIL_BLOCKS_MAX {
        collection.put(&format!("d{n}"), &json!({})).expect("put");
    }
    assert_eq!(blocks(&database.store).len(), TAIL_BLOCKS_MAX);
    collection.purge("d5").expect("purge");
    assert_eq!(blocks(&database.store).len(), TAIL_BLOCKS_MAX - 1);
    collection.put("next", &json!({})).expect("put");
    assert_eq!(blocks(&database.store).len(), TAIL_BLOCKS_MAX);
    collection.put("d6", &json!({})).expect("put");
    let together = blocks(&database.store);
    assert_eq!(together.iter().map(Vec::len).collect::<Vec<_>>(), [TAIL_BLOCKS_MAX]);
    assert!(database.verify().expect("verify").is_sound());
}

/// A small block that an earlier run left at the end of the feed is joined as one of this run.
#[test]
fn small_blocks_of_an_earlier_run_are_joined() {
    let fixture = Fixture::new();
    for run in 0..10 {
        let database = fixture.open();
        let collection = database.default_collection().expect("default");
        for n in 0..10 {
            collection.put(&format!("d{run}{n}"), &json!({})).expect("put");
        }
        drop((collection, database));
    }
    let database = fixture.open();
    let count = blocks(&database.store).len();
    assert!(count <= TAIL_BLOCKS_MAX + 4, "{count} blocks");
    assert_eq!(database.default_collection().expect("default").count(), 100);
}

/// What dies a little in each of many short runs goes too, though no run sees enough of it to count.
#[test]
fn what_dies_by_and_by_is_not_kept() {
    for sequential in [true, false] {
        let fixture = Fixture::new();
        let database = fixture.open();
        let collection = database.default_collection().expect("default");
        let documents = 1_000;
        put_all(&database, &collection, 0..documents, 8);
        let mut random = fastrand::Rng::with_seed(3);
        for run in 0..1_500 {
            // As after a restart.
            database.store.writer.lock().expect("the writer").live_counts.clear();
            let id = if sequential { run % documents } else { random.u64(0..documents) };
            collection.put(&format!("d{id:04}"), &json!({"run": run})).expect("put");
        }
        let records = blocks(&database.store).concat().len() as u64;
        assert!(records < documents * 2, "{records} records of {documents} documents");
        assert!(database.verify().expect("verify").is_sound());
    }
}

/// Whatever is saved, deleted and purged, in commits of any size: less of what the blocks hold is dead than alive.
#[test]
fn less_is_garbage_than_is_alive() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let fixture = Fixture::new();
        let mut database = fixture.open();
        let mut collection = database.default_collection().expect("default");
        put_all(&database, &collection, 0..300, 60);
        for round in 0..40 {
            let ids: Vec<String> =
                (0..random.usize(1..60)).map(|_| format!("d{:04}", random.u32(0..300))).collect();
            let kind = random.u8(0..4);
            let edited = database.batch(|batch| {
                ids.iter().try_for_each(|id| match kind {
                    0 => batch.delete(&collection, id),
                    1 => batch.purge(&collection, id),
                    _ => batch.put(&collection, id, &text(round, 60)),
                })
            });
            edited.expect("saved");
            let report = database.verify().expect("verify");
            assert!(report.is_sound(), "{report:?}");
            let alive = report.documents + report.tombstones;
            assert!(report.dead_records <= alive, "seed {seed}, round {round}: {report:?}");
            if round % 13 == 12 {
                drop((collection, database));
                database = fixture.open();
                collection = database.default_collection().expect("default");
            }
        }
    }
}

/// A compaction, a repair and a restore fill blocks as one large commit does, and give a large document one of its own.
#[test]
fn what_is_written_anew_is_in_full_blocks() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    for n in 0..20 {
        put_all(&database, &collection, n * 20..(n + 1) * 20, 40);
    }
    put_all(&database, &collection, 400..401, 3 * BLOCK_BYTES_TARGET);
    put_all(&database, &collection, 401..600, 40);
    collection.delete("d0000").expect("delete");
    // Records of some 60 bytes.
    let is_packed = |database: &Database, what: &str| {
        let blocks = blocks(&database.store);
        let shortest = blocks.iter().filter(|block| block.len() < BLOCK_BYTES_TARGET / 120).count();
        println!("{what}: {} blocks, {shortest} of them short", blocks.len());
        assert!(shortest <= 5, "{what}: {:?}", blocks.iter().map(Vec::len).collect::<Vec<_>>());
        let large = blocks.iter().find(|block| block.contains(&401)).expect("it is there");
        assert_eq!(large, &[401], "{what}: a large document has a block of its own");
        assert!(database.verify().expect("verify").is_sound(), "{what}");
    };
    let expected = contents(&collection);
    let mut backup = Vec::new();
    database.backup(&mut backup, |_, _| ()).expect("a backup");
    database.compact().expect("compacted");
    is_packed(&database, "compacted");
    let path = |name: &str| fixture.directory.path().join(name);
    drop((collection, database));
    let restored = Database::restore(&mut &backup[..], path("restored"), |_| true, |_, _| ());
    let RestoreReport { documents, tombstones, .. } = restored.expect("restored");
    assert_eq!((documents, tombstones), (599, 1));
    Database::repair(path("db"), path("repaired"), |_| ()).expect("nothing is wrong with it");
    for name in ["restored", "repaired"] {
        let database = Database::open(path(name), DatabaseConfig::default()).expect("open");
        is_packed(&database, name);
        assert_eq!(contents(&database.default_collection().expect("default")), expected, "{name}");
    }
    // Many records share a block in a backup as well: texts of 40 characters, deflated.
    println!("{} bytes of backup", backup.len());
    assert!(backup.len() < 600 * 50 + 3 * BLOCK_BYTES_TARGET, "{} bytes", backup.len());
}

/// A database of a release to come is left alone.
#[test]
fn a_newer_format_is_refused() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let mut writes = Writes::default();
    writes.insert(keys::META, postcard::to_stdvec(&(FORMAT + 1, "something else")).expect("written"));
    let ticket = database.store.engine().apply(writes, Watermarks::new()).expect("applied");
    database.store.sync(ticket).expect("synced");
    drop(database);
    for read_only in [false, true] {
        let opened = fixture.try_open(DatabaseConfig { read_only, ..DatabaseConfig::default() });
        let Err(DatabaseError::NewerFormat { found, supported, .. }) = opened else { panic!("{opened:?}") };
        assert_eq!((found, supported), (FORMAT + 1, FORMAT));
    }
}

/// The last handle that goes seals the log, as closing does.
#[test]
fn dropping_the_last_handle_seals() {
    let fixture = Fixture::new();
    let seal = fixture.directory.path().join("db/log-000001/seal");
    let database = fixture.open();
    let other = database.clone();
    drop(database);
    other.default_collection().expect("default").put("a", &json!({})).expect("put");
    assert!(!seal.exists());
    drop(other);
    assert!(seal.exists());
}

/// A check reads bodies, those of tombstones too.
#[test]
fn a_damaged_body_is_a_problem_of_documents_and_of_tombstones() {
    for (deleted, body, is_sound) in
        [(false, vec![0xff], false), (true, vec![0xff], false), (true, vec![], true), (false, vec![], false)]
    {
        let fixture = Fixture::new();
        let database = fixture.open();
        let mut writer = database.store.writer();
        let version = writer.first_version(DEFAULT, "a").expect("a version");
        let (id, vector) = ("a".into(), VersionVector::new(version));
        let new = NewRevision { id, vector, deleted, remote_ancestor: None, body: body.clone() };
        writer.put(DEFAULT, new, None).expect("staged");
        let ticket = writer.commit().expect("committed");
        database.store.finish(ticket).expect("on stable storage");
        let report = database.verify().expect("verify");
        assert_eq!(report.is_sound(), is_sound, "{deleted} {body:?}: {report:?}");
    }
}

#[test]
fn authors_have_numbers_up_to_a_limit() {
    use super::block::SourceNumbers;
    let source = |n: u8| SourceId([n; 16]);
    let mut sources = Sources::default();
    [1, 2, 1, 3, 2].into_iter().for_each(|n| sources.intern(source(n)));
    assert_eq!((sources.len(), sources.all()), (3, &[1, 2, 3].map(source)[..]));
    assert_eq!([1, 2, 3, 4].map(|n| sources.number(source(n))), [1, 2, 3, 0]);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|n| sources.source(n)),
        [None, Some(1), Some(2), Some(3), None].map(|n| n.map(source))
    );
    let first = sources.first(2);
    assert_eq!([1, 2, 3, 4].map(|n| first.number(source(n))), [1, 2, 0, 0]);
    assert_eq!([2, 3].map(|n| first.source(n)), [Some(source(2)), None]);
    let mut writes = Writes::default();
    sources.write_new(&mut writes);
    sources.intern(source(4));
    assert_eq!(writes.entries.len(), 3);
    sources.write_new(&mut writes);
    assert_eq!(writes.entries.len(), 4, "only what is new");
    for n in 0..tables::SOURCES_MAX as u128 + 10 {
        sources.intern(SourceId((n << 64 | 1).to_be_bytes()));
    }
    assert_eq!(sources.len(), tables::SOURCES_MAX);
}

/// A record names its author by number, so that the same sixteen bytes do not stand in each.
#[test]
fn a_record_of_this_database_is_short() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    collection.put("a", &json!({})).expect("put");
    let block = find_block(&database.store.engine(), DEFAULT, 1).expect("readable");
    let block = block.unwrap_or_else(|Moved| panic!("a piece is missing")).expect("there");
    let source = database.source().0;
    assert!(!block.value.windows(source.len()).any(|bytes| bytes == source), "{:?}", block.value);
    // Of a version far ahead the lowest time is known after a restart.
    let engine = database.store.engine();
    assert_eq!(tables::lowest_ahead(&engine).expect("read"), u64::MAX);
    let mut writes = Writes::default();
    [9, 7, 8].into_iter().for_each(|time| writes.insert(keys::ahead(time, DEFAULT, 1), []));
    engine.apply(writes, Watermarks::new()).expect("applied");
    assert_eq!(tables::lowest_ahead(&engine).expect("read"), 7);
}

/// Entries of each collection, as the log has them.
fn entries(store: &Store) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for kind in *b"ibctkdg" {
        let (from, to) = keys::kind_range(kind);
        let counted = store.engine().scan(&from, &to, |key, _| {
            let number = key.get(1..3).and_then(|number| number.try_into().ok()).map(u16::from_be_bytes);
            *counts.entry(number.expect("a collection's")).or_default() += 1;
            Ok(ControlFlow::Continue(()))
        });
        counted.expect("readable");
    }
    counts
}

/// A collection that is deleted leaves nothing in the log, and takes nothing of another along.
#[test]
fn a_collection_that_is_deleted_leaves_nothing() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let [one, two] = ["one", "two"].map(|name| database.create_collection(name).expect("new"));
    for collection in [&one, &two] {
        put_all(&database, collection, 0..50, 40);
        collection.put("large", &text(1, 40_000)).expect("put");
        let end = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
        collection.set_expiration("large", Some(end)).expect("set");
        collection.put("gone", &json!({})).expect("put");
        assert!(collection.purge("gone").expect("purge"));
    }
    let due = || {
        let (from, to) = keys::kind_range(keys::DUE);
        let mut count = 0;
        let counted = database.store.engine().scan(&from, &to, |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        });
        counted.expect("readable");
        count
    };
    assert_eq!(due(), 2);
    let mut expected = entries(&database.store);
    database.delete_collection("one").expect("deleted");
    assert!(expected.remove(&1).is_some_and(|count| count > 20));
    assert_eq!(entries(&database.store), expected);
    assert_eq!(due(), 1);
    assert_eq!((one.count(), two.count()), (0, 51));
    assert!(one.get("large").is_err() && two.get("large").expect("read").is_some());
}

/// A checkpoint that gives way goes whole, and is one however long it is.
#[test]
fn a_checkpoint_that_gives_way_takes_its_pieces_along() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let of_default = || entries(&database.store).get(&DEFAULT.0).copied().unwrap_or_default();
    let set = |client: usize| {
        let body = bytes::Bytes::from(vec![b'x'; 20_000]);
        let set = database.set_peer_checkpoint(CollectionId(0), "peer", &format!("cp-{client}"), None, body);
        assert!(set.expect("set").is_some());
        of_default()
    };
    let counts: Vec<usize> = (0..PEER_CHECKPOINTS_MAX + 3).map(set).collect();
    let each = counts[1] - counts[0];
    assert!(each > 2, "in pieces");
    let full = counts[PEER_CHECKPOINTS_MAX - 1];
    assert_eq!(full - counts[0], each * (PEER_CHECKPOINTS_MAX - 1), "all have room");
    assert_eq!(counts[PEER_CHECKPOINTS_MAX..], [full; 3], "one goes for one that comes");
}
