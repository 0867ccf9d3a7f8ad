//! Blobs: saved, named by documents, gone with the last of them, found damaged, continued. One file, because each test looks at
//! the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::super::store::CHUNK_BYTES;
use super::super::{Blob, Database, DatabaseConfig, DatabaseError};
use super::Fixture;
use crate::replica::blobs::{BlobDigest, BlobState};
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::{CommitOutcome, ConflictPolicy, IncomingRevision, Rejection, ReplicaStore};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes);
    bytes
}

fn save(database: &Database, content: &[u8]) -> Blob {
    database.save_blob(content, "image/png").expect("saved")
}

fn read(database: &Database, digest: &str) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    database.blob(digest).expect("no damage")?.read_to_end(&mut content).expect("readable");
    Some(content)
}

fn digest_of(blob: &Blob) -> BlobDigest {
    blob.digest().parse().expect("a digest")
}

fn file(fixture: &Fixture, digest: &BlobDigest) -> PathBuf {
    let name: String = digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
    fixture.directory.path().join("db/blobs").join(name)
}

fn files(fixture: &Fixture) -> Vec<String> {
    let Ok(entries) = fs::read_dir(fixture.directory.path().join("db/blobs")) else { return Vec::new() };
    entries.map(|entry| entry.expect("listed").file_name().into_string().expect("a text")).collect()
}

/// Lets all files seem so old.
fn age(fixture: &Fixture, by: Duration) {
    for name in files(fixture) {
        let path = fixture.directory.path().join("db/blobs").join(name);
        // The thread that sweeps may be faster.
        if let Ok(file) = fs::File::options().write(true).open(path) {
            file.set_modified(SystemTime::now() - by).expect("set");
        }
    }
}

/// Lets all that no document names be a day old, and go.
fn sweep(fixture: &Fixture, database: &Database) {
    age(fixture, DAY + Duration::from_secs(1));
    assert!(database.sweep_blobs().expect("swept"));
}

#[test]
fn what_is_saved_comes_back_whatever_its_size() {
    let fixture = Fixture::new();
    let database = fixture.open();
    for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
        let content = content(length, length as u64);
        let blob = save(&database, &content);
        assert_eq!(blob.length(), length as u64);
        assert_eq!(read(&database, blob.digest()), Some(content.clone()));
        assert_eq!(ReplicaStore::blob(&database, &digest_of(&blob)), Ok(BlobState::Whole(length as u64)));
        let mut reader = database.blob(blob.digest()).expect("no damage").expect("there");
        for at in [length / 2, 0, length, length.saturating_sub(1), length + 9] {
            let mut rest = Vec::new();
            assert_eq!(reader.seek(SeekFrom::Start(at as u64)).expect("sought"), at as u64);
            reader.read_to_end(&mut rest).expect("readable");
            assert_eq!(rest, content.get(at..).unwrap_or_default(), "{length} from {at}");
        }
        assert_eq!(reader.seek(SeekFrom::End(0)).expect("sought"), length as u64);
        assert!(reader.seek(SeekFrom::Current(-2 * CHUNK_BYTES as i64 * 3)).is_err());
    }
    let info = database.info().expect("measured");
    assert_eq!((info.blobs, info.blob_bytes), (6, 6 * CHUNK_BYTES as u64 + 1));
    // The same once more is the same file.
    let count = files(&fixture).len();
    save(&database, b"");
    assert_eq!(files(&fixture).len(), count);
    assert_eq!(read(&database, "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA="), None);
    assert_eq!(read(&database, "../../lock"), None);
}

