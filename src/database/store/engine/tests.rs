//! The window of unsynced log, which a power cut must never find larger than a segment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use super::*;

fn writes(bytes: usize) -> Writes {
    let mut writes = Writes::default();
    writes.insert(*b"key", vec![0; bytes / LOG_AMPLIFICATION]);
    writes
}

/// A leader's sync that takes long covers what was written before it began, and nothing of what came meanwhile, however many
/// syncs of others have come and gone.
#[test]
fn a_slow_sync_does_not_cover_what_came_after_it_began() {
    const PART: usize = SYNC_WINDOW / 2;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = Engine::open(directory.path(), 1 << 20, Ticket::default()).expect("open");
    engine.apply_part(writes(PART)).expect("apply");
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let first = AtomicBool::new(true);
    *engine.synced.lock().expect("lock") = Some(Box::new(move || {
        if first.swap(false, Ordering::Relaxed) {
            begun.send(()).expect("the test waits");
            may_go_on.recv().expect("the test says so");
        }
    }));
    let engine = Arc::new(engine);
    let slow = {
        let engine = Arc::clone(&engine);
        std::thread::spawn(move || engine.sync_medium())
    };
    has_begun.recv().expect("the slow sync has begun");
    // Another sync has come and gone. (Not for real: the hook of the slow one would keep it.)
    {
        let mut group = engine.lock();
        group.synced_bytes = group.log_bytes;
    }
    engine.apply_part(writes(PART)).expect("apply");
    let unsynced = engine.lock().unsynced_bytes();
    go_on.send(()).expect("the slow sync waits");
    slow.join().expect("no panic").expect("synced");
    assert!(unsynced >= PART as u64 / 2, "{unsynced} bytes");
    assert_eq!(engine.lock().unsynced_bytes(), unsynced, "the slow sync did not cover them");
}

/// Keys written over and removed at random, small values and large ones apart as the database keeps them: a power cut never finds
/// so much unsynced log that it would be taken for damage, whatever sled makes of the writes. Its own threads have a part in
/// it, so a seed does not give the same number twice.
#[test]
fn less_than_two_segments_are_written_between_two_syncs_whatever_is_written() {
    const MAX: u64 = 2 * SEGMENT_BYTES as u64;
    const SEEDS: u64 = 20;
    let seeds = match std::env::var("GATTWAY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    let all: Vec<(u64, u64)> = seeds.map(|seed| (most_between_two_syncs(seed), seed)).collect();
    let most = all.iter().max().copied().unwrap_or_default();
    println!("at most (bytes, seed) {most:?} of {all:?}");
    assert!(most.0 < MAX, "(bytes, seed) {most:?} between two syncs");
}

fn most_between_two_syncs(seed: u64) -> u64 {
    const BATCHES: u32 = 1_000;
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = Engine::open(directory.path(), 1 << 20, Ticket::default()).expect("open");
    let (seen, path) = (Arc::new(Mutex::new((0, 0))), directory.path().to_owned());
    let noted = Arc::clone(&seen);
    *engine.synced.lock().expect("lock") = Some(Box::new(move || {
        let end = crate::database::store::log_end(&path);
        let mut noted = noted.lock().expect("lock");
        // The first sync says where the log begins.
        let grown = if noted.0 == 0 { 0 } else { end - noted.0 };
        *noted = (end, noted.1.max(grown));
    }));
    engine.sync_medium().expect("synced");
    let (keys, most_writes) = (1 << random.u32(0..12), random.usize(2..30));
    let (removed, first_large) = (random.f64() * 0.6, random.u32(0..=keys));
    let (small_max, large_max) = (random.usize(1..100), random.usize(100..=VALUE_BYTES_MAX));
    for _ in 0..BATCHES {
        let mut writes = Writes::default();
        for _ in 0..random.usize(1..most_writes) {
            let key = random.u32(0..keys);
            let max = if key < first_large { small_max } else { large_max };
            match random.f64() < removed {
                true => writes.remove(key.to_be_bytes()),
                false => writes.insert(key.to_be_bytes(), vec![random.u8(..); random.usize(0..=max)]),
            }
        }
        if writes.log_bytes() <= SYNC_WINDOW {
            engine.apply_part(writes).expect("applied");
        }
    }
    seen.lock().expect("lock").1
}
