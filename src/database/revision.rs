//! Revision identity: versions, version vectors and (as a place to stand) rev-tree IDs.
//!
//! A *version* is one author's logical time; a *version vector* is the current version, the versions it merged and the
//! newest version of every other author it descends from. Text forms are those of the wire.
//! Source: `firmware-notes/replication.md`, revision IDs.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

/// The most versions one vector from a peer may carry. A vector has one entry for each author of a document.
pub const VERSIONS_MAX: usize = 256;

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
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// How two revisions of one document stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causality {
    /// The same revision.
    Same,
    /// The first descends from the second.
    Newer,
    /// The second descends from the first.
    Older,
    /// Neither descends from the other.
    Conflict,
}

/// A revision of generation 4: `current[, merged...][; history...]`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionVector {
    /// The version this revision is.
    pub current: Version,
    /// The versions that a merge joined; empty for an ordinary edit.
    pub merged: Vec<Version>,
    /// The newest version of each other author this revision descends from.
    pub history: Vec<Version>,
}

impl VersionVector {
    /// A first revision, with no ancestors.
    pub fn new(current: Version) -> VersionVector {
        VersionVector { current, merged: Vec::new(), history: Vec::new() }
    }

    /// Joins the `rev` and `history` properties of a `rev` message.
    ///
    /// `rev` may itself be a whole vector; `history` then adds to it.
    ///
    /// # Errors
    /// [`RevisionError`] if either is malformed or the two hold more than [`VERSIONS_MAX`] versions.
    pub fn from_rev_and_history(rev: &str, history: &str) -> Result<VersionVector, RevisionError> {
        let mut vector: VersionVector = rev.parse()?;
        // A history with a `;` begins with the merge list, one without is plain history.
        let (merged, older) = history.split_once(';').unwrap_or(("", history));
        vector.merged.extend(parse_list(merged)?);
        for version in parse_list(older)? {
            if !vector.history.contains(&version) {
                vector.history.push(version);
            }
        }
        vector.check_len()
    }

    /// Everything but the current version, as the `history` property of a `rev` message; empty if there is nothing.
    ///
    /// After merged versions a `;` stands even when nothing follows.
    pub fn history_text(&self) -> String {
        let mut text = join(&self.merged);
        if !self.merged.is_empty() {
            text.push(';');
            if !self.history.is_empty() {
                text.push(' ');
            }
        }
        text.push_str(&join(&self.history));
        text
    }