#[test]
fn a_document_is_refused_while_a_blob_that_it_names_is_not_here() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let stranger: Blob = serde_json::from_value(json!({
        "@type": "blob", "digest": "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "length": 3,
    }))
    .expect("a blob");
    let refused = collection.put("x", &json!({"deep": [{"picture": stranger}]}));
    assert!(matches!(&refused, Err(DatabaseError::MissingBlob { digest }) if digest == stranger.digest()));
    let blob = save(&database, b"here");
    let both = database.batch(|batch| {
        batch.put(&collection, "a", &json!({"picture": blob}))?;
        batch.put(&collection, "b", &json!({"picture": stranger}))
    });
    assert!(matches!(both, Err(DatabaseError::MissingBlob { .. })));
    assert_eq!(collection.count(), 0);
    collection.put("a", &json!({"picture": blob})).expect("it is here");
    // What it names already it may name on, so that the rest of it can be changed.
    fs::remove_file(file(&fixture, &digest_of(&blob))).expect("removed");
    collection.put("a", &json!({"picture": blob, "n": 1})).expect("no worse than before");
    assert!(collection.put("b", &json!({"picture": blob})).is_err());
    let report = database.verify().expect("readable");
    assert_eq!(report.problems, 1, "{:?}", report.listed);
    assert!(report.listed[0].contains(blob.digest()), "{:?}", report.listed);
}

#[test]
fn a_blob_goes_when_the_last_document_that_names_it_has_gone() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let one = database.create_collection("one").expect("create");
    let two = database.create_collection("two").expect("create");
    let blob = save(&database, b"content");
    let body = json!({"picture": blob});
    type Way = fn(&Database, &crate::Collection);
    let ways: [(&str, Way); 5] = [
        ("overwritten", |_, c| assert!(c.put("x", &json!({})).is_ok())),
        ("deleted", |_, c| assert!(c.delete("x").expect("deleted"))),
        ("purged", |_, c| assert!(c.purge("x").expect("purged"))),
        ("expired", |d, c| {
            let before = SystemTime::now() - Duration::from_secs(1);
            c.set_expiration("x", Some(before)).expect("set");
            while d.remove_due(10).expect("removed").is_some() || c.get("x").expect("read").is_some() {}
        }),
        ("with its collection", |d, c| d.delete_collection(c.name()).expect("deleted")),
    ];
    for (name, way) in ways {
        let gone = database.create_collection("gone").expect("create");
        save(&database, b"content");
        one.put("a", &body).expect("put");
        two.put("b", &body).expect("put");
        gone.put("x", &body).expect("put");
        way(&database, &gone);
        one.delete("a").expect("deleted");
        sweep(&fixture, &database);
        assert_eq!(read(&database, blob.digest()), Some(b"content".into()), "{name}: another names it");
        two.put("b", &json!({})).expect("put");
        assert!(database.sweep_blobs().expect("swept"));
        assert_eq!(read(&database, blob.digest()), None, "{name}");
        assert_eq!(files(&fixture), [""; 0], "{name}");
        assert!(database.verify().expect("readable").is_sound());
    }
}

#[test]
fn a_blob_that_nobody_names_yet_stays_for_a_day() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let blob = save(&database, b"content");
    age(&fixture, DAY - Duration::from_secs(60));
    assert!(database.sweep_blobs().expect("swept"));
    assert!(read(&database, blob.digest()).is_some());
    age(&fixture, DAY + Duration::from_secs(60));
    // Whoever gives it again has it for another day.
    assert!(ReplicaStore::finish_blob(&database, &digest_of(&blob)).expect("whole"));
    assert!(database.sweep_blobs().expect("swept"));
    assert!(read(&database, blob.digest()).is_some());
    // A file from before the clock was set is of now.
    let path = file(&fixture, &digest_of(&blob));
    let old = fs::File::options().write(true).open(path).expect("there");
    old.set_modified(SystemTime::UNIX_EPOCH + DAY).expect("set");
    assert!(database.sweep_blobs().expect("swept"));
    assert!(read(&database, blob.digest()).is_some());
    sweep(&fixture, &database);
    assert_eq!(read(&database, blob.digest()), None);
}

