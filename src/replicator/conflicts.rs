//! What is told of conflicts: how each was resolved, on both sides of a replication.
//!
//! The active side resolves and knows at once. The passive side refuses, and learns from what comes after whose revision was kept.

#![deny(clippy::disallowed_methods)]

use std::collections::HashSet;

/// Most conflicts whose end a passive session waits for; those beyond it are told as met only.
const CONFLICTS_OPEN_MAX: usize = 1_000;

/// Conflicts of a passive session that the peer has not resolved yet, by the number of the collection and the document's ID.
#[derive(Debug, Default)]
pub(super) struct OpenConflicts {
    documents: HashSet<(usize, String)>,
}

impl OpenConflicts {
    /// A revision of the peer was refused; true if that is news.
    pub fn refused(&mut self, collection: usize, id: &str) -> bool {
        let document = (collection, id.to_owned());
        if self.documents.len() >= CONFLICTS_OPEN_MAX {
            return !self.documents.contains(&document);
        }
        self.documents.insert(document)
    }

    /// A revision came that descends from ours: true if there was a conflict, which is over.
    pub fn ended(&mut self, collection: usize, id: &str) -> bool {
        !self.documents.is_empty() && self.documents.remove(&(collection, id.to_owned()))
    }

    /// All that are left, in order.
    pub fn take(&mut self) -> Vec<(usize, String)> {
        let mut left: Vec<_> = std::mem::take(&mut self.documents).into_iter().collect();
        left.sort_unstable();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_told_when_it_is_met_and_when_it_is_over() {
        let mut open = OpenConflicts::default();
        assert!(open.refused(0, "a") && open.refused(1, "a") && open.refused(0, "b"));
        assert!(!open.refused(0, "a"), "told once");
        assert!(open.ended(1, "a") && !open.ended(1, "a"));
        assert_eq!(open.take(), [(0, "a".to_owned()), (0, "b".to_owned())]);
        assert_eq!(open.take(), []);
    }

    #[test]
    fn a_peer_with_many_conflicts_costs_little() {
        let mut open = OpenConflicts::default();
        (0..2 * CONFLICTS_OPEN_MAX).for_each(|n| assert!(open.refused(0, &n.to_string())));
        assert_eq!(open.documents.len(), CONFLICTS_OPEN_MAX);
    }
}
