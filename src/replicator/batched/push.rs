//! Pushing by the extension: local changes go out in `revs` messages.

use super::sender::{BatchSender, answers};
use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::revision::{RevId, SourceId};
use crate::replica::store::ReplicaStore;
use crate::replicator::context::{Phase, SessionContext};
use crate::replicator::error::SessionError;
use crate::replicator::event::Direction;
use crate::replicator::extension::answer::RevAnswer;
use crate::replicator::in_flight::{Awaiting, Sent, SentRevision, Wanted};
use crate::replicator::messages::{profile, refuse};
use crate::replicator::protocol::conflicts::Refused;
use crate::replicator::protocol::push::{PushProtocol, PushState, Replied};
use crate::replicator::unsynced::failure::Failure;

/// One collection that goes out in `revs` messages.
pub(in crate::replicator) struct BatchPush {
    sender: BatchSender,
}

impl BatchPush {
    /// See [`BatchSender::new`].
    pub fn new(source: SourceId, position: u64, offer_until: u64) -> BatchPush {
        BatchPush { sender: BatchSender::new(source, position, offer_until) }
    }

    /// A revision was answered. Gives the peer's sequence if it has exactly this revision now.
    fn answered(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        revision: SentRevision,
        answer: RevAnswer,
        store: &dyn ReplicaStore,
    ) -> Result<Option<u64>, SessionError> {
        let SentRevision { id, sequence, deleted, sent, revision } = revision;
        let mut at_peer = None;
        match answer {
            RevAnswer::Wanted if sent == Sent::Offer => {
                self.sender.want(Wanted { id, sequence, revision, known: None, bases: Vec::new() });
                return Ok(None);
            }
            RevAnswer::Stored(peer_sequence) => {
                state.done.insert(sequence);
                if sent == Sent::Body {
                    context.progress.documents += 1;
                    context.succeeded(Direction::Sent, state.collection, &id, deleted);
                } else {
                    context.settled(Direction::Sent, state.collection, &id);
                }
                at_peer = Some(peer_sequence);
            }
            RevAnswer::Known => {
                state.done.insert(sequence);
                if sent != Sent::Gone {
                    context.settled(Direction::Sent, state.collection, &id);
                }
            }
            // It had the body already and knows nothing to do with it: the next run tries again.
            RevAnswer::Wanted => {}
            RevAnswer::Conflict(theirs) => {
                let mutually_contains = theirs.contains(revision.version());
                let refused = Refused { mutually_contains, ..Refused::new(sequence, Some(revision)) };
                let failure = Failure::sent(&id, revision, sequence, deleted, refuse::conflict());
                state.failed(context, refused, failure, store)?;
            }
            RevAnswer::Failed(error) => {
                let refused = Refused::new(sequence, Some(revision));
                state.failed(
                    context,
                    refused,
                    Failure::sent(&id, revision, sequence, deleted, error),
                    store,
                )?;
            }
        }
        context.progress.completed += 1;
        Ok(at_peer)
    }
}

impl PushProtocol for BatchPush {
    fn pump(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<Option<u64>, SessionError> {
        if context.phase != Phase::Running {
            self.sender.clear();
            return Ok(None);
        }
        let mut newest = None;
        self.sender.pump_wanted(context, state.collection, store)?;
        while let Some(sending) =
            self.sender.pump_feed(context, state.collection, store, &mut state.feed, false)?
        {
            state.mark_gaps(sending.from, sending.through, sending.sequences.iter().copied());
            context.progress.total += sending.sequences.len() as u64;
            newest = Some(sending.through);
        }
        Ok(newest)
    }

    fn handle_reply(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<Replied, SessionError> {
        let Awaiting::Revs { revisions, .. } = awaiting else { return Ok(Replied::default()) };
        self.sender.answered();
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                return Ok(Replied { refused: Some((profile::REVS, error)), ..Replied::default() });
            }
        };
        let mut at_peer = Vec::new();
        for (revision, answer) in answers(&reply, revisions)? {
            at_peer.extend(self.answered(state, context, revision, answer, store)?);
        }
        Ok(Replied { at_peer, refused: None })
    }

    fn offer_again(&mut self, id: &str, refused: Refused, known: RevId) {
        if let Some(revision) = refused.revision {
            let (id, sequence) = (id.to_owned(), refused.sequence);
            self.sender.want(Wanted { id, sequence, revision, known: Some(known), bases: Vec::new() });
        }
    }

    /// The peer gets it within the same run.
    fn resolution_made(&mut self, state: &mut PushState, _context: &SessionContext, sequence: u64) {
        if let Some(target) = &mut state.feed.target {
            *target = sequence.max(*target);
        }
    }

    fn is_idle(&self) -> bool {
        self.sender.is_idle()
    }

    fn clear(&mut self) {
        self.sender.clear();
    }
}