#[test]
fn a_part_goes_on_after_a_crash_behind_its_last_sound_chunk() {
    let fixture = Fixture::new();
    let whole = content(3 * CHUNK_BYTES + 100, 1);
    let digest = digest_of(&save(&fixture.open(), &whole));
    fs::remove_file(file(&fixture, &digest)).expect("removed");
    let part = file(&fixture, &digest).with_extension("part");
    let length = CHUNK_BYTES * 2 + 7;
    for cut in 0..12u64 {
        let database = fixture.open();
        let store: &dyn ReplicaStore = &database;
        assert_eq!(store.append_blob(&digest, 5, &whole[5..]).expect("nothing done"), 0);
        for (at, piece) in whole[..length].chunks(10_000).enumerate() {
            let offset = at * 10_000;
            store.append_blob(&digest, offset as u64, piece).expect("added");
            // Again, and with what is here.
            let from = offset.saturating_sub(500);
            let now = store.append_blob(&digest, from as u64, &whole[from..offset + piece.len()]);
            assert_eq!(now.expect("added"), (offset + piece.len()) as u64);
        }
        assert_eq!(store.blob(&digest).expect("readable"), BlobState::Part(length as u64));
        assert!(store.read_blob(&digest, 0, 10).expect("readable").is_none(), "not whole");
        drop(database);
        let size = fs::metadata(&part).expect("there").len();
        let keep = size * cut / 11;
        fs::File::options().write(true).open(&part).expect("there").set_len(keep).expect("cut");
        let database = fixture.open();
        let store: &dyn ReplicaStore = &database;
        let BlobState::Part(known) = store.blob(&digest).expect("readable") else { panic!("no part") };
        let chunks = keep.saturating_sub(16) / (CHUNK_BYTES as u64 + 4);
        let expected = if cut == 11 { length as u64 } else { chunks * CHUNK_BYTES as u64 };
        assert_eq!(known, expected, "cut at {keep}");
        store.append_blob(&digest, known, &whole[known as usize..]).expect("added");
        assert!(store.finish_blob(&digest).expect("finished"));
        assert_eq!(read(&database, &digest.to_string()).as_ref(), Some(&whole));
        assert_eq!(files(&fixture).len(), 1);
        fs::remove_file(file(&fixture, &digest)).expect("removed");
    }
}

#[test]
fn a_part_that_is_another_content_is_given_up() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let store: &dyn ReplicaStore = &database;
    let digest = digest_of(&save(&database, b"right"));
    fs::remove_file(file(&fixture, &digest)).expect("removed");
    assert!(!store.finish_blob(&digest).expect("none"));
    store.append_blob(&digest, 0, b"wrong").expect("added");
    assert!(!store.finish_blob(&digest).expect("refused"));
    assert_eq!(store.blob(&digest).expect("readable"), BlobState::Part(0));
    assert_eq!(files(&fixture), [""; 0]);
    store.append_blob(&digest, 0, b"right").expect("added");
    assert!(store.finish_blob(&digest).expect("right"));
    assert_eq!(read(&database, &digest.to_string()), Some(b"right".into()));
    // Nobody has to send nothing.
    let nothing = "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=".parse().expect("a digest");
    assert!(store.finish_blob(&nothing).expect("right"));
    assert_eq!(store.blob(&nothing).expect("readable"), BlobState::Whole(0));
}

#[test]
fn more_parts_than_are_open_come_together() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let store: &dyn ReplicaStore = &database;
    let all: Vec<Vec<u8>> = (0..40).map(|n| content(9_000, n)).collect();
    let digests: Vec<BlobDigest> = all.iter().map(|content| digest_of(&save(&database, content))).collect();
    digests.iter().for_each(|digest| fs::remove_file(file(&fixture, digest)).expect("removed"));
    for at in (0..9_000).step_by(1_000) {
        for (digest, content) in digests.iter().zip(&all) {
            let length = store.append_blob(digest, at as u64, &content[at..at + 1_000]).expect("added");
            assert_eq!(length, at as u64 + 1_000);
        }
    }
    for (digest, content) in digests.iter().zip(&all) {
        assert!(store.finish_blob(digest).expect("right"));
        assert_eq!(read(&database, &digest.to_string()).as_ref(), Some(content));
    }
}

