//! Documents that expire or are purged: from when on, for whom, and that they stay away.
//!
//! One file, because all of it is one device and its oracle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::json;

use super::Fixture;
use crate::database::store::MARKS_MAX;
use crate::database::{Collection, Database, DatabaseConfig, DatabaseError, Document, SimulatedDisk};
use crate::replica::revision::{Causality, SourceId, VersionVector};
use crate::replica::store::{CollectionId, CommitOutcome, ConflictPolicy, IncomingRevision, ReplicaStore};

const DEFAULT: CollectionId = CollectionId(0);

/// When the devices begin, seconds since 1970.
const START: u64 = 1_795_000_000;

/// A database on a simulated disk, with a wall clock that the test moves.
struct Device {
    disk: SimulatedDisk,
    database: Option<Database>,
    now: Arc<AtomicU64>,
}

impl Device {
    fn new(name: u8) -> Device {
        let now = Arc::new(AtomicU64::new(START));
        let clock = Arc::clone(&now);
        let wall = move || clock.load(Ordering::Relaxed) * 1_000_000_000;
        let disk = SimulatedDisk::new(u64::from(name), SourceId([name; 16]), wall);
        let mut device = Device { disk, database: None, now };
        device.reopen();
        device
    }

    fn reopen(&mut self) {
        drop(self.database.take());
        self.database = Some(Database::open_simulated(&self.disk, DatabaseConfig::default()).expect("open"));
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("open")
    }

    fn collection(&self) -> Collection {
        self.database().default_collection().expect("default")
    }

    fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    /// In so many seconds from now.
    fn at(&self, seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(self.now.load(Ordering::Relaxed) + seconds))
    }

    fn put(&self, id: &str, n: u64) {
        self.collection().put(id, &json!({ "n": n })).expect("put");
    }

    fn vector(&self, id: &str) -> Option<VersionVector> {
        self.database().revision(DEFAULT, id).expect("read").map(|change| change.vector)
    }

    /// Gives a peer's revision of a document to this one.
    fn take(&self, from: &Device, id: &str) -> CommitOutcome {
        let change = from.database().document(DEFAULT, id).expect("read").expect("there");
        let revision = IncomingRevision {
            collection: DEFAULT,
            id: change.id,
            vector: change.vector,
            deleted: change.deleted,
            body: change.body.expect("asked for"),
        };
        self.database().commit(&[revision], ConflictPolicy::Refuse).expect("commit").remove(0)
    }

    /// IDs that each way of reading shows; all must show the same.
    fn shown(&self) -> Vec<String> {
        let (database, collection) = (self.database(), self.collection());
        let listed: Vec<String> = collection.iter().map(|d| d.expect("readable").id().to_owned()).collect();
        let living = |changes: Vec<(String, bool)>| {
            let mut ids: Vec<String> =
                changes.into_iter().filter(|(_, deleted)| !deleted).map(|(id, _)| id).collect();
            ids.sort_unstable();
            ids
        };
        let feed = collection.changes_since(0, usize::MAX).expect("changes");
        assert_eq!(living(feed.into_iter().map(|change| (change.id, change.deleted)).collect()), listed);
        let feed = database.changes(DEFAULT, 0, usize::MAX, true).expect("changes");
        assert_eq!(living(feed.into_iter().map(|change| (change.id, change.deleted)).collect()), listed);
        assert_eq!(collection.count(), listed.len() as u64);
        assert_eq!(database.info().expect("info").collections[0].documents, listed.len() as u64);
        for id in &listed {
            assert!(collection.get(id).expect("read").is_some() && collection.knows(id).expect("read"));
        }
        listed
    }

    fn check(&self) {
        let report = self.database().verify().expect("verify");
        assert!(report.is_sound(), "{report:?}");
    }
}

