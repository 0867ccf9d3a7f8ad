//! Room for the log before it grows: blocks of the file's own, in advance.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// What is reserved beyond what is needed now, so that not each commit has to.
pub(super) const RESERVE_STEP_BYTES: u64 = 512 * 1024;

/// Gives a file of `len` bytes blocks for so many more, unless they are `reserved`, within the limit that there is for files.
pub(super) fn reserve_blocks(
    reserved: &AtomicU64,
    len: u64,
    bytes: u64,
    limit: Option<u64>,
    allocate: impl Fn(u64, u64) -> rustix::io::Result<()>,
) -> io::Result<()> {
    let end = len.saturating_add(bytes);
    if limit.is_some_and(|limit| end > limit) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let from = reserved.load(Ordering::Acquire).max(len);
    if from >= end {
        return Ok(());
    }
    // A little more at a time; the whole of it may be too much where the least is not.
    let allocated = allocate(from, end + RESERVE_STEP_BYTES).map(|()| end + RESERVE_STEP_BYTES);
    let allocated = allocated.or_else(|_| allocate(from, end).map(|()| end));
    match allocated {
        Ok(end) => reserved.store(end, Ordering::Release),
        Err(error) if [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL].contains(&error) => {
            tracing::debug!(%error, "this file system gives no blocks in advance");
            reserved.store(u64::MAX, Ordering::Release);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Gives the file blocks beyond its end, which its length does not show.
pub(super) fn allocate(file: &File, from: u64, to: u64) -> rustix::io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::KEEP_SIZE, from, to - from) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
