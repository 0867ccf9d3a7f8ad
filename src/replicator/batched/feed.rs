//! A feed that the peer pulls by the extension.

use super::sender::{BatchSender, answers};
use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::revision::SourceId;
use crate::replica::store::ReplicaStore;
use crate::replicator::context::SessionContext;
use crate::replicator::error::SessionError;
use crate::replicator::event::Direction;
use crate::replicator::extension::answer::RevAnswer;
use crate::replicator::in_flight::{Awaiting, Sent, SentRevision, Wanted};
use crate::replicator::messages::profile;
use crate::replicator::protocol::feed::{FeedProtocol, FeedState, is_filtered};
use crate::replicator::pushed::PushedNote;
use crate::replicator::unsynced::failure::Failure;

/// One collection that goes out in `revs` messages.
pub(in crate::replicator) struct BatchFeed {
    sender: BatchSender,
}

impl BatchFeed {
    /// See [`BatchSender::new`].
    pub fn new(source: SourceId, position: u64, offer_until: u64) -> BatchFeed {
        BatchFeed { sender: BatchSender::new(source, position, offer_until) }
    }

    fn answered(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        revision: SentRevision,
        answer: RevAnswer,
    ) {
        let SentRevision { id, sequence, deleted, sent, revision } = revision;
        match answer {
            RevAnswer::Wanted if sent == Sent::Offer => {
                self.sender.want(Wanted { id, sequence, revision, known: None, bases: Vec::new() });
                return;
            }
            RevAnswer::Stored(_) if sent == Sent::Body => {
                context.progress.documents += 1;
                context.succeeded(Direction::Sent, collection, &id, deleted);
            }
            RevAnswer::Stored(_) | RevAnswer::Known | RevAnswer::Wanted | RevAnswer::Conflict(_) => {
                if sent != Sent::Gone {
                    context.settled(Direction::Sent, collection, &id);
                }
                if sent == Sent::Body {
                    // What the peer knew may be older than one of its own that was refused here, and stays listed.
                    context.progress.documents += 1;
                    context.report(Direction::Sent, collection, &id, deleted, None);
                }
            }
            // The peer leaves it out on purpose.
            RevAnswer::Failed(error) if is_filtered(&error) => {
                context.report(Direction::Sent, collection, &id, deleted, Some(error));
            }
            RevAnswer::Failed(error) => {
                context.failed(collection, Failure::sent(&id, revision, sequence, deleted, error));
            }
        }
        context.progress.completed += 1;
    }
}

impl FeedProtocol for BatchFeed {
    fn pump(
        &mut self,
        state: &mut FeedState,
        context: &mut SessionContext,
        _pushed: &mut PushedNote,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let collection = state.collection;
        self.sender.pump_wanted(context, collection, store)?;
        while state.is_open() {
            let tell_end = state.may_end(context.feed_ceiling(collection, store), context);
            let sending = self.sender.pump_feed(context, collection, store, &mut state.feed, tell_end)?;
            let Some(sending) = sending else { break };
            context.progress.total += sending.sequences.len() as u64;
            state.caught_up = tell_end && state.feed.is_exhausted(context.feed_ceiling(collection, store));
        }
        Ok(())
    }

    fn handle_reply(
        &mut self,
        state: &mut FeedState,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        _pushed: &mut PushedNote,
    ) -> Result<(), SessionError> {
        let Awaiting::Revs { revisions, .. } = awaiting else { return Ok(()) };
        self.sender.answered();
        let reply = result.map_err(|error| SessionError::Refused { request: profile::REVS, error })?;
        for (revision, answer) in answers(&reply, revisions)? {
            self.answered(context, state.collection, revision, answer);
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.sender.is_idle()
    }
}
