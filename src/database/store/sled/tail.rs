//! The end of a log that was not closed in order, written to stable storage once more before anything of it counts.
//!
//! When a write-back fails, Linux reports it to `fdatasync` once and marks the pages clean all the same. Until they are
//! evicted from the page cache everybody reads them as if they were on stable storage, also a process started later, and no
//! later sync writes them. Whoever opened such a log and went on would show peers what is not on stable storage; and an
//! acknowledged commit behind it in the log would be cut off from what is before it by a hole.
//!
//! So the pages that can be meant are read as the cache has them, written back in place, which makes them dirty again,
//! and synced. Those are few: the engine lets at most one segment be begun between two syncs, and ends with the first
//! sync that fails; whatever is older was covered by a sync that succeeded. A power cut meanwhile leaves of each page what
//! was on stable storage or what the cache had, which is what a power cut in the first writing could have left.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::ground::{LOG_FILE, io_error, sync_directory};
use super::files::Survey;
use crate::database::DatabaseError;

/// Segments at the end of the log that are written again: unsynced log lies in the segment that a sync left and in the one begun
/// since. Opening sled may have begun another, and one is to spare.
const SEGMENTS: usize = 4;

/// Writes the end of the log in `directory` to stable storage once more, whatever the page cache says of it. Sled does
/// not have it open. Takes the memory of one segment.
///
/// # Errors
/// Of the operating system. The log reads as before, and nothing of its end may count as durable.
pub(super) fn rewrite(directory: &Path, survey: &Survey) -> Result<(), DatabaseError> {
    let write = || -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(directory.join(LOG_FILE))?;
        let mut buffer = Vec::new();
        for offset in survey.newest(SEGMENTS) {
            survey.read_segment(offset, &mut buffer)?;
            write_again(&file, &buffer, offset)?;
        }
        // The length too: it is not on stable storage either if the write-back that would have made it longer failed.
        file.sync_all()
    };
    write().map_err(|source| io_error("write the end of the log again", source))?;
    // Which files there are is cached as well.
    sync_directory(directory)
}

fn write_again(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    #[cfg(test)]
    REWRITTEN.with_borrow_mut(|ranges| ranges.push(offset..offset + bytes.len() as u64));
    Ok(())
}

#[cfg(test)]
thread_local! {
    /// What this thread has written again: the bytes are the same, so nothing else shows it.
    pub(crate) static REWRITTEN: std::cell::RefCell<Vec<std::ops::Range<u64>>> = const { std::cell::RefCell::new(Vec::new()) };
}
