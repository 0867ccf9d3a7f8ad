//! Tests of the database as a whole.

mod backup;
mod bases;
#[cfg(feature = "simulation")]
mod blob_names;
mod blobs;
mod changes;
mod clock;
mod crash;
mod damage;
#[cfg(feature = "simulation")]
mod expiry;
mod failed_sync;
#[cfg(feature = "simulation")]
mod failures;
mod gather;
mod group;
mod growth;
mod handle;
mod horizons;
mod large;
mod model;
mod read_only;
mod renew;
mod repair;
pub(super) mod replica;
mod saving;
mod trees;

use serde_json::{Map, Value, json};

use super::{Collection, Database, DatabaseConfig, DatabaseError, Durability};

/// A database in a directory that goes with it.
pub(super) struct Fixture {
    pub(super) directory: tempfile::TempDir,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        Fixture { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(super) fn open(&self) -> Database {
        self.try_open(DatabaseConfig::default()).expect("open")
    }

    pub(super) fn try_open(&self, config: DatabaseConfig) -> Result<Database, DatabaseError> {
        Database::open(self.directory.path().join("db"), config)
    }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

/// All documents of a collection, in the order of iteration.
pub(super) fn contents(collection: &Collection) -> Vec<(String, Value)> {
    let document = |d: Result<super::Document, _>| {
        let d = d.expect("a readable document");
        (d.id().to_owned(), Value::Object(d.into_body()))
    };
    collection.iter().map(document).collect()
}

#[test]
fn saves_against_the_revision_read() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let readings = database.create_collection("plant.readings").expect("create");
    let mut new = super::Document::new("a", object(json!({"n": 1})));
    readings.save(&mut new).expect("first save");
    let mut stale = readings.get("a").expect("read").expect("there");
    new.body_mut().insert("n".into(), json!(2));
    readings.save(&mut new).expect("second save");
    assert!(matches!(readings.save(&mut stale), Err(DatabaseError::Conflict { .. })));
    assert!(matches!(readings.delete_document(&stale), Err(DatabaseError::Conflict { .. })));
    assert!(matches!(
        readings.save(&mut super::Document::new("a", Map::new())),
        Err(DatabaseError::Conflict { .. })
    ));
    assert_eq!(contents(&readings), [("a".into(), json!({"n": 2}))]);
    assert_eq!(readings.name(), "plant.readings");
    assert_eq!(readings.get_as::<Value>("a").expect("readable"), Some(json!({"n": 2})));
    let log = std::fs::metadata(fixture.directory.path().join("db/log-000001/db")).expect("there").len();
    assert!(database.info().expect("measured").disk_bytes >= log);
    readings.delete_document(&new).expect("delete");
    assert_eq!(readings.get("a").expect("read"), None);
    assert_eq!(readings.count(), 0);
    let changes = readings.changes_since(0, 10).expect("changes");
    assert_eq!(changes.len(), 1);
    assert!(changes[0].deleted && changes[0].sequence == 3);
    readings.save(&mut super::Document::new("a", Map::new())).expect("a tombstone may be written over");
}

#[test]
fn a_batch_is_all_or_nothing() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let one = database.create_collection("one").expect("create");
    let two = database.create_collection("two").expect("create");
    let mut document = super::Document::new("x", Map::new());
    one.save(&mut document).expect("save");
    one.put("x", &json!({"changed": true})).expect("put");
    let result = database.batch(|b| {
        b.put(&two, "y", &json!({"n": 1}))?;
        b.save(&one, &document)
    });
    assert!(matches!(result, Err(DatabaseError::Conflict { .. })));
    assert_eq!(two.count(), 0);
    assert_eq!(two.last_sequence(), 0);
    database
        .batch(|b| {
            b.put(&two, "y", &json!({"n": 1}))?;
            b.put(&two, "y", &json!({"n": 2}))?;
            b.put(&two, "z", &json!({}))?;
            b.delete(&two, "z")?;
            b.purge(&one, "x")
        })
        .expect("batch");
    assert_eq!(contents(&two), [("y".into(), json!({"n": 2}))]);
    assert_eq!(contents(&one), []);
    assert_eq!(one.changes_since(0, 10).expect("changes"), []);
    assert_eq!(two.changes_since(0, 10).expect("changes").len(), 2);
}

#[test]
fn a_second_handle_is_refused() {
    let fixture = Fixture::new();
    let database = fixture.open();
    assert!(matches!(fixture.try_open(DatabaseConfig::default()), Err(DatabaseError::InUse { .. })));
    drop(database);
    fixture.open();
}

