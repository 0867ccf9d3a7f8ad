//! The note by itself: proofs, signs, and how much waits.

use super::*;

const MAIN: CollectionId = CollectionId(0);

fn noted(runs: Vec<Run>) -> PushedNote {
    let mut note = PushedNote::none(MAIN);
    note.set_runs(runs);
    note
}

/// Those that should show that the rest is there are awaited one by one; one that is wanted shows that it is not.
#[test]
fn the_proof_is_given_by_the_last_answer() {
    let run = Run { remote: 3, local: 5, count: 5 };
    let awaiting = || PushedNote { proof: Proof::Awaited(vec![9, 20]), ..noted(vec![run]) };
    let mut note = awaiting();
    note.answered(7, true);
    assert_eq!(note.proof, Proof::Awaited(vec![9, 20]), "another");
    note.answered(9, true);
    assert_eq!(note.proof, Proof::Awaited(vec![20]));
    note.answered(20, true);
    assert_eq!((note.proof, note.was_put_back), (Proof::Given, false));
    let mut note = awaiting();
    note.answered(30, false);
    assert!(!note.was_put_back, "that was never here");
    note.answered(9, false);
    assert_eq!((note.proof, note.was_put_back, note.list_from), (Proof::None, true, Some(4)));
}

/// A checkpoint that moves is worth a word in the store where there is a note, and one that goes back shows that the peer was
/// put back.
#[test]
fn a_checkpoint_that_goes_back_is_a_sign() {
    let checkpoint = |sequence: u64| format!("{{\"local\":{sequence}}}").into_bytes();
    let run = Run { remote: 3, local: 5, count: 5 };
    for (runs, covered, then, is_dirty, was_put_back) in [
        (vec![], 9, 9, false, false),
        (vec![], 9, 10, false, false),
        (vec![], 9, 8, false, false),
        (vec![run], 9, 9, false, false),
        (vec![run], 9, 10, true, false),
        (vec![run], 9, 8, true, true),
    ] {
        let mut note = PushedNote { covered, ..noted(runs) };
        note.is_dirty = false;
        note.checkpoint_set(&checkpoint(then));
        assert_eq!(
            (note.is_dirty, note.was_put_back, note.covered),
            (is_dirty, was_put_back, then),
            "{covered} {then}"
        );
    }
}

/// What a peer pushes in no order of its own takes so much memory and no more; what is in order takes none.
#[test]
fn what_waits_for_a_checkpoint_is_bounded() {
    let mut note = PushedNote { client: Some("cp-x".into()), ..PushedNote::none(MAIN) };
    for n in 1..=3 * FRESH_RUNS_MAX as u64 {
        note.came(&RemoteSequence::Number(2 * n), Some(n));
    }
    assert_eq!(note.fresh.len(), FRESH_RUNS_MAX);
    let mut note = PushedNote { client: Some("cp-x".into()), ..PushedNote::none(MAIN) };
    for n in 1..=3 * FRESH_RUNS_MAX as u64 {
        note.came(&RemoteSequence::Number(n), Some(n));
    }
    assert_eq!(note.fresh, [Run { remote: 1, local: 1, count: 3 * FRESH_RUNS_MAX as u64 }]);
}

/// Of two sessions of one peer that note something, the later one cannot tell which knows better: what either would leave out is
/// listed.
#[test]
fn what_two_sessions_note_is_listed() {
    let store = crate::replicator::memory_store::MemoryStore::new(1);
    let session = |local| {
        let runs = vec![Run { remote: local, local, count: 3 }];
        PushedNote { client: Some("cp-x".into()), name: "own/x".into(), is_dirty: true, ..noted(runs) }
    };
    for (first, second, from) in [(5, 9, 4), (9, 5, 4)] {
        let (mut one, mut other) = (session(first), session(second));
        one.stored = store.checkpoint(MAIN, "own/x").expect("read").map(|stored| stored.revision);
        one.save(&store);
        other.save(&store);
        assert_eq!((other.list_from, other.runs.len()), (Some(from), 0));
        let stored = store.checkpoint(MAIN, "own/x").expect("read").expect("kept");
        let record = record::read(&stored.body).expect("readable");
        assert_eq!((record.list_from, record.runs.len()), (Some(from), 0));
        assert_eq!(other.stored, Some(stored.revision), "the next one takes its place");
    }
}
