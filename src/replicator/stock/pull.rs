//! Pulling as Couchbase Lite does it: the peer lists changes, this side answers which of them it wants, and each comes alone.

use std::collections::VecDeque;

use super::answers::{NOT_FOR_US, answer_listed, changes_reply};
use super::list_tracker::ListTracker;
use crate::blip::{ErrorReply, IncomingRequest, MessageNumber, OutgoingMessage};
use crate::replica::clip;
use crate::replica::store::ReplicaStore;
use crate::replicator::config::{HELD_LIST_BYTES_MAX, HELD_LISTS_MAX};
use crate::replicator::context::{RequestError, Response, SessionContext};
use crate::replicator::error::SessionError;
use crate::replicator::event::Direction;
use crate::replicator::in_flight::Ticket;
use crate::replicator::messages::trees::check_kind;
use crate::replicator::messages::{BadEntry, ChangeEntry, id_error, parse_change_entries, refuse};
use crate::replicator::protocol::pull::{PeerIsBehind, PullProtocol};
use crate::replicator::sequences::RemoteSequence;
use crate::replicator::unsynced::failure::Failure;

/// One collection that comes in lists.
pub(in crate::replicator) struct ListPull {
    collection: usize,
    tracker: ListTracker,
    /// The message by which the peer said that its feed ends for now.
    caught_up: Option<u64>,
    /// Lists whose answer waits until fewer revisions are on their way.
    held: VecDeque<HeldList>,
}

/// A list whose answer waits.
struct HeldList {
    request: MessageNumber,
    no_reply: bool,
    entries: Vec<Result<ChangeEntry, BadEntry>>,
    /// Of its text.
    bytes: usize,
}

impl ListPull {
    /// From this place in the feed of the peer on.
    pub fn new(collection: usize, since: RemoteSequence) -> ListPull {
        let tracker = ListTracker::new(since);
        ListPull { collection, tracker, caught_up: None, held: VecDeque::new() }
    }

    /// Lets the answer to a list wait.
    fn hold(&mut self, list: HeldList) -> Result<(), SessionError> {
        let too_many = |what, max, actual| SessionError::TooMany { what, max, actual };
        let lists = self.held.len() + 1;
        if lists > HELD_LISTS_MAX {
            return Err(too_many("lists", HELD_LISTS_MAX, lists));
        }
        let bytes = list.bytes + self.held.iter().map(|list| list.bytes).sum::<usize>();
        if bytes > HELD_LIST_BYTES_MAX && !self.held.is_empty() {
            return Err(too_many("bytes of lists", HELD_LIST_BYTES_MAX, bytes));
        }
        self.held.push_back(list);
        Ok(())
    }

    fn answer(
        &mut self,
        context: &mut SessionContext,
        list: MessageNumber,
        entries: Vec<Result<ChangeEntry, BadEntry>>,
        peer_is_behind: PeerIsBehind<'_>,
        store: &dyn ReplicaStore,
    ) -> Result<OutgoingMessage, SessionError> {
        let mut answers = Vec::with_capacity(entries.len());
        for (n, entry) in entries.into_iter().enumerate() {
            let (sequence, answer) = match entry {
                Ok(entry) => self.answer_entry(context, entry, peer_is_behind, store)?,
                // The others are as good as without it.
                Err(BadEntry { sequence, id, error }) => {
                    self.refuse(context, &id, String::new(), &sequence, false, error);
                    (sequence, None)
                }
            };
            self.tracker.add(list.0, n, sequence, answer.is_some());
            answers.push(answer);
        }
        Ok(changes_reply(context, self.collection, &answers))
    }

