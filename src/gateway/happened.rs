//! What happened to single documents in syncs: conflicts, and what was not taken. The newest are kept, and all are counted.

use std::collections::VecDeque;

use super::status::{ConflictStatus, LeftOutStatus, now_s};
use crate::replica::clip;
use crate::replica::store::ConflictOutcome;
use crate::replicator::error::is_conflict;
use crate::replicator::{ConflictReport, Direction, DocumentReplication};

/// Of each kind.
const KEPT_MAX: usize = 32;

/// Characters of a reason, which a peer may have chosen.
const REASON_CHARS_MAX: usize = 200;

/// The newest of both, the newest first.
#[derive(Default)]
pub(super) struct Happened {
    pub(super) conflicts: VecDeque<ConflictStatus>,
    pub(super) conflicts_total: u64,
    pub(super) left_out: VecDeque<LeftOutStatus>,
    pub(super) left_out_total: u64,
}

impl Happened {
    pub(super) fn conflict(&mut self, peer: &str, conflict: &ConflictReport) {
        let ConflictReport { collection, id, outcome } = conflict;
        let outcome = match outcome {
            ConflictOutcome::Open => "open",
            ConflictOutcome::Local => "local",
            ConflictOutcome::Remote => "remote",
            ConflictOutcome::Merged => "merged",
            ConflictOutcome::Deleted => "deleted",
        };
        let told = ConflictStatus {
            at_s: now_s(),
            peer: clip(peer),
            collection: collection.clone(),
            id: id.clone(),
            outcome: outcome.to_owned(),
        };
        // What became of one that was open.
        let is_same = |known: &ConflictStatus| {
            known.outcome == "open"
                && (&known.peer, &known.collection, &known.id) == (&told.peer, collection, id)
        };
        match self.conflicts.iter().position(is_same) {
            Some(at) => drop(self.conflicts.remove(at)),
            None => self.conflicts_total += 1,
        }
        keep(&mut self.conflicts, told);
    }

    /// Nothing where it was synced, or will be once a conflict is resolved, which is told as such.
    pub(super) fn document(&mut self, peer: &str, document: &DocumentReplication) {
        let Some(error) = document.error.as_ref().filter(|error| !is_conflict(error)) else { return };
        self.left_out_total += 1;
        let direction = match document.direction {
            Direction::Sent => "sent",
            Direction::Received => "received",
        };
        let told = LeftOutStatus {
            at_s: now_s(),
            peer: clip(peer),
            collection: document.collection.clone(),
            id: document.id.clone(),
            direction: direction.to_owned(),
            error: error.to_string().chars().take(REASON_CHARS_MAX).collect(),
        };
        keep(&mut self.left_out, told);
    }
}

fn keep<T>(kept: &mut VecDeque<T>, told: T) {
    kept.truncate(KEPT_MAX - 1);
    kept.push_front(told);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_an_open_conflict_is_told_once() {
        let mut happened = Happened::default();
        let conflict = |n: usize, outcome| ConflictReport {
            collection: "_default".into(),
            id: format!("document {n}"),
            outcome,
        };
        for n in 0..100 {
            happened.conflict("pump", &conflict(n, ConflictOutcome::Local));
        }
        happened.conflict("pump", &conflict(100, ConflictOutcome::Open));
        happened.conflict("pump", &conflict(100, ConflictOutcome::Remote));
        let newest = &happened.conflicts[0];
        assert_eq!((happened.conflicts.len(), happened.conflicts_total), (KEPT_MAX, 101));
        assert_eq!((newest.id.as_str(), newest.outcome.as_str()), ("document 100", "remote"));
        assert_eq!(happened.conflicts[1].id, "document 99");
        happened.conflict(&"n".repeat(10_000), &conflict(1, ConflictOutcome::Open));
        assert!(happened.conflicts[0].peer.len() < 100, "what a peer calls itself is bounded");
    }
}
