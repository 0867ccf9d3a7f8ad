//! What a session tells its peer, of a database whose commits are not on stable storage yet: only what is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::pair::Pair;
use crate::database::{Database, DatabaseConfig, Durability, SimulatedDisk};
use crate::replica::revision::SourceId;
use crate::replica::store::{Change, CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};
use crate::replicator::config::{ActiveConfig, PassiveConfig};

const DEFAULT: CollectionId = CollectionId(0);

/// A device whose database syncs by and by; as nothing drives the task that does, only when something waits for it.
struct Device {
    disk: SimulatedDisk,
    database: Arc<Database>,
}

impl Device {
    fn new(number: u8) -> Device {
        static WALL: AtomicU64 = AtomicU64::new(1_795_000_000_000_000_000);
        let wall = || WALL.fetch_add(1_000_000, Ordering::Relaxed);
        let disk = SimulatedDisk::new(number.into(), SourceId([number; 16]), wall);
        let config = DatabaseConfig { durability: Durability::Relaxed, ..DatabaseConfig::default() };
        let database = Arc::new(Database::open_simulated(&disk, config).expect("open"));
        Device { disk, database }
    }

    fn put(&self, id: &str) {
        self.database.default_collection().expect("default").put(id, &json!({"id": id})).expect("saved");
    }

    /// What a power cut would leave at least.
    fn held(&self) -> Database {
        Database::open_simulated(&self.disk.synced_image(), DatabaseConfig::default()).expect("open")
    }
}

fn newest(database: &Database, id: &str) -> Option<Change> {
    database.document(DEFAULT, id).expect("readable")
}

/// Gives the second database the revision that the first one has.
fn hand_over(from: &Database, to: &Database, id: &str) {
    let change = newest(from, id).expect("saved");
    let revision = IncomingRevision {
        collection: DEFAULT,
        id: change.id,
        vector: change.vector,
        deleted: change.deleted,
        body: change.body.expect("asked for"),
    };
    to.commit(&[revision], ConflictPolicy::Refuse).expect("committed");
}

/// A revision that one side has saved and not synced, which the other has too, is not called known; one that came is on the
/// medium before it is acknowledged; and one that only the first side has is not sent.
#[test]
fn a_peer_is_told_only_of_what_is_on_the_medium() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _inside = runtime.enter();
    for extension in [false, true] {
        // What comes from the peer is synced, and with it whatever was saved before: so once nothing comes.
        for (relaxed_is_active, comes) in [(false, false), (false, true), (true, false), (true, true)] {
            let what =
                format!("extension {extension}, relaxed is active: {relaxed_is_active}, comes: {comes}");
            let (relaxed, other) = (Device::new(1), Device::new(2));
            relaxed.put("both");
            hand_over(&relaxed.database, &other.database, "both");
            relaxed.put("here alone");
            if comes {
                other.put("there alone");
            }
            other.database.sync().expect("synced");
            assert!(newest(&relaxed.held(), "both").is_none(), "the first commits are not synced: {what}");
            let (active, passive) = if relaxed_is_active { (&relaxed, &other) } else { (&other, &relaxed) };
            let config = ActiveConfig { extension, peer_uid: "p".into(), ..ActiveConfig::default() };
            let passive_config = PassiveConfig { extension, ..PassiveConfig::default() };
            let mut pair = Pair::new(1, config, passive_config, &active.database, &passive.database);
            pair.run().expect("a run without cuts");

            let held = relaxed.held();
            if comes {
                assert!(newest(&held, "there alone").is_some(), "acknowledged and not synced: {what}");
            }
            if !relaxed_is_active {
                assert!(newest(&held, "both").is_some(), "called known and not synced: {what}");
            }
            if newest(&other.database, "here alone").is_some() {
                assert!(
                    newest(&held, "here alone").is_some(),
                    "the peer was shown what is not synced: {what}"
                );
            }
        }
    }
}
