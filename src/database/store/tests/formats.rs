//! What kinds of blocks there are, and what a database says of itself for it.

use serde_json::json;

use super::super::block::{BlockBuilder, Codec};
use super::super::meta::Meta;
use super::super::pieces::write_pieces;
use super::*;

/// The first byte of each block, in order.
fn kinds(store: &Store) -> Vec<u8> {
    let (mut found, mut after) = (Vec::new(), 0);
    while let Some(block) = find_block(&store.engine(), DEFAULT, after + 1)
        .expect("readable")
        .unwrap_or_else(|Moved| panic!("moved"))
    {
        found.push(block.value[0]);
        after = block.sequence;
    }
    found
}

fn save_readings(database: &Database, collection: &Collection, ids: std::ops::Range<u64>) {
    let saved = database.batch(|batch| {
        ids.clone().try_for_each(|n| {
            let body = json!({"sensor": format!("s{}", n % 7), "celsius": n as f64 / 10.0, "ok": n % 5 > 0});
            batch.put(collection, &format!("r-{n:04}"), &body)
        })
    });
    saved.expect("saved");
}

/// Makes of a database what a release before columns would have written.
fn as_before_columns(database: &Database) {
    let (store, mut after, mut writes) = (&database.store, 0, Writes::default());
    let engine = store.engine();
    while let Some(block) =
        find_block(&engine, DEFAULT, after + 1).expect("readable").unwrap_or_else(|Moved| panic!("moved"))
    {
        let mut builder = BlockBuilder::default();
        let records = store.decode(&block.value).expect("a block");
        records.iter().for_each(|record| store.with_sources(|sources, _| builder.push(record, sources)));
        write_pieces(&mut writes, &block.key, &builder.finish_rows(&mut Codec::default()));
        after = block.sequence;
    }
    Meta { format: 1, ..Meta::newest(store.source, store.versioning) }.write(&mut writes);
    let ticket = engine.apply(writes, Watermarks::new()).expect("applied");
    store.sync(ticket).expect("synced");
}

/// What the log says its format is.
fn stated(database: &Database) -> u32 {
    let meta = database.store.engine().get(keys::META).expect("readable").expect("there");
    postcard::take_from_bytes(&meta).expect("a number").0
}

/// A database from before there were columns is read and written, and refused by older programs from the commit on that writes the first columns.
#[test]
fn an_older_database_is_newer_from_its_first_columns_on() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    save_readings(&database, &collection, 0..300);
    collection.delete("r-0007").expect("deleted");
    assert!(kinds(&database.store).contains(&2));
    as_before_columns(&database);
    let expected = contents(&collection);
    drop((collection, database));
    let read_only = DatabaseConfig { read_only: true, ..DatabaseConfig::default() };
    for config in [read_only, DatabaseConfig::default()] {
        let database = fixture.try_open(config).expect("open");
        assert_eq!((stated(&database), database.info().expect("info").format), (1, 1));
        assert!(!kinds(&database.store).contains(&2));
        assert_eq!(contents(&database.default_collection().expect("default")), expected);
    }
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    // A block of one record has no columns.
    save_readings(&database, &collection, 300..301);
    assert_eq!((stated(&database), database.info().expect("info").format), (1, 1));
    save_readings(&database, &collection, 301..400);
    assert_eq!((stated(&database), database.info().expect("info").format), (FORMAT, FORMAT));
    assert!([0, 1, 2].iter().all(|kind| *kind == 0 || kinds(&database.store).contains(kind)));
    let expected = contents(&collection);
    drop((collection, database));
    let database = fixture.open();
    assert_eq!(database.info().expect("info").format, FORMAT);
    assert!(database.verify().expect("verify").is_sound());
    assert_eq!(contents(&database.default_collection().expect("default")), expected);
}

/// A compaction makes one of the newest format of it.
#[test]
fn a_compaction_raises_the_format() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    save_readings(&database, &collection, 0..300);
    as_before_columns(&database);
    drop((collection, database));
    let database = fixture.open();
    assert_eq!(stated(&database), 1);
    database.compact().expect("compacted");
    assert_eq!((stated(&database), database.info().expect("info").format), (FORMAT, FORMAT));
    assert_eq!(kinds(&database.store), [2]);
}

/// Readings stand in columns, so many in a block that its columns fill one entry; texts that say something new each are deflated as ever.
#[test]
fn readings_stand_in_columns() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    save_readings(&database, &collection, 0..600);
    let blocks = blocks(&database.store);
    assert_eq!(kinds(&database.store), vec![2; blocks.len()]);
    assert!(blocks[0].len() > 200, "{} records in a block", blocks[0].len());
    let block = find_block(&database.store.engine(), DEFAULT, 1).expect("readable");
    let block = block.unwrap_or_else(|Moved| panic!("moved")).expect("there");
    assert_eq!(block.pieces, 1);
    put_all(&database, &collection, 0..100, 300);
    assert!(kinds(&database.store).contains(&1), "{:?}", kinds(&database.store));
}

/// A backup has no columns: it is the way back to an earlier release.
#[test]
fn a_backup_is_for_any_release() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    save_readings(&database, &collection, 0..300);
    assert_eq!(kinds(&database.store), [2]);
    let block = find_block(&database.store.engine(), DEFAULT, 1).expect("readable");
    let columns = block.unwrap_or_else(|Moved| panic!("moved")).expect("there").value;
    let mut backup = Vec::new();
    database.backup(&mut backup, |_, _| ()).expect("a backup");
    let end = &columns[columns.len() - 100..];
    assert!(!backup.windows(end.len()).any(|bytes| bytes == end));
    let restored =
        Database::restore(&mut &backup[..], fixture.directory.path().join("restored"), |_| true, |_, _| ());
    assert_eq!(restored.expect("restored").documents, 300);
}
