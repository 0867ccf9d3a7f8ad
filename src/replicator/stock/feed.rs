//! A feed that the peer pulls as Couchbase Lite does: lists of changes go out, and of those what the peer wants.

use super::sender::RevSender;
use crate::blip::{ErrorReply, IncomingReply, MessageNumber};
use crate::replica::revision::Versioning;
use crate::replica::store::{Change, ReplicaStore};
use crate::replicator::config::{CHANGES_BATCH, CHANGES_BATCH_MAX, WANTED_REVS_MAX};
use crate::replicator::context::SessionContext;
use crate::replicator::deltas::is_delta_refused;
use crate::replicator::error::SessionError;
use crate::replicator::event::Direction;
use crate::replicator::in_flight::{Awaiting, SentRev, Wanted};
use crate::replicator::messages::{ListAnswer, parse_changes_reply, profile, trees, write_changes};
use crate::replicator::protocol::feed::{FeedProtocol, FeedState, is_filtered};
use crate::replicator::pushed::PushedNote;
use crate::replicator::unsynced::failure::Failure;

/// One collection that goes out in lists.
pub(in crate::replicator) struct ListFeed {
    /// Most entries of a list.
    batch: usize,
    /// The newest list.
    last_list: Option<MessageNumber>,
    lists_in_flight: usize,
    revs: RevSender,
}

impl ListFeed {
    /// `batch`: entries of a list that the peer asks for, if it does.
    pub fn new(batch: Option<usize>) -> ListFeed {
        let batch = batch.unwrap_or(CHANGES_BATCH).clamp(CHANGES_BATCH, CHANGES_BATCH_MAX);
        ListFeed { batch, last_list: None, lists_in_flight: 0, revs: RevSender::default() }
    }

    fn pump_lists(
        &mut self,
        state: &mut FeedState,
        context: &mut SessionContext,
        pushed: &mut PushedNote,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let collection = state.collection;
        while context.may_list(self.lists_in_flight)
            && state.is_open()
            && self.revs.queued() < WANTED_REVS_MAX
        {
            // A shorter message would overtake it: the peer would take the feed for ended, or for read up to a later place.
            if self.last_list.is_some_and(|list| !context.blip.is_sent(list)) {
                return Ok(());
            }
            let ceiling = context.feed_ceiling(collection, store);
            if state.feed.is_exhausted(ceiling) {
                if !state.may_end(ceiling, context) || (pushed.is_awaited() && self.lists_in_flight > 0) {
                    return Ok(());
                }
                pushed.proof_is_missing();
                match pushed.take_put_back() {
                    None => return tell_caught_up(state, context),
                    Some(position) => state.list_again(position, pushed),
                }
                pushed.save(store);
                continue;
            }
            let rows = state.feed.read_list(store, ceiling, self.batch, context)?;
            context.report_unsendable(collection, rows.unsendable)?;
            if !rows.changes.is_empty() {
                self.list(context, collection, rows.changes)?;
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        changes: Vec<Change>,
    ) -> Result<(), SessionError> {
        let mut message = context
            .message(profile::CHANGES, collection)
            .with_body(write_changes(&changes, context.versioning));
        message.urgent = true;
        message.compressed = true;
        self.lists_in_flight += 1;
        context.progress.total += changes.len() as u64;
        context.request(message, Awaiting::Changes { collection, changes })?;
        self.last_list = Some(context.blip.last_request());
        Ok(())
    }

    /// A list that is answered with an error is not taken, and that is all: Couchbase Lite goes on after it, and has more to
    /// send.
    fn list_answered(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        changes: Vec<Change>,
        result: Result<IncomingReply, ErrorReply>,
        pushed: &mut PushedNote,
    ) -> Result<(), SessionError> {
        self.lists_in_flight = self.lists_in_flight.saturating_sub(1);
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                context.progress.completed += changes.len() as u64;
                for change in changes {
                    let Change { id, sequence, deleted, vector, .. } = change;
                    pushed.answered(sequence, false);
                    let failure = Failure::sent(&id, vector.id(), sequence, deleted, error.clone());
                    context.failed(collection, failure);
                }
                return Ok(());
            }
        };
        context.hear_of_list(&reply);
        let answers = parse_changes_reply(&reply.body, changes.len())
            .ok_or(SessionError::Malformed { what: "reply to changes" })?;
        for (change, answer) in changes.into_iter().zip(answers) {
            pushed.answered(change.sequence, !matches!(answer, ListAnswer::Wanted { .. }));
            match answer {
                ListAnswer::Wanted { ancestors } if context.versioning == Versioning::RevisionTrees => {
                    let known = trees::known_of(&change.vector, &ancestors);
                    self.revs.want(Wanted { known, bases: ancestors, ..Wanted::of(change) });
                }
                ListAnswer::Wanted { ancestors } => self.revs.want(Wanted::on_top_of(change, &ancestors)),
                _ => {
                    context.progress.completed += 1;
                    context.settled(Direction::Sent, collection, &change.id);
                }
            }
        }
        Ok(())
    }

    fn rev_answered(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        rev: SentRev,
        result: Result<IncomingReply, ErrorReply>,
    ) {
        self.revs.replied();
        if let Err(error) = &result
            && rev.is_delta
            && is_delta_refused(error)
        {
            self.revs.want(rev.whole());
            return;
        }
        context.progress.completed += 1;
        context.progress.documents += u64::from(result.is_ok());
        match result {
            Ok(_) => context.succeeded(Direction::Sent, collection, &rev.id, rev.deleted),
            // The peer leaves it out on purpose.
            Err(error) if is_filtered(&error) => {
                context.report(Direction::Sent, collection, &rev.id, rev.deleted, Some(error));
            }
            Err(error) => {
                let SentRev { id, revision, sequence, deleted, .. } = rev;
                context.failed(collection, Failure::sent(&id, revision, sequence, deleted, error));
            }
        }
    }
}

impl FeedProtocol for ListFeed {
    fn pump(
        &mut self,
        state: &mut FeedState,
        context: &mut SessionContext,
        pushed: &mut PushedNote,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        self.revs.pump(context, state.collection, store, false)?;
        self.revs.gone.clear();
        self.pump_lists(state, context, pushed, store)
    }

    fn handle_reply(
        &mut self,
        state: &mut FeedState,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        pushed: &mut PushedNote,
    ) -> Result<(), SessionError> {
        match awaiting {
            Awaiting::Changes { changes, .. } => {
                self.list_answered(context, state.collection, changes, result, pushed)
            }
            Awaiting::Rev { rev, .. } => {
                self.rev_answered(context, state.collection, rev, result);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is_idle(&self) -> bool {
        self.revs.is_idle() && self.lists_in_flight == 0
    }
}

/// Sends the empty list, once.
fn tell_caught_up(state: &mut FeedState, context: &mut SessionContext) -> Result<(), SessionError> {
    if state.caught_up {
        return Ok(());
    }
    state.caught_up = true;
    let mut message = context.message(profile::CHANGES, state.collection).with_body("[]");
    message.urgent = true;
    context.notify(message)
}
