//! Databases that were upgraded from revision trees: tree IDs in documents and in their histories, in both protocols.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::for_seeds;
use super::pair::Pair;
use super::scripted::{Scripted, request};
use crate::blip::OutgoingMessage;
use crate::database::{Database, DatabaseConfig};
use crate::replica::revision::{RevId, TreeId, VersionVector};
use crate::replica::store::{
    Change, CollectionId, CommitOutcome, Conflict, ConflictPolicy, ConflictResolver, IncomingRevision,
    ReplicaStore, Resolution,
};
use crate::replicator::config::{ActiveConfig, PassiveConfig, ReplicatorType};
use crate::replicator::extension::{FORMAT_PROPERTY, PROPERTY, VERSION, codec};
use crate::replicator::resolver::DefaultResolver;

const DEFAULT: CollectionId = CollectionId(0);

/// Seeds of one test run; a failing one is printed.
const SEEDS: u64 = 24;

/// Rounds in which three databases in a ring have to become equal.
const ROUNDS_MAX: u64 = 8;

/// A branch of a document's tree: the newest ID first.
fn branch(rng: &mut fastrand::Rng) -> Vec<TreeId> {
    // Few different digests, so that branches share ancestors and meet again.
    let mut line = Vec::new();
    let mut digest = [0; 20];
    for generation in 1..=rng.u32(1..4) {
        digest[generation as usize] = rng.u8(1..3);
        line.insert(0, TreeId::new(generation, &digest).expect("an ID"));
    }
    line
}

fn at_tree(id: &str, line: Vec<TreeId>) -> IncomingRevision {
    // One ID has one content.
    let deleted = line[0].digest()[3] == 2;
    let body = if deleted { json!({}) } else { json!({"tree": line[0].to_string()}) };
    let vector = VersionVector { trees: line.clone(), ..VersionVector::at_tree(line[0]) };
    let body = Bytes::from(body.to_string());
    IncomingRevision { collection: DEFAULT, id: id.into(), vector, deleted, body }
}

fn take(database: &Database, revision: IncomingRevision) {
    let outcomes = database.commit(&[revision], ConflictPolicy::Refuse).expect("commit");
    assert!(matches!(outcomes[..], [CommitOutcome::Inserted { .. }]), "{outcomes:?}");
}

fn documents(database: &Database) -> BTreeMap<String, (String, bool, String)> {
    let changes = database.changes(DEFAULT, 0, usize::MAX, true).expect("changes");
    let text = |change: Change| {
        let body = String::from_utf8_lossy(&change.body.expect("asked for")).into_owned();
        (change.id, (change.vector.current.to_string(), change.deleted, body))
    };
    changes.into_iter().map(text).collect()
}

