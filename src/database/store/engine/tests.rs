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

/// Whatever is written, a power cut never finds more than a segment of log that was not synced.
#[test]
fn less_than_a_segment_is_written_between_two_syncs() {
    let mut worst = 0;
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let engine = Engine::open(directory.path(), 1 << 20, Ticket::default()).expect("open");
        let (keys, value_max) = (random.u32(1..3000), random.usize(1..=VALUE_BYTES_MAX));
        let removes = random.f64();
        let (mut last, path) = (0, directory.path().to_owned());
        let most = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&most);
        let last_end = std::sync::Mutex::new(0u64);
        *engine.synced.lock().expect("lock") = Some(Box::new(move || {
            let end = crate::database::store::files::Survey::read(&path).expect("readable").end();
            let mut last = last_end.lock().expect("lock");
            let grown = if *last == 0 { 0 } else { end - *last };
            *last = end;
            seen.fetch_max(grown, Ordering::Relaxed);
        }));
        for _ in 0..2000 {
            let mut writes = Writes::default();
            for _ in 0..random.usize(1..8) {
                let key = random.u32(0..keys).to_be_bytes();
                if random.f64() < removes * 0.5 {
                    writes.remove(key);
                } else {
                    writes.insert(key, vec![random.u8(..); random.usize(0..=value_max)]);
                }
            }
            engine.apply_part(writes).expect("apply");
            last += 1;
        }
        let _ = last;
        println!("seed {seed}: keys {keys} values {value_max} removes {removes:.2}: {} syncs, most {}", engine.syncs.load(Ordering::Relaxed), most.load(Ordering::Relaxed));
        worst = worst.max(most.load(Ordering::Relaxed));
    }
    assert!(worst <= SEGMENT_BYTES as u64, "{worst} bytes");
}
