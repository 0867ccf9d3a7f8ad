//! Whatever a medium does, in whatever order: nothing acknowledged is lost or unreadable, and nothing was shown to a peer that is gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use crate::database::{Database, DatabaseConfig, Durability, SimulatedDisk};
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::{CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};

const DEFAULT: CollectionId = CollectionId(0);

/// When the devices begin, nanoseconds since 1970.
const START: u64 = 1_795_000_000_000_000_000;

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Batch(u8),
    /// Larger than what may be written between two syncs.
    Large,
    /// A peer's revision comes.
    Take(u8),
    Checkpoint,
    Sync,
    Compact,
    Look,
    /// An index is declared, or dropped.
    Index(u8),
    DropIndex(u8),
    /// A piece of what is done for indexes in the background.
    Work,
    SyncFails {
        first: u64,
        count: u64,
    },
    PowerFails(u64),
    Crash,
    /// The process ends without closing and starts again; the cache stays, or is given up in between.
    Restart {
        evicts: bool,
    },
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6).prop_map(Step::Put),
        2 => (1u8..30).prop_map(Step::Batch),
        1 => Just(Step::Large),
        3 => (0u8..6).prop_map(Step::Take),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Sync),
        2 => Just(Step::Compact),
        3 => Just(Step::Look),
        3 => (0u8..3).prop_map(Step::Index),
        1 => (0u8..3).prop_map(Step::DropIndex),
        5 => Just(Step::Work),
        3 => (1u64..6, 1u64..4).prop_map(|(first, count)| Step::SyncFails { first, count }),
        2 => (1u64..12).prop_map(Step::PowerFails),
        2 => Just(Step::Crash),
        3 => any::<bool>().prop_map(|evicts| Step::Restart { evicts }),
        1 => Just(Step::Close),
    ]
}

/// The newest number of each document that somebody counts on.
type Numbers = Arc<Mutex<HashMap<String, u64>>>;

fn count_on(numbers: &Numbers, id: &str, number: u64) {
    let mut numbers = numbers.lock().expect("lock");
    let known = numbers.entry(id.to_owned()).or_default();
    *known = number.max(*known);
}

/// What a peer is shown, it counts on.
fn show(database: &Database, numbers: &Numbers) {
    let Ok(changes) = database.changes(DEFAULT, 0, usize::MAX, true) else { return };
    let last = database.last_sequence(DEFAULT);
    for change in changes {
        assert!(change.sequence <= last, "{}: beyond the end of the feed", change.id);
        let body: serde_json::Value = serde_json::from_slice(&change.body.unwrap_or_default()).expect("JSON");
        count_on(numbers, &change.id, body["number"].as_u64().expect("a number"));
    }
}

struct Device {
    disk: SimulatedDisk,
    config: DatabaseConfig,
    database: Option<Database>,
    numbers: Numbers,
    number: u64,
    /// Saved and not acknowledged yet, of a database that syncs by and by.
    waiting: Vec<(String, u64)>,
}

impl Device {
    fn new(seed: u64, durability: Durability) -> Device {
        let wall = AtomicU64::new(START);
        let disk =
            SimulatedDisk::new(seed, SourceId([7; 16]), move || wall.fetch_add(1_000_000, Ordering::Relaxed));
        let config = DatabaseConfig { durability, ..DatabaseConfig::default() };
        let mut device =
            Device { disk, config, database: None, numbers: Numbers::default(), number: 0, waiting: vec![] };
        device.start();
        device
    }

    /// Opens it, if need be until stable storage works again, and looks for everything that somebody counts on.
    fn start(&mut self) {
        self.stop();
        let database = match Database::open_simulated(&self.disk, self.config.clone()) {
            Ok(database) => database,
            Err(error) => {
                assert!(self.disk.is_troubled(), "it cannot be opened: {error}");
                self.disk.disarm();
                Database::open_simulated(&self.disk, self.config.clone()).expect("stable storage works again")
            }
        };
        self.check(&database);
        // Between a commit and its sync somebody may look.
        let (looked_at, numbers) = (database.clone(), Arc::clone(&self.numbers));
        self.disk.before_syncs(Some(Arc::new(move || show(&looked_at, &numbers))));
        self.database = Some(database);
    }

    /// The process ends without a word.
    fn stop(&mut self) {
        self.disk.before_syncs(None);
        self.waiting.clear();
        // What dropping it syncs is not wanted here: the disk refuses handles of an earlier life.
        self.database = None;
    }

    fn check(&self, database: &Database) {
        let collection = database.default_collection().expect("default");
        for (id, number) in &*self.numbers.lock().expect("lock") {
            let found = collection.get(id).expect("readable").unwrap_or_else(|| panic!("{id} is lost"));
            let found = found.body()["number"].as_u64().expect("a number");
            assert!(found >= *number, "{id}: somebody counts on {number}, found {found}");
        }
        // Indexes among it: each has what the documents are, and none is to be built anew for it.
        let report = database.verify().expect("verify");
        assert!(report.is_sound(), "{report:?}");
        assert_eq!(database.store.failed_indexes(), 0);
    }

