//! The pulling half of one collection: asks for the peer's feed, for what is unknown in it, and keeps the position.

use std::collections::VecDeque;

use super::super::config::{CHANGES_BATCH, EXPECTED_REVS_HIGH, HELD_LIST_BYTES_MAX, HELD_LISTS_MAX};
use super::super::context::{RequestError, Response, SessionContext};
use super::super::error::SessionError;
use super::super::event::Direction;
use super::super::extension::answer::RevAnswer;
use super::super::in_flight::Awaiting;
use super::super::in_flight::RevsReceived;
use super::super::in_flight::Ticket;
use super::super::messages::{BadEntry, ChangeEntry, VERSIONING, id_error, parse_change_entries, profile};
use super::super::passive::lists::{answer_change, changes_reply};
use super::super::sequences::RemoteSequence;
use super::super::unsynced::failure::Failure;
use super::push::Push;
use super::tracker::{ListTracker, UnitTracker};
use crate::blip::{IncomingRequest, MessageNumber};
use crate::replica::clip;
use crate::replica::store::{CommitOutcome, Rejection, ReplicaStore};

/// What of one collection's feed at the peer has come, and what of it is durable here.
pub(crate) struct Pull {
    collection: usize,
    tracker: Tracker,
    /// Whether there is nothing to pull: the peer refuses, or said that it has nothing new.
    over: bool,
    refused: bool,
    /// The message by which the peer said that its feed ends for now (single revisions only).
    caught_up: Option<u64>,
    /// Where the feed of a gattway peer ended when the session began.
    peer_last: u64,
    /// Lists whose answer waits until fewer revisions are on their way.
    held: VecDeque<Held>,
}

/// A list whose answer waits.
struct Held {
    request: MessageNumber,
    no_reply: bool,
    entries: Vec<Result<ChangeEntry, BadEntry>>,
    /// Of its text.
    bytes: usize,
}

enum Tracker {
    Lists(ListTracker),
    Units(UnitTracker),
}

/// What `subChanges` says beside the position.
pub(crate) struct Subscribe<'a> {
    pub continuous: bool,
    pub active_only: bool,
    pub document_ids: Option<&'a [String]>,
    pub filter: Option<&'a str>,
    /// Extension: up to here the peer shall offer before it sends.
    pub offer_until: u64,
}

impl Pull {
    pub fn new(collection: usize, since: RemoteSequence, peer_last: Option<u64>, extension: bool) -> Pull {
        let tracker = match extension {
            true => Tracker::Units(UnitTracker::new(since.number().unwrap_or(0))),
            false => Tracker::Lists(ListTracker::new(since)),
        };
        Pull {
            collection,
            tracker,
            over: false,
            refused: false,
            caught_up: None,
            peer_last: peer_last.unwrap_or(0),
            held: VecDeque::new(),
        }
    }

    /// There is nothing to pull.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// The peer gives nothing.
    pub fn refuse(&mut self) {
        self.over = true;
        self.refused = true;
    }

    /// Whether the peer gives nothing.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Asks for the feed.
    pub fn subscribe(&self, context: &mut SessionContext, how: &Subscribe<'_>) -> Result<(), SessionError> {
        let mut message = context.message(profile::SUB_CHANGES, self.collection);
        let since = self.position();
        if since != RemoteSequence::START {
            message = message.with("since", &since.to_string());
        }
        if how.continuous {
            message = message.with("continuous", "true");
        }
        message = message.with("batch", &CHANGES_BATCH.to_string());
        message = message.with("sendReplacementRevs", "1").with("versioning", VERSIONING);
        if how.active_only {
            message = message.with("activeOnly", "true");
        }
        message = message.with("revocations", "true");
        if let Some(filter) = how.filter {
            message = message.with("filter", filter);
        }
        if context.extension && how.offer_until > since.number().unwrap_or(0) {
            message = message.with("offer", &how.offer_until.to_string());
        }
        if let Some(ids) = how.document_ids {
            message = message.with_body(serde_json::json!({"docIDs": ids}).to_string());
        }
        context.request(message, Awaiting::Subscribed { collection: self.collection })
    }

