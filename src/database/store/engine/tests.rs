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