#[test]
fn refuses_what_it_cannot_hold() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    for id in ["", "_x", "a\0b", "a\n", &"x".repeat(241)] {
        assert!(matches!(collection.put(id, &json!({})), Err(DatabaseError::InvalidId { .. })), "{id:.10}");
    }
    assert!(matches!(collection.put("a", &json!([])), Err(DatabaseError::BadBody { .. })));
    // One rule, whichever way a document comes.
    let longer_when_written_anew =
        format!("{{\"x\":[{}1e15]}}", "1e15,".repeat(super::DOCUMENT_BODY_MAX / 19));
    assert!(longer_when_written_anew.len() < super::DOCUMENT_BODY_MAX);
    for bad in [
        json!({"_id": 1}).to_string(),
        json!({"_removed": true}).to_string(),
        json!({"_revisions": {}}).to_string(),
        json!({"_": 1}).to_string(),
        json!({"": 1}).to_string(),
    ] {
        let value: Value = serde_json::from_str(&bad).expect("JSON");
        let mut document = super::Document::new("a", object(value.clone()));
        for (way, refused) in [
            ("put", collection.put("a", &value).map(drop)),
            ("put_json", collection.put_json("a", bad.as_bytes()).map(drop)),
            ("save", collection.save(&mut document)),
            ("batch put", database.batch(|batch| batch.put(&collection, "a", &value))),
            ("batch put_json", database.batch(|batch| batch.put_json(&collection, "a", bad.as_bytes()))),
            ("batch save", database.batch(|batch| batch.save(&collection, &document))),
        ] {
            assert!(matches!(refused, Err(DatabaseError::BadBody { .. })), "{way} {bad}: {refused:?}");
        }
    }
    for (what, value) in [
        ("text", json!({"x": "y".repeat(super::DOCUMENT_BODY_MAX - 7)})),
        ("escapes", json!({"x": "\u{1}".repeat(super::DOCUMENT_BODY_MAX / 6 + 1)})),
    ] {
        let refused = collection.put("a", &value);
        assert!(matches!(refused, Err(DatabaseError::TooLarge { .. })), "{what}: {refused:?}");
    }
    let refused = collection.put_json("a", longer_when_written_anew.as_bytes());
    assert!(matches!(refused, Err(DatabaseError::TooLarge { .. })), "{refused:?}");
    for text in [r#"{"a":1,"a":1}"#, r#"{"b":{"a":1,"a":1}}"#, r#"{"n":123456789012345678901}"#] {
        let refused = collection.put_json("a", text.as_bytes());
        assert!(matches!(refused, Err(DatabaseError::BadBody { .. })), "{text}: {refused:?}");
    }
    assert_eq!(collection.last_sequence(), 0);
    collection.put("a", &json!({"b": {"": {"_id": 1}}})).expect("kept for Couchbase Lite at the top alone");
}

/// Stores a body of one member, whatever the rules say, as an earlier release did.
fn put_unchecked(database: &Database, collection: &Collection, id: &str, key: &str) {
    use super::edit::{Edit, EditKind, Expects};
    const OBJECT_OF_ONE: [u8; 2] = [14, 1];
    const NULL: u8 = 0;
    let number = database.store.names().write().expect("lock").intern(key);
    let packed = vec![OBJECT_OF_ONE[0], OBJECT_OF_ONE[1], u8::try_from(number).expect("few names"), NULL];
    let edit = Edit {
        collection: collection.key().expect("there"),
        id: id.to_owned(),
        kind: EditKind::Save(packed),
        expects: Expects::Anything,
    };
    let mut writer = database.store.writer();
    edit.stage(&database.store, &mut writer).expect("staged");
    let ticket = writer.commit().expect("committed");
    database.store.finish(ticket).expect("on stable storage");
}

#[test]
fn what_an_earlier_release_took_stays_readable() {
    let fixture = Fixture::new();
    let long = "i".repeat(250);
    let old = [("a\0b", "x"), ("b", ""), ("c", "_exp"), (long.as_str(), "y")];
    {
        let database = fixture.open();
        let collection = database.default_collection().expect("default");
        old.iter().for_each(|(id, key)| put_unchecked(&database, &collection, id, key));
    }
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let expected: Vec<(String, Value)> =
        old.iter().map(|(id, key)| ((*id).to_owned(), json!({ *key: null }))).collect();
    assert_eq!(contents(&collection), expected);
    assert!(database.verify().expect("verify").is_sound());
    let mut backup = Vec::new();
    database.backup(&mut backup, |_, _| {}).expect("a backup");
    let to = fixture.directory.path().join("restored");
    Database::restore(&mut backup.as_slice(), &to, |_| true, |_, _| {}).expect("restored");
    let restored = Database::open(&to, DatabaseConfig::default()).expect("open");
    assert_eq!(contents(&restored.default_collection().expect("default")), expected);
    let unsendable = restored.unsendable(3).expect("read");
    let named: Vec<&str> = unsendable.named.iter().map(|document| document.id.as_str()).collect();
    assert_eq!((unsendable.count, named), (4, vec!["a\0b", "b", "c"]));
    assert!(unsendable.named[2].reason.contains("\"_exp\""), "{unsendable:?}");
    for (id, _) in old {
        assert!(collection.get(id).expect("read").is_some());
        assert!(collection.delete(id).expect("deleted"), "{id:?}");
    }
}

