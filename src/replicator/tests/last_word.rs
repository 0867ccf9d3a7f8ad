//! The last word of a run between gattway peers: its checkpoint, of which no answer is awaited.

use super::exchange::{active, fill, passive, stores};
use super::for_seeds;
use super::memory_store::MemoryStore;
use super::pair::Pair;
use crate::replica::store::{CollectionId, ReplicaStore};
use crate::replicator::config::ReplicatorType;

/// Frames from either side in a run without anything to do: the question for collections and its answer.
const NOTHING: (u64, u64) = (1, 1);

fn holds_a_checkpoint(store: &MemoryStore) -> bool {
    let clients = store.checkpoint_clients(CollectionId(0), "").expect("read");
    clients.iter().any(|client| client.starts_with("cp-"))
}

fn pair(seed: u64, a: &std::sync::Arc<MemoryStore>, p: &std::sync::Arc<MemoryStore>) -> Pair {
    Pair::new(seed, active(ReplicatorType::PushAndPull, true), passive(true), a, p)
}

#[test]
fn the_checkpoint_costs_no_round_trip() {
    let (a, p) = stores();
    fill(&a, "d", 1);
    let mut first = pair(1, &a, &p);
    first.run().expect("a clean end");
    assert_eq!(first.p.frames_out, 2, "one answer to the question for collections, one to the revision");
    assert_eq!(a.dump(0), p.dump(0));
    assert!(holds_a_checkpoint(&p));
    let mut second = pair(2, &a, &p);
    second.run().expect("a clean end");
    assert_eq!((second.a.frames_out, second.p.frames_out), NOTHING);
}

/// The connection ends with the last word under way: the next run finds what both copies of the checkpoint say, and misses
/// nothing.
#[test]
fn a_last_word_that_is_lost_only_costs_work() {
    let lost = std::sync::atomic::AtomicU32::new(0);
    for_seeds(60, |seed| {
        let (a, p) = stores();
        for round in 0..3 {
            fill(&a, &format!("a{round}"), 20);
            fill(&p, &format!("p{round}"), 20);
            let mut cut = pair(seed, &a, &p);
            cut.run_and_cut(u64::MAX);
            assert_eq!(cut.a.finished, Some(Ok(())));
            assert_eq!(a.dump(0), p.dump(0));
            if round == 0 && !holds_a_checkpoint(&p) {
                lost.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        pair(seed, &a, &p).run().expect("a clean end");
        let mut last = pair(seed, &a, &p);
        last.run().expect("a clean end");
        assert_eq!((last.a.frames_out, last.p.frames_out), NOTHING);
        assert_eq!(a.dump(0), p.dump(0));
    });
    assert!(lost.into_inner() > 0, "some were lost");
}
