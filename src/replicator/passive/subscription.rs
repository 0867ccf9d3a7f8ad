//! One collection that the peer pulls: the change feed on its way out, as lists and revisions of Couchbase Lite or as the
//! messages of the extension.

use super::super::batched::sender::BatchSender;
use super::super::config::{CHANGES_BATCH, CHANGES_BATCH_MAX, ReplicationFilter, WANTED_REVS_MAX};
use super::super::context::{RequestError, SessionContext};
use super::super::error::SessionError;
use super::super::event::Direction;
use super::super::extension::answer::{self, RevAnswer};
use super::super::feed::Feed;
use super::super::in_flight::Awaiting;
use super::super::in_flight::SentRev;
use super::super::in_flight::{Sent, SentRevision};
use super::super::messages::{
    ListAnswer, VERSIONING, parse_changes_reply, parse_document_ids, profile, refuse, write_changes,
};
use super::super::outgoing::{RevSender, Wanted};
use super::super::sequences::SequenceSet;
use super::super::unsynced::failure::Failure;
use super::pushed::PushedNote;
use crate::blip::{ErrorReply, IncomingReply, IncomingRequest, MessageNumber};
use crate::replica::store::{Change, ReplicaStore};

/// What a peer has asked for of one collection's feed, and how far it has come.
pub(crate) struct Subscription {
    pub feed: Feed,
    continuous: bool,
    batch: usize,
    /// The newest list.
    last_list: Option<MessageNumber>,
    lists_in_flight: usize,
    /// Whether the peer was told that it has everything.
    caught_up: bool,
    /// What was there when the peer asked. While a commit is under way the feed may stop before; it does not end there.
    due: u64,
    sender: Sender,
}

enum Sender {
    Single(RevSender),
    Batches(BatchSender),
}

impl Subscription {
    /// Reads `subChanges`.
    pub fn new(
        context: &SessionContext,
        collection: usize,
        request: &IncomingRequest,
        filter: Option<ReplicationFilter>,
        document_ids_max: usize,
        pushed: &mut PushedNote,
        store: &dyn ReplicaStore,
    ) -> Result<Subscription, RequestError> {
        let property = |name| request.properties.get(name);
        if property("versioning") != Some(VERSIONING) {
            return Err(refuse::versioning().into());
        }
        if property("filter").is_some() || property("channels").is_some() {
            return Err(refuse::filter().into());
        }
        let since = property("since").and_then(|since| since.parse().ok()).unwrap_or(0);
        let batch = property("batch").and_then(|batch| batch.parse().ok()).unwrap_or(CHANGES_BATCH);
        let continuous = request.properties.get_bool("continuous");
        let target = &context.collections[collection];
        let ids = parse_document_ids(&request.body, document_ids_max)?.map(|ids| ids.into_iter().collect());
        let listing = pushed.subscribe(store, since)?;
        let mut feed = Feed::new(target.id, &target.name, listing.since, None);
        feed.ids = ids;
        feed.left_out = listing.left_out;
        feed.active_only = request.properties.get_bool("activeOnly");
        feed.filter = filter;
        let sender = match context.extension {
            true => {
                let offer_until = property("offer").and_then(|until| until.parse().ok()).unwrap_or(0);
                Sender::Batches(BatchSender::new(store.source(), since, offer_until))
            }
            false => Sender::Single(RevSender::default()),
        };
        let batch = batch.clamp(CHANGES_BATCH, CHANGES_BATCH_MAX);
        Ok(Subscription {
            feed,
            continuous,
            batch,
            lists_in_flight: 0,
            last_list: None,
            caught_up: false,
            due: store.last_sequence(target.id),
            sender,
        })
    }

    /// Document IDs that it names.
    pub fn document_ids(&self) -> usize {
        self.feed.ids.as_ref().map_or(0, |ids| ids.len())
    }

    /// Whether the peer has everything up to the newest change.
    pub fn is_idle(&self, ceiling: u64) -> bool {
        let sent = match &self.sender {
            Sender::Single(revs) => revs.is_idle() && self.lists_in_flight == 0,
            Sender::Batches(batches) => batches.is_idle(),
        };
        let read = self.feed.is_exhausted(ceiling) || (self.caught_up && !self.continuous);
        sent && read
    }

    /// Whether the peer has answered everything up to the newest change.
    pub fn has_given_all(&self, ceiling: u64) -> bool {
        self.caught_up && self.feed.is_exhausted(ceiling) && self.is_idle(ceiling)
    }

    /// The peer turns out to lack what was left out: goes back in the feed and leaves out nothing. A one-shot peer that was
    /// told that the feed ends takes no more; its next run begins there.
    pub fn list_again(&mut self, position: u64, pushed: &mut PushedNote) {
        if self.caught_up && !self.continuous {
            return;
        }
        self.feed.left_out = SequenceSet::new();
        self.feed.unread_after(position);
        pushed.lists_from(self.feed.cursor);
    }

    /// Adds to what is to be sent.
    pub fn pump(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        pushed: &mut PushedNote,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        if !matches!(context.phase, super::super::context::Phase::Running) {
            return Ok(());
        }
        let due = self.due;
        match &mut self.sender {
            Sender::Single(revs) => {
                revs.pump(context, collection, store, false)?;
                revs.gone.clear();
                self.pump_lists(context, collection, pushed, store)
            }
            Sender::Batches(batches) => {
                batches.pump_wanted(context, collection, store)?;
                while !self.caught_up || self.continuous {
                    let tell_end = may_end(due, context.feed_ceiling(collection, store), context);
                    let sending = batches.pump_feed(context, collection, store, &mut self.feed, tell_end)?;
                    let Some(sending) = sending else { break };
                    context.progress.total += sending.sequences.len() as u64;
                    self.caught_up =
                        tell_end && self.feed.is_exhausted(context.feed_ceiling(collection, store));
                }
                Ok(())
            }
        }
    }

