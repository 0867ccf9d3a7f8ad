//! Two sessions back to back over a modelled pipe, each with a store in memory.

use super::memory_store;

mod answers;
mod asking;
mod authors;
mod blobs;
mod clocks;
mod conflicts;
mod convergence;
mod cost;
mod crossing;
mod database;
mod deltas;
#[cfg(feature = "simulation")]
mod durable;
mod entry;
mod exchange;
mod hostile;
mod kinds;
mod last_word;
mod limits;
mod lists;
mod lost_access;
mod pair;
mod probes;
mod progress;
mod proposed;
mod pushed;
mod refused;
#[cfg(feature = "simulation")]
mod removed;
mod restored;
#[cfg(all(feature = "simulation", feature = "cli"))]
mod retention;
mod ring;
mod runs;
mod scripted;
mod trees;
mod unsynced;
#[cfg(all(feature = "simulation", feature = "cli"))]
mod year;

/// Runs a test with each seed up to `count`, or with that of `GATTWAY_SEED` alone, and says which one failed.
fn for_seeds(count: u64, one_seed: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let only: Option<u64> = std::env::var("GATTWAY_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let result = std::panic::catch_unwind(|| one_seed(seed));
        assert!(result.is_ok(), "seed {seed}; run it alone with GATTWAY_SEED={seed}");
    }
}