#[test]
fn what_has_expired_is_gone_for_everybody_at_that_moment() {
    let mut device = Device::new(1);
    for (n, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        device.put(id, n as u64);
    }
    let collection = device.collection();
    collection.set_expiration("a", device.at(60)).expect("set");
    collection.set_expiration("b", device.at(60)).expect("set");
    collection.set_expiration("c", device.at(60)).expect("set");
    collection.set_expiration("c", None).expect("set");
    assert!(matches!(collection.set_expiration("e", device.at(60)), Err(DatabaseError::NotFound { .. })));
    // An edit and a deletion leave the time.
    device.put("a", 10);
    assert!(collection.delete("b").expect("delete"));
    for id in ["a", "b"] {
        assert_eq!(collection.expiration(id).expect("read"), device.at(60), "{id}");
    }
    assert_eq!(
        (collection.expiration("c").expect("read"), collection.expiration("e").expect("read")),
        (None, None)
    );
    device.pass(59);
    assert_eq!(device.shown(), ["a", "c", "d"]);
    assert!(device.vector("b").is_some(), "a tombstone");
    device.pass(1);
    // Nothing has removed them yet, and nothing does in between: they are hidden, whoever opens the database.
    drop(collection);
    for _ in 0..2 {
        assert_eq!(device.shown(), ["c", "d"]);
        for id in ["a", "b"] {
            assert_eq!(device.vector(id), None);
            assert!(device.database().is_expired(DEFAULT, id).expect("read"));
            assert!(!device.collection().knows(id).expect("read"));
            assert!(!device.database().is_expired(DEFAULT, "c").expect("read"), "it stays");
            assert_eq!(device.collection().expiration(id).expect("read"), None);
        }
        let gone = device.collection().set_expiration("a", device.at(60));
        assert!(matches!(gone, Err(DatabaseError::NotFound { .. })), "{gone:?}");
        device.check();
        device.database().compact().expect("compact");
        device.reopen();
    }
    let before = device.database().verify().expect("verify");
    assert!(before.documents + before.tombstones <= 4);
    assert_eq!(device.database().remove_due(64).expect("remove"), None);
    assert_eq!(device.shown(), ["c", "d"]);
    let after = device.database().verify().expect("verify");
    assert_eq!((after.documents, after.tombstones, after.problems), (2, 0, 0), "{after:?}");
}

/// What goes later stays until then, also while something else is due and is not removed yet.
#[test]
fn each_document_goes_at_its_own_time() {
    let mut device = Device::new(1);
    for (id, seconds) in [("a", 60), ("b", 120)] {
        device.put(id, 1);
        device.collection().set_expiration(id, device.at(seconds)).expect("set");
    }
    device.pass(60);
    for _ in 0..2 {
        assert_eq!(device.shown(), ["b"]);
        assert!(!device.database().is_expired(DEFAULT, "b").expect("read"));
        device.put("b", 2);
        assert_eq!(device.collection().expiration("b").expect("read"), device.at(60));
        device.reopen();
    }
    let next = device.database().remove_due(64).expect("remove");
    assert_eq!(next, Some((START + 120) * 1_000));
    device.pass(60);
    assert!(device.shown().is_empty());
    device.check();
}

