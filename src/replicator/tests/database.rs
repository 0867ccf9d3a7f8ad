//! The same between two real databases on disk.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::pair::Pair;
use crate::database::{Database, DatabaseConfig, DatabaseError, Document};
use crate::replicator::config::{ActiveConfig, PassiveConfig};

fn contents(database: &Database) -> Vec<(String, String)> {
    let read = |document: Result<Document, DatabaseError>| {
        let document = document.expect("readable");
        (
            document.id().to_owned(),
            format!("{:?} {:?}", document.revision().map(|r| r.current), document.body()),
        )
    };
    database.default_collection().expect("open").iter().map(read).collect()
}

#[test]
fn databases_on_disk_converge() {
    let directory = tempfile::tempdir().expect("a directory");
    for (ours, theirs) in [(true, true), (false, true)] {
        let open = |name: String| {
            let path = directory.path().join(name);
            Arc::new(Database::open(path, DatabaseConfig::default()).expect("opens"))
        };
        let (a, p) = (open(format!("a{ours}")), open(format!("p{ours}")));
        let mut rng = fastrand::Rng::with_seed(42);
        let mut edit = |database: &Database| {
            for _ in 0..rng.usize(1..80) {
                let id = format!("d{:02}", rng.u8(0..60));
                let collection = database.default_collection().expect("open");
                match rng.u8(0..10) {
                    0 => assert!(collection.delete(&id).is_ok()),
                    _ => assert!(collection.put(&id, &json!({"x": rng.u32(..)})).is_ok()),
                }
            }
        };
        let config = ActiveConfig { extension: ours, peer_uid: "p".into(), ..ActiveConfig::default() };
        let passive = PassiveConfig { extension: theirs, ..PassiveConfig::default() };
        for round in 0..6 {
            edit(&a);
            edit(&p);
            let continuous = round % 2 == 0;
            let config = ActiveConfig { continuous, ..config.clone() };
            let mut pair = Pair::new(round, config, passive.clone(), &a, &p);
            pair.run_and_cut(4 * round);
            if continuous {
                edit(&a);
                pair.run_for(Duration::from_millis(500));
            }
        }
        for run in 0..3 {
            let mut pair = Pair::new(run, config.clone(), passive.clone(), &a, &p);
            pair.run().expect("a run without cuts");
        }
        assert_eq!(contents(&a), contents(&p));
        let mut pair = Pair::new(9, config.clone(), passive, &a, &p);
        pair.run().expect("nothing to do");
        if ours && theirs {
            assert_eq!(pair.frames, 2, "one round trip");
        }
    }
}
