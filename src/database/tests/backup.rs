//! Backups of databases in use, what is made of them, and how that meets peers who know the original.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Fixture, contents};
use crate::database::{Collection, Database, DatabaseConfig, DatabaseError};
use crate::replica::revision::SourceId;
use crate::replica::store::{
    CollectionId, CommitOutcome, Conflict, ConflictPolicy, ConflictResolver, IncomingRevision, ReplicaStore,
    Resolution,
};

const DEFAULT: CollectionId = CollectionId(0);

fn bytes_of(database: &Database) -> Vec<u8> {
    let mut bytes = Vec::new();
    database.backup(&mut bytes, |_, _| ()).expect("backup");
    bytes
}

fn restored(fixture: &Fixture, name: &str, bytes: &[u8]) -> Database {
    let to = fixture.directory.path().join(name);
    Database::restore(&mut &bytes[..], &to, |_| true, |_, _| ()).expect("restore");
    let report = Database::check(&to).expect("check");
    assert!(report.is_sound(), "{report:?}");
    Database::open(&to, DatabaseConfig::default()).expect("open")
}

#[test]
fn a_restored_database_holds_what_the_original_held() {
    let fixture = Fixture::new();
    let database = fixture.open();
    for name in ["_default", "plant.readings"] {
        let collection = database.create_collection(name).expect("create");
        for n in 0..700 {
            collection
                .put(&format!("document-{}", n % 300), &json!({"n": n, "collection": {name: [n, "text"]}}))
                .expect("put");
        }
        collection.delete("document-7").expect("delete");
        collection.purge("document-8").expect("purge");
        collection.put("large", &json!({"text": "x".repeat(300_000)})).expect("put");
    }
    std::fs::write(fixture.directory.path().join("db/trust"), "a list").expect("write");
    let copy = restored(&fixture, "copy", &bytes_of(&database));
    assert_ne!(copy.source(), database.source());
    assert_eq!(std::fs::read(copy.path().join("trust")).expect("read"), b"a list");
    assert_eq!(copy.collections(), database.collections());
    for name in database.collections() {
        let (one, other) =
            (database.collection(&name).expect("there"), copy.collection(&name).expect("there"));
        assert_eq!(contents(&one), contents(&other));
        assert_eq!(
            one.changes_since(0, 10_000).expect("changes"),
            other.changes_since(0, 10_000).expect("changes"),
            "revisions and sequences stay"
        );
        assert_eq!(one.last_sequence(), other.last_sequence());
        // And it goes on.
        other.put("document-9", &json!({"changed": true})).expect("put");
        assert!(other.get("document-9").expect("read").is_some());
    }
    // A copy of the copy knows both who it was.
    let again = restored(&fixture, "again", &bytes_of(&copy));
    assert!(again.store.is_own(database.source()) && again.store.is_own(copy.source()));
}

