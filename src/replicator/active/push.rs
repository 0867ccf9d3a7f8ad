//! The pushing half of one collection: which local changes the peer lacks, and which of them it has confirmed.

use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::revision::RevId;
use crate::replica::store::ReplicaStore;
use crate::replicator::context::SessionContext;
use crate::replicator::error::SessionError;
use crate::replicator::in_flight::Awaiting;
use crate::replicator::messages::refuse;
use crate::replicator::protocol::push::{PushProtocol, PushState, Replied};
use crate::replicator::sequences::SequenceSet;
use crate::replicator::unsynced::failure::Failure;
use crate::time::Instant;

/// What of one collection is still to be pushed, what is under way, and what the peer has.
pub(super) struct Push {
    state: PushState,
    protocol: Box<dyn PushProtocol>,
    /// The peer takes nothing.
    refused: bool,
    /// Up to here `mark_pushed` was told.
    marked: u64,
    /// The pull of this run begins where the peer's feed does.
    all_listed: bool,
}

impl Push {
    pub fn new(state: PushState, protocol: Box<dyn PushProtocol>) -> Push {
        Push { state, protocol, refused: false, marked: 0, all_listed: false }
    }

    /// The pull of this run brings all that the peer has.
    pub fn everything_is_listed(&mut self) {
        self.all_listed = true;
    }

    /// Local sequences that need not be pushed any more.
    pub fn done(&self) -> &SequenceSet {
        &self.state.done
    }

    /// When a delayed push is due.
    pub fn due_at(&self) -> Option<Instant> {
        self.state.delayed_until
    }

    /// Ends a delay that is over: also while nothing can be sent, or its moment would stay due.
    pub fn end_delay(&mut self, now: Instant) {
        self.state.delayed_until = self.state.delayed_until.filter(|until| now < *until);
    }

    /// Whether everything that is to be pushed is confirmed.
    pub fn is_idle(&self, ceiling: u64) -> bool {
        let read = self.state.feed.is_exhausted(ceiling) && self.state.delayed_until.is_none();
        self.refused || (read && self.protocol.is_idle())
    }

    /// Local changes that are not read yet.
    pub fn unread(&self, ceiling: u64) -> u64 {
        if self.refused { 0 } else { self.state.feed.unread(ceiling) }
    }

    /// Whether a one-shot push is over.
    pub fn is_complete(&self, ceiling: u64) -> bool {
        self.refused || (self.is_idle(ceiling) && self.state.feed.is_complete())
    }

    /// The peer takes nothing: ends this half.
    pub fn refuse(&mut self) {
        self.refused = true;
        self.protocol.clear();
    }

    /// Whether the peer takes nothing.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// The peer has what is now this local sequence: it came from there.
    pub fn peer_has(&mut self, sequence: u64) {
        self.state.feed.skip(sequence);
        self.state.done.insert(sequence);
    }

    /// The document has a new revision here that came from the peer or of a conflict with it, or cannot have one, or the
    /// peer has ours: a conflict is over.
    pub fn conflict_settled(&mut self, id: &str) {
        self.state.conflicts.settle(id, &mut self.state.done);
    }

    /// Whether the peer has refused a revision of this document.
    pub fn is_conflicted(&self, id: &str) -> bool {
        self.state.conflicts.contains(id)
    }

    /// The peer's feed shows a version that ours is or descends from. If the peer has refused ours because of another one,
    /// it has taken a new revision meanwhile, and nothing but ours is news.
    pub fn peer_is_behind(&mut self, id: &str, known: RevId) {
        if let Some(refused) = self.state.conflicts.take(id) {
            self.protocol.offer_again(id, refused, known);
        }
    }

    /// A conflict was resolved so that the peer lacks the result.
    pub fn resolution_made(&mut self, context: &SessionContext, sequence: u64) {
        self.protocol.resolution_made(&mut self.state, context, sequence);
    }

    /// Tells the store what the peer has by now.
    pub fn mark_pushed(&mut self, store: &dyn ReplicaStore) {
        let prefix = self.state.done.prefix();
        if prefix > self.marked {
            self.marked = prefix;
            store.mark_pushed(self.state.feed.id, prefix);
        }
    }

    /// Adds to what is to be sent. Gives the newest local sequence that went out with its body unasked, if any did.
    pub fn pump(
        &mut self,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<Option<u64>, SessionError> {
        if self.refused {
            return Ok(None);
        }
        self.end_delay(context.now);
        self.protocol.pump(&mut self.state, context, store)
    }

    /// Takes the reply to something that was pushed.
    pub fn handle_reply(
        &mut self,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<Replied, SessionError> {
        let replied = self.protocol.handle_reply(&mut self.state, context, awaiting, result, store)?;
        if replied.refused.is_some() {
            self.refuse();
        }
        Ok(replied)
    }

    /// Everything has come that the peer had: conflicts of which nothing came stay for the next run. `ending`: nothing will.
    pub fn tell_conflicts(
        &mut self,
        context: &mut SessionContext,
        ending: bool,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        for (id, sequence) in self.state.conflicts.tell(ending) {
            // The refusal may come after the pull has settled it: then there is another revision here.
            let newest = store.revision(self.state.feed.id, &id)?;
            match newest.filter(|change| change.sequence == sequence) {
                Some(change) => {
                    let list = context.lists.get(self.state.collection);
                    let error =
                        list.map_or_else(refuse::conflict, |list| list.conflict_of(&id, self.all_listed));
                    let failure = Failure::sent(&id, change.vector.id(), sequence, change.deleted, error);
                    context.failed(self.state.collection, failure);
                }
                None => self.conflict_settled(&id),
            }
        }
        Ok(())
    }
}
