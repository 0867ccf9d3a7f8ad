//! Pushing as Couchbase Lite does it: changes are proposed in lists, and what the peer wants of them goes alone.

use std::collections::{HashMap, VecDeque};

use super::sender::RevSender;
use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::revision::{RevId, TreeId};
use crate::replica::store::{Change, ReplicaStore};
use crate::replicator::config::{CHANGES_BATCH, RESOLUTION_PUSH_DELAY, WANTED_REVS_MAX};
use crate::replicator::context::{Phase, SessionContext};
use crate::replicator::deltas::is_delta_refused;
use crate::replicator::error::{SessionError, is_conflict};
use crate::replicator::event::Direction;
use crate::replicator::feed::Rows;
use crate::replicator::in_flight::{Awaiting, SentRev, Wanted};
use crate::replicator::messages::{ListAnswer, parse_proposals_reply, profile, refuse, write_proposals};
use crate::replicator::protocol::conflicts::Refused;
use crate::replicator::protocol::feed::is_filtered;
use crate::replicator::protocol::push::{PushProtocol, PushState, Replied};
use crate::replicator::unsynced::failure::{Failure, is_final};

/// Most documents that may be tried again in one run.
const RETRIED_DOCUMENTS_MAX: usize = 10_000;

/// Times one revision may be proposed again because it descends from what the peer has. Each time the peer had got
/// another ancestor of it meanwhile, perhaps from here.
const DESCENT_RETRIES_MAX: u32 = 16;

/// One collection that is proposed in lists.
#[derive(Default)]
pub(in crate::replicator) struct ListPush {
    revs: RevSender,
    lists_in_flight: usize,
    retries: VecDeque<Retry>,
    retried: HashMap<u64, u32>,
    /// Whether anything was proposed in this session, or the empty list was sent.
    proposed: bool,
    told_end: bool,
}

/// A document to be proposed again.
struct Retry {
    id: String,
    sequence: u64,
    /// The peer's revision, which ours descends from.
    known: Option<RevId>,
    /// Whether the peer has nothing of it, whatever is noted.
    lacks: bool,
}

impl ListPush {
    fn pump_lists(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let collection = state.collection;
        while context.may_list(self.lists_in_flight) && self.revs.queued() < WANTED_REVS_MAX {
            let ceiling = context.feed_ceiling(collection, store);
            if !state.feed.is_exhausted(ceiling) {
                let rows = state.feed.read_list(store, ceiling, CHANGES_BATCH, context)?;
                let Rows { from, through, changes, unsendable } = rows;
                state.mark_gaps(from, through, changes.iter().map(|change| change.sequence));
                context.report_unsendable(collection, unsendable)?;
                changes.iter().for_each(|change| state.conflicts.settle(&change.id, &mut state.done));
                if !changes.is_empty() {
                    context.progress.total += changes.len() as u64;
                    let proposals = changes.into_iter().map(|change| (known_of(&change), change)).collect();
                    self.propose(context, collection, proposals)?;
                }
                continue;
            }
            let again = self.take_retries(state, context, store)?;
            if !again.is_empty() {
                self.propose(context, collection, again)?;
                continue;
            }
            if !self.told_end && (state.continuous || !self.proposed) {
                self.told_end = true;
                let mut message = context.message(profile::PROPOSE_CHANGES, collection);
                message = message.with("conflictIncludesRev", "true").with_body("[]");
                message.urgent = true;
                context.notify(message)?;
            }
            return Ok(());
        }
        Ok(())
    }

    fn propose(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        proposals: Vec<(Option<RevId>, Change)>,
    ) -> Result<(), SessionError> {
        let body =
            write_proposals(proposals.iter().map(|(known, change)| (change, *known)), context.versioning);
        let mut message = context
            .message(profile::PROPOSE_CHANGES, collection)
            .with("conflictIncludesRev", "true")
            .with_body(body);
        message.urgent = true;
        message.compressed = true;
        self.proposed = true;
        self.lists_in_flight += 1;
        let known = |(known, change): (Option<RevId>, Change)| Change { remote_ancestor: known, ..change };
        let changes = proposals.into_iter().map(known).collect();
        context.request(message, Awaiting::Proposals { collection, changes })
    }

