//! Revision IDs of a database that kept revision trees before its upgrade to version vectors: `generation-digest`.
//!
//! A document that was not edited since the upgrade is still at such a revision, and later ones have it in their history.
//! For comparing, each stands for one [`Version`]: the time is the generation and the first five bytes of the digest, the
//! author is [`TREE_SOURCE`]. The version and the ID name the same revision; on the wire the ID is written where it is known.
//! Source: `firmware-notes/replication.md`, revision IDs.

use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};

use super::version::{RevisionError, SourceId, Version};
use crate::replica::clip;

/// The author of every version that stands for a tree ID; its text is `Revision+Tree+Encoding`.
pub const TREE_SOURCE: SourceId = SourceId([
    0x45, 0xeb, 0xe2, 0xb2, 0x2a, 0x27, 0xf9, 0x3a, 0xde, 0x7b, 0xe1, 0x27, 0x72, 0x87, 0x62, 0x9e,
]);

/// The highest generation. The version of any tree ID is then below every time of a clock that is right (the year 2006).
pub const GENERATION_MAX: u32 = (1 << 20) - 1;

/// Tree IDs kept in one vector; the oldest ones go first. As many as Couchbase Lite keeps of a document's ancestors.
pub const TREE_IDS_MAX: usize = 20;

/// Tree IDs of closed branches kept beside those, in a database with revision trees. Where many devices resolve at once each meets
/// as many branches; one that is forgotten is a conflict once more.
pub const CLOSED_IDS_MAX: usize = 60;

/// Longest digest in bytes: that of SHA-1. Sync Gateway uses 16.
const DIGEST_LEN_MAX: usize = 20;

/// Bytes of the digest that are in the version.
const DIGEST_LEN_IN_TIME: usize = 5;

/// The ID of a revision in a tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeId {
    generation: u32,
    len: u8,
    /// Zero beyond `len`.
    digest: [u8; DIGEST_LEN_MAX],
}

impl TreeId {
    /// An ID of its parts; `None` if the generation is 0 or above [`GENERATION_MAX`], or the digest is empty or longer than
    /// 20 bytes.
    pub fn new(generation: u32, digest: &[u8]) -> Option<TreeId> {
        let mut own = [0; DIGEST_LEN_MAX];
        own.get_mut(..digest.len())?.copy_from_slice(digest);
        let len = u8::try_from(digest.len()).ok().filter(|len| *len > 0)?;
        let is_valid = (1..=GENERATION_MAX).contains(&generation);
        is_valid.then_some(TreeId { generation, len, digest: own })
    }

    /// Number of ancestors plus one.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whatever the author's recipe gave; opaque here.
    pub fn digest(&self) -> &[u8] {
        &self.digest[..usize::from(self.len)]
    }

    /// The version that names the same revision.
    pub fn version(&self) -> Version {
        let mut time = u64::from(self.generation);
        for byte in &self.digest[..DIGEST_LEN_IN_TIME] {
            time = time << 8 | u64::from(*byte);
        }
        Version { time, source: TREE_SOURCE }
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.generation)?;
        self.digest().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TreeId {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<TreeId, RevisionError> {
        parse(text).ok_or_else(|| RevisionError::Malformed { text: clip(text) })
    }
}

/// One text only for each ID: no sign, no leading zero, lowercase hex of whole bytes.
fn parse(text: &str) -> Option<TreeId> {
    let (generation, hex) = text.split_once('-')?;
    let is_plain = generation.bytes().all(|b| b.is_ascii_digit()) && !generation.starts_with('0');
    let generation = generation.parse().ok().filter(|_| is_plain)?;
    let hex = hex.as_bytes();
    if hex.len() > 2 * DIGEST_LEN_MAX || !hex.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut digest = [0; DIGEST_LEN_MAX];
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    TreeId::new(generation, &digest[..hex.len() / 2])
}

/// The ID of a revision by the recipe of Couchbase Lite: of the parent's ID, of whether it is a tombstone, and of the body in its
/// canonical form. `None` if the parent has the highest generation that there is.
pub fn child_id(parent: Option<TreeId>, deleted: bool, canonical_body: &str) -> Option<TreeId> {
    let parent_text = parent.map(|parent| parent.to_string()).unwrap_or_default();
    let generation = parent.map_or(0, |parent| parent.generation()) + 1;
    if generation > GENERATION_MAX {
        return None;
    }
    let mut hash = Sha1::new();
    // It has at most 48 bytes.
    hash.update([u8::try_from(parent_text.len()).unwrap_or(u8::MAX)]);
    hash.update(&parent_text);
    hash.update([u8::from(deleted)]);
    hash.update(canonical_body);
    TreeId::new(generation, &hash.finalize())
}

/// How a database identifies revisions. It is chosen when the database is made, and stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Versioning {
    /// Generation 4 of Couchbase Lite: version vectors.
    #[default]
    VersionVectors,
    /// Generation 3, for peers that are that old: `generation-digest`.
    RevisionTrees,
}

impl fmt::Display for Versioning {
    /// As a peer is told: `version-vectors` or `rev-trees`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Versioning::VersionVectors => "version-vectors",
            Versioning::RevisionTrees => "rev-trees",
        })
    }
}

impl FromStr for Versioning {
    type Err = String;

    fn from_str(text: &str) -> Result<Versioning, String> {
        match text {
            "version-vectors" => Ok(Versioning::VersionVectors),
            "rev-trees" => Ok(Versioning::RevisionTrees),
            _ => Err(format!("{:?} is neither `version-vectors` nor `rev-trees`", clip(text))),
        }
    }
}

/// What names a revision on the wire: a version, or a tree ID. Two of them name the same revision if their
/// [`version`](RevId::version) is the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevId {
    /// A version, also one that stands for a tree ID.
    Version(Version),
    /// An ID of a tree.
    Tree(TreeId),
}

impl RevId {
    /// The version, or the one that stands for the tree ID.
    pub fn version(&self) -> Version {
        match self {
            RevId::Version(version) => *version,
            RevId::Tree(id) => id.version(),
        }
    }

    /// The tree ID, if it is one.
    pub fn tree(&self) -> Option<TreeId> {
        match self {
            RevId::Version(_) => None,
            RevId::Tree(id) => Some(*id),
        }
    }
}

impl From<Version> for RevId {
    fn from(version: Version) -> RevId {
        RevId::Version(version)
    }
}

impl fmt::Display for RevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RevId::Version(version) => fmt::Display::fmt(version, f),
            RevId::Tree(id) => fmt::Display::fmt(id, f),
        }
    }
}

impl fmt::Debug for RevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RevId {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<RevId, RevisionError> {
        // The alphabet of an author has no `-`, a tree ID no `@`.
        if text.contains('@') { text.parse().map(RevId::Version) } else { text.parse().map(RevId::Tree) }
    }
}
