//! An allocator that counts, so that a target can say how much memory an input may cost.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

static HELD_BY_ALL: AtomicUsize = AtomicUsize::new(0);
static PEAK_OF_ALL: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator; what each thread holds, and all of them together, is counted.
pub struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// A global allocator is an unsafe trait. Every call goes to the system's as it came; the counters are safe code.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it moves, both are there.
        count(size as isize);
        count(-(layout.size() as isize));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count(change: isize) {
    // A thread at its end has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
    let held = HELD_BY_ALL.fetch_add(change as usize, Ordering::Relaxed).wrapping_add(change as usize);
    if change > 0 {
        PEAK_OF_ALL.fetch_max(held, Ordering::Relaxed);
    }
}

/// Runs `work` and gives the bytes that this thread held at most, beyond what it held before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}

/// Bytes that all threads hold now.
pub fn held_by_all() -> usize {
    HELD_BY_ALL.load(Ordering::Relaxed)
}

/// The most bytes that all threads held since the last call; begins anew.
pub fn peak_of_all() -> usize {
    PEAK_OF_ALL.swap(held_by_all(), Ordering::Relaxed)
}