    /// Answers `changes`.
    pub fn handle_changes(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        push: Option<&mut Push>,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let Tracker::Lists(tracker) = &mut self.tracker else {
            return Err(SessionError::Malformed { what: "changes where revs were agreed" }.into());
        };
        let entries = parse_change_entries(&request.body)?;
        if entries.is_empty() {
            self.caught_up = Some(request.number.0);
            return Ok(Response::empty());
        }
        context.progress.total += entries.len() as u64;
        if tracker.is_full() || !self.held.is_empty() {
            let bytes = request.body.len();
            self.hold(Held { request: request.number, no_reply: request.no_reply, entries, bytes })?;
            return Ok(Response::Later);
        }
        let list = request.number;
        Ok(Response::Now(answer_list(tracker, context, self.collection, list, entries, push, store)?))
    }

    /// Lets the answer to a list wait.
    fn hold(&mut self, list: Held) -> Result<(), SessionError> {
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

    /// Answers lists that wait, when there is room again.
    pub fn pump(
        &mut self,
        context: &mut SessionContext,
        mut push: Option<&mut Push>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Tracker::Lists(tracker) = &mut self.tracker else { return Ok(()) };
        while tracker.has_room() {
            let Some(list) = self.held.pop_front() else { return Ok(()) };
            let push = push.as_deref_mut();
            let reply =
                answer_list(tracker, context, self.collection, list.request, list.entries, push, store)?;
            context.reply(list.request, list.no_reply, reply);
        }
        Ok(())
    }

    /// Notes which lists are here. A short list overtakes a long one on the way, and the word that the feed ends here overtakes
    /// both: what stands in a list means nothing for those before it until they have come.
    pub fn note_lists(&mut self, context: &SessionContext) {
        let Tracker::Lists(tracker) = &mut self.tracker else { return };
        let held = self.held.iter().map(|list| list.request.0).min();
        let unfinished = context.blip.oldest_unfinished_request().map(|request| request.0);
        tracker.lists_have_come(held.into_iter().chain(unfinished).min().unwrap_or(u64::MAX));
    }

    /// A `rev` or `norev` has come; gives the ticket if it was asked for.
    pub fn arrived(&mut self, sequence: &str) -> Option<Ticket> {
        match &mut self.tracker {
            Tracker::Lists(tracker) => tracker.arrived(&RemoteSequence::from_json(sequence)),
            Tracker::Units(_) => None,
        }
    }

    /// What was asked for by this ticket is settled.
    pub fn settle(&mut self, context: &mut SessionContext, ticket: Option<Ticket>, done: bool) {
        context.progress.completed += u64::from(ticket.is_some());
        if let (Some(ticket), Tracker::Lists(tracker)) = (ticket, &mut self.tracker) {
            tracker.settle(ticket, done);
        }
    }

    /// A `revs` message of the feed has come; `outstanding` of its revisions go to the store.
    pub fn begin_revs(
        &mut self,
        received: &RevsReceived,
        outstanding: usize,
        last: bool,
    ) -> Result<(), SessionError> {
        let Tracker::Units(tracker) = &mut self.tracker else {
            return Err(SessionError::Malformed { what: "revs that were not agreed" });
        };
        if received.asked {
            return Ok(());
        }
        let wanted = |(sequence, answer): &(u64, Option<RevAnswer>)| {
            matches!(answer, Some(RevAnswer::Wanted)).then_some(*sequence)
        };
        let wanted: Vec<u64> = received.answers.iter().filter_map(wanted).collect();
        if tracker.expected() + wanted.len() > 16 * EXPECTED_REVS_HIGH {
            let actual = tracker.expected() + wanted.len();
            return Err(SessionError::TooMany { what: "offers", max: 16 * EXPECTED_REVS_HIGH, actual });
        }
        tracker.begin(received.from, received.through, outstanding + wanted.len(), last)?;
        for sequence in wanted {
            tracker.want(received.from, sequence);
        }
        Ok(())
    }

    /// All answers to a `revs` message are there; `committed` says of which revisions the store decided.
    pub fn settle_revs(&mut self, received: &RevsReceived, committed: &[bool]) {
        let Tracker::Units(tracker) = &mut self.tracker else { return };
        for ((sequence, answer), committed) in received.answers.iter().zip(committed) {
            let done = !matches!(answer, Some(RevAnswer::Failed(error)) if error.code == 500);
            if received.asked {
                if let Some(unit) = tracker.arrived(*sequence) {
                    tracker.settle(unit, done);
                }
            } else if *committed {
                tracker.settle(received.from, done);
            }
        }
    }

    /// The peer has something of ours as this sequence of its feed.
    pub fn peer_has(&mut self, sequence: u64) {
        if let Tracker::Units(tracker) = &mut self.tracker {
            tracker.peer_has(sequence);
        }
    }

    /// Whether everything the peer had when it was asked is durable here.
    pub fn is_complete(&self) -> bool {
        self.over
            || match &self.tracker {
                Tracker::Lists(tracker) => {
                    self.is_caught_up(tracker) && tracker.is_settled() && self.held.is_empty()
                }
                Tracker::Units(tracker) => tracker.is_caught_up(),
            }
    }

    /// Whether the peer's feed has come to its end, and was not only given up.
    pub fn has_caught_up(&self) -> bool {
        !self.over && self.is_complete()
    }

    /// Whether the peer's feed has ended, and all that it listed before it said so is known here.
    fn is_caught_up(&self, tracker: &ListTracker) -> bool {
        self.caught_up.is_some_and(|end| tracker.has_come_until(end))
    }

    /// Changes of the peer that have not come yet, as far as that is known.
    pub fn unread(&self) -> u64 {
        match &self.tracker {
            Tracker::Units(tracker) if !self.over => self.peer_last.saturating_sub(tracker.announced()),
            _ => 0,
        }
    }

    /// Whether the peer owes something.
    pub fn is_owed(&self) -> bool {
        if self.over {
            return false;
        }
        match &self.tracker {
            Tracker::Lists(tracker) => !self.is_caught_up(tracker) || tracker.expected() > 0,
            Tracker::Units(tracker) => !tracker.is_settled() || !tracker.is_caught_up(),
        }
    }

    /// Everything of the peer's feed up to here is durable.
    pub fn position(&self) -> RemoteSequence {
        match &self.tracker {
            Tracker::Lists(tracker) => tracker.position().clone(),
            Tracker::Units(tracker) => RemoteSequence::Number(tracker.position()),
        }
    }
}

/// Whether a revision need not be tried again.
pub(crate) fn is_settled_for_good(outcome: &CommitOutcome) -> bool {
    !matches!(outcome, CommitOutcome::Rejected(Rejection::Resolver(_)))
}

fn answer_list(
    tracker: &mut ListTracker,
    context: &mut SessionContext,
    collection: usize,
    list: MessageNumber,
    entries: Vec<Result<ChangeEntry, BadEntry>>,
    mut push: Option<&mut Push>,
    store: &dyn ReplicaStore,
) -> Result<crate::blip::OutgoingMessage, SessionError> {
    let mut answers = Vec::with_capacity(entries.len());
    for (n, entry) in entries.into_iter().enumerate() {
        let entry = match entry {
            Ok(entry) => entry,
            // The others are as good as without it.
            Err(BadEntry { sequence, id, error }) => {
                let failure = Failure::received(&clip(&id), String::new(), sequence.clone(), false, error);
                context.failed(collection, failure);
                context.progress.completed += 1;
                tracker.add(list.0, n, sequence, false);
                answers.push(None);
                continue;
            }
        };
        let answer = match id_error(&entry.id) {
            None => answer_change(&entry, context.durable_revision(collection, &entry.id, store)?.as_ref()),
            Some(error) => {
                let (id, revision) = (clip(&entry.id), entry.vector.id().to_string());
                let failure =
                    Failure::received(&id, revision, entry.sequence.clone(), entry.flags & 1 != 0, error);
                context.failed(collection, failure);
                context.progress.completed += 1;
                tracker.add(list.0, n, entry.sequence, false);
                answers.push(None);
                continue;
            }
        };
        if answer.is_none() {
            context.progress.completed += 1;
            context.settled(Direction::Received, collection, &entry.id);
            if let Some(push) = &mut push {
                push.peer_is_behind(&entry.id, entry.vector.id());
            }
        }
        tracker.add(list.0, n, entry.sequence, answer.is_some());
        answers.push(answer);
    }
    Ok(changes_reply(&answers))
}
