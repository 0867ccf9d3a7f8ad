//! A database that is read without writing a byte has what opening it would find: closed in order, and as a crash leaves it
//! at any sync, also in the middle of a commit that goes through a redo list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Fixture, contents};
use crate::database::{Database, DatabaseConfig, DatabaseError};

fn files(directory: &Path) -> Files {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("a file"));
        }
    }
    found
}

/// Documents, changes, collections, and how many documents are counted.
type Everything = (Vec<(String, Value)>, Vec<(u64, String)>, Vec<String>, u64);

/// Files by their paths.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What a database says of itself in every way.
fn everything(database: &Database) -> Everything {
    let collection = database.default_collection().expect("default");
    let changes = collection.changes_since(0, usize::MAX).expect("changes");
    let changes = changes.into_iter().map(|change| (change.sequence, change.revision.to_string())).collect();
    let found = contents(&collection);
    for (id, body) in found.iter().step_by(17) {
        let document = collection.get(id).expect("read").expect("there");
        assert_eq!(Value::Object(document.into_body()), *body);
    }
    (found, changes, database.collections(), collection.count())
}

#[test]
fn reads_what_opening_would_find() {
    let read_only = DatabaseConfig { read_only: true, ..DatabaseConfig::default() };
    let mut redo_lists = 0;
    for seed in 1..=2 {
        let fixture = Fixture::new();
        let database = fixture.open();
        let images: Arc<Mutex<Vec<Files>>> = Arc::default();
        let (taken, path) = (Arc::clone(&images), fixture.directory.path().join("db"));
        let mut random = fastrand::Rng::with_seed(seed);
        let mut choice = random.fork();
        let choice = Mutex::new(move || choice.u8(..) < 24);
        database.store.observe_syncs(move || {
            if choice.lock().expect("lock")() {
                taken.lock().expect("lock").push(files(&path));
            }
        });
        let collection = database.default_collection().expect("default");
        for number in 0..60 {
            let (count, len) = if random.u8(..) < 40 { (400, 300) } else { (random.usize(1..40), 60) };
            let ids: Vec<String> = (0..count).map(|_| format!("document-{}", random.u32(0..900))).collect();
            let len = random.usize(0..len);
            let mut body = || {
                let text: String = (0..len).map(|_| random.alphanumeric()).collect();
                json!({"number": number, "text": text})
            };
            let saved = database.batch(|b| ids.iter().try_for_each(|id| b.put(&collection, id, &body())));
            saved.expect("batch");
            collection.delete(&ids[0]).expect("delete");
            if number == 40 {
                database.create_collection("plant.readings").expect("create");
            }
        }
        drop((collection, database));
        images.lock().expect("lock").push(files(&fixture.directory.path().join("db")));
        for image in images.lock().expect("lock").iter() {
            let place = tempfile::tempdir().expect("a directory");
            for (path, content) in image {
                let path = place.path().join(path.strip_prefix(fixture.directory.path()).expect("below"));
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("the directory");
                std::fs::write(path, content).expect("write");
            }
            let path = place.path().join("db");
            let before = files(&path);
            let frozen = Database::open(&path, read_only.clone()).expect("open to read");
            let found = everything(&frozen);
            assert!(frozen.verify().expect("verify").is_sound(), "seed {seed}");
            let refused = frozen.default_collection().expect("default").put("x", &json!({}));
            assert!(matches!(refused, Err(DatabaseError::ReadOnly { .. })), "{refused:?}");
            let collection = frozen.default_collection().expect("default");
            let id = found.0.first().map_or("none", |(id, _)| id);
            let refused = collection.set_expiration(id, Some(std::time::SystemTime::now()));
            assert!(matches!(refused, Err(DatabaseError::ReadOnly { .. })), "{refused:?}");
            drop(collection);
            assert!(matches!(frozen.compact(), Err(DatabaseError::ReadOnly { .. })));
            assert!(frozen.create_collection("new").is_err() && frozen.is_read_only());
            // Another one may read, nobody may write.
            drop(Database::open(&path, read_only.clone()).expect("open to read"));
            let opened = Database::open(&path, DatabaseConfig::default());
            assert!(matches!(opened, Err(DatabaseError::InUse { .. })));
            drop(frozen);
            assert_eq!(files(&path), before, "seed {seed}: reading has changed something");
            redo_lists += u32::from(Database::has_redo_list(&path));
            let opened = Database::open(&path, DatabaseConfig::default()).expect("open");
            assert_eq!(everything(&opened), found, "seed {seed}");
        }
    }
    assert!(redo_lists > 0, "no image was taken in the middle of a large commit");
}

/// A check of a database that may be written to closes it in order; an examination leaves each byte as it is.
#[test]
fn a_check_leaves_a_sound_database_closed() {
    let fixture = Fixture::new();
    let database = fixture.open();
    database.default_collection().expect("default").put("x", &json!({})).expect("put");
    let (path, copy) = (database.path().to_owned(), fixture.directory.path().join("copy"));
    for (file, bytes) in files(&path) {
        let file = copy.join(file.strip_prefix(&path).expect("below"));
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("the directory");
        std::fs::write(file, bytes).expect("write");
    }
    let (before, seal) = (files(&copy), copy.join("log-000001/seal"));
    assert!(!seal.exists(), "it was open");
    assert!(Database::examine(&copy).expect("examined").is_sound());
    assert_eq!(files(&copy), before);
    assert!(Database::check(&copy).expect("checked").is_sound());
    assert!(seal.exists());
}
