//! Revision identity: versions, version vectors, and IDs of revision trees in them.
//!
//! A *version* is one author's logical time; a *version vector* is the current version, the versions it merged and the
//! newest version of every other author it descends from. Text forms are those of the wire (`text`).
//! Source: `firmware-notes/replication.md`, revision IDs.

use std::cmp::Ordering;

mod line;
#[cfg(test)]
mod tests;
mod text;
pub mod tree;
mod version;

pub use self::tree::{CLOSED_IDS_MAX, RevId, TREE_IDS_MAX, TREE_SOURCE, TreeId, Versioning, child_id};
pub use self::version::{RevisionError, SourceId, Version};

/// The most versions one vector may carry. A vector has one entry for each author of a document; of one that would grow
/// beyond this the oldest go, and a peer's is refused. As text these fit into the properties of a message.
pub const VERSIONS_MAX: usize = 2_000;

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

/// A revision with what it descends from: `current[, merged...][; history..., tree IDs...]`.
///
/// Tree IDs come from databases that kept revision trees before. A revision is at a tree ID itself if
/// `current` is the version of the first one and there are no other versions.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VersionVector {
    /// The version this revision is.
    pub current: Version,
    /// The versions that a merge joined; empty for an ordinary edit.
    pub merged: Vec<Version>,
    /// The newest version of each other author this revision descends from, and versions of tree IDs.
    pub history: Vec<Version>,
    /// Tree IDs that this revision is or descends from, those of the newest branch first; at most `TREE_IDS_MAX`
    /// and, in a database with revision trees, `CLOSED_IDS_MAX` of closed branches.
    #[doc(hidden)]
    pub trees: Vec<TreeId>,
}

#[doc(hidden)]
impl VersionVector {
    /// A first revision, with no ancestors.
    pub fn new(current: Version) -> VersionVector {
        VersionVector { current, merged: Vec::new(), history: Vec::new(), trees: Vec::new() }
    }

    /// A revision of a tree, its ancestors unknown.
    pub fn at_tree(id: TreeId) -> VersionVector {
        VersionVector { trees: vec![id], ..VersionVector::new(id.version()) }
    }

    /// Whether this is a revision of a tree, unchanged since.
    pub fn is_tree(&self) -> bool {
        let newest = self.trees.first().map(TreeId::version);
        newest == Some(self.current) && self.merged.is_empty() && self.history.is_empty()
    }

    /// What names this revision: its tree ID if it is one, otherwise its current version.
    pub fn id(&self) -> RevId {
        match self.trees.first() {
            Some(id) if self.is_tree() => RevId::Tree(*id),
            _ => RevId::Version(self.current),
        }
    }