fn resolver(rng: &mut fastrand::Rng) -> Arc<dyn ConflictResolver> {
    match rng.u8(0..5) {
        0 => Arc::new(|_: &Conflict<'_>| Ok(Resolution::Local)),
        1 => Arc::new(|_: &Conflict<'_>| Ok(Resolution::Remote)),
        2 => Arc::new(|conflict: &Conflict<'_>| {
            let bodies = conflict.remote_body.into_iter().chain(conflict.local_body);
            Ok(Resolution::Merge(bodies.flatten().map(|(k, v)| (k.clone(), v.clone())).collect()))
        }),
        _ => Arc::new(DefaultResolver),
    }
}

fn sync(seed: u64, databases: &[Arc<Database>], from: usize, to: usize, config: ActiveConfig) {
    let passive = PassiveConfig { extension: config.extension, ..PassiveConfig::default() };
    let config = ActiveConfig { peer_uid: format!("peer {to}"), ..config };
    let mut pair = Pair::new(seed, config, passive, &databases[from], &databases[to]);
    pair.run().expect("a run without cuts");
}

fn one_seed(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let open = |n: usize| {
        let path = directory.path().join(format!("{n}"));
        Arc::new(Database::open(path, DatabaseConfig::default()).expect("opens"))
    };
    let databases: Vec<_> = (0..3).map(open).collect();
    let ids: Vec<String> = (0..rng.usize(1..8)).map(|n| format!("d{n}")).collect();
    for database in &databases {
        for id in &ids {
            if rng.u8(0..4) > 0 {
                take(database, at_tree(id, branch(&mut rng)));
            }
        }
    }
    for step in 0..rng.u64(0..14) {
        let at = rng.usize(0..3);
        if rng.bool() {
            let collection = databases[at].default_collection().expect("open");
            let id = &ids[rng.usize(0..ids.len())];
            match rng.u8(0..4) {
                0 => drop(collection.delete(id).expect("deleted")),
                _ => drop(collection.put(id, &json!({"edit": step})).expect("put")),
            }
        } else {
            let extension = rng.bool();
            let config = ActiveConfig { extension, resolver: resolver(&mut rng), ..ActiveConfig::default() };
            sync(seed + step, &databases, at, (at + rng.usize(1..3)) % 3, config);
        }
    }
    let extension = rng.bool();
    for round in 0..ROUNDS_MAX {
        for at in 0..3 {
            let config = ActiveConfig { extension, ..ActiveConfig::default() };
            sync(round, &databases, at, (at + 1) % 3, config);
        }
        if databases.iter().all(|database| documents(database) == documents(&databases[0])) {
            return;
        }
    }
    let all: Vec<_> = databases.iter().map(|database| documents(database)).collect();
    panic!("extension {extension}, not equal:\n{all:#?}");
}

#[test]
fn rings_with_tree_ids_in_their_histories_become_equal() {
    for_seeds(SEEDS, one_seed);
}

/// An upgraded database pushes, the other edits, both are opened anew in between: the ID stays what it was, on stable storage
/// too, and the edit knows what it descends from.
#[test]
fn a_tree_id_is_kept_until_it_is_edited() {
    for extension in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let open = |n: usize| {
            let path = directory.path().join(format!("{n}"));
            Arc::new(Database::open(path, DatabaseConfig::default()).expect("opens"))
        };
        let line: Vec<TreeId> =
            ["2-cceba90c66c32c7cc39e66573f911ec05507d5e9", "1-6fe86833e77d459ae48447b1b12651c52445b4f6"]
                .map(|id| id.parse().expect("a tree ID"))
                .to_vec();
        let tree = RevId::Tree(line[0]);
        let config = ActiveConfig { extension, ..ActiveConfig::default() };
        let at = |database: &Database| {
            database
                .document(DEFAULT, "x")
                .expect("read")
                .map(|change| (change.vector, change.remote_ancestor))
        };
        let first = open(0);
        take(&first, at_tree("x", line));
        take(&first, at_tree("gone", vec![TreeId::new(3, &[0, 1, 1, 2]).expect("an ID")]));
        sync(1, &[first, open(1)], 0, 1, config.clone());
        let databases = [open(0), open(1)];
        for database in &databases {
            assert_eq!(at(database).expect("there").0.id(), tree);
            assert!(database.document(DEFAULT, "gone").expect("read").expect("there").deleted);
        }
        databases[1].default_collection().expect("open").put("x", &json!({"v": 3})).expect("put");
        drop(databases);
        let databases = [open(0), open(1)];
        let (edited, ancestor) = at(&databases[1]).expect("there");
        assert_eq!((edited.history_text(), ancestor), (tree.to_string(), Some(tree)));
        sync(2, &databases, 0, 1, config.clone());
        assert_eq!(at(&databases[0]).expect("there").0, edited, "extension {extension}");
    }
}

/// A peer of an older release reads versions only: it gets a tree ID as the version that stands for it, and sends it back so.
#[test]
fn an_older_peer_gets_versions_in_place_of_tree_ids() {
    let tree: TreeId = "2-cceba90c66c32c7cc39e66573f911ec05507d5e9".parse().expect("a tree ID");
    let mut scripted = Scripted::passive(true);
    let outcomes =
        scripted.store.commit(&[at_tree("x", vec![tree])], ConflictPolicy::Refuse).expect("commit");
    assert!(matches!(outcomes[..], [CommitOutcome::Inserted { .. }]), "{outcomes:?}");
    let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
    let ask = OutgoingMessage::request("getCollections").with(PROPERTY, VERSION).with_body(body);
    let reply = scripted.ask(ask).0.expect("answered").expect("accepted");
    assert_eq!(reply.properties.get(FORMAT_PROPERTY), None, "nothing that such a peer does not know");
    let subscribe = request("subChanges").with("versioning", "version-vectors").with("offer", "9");
    let (_, requests) = scripted.ask(subscribe);
    let revs = requests.iter().find(|request| request.profile() == "revs").expect("the feed");
    let message = codec::decode(&revs.body).expect("revs");
    let entry = message.revisions.iter().find(|entry| entry.id == "x").expect("offered");
    assert_eq!(entry.vector, VersionVector::new(tree.version()));
    assert_eq!(entry.vector.to_string(), "2cceba90c66@Revision+Tree+Encoding");
}

