//! Names of blobs that are not durable: a blob that has one is not one that is here.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::database::{Database, DatabaseConfig, SimulatedDisk};
use crate::replica::blobs::{BlobDigest, BlobState};
use crate::replica::revision::SourceId;
use crate::replica::store::ReplicaStore;

const CONTENT: &[u8] = b"content";
const DIGEST: &str = "sha1-BA8G/XdAkkeNRQd09bowxdp4rMg=";

/// Which syncs of the first blob that is finished are those of names, of the directory and of the file: the first is that of its
/// content.
const SYNCS_OF_NAMES: [u64; 2] = [2, 3];

fn disk() -> SimulatedDisk {
    let wall = AtomicU64::new(1_795_000_000_000_000_000);
    SimulatedDisk::new(1, SourceId([7; 16]), move || wall.fetch_add(1_000_000, Ordering::Relaxed))
}

fn open(disk: &SimulatedDisk) -> Database {
    Database::open_simulated(disk, DatabaseConfig::default()).expect("opened")
}

fn digest() -> BlobDigest {
    DIGEST.parse().expect("a digest")
}

fn is_there_after_a_power_cut(disk: &SimulatedDisk) -> bool {
    ReplicaStore::blob(&open(&disk.synced_image()), &digest()) == Ok(BlobState::Whole(CONTENT.len() as u64))
}

/// A blob gets its name, and the sync of that fails.
fn with_an_unsynced_name(sync: u64) -> (SimulatedDisk, Database) {
    let disk = disk();
    let database = open(&disk);
    assert_eq!(ReplicaStore::append_blob(&database, &digest(), 0, CONTENT), Ok(CONTENT.len() as u64));
    disk.fail_syncs(sync, 1);
    let failed = ReplicaStore::finish_blob(&database, &digest()).expect_err("it is not durable");
    assert!(failed.recoverable && failed.message.contains("sync"), "{failed:?}");
    (disk, database)
}

#[test]
fn a_blob_whose_name_could_not_be_synced_is_synced_before_anybody_counts_on_it() {
    for counts_on_it in [
        |database: &Database| assert_eq!(ReplicaStore::finish_blob(database, &digest()), Ok(true)),
        |database: &Database| {
            let there = CONTENT.len() as u64;
            assert_eq!(ReplicaStore::append_blob(database, &digest(), 0, CONTENT), Ok(there));
        },
        |database: &Database| {
            let plants = database.create_collection("plants").expect("made");
            let blob = serde_json::json!({"@type": "blob", "digest": DIGEST, "length": CONTENT.len()});
            plants.put("fern", &serde_json::json!({ "picture": blob })).expect("saved");
        },
    ] {
        for sync in SYNCS_OF_NAMES {
            let (disk, database) = with_an_unsynced_name(sync);
            counts_on_it(&database);
            assert!(is_there_after_a_power_cut(&disk));
        }
    }
}

#[test]
fn names_of_a_process_that_has_ended_are_synced() {
    for sync in SYNCS_OF_NAMES {
        let (disk, _database) = with_an_unsynced_name(sync);
        disk.end_life();
        let database = open(&disk);
        assert_eq!(ReplicaStore::finish_blob(&database, &digest()), Ok(true));
        assert!(is_there_after_a_power_cut(&disk));
    }
}
