//! Breaks the store's promises on purpose, so that tests can show that they notice. Only with the feature `test-faults`,
//! and only in a program that asks for it: no option or variable of the `gattway` command reaches this.

use std::sync::atomic::{AtomicBool, Ordering};

static FDATASYNC_LEFT_OUT: AtomicBool = AtomicBool::new(false);

/// From now on commits of this process are acknowledged after sled's own flush, without our `fdatasync`.
pub fn leave_out_fdatasync() {
    FDATASYNC_LEFT_OUT.store(true, Ordering::Relaxed);
}

pub(super) fn fdatasync_is_left_out() -> bool {
    FDATASYNC_LEFT_OUT.load(Ordering::Relaxed)
}