#[test]
fn parts_take_a_bounded_room_and_the_oldest_go() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let store: &dyn ReplicaStore = &database;
    database.store.blobs().set_part_bytes_max(10 * CHUNK_BYTES as u64);
    let digest = |n: u8| BlobDigest([n; 20]);
    for n in 0..20 {
        store.append_blob(&digest(n), 0, &content(CHUNK_BYTES, 1)).expect("added");
        let path = file(&fixture, &digest(n)).with_extension("part");
        let file = fs::File::options().write(true).open(path).expect("there");
        file.set_modified(SystemTime::now() - DAY + Duration::from_secs(n.into())).expect("set");
    }
    for n in 0..20 {
        let kept = if n < 11 { 0 } else { CHUNK_BYTES as u64 };
        assert_eq!(store.blob(&digest(n)).expect("readable"), BlobState::Part(kept), "{n}");
    }
    // And those that nobody continued for a week.
    age(&fixture, 7 * DAY - Duration::from_secs(60));
    assert!(database.sweep_blobs().expect("swept"));
    assert_eq!(files(&fixture).len(), 9);
    age(&fixture, 7 * DAY + Duration::from_secs(60));
    assert!(database.sweep_blobs().expect("swept"));
    assert_eq!(files(&fixture), [""; 0]);
}

#[test]
fn damage_is_an_error_and_what_is_sound_need_not_come_again() {
    let fixture = Fixture::new();
    let whole = content(3 * CHUNK_BYTES, 3);
    let digest = {
        let database = fixture.open();
        let blob = save(&database, &whole);
        database.default_collection().expect("default").put("x", &json!({"p": blob})).expect("put");
        digest_of(&blob)
    };
    let path = file(&fixture, &digest);
    let sound = fs::read(&path).expect("readable");
    let middle = 16 + CHUNK_BYTES + 4 + 900;
    // Each is the byte that is flipped, and how much of the content is sound before.
    for (at, before) in [(3, 3), (12, 3), (20, 0), (middle, 1), (sound.len() - 1, 2)] {
        let mut bad = sound.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).expect("written");
        let database = fixture.open();
        let store: &dyn ReplicaStore = &database;
        let mut given = Vec::new();
        let error = match database.blob(&digest.to_string()) {
            Ok(reader) => {
                let error = reader.expect("there").read_to_end(&mut given).expect_err("damaged");
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
                error.to_string()
            }
            Err(error) => error.to_string(),
        };
        assert!(error.contains(&digest.to_string()), "{error}");
        assert_eq!(given, whole[..given.len()], "no unsound byte is given out");
        let known = (before * CHUNK_BYTES) as u64;
        assert_eq!(store.blob(&digest).expect("readable"), BlobState::Part(known), "byte {at}");
        assert_eq!(read(&database, &digest.to_string()), None);
        // However long that takes.
        age(&fixture, 30 * DAY);
        assert!(database.sweep_blobs().expect("swept"));
        store.append_blob(&digest, known, &whole[known as usize..]).expect("added");
        assert!(store.finish_blob(&digest).expect("right"));
        assert_eq!(fs::read(&path).expect("readable"), sound);
        assert!(database.verify().expect("readable").is_sound());
    }
    for length in [0, 15, 16, 17, middle, sound.len() - 1] {
        fs::write(&path, &sound[..length]).expect("written");
        let database = fixture.open();
        assert!(!database.verify().expect("readable").is_sound(), "cut to {length}");
        assert!(matches!(ReplicaStore::blob(&database, &digest), Ok(BlobState::Part(_))));
        database.save_blob(&*whole, "").expect("saved");
        assert!(database.verify().expect("readable").is_sound());
    }
}

