//! A fault in each thing that a check looks at.

use std::path::PathBuf;

use serde_json::json;

use super::super::super::engine::{Engine, Writes};
use super::super::super::ground::SEGMENT_BYTES;
use super::super::super::index::{IndexEntry, IndexWriter};
use super::super::super::keys::{self, CollectionKey};
use super::super::super::sled::files::tests::salvage::a_torn_log;
use super::super::check::check_log;
use super::salvaged::{KEY, NOTHING, blocks, tables};
use crate::database::{Database, DatabaseConfig, VerifyReport};

/// What a check says of a database of two documents in which something was changed.
fn verify(change: impl FnOnce(&Engine, CollectionKey, &mut Writes)) -> VerifyReport {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = Database::open(directory.path().join("db"), DatabaseConfig::default()).expect("open");
    let collection = database.default_collection().expect("default");
    for id in ["b", "d"] {
        collection.put(id, &json!({})).expect("put");
    }
    assert!(database.verify().expect("verify").is_sound());
    let (engine, mut writes) = (database.store.engine(), Writes::default());
    let key = database.store.collections().into_iter().map(|(key, _)| key).next().expect("a collection");
    change(&engine, key, &mut writes);
    engine.apply_part(writes).expect("applied");
    database.verify().expect("verify")
}

fn page(key: CollectionKey, id: &str, sequence: u64) -> Vec<u8> {
    let (mut writer, mut writes) = (IndexWriter::new(key), Writes::default());
    writer.push(id, IndexEntry { sequence, deleted: false }, &mut writes);
    writer.finish(&mut writes);
    writes.entries.pop().and_then(|(_, value)| value).expect("a page")
}

fn says(report: &VerifyReport, what: &str) -> bool {
    report.listed.iter().any(|problem| problem.contains(what))
}

#[test]
fn what_does_not_hold_together_is_a_problem() {
    let last_block = |engine: &Engine, key: CollectionKey| {
        let (from, to) = (keys::block(key, 0)[..3].to_vec(), keys::block_end(key));
        let (block, value) = engine.last(&from, &to).expect("readable").expect("a block");
        (keys::block_sequence(&block).expect("a block"), value.to_vec())
    };
    // A record later than its block, and one that was there before.
    for is_earlier in [true, false] {
        let report = verify(|engine, key, writes| {
            let (sequence, value) = last_block(engine, key);
            if is_earlier {
                writes.remove(keys::block(key, sequence));
                writes.insert(keys::block(key, sequence - 1), value);
            } else {
                writes.insert(keys::block(key, sequence + 1), value);
            }
        });
        assert!(says(&report, "is out of order"), "{is_earlier}: {report:?}");
    }
    // IDs behind the end of their page, and pages that overlap.
    let report = verify(|_, key, writes| writes.insert(keys::index(key, "a"), page(key, "c", 90)));
    assert!(says(&report, "\"c\" is out of order in the index"), "{report:?}");
    let report = verify(|_, key, writes| {
        writes.insert(keys::index(key, "m"), page(key, "d", 2));
        writes.insert(keys::index_last(key), page(key, "b", 1));
    });
    assert!(says(&report, "\"b\" is out of order in the index"), "{report:?}");
    // A time at which a document expires that nobody looks at.
    let report = verify(|_, key, writes| writes.insert(keys::expiration(key, "b"), 7u64.to_be_bytes()));
    assert!(says(&report, "is not in the order of time"), "{report:?}");
}

/// Files are read by a check of an open database as well: what stands in memory hides nothing.
#[test]
fn a_check_of_an_open_database_reads_its_files() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path: PathBuf = directory.path().join("db");
    let database = Database::open(&path, DatabaseConfig::default()).expect("open");
    let collection = database.default_collection().expect("default");
    for n in 0..300 {
        let text: String = (0..1_500).map(|_| fastrand::alphanumeric()).collect();
        collection.put(&format!("{n:03}"), &json!({ "text": text })).expect("put");
    }
    assert!(database.verify().expect("verify").is_sound());
    let log = path.join("log-000001/db");
    let mut bytes = std::fs::read(&log).expect("readable");
    // All but what was begun last, which may be torn.
    let end = bytes.len().saturating_sub(3 * SEGMENT_BYTES);
    assert!(end >= SEGMENT_BYTES, "it is long enough");
    bytes[..end].fill(0);
    let file = std::fs::File::options().write(true).open(&log).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..end], 0).expect("written");
    assert!(!database.verify().expect("verify").is_sound());
}

/// What stands behind a place that cannot be read counts, as it would be saved.
#[test]
fn a_check_reads_on_behind_damage() {
    let pages = [(keys::index_last(KEY), super::salvaged::page("d", 7))];
    let records = blocks(&[&[("d", 7, &NOTHING)]]);
    let mut entries = [&tables()[..], &pages, &records].concat();
    entries.sort();
    let log = a_torn_log(&(vec![], vec![], entries));
    let report = check_log(log.path()).expect("readable");
    assert_eq!((report.documents, report.is_sound()), (1, false), "{report:?}");
}

/// What is said of a log as a whole names it, and of settings and tables that are gone what they are.
#[test]
fn a_check_names_the_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("db");
    drop(Database::open(&path, DatabaseConfig::default()).expect("open"));
    std::fs::remove_file(path.join("log-000001/db")).expect("removed");
    let report = Database::check(&path).expect("checked");
    let named: Vec<&str> = report.damage.iter().map(|damage| damage.file.as_str()).collect();
    assert_eq!((named, report.is_sound()), (vec!["log-000001"], false));
}