#[test]
fn large_documents_stay_in_the_log() {
    let fixture = Fixture::new();
    // Text that deflate cannot shorten much.
    let mut random = fastrand::Rng::with_seed(1);
    let text: String = (0..3_000_000).map(|_| random.alphanumeric()).collect();
    let body = json!({"text": text, "n": 1});
    {
        let collection = fixture.open().default_collection().expect("default");
        collection.put("small", &json!({"n": 0})).expect("put");
        collection.put("large", &body).expect("put");
        collection.put("small2", &json!({"n": 0})).expect("put");
    }
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    assert_eq!(collection.get("large").expect("read").map(|d| Value::Object(d.into_body())), Some(body));
    let blobs =
        std::fs::read_dir(fixture.directory.path().join("db/log-000001/blobs")).expect("sled's folder");
    assert_eq!(blobs.count(), 0, "a value left the log that the sync covers");
    collection.put("large", &json!({})).expect("put");
    assert_eq!(contents(&collection).len(), 3);
}

#[test]
fn relaxed_writes_reach_the_feed_soon() {
    let fixture = Fixture::new();
    let config = DatabaseConfig { durability: Durability::Relaxed, ..DatabaseConfig::default() };
    let database = fixture.try_open(config).expect("open");
    let collection = database.default_collection().expect("default");
    collection.put("a", &json!({})).expect("put");
    database.sync().expect("sync");
    use crate::replica::store::ReplicaStore;
    assert_eq!(ReplicaStore::last_sequence(&database, crate::replica::store::CollectionId(0)), 1);
    drop((collection, database));
    assert_eq!(fixture.open().default_collection().expect("default").count(), 1);
}

/// Without a word of the program, also after the log was replaced.
#[test]
fn relaxed_writes_are_synced_by_themselves() {
    use crate::replica::store::{CollectionId, ReplicaStore};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let fixture = Fixture::new();
    let config = DatabaseConfig { durability: Durability::Relaxed, ..DatabaseConfig::default() };
    let database = fixture.try_open(config).expect("open");
    let collection = database.default_collection().expect("default");
    let mut changes = database.watch();
    let mut is_synced = |sequence| {
        let synced = async {
            while database.last_sequence(CollectionId(0)) < sequence {
                changes.changed().await.expect("it is open");
            }
        };
        // A guard against a hang.
        runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(60), synced).await.is_ok()
        })
    };
    collection.put("a", &json!({})).expect("put");
    assert!(is_synced(1));
    database.compact().expect("compacted");
    collection.put("b", &json!({})).expect("put");
    assert!(is_synced(2), "after a compaction");
}

/// One thread syncs what is relaxed, however much is saved; who has closed a database has none of its threads behind it.
#[test]
fn one_thread_syncs_and_is_gone_when_it_is_closed() {
    let config = DatabaseConfig { durability: Durability::Relaxed, ..DatabaseConfig::default() };
    for _ in 0..20 {
        let fixture = Fixture::new();
        let database = fixture.try_open(config.clone()).expect("open");
        let collection = database.default_collection().expect("default");
        (0..3).for_each(|n| assert_eq!(collection.put("a", &json!({ "n": n })).expect("put"), n + 1));
        // Each of its threads holds one.
        assert_eq!(std::sync::Arc::weak_count(&database.store), 1);
        database.close().expect("closed");
        assert_eq!(std::sync::Arc::weak_count(&database.store), 0);
    }
}

#[cfg(feature = "cli")]
#[test]
fn weather_records_stay_small() {
    use crate::database::bench::{BenchDocument, measure};
    let csv = include_str!("../../../hw-tests/data/seattle-weather-hourly-normals.csv");
    let document = |line: &str| {
        let [date, pressure, temperature, wind] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line:?}")
        };
        let json =
            format!(r#"{{"date":"{date}","pressure":{pressure},"temperature":{temperature},"wind":{wind}}}"#);
        BenchDocument { id: date.into(), json: json.into_bytes() }
    };
    let documents: Vec<BenchDocument> = csv.lines().skip(1).map(document).collect();
    let fixture = Fixture::new();
    let figures = measure(&fixture.directory.path().join("db"), &documents, 3).expect("measure");
    assert!(figures.import_disk_bytes < figures.json_bytes, "{figures:?}");
    assert!(figures.update_disk_bytes < 2 * figures.json_bytes, "{figures:?}");
    let database = fixture.open();
    let (before, after) = database.compact().expect("compact");
    assert!(after <= before && after < figures.json_bytes, "{before} to {after}");
    assert_eq!(database.default_collection().expect("default").count(), documents.len() as u64);
    assert!(database.verify().expect("verify").is_sound());
}
