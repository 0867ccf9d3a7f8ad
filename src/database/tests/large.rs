//! Commits that are larger than the log may grow between two syncs, and that bound itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{Fixture, contents};
use crate::database::store::{SEGMENT_BYTES, log_end};
use crate::database::{Collection, Database};
use crate::replica::store::ReplicaStore;

fn text(random: &mut fastrand::Rng, len: usize) -> String {
    (0..len).map(|_| random.alphanumeric()).collect()
}

/// Saves documents as one commit.
fn save(
    database: &Database,
    collection: &Collection,
    ids: std::ops::Range<u32>,
    random: &mut fastrand::Rng,
    len: usize,
) {
    let bodies: Vec<_> = ids.map(|n| (format!("d{n:05}"), json!({"text": text(random, len)}))).collect();
    database.batch(|b| bodies.iter().try_for_each(|(id, body)| b.put(collection, id, body))).expect("saved");
}

/// With two segments begun since the last sync, a power cut may leave the second without the first, and sled takes that for a whole
/// log. Whatever is done, at most one is begun between two syncs.
#[test]
fn at_most_one_segment_is_begun_between_two_syncs() {
    const SEGMENT: u64 = SEGMENT_BYTES as u64;
    let mut random = fastrand::Rng::with_seed(7);
    let fixture = Fixture::new();
    let config = crate::database::DatabaseConfig {
        durability: crate::database::Durability::Relaxed,
        ..crate::database::DatabaseConfig::default()
    };
    let database = fixture.try_open(config).expect("open");
    let collection = database.default_collection().expect("default");
    let log = fixture.directory.path().join("db/log-000001");
    let grown = Arc::new(Mutex::new((log_end(&log), 0, 0)));
    let (seen, path) = (Arc::clone(&grown), log.clone());
    database.store.observe_syncs(move || {
        let end = log_end(&path);
        let mut seen = seen.lock().expect("lock");
        let begun = (end - 1) / SEGMENT - (seen.0 - 1) / SEGMENT;
        *seen = (end, seen.1.max(begun), seen.2 + 1);
    });
    let mut all = Vec::new();
    let mut stage = |what: &'static str| {
        database.sync().expect("synced");
        let mut seen = grown.lock().expect("lock");
        all.push((what, std::mem::take(&mut seen.1), std::mem::take(&mut seen.2)));
    };
    for n in 0..300 {
        save(&database, &collection, n..n + 1, &mut random, 200);
    }
    stage("single documents");
    save(&database, &collection, 0..40, &mut random, 300);
    stage("a batch that fits");
    for _ in 0..3 {
        save(&database, &collection, 0..2000, &mut random, 100);
    }
    stage("the same documents again");
    save(&database, &collection, 3000..3100, &mut random, 4000);
    stage("blocks of their own");
    save(&database, &collection, 4000..4002, &mut random, 900_000);
    stage("documents of many pieces");
    let delete = |ids: std::ops::Range<u32>| {
        database
            .batch(|b| ids.clone().try_for_each(|n| b.delete(&collection, &format!("d{n:05}"))))
            .expect("deleted");
    };
    delete(4000..4002);
    stage("deletion of many pieces");
    delete(3000..3100);
    stage("deletion of many blocks");
    for n in 600..700 {
        collection.purge(&format!("d{n:05}")).expect("purged");
    }
    stage("purges");
    database.delete_collection("_default").expect("deleted");
    stage("deletion of a collection");
    let end = grown.lock().expect("lock").0;
    println!("{end} bytes of log; segments begun between two syncs, and syncs: {all:?}");
    let most = all.iter().map(|(_, begun, _)| *begun).max();
    assert_eq!(most, Some(1), "{all:?}");
}

