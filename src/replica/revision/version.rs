//! A version: who made it, and when by the clock of its author.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::replica::clip;

/// Length in characters of a source ID in text.
const SOURCE_TEXT_LEN: usize = 22;

/// The author of a version: 16 random bytes, one for each database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceId(pub [u8; 16]);

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; SOURCE_TEXT_LEN];
        let len = STANDARD_NO_PAD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..len]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SourceId {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<SourceId, RevisionError> {
        let mut bytes = [0u8; 18];
        match STANDARD_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) if text.len() == SOURCE_TEXT_LEN => {}
            _ => return Err(RevisionError::Malformed { text: clip(text) }),
        }
        let mut id = [0u8; 16];
        id.copy_from_slice(&bytes[..16]);
        Ok(SourceId(id))
    }
}

/// One author's logical time: a hybrid clock in nanoseconds whose low 16 bits are a counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Hybrid logical time, nanoseconds since 1970 with a counter in the low 16 bits. Never 0.
    pub time: u64,
    /// Who made the version.
    pub source: SourceId,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}@{}", self.time, self.source)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Version {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Version, RevisionError> {
        let malformed = || RevisionError::Malformed { text: clip(text) };
        let (time, source) = text.split_once('@').ok_or_else(malformed)?;
        let plain_hex =
            !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let time = if plain_hex { u64::from_str_radix(time, 16).unwrap_or(0) } else { 0 };
        if time == 0 {
            return Err(malformed());
        }
        Ok(Version { time, source: source.parse()? })
    }
}

/// Why the text of a revision was not accepted. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevisionError {
    /// Not a version, or not a vector.
    #[error("malformed revision ID {text:?}")]
    Malformed {
        /// The first characters of what was given.
        text: String,
    },
    /// More authors than a vector may name.
    #[error("a version vector of {actual} versions, at most {max} are accepted")]
    TooManyVersions {
        /// The limit.
        max: usize,
        /// What was given.
        actual: usize,
    },
    /// An author of whom two versions are named, where only the newest belongs.
    #[error("a version vector names the author {author} twice")]
    DuplicateAuthor {
        /// Who.
        author: SourceId,
    },
}
