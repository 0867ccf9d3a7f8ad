//! Either side is put back to an older copy of itself, with the checkpoint that it held then: only what both copies of the checkpoint
//! say counts, so that everything comes again.

use super::exchange::{active, fill, passive, stores};
use super::for_seeds;
use super::pair::Pair;
use crate::replicator::config::{ActiveConfig, ReplicatorType};

/// What was put back, and what the device that gives says about it.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// The peer, which takes: its copy of the checkpoint is old or not there, ours is new.
    Peer,
    /// We, who take: our copy is old or not there, the peer's is new.
    Ours,
}

#[test]
fn whoever_was_put_back_gets_everything_again() {
    for extension in [false, true] {
        for lost in [Lost::Peer, Lost::Ours] {
            // Synced before the copy was made, so that it holds an older checkpoint; or not, so that it holds none.
            for before in [0, 4] {
                // Edits of its own after it was put back.
                for edits in [0, 30] {
                    one(extension, lost, before, edits);
                }
            }
        }
    }
}

fn one(extension: bool, lost: Lost, before: usize, edits: usize) {
    let what = format!("{lost:?}, extension {extension}, {before} before, {edits} edits");
    let (a, p) = stores();
    let direction = match lost {
        Lost::Peer => ReplicatorType::Push,
        Lost::Ours => ReplicatorType::Pull,
    };
    let (gives, takes) = match lost {
        Lost::Peer => (&a, &p),
        Lost::Ours => (&p, &a),
    };
    let run = |seed| {
        let mut pair = Pair::new(seed, active(direction, extension), passive(extension), &a, &p);
        pair.run().expect("a clean end");
    };
    fill(gives, "a", before);
    if before > 0 {
        run(1);
    }
    let backup = takes.backup();
    fill(gives, "b", 6);
    run(2);
    assert_eq!(takes.count(), before + 6, "{what}");
    takes.restore(&backup);
    fill(takes, "own", edits);
    run(3);
    assert_eq!(takes.count(), before + 6 + edits, "{what}");
    let has_all = (0..6).all(|n| takes.body(&format!("b{n:05}")).is_some());
    assert!(has_all, "{what}");
}

/// Steps of one history.
const STEPS: usize = 14;

/// Both sides are put back again and again, each to copies of other times than the other, and go on from there: sequences are given
/// out twice on both. What either has in the end, the other gets, though nothing is edited any more.
fn crosswise(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (a, p) = stores();
    let extension = rng.bool();
    let mut runs = 0;
    let mut run = |cut: Option<u64>, mark_seed: u64| {
        runs += 1;
        let config = ActiveConfig { mark_seed, ..active(ReplicatorType::PushAndPull, extension) };
        let mut pair = Pair::new(seed * 100 + runs, config, passive(extension), &a, &p);
        match cut {
            Some(cut) => pair.run_and_cut(cut),
            None => pair.run().expect("a clean end"),
        }
    };
    let mut copies: [Vec<_>; 2] = Default::default();
    let mut history = Vec::new();
    for step in 0..STEPS {
        let side = rng.usize(0..2);
        let store = [&a, &p][side];
        match rng.u8(0..8) {
            0..2 => copies[side].push(store.backup()),
            2..4 if !copies[side].is_empty() => {
                let copy = rng.usize(0..copies[side].len());
                history.push(format!("{side} is put back to its copy {copy}"));
                store.restore(&copies[side][copy]);
            }
            4 => {
                history.push("cut".to_owned());
                run(Some(rng.u64(0..20)), rng.u64(..));
            }
            5..8 => {
                history.push("run".to_owned());
                run(None, rng.u64(..));
            }
            _ => {}
        }
        let some = rng.usize(0..4);
        history.push(format!("{some} more at {side}"));
        fill(store, &format!("{step}-"), some);
    }
    run(None, rng.u64(..));
    run(None, rng.u64(..));
    assert_eq!(a.dump(0), p.dump(0), "seed {seed}, extension {extension}: {history:#?}");
}

#[test]
fn who_are_put_back_crosswise_become_equal() {
    for_seeds(400, crosswise);
}