    fn pump_lists(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        pushed: &mut PushedNote,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        while context.may_list(self.lists_in_flight) && self.may_list() {
            // A shorter message would overtake it: the peer would take the feed for ended, or for read up to a later place.
            if self.last_list.is_some_and(|list| !context.blip.is_sent(list)) {
                return Ok(());
            }
            let ceiling = context.feed_ceiling(collection, store);
            if self.feed.is_exhausted(ceiling) {
                if !may_end(self.due, ceiling, context) {
                    return Ok(());
                }
                if pushed.is_awaited() && self.lists_in_flight > 0 {
                    return Ok(());
                }
                pushed.proof_is_missing();
                match pushed.take_put_back() {
                    None => return self.tell_caught_up(context, collection),
                    Some(position) => self.list_again(position, pushed),
                }
                pushed.save(store);
                continue;
            }
            let rows = self.feed.read_list(store, ceiling, self.batch, context)?;
            context.report_unsendable(collection, rows.unsendable)?;
            if rows.changes.is_empty() {
                continue;
            }
            let mut message =
                context.message(profile::CHANGES, collection).with_body(write_changes(&rows.changes));
            message.urgent = true;
            message.compressed = true;
            self.lists_in_flight += 1;
            context.progress.total += rows.changes.len() as u64;
            context.request(message, Awaiting::Changes { collection, changes: rows.changes })?;
            self.last_list = Some(context.blip.last_request());
        }
        Ok(())
    }

    fn may_list(&self) -> bool {
        let Sender::Single(revs) = &self.sender else { return false };
        (!self.caught_up || self.continuous) && revs.queued() < WANTED_REVS_MAX
    }

    /// Sends the empty list, once.
    fn tell_caught_up(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
    ) -> Result<(), SessionError> {
        if self.caught_up {
            return Ok(());
        }
        self.caught_up = true;
        let mut message = context.message(profile::CHANGES, collection).with_body("[]");
        message.urgent = true;
        context.notify(message)
    }

    /// Takes a reply to a list or a revision.
    pub fn handle_reply(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        pushed: &mut PushedNote,
    ) -> Result<(), SessionError> {
        match (awaiting, &mut self.sender) {
            (Awaiting::Changes { changes, .. }, Sender::Single(revs)) => {
                self.lists_in_flight = self.lists_in_flight.saturating_sub(1);
                list_replied(context, collection, revs, changes, result, pushed)
            }
            (Awaiting::Rev { rev, .. }, Sender::Single(revs)) => {
                revs.replied();
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
                Ok(())
            }
            (Awaiting::Revs { revisions, .. }, Sender::Batches(batches)) => {
                batches.answered();
                let reply =
                    result.map_err(|error| SessionError::Refused { request: profile::REVS, error })?;
                let answers = answer::decode(&reply.body, revisions.len())
                    .map_err(|_| SessionError::Malformed { what: "answer to revs" })?;
                for (revision, answer) in revisions.into_iter().zip(answers) {
                    revision_answered(context, collection, batches, revision, answer);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether the feed may be told to end: all that was there when it was asked for can be read. A commit under way hides what
/// came after it began, and a change from before may have moved there: by an edit, or where revisions contain each other.
fn may_end(due: u64, ceiling: u64, context: &SessionContext) -> bool {
    ceiling >= due && !context.inbox.is_committing()
}

/// A list that is answered with an error is not taken, and that is all: Couchbase Lite goes on after it, and has more to
/// send.
fn list_replied(
    context: &mut SessionContext,
    collection: usize,
    revs: &mut RevSender,
    changes: Vec<Change>,
    result: Result<IncomingReply, ErrorReply>,
    pushed: &mut PushedNote,
) -> Result<(), SessionError> {
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
    let answers = parse_changes_reply(&reply.body, changes.len())
        .ok_or(SessionError::Malformed { what: "reply to changes" })?;
    for (change, answer) in changes.into_iter().zip(answers) {
        pushed.answered(change.sequence, !matches!(answer, ListAnswer::Wanted { .. }));
        match answer {
            ListAnswer::Wanted { ancestors } => revs.want(Wanted::on_top_of(change, &ancestors)),
            _ => {
                context.progress.completed += 1;
                context.settled(Direction::Sent, collection, &change.id);
            }
        }
    }
    Ok(())
}

/// Whether the peer does not want the document, whatever it is.
fn is_filtered(error: &ErrorReply) -> bool {
    error.domain == "HTTP" && error.code == 403
}

fn revision_answered(
    context: &mut SessionContext,
    collection: usize,
    batches: &mut BatchSender,
    revision: SentRevision,
    answer: RevAnswer,
) {
    let SentRevision { id, sequence, deleted, sent, revision } = revision;
    match answer {
        RevAnswer::Wanted if sent == Sent::Offer => {
            batches.want(Wanted { id, sequence, revision, known: None })
        }
        RevAnswer::Stored(_) if sent == Sent::Body => {
            context.progress.completed += 1;
            context.progress.documents += 1;
            context.succeeded(Direction::Sent, collection, &id, deleted);
        }
        RevAnswer::Stored(_) | RevAnswer::Known | RevAnswer::Wanted | RevAnswer::Conflict(_) => {
            context.progress.completed += 1;
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
            context.progress.completed += 1;
            context.report(Direction::Sent, collection, &id, deleted, Some(error));
        }
        RevAnswer::Failed(error) => {
            context.progress.completed += 1;
            context.failed(collection, Failure::sent(&id, revision, sequence, deleted, error));
        }
    }
}