/// While writers commit batches over two collections, each backup shows a moment: batches whole, nothing acknowledged
/// before it missing, nothing purged still there.
#[test]
fn a_backup_of_a_database_in_use_shows_one_moment() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let one = database.create_collection("one").expect("create");
    let two = database.create_collection("two").expect("create");
    for n in 0..2_000 {
        one.put(&format!("old-{n}"), &json!({"n": n})).expect("put");
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let body = json!({"n": n, "text": "x".repeat(200)});
                let batch = database.batch(|b| {
                    for slot in 0..40 {
                        b.put(&one, &format!("pair-{slot}"), &body)?;
                        b.put(&two, &format!("pair-{slot}"), &body)?;
                    }
                    b.purge(&one, &format!("old-{n}"))
                });
                batch.expect("batch");
            }
        });
        for round in 0..4 {
            let before = two.get("pair-0").expect("read").map_or(0, |d| d.body()["n"].as_u64().expect("n"));
            let copy = restored(&fixture, &format!("copy-{round}"), &bytes_of(&database));
            let numbers = |name: &str| -> Vec<u64> {
                let collection = copy.collection(name).expect("there");
                let pairs = contents(&collection).into_iter().filter(|(id, _)| id.starts_with("pair"));
                pairs.map(|(_, body)| body["n"].as_u64().expect("n")).collect()
            };
            let (ones, twos) = (numbers("one"), numbers("two"));
            assert_eq!(ones, twos, "half a batch");
            assert!(ones.windows(2).all(|pair| pair[0] == pair[1]), "half a batch");
            if let Some(&n) = ones.first() {
                assert!(n >= before, "what was acknowledged before the backup is missing");
                let old = copy.collection("one").expect("there").get(&format!("old-{n}")).expect("read");
                assert!(old.is_none(), "purged in the same batch");
                let next =
                    copy.collection("one").expect("there").get(&format!("old-{}", n + 1)).expect("read");
                assert_eq!(next.is_some(), n + 1 < 2_000, "purged later");
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_damaged_backup_is_refused_and_leaves_nothing() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    for n in 0..200 {
        collection.put(&format!("d{n}"), &json!({"n": n})).expect("put");
    }
    let whole = bytes_of(&database);
    let info = Database::check_backup(&mut &whole[..]).expect("whole");
    assert_eq!((info.source, info.records, info.bytes), (database.source(), 200, whole.len() as u64));
    for len in (0..60).chain(whole.len() - 20..whole.len()) {
        let cut = Database::check_backup(&mut &whole[..len]);
        assert!(matches!(cut, Err(DatabaseError::BadBackup { .. })), "{len} bytes: {cut:?}");
    }
    let mut random = fastrand::Rng::with_seed(1);
    for case in 0..200 {
        let mut bytes = whole.clone();
        if random.bool() {
            bytes[random.usize(0..whole.len())] ^= 1 << random.u8(0..8);
        } else {
            bytes.truncate(random.usize(0..whole.len()));
        }
        assert!(Database::check_backup(&mut &bytes[..]).is_err(), "case {case}");
        if case % 20 == 0 {
            let to = fixture.directory.path().join("no");
            let error = Database::restore(&mut &bytes[..], &to, |_| true, |_, _| ()).map(drop);
            assert!(matches!(error, Err(DatabaseError::BadBackup { .. })), "{error:?}");
            assert!(!to.exists());
        }
    }
    let taken = Database::restore(&mut &whole[..], database.path(), |_| true, |_, _| ());
    assert!(matches!(taken, Err(DatabaseError::Occupied { .. })));
}

/// Keeps both sides of a conflict in a list, so that a lost edit is seen.
struct KeepBoth;

impl ConflictResolver for KeepBoth {
    fn resolve(&self, conflict: &Conflict<'_>) -> Result<Resolution, String> {
        let mut all: Vec<String> = Vec::new();
        for body in [conflict.local_body, conflict.remote_body].into_iter().flatten() {
            let edits = body["edits"].as_array().into_iter().flatten();
            all.extend(edits.filter_map(|edit| edit.as_str().map(str::to_owned)));
        }
        all.sort();
        all.dedup();
        let merged = json!({"edits": all});
        merged.as_object().cloned().map(Resolution::Merge).ok_or_else(String::new)
    }
}

/// Gives `to` everything of `from`, as a pull does.
fn pull(from: &Database, to: &Database) -> Vec<CommitOutcome> {
    let changes = from.changes(DEFAULT, 0, 10_000, true).expect("changes");
    let incoming: Vec<IncomingRevision> = changes
        .into_iter()
        .map(|change| IncomingRevision {
            collection: DEFAULT,
            id: change.id,
            vector: change.vector,
            deleted: change.deleted,
            body: change.body.unwrap_or_default(),
        })
        .collect();
    to.commit(&incoming, ConflictPolicy::Resolve(&KeepBoth)).expect("commit")
}

fn add(collection: &Collection, id: &str, edit: &str) {
    let mut document = collection.get(id).expect("read").unwrap_or_else(|| {
        crate::database::Document::new(id, json!({"edits": []}).as_object().cloned().expect("an object"))
    });
    if let Some(edits) = document.body_mut().get_mut("edits").and_then(serde_json::Value::as_array_mut) {
        edits.push(edit.into());
    }
    collection.save(&mut document).expect("save");
}

fn edits(database: &Database, id: &str) -> Vec<String> {
    let collection = database.default_collection().expect("default");
    let document = collection.get(id).expect("read").expect("there");
    let edits = document.body()["edits"].as_array().expect("a list").clone();
    let mut edits: Vec<String> = edits.iter().filter_map(|edit| edit.as_str().map(str::to_owned)).collect();
    edits.sort();
    edits
}

/// A backup is taken, the original goes on and syncs with a peer, and is lost or not. What the restored database, the peer
/// and the original write after that must all be there in the end, whichever meets which first.
#[test]
fn nothing_is_lost_when_an_older_backup_meets_peers_who_know_more() {
    for original_lives in [false, true] {
        for peer_first in [false, true] {
            let (fixture, of_peer) = (Fixture::new(), Fixture::new());
            let (original, peer) = (fixture.open(), of_peer.open());
            let in_original = original.default_collection().expect("default");
            add(&in_original, "x", "before");
            add(&in_original, "y", "before");
            pull(&original, &peer);
            let backup = bytes_of(&original);
            // After the backup: edits that the peer gets, of documents old and new.
            add(&in_original, "x", "after the backup");
            add(&in_original, "new", "after the backup");
            pull(&original, &peer);
            if original_lives {
                add(&in_original, "x", "original alone");
            }
            let copy = restored(&fixture, "copy", &backup);
            let in_copy = copy.default_collection().expect("default");
            // As soon as it runs again it writes, the same documents among others.
            add(&in_copy, "x", "restored");
            add(&in_copy, "y", "restored");
            add(&in_copy, "new", "restored");
            let mut all = vec![&copy, &peer];
            all.extend(original_lives.then_some(&original));
            if peer_first {
                all.reverse();
            }
            for _ in 0..4 {
                for from in &all {
                    for to in all.iter().filter(|to| !std::ptr::eq(**to, *from)) {
                        pull(from, to);
                    }
                }
            }
            let mut x = vec!["after the backup", "before", "restored"];
            x.extend(original_lives.then_some("original alone"));
            x.sort_unstable();
            for database in &all {
                let case = format!("original lives: {original_lives}, peer first: {peer_first}");
                assert_eq!(edits(database, "x"), x, "{case}");
                assert_eq!(edits(database, "y"), ["before", "restored"], "{case}");
                assert_eq!(edits(database, "new"), ["after the backup", "restored"], "{case}");
            }
            let sources: std::collections::HashSet<SourceId> = all.iter().map(|d| d.source()).collect();
            assert_eq!(sources.len(), all.len());
        }
    }
}

/// What is chosen of the files beside the store is restored, and a collection that is deleted while a backup of it is written is
/// not.
#[test]
fn a_restore_has_what_is_chosen_and_what_was_there_at_the_end() {
    let fixture = Fixture::new();
    let database = fixture.open();
    for name in ["stays", "goes"] {
        let collection = database.create_collection(name).expect("create");
        for n in 0..3 {
            collection.put(&format!("d{n}"), &json!({"n": n})).expect("put");
        }
        collection.delete("d0").expect("delete");
    }
    for name in ["trust", "group"] {
        std::fs::write(database.path().join(name), name).expect("write");
    }
    let mut bytes = Vec::new();
    let taken = database.backup(&mut bytes, |sent, _| {
        // Three documents of the one, then three of the other.
        if sent == 6 && database.collection("goes").is_some() {
            database.delete_collection("goes").expect("deleted");
        }
    });
    assert_eq!(taken.expect("backup").records, 6);
    let to = fixture.directory.path().join("copy");
    let report = Database::restore(&mut &bytes[..], &to, |name| name == "group", |_, _| ()).expect("restore");
    assert_eq!((report.documents, report.tombstones, report.files), (2, 1, vec!["group".to_owned()]));
    assert!(to.join("group").exists() && !to.join("trust").exists());
    assert!(Database::check(&to).expect("checked").is_sound());
    let copy = Database::open(&to, DatabaseConfig::default()).expect("open");
    assert_eq!(copy.collections(), ["_default", "_default.stays"]);
    // Something else stands where it would be made.
    std::fs::write(fixture.directory.path().join(".other.partial"), "").expect("write");
    let other = fixture.directory.path().join("other");
    let refused = Database::restore(&mut &bytes[..], &other, |_| true, |_, _| ());
    assert!(matches!(refused, Err(DatabaseError::Io { action: "remove", .. })), "{refused:?}");
    assert!(!other.exists());
}
