//! A peer whose clock is wrong by centuries, through whole replications: what it writes travels, can be replaced by anybody,
//! and nobody's clock follows it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::pair::Pair;
use crate::database::{CLOCK_AHEAD_NS_MAX, Database, DatabaseConfig};
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::{CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};
use crate::replicator::config::{ActiveConfig, PassiveConfig};

const DEFAULT: CollectionId = CollectionId(0);
const IN_2262: u64 = 9_214_646_400_000_000_000;

/// Runs until nothing moves: a conflict takes more than one run between stock peers.
fn sync(extension: bool, active: &Arc<Database>, passive: &Arc<Database>) {
    let peer_uid = passive.source().to_string();
    let config = ActiveConfig { extension, peer_uid, ..ActiveConfig::default() };
    for run in 0..3 {
        let passive_config = PassiveConfig { extension, ..PassiveConfig::default() };
        let mut pair = Pair::new(run, config.clone(), passive_config, active, passive);
        pair.run().expect("a run without cuts");
    }
}

fn state(database: &Database) -> Vec<(String, bool, Version)> {
    let changes = database.changes(DEFAULT, 0, usize::MAX, false).expect("changes");
    let mut state: Vec<_> =
        changes.into_iter().map(|change| (change.id, change.deleted, change.vector.current)).collect();
    state.sort_by(|a, b| a.0.cmp(&b.0));
    state
}

#[test]
fn a_peer_from_2262_is_heard_and_overruled() {
    for extension in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let open = |name: &str| {
            let path = directory.path().join(name);
            Arc::new(Database::open(path, DatabaseConfig::default()).expect("opens"))
        };
        let [future, a, b] = ["future", "a", "b"].map(open);
        let wall = crate::database::wall_now();
        let collection = |database: &Arc<Database>| database.default_collection().expect("default");
        // Both sides have a document that the peer of the future has too, without knowing of each other, and it has ones
        // of its own.
        collection(&a).put("shared", &json!({"by": "a"})).expect("put");
        for (n, id) in ["shared", "alone", "edited", "deleted"].into_iter().enumerate() {
            let current = Version { time: IN_2262 + n as u64, source: SourceId([9; 16]) };
            let revision = IncomingRevision {
                collection: DEFAULT,
                id: id.into(),
                vector: VersionVector::new(current),
                deleted: false,
                body: Bytes::from_static(br#"{"by":"the future"}"#),
            };
            future.commit(&[revision], ConflictPolicy::Refuse).expect("commit");
        }
        sync(extension, &a, &future);
        sync(extension, &b, &a);
        assert_eq!(state(&a), state(&future));
        assert_eq!(state(&a), state(&b));
        // Of two that know nothing of each other the later one wins, also if that is nonsense.
        assert_eq!(collection(&b).get("shared").expect("read").expect("there").body()["by"], "the future");
        assert!(a.versions_ahead() > 0 && a.count_ahead().expect("read") == 4);
        // Whoever edits it replaces it everywhere, at the peer of the future too, with a time of today.
        collection(&a).put("edited", &json!({"by": "a"})).expect("put");
        collection(&b).put("shared", &json!({"by": "b"})).expect("put");
        collection(&b).delete("deleted").expect("delete");
        collection(&b).put("new", &json!({"by": "b"})).expect("put");
        for _ in 0..2 {
            sync(extension, &b, &a);
            sync(extension, &a, &future);
        }
        assert_eq!(state(&a), state(&future), "extension {extension}");
        assert_eq!(state(&a), state(&b));
        for (id, deleted, current) in state(&b) {
            let is_of_today = current.time < wall + CLOCK_AHEAD_NS_MAX;
            assert_eq!(is_of_today, id != "alone", "{id} {current}");
            assert_eq!(deleted, id == "deleted");
        }
        assert_eq!(a.count_ahead().expect("read"), 1);
        // An edit goes on top of an edit as ever.
        collection(&a).put("shared", &json!({"by": "a again"})).expect("put");
        sync(extension, &b, &a);
        assert_eq!(collection(&b).get("shared").expect("read").expect("there").body()["by"], "a again");
        assert_eq!(state(&a), state(&b));
    }
}
