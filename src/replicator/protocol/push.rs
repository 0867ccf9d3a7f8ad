//! The pushing half of one collection, as far as it depends on the protocol, and what both protocols keep.

use super::conflicts::{Conflicts, Refused};
use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::revision::RevId;
use crate::replica::store::ReplicaStore;
use crate::replicator::context::SessionContext;
use crate::replicator::error::{SessionError, is_conflict};
use crate::replicator::feed::Feed;
use crate::replicator::in_flight::Awaiting;
use crate::replicator::sequences::SequenceSet;
use crate::replicator::unsynced::failure::{Failure, is_final};
use crate::time::Instant;

/// How local changes of one collection go out.
pub(in crate::replicator) trait PushProtocol: Send + Sync {
    /// Adds to what is to be sent. Gives the newest local sequence that went out with its body unasked, if any did.
    fn pump(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<Option<u64>, SessionError>;

    /// Takes the reply to something that was pushed.
    fn handle_reply(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<Replied, SessionError>;

    /// Sends a refused revision once more: it descends from `known`, which is what the peer has.
    fn offer_again(&mut self, id: &str, refused: Refused, known: RevId);

    /// A conflict was resolved so that the peer lacks the result, which has this local sequence.
    fn resolution_made(&mut self, state: &mut PushState, context: &SessionContext, sequence: u64);

    /// Whether nothing is queued or in flight.
    fn is_idle(&self) -> bool;

    /// Forgets what is not sent yet.
    fn clear(&mut self);
}

/// What a reply says beside what becomes of the revisions that it answers.
#[derive(Default)]
pub(in crate::replicator) struct Replied {
    /// Sequences of the peer's feed at which it has what was pushed.
    pub at_peer: Vec<u64>,
    /// The request that the peer refuses as a whole, and why: it takes nothing.
    pub refused: Option<(&'static str, ErrorReply)>,
}

/// What of one collection the peer has, and what it has refused.
pub(in crate::replicator) struct PushState {
    /// Index of the collection.
    pub collection: usize,
    pub feed: Feed,
    /// Local sequences that need not be pushed any more: confirmed, superseded, filtered out, or the peer's own.
    pub done: SequenceSet,
    pub conflicts: Conflicts,
    /// Whether the peer's conflicting revisions will come by the pull.
    pub pulls: bool,
    pub continuous: bool,
    /// Not before then: the resolution of a conflict waits.
    pub delayed_until: Option<Instant>,
}

impl PushState {
    pub fn new(collection: usize, feed: Feed, done: SequenceSet, pulls: bool, continuous: bool) -> PushState {
        let conflicts = Conflicts::default();
        PushState { collection, feed, done, conflicts, pulls, continuous, delayed_until: None }
    }

    /// A revision was not taken. Conflicts come back by the pull; what the peer refuses for what it is goes on the list and
    /// counts as done; the rest is for the next run.
    pub fn failed(
        &mut self,
        context: &mut SessionContext,
        refused: Refused,
        failure: Failure,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let is_conflict = is_conflict(&failure.error);
        if is_conflict && self.pulls {
            self.conflicts.note(&failure.id, refused, &mut self.done);
            return Ok(());
        }
        let is_newest = self.is_newest(context, &failure.id, refused.sequence, store)?;
        if !is_newest || is_final(&failure.error) || is_conflict {
            self.done.insert(refused.sequence);
        }
        if is_newest {
            context.failed(self.collection, failure);
        }
        Ok(())
    }

    /// Whether a refused revision is still the one that there is. If the pull has brought another meanwhile, nothing is
    /// missing.
    pub fn is_newest(
        &self,
        context: &SessionContext,
        id: &str,
        sequence: u64,
        store: &dyn ReplicaStore,
    ) -> Result<bool, SessionError> {
        let newest = store.revision(context.collections[self.collection].id, id)?;
        Ok(newest.is_some_and(|change| change.sequence == sequence))
    }

    /// Of a range of the feed only these sequences go out: the rest is done.
    pub fn mark_gaps(&mut self, from: u64, through: u64, sent: impl Iterator<Item = u64>) {
        let mut next = from.saturating_add(1);
        for sequence in sent {
            if sequence > next {
                self.done.insert_range(next..=sequence - 1);
            }
            next = sequence.saturating_add(1);
        }
        if next <= through {
            self.done.insert_range(next..=through);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::blip::BlipConfig;
    use crate::replica::store::CollectionId;
    use crate::replicator::context::SessionCollection;
    use crate::replicator::memory_store::MemoryStore;

    const MAIN: CollectionId = CollectionId(0);

    fn state() -> PushState {
        PushState::new(0, Feed::new(MAIN, "_default", 0, None), SequenceSet::new(), true, false)
    }

    #[test]
    fn what_of_a_range_does_not_go_out_is_done() {
        for (from, through, sent, done) in [
            (3, 10, vec![5, 6, 9], vec![4..=4, 7..=8, 10..=10]),
            (3, 10, vec![], vec![4..=10]),
            (3, 10, vec![4, 5, 6, 7, 8, 9, 10], vec![]),
            (3, 10, vec![10], vec![4..=9]),
            (3, 10, vec![4], vec![5..=10]),
            (0, 1, vec![], vec![1..=1]),
            (7, 7, vec![], vec![]),
        ] {
            let mut state = state();
            state.mark_gaps(from, through, sent.iter().copied());
            assert_eq!(state.done.ranges().collect::<Vec<_>>(), done, "{from} to {through} without {sent:?}");
        }
    }

    #[test]
    fn only_the_revision_that_stands_here_is_the_newest() {
        let store = MemoryStore::new(1);
        store.put("d", "{}");
        let mut context = SessionContext::new(BlipConfig::default(), true, true, Duration::from_secs(60));
        let name = "_default".to_owned();
        context.collections = vec![SessionCollection {
            name,
            id: MAIN,
            index: None,
            incoming_filter: None,
            outgoing_filter: None,
        }];
        let is_newest = |id, sequence| state().is_newest(&context, id, sequence, &store).expect("readable");
        assert_eq!([is_newest("d", 1), is_newest("d", 2), is_newest("other", 1)], [true, false, false]);
        store.put("d", r#"{"n":2}"#);
        assert_eq!([is_newest("d", 1), is_newest("d", 2)], [false, true]);
    }
}