    /// The versions: the current one, the merged ones, the history; those of tree IDs only where they stand for them.
    pub fn versions(&self) -> impl Iterator<Item = Version> + '_ {
        std::iter::once(self.current).chain(self.merged.iter().copied()).chain(self.history.iter().copied())
    }

    /// The versions and those that stand for tree IDs, some twice.
    pub fn all_versions(&self) -> impl Iterator<Item = Version> + '_ {
        self.versions().chain(self.trees.iter().map(TreeId::version))
    }

    /// The newest time of `source` in this vector.
    pub fn time_of(&self, source: SourceId) -> Option<u64> {
        self.versions().filter(|v| v.source == source).map(|v| v.time).max()
    }

    /// Whether this revision is `version` or descends from it. The times of one author are in order, those of tree IDs
    /// are not: only what is named is known.
    pub fn contains(&self, version: Version) -> bool {
        if version.source == TREE_SOURCE {
            return self.all_versions().any(|own| own == version);
        }
        self.time_of(version.source).is_some_and(|time| time >= version.time)
    }

    /// How this revision stands to `other`: whose current version does the other one contain? Two revisions that
    /// [cross](VersionVector::mutually_contains) conflict.
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
    pub fn mutually_contains(&self, other: &VersionVector) -> bool {
        self.current != other.current && self.contains(other.current) && other.contains(self.current)
    }

    /// Whether a revision of which only the name is known is this one or an ancestor of it. `None` if that cannot be told:
    /// - this revision contains a version later than its own, because it was kept against a later one, and that later one
    ///   may since have been kept against this;
    /// - the other is named by the version of a tree ID. Only a revision that was kept against another is.
    pub fn has_ancestor(&self, id: RevId) -> Option<bool> {
        let version = id.version();
        let contains = self.contains(version);
        let is_kept_tree = version.source == TREE_SOURCE && id.tree().is_none();
        let is_later = later(version, self.current) == Ordering::Greater;
        if contains && version != self.current && (is_later || is_kept_tree) { None } else { Some(contains) }
    }

    /// The vector of an ordinary edit on top of this one: the merge list is dropped, each other author stands once
    /// with its newest version, newest entry first as they stood.
    pub fn edited(&self, version: Version) -> VersionVector {
        let mut edited = VersionVector::new(version);
        edited.trees.clone_from(&self.trees);
        for v in self.versions() {
            edited.add_history(v);
        }
        edited.pruned()
    }

    /// The vector of a merge of `self` (local) with `remote`, made as `version`. Both lists have the newest time first. A
    /// merge with a tree ID is written as an edit on top of both: a list of merged versions cannot name one.
    pub fn merged_with(&self, remote: &VersionVector, version: Version) -> VersionVector {
        let mut merge = VersionVector::new(version);
        if self.current.source != TREE_SOURCE && remote.current.source != TREE_SOURCE {
            merge.merged = vec![remote.current, self.current];
            merge.merged.sort_by(|a, b| later(*b, *a));
        }
        merge.add_trees(&remote.trees);
        merge.add_trees(&self.trees);
        for v in remote.versions().chain(self.versions()) {
            merge.add_history(v);
        }
        merge.history.sort_by(|a, b| later(*b, *a));
        merge.pruned()
    }

    /// This revision with the other one in its history.
    pub fn with_history_of(&self, other: &VersionVector) -> VersionVector {
        let mut joined = self.clone();
        joined.add_trees(&other.trees);
        for v in other.versions() {
            joined.add_history(v);
        }
        joined.pruned()
    }

    /// This revision as it is told to a peer that knows no tree IDs: the newest one by its version.
    pub fn with_trees_as_versions(&self) -> VersionVector {
        let newest = self.trees.first().map(TreeId::version);
        let mut versions = VersionVector { trees: Vec::new(), ..self.clone() };
        newest.into_iter().for_each(|version| versions.add_history(version));
        versions.pruned()
    }

    /// This revision kept against `remote`: the current version stays, the history gains all of `remote`. A tree ID that
    /// is kept, or kept against, is named by its version from then on, or nothing would show that.
    pub fn with_ancestors_of(&self, remote: &VersionVector) -> VersionVector {
        let mut kept = self.clone();
        if self.is_tree() {
            kept.trees.clone_from(&remote.trees);
            kept.add_trees(&self.trees);
        } else if remote.is_tree() && !self.contains(remote.current) {
            kept.history.insert(0, remote.current);
        }
        kept.with_history_of(remote)
    }

    /// This revision taken in place of `local`, against which it won. Of two tree IDs the other is forgotten: among the
    /// ancestors of a tree ID it would be taken for one.
    pub fn taken_against(&self, local: &VersionVector) -> VersionVector {
        if self.is_tree() && local.is_tree() { self.clone() } else { self.with_history_of(local) }
    }

    /// This revision taken in place of `local`, from which it descends. What was resolved there stays resolved: `local` may
    /// have been kept against others that the author of this one never saw. A tree ID is then named by its version, as one
    /// that was kept itself: among its ancestors no peer would find the line against which `local` was kept.
    pub fn taken_after(&self, local: &VersionVector) -> VersionVector {
        let is_of_this_line = local.is_tree() || local.trees.iter().all(|id| self.trees.contains(id));
        if self.is_tree() && !is_of_this_line {
            self.with_ancestors_of(local)
        } else {
            self.with_history_of(local)
        }
    }

    /// Whether this revision needs a version of its own to win against `other`. A tree ID's version does, unless the other
    /// is a tree ID too: Couchbase Lite refuses it where it has the other one.
    pub fn needs_version_to_win(&self, other: &VersionVector) -> bool {
        self.current.source == TREE_SOURCE && !(self.is_tree() && other.is_tree())
    }

    /// This vector without its oldest versions beyond [`VERSIONS_MAX`]. Whoever has nothing newer of their authors then sees
    /// a conflict where this is a descendant; nothing is lost by that.
    fn pruned(mut self) -> VersionVector {
        let excess = (1 + self.merged.len() + self.history.len()).saturating_sub(VERSIONS_MAX);
        if excess > 0 {
            let mut oldest: Vec<Version> = self.history.clone();
            oldest.sort_by(|a, b| later(*a, *b));
            oldest.truncate(excess);
            let newest_gone = oldest.last().copied();
            self.history.retain(|v| newest_gone.is_none_or(|gone| later(*v, gone) == Ordering::Greater));
        }
        self
    }

    /// A vector as it was read, if it is one that a peer may send.
    fn checked(self) -> Result<VersionVector, RevisionError> {
        match 1 + self.merged.len() + self.history.len() {
            ..=VERSIONS_MAX => self.check_authors().map(|()| self),
            actual => Err(RevisionError::TooManyVersions { max: VERSIONS_MAX, actual }),
        }
    }

    /// No author stands twice in the history, nor that of the current version with an older one: who reads only the first of
    /// them would see another past than who reads the last. A later one of the current author stands there after a conflict
    /// between revisions that had each been kept against the other. Tree IDs share an author.
    pub(crate) fn check_authors(&self) -> Result<(), RevisionError> {
        let is_again = |v: &&Version| v.source == self.current.source && v.time <= self.current.time;
        let named = self.history.iter().filter(|v| v.source != TREE_SOURCE);
        if let Some(again) = named.clone().find(is_again) {
            return Err(RevisionError::DuplicateAuthor { author: again.source });
        }
        let mut authors: Vec<SourceId> = named.map(|v| v.source).collect();
        authors.sort_unstable();
        let twice = authors.windows(2).find(|pair| pair[0] == pair[1]);
        twice.map_or(Ok(()), |pair| Err(RevisionError::DuplicateAuthor { author: pair[0] }))
    }

    /// Adds `v` to the history unless this vector contains it; one entry an author stays, but each tree ID is one of its
    /// own.
    fn add_history(&mut self, v: Version) {
        if v.source == self.current.source && v.source != TREE_SOURCE && v.time <= self.current.time
            || self.contains(v)
        {
            return;
        }
        if v.source != TREE_SOURCE {
            self.history.retain(|h| h.source != v.source);
        } else if self.history.iter().filter(|h| h.source == TREE_SOURCE).count() >= TREE_IDS_MAX {
            return;
        }
        self.history.push(v);
    }

    /// Adds tree IDs behind those that are there.
    fn add_trees(&mut self, ids: &[TreeId]) {
        for id in ids {
            if self.trees.len() < TREE_IDS_MAX && !self.trees.contains(id) {
                self.trees.push(*id);
            }
        }
    }
}

/// Default order of two conflicting versions: the later clock, then the higher source.
pub fn later(a: Version, b: Version) -> Ordering {
    (a.time, a.source).cmp(&(b.time, b.source))
}
