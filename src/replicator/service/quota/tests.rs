use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sha1::Digest;

use super::*;
use crate::database::{Database, DatabaseConfig};
use crate::replica::revision::{SourceId, Version, VersionVector};

fn revision(bytes: usize) -> IncomingRevision {
    IncomingRevision {
        collection: CollectionId(0),
        id: "x".into(),
        vector: VersionVector::new(Version { time: 1, source: SourceId([1; 16]) }),
        deleted: false,
        body: Bytes::from(vec![b' '; bytes]),
    }
}

const STORED: CommitOutcome = CommitOutcome::Inserted { sequence: 1 };

fn database() -> (tempfile::TempDir, Arc<dyn ReplicaStore>) {
    let directory = tempfile::tempdir().expect("a directory");
    let db = Database::open(directory.path().join("db"), DatabaseConfig::default()).expect("a database");
    (directory, Arc::new(db))
}

/// Ten revisions or 1,000 bytes in 100 s.
const SMALL: PeerQuota = PeerQuota { revisions: 10, bytes: 1000, period: Duration::from_secs(100) };

#[tokio::test(start_paused = true)]
async fn who_has_used_his_share_waits_and_the_others_do_not() {
    let (_directory, store) = database();
    let quotas = Quotas::new(SMALL, &store, []);
    for n in 0..10 {
        assert!(quotas.check("greedy").is_ok(), "{n}");
        quotas.used("greedy", &[revision(1)], &[STORED]);
    }
    let refused = quotas.check("greedy").expect_err("used up");
    assert!(refused.recoverable && refused.message.contains("10 documents"), "{refused}");
    assert!(quotas.check("other").is_ok());
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(quotas.check("greedy").is_ok(), "one has come back");
    quotas.used("greedy", &[revision(1)], &[STORED]);
    assert!(quotas.check("greedy").is_err(), "and not more");
    tokio::time::advance(Duration::from_secs(1000)).await;
    let resolved = CommitOutcome::Resolved {
        sequence: 1,
        push: true,
        outcome: crate::replicator::ConflictOutcome::Merged,
    };
    quotas.used("greedy", &[revision(2000)], &[resolved]);
    assert!(quotas.check("greedy").is_err(), "bytes count as well, and what a conflict came to");
    tokio::time::advance(Duration::from_secs(101)).await;
    assert!(quotas.check("greedy").is_ok());
}

