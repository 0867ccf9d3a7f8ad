//! The times of versions over restarts, crashes, power cuts and wall clocks that jump: none is ever given out for two
//! contents that somebody may know of, and none is ahead of the wall clock further than that needs.

use std::collections::HashMap;

use serde_json::json;

use super::Fixture;
use crate::database::clock::wall_now;

/// Each process that writes once is as far ahead as the one before it: not at all.
#[test]
fn many_short_processes_do_not_push_the_clock() {
    let fixture = Fixture::new();
    let mut last = 0;
    for round in 0..12 {
        let database = fixture.open();
        let collection = database.default_collection().expect("default");
        collection.put("x", &json!({"round": round})).expect("put");
        let document = collection.get("x").expect("read").expect("there");
        let time = document.revision().expect("saved").current.time;
        assert!(time > last, "round {round}: it went back");
        assert!(time <= wall_now(), "round {round}: {} ms ahead", (time - wall_now()) / 1_000_000);
        last = time;
    }
}

/// What a purge forgets comes back as something newer, also where the clock of another had pulled the document ahead.
#[test]
fn a_document_made_anew_after_a_purge_is_newer() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let time = || collection.get("x").expect("read").expect("there").revision().expect("saved").current.time;
    super::replica::take_from_a_peer(&database, "x", wall_now() + 3_600_000_000_000);
    collection.put("x", &json!({})).expect("put");
    let before = time();
    assert!(before > wall_now());
    collection.put("y", &json!({})).expect("put");
    let other = collection.get("y").expect("read").expect("there").revision().expect("saved").current.time;
    assert!(other <= wall_now(), "another document does not follow");
    collection.purge("x").expect("purge");
    collection.put("x", &json!({})).expect("put");
    assert!(time() > before);
}

/// The clock of the machine that runs this is set.
#[test]
fn a_clock_that_is_set_can_be_right() {
    assert!(crate::database::Database::is_clock_plausible());
}

/// Also with its whole collection, and if it was purged before, however far ahead of today it was.
#[test]
fn a_document_of_a_collection_made_anew_is_newer() {
    const HOUR: u64 = 3_600_000_000_000;
    for (ahead, is_purged) in [(HOUR, false), (HOUR, true), (300 * 24 * HOUR, false), (300 * 24 * HOUR, true)]
    {
        let fixture = Fixture::new();
        let database = fixture.open();
        let collection = || database.default_collection().expect("default");
        let time =
            || collection().get("x").expect("read").expect("there").revision().expect("saved").current.time;
        super::replica::take_from_a_peer(&database, "x", wall_now() + ahead);
        collection().put("x", &json!({})).expect("put");
        let before = time();
        assert!(!is_purged || collection().purge("x").expect("purge"));
        database.delete_collection("_default").expect("delete");
        collection().put("x", &json!({})).expect("put");
        assert!(time() > before, "{ahead} {is_purged}");
    }
}

