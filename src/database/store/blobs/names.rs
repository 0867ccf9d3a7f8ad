//! What files are called.

use crate::replica::blobs::BlobDigest;

const PART_SUFFIX: &str = ".part";
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

    /// The digest, if it is of a part.
    pub(super) fn part(self) -> Option<BlobDigest> {
        if let Name::Part(digest) = self { Some(digest) } else { None }
    }
}

pub(super) fn to_hex(digest: &BlobDigest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of the part of a blob.
pub(super) fn part_name(digest: &BlobDigest) -> String {
    to_hex(digest) + PART_SUFFIX
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

/// How many whole blobs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlobCounts {
    pub(crate) blobs: u64,
    /// Of their content.
    pub(crate) bytes: u64,
}
