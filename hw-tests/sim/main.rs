//! Deterministic simulation of whole systems: many nodes with our real link, BLIP, replicator and store, on a modelled
//! radio and on disks that lose what was not synced, all on one thread in virtual time. A seed and a commit replay a run
//! bit for bit. `firmware-notes/simulation.md` says what is modelled, what is checked, and what this cannot show.
//!
//! | variable | |
//! |---|---|
//! | `GATTWAY_SIM_SEED` | the seed of `one_seed` |
//! | `GATTWAY_SIM_TRACE=1` | print what happens in it |
//! | `GATTWAY_SIM_FRESH` | how many seeds that were never run before `fresh_seeds` runs |
//! | `GATTWAY_SOAK_HOURS`, `GATTWAY_SOAK_SEED`, `GATTWAY_SOAK_JOBS`, `GATTWAY_SOAK_JSON` | see `scripts/soak` |

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[macro_use]
#[path = "../support/delegate.rs"]
mod delegate;

mod actions;
mod checks;
mod memory;
mod model;
mod node;
mod plan;
mod radio;
mod report;
mod run;
mod secure;
mod soak;
mod store;
mod stranger;
mod trace;
mod world;

use std::ops::Range;

use plan::{Bug, Plan};
use report::Sums;
use run::{Outcome, simulate};

/// Seeds that are run each time.
const FIXED_SEEDS: Range<u64> = 1..201;

/// Seeds that were never run before, by default.
const FRESH_SEEDS: u64 = 40;

/// Seeds within which a bug that was put in has to be found.
const BUG_SEEDS: u64 = 40;

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    match value.parse() {
        Ok(value) => Some(value),
        Err(_) => panic!("{name}={value} is not a number"),
    }
}

/// Shows what led to a violation, and how to see it again.
fn report(outcome: &Outcome) {
    let seed = outcome.plan.seed;
    outcome.lines.iter().for_each(|line| eprintln!("{line}"));
    eprintln!("\nseed {seed}: {:?}", outcome.plan);
    outcome.violations.iter().for_each(|violation| eprintln!("  {violation}"));
    eprintln!(
        "replay: GATTWAY_SIM_SEED={seed} GATTWAY_SIM_TRACE=1 \
         cargo nextest run --all-features --test sim --no-capture one_seed"
    );
}

fn run_seeds(seeds: impl Iterator<Item = u64>) {
    let mut sums = Sums::default();
    for seed in seeds {
        let outcome = simulate(Plan::new(seed), false);
        sums.add(&outcome);
        if !outcome.violations.is_empty() {
            report(&outcome);
            panic!("seed {seed}: {}", outcome.violations[0]);
        }
    }
    println!("{}", sums.table());
}

#[test]
fn one_seed() {
    let seed = variable("GATTWAY_SIM_SEED").unwrap_or(1);
    let outcome = simulate(Plan::new(seed), variable::<u8>("GATTWAY_SIM_TRACE").is_some());
    println!("hash {:016x} {:?}", outcome.hash, outcome.counts);
    if !outcome.violations.is_empty() {
        report(&outcome);
        panic!("seed {seed}: {}", outcome.violations[0]);
    }
}

#[test]
fn fixed_seeds() {
    run_seeds(FIXED_SEEDS);
}

#[test]
fn fresh_seeds() {
    let first = fastrand::u64(..u64::MAX / 2);
    println!("seeds from {first} on");
    run_seeds(first..first + variable("GATTWAY_SIM_FRESH").unwrap_or(FRESH_SEEDS));
}

#[test]
fn a_seed_replays_bit_for_bit() {
    for seed in FIXED_SEEDS.step_by(10) {
        let [first, second] = [(); 2].map(|()| simulate(Plan::new(seed), false));
        assert_eq!(first.hash, second.hash, "seed {seed} took two courses");
        assert_eq!(first.counts.packets, second.counts.packets);
    }
}

/// A simulation that cannot fail shows nothing.
fn finds(bug: Bug, expected: &str) {
    let mut found = 0;
    for seed in 1..=BUG_SEEDS {
        let outcome = simulate(Plan::with_bug(seed, bug), false);
        if let Some(violation) = outcome.violations.first() {
            found += 1;
            if violation.contains(expected) {
                println!("{bug:?} was found by seed {seed}: {violation}");
                return;
            }
            println!("seed {seed}: {violation}");
        }
    }
    panic!("{bug:?} was not found as {expected:?} within {BUG_SEEDS} seeds, {found} found something");
}

#[test]
fn finds_a_disk_that_has_not_synced_what_it_says() {
    finds(Bug::SyncLies, "lost: ");
}

#[test]
fn finds_revisions_that_are_acknowledged_and_not_stored() {
    finds(Bug::ForgetsRevisions, "lost: ");
}

#[test]
fn finds_a_checkpoint_that_claims_too_much() {
    finds(Bug::CheckpointAhead, "claims too much");
}

#[test]
fn finds_conflicts_that_stay_open() {
    finds(Bug::OpenConflicts, "not equal after");
}

/// For hours; `scripts/soak` runs it.
#[test]
#[ignore = "runs until its time is over"]
fn soak() {
    soak::run();
}