#[cfg(feature = "simulation")]
mod simulated {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::database::clock::{AHEAD_MAX, is_plausible};
    use crate::database::{Database, DatabaseConfig, Durability, SimulatedDisk};
    use crate::replica::revision::{SourceId, Version};
    use crate::replica::store::ReplicaStore;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8),
        Batch(u8),
        Delete(u8),
        Purge(u8),
        Sync,
        /// A peer, or a backup, looks at everything.
        Look,
        Wall(i64),
        PowerFails(u64),
        Crash,
        Reopen,
        /// The collection is deleted and made anew.
        Anew,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u8..8).prop_map(Step::Put),
            2 => (1u8..40).prop_map(Step::Batch),
            1 => (0u8..8).prop_map(Step::Delete),
            1 => (0u8..8).prop_map(Step::Purge),
            1 => Just(Step::Sync),
            3 => Just(Step::Look),
            1 => prop_oneof![(-1_000i64..1_000), (-1i64 << 55..1i64 << 55)].prop_map(Step::Wall),
            2 => (1u64..6).prop_map(Step::PowerFails),
            2 => Just(Step::Crash),
            1 => Just(Step::Reopen),
            1 => Just(Step::Anew),
        ]
    }

    /// A device with one database, and what others know of it.
    struct Device {
        disk: SimulatedDisk,
        config: DatabaseConfig,
        database: Database,
        wall: Arc<AtomicU64>,
        /// The latest the wall clock ever was.
        latest_wall: u64,
        made: u64,
        /// By document and version.
        seen: HashMap<(String, Version), String>,
        /// The newest time that each document was given.
        newest: HashMap<String, u64>,
        /// Whether documents are gone, above which new ones have to be.
        purged: bool,
    }

    impl Device {
        fn new(seed: u64, durability: Durability, is_set: bool) -> Device {
            let wall = if is_set { 1_795_000_000_000_000_000 } else { 1_700_000_000_000_000_000 };
            let wall = Arc::new(AtomicU64::new(wall));
            let now = Arc::clone(&wall);
            let disk = SimulatedDisk::new(seed, SourceId([7; 16]), move || now.load(Ordering::Relaxed));
            let config = DatabaseConfig { durability, ..DatabaseConfig::default() };
            let database = Database::open_simulated(&disk, config.clone()).expect("open");
            let latest_wall = wall.load(Ordering::Relaxed);
            let (seen, newest) = (HashMap::new(), HashMap::new());
            Device { disk, config, database, wall, latest_wall, made: 0, seen, newest, purged: false }
        }

        fn reopen(&mut self) {
            self.disk.disarm();
            self.database = Database::open_simulated(&self.disk, self.config.clone()).expect("open");
        }

        fn put(&mut self, ids: &[String]) {
            let collection = self.database.default_collection().expect("default");
            self.made += ids.len() as u64;
            let body = json!({"made": self.made});
            let done = self.database.batch(|b| ids.iter().try_for_each(|id| b.put(&collection, id, &body)));
            if done.is_err() {
                // The power has failed, before the commit or after it.
                self.reopen();
                ids.iter().for_each(|id| self.note_newest(id));
                return;
            }
            for id in ids {
                let document = collection.get(id).expect("read").expect("just saved");
                let version = document.revision().expect("saved").current;
                let known = self.seen.keys().filter(|(seen, _)| seen == id).map(|(_, version)| version.time);
                assert!(
                    known.max().is_none_or(|known| version.time > known),
                    "{version} is not above what others know"
                );
                assert!(version.time <= self.latest_wall + self.made, "{version} is ahead without need");
                let wall = self.wall.load(Ordering::Relaxed);
                let newest = self.newest.entry(id.clone()).or_default();
                // Where the wall clock can be right, only what the document itself had is a need for long.
                let need = (wall + AHEAD_MAX).max(*newest) + self.made;
                assert!(
                    !is_plausible(wall) || self.purged || version.time <= need,
                    "{version} is far ahead of {wall}"
                );
                *newest = version.time;
                if self.config.durability == Durability::Synced {
                    self.know(id, version, body.to_string());
                }
            }
        }

        /// A tombstone has a version as well.
        fn note_newest(&mut self, id: &str) {
            let Some(collection) = ReplicaStore::collection(&self.database, "_default") else { return };
            if let Some(change) = self.database.revision(collection, id).expect("read") {
                let newest = self.newest.entry(id.to_owned()).or_default();
                *newest = change.vector.current.time.max(*newest);
            }
        }

        fn look(&mut self) {
            let collection = ReplicaStore::collection(&self.database, "_default").expect("it is there");
            let changes = self.database.changes(collection, 0, usize::MAX, true).expect("changes");
            for change in changes {
                let body = change.body.unwrap_or_default();
                self.know(&change.id, change.vector.current, String::from_utf8_lossy(&body).into_owned());
            }
        }

        fn know(&mut self, id: &str, version: Version, content: String) {
            let known = self.seen.entry((id.to_owned(), version)).or_insert_with(|| content.clone());
            assert_eq!(*known, content, "{version} of {id} has two contents");
        }

        fn take(&mut self, step: &Step) {
            let id = |n: &u8| format!("d{n}");
            match step {
                Step::Put(n) => self.put(&[id(n)]),
                Step::Batch(n) => self.put(&(0..*n).map(|n| id(&n)).collect::<Vec<_>>()),
                Step::Delete(n) | Step::Purge(n) => {
                    let collection = self.database.default_collection().expect("default");
                    let done = match step {
                        Step::Delete(_) => collection.delete(&id(n)),
                        _ => collection.purge(&id(n)),
                    };
                    self.made += 1;
                    self.purged |= matches!(step, Step::Purge(_));
                    if done.is_err() {
                        self.reopen();
                    }
                    self.note_newest(&id(n));
                }
                Step::Anew => {
                    self.purged = true;
                    if self.database.delete_collection("_default").is_err()
                        || self.database.default_collection().is_err()
                    {
                        self.reopen();
                    }
                }
                Step::Sync => {
                    if self.database.sync().is_err() {
                        self.reopen();
                    }
                }
                Step::Look => self.look(),
                Step::Wall(jump) => {
                    let wall = self.wall.load(Ordering::Relaxed).saturating_add_signed(*jump);
                    self.wall.store(wall, Ordering::Relaxed);
                    self.latest_wall = self.latest_wall.max(wall);
                }
                Step::PowerFails(operations) => self.disk.fail_power_after(*operations, || ()),
                Step::Crash => {
                    self.disk.crash();
                    self.reopen();
                }
                Step::Reopen => self.reopen(),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

        #[test]
        fn no_time_is_given_out_twice(
            seed in any::<u64>(), relaxed in any::<bool>(), set in any::<bool>(), steps in prop::collection::vec(step(), 1..120)
        ) {
            // A relaxed store syncs later by a task; here the steps say when.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let _inside = runtime.enter();
            let durability = if relaxed { Durability::Relaxed } else { Durability::Synced };
            let mut device = Device::new(seed, durability, set);
            for step in &steps {
                device.take(step);
            }
        }
    }
}