    /// The sequence of an entry, and the answer if it is wanted.
    fn answer_entry(
        &mut self,
        context: &mut SessionContext,
        entry: ChangeEntry,
        peer_is_behind: PeerIsBehind<'_>,
        store: &dyn ReplicaStore,
    ) -> Result<(RemoteSequence, Option<String>), SessionError> {
        let revision = entry.vector.id();
        if let Some(error) = id_error(&entry.id) {
            let deleted = entry.flags & 1 != 0;
            self.refuse(context, &entry.id, revision.to_string(), &entry.sequence, deleted, error);
            return Ok((entry.sequence, None));
        }
        if entry.flags & NOT_FOR_US != 0 {
            lose_access(context, self.collection, &entry, store)?;
            context.progress.completed += 1;
            return Ok((entry.sequence, None));
        }
        let answer = answer_listed(context, self.collection, &entry, store)?;
        if answer.is_none() {
            context.progress.completed += 1;
            context.settled(Direction::Received, self.collection, &entry.id);
            peer_is_behind(&entry.id, revision);
        }
        Ok((entry.sequence, answer))
    }

    /// Of an entry that cannot be taken nothing comes.
    fn refuse(
        &self,
        context: &mut SessionContext,
        id: &str,
        revision: String,
        sequence: &RemoteSequence,
        deleted: bool,
        error: ErrorReply,
    ) {
        let failure = Failure::received(&clip(id), revision, sequence.clone(), deleted, error);
        context.failed(self.collection, failure);
        context.progress.completed += 1;
    }

    /// Whether the peer's feed has ended, and all that it listed before it said so is known here.
    fn is_caught_up(&self) -> bool {
        self.caught_up.is_some_and(|end| self.tracker.has_come_until(end))
    }
}

impl PullProtocol for ListPull {
    fn handle_changes(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        peer_is_behind: PeerIsBehind<'_>,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let entries = parse_change_entries(&request.body)?;
        for entry in entries.iter().flatten() {
            check_kind(context.versioning, &entry.id, &entry.vector)?;
        }
        if entries.is_empty() {
            self.caught_up = Some(request.number.0);
            return Ok(Response::empty());
        }
        context.progress.total += entries.len() as u64;
        if self.tracker.is_full() || !self.held.is_empty() {
            let bytes = request.body.len();
            self.hold(HeldList { request: request.number, no_reply: request.no_reply, entries, bytes })?;
            return Ok(Response::Later);
        }
        Ok(Response::Now(self.answer(context, request.number, entries, peer_is_behind, store)?))
    }

    fn pump(
        &mut self,
        context: &mut SessionContext,
        peer_is_behind: PeerIsBehind<'_>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        while self.tracker.has_room() {
            let Some(list) = self.held.pop_front() else { return Ok(()) };
            let reply = self.answer(context, list.request, list.entries, peer_is_behind, store)?;
            context.reply(list.request, list.no_reply, reply);
        }
        Ok(())
    }

    fn note_lists(&mut self, context: &SessionContext) {
        let held = self.held.iter().map(|list| list.request.0).min();
        let unfinished = context.blip.oldest_unfinished_request().map(|request| request.0);
        self.tracker.lists_have_come(held.into_iter().chain(unfinished).min().unwrap_or(u64::MAX));
    }

    fn arrived(&mut self, sequence: &str) -> Option<Ticket> {
        self.tracker.arrived(&RemoteSequence::from_json(sequence))
    }

    fn expect_again(&mut self, ticket: Ticket) {
        self.tracker.expect_again(ticket);
    }

    fn settle(&mut self, ticket: Ticket, done: bool) {
        self.tracker.settle(ticket, done);
    }

    fn is_complete(&self) -> bool {
        self.is_caught_up() && self.tracker.is_settled() && self.held.is_empty()
    }

    fn is_owed(&self) -> bool {
        !self.is_caught_up() || self.tracker.expected() > 0
    }

    fn position(&self) -> RemoteSequence {
        self.tracker.position().clone()
    }
}

/// A server says that a document is no longer for us.
fn lose_access(
    context: &mut SessionContext,
    collection: usize,
    entry: &ChangeEntry,
    store: &dyn ReplicaStore,
) -> Result<(), SessionError> {
    let id = context.collections[collection].id;
    if !context.auto_purge || store.revision(id, &entry.id)?.is_none() {
        return Ok(());
    }
    let is_gone = store.lose(id, &entry.id)?;
    context.report_lost_access(collection, &entry.id, (!is_gone).then(refuse::access_lost));
    Ok(())
}