#[tokio::test(start_paused = true)]
async fn blobs_that_have_come_count_by_their_bytes() {
    let (_directory, store) = database();
    let quotas = Quotas::new(SMALL, &store, []);
    let content = [7; 1_500];
    let digest = BlobDigest(sha1::Sha1::digest(content).into());
    quotas.used_for_blobs("greedy", &[digest]);
    store.append_blob(&digest, 0, &content).expect("a part");
    quotas.used_for_blobs("greedy", &[digest]);
    assert!(quotas.check("greedy").is_ok(), "it has not come whole");
    assert!(store.finish_blob(&digest).expect("finished"));
    quotas.used_for_blobs("greedy", &[digest]);
    assert!(quotas.check("greedy").is_err() && quotas.check("other").is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_stored_is_not_used_and_the_table_is_bounded() {
    let (_directory, store) = database();
    let quota = PeerQuota { revisions: 2_000, ..PeerQuota::default() };
    let quotas = Quotas::new(quota, &store, []);
    let known = CommitOutcome::AlreadyKnown { sequence: 1 };
    for _ in 0..100 {
        quotas.used("repeats", &[revision(1)], std::slice::from_ref(&known));
    }
    assert!(quotas.check("repeats").is_ok());
    quotas.used("greedy", &vec![revision(1); 2_100], &vec![STORED; 2_100]);
    for n in 0..3 * PEERS_MAX {
        let peer = format!("a name as long as the identity of a peer is ...... {n}");
        quotas.used(&peer, &[revision(1)], &[STORED]);
    }
    assert!(quotas.state().peers.len() <= PEERS_MAX);
    assert!(quotas.check("greedy").is_err(), "many identities do not make one's use forgotten");
    drop(quotas);
    let again = Quotas::new(quota, &store, []);
    assert!(again.check("greedy").is_err(), "nor over a restart");
    assert!(again.state().peers.len() > PEERS_MAX / 2, "{} found room", again.state().peers.len());
}

/// What another handle has counted comes in for those who are known here, and for others as far as there is room.
#[tokio::test(start_paused = true)]
async fn what_another_handle_counts_takes_no_more_room() {
    let (_directory, store) = database();
    let quota = PeerQuota { revisions: 100, ..PeerQuota::default() };
    let (ours, theirs) = (Quotas::new(quota, &store, []), Quotas::new(quota, &store, []));
    for n in 0..PEERS_MAX {
        ours.used(&format!("p{n}"), &[revision(1)], &[STORED]);
    }
    theirs.used("another", &[revision(1)], &[STORED]);
    theirs.used("p1", &vec![revision(1); 100], &vec![STORED; 100]);
    drop(theirs);
    assert!(ours.check("p1").is_ok());
    tokio::time::advance(WRITE_INTERVAL).await;
    ours.used("p0", &[revision(1)], &[STORED]);
    assert!(ours.check("p1").is_err(), "it is known here");
    let state = ours.state();
    assert!(state.peers.len() <= PEERS_MAX && !state.peers.contains_key("another"));
}

static WALL_NS: AtomicU64 = AtomicU64::new(1_800_000_000_000_000_000);

const SECOND: u64 = 1_000_000_000;

/// The end of the process, whenever it comes, gives nobody a new quota; the time until the next start does, bit by bit.
#[tokio::test(start_paused = true)]
async fn use_outlives_the_process() {
    let (_directory, store) = database();
    let open =
        || Quotas::with_clock(SMALL, &store, ["_default"], Box::new(|| WALL_NS.load(Ordering::Relaxed)));
    // It ends without a word, each time after one revision.
    for n in 0..10 {
        let quotas = open();
        assert!(quotas.check("greedy").is_ok(), "{n}");
        quotas.used("greedy", &[revision(1)], &[STORED]);
        std::mem::forget(quotas);
    }
    assert!(open().check("greedy").is_err(), "ten in ten runs");
    assert!(open().check("other").is_ok());
    WALL_NS.fetch_sub(3_600 * SECOND, Ordering::Relaxed);
    assert!(open().check("greedy").is_err(), "a clock that was set back gives nothing back");
    WALL_NS.fetch_add(3_610 * SECOND, Ordering::Relaxed);
    assert!(open().check("greedy").is_ok(), "one has come back");
    open().used("greedy", &[revision(1)], &[STORED]);
    assert!(open().check("greedy").is_err(), "and not more");
    // Two handles at once: neither takes back what the other has counted.
    WALL_NS.fetch_add(1_000 * SECOND, Ordering::Relaxed);
    let (first, second) = (open(), open());
    first.used("greedy", &vec![revision(1); 10], &vec![STORED; 10]);
    second.used("other", &vec![revision(1); 10], &vec![STORED; 10]);
    drop(first);
    drop(second);
    assert!(open().check("greedy").is_err() && open().check("other").is_err());
}

/// Small use beside a large quota is not written each time.
#[tokio::test(start_paused = true)]
async fn little_is_written_now_and_then_and_at_the_end() {
    let (_directory, store) = database();
    let generation = || {
        let place = store.collection(DEFAULT_NAME).expect("the default collection");
        let stored = store.checkpoint(place, &record_name()).expect("readable");
        stored.and_then(|stored| stored.revision.strip_suffix("-cc")?.parse::<u64>().ok()).unwrap_or(0)
    };
    let quotas = Quotas::new(PeerQuota::default(), &store, []);
    for _ in 0..1_000 {
        quotas.used("peer", &[revision(1)], &[STORED]);
    }
    assert_eq!(generation(), 1);
    tokio::time::advance(WRITE_INTERVAL).await;
    quotas.used("peer", &[revision(1)], &[STORED]);
    assert_eq!(generation(), 2);
    for _ in 0..2_600 {
        quotas.used("peer", &[revision(1)], &[STORED]);
    }
    assert_eq!(generation(), 3, "a hundredth");
    quotas.used("peer", &[revision(1)], &[STORED]);
    drop(quotas);
    assert_eq!(generation(), 4);
}

/// What is kept of quotas has a name that no peer can write.
#[test]
fn the_record_is_the_databases_own() {
    assert!(record_name().starts_with(OWN_PREFIX));
}
