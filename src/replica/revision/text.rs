//! Version vectors as text: what stands in lists, in `rev` messages and in output for people.
//!
//! On the wire Couchbase Lite takes each author once, so of several versions that stand for tree IDs one goes, and one
//! tree ID at the end of a history. Only a revision that is a tree ID itself names its ancestors.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::{RevId, RevisionError, TREE_SOURCE, TreeId, VERSIONS_MAX, Version, VersionVector, later};
use crate::replica::clip;

#[doc(hidden)]
impl VersionVector {
    /// Joins the `rev` and `history` properties of a `rev` message.
    ///
    /// `rev` may itself be a whole vector; `history` then adds to it.
    ///
    /// # Errors
    /// [`RevisionError`] if either is malformed, or the two hold more than [`VERSIONS_MAX`] versions or an author twice.
    pub fn from_rev_and_history(rev: &str, history: &str) -> Result<VersionVector, RevisionError> {
        let mut vector: VersionVector = rev.parse()?;
        // A history with a `;` begins with the merge list, one without is plain history.
        let (merged, older) = history.split_once(';').unwrap_or(("", history));
        for id in parse_list(merged)? {
            match id {
                RevId::Version(version) => vector.merged.push(version),
                RevId::Tree(id) => vector.add_trees(&[id]),
            }
        }
        vector.add_parsed_history(parse_list(older)?);
        vector.checked()
    }

    /// A revision as a list names it. Of one with more versions than are accepted, or an author twice, only the name is read:
    /// it can be asked for, and is refused alone when it comes.
    ///
    /// # Errors
    /// [`RevisionError::Malformed`]
    pub fn from_list_text(text: &str) -> Result<VersionVector, RevisionError> {
        match text.parse() {
            Err(RevisionError::TooManyVersions { .. } | RevisionError::DuplicateAuthor { .. }) => {
                text.split([',', ';']).next().unwrap_or_default().trim().parse()
            }
            result => result,
        }
    }

    fn add_parsed_history(&mut self, ids: Vec<RevId>) {
        for id in ids {
            match id {
                RevId::Version(version)
                    if version.source == TREE_SOURCE && self.history.contains(&version) => {}
                RevId::Version(version) => self.history.push(version),
                RevId::Tree(id) => self.add_trees(&[id]),
            }
        }
    }

    /// Everything but the current version, as the `history` property of a `rev` message; empty if there is nothing.
    ///
    /// After merged versions a `;` stands even when nothing follows.
    pub fn history_text(&self) -> String {
        self.history_text_for(None)
    }

    /// [`history_text`](VersionVector::history_text) for a peer that is known to have `known`: of several tree IDs it is
    /// that one that goes.
    pub fn history_text_for(&self, known: Option<RevId>) -> String {
        let known = known.and_then(|known| self.tree_named_by(known));
        if self.is_tree() {
            return join(self.tree_ancestors(known));
        }
        let tree = known.or_else(|| self.trees.first().copied());
        let (merged, history) = self.wire_versions();
        let older = history.into_iter().map(RevId::Version).chain(tree.map(RevId::Tree));
        let mut text = join(merged.iter());
        let older = join(older);
        if !merged.is_empty() {
            text.push_str(if older.is_empty() { ";" } else { "; " });
        }
        text + &older
    }

    /// The tree ID of this revision or an ancestor that a peer names, by itself or by the version that stands for it.
    pub fn tree_named_by(&self, id: RevId) -> Option<TreeId> {
        self.trees
            .iter()
            .copied()
            .find(|tree| id.tree().map_or(tree.version() == id.version(), |id| id == *tree))
    }

    /// This revision without its tree IDs: what a peer hears of a conflict.
    pub fn versions_text(&self) -> String {
        let (merged, history) = self.wire_versions();
        match self.id() {
            id @ RevId::Tree(_) => id.to_string(),
            RevId::Version(current) => vector_text(current, &merged, history.iter()),
        }
    }

    /// How a list names this revision: by its name, and by all versions if the current one is not the latest of them, so
    /// that a peer whose revision crosses this one sees that. `known` stands in the list beside it.
    pub fn list_text(&self, known: Option<RevId>) -> String {
        let known = known.map(|known| known.version());
        let is_told =
            |v: Version| known.is_some_and(|known| known.source == v.source && known.time >= v.time);
        let is_hidden = |v: Version| {
            v.source != TREE_SOURCE && later(v, self.current) == Ordering::Greater && !is_told(v)
        };
        if self.versions().any(is_hidden) { self.versions_text() } else { self.id().to_string() }
    }

    /// Ancestors of a tree ID: each of a lower generation than the one before. They are those of its own line, or of the
    /// one that begins with `known` if that stands on another.
    fn tree_ancestors(&self, known: Option<TreeId>) -> Vec<TreeId> {
        let generation = self.trees.first().map_or(0, TreeId::generation);
        let line = |ids: &[TreeId]| {
            let mut lowest = generation;
            let is_lower = |id: &&TreeId| {
                let is_lower = id.generation() < lowest;
                lowest = lowest.min(id.generation());
                is_lower
            };
            ids.iter().filter(is_lower).copied().collect::<Vec<TreeId>>()
        };
        let own = line(&self.trees);
        let other = known.filter(|known| known.generation() < generation && !own.contains(known));
        let at = other.and_then(|known| self.trees.iter().position(|id| *id == known));
        at.map_or(own, |at| line(&self.trees[at..]))
    }

    /// Merged versions and history in which at most one version stands for a tree ID, the current one counted.
    fn wire_versions(&self) -> (Vec<Version>, Vec<Version>) {
        let mut named = self.current.source == TREE_SOURCE;
        let mut once = |v: &Version| v.source != TREE_SOURCE || !std::mem::replace(&mut named, true);
        let merged = self.merged.iter().copied().filter(&mut once).collect();
        (merged, self.history.iter().copied().filter(&mut once).collect())
    }
}

impl fmt::Display for VersionVector {
    /// All of it, tree IDs too; [`VersionVector::from_str`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_tree() {
            return f.write_str(&join(self.trees.iter()));
        }
        let older = self.history.iter().copied().map(RevId::Version);
        let older = older.chain(self.trees.iter().copied().map(RevId::Tree));
        f.write_str(&vector_text(self.current, &self.merged, older))
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
        let mut vector = match current {
            RevId::Version(version) => VersionVector::new(version),
            RevId::Tree(id) => VersionVector::at_tree(id),
        };
        for id in front {
            match id {
                RevId::Version(version) => vector.merged.push(version),
                RevId::Tree(id) => vector.add_trees(&[id]),
            }
        }
        vector.add_parsed_history(parse_list(back)?);
        vector.checked()
    }
}

fn vector_text(
    current: Version,
    merged: &[Version],
    older: impl IntoIterator<Item = impl fmt::Display>,
) -> String {
    let mut text = join(std::iter::once(&current).chain(merged));
    let older = join(older);
    match (older.is_empty(), merged.is_empty()) {
        (false, _) => {
            text.push_str("; ");
            text.push_str(&older);
        }
        (true, false) => text.push(';'),
        (true, true) => {}
    }
    text
}

fn join(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn parse_list(text: &str) -> Result<Vec<RevId>, RevisionError> {
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
