//! What is remembered of tombstones that were removed: a horizon of their author where it can say that, else each of them.

use bytes::Bytes;

use super::Fixture;
use crate::database::Database;
use crate::database::clock::{AHEAD_MAX, wall_now};
use crate::database::store::AUTHORS_MAX;
use crate::replica::revision::{SourceId, TreeId, Version, VersionVector};
use crate::replica::store::{CollectionId, CommitOutcome, ConflictPolicy, IncomingRevision, ReplicaStore};

const MINUTE: u64 = 60_000_000_000;

fn version(author: usize, time: u64) -> VersionVector {
    VersionVector::new(Version { time, source: SourceId((author as u128).to_be_bytes()) })
}

/// Whether a peer's revision is taken.
fn take(database: &Database, id: &str, vector: VersionVector, deleted: bool) -> bool {
    let body = Bytes::from_static(b"{}");
    let revision = IncomingRevision { collection: CollectionId(0), id: id.into(), vector, deleted, body };
    let outcome = database.commit(&[revision], ConflictPolicy::Refuse).expect("commit").remove(0);
    assert!(
        matches!(outcome, CommitOutcome::Inserted { .. } | CommitOutcome::AlreadyKnown { .. }),
        "{outcome:?}"
    );
    matches!(outcome, CommitOutcome::Inserted { .. })
}

/// Takes a peer's tombstone and removes it; it stays away.
fn bury(database: &Database, id: &str, vector: VersionVector) {
    assert!(take(database, id, vector.clone(), true), "{id}");
    let collection = database.default_collection().expect("default");
    let place = (id, collection.last_sequence());
    assert_eq!(collection.remove_tombstones([place]).expect("removed"), 1, "{id}");
    assert!(!take(database, id, vector, true), "{id}");
}

/// The horizon of an author hides what it wrote up to then. So a time that no right clock gave raises none: all that the author
/// writes in the next years would be taken for removed.
#[test]
fn an_author_whose_clock_was_wrong_is_heard_afterwards() {
    let now = wall_now();
    let tree = TreeId::new(7, &[7; 20]).expect("a tree ID");
    let earlier = VersionVector::at_tree(TreeId::new(3, &[3; 20]).expect("a tree ID"));
    for (case, tombstone, other, is_heard) in [
        ("right", version(1, now - MINUTE), version(1, now - 2 * MINUTE), false),
        ("far ahead", version(1, now + 300 * AHEAD_MAX), version(1, now), true),
        ("never set", version(1, MINUTE), version(1, MINUTE - 1), true),
        ("a tree ID", VersionVector::at_tree(tree), earlier, true),
    ] {
        let fixture = Fixture::new();
        let database = fixture.open();
        bury(&database, "x", tombstone);
        assert_eq!(database.store.marks(), u64::from(is_heard), "{case}");
        assert_eq!(take(&database, "other", other, false), is_heard, "{case}");
    }
}

/// Beyond so many authors each tombstone is remembered by itself, until a restart and after it.
#[test]
fn so_many_authors_have_a_horizon() {
    let fixture = Fixture::new();
    let now = wall_now() - MINUTE;
    for n in 0..AUTHORS_MAX + 3 {
        let database = fixture.open();
        bury(&database, &format!("d{n}"), version(n + 1, now));
        // Those that have one have it still, and it is raised.
        bury(&database, &format!("again{n}"), version(1, now + 1_000_000 * (n as u64 + 1)));
        let marks = (n + 1).saturating_sub(AUTHORS_MAX) as u64;
        assert_eq!(database.store.marks(), marks, "{n}");
        assert!(!take(&database, "early", version(1, now - MINUTE), false), "{n}");
    }
}
