//! What files are called, and when they were last of use.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use super::super::ground::io_error;
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;

pub(super) const PART_SUFFIX: &str = ".part";
pub(super) const NEW_PREFIX: &str = "new-";

/// What a name in the directory says.
pub(super) enum Name {
    Whole(BlobDigest),
    Part(BlobDigest),
    New,
}

impl Name {
    pub(super) fn of(name: &str) -> Option<Name> {
        if name.starts_with(NEW_PREFIX) {
            return Some(Name::New);
        }
        let (digits, is_part) = match name.strip_suffix(PART_SUFFIX) {
            Some(digits) => (digits, true),
            None => (name, false),
        };
        let digest = from_hex(digits)?;
        Some(if is_part { Name::Part(digest) } else { Name::Whole(digest) })
    }
}

pub(super) fn to_hex(digest: &BlobDigest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<BlobDigest> {
    let mut digest = [0; 20];
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 2 * digest.len() || !digits.bytes().all(is_digit) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(BlobDigest(digest))
}

/// When a file was made or found of use, milliseconds since 1970.
pub(super) fn changed_ms(metadata: &fs::Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Lets a file be of use from this time on.
pub(super) fn touch(path: &Path, time: SystemTime) -> Result<(), DatabaseError> {
    let touched = File::options().write(true).open(path).and_then(|file| file.set_modified(time));
    touched.map_err(|e| io_error("keep a blob", e))
}

/// How many whole blobs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlobCounts {
    pub(crate) blobs: u64,
    /// Of their content.
    pub(crate) bytes: u64,
}