/// What rules of age see and take away: documents as they were looked at, each once, and not what was changed meanwhile. What was
/// removed stays away, also after a restart; whether what comes late and was never here is taken, the rule says.
#[test]
fn what_is_removed_for_its_age_is_what_was_looked_at() {
    for takes_late in [false, true] {
        let (mut device, peer) = (Device::new(1), Device::new(2));
        peer.put("late", 1);
        device.pass(10);
        (0..5).for_each(|n| device.put(&format!("d{n}"), n));
        let collection = device.collection();
        assert!(collection.delete("d3").expect("delete"));
        (0..5).for_each(|n| drop(peer.take(&device, &format!("d{n}"))));
        assert_eq!(collection.wall(), (START + 10) * 1_000_000_000);
        let (aged, last) = collection.ages_since(0, 50).expect("look");
        let seen: Vec<(&str, u64)> = aged.iter().map(|it| (&*it.id, it.sequence)).collect();
        assert_eq!((&seen[..], last), (&[("d0", 1), ("d1", 2), ("d2", 3), ("d4", 5)][..], 6));
        // Times of versions are rounded.
        let is_of_now = |time: u64| time.abs_diff(collection.wall()) < 1_000_000;
        assert!(aged.iter().all(|it| it.time.is_some_and(is_of_now) && it.bytes > 2));
        let dead = |until| collection.tombstones_since(0, until, 50).expect("look");
        assert_eq!(dead(u64::MAX), (vec![("d3".into(), 6)], 6));
        assert_eq!(dead(5), (vec![], 5));
        device.put("d1", 9);
        let remove = seen.iter().copied().chain([("d3", 6)]);
        assert_eq!(collection.remove_aged(remove, takes_late).expect("remove"), 3);
        assert_eq!(device.shown(), ["d1"], "changed since it was looked at");
        let tombstones = |place| collection.remove_tombstones([place]).expect("remove");
        assert_eq!([("d1", 7), ("d3", 5), ("d3", 6)].map(tombstones), [0, 0, 1]);
        drop(collection);
        for _ in 0..2 {
            for id in ["d0", "d2", "d3", "d4"] {
                let outcome = device.take(&peer, id);
                assert!(matches!(outcome, CommitOutcome::AlreadyKnown { .. }), "{id}: {outcome:?}");
            }
            device.check();
            device.reopen();
        }
        let is_taken = matches!(device.take(&peer, "late"), CommitOutcome::Inserted { .. });
        assert_eq!(is_taken, takes_late);
        device.pass(1);
        device.put("newest", 1);
        let gone = device.collection().keep_newest(1).expect("remove");
        assert_eq!(gone.last().map(|id| &**id), Some("d1"));
        assert_eq!(device.shown(), ["newest"]);
    }
}

#[test]
fn what_is_made_anew_in_place_of_what_has_expired_is_a_new_document() {
    let device = Device::new(1);
    let collection = device.collection();
    device.put("a", 1);
    let before = device.vector("a").expect("there");
    collection.set_expiration("a", device.at(1)).expect("set");
    device.pass(1);
    let mut stale = Document::new("a", Default::default());
    stale.body_mut().insert("n".into(), 2.into());
    collection.save(&mut stale).expect("there is none, so it is new");
    let after = device.vector("a").expect("there");
    assert!(after.history.is_empty() && after.current.time > before.current.time, "{after:?}");
    assert_eq!(collection.expiration("a").expect("read"), None);
    // With its time in one commit; all of a batch or nothing.
    let batch = device.database().batch(|batch| {
        batch.put(&collection, "b", &json!({}))?;
        batch.set_expiration(&collection, "b", device.at(9))?;
        batch.set_expiration(&collection, "c", device.at(9))
    });
    assert!(matches!(batch, Err(DatabaseError::NotFound { .. })));
    assert_eq!(device.shown(), ["a"]);
    device
        .database()
        .batch(|batch| {
            batch.put(&collection, "b", &json!({}))?;
            batch.set_expiration(&collection, "b", device.at(9))
        })
        .expect("batch");
    assert_eq!(collection.expiration("b").expect("read"), device.at(9));
    device.database().delete_collection("_default").expect("delete");
    assert_eq!(device.database().remove_due(64).expect("remove"), None);
    device.check();
}

