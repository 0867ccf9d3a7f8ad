//! Random edits on both sides, random cuts: in the end both are equal, nothing confirmed is sent again, and
//! checkpoints never go back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::for_seeds;
use super::memory_store::MemoryStore;
use super::pair::Pair;
use crate::replica::OWN_PREFIX;
use crate::replica::store::{CollectionId, ReplicaStore};
use crate::replicator::checkpoint::Checkpoint;
use crate::replicator::config::{ActiveConfig, PassiveConfig};

/// Seeds of one test run; a failing one is printed.
const SEEDS: u64 = 150;

fn edit(rng: &mut fastrand::Rng, store: &MemoryStore, documents: usize) {
    for _ in 0..rng.usize(0..60) {
        let id = format!("d{:03}", rng.usize(0..documents));
        match rng.u8(0..10) {
            0 => store.delete(&id),
            _ => store.put(
                &id,
                &format!("{{\"x\":{},\"pad\":\"{}\"}}", rng.u32(0..1000), "y".repeat(rng.usize(0..300))),
            ),
        }
    }
    store.advance_clock(rng.u64(0..20));
}

/// The checkpoint that both sides hold, from the passive side.
fn checkpoint(p: &MemoryStore, a: &MemoryStore) -> Checkpoint {
    let names = p.checkpoint_names();
    let client = names.iter().find(|n| n.starts_with("cp-"));
    let read = |store: &MemoryStore, name: &str| {
        store
            .checkpoint(CollectionId(0), name)
            .unwrap()
            .map_or_else(Checkpoint::default, |c| Checkpoint::from_json(&c.body))
    };
    client.map_or_else(Checkpoint::default, |client| {
        read(p, client).agreed(&read(a, &format!("{OWN_PREFIX}{client}")))
    })
}

fn one_seed(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (a, p) = (Arc::new(MemoryStore::new(1)), Arc::new(MemoryStore::new(2)));
    let (ours, theirs) = (rng.bool(), rng.bool());
    let config = ActiveConfig {
        peer_uid: "p".into(),
        extension: ours,
        checkpoint_interval: Duration::from_millis(rng.u64(0..3)),
        ..ActiveConfig::default()
    };
    let passive = PassiveConfig { extension: theirs, ..PassiveConfig::default() };
    let documents = rng.usize(1..400);
    let mut held = Checkpoint::default();
    for round in 0..rng.u64(1..12) {
        edit(&mut rng, &a, documents);
        edit(&mut rng, &p, documents);
        let continuous = rng.bool();
        let config = ActiveConfig { continuous, ..config.clone() };
        let mut pair = Pair::new(seed * 1_000 + round, config, passive.clone(), &a, &p).without_events();
        pair.run_and_cut(rng.u64(0..60));
        if continuous && rng.bool() {
            edit(&mut rng, &a, documents);
            edit(&mut rng, &p, documents);
            pair.run_for(Duration::from_millis(rng.u64(0..1_000)));
        }
        let now = checkpoint(&p, &a);
        let forward =
            now.local_sequence() >= held.local_sequence() && now.remote.number() >= held.remote.number();
        assert!(forward, "checkpoint went back from {} to {}", held.to_json(), now.to_json());
        held = now;
    }
    for run in 0..6 {
        let mut pair = Pair::new(seed + run, config.clone(), passive.clone(), &a, &p);
        pair.run().expect("a run without cuts");
        if run >= 3 {
            assert_eq!(a.dump(0), p.dump(0), "run {run}");
        }
    }
    let needless = a.needless.load(Ordering::Relaxed) + p.needless.load(Ordering::Relaxed);
    let mut pair = Pair::new(seed, config.clone(), passive.clone(), &a, &p);
    pair.run().expect("nothing to do");
    assert_eq!(a.needless.load(Ordering::Relaxed) + p.needless.load(Ordering::Relaxed), needless);
    if ours && theirs {
        assert_eq!(pair.frames, 2, "one round trip");
    }
}

#[test]
fn random_edits_and_cuts_converge() {
    for_seeds(SEEDS, one_seed);
}

/// Cut at every place of a first run, then run to the end: what the peer had confirmed is not sent again.
#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    for extension in [false, true] {
        for direction in
            [crate::replicator::config::ReplicatorType::Push, crate::replicator::config::ReplicatorType::Pull]
        {
            for cut in (2..60).step_by(7) {
                let (a, p) = (Arc::new(MemoryStore::new(1)), Arc::new(MemoryStore::new(2)));
                let from = if direction.pushes() { &a } else { &p };
                (0..3_000).for_each(|n| from.put(&format!("d{n:05}"), &format!("{{\"n\":{n}}}")));
                let config =
                    ActiveConfig { extension, direction, peer_uid: "p".into(), ..ActiveConfig::default() };
                let passive = PassiveConfig { extension, ..PassiveConfig::default() };
                let mut pair = Pair::new(cut, config.clone(), passive.clone(), &a, &p);
                pair.run_and_cut(cut);
                let to = if direction.pushes() { &p } else { &a };
                let had = to.count() as u64;
                let mut pair = Pair::new(cut, config.clone(), passive.clone(), &a, &p);
                pair.run().expect("the second run");
                assert_eq!(to.count(), 3_000);
                assert_eq!(to.received.load(Ordering::Relaxed), 3_000 + to.needless.load(Ordering::Relaxed));
                // A commit whose result the cut took may come again when pulled: it was never confirmed.
                let needless = to.needless.load(Ordering::Relaxed);
                let allowed = if direction.pulls() && extension { had } else { 0 };
                assert!(
                    needless <= allowed.min(4_096),
                    "cut {cut} {direction:?} {extension}: {needless} again of {had}"
                );
                let mut pair = Pair::new(cut, config, passive, &a, &p);
                pair.run().expect("the third run");
                assert!(!extension || pair.frames == 2, "nothing is left to compare: {} frames", pair.frames);
                let body = p
                    .checkpoint(CollectionId(0), &p.checkpoint_names()[0])
                    .expect("in memory")
                    .expect("there")
                    .body;
                assert!(!String::from_utf8_lossy(&body).contains("localCompleted"), "{body:?}");
            }
        }
    }
}