#[test]
fn a_revision_of_a_peer_is_taken_once_its_blobs_are_here() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let store: &dyn ReplicaStore = &database;
    let digest = digest_of(&save(&database, b"from afar"));
    fs::remove_file(file(&fixture, &digest)).expect("removed");
    let collection = store.collection("_default").expect("default");
    let body = json!({"p": {"@type": "blob", "digest": digest.to_string()}});
    let incoming = IncomingRevision {
        collection,
        id: "x".into(),
        vector: VersionVector::new(Version { time: 1, source: SourceId([9; 16]) }),
        deleted: false,
        body: body.to_string().into(),
    };
    let commit = || {
        let outcomes = store.commit(std::slice::from_ref(&incoming), ConflictPolicy::Refuse);
        outcomes.expect("a commit").remove(0)
    };
    let missing = Rejection::MissingBlob { digest: digest.to_string() };
    assert_eq!(commit(), CommitOutcome::Rejected(missing.clone()));
    store.append_blob(&digest, 0, b"from afar").expect("added");
    assert_eq!(commit(), CommitOutcome::Rejected(missing.clone()), "a part is not enough");
    assert!(store.finish_blob(&digest).expect("right"));
    assert_eq!(commit(), CommitOutcome::Inserted { sequence: 1 });
    assert_eq!(commit(), CommitOutcome::AlreadyKnown { sequence: 1 });
    sweep(&fixture, &database);
    assert_eq!(read(&database, &digest.to_string()), Some(b"from afar".into()));
}

/// Whatever is done: what documents name is readable, and nothing else is left.
#[test]
fn exactly_what_documents_name_is_here() {
    let seed = std::env::var("GATTWAY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("GATTWAY_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let fixture = Fixture::new();
    let mut database = fixture.open();
    let contents: Vec<Vec<u8>> = (0..8).map(|n| content(rng.usize(0..70_000), n)).collect();
    let digests: Vec<String> = contents.iter().map(|c| save(&database, c).digest().to_owned()).collect();
    let mut model: BTreeMap<(String, String), BTreeSet<usize>> = BTreeMap::new();
    for _ in 0..150 {
        let name = format!("c{}", rng.usize(0..3));
        // Also an ID that is the text of a digest, which a body has in short.
        let id =
            if rng.u8(0..4) == 0 { digests[rng.usize(0..8)].clone() } else { format!("d{}", rng.u8(0..5)) };
        let key = (name.clone(), id.clone());
        match rng.u8(0..11) {
            0..=4 => {
                let collection = database.create_collection(&name).expect("created");
                let named: BTreeSet<usize> = (0..rng.usize(0..4)).map(|_| rng.usize(0..8)).collect();
                named.iter().for_each(|&n| drop(save(&database, &contents[n])));
                let blob = |&n: &usize| json!({"@type": "blob", "digest": digests[n], "length": 1});
                let all: Vec<Value> = named.iter().map(blob).collect();
                collection.put(&id, &json!({"list": all, "note": digests[0]})).expect("put");
                model.insert(key, named);
            }
            5 => {
                if let Some(collection) = database.collection(&name) {
                    collection.delete(&id).expect("deleted");
                    model.remove(&key);
                }
            }
            6 => {
                if let Some(collection) = database.collection(&name) {
                    collection.purge(&id).expect("purged");
                    model.remove(&key);
                }
            }
            7 => {
                if let Some(collection) = database.collection(&name)
                    && collection.get(&id).expect("read").is_some()
                {
                    let before = SystemTime::now() - Duration::from_secs(1);
                    collection.set_expiration(&id, Some(before)).expect("set");
                    while database.remove_due(10).expect("removed").is_some() {}
                    model.remove(&key);
                }
            }
            8 => {
                if rng.u8(0..4) == 0 && database.collection(&name).is_some() {
                    database.delete_collection(&name).expect("deleted");
                    model.retain(|(collection, _), _| *collection != name);
                }
            }
            9 => assert!(database.compact().is_ok()),
            _ => {
                drop(database);
                database = fixture.open();
            }
        }
        if rng.u8(0..10) == 0 {
            sweep(&fixture, &database);
            let named: BTreeSet<usize> = model.values().flatten().copied().collect();
            for (n, digest) in digests.iter().enumerate() {
                let expected = named.contains(&n).then(|| contents[n].clone());
                assert_eq!(read(&database, digest), expected, "seed {seed}");
            }
            assert_eq!(files(&fixture).len(), named.len(), "seed {seed}");
            let report = database.verify().expect("readable");
            assert!(report.is_sound(), "seed {seed}: {:?}", report.listed);
        }
    }
}

#[test]
fn what_a_killed_process_left_goes_and_what_it_had_named_stays() {
    let fixture = Fixture::new();
    let blob = {
        let database = fixture.open();
        let blob = save(&database, b"named");
        database.default_collection().expect("default").put("x", &json!({"p": blob})).expect("put");
        blob
    };
    fs::write(fixture.directory.path().join("db/blobs/new-0"), b"half").expect("written");
    fs::write(fixture.directory.path().join("db/blobs/note.txt"), b"mine").expect("written");
    let database = fixture.open();
    let mut left = files(&fixture);
    left.sort_unstable();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(left[1], "note.txt", "what is not ours stays");
    sweep(&fixture, &database);
    assert!(read(&database, blob.digest()).is_some());
}

/// An earlier release keeps no table of what documents name.
#[test]
fn documents_that_are_in_no_table_are_looked_through_before_anything_goes() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let blobs: Vec<Blob> = (0..3u8).map(|n| save(&database, &[n])).collect();
    for (n, blob) in blobs.iter().enumerate().take(2) {
        collection.put(&format!("d{n}"), &json!({"p": blob})).expect("put");
    }
    assert!(database.sweep_blobs().expect("swept"));
    database.store.forget_blob_table();
    sweep(&fixture, &database);
    let here: Vec<bool> = blobs.iter().map(|blob| read(&database, blob.digest()).is_some()).collect();
    assert_eq!(here, [true, true, false]);
    assert!(database.verify().expect("readable").is_sound());
    collection.delete("d0").expect("deleted");
    sweep(&fixture, &database);
    assert_eq!(read(&database, blobs[0].digest()), None);
}