/// The thread that does it, on a real disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_has_expired_is_removed_without_anybody_asking() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    for n in 0..200 {
        collection.put(&format!("d{n}"), &json!({ "n": n })).expect("put");
    }
    let mut changed = database.watch();
    let records = || {
        let report = database.verify().expect("verify");
        assert!(report.is_sound(), "{report:?}");
        report.documents
    };
    assert_eq!(records(), 200);
    let soon = SystemTime::now() + Duration::from_millis(20);
    database
        .batch(|b| (0..150).try_for_each(|n| b.set_expiration(&collection, &format!("d{n}"), Some(soon))))
        .expect("set");
    let all_gone = async {
        while records() > 50 {
            changed.changed().await.expect("open");
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all_gone).await.expect("they are removed");
    assert_eq!(collection.count(), 50);
    // A database that was closed meanwhile goes on where it was.
    collection.set_expiration("d199", Some(SystemTime::now() + Duration::from_millis(50))).expect("set");
    drop((collection, database));
    let database = fixture.open();
    let mut changed = database.watch();
    let all_gone = async {
        while database.verify().expect("verify").documents > 49 {
            changed.changed().await.expect("open");
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all_gone).await.expect("it is removed");
    database.close().expect("close");
}

#[derive(Clone, Debug)]
enum Step {
    Edit { at: usize, id: u8 },
    Delete { at: usize, id: u8 },
    Copy { from: usize, to: usize, id: u8 },
    Purge { id: u8 },
    Expire { id: u8 },
    Forget,
    Remove,
    Reopen,
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (at, id) = (0usize..3, 0u8..3);
    let step = prop_oneof![
        3 => (at.clone(), id.clone()).prop_map(|(at, id)| Step::Edit { at, id }),
        1 => (at.clone(), id.clone()).prop_map(|(at, id)| Step::Delete { at, id }),
        8 => (at.clone(), 1usize..3, id.clone())
            .prop_map(|(from, step, id)| Step::Copy { from, to: (from + step) % 3, id }),
        2 => id.clone().prop_map(|id| Step::Purge { id }),
        2 => id.prop_map(|id| Step::Expire { id }),
        2 => Just(Step::Forget),
        1 => Just(Step::Remove),
        1 => Just(Step::Reopen),
        1 => Just(Step::Compact),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Of three devices the first removes documents. What is not there comes from another exactly if it is no revision that was
    /// removed, nor an ancestor of one.
    #[test]
    fn what_was_removed_comes_back_only_when_it_was_changed(steps in steps()) {
        let mut devices = [1, 2, 3].map(Device::new);
        let mut removed: BTreeMap<u8, Vec<VersionVector>> = BTreeMap::new();
        // The newest version of each author in a tombstone that was forgotten.
        let mut forgotten: BTreeMap<SourceId, u64> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            devices.iter().for_each(|device| device.pass(1));
            match step {
                Step::Edit { at, id } => devices[at].put(&id.to_string(), n as u64),
                Step::Delete { at, id } => drop(devices[at].collection().delete(&id.to_string())),
                Step::Copy { from, to, id } => {
                    let name = id.to_string();
                    let Some(vector) = devices[from].vector(&name) else { continue };
                    let is_there = devices[to].vector(&name).is_some();
                    let of_it = removed.get(&id).filter(|_| to == 0 && !is_there);
                    let is_old = |old: &VersionVector| matches!(vector.compare(old), Causality::Same | Causality::Older);
                    let of_author = forgotten.get(&vector.current.source).filter(|_| to == 0 && !is_there);
                    let is_behind = of_author.is_some_and(|time| vector.current.time <= *time);
                    let stays_away = is_behind || of_it.is_some_and(|removed| removed.iter().any(is_old));
                    let said = devices[to].database().is_removed(DEFAULT, &name, &vector, true).expect("read");
                    prop_assert!(is_there || said == stays_away, "{name}: {vector:?}, removed {removed:?}");
                    let outcome = devices[to].take(&devices[from], &name);
                    if !is_there {
                        let is_inserted = matches!(outcome, CommitOutcome::Inserted { .. });
                        prop_assert_eq!(is_inserted, !stays_away, "{}: {:?}", name, outcome);
                    }
                }
                Step::Purge { id } | Step::Expire { id } => {
                    let name = id.to_string();
                    let Some(vector) = devices[0].vector(&name) else { continue };
                    removed.entry(id).or_default().push(vector);
                    let collection = devices[0].collection();
                    match step {
                        Step::Purge { .. } => prop_assert!(collection.purge(&name).expect("purge")),
                        _ => collection.set_expiration(&name, devices[0].at(0)).expect("set"),
                    }
                    prop_assert_eq!(devices[0].vector(&name), None);
                }
                Step::Forget => {
                    let collection = devices[0].collection();
                    let (found, _) = collection.tombstones_since(0, u64::MAX, 9).expect("look");
                    for (id, _) in &found {
                        let vector = devices[0].vector(id).expect("there");
                        for version in vector.versions() {
                            let time = forgotten.entry(version.source).or_default();
                            *time = version.time.max(*time);
                        }
                        removed.entry(id.parse().expect("a number")).or_default().push(vector);
                    }
                    let ids = found.iter().map(|(id, sequence)| (&**id, *sequence));
                    let count = collection.remove_tombstones(ids).expect("remove");
                    prop_assert_eq!(count, found.len() as u64);
                    for (id, _) in &found {
                        prop_assert_eq!(devices[0].vector(id), None);
                    }
                }
                Step::Remove => drop(devices[0].database().remove_due(2).expect("remove")),
                Step::Reopen => devices[0].reopen(),
                Step::Compact => drop(devices[0].database().compact().expect("compact")),
            }
            devices[0].shown();
        }
        devices[0].check();
    }
}

/// Marks are few: the oldest go when there are too many, and all after a year.
#[test]
fn marks_of_what_was_removed_are_bounded() {
    let (device, peer) = (Device::new(1), Device::new(2));
    let count = MARKS_MAX + 200;
    for n in 0..count {
        peer.put(&format!("d{n}"), n);
        device.take(&peer, &format!("d{n}"));
        device.pass(60);
        device.collection().purge(&format!("d{n}")).expect("purge");
    }
    device.check();
    let comes = |n: u64| matches!(device.take(&peer, &format!("d{n}")), CommitOutcome::Inserted { .. });
    assert!(comes(0) && comes(199) && !comes(201) && !comes(count - 1));
    assert_eq!(device.database().store.marks(), MARKS_MAX);
    device.pass(367 * 24 * 3600);
    for n in 0..count {
        // Each commit that makes marks drops some.
        let id = format!("new{n}");
        device.put(&id, n);
        device.collection().purge(&id).expect("purge");
    }
    device.check();
    assert!(comes(count - 1), "it was forgotten after a year");
}

/// A copy of the database knows what was removed, and when the rest goes.
#[test]
fn a_backup_and_a_repair_keep_what_goes_and_what_has_gone() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.create_collection("plant.readings").expect("create");
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    for id in ["a", "b", "c"] {
        collection.put(id, &json!({ "id": id })).expect("put");
    }
    collection.set_expiration("a", Some(end)).expect("set");
    let key = ReplicaStore::collection(&database, "plant.readings").expect("there");
    let change = database.document(key, "b").expect("read").expect("there");
    let revision = |of: CollectionId| IncomingRevision {
        collection: of,
        id: change.id.clone(),
        vector: change.vector.clone(),
        deleted: false,
        body: change.body.clone().expect("asked for"),
    };
    collection.purge("b").expect("purge");
    collection.set_expiration("c", Some(SystemTime::UNIX_EPOCH)).expect("set");
    let mut backup = Vec::new();
    database.backup(&mut backup, |_, _| ()).expect("backup");
    let path = database.path().to_owned();
    drop((collection, database));
    let to = fixture.directory.path().join("restored");
    Database::restore(&mut backup.as_slice(), &to, |_| true, |_, _| ()).expect("restore");
    let repaired = fixture.directory.path().join("repaired");
    Database::repair(&path, &repaired, |_| ()).expect("repair");
    for path in [to, repaired] {
        let report = Database::check(&path).expect("check");
        assert!(report.is_sound(), "{report:?}");
        let database = Database::open(&path, DatabaseConfig::default()).expect("open");
        let collection = database.collection("plant.readings").expect("there");
        assert_eq!(collection.expiration("a").expect("read"), Some(end));
        assert_eq!(collection.get("c").expect("read"), None);
        let key = ReplicaStore::collection(&database, "plant.readings").expect("there");
        let outcome = database.commit(&[revision(key)], ConflictPolicy::Refuse).expect("commit").remove(0);
        assert!(matches!(outcome, CommitOutcome::AlreadyKnown { .. }), "{outcome:?}");
        // In another collection it is nobody's.
        let outcome =
            database.commit(&[revision(DEFAULT)], ConflictPolicy::Refuse).expect("commit").remove(0);
        assert!(matches!(outcome, CommitOutcome::Inserted { .. }), "{outcome:?}");
    }
}