/// A commit that takes several synced steps is seen wholly or not at all: whoever reads meanwhile finds every document, and the
/// feed lacks none that the commit leaves alone.
#[test]
fn who_reads_while_a_large_commit_is_made_sees_all_of_it_or_nothing() {
    const DOCUMENTS: u32 = 800;
    let mut random = fastrand::Rng::with_seed(3);
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    save(&database, &collection, 0..DOCUMENTS, &mut random, 60);
    let id = ReplicaStore::collection(&database, "_default").expect("the collection");
    let left_alone = |n: u32| n.is_multiple_of(4);
    let seen = Arc::new(Mutex::new((0, Vec::new())));
    let (found, reader) = (Arc::clone(&seen), database.clone());
    let there = database.default_collection().expect("default");
    database.store.observe_syncs(move || {
        let mut found = found.lock().expect("lock");
        found.0 += 1;
        let sample = || (1..DOCUMENTS).step_by(37).filter(|n| !left_alone(*n));
        let is_newer = |n: u32| match there.get(&format!("d{n:05}")).expect("read") {
            Some(document) => document.sequence() > u64::from(DOCUMENTS),
            None => {
                found.1.push(format!("{n} is gone"));
                false
            }
        };
        let newer = sample().map(is_newer).filter(|newer| *newer).count();
        let feed = reader.changes(id, 0, usize::MAX, false).expect("the feed");
        let listed: BTreeSet<String> = feed.into_iter().map(|change| change.id).collect();
        let missing =
            (0..DOCUMENTS).filter(|n| left_alone(*n) && !listed.contains(&format!("d{n:05}"))).count();
        if missing > 0 || ![0, sample().count()].contains(&newer) {
            found.1.push(format!("the feed lacks {missing}; {newer} are new"));
        }
    });
    let changed: Vec<u32> = (0..DOCUMENTS).filter(|n| !left_alone(*n)).collect();
    let bodies: Vec<_> =
        changed.iter().map(|n| (format!("d{n:05}"), json!({"text": text(&mut random, 60)}))).collect();
    database.batch(|b| bodies.iter().try_for_each(|(id, body)| b.put(&collection, id, body))).expect("saved");
    let (looks, wrong) = &*seen.lock().expect("lock");
    assert!(*looks > 3, "it took {looks} steps only");
    assert!(
        wrong.is_empty(),
        "{} of {looks} looks were wrong, such as {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(3)]
    );
}

#[cfg(feature = "simulation")]
mod simulated {
    use super::*;
    use crate::database::{DatabaseConfig, SimulatedDisk};
    use crate::replica::revision::SourceId;

    /// Documents of a commit of which a third would fill the window.
    const DOCUMENTS: u32 = 150;

    fn device(seed: u64) -> (SimulatedDisk, Database, Collection) {
        let disk = SimulatedDisk::new(seed, SourceId([7; 16]), || 1_795_000_000_000_000_000);
        let database = Database::open_simulated(&disk, DatabaseConfig::default()).expect("open");
        let collection = database.default_collection().expect("default");
        save(&database, &collection, 0..DOCUMENTS, &mut fastrand::Rng::with_seed(1), 20);
        (disk, database, collection)
    }

    fn try_save(database: &Database, collection: &Collection) -> bool {
        let mut random = fastrand::Rng::with_seed(2);
        let bodies: Vec<_> = (0..DOCUMENTS).map(|_| json!({"text": text(&mut random, 400)})).collect();
        let mut numbered = (0..).zip(&bodies);
        database
            .batch(|b| numbered.try_for_each(|(n, body)| b.put(collection, &format!("d{n:05}"), body)))
            .is_ok()
    }

    /// Wherever the power fails in a large commit there is all of it afterwards or nothing; all of it from the moment on at which
    /// its list was declared.
    #[test]
    fn a_large_commit_is_there_wholly_or_not_at_all_wherever_the_power_fails() {
        let (mut outcomes, mut operation) = (Vec::new(), 0);
        loop {
            operation += 1;
            let (disk, database, collection) = device(operation);
            let before = contents(&collection);
            disk.fail_power_after(operation, || ());
            let is_acknowledged = try_save(&database, &collection);
            disk.crash();
            drop((database, collection));
            let database = Database::open_simulated(&disk, DatabaseConfig::default()).expect("open");
            let found = contents(&database.default_collection().expect("default"));
            let changed = found.iter().zip(&before).filter(|(found, before)| found != before).count();
            assert!(
                found.len() == before.len() && [0, before.len()].contains(&changed),
                "the power failed in operation {operation}: {changed} of {} documents are new",
                before.len()
            );
            assert!(!is_acknowledged || changed > 0, "operation {operation}: acknowledged and lost");
            assert!(database.verify().expect("verify").is_sound(), "operation {operation}");
            outcomes.push(changed > 0);
            if is_acknowledged {
                break;
            }
        }
        let declared = outcomes.iter().position(|is_new| *is_new).expect("acknowledged in the end");
        assert!(declared > 3 && declared + 3 < outcomes.len(), "{outcomes:?}");
        assert!(
            outcomes[declared + 1..].iter().all(|is_new| *is_new),
            "declared and taken back: {outcomes:?}"
        );
    }

    /// The list of a large commit is on stable storage before it is declared, and the declaration before anything of it is done.
    #[test]
    fn a_list_is_declared_and_carried_out_only_when_it_is_synced() {
        let (disk, database, collection) = device(1);
        let steps = disk.watch_lists();
        assert!(try_save(&database, &collection));
        let steps = steps.lock().expect("lock");
        assert_eq!(
            *steps,
            [("declared", 0), ("carried out", 0), ("withdrawn", 0)],
            "and the batches not synced then"
        );
    }
}
