//! What may have happened to a document before the sync, as a list of steps.

use fastrand::Rng;

use super::plan::{ACTIVE, PASSIVE};
use super::values;

/// Something that happened to a document; places are indices of databases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Put {
        at: usize,
        size: usize,
        seed: u64,
    },
    Delete {
        at: usize,
    },
    Purge {
        at: usize,
    },
    /// The revision of one database comes to another, as replication brings it.
    Copy {
        from: usize,
        to: usize,
    },
    /// So many others have edited it, one after the other, and the last revision comes to `to`.
    Crowd {
        to: usize,
        authors: usize,
        seed: u64,
    },
    /// A database that kept revision trees had it in this generation when it was upgraded, and gives it to `to`. Up to the
    /// generation `common` all branches of a seed are the same.
    Tree {
        to: usize,
        generation: u32,
        common: u32,
        seed: u64,
        branch: u64,
    },
}

/// Any past.
pub fn any(rng: &mut Rng, databases: usize) -> Vec<Step> {
    let put = |at: usize, rng: &mut Rng| Step::Put { at, size: values::size(rng), seed: rng.u64(..) };
    let side = rng.usize(..2);
    let other = 1 - side;
    let author = rng.usize(..databases);
    match rng.u8(..20) {
        0..4 => vec![put(side, rng)],
        4 => vec![put(side, rng), Step::Delete { at: side }],
        5 => vec![put(side, rng), put(other, rng)],
        6 => vec![put(side, rng), Step::Copy { from: side, to: other }],
        7 => vec![put(side, rng), Step::Copy { from: side, to: other }, put(other, rng)],
        8 => vec![put(side, rng), Step::Copy { from: side, to: other }, put(side, rng), put(other, rng)],
        9 => vec![
            put(side, rng),
            Step::Copy { from: side, to: other },
            Step::Delete { at: side },
            put(other, rng),
        ],
        10 => vec![
            put(author, rng),
            Step::Copy { from: author, to: ACTIVE },
            Step::Copy { from: author, to: PASSIVE },
            put(side, rng),
            Step::Delete { at: other },
        ],
        11 => vec![put(side, rng), Step::Copy { from: side, to: other }, Step::Purge { at: side }],
        12 => upgraded(rng, databases),
        13 => vec![put(side, rng), Step::Delete { at: side }, put(other, rng), Step::Delete { at: other }],
        14 if databases > 2 => kept_against_each_other(rng),
        _ => (0..rng.usize(1..14)).map(|_| step(rng, databases)).collect(),
    }
}

/// A third database's edit loses to a deletion at one side, and wins against an edit on top of that deletion at the other.
fn kept_against_each_other(rng: &mut Rng) -> Vec<Step> {
    let put = |at: usize, rng: &mut Rng| Step::Put { at, size: 0, seed: rng.u64(..) };
    let (side, third) = (rng.usize(..2), 2);
    let other = 1 - side;
    vec![
        put(third, rng),
        Step::Copy { from: third, to: side },
        Step::Copy { from: third, to: other },
        Step::Delete { at: side },
        Step::Copy { from: side, to: other },
        put(other, rng),
        put(third, rng),
        Step::Copy { from: third, to: side },
        Step::Copy { from: third, to: other },
    ]
}

fn step(rng: &mut Rng, databases: usize) -> Step {
    let at = rng.usize(..databases);
    let to = (at + rng.usize(1..databases)) % databases;
    match rng.u8(..10) {
        0..4 => Step::Put { at, size: values::size(rng), seed: rng.u64(..) },
        4 => Step::Delete { at },
        _ => Step::Copy { from: at, to },
    }
}

/// It comes from databases that kept revision trees, and goes on from there.
fn upgraded(rng: &mut Rng, databases: usize) -> Vec<Step> {
    let (seed, common) = (rng.u64(..), rng.u32(0..4));
    let tree = |to: usize, rng: &mut Rng| Step::Tree {
        to,
        generation: rng.u32(1..6),
        common,
        seed,
        branch: rng.u64(..2),
    };
    let mut steps = vec![tree(rng.usize(..databases), rng)];
    for _ in 0..rng.usize(..5) {
        steps.push(match rng.u8(..3) {
            0 => tree(rng.usize(..databases), rng),
            _ => step(rng, databases),
        });
    }
    steps
}

/// It has many authors.
pub fn of_a_crowd(rng: &mut Rng) -> Vec<Step> {
    let to = rng.usize(..2);
    let authors = match rng.u8(..4) {
        0 => rng.usize(2..40),
        1 => rng.usize(200..400),
        2 => 400,
        // More than a revision may name.
        _ => 2_100,
    };
    let mut steps = vec![Step::Crowd { to, authors, seed: rng.u64(..) }];
    for _ in 0..rng.usize(..3) {
        steps.push(match rng.u8(..3) {
            0 => Step::Copy { from: to, to: 1 - to },
            1 => Step::Put { at: to, size: 0, seed: rng.u64(..) },
            _ => Step::Put { at: 1 - to, size: 0, seed: rng.u64(..) },
        });
    }
    steps
}
