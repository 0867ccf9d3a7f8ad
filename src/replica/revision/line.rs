//! The rules of a database with revision trees: what an edit, a merge, and a revision that was kept or taken make of tree IDs.
//!
//! One revision of a document is stored. Its tree IDs are its *line*, itself first and each ancestor one generation below, then
//! those of *closed branches*, against which it was kept or taken: a peer that is on one of them takes this revision for newer.
//! Source: `firmware-notes/replication.md`, revision IDs.

use super::{CLOSED_IDS_MAX, RevisionError, TREE_IDS_MAX, TreeId, VersionVector};
use crate::replica::clip;
use crate::replica::revision::RevId;

/// Tree IDs of a branch that are kept before those of branches that were closed earlier.
const NEWLY_CLOSED: usize = 3;

/// Most ancestors that a list asks to be told of.
const ANCESTORS_NAMED_MAX: usize = 10;

/// Most tree IDs of a history that are looked at; Couchbase Lite sends 50 of them.
const HISTORY_MAX: usize = 1_000;

#[doc(hidden)]
impl VersionVector {
    /// A revision at the first of these, with the closed branches; the oldest of both go first.
    fn of_branches(line: Vec<TreeId>, closed: Vec<TreeId>) -> Option<VersionVector> {
        let current = *line.first()?;
        let mut closed_once: Vec<TreeId> = Vec::new();
        for id in closed {
            if !line.contains(&id) && !closed_once.contains(&id) {
                closed_once.push(id);
            }
        }
        closed_once.truncate(CLOSED_IDS_MAX);
        let mut trees = line;
        trees.truncate(TREE_IDS_MAX);
        let is_below =
            |id: &TreeId| trees.last().is_some_and(|last| last.generation() == id.generation() + 1);
        if closed_once.first().is_some_and(is_below) {
            // It would be taken for an ancestor: the revision itself, once more, ends the line.
            trees.push(current);
        }
        trees.extend(closed_once);
        Some(VersionVector { trees, ..VersionVector::at_tree(current) })
    }

    /// This revision and its ancestors, each one generation below the one before.
    pub fn line(&self) -> &[TreeId] {
        let is_parent = |pair: &&[TreeId]| pair[0].generation() == pair[1].generation() + 1;
        let ancestors = self.trees.windows(2).take_while(is_parent).count();
        &self.trees[..(ancestors + 1).min(self.trees.len())]
    }

    /// Tree IDs of branches that were closed.
    pub fn closed_branches(&self) -> &[TreeId] {
        let behind = &self.trees[self.line().len()..];
        if behind.first() == self.trees.first() { behind.get(1..).unwrap_or_default() } else { behind }
    }

    /// An edit on top of this one.
    pub fn tree_edited(&self, id: TreeId) -> VersionVector {
        let line = std::iter::once(id).chain(self.line().iter().copied()).collect();
        VersionVector::of_branches(line, self.closed_branches().to_vec())
            .unwrap_or_else(|| VersionVector::at_tree(id))
    }

    /// This revision where `other` is closed: it was kept or taken against it, or descends from it. The line goes on with
    /// that of the other where they meet.
    pub fn tree_over(&self, other: &VersionVector) -> VersionVector {
        let mut line = self.line().to_vec();
        let met = line.last().and_then(|last| other.line().iter().position(|id| id == last));
        line.extend(met.into_iter().flat_map(|at| &other.line()[at + 1..]));
        // The other itself first: without it this revision would conflict with it once more.
        let (newest, rest) = other.trees.split_at(other.trees.len().min(NEWLY_CLOSED));
        let closed = [newest, self.closed_branches(), rest].concat();
        VersionVector::of_branches(line, closed).unwrap_or_else(|| self.clone())
    }

    /// Reads a `rev` of a peer with revision trees.
    ///
    /// # Errors
    /// [`RevisionError`] if an ID is malformed, the history is too long, or does not go down by one generation each.
    pub fn from_tree_history(rev: &str, history: &str) -> Result<VersionVector, RevisionError> {
        let id: TreeId = rev.trim().parse()?;
        let mut line = vec![id];
        let actual = history.bytes().filter(|byte| *byte == b',').count() + 1;
        if actual > HISTORY_MAX {
            return Err(RevisionError::TooManyVersions { max: HISTORY_MAX, actual });
        }
        let mut lowest = id.generation();
        for text in history.split(',').map(str::trim).filter(|_| !history.trim().is_empty()) {
            let ancestor: TreeId = text.parse()?;
            if ancestor.generation() + 1 != lowest {
                return Err(RevisionError::Malformed { text: clip(history) });
            }
            lowest = ancestor.generation();
            if line.len() < TREE_IDS_MAX {
                line.push(ancestor);
            }
        }
        Ok(VersionVector { trees: line, ..VersionVector::at_tree(id) })
    }

    /// This revision with more closed branches; those that are on its line are none.
    pub fn with_closed(&self, mut closed: Vec<TreeId>) -> VersionVector {
        closed.extend_from_slice(self.closed_branches());
        VersionVector::of_branches(self.line().to_vec(), closed).unwrap_or_else(|| self.clone())
    }

    /// The `history` property for a peer with revision trees that is known to have `known`: ancestors down to that.
    pub fn tree_history_text(&self, known: Option<RevId>) -> String {
        let ancestors = self.line().get(1..).unwrap_or_default();
        let known = known.and_then(|known| known.tree());
        let last = ancestors.iter().position(|id| Some(*id) == known);
        let told = &ancestors[..last.map_or(ancestors.len(), |last| last + 1)];
        told.iter().map(TreeId::to_string).collect::<Vec<_>>().join(",")
    }

    /// What a peer that lists a revision of this generation may want to know of what is here.
    pub fn possible_ancestors(&self, generation: u32) -> impl Iterator<Item = TreeId> + '_ {
        let is_lower = move |id: &&TreeId| id.generation() < generation;
        self.line().iter().filter(is_lower).take(ANCESTORS_NAMED_MAX).copied()
    }
}

#[cfg(test)]
mod tests;