#[test]
fn a_full_disk_is_a_typed_error_and_leaves_nothing_half_named() {
    let fixture = Fixture::new();
    let database = fixture.try_open(DatabaseConfig::default()).expect("open");
    let digest = digest_of(&save(&database, b"content"));
    database.close().expect("closed");
    assert!(database.save_blob(&b"x"[..], "").is_err(), "closed");
    drop(database);
    let config = DatabaseConfig { keep_free_bytes: u64::MAX / 2, ..DatabaseConfig::default() };
    let database = fixture.try_open(config).expect("open");
    assert!(matches!(database.save_blob(&b"x"[..], ""), Err(DatabaseError::Full { .. })));
    let refused = ReplicaStore::append_blob(&database, &BlobDigest([1; 20]), 0, b"x").expect_err("full");
    assert!(refused.recoverable, "{refused}");
    assert_eq!(files(&fixture).iter().filter(|name| name.starts_with("new-")).count(), 0);
    assert!(matches!(ReplicaStore::blob(&database, &digest), Ok(BlobState::Whole(7))));
}

#[test]
fn a_backup_has_the_blobs_that_documents_name() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.create_collection("plant.pictures").expect("create");
    let contents = [content(3 * CHUNK_BYTES + 5, 1), Vec::new(), b"small".to_vec()];
    let blobs: Vec<Blob> = contents.iter().map(|content| save(&database, content)).collect();
    save(&database, b"nobody names it");
    let damaged = save(&database, b"damaged");
    collection.put("x", &json!({"all": blobs, "other": damaged})).expect("put");
    let path = file(&fixture, &digest_of(&damaged));
    let mut bad = fs::read(&path).expect("there");
    bad[20] ^= 1;
    fs::write(&path, bad).expect("written");
    let mut backup = Vec::new();
    let info = database.backup(&mut backup, |_, _| ()).expect("backup");
    assert_eq!(info.blobs, 3);
    assert_eq!(Database::check_backup(&mut &backup[..]).expect("whole").blobs, 3);
    let to = fixture.directory.path().join("copy");
    let report = Database::restore(&mut &backup[..], &to, |_| true, |_, _| ()).expect("restored");
    assert_eq!(report.backup.blobs, 3);
    let copy = Database::open(&to, DatabaseConfig::default()).expect("open");
    for (blob, content) in blobs.iter().zip(&contents) {
        assert_eq!(read(&copy, blob.digest()).as_ref(), Some(content));
    }
    assert_eq!(copy.info().expect("measured").blobs, 3);
    let problems = copy.verify().expect("readable").listed;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains(damaged.digest()), "{problems:?}");
    // Names are there, too.
    copy.collection("plant.pictures").expect("there").delete("x").expect("deleted");
    for entry in fs::read_dir(to.join("blobs")).expect("listed") {
        let file = fs::File::options().write(true).open(entry.expect("listed").path()).expect("there");
        file.set_modified(SystemTime::now() - 2 * DAY).expect("set");
    }
    assert!(copy.sweep_blobs().expect("swept"));
    assert_eq!(copy.info().expect("measured").blobs, 0);
}