    /// After a failure of the storage device a service manager starts the process again.
    fn failed(&mut self) {
        self.disk.end_life();
        self.start();
    }

    fn save(&mut self, ids: &[String], len: usize) {
        self.number += 1;
        let database = self.database.clone().expect("open");
        let collection = database.default_collection().expect("default");
        let mut random = fastrand::Rng::with_seed(self.number);
        let number = self.number;
        let result = database.batch(|b| {
            ids.iter().try_for_each(|id| {
                let text: String = (0..len).map(|_| random.alphanumeric()).collect();
                b.put(&collection, id, &json!({"number": number, "text": text}))
            })
        });
        drop((collection, database));
        match result {
            Err(_) => self.failed(),
            Ok(()) => {
                self.waiting.extend(ids.iter().map(|id| (id.clone(), number)));
                if self.config.durability == Durability::Synced {
                    self.acknowledge();
                }
            }
        }
    }

    fn acknowledge(&mut self) {
        self.waiting.drain(..).for_each(|(id, number)| count_on(&self.numbers, &id, number));
    }

    /// A revision of a document that only this peer writes.
    fn take_from_peer(&mut self, n: u8) {
        self.number += 1;
        let version = Version { time: START + self.number, source: SourceId([9; 16]) };
        let id = format!("peer-{n}");
        let database = self.database.clone().expect("open");
        let known = database.revision(DEFAULT, &id).ok().flatten().map(|change| change.vector);
        let vector = known.map_or(VersionVector::new(version), |known| known.edited(version));
        let body = Bytes::from(json!({"number": self.number}).to_string());
        let revision = IncomingRevision { collection: DEFAULT, id: id.clone(), vector, deleted: false, body };
        let result = database.commit(&[revision], ConflictPolicy::Refuse);
        drop(database);
        match result {
            Err(_) => self.failed(),
            // The peer never sends it again.
            Ok(_) => count_on(&self.numbers, &id, self.number),
        }
    }

    fn take(&mut self, step: &Step) {
        let id = |n: u8| format!("d{n}");
        let database = self.database.clone().expect("open");
        match step {
            Step::Put(n) => self.save(&[id(*n)], 20),
            Step::Batch(n) => self.save(&(0..*n).map(id).collect::<Vec<_>>(), 50),
            Step::Large => self.save(&(0..120).map(id).collect::<Vec<_>>(), 400),
            Step::Take(n) => self.take_from_peer(*n),
            Step::Checkpoint => {
                self.number += 1;
                let client = format!("client-{}", self.number);
                let body = Bytes::from_static(b"{}");
                if database.set_checkpoint(DEFAULT, &client, None, body).is_err() {
                    self.failed();
                }
            }
            Step::Sync => match database.sync() {
                Err(_) => self.failed(),
                Ok(()) => self.acknowledge(),
            },
            // One that fails in the new log leaves the database as it is, and its handle goes on.
            Step::Compact => match database.compact() {
                Err(_) if database.failure().is_some() || database.sync().is_err() => self.failed(),
                _ => {}
            },
            Step::Look => show(&database, &self.numbers),
            Step::Index(n) => {
                let paths = [&["number"][..], &["text", "number"], &["nothing"]][usize::from(*n)];
                let collection = database.default_collection().expect("default");
                if collection.create_index(&format!("i{n}"), paths.iter().copied()).is_err() {
                    drop(collection);
                    drop(database);
                    self.failed();
                }
            }
            Step::DropIndex(n) => {
                let collection = database.default_collection().expect("default");
                if collection.drop_index(&format!("i{n}")).is_err() {
                    drop(collection);
                    drop(database);
                    self.failed();
                }
            }
            Step::Work => {
                if database.store.work_on_indexes().is_err() {
                    drop(database);
                    self.failed();
                }
            }
            Step::SyncFails { first, count } => self.disk.fail_syncs(*first, *count),
            Step::PowerFails(operations) => self.disk.fail_power_after(*operations, || ()),
            Step::Crash => {
                self.disk.crash();
                drop(database);
                self.start();
            }
            Step::Restart { evicts } => {
                // What it has applied stays in the cache; a handle that is dropped would sync it.
                self.disk.end_life();
                drop(database);
                if *evicts {
                    self.disk.evict();
                }
                self.start();
            }
            Step::Close => {
                self.disk.before_syncs(None);
                let closed = database.close();
                if closed.is_ok() {
                    self.acknowledge();
                }
                drop(database);
                self.start();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_somebody_counts_on_is_lost_or_unreadable(
        seed in any::<u64>(), relaxed in any::<bool>(), steps in prop::collection::vec(step(), 1..60)
    ) {
        // The task that syncs a relaxed database later never runs here: the steps say when.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _inside = runtime.enter();
        let durability = if relaxed { Durability::Relaxed } else { Durability::Synced };
        let mut device = Device::new(seed, durability);
        steps.iter().for_each(|step| device.take(step));
        // In the end the power goes, and the cache with it.
        device.disk.disarm();
        device.disk.crash();
        device.start();
        device.stop();
    }
}