    /// All versions: the current one, the merged ones, the history.
    pub fn versions(&self) -> impl Iterator<Item = Version> + '_ {
        std::iter::once(self.current).chain(self.merged.iter().copied()).chain(self.history.iter().copied())
    }

    /// The newest time of `source` in this vector.
    pub fn time_of(&self, source: SourceId) -> Option<u64> {
        self.versions().filter(|v| v.source == source).map(|v| v.time).max()
    }

    /// Whether this revision is `version` or descends from it.
    pub fn contains(&self, version: Version) -> bool {
        self.time_of(version.source).is_some_and(|time| time >= version.time)
    }

    /// How this revision stands to `other`: whose current version does the other one contain? Two revisions that
    /// [cross](VersionVector::crosses) conflict.
    pub fn compare(&self, other: &VersionVector) -> Causality {
        if self.current == other.current {
            return Causality::Same;
        }
        match (self.contains(other.current), other.contains(self.current)) {
            (true, false) => Causality::Newer,
            (false, true) => Causality::Older,
            _ => Causality::Conflict,
        }
    }

    /// Whether two different revisions each contain the other's current version: each was kept against the other, by two
    /// resolvers that came to it through different revisions in between. No side can keep its version then, for the
    /// other takes it for known.
    pub fn crosses(&self, other: &VersionVector) -> bool {
        self.current != other.current && self.contains(other.current) && other.contains(self.current)
    }

    /// Whether a revision of which only the current `version` is known is this one or an ancestor of it. `None` if that
    /// cannot be told: this revision contains a version later than its own, because it was kept against a later one, and
    /// that later one may since have been kept against this.
    pub fn knows(&self, version: Version) -> Option<bool> {
        match (self.contains(version), later(version, self.current)) {
            (true, Ordering::Greater) => None,
            (contains, _) => Some(contains),
        }
    }

    /// How a list names this revision: by its current version, and by the whole vector if that is not the latest in it,
    /// so that a peer whose revision crosses this one sees that. `known` stands in the list beside it.
    pub fn list_text(&self, known: Option<Version>) -> String {
        let is_told =
            |v: Version| known.is_some_and(|known| known.source == v.source && known.time >= v.time);
        let is_hidden = |v: Version| later(v, self.current) == Ordering::Greater && !is_told(v);
        if self.versions().any(is_hidden) { self.to_string() } else { self.current.to_string() }
    }

    /// The vector of an ordinary edit on top of this one: the merge list is dropped, each other author stands once
    /// with its newest version, newest entry first as they stood.
    pub fn edited(&self, version: Version) -> VersionVector {
        let mut edited = VersionVector::new(version);
        for v in self.versions() {
            edited.add_history(v);
        }
        edited
    }

    /// The vector of a merge of `self` (local) with `remote`, made as `version`. Both lists have the newest time first.
    pub fn merged_with(&self, remote: &VersionVector, version: Version) -> VersionVector {
        let mut merge = VersionVector::new(version);
        merge.merged = vec![remote.current, self.current];
        merge.merged.sort_by(|a, b| later(*b, *a));
        for v in remote.versions().chain(self.versions()) {
            merge.add_history(v);
        }
        merge.history.sort_by(|a, b| later(*b, *a));
        merge
    }

    /// This revision kept against `remote`: the current version stays, the history gains all of `remote`.
    pub fn kept_against(&self, remote: &VersionVector) -> VersionVector {
        let mut kept = self.clone();
        for v in remote.versions() {
            kept.add_history(v);
        }
        kept
    }

    fn check_len(self) -> Result<VersionVector, RevisionError> {
        match 1 + self.merged.len() + self.history.len() {
            ..=VERSIONS_MAX => Ok(self),
            actual => Err(RevisionError::TooManyVersions { max: VERSIONS_MAX, actual }),
        }
    }

    /// Adds `v` to the history unless this vector contains it; one entry an author stays.
    fn add_history(&mut self, v: Version) {
        if v.source == self.current.source && v.time <= self.current.time || self.contains(v) {
            return;
        }
        self.history.retain(|h| h.source != v.source);
        self.history.push(v);
    }
}

impl fmt::Display for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.current)?;
        for v in &self.merged {
            write!(f, ", {v}")?;
        }
        if !self.history.is_empty() {
            write!(f, "; {}", join(&self.history))?;
        } else if !self.merged.is_empty() {
            f.write_str(";")?;
        }
        Ok(())
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VersionVector {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<VersionVector, RevisionError> {
        let (front, back) = text.split_once(';').unwrap_or((text, ""));
        let mut front = parse_list(front)?.into_iter();
        let current = front.next().ok_or_else(|| RevisionError::Malformed { text: clip(text) })?;
        VersionVector { current, merged: front.collect(), history: parse_list(back)? }.check_len()
    }
}

/// Default order of two conflicting versions: the later clock, then the higher source.
pub fn later(a: Version, b: Version) -> Ordering {
    (a.time, a.source).cmp(&(b.time, b.source))
}

/// A revision ID of either generation. Only version vectors are implemented; a database holds one generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RevisionId {
    /// Generation 4.
    Vector(VersionVector),
    /// Generation 3: `generation-digest`, the digest opaque.
    Tree {
        /// Number of ancestors plus one.
        generation: u32,
        /// Whatever the author's recipe gave.
        digest: String,
    },
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
        /// [`VERSIONS_MAX`].
        max: usize,
        /// What was given.
        actual: usize,
    },
}

fn join(versions: &[Version]) -> String {
    versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
}

fn parse_list(text: &str) -> Result<Vec<Version>, RevisionError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    // Looked at before the versions themselves: hostile text may hold thousands.
    let actual = 1 + text.bytes().filter(|byte| *byte == b',').count();
    if actual > VERSIONS_MAX {
        return Err(RevisionError::TooManyVersions { max: VERSIONS_MAX, actual });
    }
    text.split(',').map(|part| part.trim().parse()).collect()
}

/// The first characters of hostile text, for an error.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
