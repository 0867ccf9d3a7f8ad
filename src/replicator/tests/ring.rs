//! Three databases in a ring, each the active side towards the next: of every conflict between an edit and a deletion they come to the
//! same, and then nothing moves any more.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::pair::Pair;
use crate::database::{Database, DatabaseConfig};
use crate::replica::revision::Versioning;
use crate::replica::store::{Change, CollectionId, Conflict, ConflictResolver, ReplicaStore, Resolution};
use crate::replicator::config::{ActiveConfig, PassiveConfig};
use crate::replicator::resolver::DefaultResolver;

const DEFAULT: CollectionId = CollectionId(0);

/// Rounds after which a ring must be at rest, each of which syncs every pair once.
const ROUNDS_MAX: usize = 12;

/// Rounds in which nothing may move then.
const ROUNDS_AT_REST: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Edit,
    Delete,
}

const STEPS: [Step; 2] = [Step::Edit, Step::Delete];

/// How the three resolve. Three that always take the peer's, in step, exchange what they have without end, whatever the kind of
/// revisions: such a resolver decides otherwise on each side.
#[derive(Clone, Copy, Debug)]
enum Resolving {
    Default,
    Local,
    Merge,
}

fn resolver(resolving: Resolving) -> Arc<dyn ConflictResolver> {
    match resolving {
        Resolving::Default => Arc::new(DefaultResolver),
        Resolving::Local => Arc::new(|_: &Conflict<'_>| Ok(Resolution::Local)),
        // The union of both, whoever merges.
        Resolving::Merge => Arc::new(|conflict: &Conflict<'_>| {
            let mut merged = Map::<String, Value>::new();
            for body in [conflict.remote_body, conflict.local_body].into_iter().flatten() {
                body.iter().for_each(|(key, value)| drop(merged.insert(key.clone(), value.clone())));
            }
            Ok(Resolution::Merge(merged))
        }),
    }
}

struct Ring {
    databases: Vec<Arc<Database>>,
    _directory: tempfile::TempDir,
}

impl Ring {
    fn new(versioning: Versioning) -> Ring {
        let directory = tempfile::tempdir().expect("a directory");
        let open = |name: &str| {
            let config = DatabaseConfig { versioning: Some(versioning), ..DatabaseConfig::default() };
            Arc::new(Database::open(directory.path().join(name), config).expect("opens"))
        };
        Ring { databases: ["a", "b", "c"].map(open).to_vec(), _directory: directory }
    }

    fn make(&self, node: usize, step: Step) {
        let collection = self.databases[node].default_collection().expect("open");
        match step {
            Step::Edit => drop(collection.put("x", &json!({format!("by{node}"): node})).expect("saved")),
            Step::Delete => assert!(collection.delete("x").expect("deleted")),
        }
    }

    fn sync(&self, from: usize, to: usize, seed: u64, resolving: Resolving, extension: bool) {
        let config = ActiveConfig {
            extension,
            peer_uid: format!("node {to}"),
            resolver: resolver(resolving),
            ..ActiveConfig::default()
        };
        let passive =
            PassiveConfig { extension, peer_uid: format!("node {from}"), ..PassiveConfig::default() };
        let mut pair = Pair::new(seed, config, passive, &self.databases[from], &self.databases[to]);
        pair.run().expect("a run without cuts");
    }

    fn round(&self, seed: u64, resolving: Resolving, extension: bool) {
        (0..3).for_each(|from| self.sync(from, (from + 1) % 3, seed, resolving, extension));
    }

    fn newest(&self) -> Vec<Change> {
        let newest = |database: &Arc<Database>| {
            ReplicaStore::document(&**database, DEFAULT, "x").expect("read").expect("there")
        };
        self.databases.iter().map(newest).collect()
    }

    fn sequences(&self) -> Vec<u64> {
        self.databases.iter().map(|database| database.last_sequence(DEFAULT)).collect()
    }
}

/// Whether all have the same revision.
fn is_equal(all: &[Change]) -> bool {
    all.iter().all(|change| {
        (change.vector.id(), change.deleted, &change.body)
            == (all[0].vector.id(), all[0].deleted, &all[0].body)
    })
}

fn one(versioning: Versioning, steps: [Step; 3], resolving: Resolving, extension: bool) {
    let ring = Ring::new(versioning);
    let what = format!("{versioning}, {steps:?}, {resolving:?}, extension {extension}");
    ring.make(0, Step::Edit);
    (0..3).for_each(|seed| ring.round(seed, Resolving::Default, extension));
    assert!(is_equal(&ring.newest()), "{what}: at the beginning");
    steps.into_iter().enumerate().for_each(|(node, step)| ring.make(node, step));
    let mut before = Vec::new();
    for round in 0..ROUNDS_MAX as u64 {
        before = ring.sequences();
        ring.round(round, resolving, extension);
        if before == ring.sequences() && is_equal(&ring.newest()) {
            break;
        }
    }
    let newest = ring.newest();
    assert!(is_equal(&newest), "{what}: {newest:#?}");
    assert_eq!(before, ring.sequences(), "{what}: it still moves after {ROUNDS_MAX} rounds: {newest:#?}");
    for round in 0..ROUNDS_AT_REST as u64 {
        ring.round(round, resolving, extension);
        assert_eq!(before, ring.sequences(), "{what}: it moves again");
    }
    if steps.iter().any(|step| matches!(step, Step::Delete)) && matches!(resolving, Resolving::Default) {
        assert!(newest[0].deleted, "{what}: a deletion wins");
    }
}

fn all(versioning: Versioning, extension: bool) {
    for [a, b, c] in STEPS.iter().flat_map(|a| STEPS.iter().flat_map(move |b| STEPS.map(|c| [*a, *b, c]))) {
        for resolving in [Resolving::Default, Resolving::Local, Resolving::Merge] {
            one(versioning, [a, b, c], resolving, extension);
        }
    }
}

#[test]
fn trees_in_a_ring_come_to_rest() {
    all(Versioning::RevisionTrees, false);
}

#[test]
fn vectors_in_a_ring_come_to_rest() {
    all(Versioning::VersionVectors, false);
}

#[test]
fn vectors_in_a_ring_of_ours_come_to_rest() {
    all(Versioning::VersionVectors, true);
}

/// Hundreds of edits between two syncs are one more revision for a peer of ours, although its own has left the line.
#[test]
fn many_edits_between_two_syncs_are_no_conflict() {
    let ring = Ring::new(Versioning::RevisionTrees);
    for edits in [1, 19, 20, 21, 300] {
        (0..edits).for_each(|_| ring.make(0, Step::Edit));
        ring.sync(0, 1, 1, Resolving::Local, true);
        // The other direction: the second one pulls.
        (0..edits).for_each(|_| ring.make(1, Step::Edit));
        ring.sync(0, 1, 2, Resolving::Local, true);
        let newest = ring.newest_of_two();
        assert!(is_equal(&newest), "{edits} edits: {newest:#?}");
    }
}

impl Ring {
    fn newest_of_two(&self) -> Vec<Change> {
        let newest = |database: &Arc<Database>| {
            ReplicaStore::document(&**database, DEFAULT, "x").expect("read").expect("there")
        };
        self.databases[..2].iter().map(newest).collect()
    }
}
