//! How much log may be written before the next sync of the medium.
//!
//! A segment's header tells sled's recovery up to where the log was flushed when the segment was begun. Recovery looks for tears
//! from there on alone, and sled gives away the place of a segment once two later ones were begun after what replaced its content. Flushed
//! is not synced. So a power cut is told from a whole log as long as **at most one segment is begun between two syncs**: with two, the
//! second may be on the medium without the first, and passes for a log that goes on.
//!
//! What sled makes of a commit is known only afterwards: it writes pages anew after ten changes, splits and merges them, and moves
//! what is left of old segments. So a commit counts with a bound of what it may become, and where the bounds together would reach the
//! second segment, the log is flushed and the file itself shows how far it came ([`crate::database::store::sled::files::Tip`]).

use crate::database::store::ground::SEGMENT_BYTES;

const SEGMENT: u64 = SEGMENT_BYTES as u64;

/// Largest commit that is made as one batch, as estimated by [`super::Writes::log_bytes`]. A larger one goes through a redo list.
pub(in crate::database::store) const BATCH_BYTES_MAX: usize = SEGMENT_BYTES / 2;

/// What the batches since the last look may have become beyond their bounds.
const RESERVE: u64 = SEGMENT / 4;

/// Bounds after which the log is looked at in any case: one batch of many changes may have become several times its bound.
const UNSEEN_MAX: u64 = SEGMENT / 2;

/// A change's share of its leaf, which is written anew after ten changes and is a quarter of a segment at most.
const SHARE_OF_LEAF: u64 = SEGMENT / 4 / 10;

/// What a batch is taken to add to the log at most. A batch of the largest size became up to 38 KB where keys were changed and removed
/// at random, and many small ones together 3.3 times their estimate.
pub(super) fn bound(entries: usize, estimated: usize) -> u64 {
    (estimated as u64 * 4).max(entries as u64 * SHARE_OF_LEAF).min(SEGMENT)
}

/// A look at the end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Look {
    /// Bounds of what was applied before the look began.
    pub(super) applied: u64,
    /// The log sequence number at which the file ended; `None` if it was not to be seen.
    pub(super) tip: Option<u64>,
}

/// What was applied, seen and synced.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Bounds of what was applied.
    applied: u64,
    /// The newest look.
    seen: Look,
    /// The newest look that a sync is known to have covered. Two syncs may run at once, and end in either order.
    synced: Look,
}

impl Window {
    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    pub(super) fn add(&mut self, bound: u64) {
        self.applied += bound;
    }

    /// Notes a look that followed a flush.
    pub(super) fn saw(&mut self, look: Look) {
        self.seen = self.seen.max(look);
    }

    /// Notes a sync of the medium that began after the look.
    pub(super) fn synced(&mut self, look: Look) {
        self.saw(look);
        self.synced = self.synced.max(look);
    }

    /// What the last sync has covered.
    #[cfg(test)]
    pub(super) fn covered(&self) -> Look {
        self.synced
    }

    /// Whether a batch fits before the next sync: not even the most that sled is taken to write begins a second segment. Right after
    /// a sync each does, for a batch is taken to be no more than a segment.
    pub(super) fn has_room_for(&self, bound: u64) -> bool {
        if self.applied == self.synced.applied {
            return true;
        }
        match (self.seen.tip, self.synced.tip) {
            (Some(seen), Some(synced)) => {
                // At the very end of a segment the next is not begun.
                let second = (synced.saturating_sub(1) / SEGMENT + 2) * SEGMENT;
                let unseen = self.applied - self.seen.applied;
                unseen < UNSEEN_MAX && seen + unseen + bound + RESERVE <= second
            }
            // From wherever the log ends, a segment does not reach the second.
            _ => self.applied - self.synced.applied + bound <= SEGMENT,
        }
    }
}