/// Of several tree IDs a stock `rev` names one. It is the one that the peer has, whichever side sends: a tombstone, or an
/// older ancestor. Another would make a conflict of what is a descendant, and lose one of the two.
#[test]
fn a_rev_names_the_tree_id_that_the_peer_has() {
    let line = |n: u32| -> Vec<TreeId> {
        (1..=n).rev().map(|n| TreeId::new(n, &[n as u8; 20]).expect("an ID")).collect()
    };
    let directory = tempfile::tempdir().expect("a directory");
    for (case, sends) in [("pushed", 0), ("pulled", 1)] {
        let open = |n: usize| {
            let path = directory.path().join(format!("{case}{n}"));
            Arc::new(Database::open(path, DatabaseConfig::default()).expect("opens"))
        };
        let databases = [open(0), open(1)];
        // Two lines of one document that have met stand at the version of the later one.
        let other: Vec<TreeId> =
            (1..=4).rev().map(|n| TreeId::new(n, &[0x40 + n as u8; 20]).expect("an ID")).collect();
        let met = |id: &str| {
            let met = at_tree(id, [line(5), other.clone()].concat());
            let vector = VersionVector { current: other[0].version(), ..met.vector };
            IncomingRevision { vector, ..met }
        };
        for (id, deleted, is_met) in [
            ("tombstone", true, false),
            ("living", false, false),
            ("met tombstone", true, true),
            ("met", false, true),
        ] {
            if is_met {
                take(&databases[1 - sends], IncomingRevision { deleted, ..met(id) });
                take(&databases[sends], met(id));
            } else {
                take(&databases[1 - sends], IncomingRevision { deleted, ..at_tree(id, line(1)) });
                take(&databases[sends], at_tree(id, line(5)));
            }
            let collection = databases[sends].default_collection().expect("open");
            collection.put(id, &json!({"edited": id})).expect("put");
        }
        let config = ActiveConfig { extension: false, ..ActiveConfig::default() };
        let expected: Vec<_> = documents(&databases[sends]).into_iter().collect();
        sync(1, &databases, 0, 1, config);
        for database in &databases {
            assert_eq!(documents(database).into_iter().collect::<Vec<_>>(), expected, "{case}");
        }
    }
}

/// Of two lines one has won here. A peer that has the other line hears of it, whatever else was taken since, and so does one
/// that has it as a tombstone and says so only when it is asked: neither may take what descends for a conflict.
#[test]
fn a_peer_on_the_line_that_lost_gets_what_has_won() {
    let line = |n: u32, mark: u8| -> Vec<TreeId> {
        (1..=n).rev().map(|n| TreeId::new(n, &[mark + n as u8; 20]).expect("an ID")).collect()
    };
    let (won, lost) = (|n| line(n, 0), |n| line(n, 0x40));
    let directory = tempfile::tempdir().expect("a directory");
    for (extension, lost_to_tree, deleted) in
        [false, true].into_iter().flat_map(|e| [(e, true, false), (e, false, true), (e, true, true)])
    {
        let case = format!("extension {extension}, a tree ID {lost_to_tree}, a tombstone {deleted}");
        let open = |n: usize| {
            let path = directory.path().join(format!("{case}{n}"));
            Arc::new(Database::open(path, DatabaseConfig::default()).expect("opens"))
        };
        let databases = [open(0), open(1)];
        // Here the first of one line was kept against the other line.
        let kept = at_tree("x", [lost(2), won(1)].concat());
        let vector = VersionVector { current: won(1)[0].version(), ..kept.vector };
        take(&databases[0], IncomingRevision { vector, ..kept });
        if lost_to_tree {
            take(&databases[0], at_tree("x", won(5)));
        } else {
            let collection = databases[0].default_collection().expect("open");
            collection.put("x", &json!({"edited": true})).expect("put");
        }
        take(&databases[1], IncomingRevision { deleted, ..at_tree("x", lost(2)) });
        let direction = ReplicatorType::Push;
        let config = ActiveConfig { extension, direction, ..ActiveConfig::default() };
        sync(1, &databases, 0, 1, config);
        assert_eq!(documents(&databases[1]), documents(&databases[0]), "{case}");
    }
}