    /// Documents to be proposed again, as they are now; those that changed meanwhile are further on in the feed.
    fn take_retries(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<Vec<(Option<RevId>, Change)>, SessionError> {
        let id = context.collections[state.collection].id;
        let count = self.retries.len().min(CHANGES_BATCH);
        let mut again = Vec::with_capacity(count);
        for retry in self.retries.drain(..count) {
            match store.revision(id, &retry.id)?.filter(|change| change.sequence == retry.sequence) {
                Some(change) if retry.lacks => again.push((None, change)),
                Some(change) => again.push((retry.known.or_else(|| known_of(&change)), change)),
                None => {
                    state.done.insert(retry.sequence);
                    context.progress.completed += 1;
                }
            }
        }
        Ok(again)
    }

    /// Whether the document of this sequence may be proposed once more; `max` times for each.
    fn may_retry(&mut self, sequence: u64, max: u32) -> bool {
        if self.retried.len() >= RETRIED_DOCUMENTS_MAX && !self.retried.contains_key(&sequence) {
            return false;
        }
        let times = self.retried.entry(sequence).or_default();
        *times += 1;
        *times <= max
    }

    /// The peer said which proposals it wants.
    fn proposals_answered(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        changes: Vec<Change>,
        answers: Vec<ListAnswer>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        for (change, answer) in changes.into_iter().zip(answers) {
            match answer {
                ListAnswer::Wanted { .. } => {
                    self.revs.want(Wanted::of(change));
                    continue;
                }
                ListAnswer::Unwanted => {
                    state.done.insert(change.sequence);
                    context.settled(Direction::Sent, state.collection, &change.id);
                }
                ListAnswer::Conflict { rev: Some(rev) }
                    if change.vector.contains(rev.current) && !change.vector.mutually_contains(&rev) =>
                {
                    // Ours descends from what the peer has: it only did not see that. No conflict, so no pull will
                    // bring it; what cannot be tried again stays open for the next run.
                    if self.may_retry(change.sequence, DESCENT_RETRIES_MAX) {
                        let (id, sequence, known) = (change.id, change.sequence, Some(rev.id()));
                        self.retries.push_back(Retry { id, sequence, known, lacks: false });
                        continue;
                    }
                }
                // What another peer had was named.
                ListAnswer::Lacking if self.may_retry(change.sequence, DESCENT_RETRIES_MAX) => {
                    let (id, sequence) = (change.id, change.sequence);
                    self.retries.push_back(Retry { id, sequence, known: None, lacks: true });
                    continue;
                }
                ListAnswer::Lacking => {
                    not_wanted(state, context, &change, refuse::conflict(), store)?;
                }
                ListAnswer::Conflict { rev } if state.pulls => {
                    let mutually_contains = rev.is_some_and(|rev| rev.contains(change.vector.current));
                    let refused = Refused { mutually_contains, ..Refused::new(change.sequence, None) };
                    state.conflicts.note(&change.id, refused, &mut state.done);
                }
                ListAnswer::Conflict { .. } => {
                    not_wanted(state, context, &change, refuse::conflict(), store)?;
                }
                ListAnswer::Refused(status) => {
                    let error = ErrorReply::http(status, "refused when it was proposed");
                    not_wanted(state, context, &change, error, store)?;
                }
            }
            context.progress.completed += 1;
        }
        Ok(())
    }

    /// A single revision was answered.
    fn rev_answered(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        rev: SentRev,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        self.revs.replied();
        match result {
            Ok(_) => {
                state.done.insert(rev.sequence);
                context.progress.documents += 1;
                context.succeeded(Direction::Sent, state.collection, &rev.id, rev.deleted);
            }
            Err(error) if rev.is_delta && is_delta_refused(&error) => {
                self.revs.want(rev.whole());
                return Ok(());
            }
            Err(error) => {
                if is_filtered(&error) && self.may_retry(rev.sequence, 1) {
                    let (id, sequence) = (rev.id, rev.sequence);
                    self.retries.push_back(Retry { id, sequence, known: None, lacks: false });
                    return Ok(());
                }
                // A peer with a tombstone asks for everything without a word of what it has. To a proposal that names
                // something it says that.
                if is_conflict(&error)
                    && rev.guesses_tree
                    && let Some(known) = newest_tree(context, state.collection, &rev, store)?
                    && self.may_retry(rev.sequence, DESCENT_RETRIES_MAX)
                {
                    let known = Some(RevId::Tree(known));
                    let (id, sequence) = (rev.id, rev.sequence);
                    self.retries.push_back(Retry { id, sequence, known, lacks: false });
                    return Ok(());
                }
                let refused = Refused::new(rev.sequence, None);
                let failure = Failure::sent(&rev.id, rev.revision, rev.sequence, rev.deleted, error);
                state.failed(context, refused, failure, store)?;
            }
        }
        context.progress.completed += 1;
        Ok(())
    }
}

impl PushProtocol for ListPush {
    fn pump(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<Option<u64>, SessionError> {
        if context.phase != Phase::Running {
            self.clear();
            return Ok(None);
        }
        self.revs.pump(context, state.collection, store, true)?;
        self.revs.gone.drain(..).for_each(|sequence| state.done.insert(sequence));
        if state.delayed_until.is_none() {
            self.pump_lists(state, context, store)?;
        }
        Ok(None)
    }

    fn handle_reply(
        &mut self,
        state: &mut PushState,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<Replied, SessionError> {
        match (awaiting, result) {
            (Awaiting::Rev { rev, .. }, result) => self.rev_answered(state, context, rev, result, store)?,
            (Awaiting::Proposals { changes, .. }, Ok(reply)) => {
                self.lists_in_flight = self.lists_in_flight.saturating_sub(1);
                context.hear_of_list(&reply);
                let answers = parse_proposals_reply(&reply.body, changes.len())
                    .ok_or(SessionError::Malformed { what: "reply to proposeChanges" })?;
                self.proposals_answered(state, context, changes, answers, store)?;
            }
            (Awaiting::Proposals { .. }, Err(error)) if error.domain == "LiteCore" && error.code == 26 => {
                return Err(SessionError::Versioning);
            }
            (Awaiting::Proposals { .. }, Err(error)) => {
                return Ok(Replied {
                    refused: Some((profile::PROPOSE_CHANGES, error)),
                    ..Replied::default()
                });
            }
            _ => {}
        }
        Ok(Replied::default())
    }

    fn offer_again(&mut self, id: &str, refused: Refused, known: RevId) {
        if self.may_retry(refused.sequence, DESCENT_RETRIES_MAX) {
            let (id, sequence) = (id.to_owned(), refused.sequence);
            self.retries.push_back(Retry { id, sequence, known: Some(known), lacks: false });
        }
    }

    /// Couchbase Lite leaves it to the next run of a one-shot replicator.
    fn resolution_made(&mut self, state: &mut PushState, context: &SessionContext, _sequence: u64) {
        if state.continuous {
            state.delayed_until = Some(context.now + RESOLUTION_PUSH_DELAY);
        }
    }

    fn is_idle(&self) -> bool {
        self.revs.is_idle()
            && self.lists_in_flight == 0
            && self.retries.is_empty()
            && (self.told_end || self.proposed)
    }

    fn clear(&mut self) {
        self.revs.clear();
        self.retries.clear();
    }
}

/// The peer does not want a revision that was proposed to it.
fn not_wanted(
    state: &mut PushState,
    context: &mut SessionContext,
    change: &Change,
    error: ErrorReply,
    store: &dyn ReplicaStore,
) -> Result<(), SessionError> {
    let Change { id, sequence, deleted, .. } = change;
    let is_newest = state.is_newest(context, id, *sequence, store)?;
    if !is_newest || is_final(&error) {
        state.done.insert(*sequence);
    }
    if is_newest {
        let failure = Failure::sent(id, change.vector.id(), *sequence, *deleted, error);
        context.failed(state.collection, failure);
    }
    Ok(())
}

/// The tree ID that a revision in flight has named, if it is still the newest of its document.
fn newest_tree(
    context: &SessionContext,
    collection: usize,
    rev: &SentRev,
    store: &dyn ReplicaStore,
) -> Result<Option<TreeId>, SessionError> {
    let newest = store.revision(context.collections[collection].id, &rev.id)?;
    let newest = newest.filter(|change| change.sequence == rev.sequence);
    Ok(newest.and_then(|change| change.vector.trees.first().copied()))
}

/// The revision that the peer is known to have had.
fn known_of(change: &Change) -> Option<RevId> {
    change.remote_ancestor.filter(|ancestor| *ancestor != change.vector.id())
}

#[cfg(test)]
mod tests;
