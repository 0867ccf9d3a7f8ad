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
    /// Where the log ended when it was opened.
    opened: Option<u64>,
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
        self.opened = self.opened.or(look.tip);
    }

    /// Bytes that the log was seen to grow by.
    pub(super) fn grown(&self) -> u64 {
        match (self.opened, self.seen.tip) {
            (Some(opened), Some(seen)) => seen.saturating_sub(opened),
            _ => 0,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A log of which each batch may become its bound, and all between two looks a little more together.
    struct Model {
        window: Window,
        is_seen: bool,
        end: u64,
        synced_end: u64,
        /// What the batches may yet become beyond their bounds before the next look.
        beyond: u64,
        syncs: u64,
    }

    impl Model {
        fn new(end: u64, is_seen: bool) -> Model {
            let beyond = if is_seen { RESERVE } else { 0 };
            let mut model =
                Model { window: Window::default(), is_seen, end, synced_end: end, beyond, syncs: 0 };
            model.window.synced(model.look());
            model
        }

        fn look(&self) -> Look {
            Look { applied: self.window.applied(), tip: self.is_seen.then_some(self.end) }
        }

        /// As the engine does it: a look if there is no room, and a sync if there is still none. A batch becomes so many
        /// hundredths of the most that it may.
        fn write(&mut self, bound: u64, hundredths: u64) {
            if !self.window.has_room_for(bound) {
                self.window.saw(self.look());
                self.beyond = if self.is_seen { RESERVE } else { 0 };
                if !self.window.has_room_for(bound) {
                    self.window.synced(self.look());
                    (self.synced_end, self.syncs) = (self.end, self.syncs + 1);
                }
            }
            let growth = ((bound + self.beyond) * hundredths / 100).min(SEGMENT);
            self.beyond -= growth.saturating_sub(bound).min(self.beyond);
            self.end += growth;
            self.window.add(bound);
        }

        /// Segments begun since the last sync.
        fn begun(&self) -> u64 {
            (self.end - 1) / SEGMENT - (self.synced_end - 1) / SEGMENT
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn whatever_batches_become_no_second_segment_is_begun(
            end in 1..=3 * SEGMENT, is_seen: bool,
            batches in prop::collection::vec((prop_oneof![1..=SEGMENT, 1..=SEGMENT / 32], 0u64..=100), 1..200),
        ) {
            let mut model = Model::new(end, is_seen);
            for (bound, hundredths) in batches {
                model.write(bound, hundredths);
                prop_assert!(model.begun() <= 1, "{} begun up to {}", model.begun(), model.end);
            }
        }
    }

    /// A sync costs much more than a look: where the log shows that it has hardly grown, none comes.
    #[test]
    fn small_batches_share_syncs() {
        const BATCHES: u64 = 10_000;
        let syncs = |is_seen, bound, hundredths| {
            let mut model = Model::new(1, is_seen);
            (0..BATCHES).for_each(|_| model.write(bound, hundredths));
            (model.syncs, model.end / SEGMENT)
        };
        for bound in [100, SEGMENT / 100, SEGMENT / 10] {
            let (unseen, segments) = syncs(false, bound, 100);
            assert!(unseen <= 2 * segments + 2, "{unseen} syncs for {segments} segments");
            let (seen, segments) = syncs(true, bound, 10);
            assert!(seen <= 4 * segments + 2, "{seen} syncs for {segments} segments");
        }
        let (unseen, _) = syncs(false, SEGMENT / 10, 1);
        let (seen, _) = syncs(true, SEGMENT / 10, 1);
        assert!(seen * 4 < unseen, "{seen} and {unseen} syncs");
    }

    #[test]
    fn a_batch_is_taken_for_what_it_may_become() {
        assert_eq!(bound(1, 1_000), SHARE_OF_LEAF.max(4_000));
        assert_eq!(bound(10, 1_000), 10 * SHARE_OF_LEAF);
        assert_eq!(bound(1_000, 1_000), SEGMENT);
        assert_eq!(bound(1, SEGMENT_BYTES), SEGMENT);
    }
}
