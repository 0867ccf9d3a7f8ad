//! What keeps two databases apart although each takes the other's revision for known: revisions that were kept against
//! each other, and a refused revision whose peer has gone back to what it descends from.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::pair::Pair;
use crate::database::{Database, DatabaseConfig};
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::{
    Change, CollectionId, CommitOutcome, ConflictPolicy, IncomingRevision, ReplicaStore,
};
use crate::replicator::config::{ActiveConfig, CollectionConfig, FilterInput, PassiveConfig};

const DEFAULT: CollectionId = CollectionId(0);

/// A time of that many minutes, by some other author.
fn version(minutes: u64, author: u8) -> Version {
    Version { time: 1_700_000_000_000_000_000 + minutes * 60_000_000_000, source: SourceId([author; 16]) }
}

fn revision(current: Version, history: &[Version], by: Option<&str>) -> IncomingRevision {
    let vector = VersionVector { history: history.to_vec(), ..VersionVector::new(current) };
    let body = by.map_or_else(|| "{}".to_owned(), |by| format!("{{\"by\":\"{by}\"}}"));
    IncomingRevision {
        collection: DEFAULT,
        id: "x".into(),
        vector,
        deleted: by.is_none(),
        body: Bytes::from(body),
    }
}

fn take(database: &Database, revision: IncomingRevision) {
    let outcomes = database.commit(&[revision], ConflictPolicy::Refuse).expect("commit");
    assert!(matches!(outcomes[..], [CommitOutcome::Inserted { .. }]), "{outcomes:?}");
}

fn newest(database: &Database) -> Change {
    database.document(DEFAULT, "x").expect("read").expect("there")
}

struct Databases {
    a: Arc<Database>,
    p: Arc<Database>,
    _directory: tempfile::TempDir,
}

fn databases() -> Databases {
    let directory = tempfile::tempdir().expect("a directory");
    let open = |name: &str| {
        let path = directory.path().join(name);
        Arc::new(Database::open(path, DatabaseConfig::default()).expect("opens"))
    };
    Databases { a: open("a"), p: open("p"), _directory: directory }
}

/// An edit lost against a deletion here, and won there against an edit on top of that deletion.
#[test]
fn revisions_kept_against_each_other_become_equal() {
    let (deletion, edit, on_top) = (version(10, 1), version(20, 2), version(15, 3));
    let deleted = || revision(deletion, &[edit], None);
    let edited = || revision(edit, &[on_top, deletion], Some("edit"));
    assert!(deleted().vector.mutually_contains(&edited().vector));
    for extension in [false, true] {
        for deleted_at_active in [false, true] {
            let Databases { a, p, _directory } = databases();
            let (at_a, at_p) = if deleted_at_active { (deleted(), edited()) } else { (edited(), deleted()) };
            take(&a, at_a);
            take(&p, at_p);
            let config = ActiveConfig { extension, peer_uid: "p".into(), ..ActiveConfig::default() };
            let passive = PassiveConfig { extension, ..PassiveConfig::default() };
            let mut frames = 0;
            for run in 0..5 {
                let mut pair = Pair::new(run, config.clone(), passive.clone(), &a, &p);
                pair.run().expect("a run without cuts");
                frames = pair.frames;
            }
            let (at_a, at_p) = (newest(&a), newest(&p));
            assert_eq!(at_a.vector, at_p.vector, "extension {extension}, deleted at A {deleted_at_active}");
            assert!(at_a.deleted && at_p.deleted, "a deletion wins");
            assert_eq!(at_a.vector.current.source, a.source(), "who has resolved it has given it a version");
            assert!([deletion, edit, on_top].iter().all(|version| at_a.vector.contains(*version)));
            assert!(!extension || frames == 2, "at rest: {frames} frames");
        }
    }
}

/// The passive side puts its revision into its feed once more, perhaps while the active one waits for it where it stood: the
/// connection goes on, and both become equal.
#[test]
fn a_revision_that_is_wanted_comes_although_it_moves_in_the_feed() {
    let (deletion, edit, on_top) = (version(10, 1), version(20, 2), version(15, 3));
    for (extension, seed) in [false, true].into_iter().flat_map(|e| (0..40).map(move |seed| (e, seed))) {
        let Databases { a, p, _directory } = databases();
        take(&a, revision(deletion, &[edit], None));
        take(&p, revision(edit, &[on_top, deletion], Some("edit")));
        let config =
            ActiveConfig { extension, peer_uid: "p".into(), continuous: true, ..ActiveConfig::default() };
        let passive = PassiveConfig { extension, ..PassiveConfig::default() };
        let mut pair = Pair::new(seed, config, passive, &a, &p);
        pair.run_for(Duration::from_secs(400));
        assert_eq!(pair.a.finished, None, "extension {extension}, seed {seed}");
        assert_eq!(newest(&a).vector, newest(&p).vector, "extension {extension}, seed {seed}");
    }
}

/// The passive side refuses a revision, and then takes one that the refused one descends from: no pull brings a conflict
/// any more, and nothing else would bring the refused one.
#[test]
fn a_refused_revision_is_pushed_again_when_the_peer_is_behind_it() {
    let (common, other, ours) = (version(20, 1), version(10, 2), version(30, 3));
    for extension in [false, true] {
        let Databases { a, p, _directory } = databases();
        take(&a, revision(ours, &[common], Some("ours")));
        take(&p, revision(other, &[], Some("other")));
        let mut collection = CollectionConfig::new("_default");
        // Stands for a revision that is replaced before it is pulled.
        collection.pull_filter =
            Some(Arc::new(|input: &FilterInput<'_>| input.body.windows(5).all(|word| word != b"other")));
        let collections = vec![collection];
        let config = ActiveConfig {
            extension,
            peer_uid: "p".into(),
            continuous: true,
            collections,
            ..ActiveConfig::default()
        };
        let passive = PassiveConfig { extension, ..PassiveConfig::default() };
        let mut pair = Pair::new(1, config, passive, &a, &p);
        pair.run_for(Duration::from_millis(500));
        assert_eq!((newest(&a).vector.current, newest(&p).vector.current), (ours, other), "a conflict");
        take(&p, revision(common, &[other], Some("common")));
        pair.run_for(Duration::from_millis(500));
        assert_eq!(newest(&p).vector.current, ours, "extension {extension}");
    }
}