#[test]
fn repair_takes_over_what_is_whole_and_says_what_is_not() {
    let fixture = Fixture::new();
    let (whole, damaged) = {
        let database = fixture.open();
        let (whole, damaged) = (save(&database, &content(CHUNK_BYTES + 1, 1)), save(&database, b"damaged"));
        let collection = database.default_collection().expect("default");
        collection.put("x", &json!({"all": [whole, damaged]})).expect("put");
        (whole, damaged)
    };
    let path = file(&fixture, &digest_of(&damaged));
    let mut bad = fs::read(&path).expect("there");
    bad[20] ^= 1;
    fs::write(&path, &bad).expect("written");
    let (from, to) = (fixture.directory.path().join("db"), fixture.directory.path().join("new"));
    let report = Database::repair(&from, &to, |_| ()).expect("repaired");
    assert_eq!((report.documents, report.ranges.len()), (1, 1), "{report:?}");
    assert!(report.ranges[0].contains(damaged.digest()), "{report:?}");
    assert_eq!(fs::read(&path).expect("there"), bad, "nothing of it is changed");
    let database = Database::open(&to, DatabaseConfig::default()).expect("open");
    assert_eq!(read(&database, whole.digest()).map(|content| content.len()), Some(CHUNK_BYTES + 1));
    assert_eq!(database.verify().expect("readable").problems, 1);
}

/// A power cut leaves no name without its content, and no document without its blob.
#[test]
fn content_is_synced_before_it_has_its_name() {
    let fixture = Fixture::new();
    let database = fixture.open();
    save(&database, b"the directory is made");
    crate::durable::synced::take();
    save(&database, b"content");
    assert_eq!(crate::durable::synced::take(), ["new-1", "/"]);
    let digest = digest_of(&save(&database, b"part"));
    fs::remove_file(file(&fixture, &digest)).expect("removed");
    crate::durable::synced::take();
    ReplicaStore::append_blob(&database, &digest, 0, b"part").expect("added");
    assert!(ReplicaStore::finish_blob(&database, &digest).expect("right"));
    let name = file(&fixture, &digest).with_extension("part");
    let name = name.file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(crate::durable::synced::take(), [name, "/".into()]);
}

/// Before a blob goes, stable storage has it that no document names it.
#[test]
fn a_blob_stays_while_a_power_cut_could_bring_its_document_back() {
    let fixture = Fixture::new();
    let config =
        DatabaseConfig { durability: super::super::Durability::Relaxed, ..DatabaseConfig::default() };
    let database = fixture.try_open(config).expect("open");
    let collection = database.default_collection().expect("default");
    let blob = save(&database, b"content");
    collection.put("x", &json!({"p": blob})).expect("put");
    database.sync().expect("synced");
    collection.delete("x").expect("deleted");
    let path = file(&fixture, &digest_of(&blob));
    let was_there = std::sync::Arc::new(std::sync::atomic::AtomicU8::new(0));
    let seen = std::sync::Arc::clone(&was_there);
    database.store.observe_syncs(move || {
        let seen_now = if path.exists() { 1 } else { 2 };
        let _ = seen.compare_exchange(0, seen_now, Ordering::SeqCst, Ordering::SeqCst);
    });
    sweep(&fixture, &database);
    assert_eq!(read(&database, blob.digest()), None);
    assert_eq!(was_there.load(Ordering::SeqCst), 1, "it was there when the deletion was synced");
}
