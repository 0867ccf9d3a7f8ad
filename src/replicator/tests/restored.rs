//! Either side is put back to an older copy of itself, with the checkpoint that it held then: only what both copies of the checkpoint
//! say counts, so that everything comes again.

use super::exchange::{active, fill, passive, stores};
use super::pair::Pair;
use crate::replicator::config::ReplicatorType;

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
