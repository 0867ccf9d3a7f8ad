//! What the whole store stands on: entries of the log, its sizes, and errors of the operating system.

use std::path::Path;

use crate::database::DatabaseError;
use crate::durable;

/// Size of sled's log segments and write buffers, bytes. Small ones keep a small database small.
pub(in crate::database) const SEGMENT_BYTES: usize = 128 * 1024;

/// The log in its directory.
pub(super) const LOG_FILE: &str = "db";

/// Largest value given to sled, bytes. sled writes a node that exceeds a quarter of a segment to a file of its own that
/// no sync of ours covers; a leaf holds up to 18 entries for a moment, and keys and headers need their share.
pub(super) const VALUE_BYTES_MAX: usize = SEGMENT_BYTES / 4 / 18 - 300;

/// A key and its new value, or `None` to remove it.
pub(super) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), DatabaseError> {
    durable::sync_directory(directory).map_err(|source| io_error("sync", source))
}

/// Bytes in all files of a directory.
pub(crate) fn directory_bytes(directory: &Path) -> std::io::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { directory_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

/// An operating system's error, with a full medium told apart.
pub(super) fn io_error(action: &'static str, source: std::io::Error) -> DatabaseError {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => DatabaseError::Full { detail: source.to_string() },
        _ => DatabaseError::Io { action, source },
    }
}

/// What was read does not hold together.
pub(super) fn damaged(what: &str) -> DatabaseError {
    DatabaseError::Damaged { detail: what.to_owned() }
}

pub(super) fn damaged_block() -> DatabaseError {
    damaged("a block of records")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(sync_directory(directory.path()).is_ok());
        let missing = sync_directory(&directory.path().join("missing"));
        assert!(matches!(missing, Err(DatabaseError::Io { action: "sync", .. })), "{missing:?}");
    }
}
