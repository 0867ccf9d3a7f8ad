//! The active side: agrees on collections and checkpoints, pushes and pulls each collection, saves checkpoints, ends.
//!
//! One file, because it is one trait ([`Side`]), method by method; what each collection does is in files of its own.

#![deny(clippy::disallowed_methods)]

mod agree;
mod checkpointer;
mod marks;
mod pull;
mod push;
mod replies;

use std::collections::HashMap;
use std::sync::Arc;

use super::batched::receiver::{self, OnConflict};
use super::checkpoint::Checkpoint;
use super::config::ActiveConfig;
use super::context::{Phase, RequestError, Response, SessionContext};
use super::error::SessionError;
use super::event::{Activity, Direction};
use super::extension::answer::RevAnswer;
use super::extension::codec::{Content, RevEntry, RevsMessage};
use super::in_flight::{Awaiting, RevsReceived, Ticket};
use super::messages::{canonical_name, profile};
use super::resolver::ByCollection;
use super::sequences::RemoteSequence;
use super::side::Side;
use super::turns::Turns;
use super::unsynced::Lack;
use crate::blip::{ErrorReply, IncomingReply, IncomingRequest};
use crate::endpoint::AccessRule;
use crate::replica::revision::{RevId, Versioning};
use crate::replica::store::{CommitOutcome, ConflictResolver, IncomingRevision, ReplicaStore};
use crate::time::Instant;
use checkpointer::Checkpointer;
use pull::{Pull, is_settled_for_good};
use push::Push;

/// One collection at work.
struct CollectionSync {
    push: Option<Push>,
    pull: Option<Pull>,
    checkpointer: Checkpointer,
    /// What the checkpoint was when the run began: the half that does not run keeps its part.
    loaded: Checkpoint,
    /// Which way documents may go.
    pushes: bool,
    pulls: bool,
}

/// The state of an active session beside what both sides share.
pub(super) struct Active {
    config: ActiveConfig,
    /// One for each collection, once both sides have agreed.
    syncs: Vec<CollectionSync>,
    turns: Turns,
    /// Whether they have.
    agreed: bool,
    /// Why one half of a collection was refused; the run ends with it when all else is done.
    refused: Option<SessionError>,
}

impl Active {
    pub fn new(mut config: ActiveConfig) -> Active {
        let own = config.collections.iter().filter_map(|collection| {
            Some((canonical_name(&collection.name), Arc::clone(collection.resolver.as_ref()?)))
        });
        let own: HashMap<_, _> = own.collect();
        if !own.is_empty() {
            let others = Arc::clone(&config.resolver);
            config.resolver = Arc::new(ByCollection { own, others });
        }
        Active { config, syncs: Vec::new(), turns: Turns::default(), agreed: false, refused: None }
    }

    /// The peer refuses one direction of a collection: the rest goes on, and decides whether that is an error.
    fn refuse_half(
        &mut self,
        context: &mut SessionContext,
        n: usize,
        request: &'static str,
        error: ErrorReply,
    ) {
        let pull = request == profile::SUB_CHANGES;
        let is_optional = self.config.collections[n].optional && error.domain == "HTTP" && error.code == 403;
        if !is_optional {
            self.refused.get_or_insert(SessionError::Refused { request, error });
            return;
        }
        let lack = if pull { Lack::PullRefused(error.clone()) } else { Lack::PushRefused(error.clone()) };
        let name = context.collections[n].name.clone();
        context.left_out(&name, lack);
        let nothing_left = self.syncs.iter().all(|work| {
            work.push.as_ref().is_none_or(Push::is_refused) && work.pull.as_ref().is_none_or(Pull::is_refused)
        });
        if nothing_left {
            self.refused.get_or_insert(SessionError::Refused { request, error });
        }
    }

    /// The collection of a request by which the peer sends, if we pull it.
    fn pull_of(
        &mut self,
        context: &SessionContext,
        request: &IncomingRequest,
    ) -> Result<(usize, &mut Pull), RequestError> {
        let collection = context.collection_of(request)?;
        let pull = self.syncs.get_mut(collection).and_then(|work| work.pull.as_mut());
        let pull = pull.ok_or_else(|| ErrorReply::http(403, "not asked for"))?;
        Ok((collection, pull))
    }

    /// Offers among these of documents of which the peer has refused a revision: place, ID and version.
    fn conflicted_offers(&self, collection: usize, entries: &[RevEntry]) -> Vec<(usize, String, RevId)> {
        let Some(push) = self.syncs.get(collection).and_then(|work| work.push.as_ref()) else {
            return Vec::new();
        };
        let conflicted = |(_, entry): &(usize, &RevEntry)| {
            entry.content == Content::Offer && push.is_conflicted(&entry.id)
        };
        let offers = entries.iter().enumerate().filter(conflicted);
        offers.map(|(at, entry)| (at, entry.id.clone(), entry.vector.id())).collect()
    }

    /// What was answered to [`Active::conflicted_offers`].
    fn conflicted_offers_answered(&mut self, offers: Vec<(usize, String, RevId)>, received: &RevsReceived) {
        let Some(push) = self.syncs.get_mut(received.collection).and_then(|work| work.push.as_mut()) else {
            return;
        };
        for (at, id, revision) in offers {
            match received.answers.get(at) {
                Some((_, Some(RevAnswer::Known))) => push.peer_is_behind(&id, revision),
                Some((_, Some(RevAnswer::Stored(_)))) => push.conflict_settled(&id),
                _ => {}
            }
        }
    }

    /// What was looked at once more and has not come is no more.
    fn end_retries(&self, context: &mut SessionContext) {
        for (n, work) in self.syncs.iter().enumerate() {
            let collection = &self.config.collections[n];
            let sees_all = collection.document_ids.is_none() && collection.remote_filter.is_none();
            if sees_all
                && work.pull.as_ref().is_some_and(Pull::has_caught_up)
                && let Some(list) = context.lists.get_mut(n)
            {
                context.unsynced_changed |= list.end_retry(Direction::Received);
            }
        }
    }

    fn update_unagreed(&mut self, context: &mut SessionContext) -> Result<(), SessionError> {
        if context.phase != Phase::Running {
            context.finish(Ok(()));
        }
        Ok(())
    }

    /// Saves what is due; `true` if the end may come: every checkpoint is saved or given up.
    fn save_checkpoints(
        &mut self,
        context: &mut SessionContext,
        ending: bool,
        idle: bool,
        store: &dyn ReplicaStore,
    ) -> Result<bool, SessionError> {
        let mut all_saved = true;
        let is_last_word = ending
            && context.extension
            && self.refused.is_none()
            && !self.syncs.iter().any(|work| work.checkpointer.is_saving());
        for work in &mut self.syncs {
            let due = context.now >= work.checkpointer.due_at();
            if (ending || idle || due)
                && let Some(push) = &mut work.push
            {
                push.mark_pushed(store);
            }
            if ending || due {
                // Before the checkpoint that passes what stands there.
                context.save_lists(store)?;
                let current = work.current();
                match is_last_word {
                    true => work.checkpointer.save_last(context, &current, store)?,
                    false => work.checkpointer.save(context, &current)?,
                }
                // What is being saved is not saved.
                all_saved &= !work.checkpointer.is_dirty(&current);
            }
        }
        Ok(ending && all_saved)
    }
}

impl Side for Active {
    fn set_peer_uid(&mut self, uid: String) {
        self.config.peer_uid = uid;
    }

    fn set_access(&mut self, access: AccessRule) {
        self.config.access = Some(access);
    }

    fn start(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        // Between databases with revision trees there is none: what it spares rests on versions that tell their author.
        self.config.extension &= context.versioning != Versioning::RevisionTrees;
        self.ask_first(context, store)
    }

    fn handle_request(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        match request.profile() {
            profile::CHANGES => {
                let (collection, _) = self.pull_of(context, request)?;
                let CollectionSync { pull: Some(pull), push, .. } = &mut self.syncs[collection] else {
                    return Err(ErrorReply::http(403, "not asked for").into());
                };
                let behind = &mut peer_is_behind(push);
                let answer = pull.protocol.handle_changes(context, request, behind, store);
                if matches!(answer, Err(RequestError::Reply(_))) {
                    // What it lists does not come: the run must not end as if it had.
                    self.refused.get_or_insert(SessionError::Malformed { what: "changes" });
                }
                answer
            }
            // Whoever pushes to an active peer, or pulls from it, is active itself.
            profile::PROPOSE_CHANGES | profile::SUB_CHANGES | profile::GET_COLLECTIONS => {
                Err(ErrorReply::http(403, "this peer is active").into())
            }
            _ => Err(ErrorReply::no_handler().into()),
        }
    }

    fn handle_reply(
        &mut self,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        self.replied(context, awaiting, result, store)
    }

    fn revision_target(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        _store: &dyn ReplicaStore,
    ) -> Result<(usize, Option<Ticket>), RequestError> {
        let (collection, pull) = self.pull_of(context, request)?;
        let sequence = request.properties.get("sequence");
        Ok((collection, sequence.and_then(|sequence| pull.protocol.arrived(sequence))))
    }

    fn not_received(&mut self, context: &mut SessionContext, collection: usize, ticket: Option<Ticket>) {
        if let Some(pull) = self.syncs.get_mut(collection).and_then(|work| work.pull.as_mut()) {
            pull.settle(context, ticket, true);
        }
    }

    fn delta_refused(&mut self, collection: usize, ticket: Option<Ticket>) {
        let pull = self.syncs.get_mut(collection).and_then(|work| work.pull.as_mut());
        if let Some((pull, ticket)) = pull.zip(ticket) {
            pull.protocol.expect_again(ticket);
        }
    }

    fn received(
        &mut self,
        context: &mut SessionContext,
        from: (usize, Option<Ticket>, &RemoteSequence),
        revision: &IncomingRevision,
        outcome: &CommitOutcome,
    ) {
        let (collection, ticket, _) = from;
        let Some(work) = self.syncs.get_mut(collection) else { return };
        if let Some(pull) = &mut work.pull {
            pull.settle(context, ticket, is_settled_for_good(outcome));
        }
        context.progress.documents += u64::from(!matches!(outcome, CommitOutcome::Rejected(_)));
        let Some(push) = &mut work.push else { return };
        match outcome {
            CommitOutcome::AlreadyKnown { .. } => push.peer_is_behind(&revision.id, revision.vector.id()),
            outcome if is_settled_for_good(outcome) => push.conflict_settled(&revision.id),
            _ => {}
        }
        match outcome {
            CommitOutcome::Inserted { sequence } | CommitOutcome::Resolved { sequence, push: false, .. } => {
                push.peer_has(*sequence);
            }
            CommitOutcome::Resolved { sequence, push: true, .. } => push.resolution_made(context, *sequence),
            _ => {}
        }
    }

    fn receiving_revs(
        &mut self,
        context: &mut SessionContext,
        head: RevsReceived,
        message: RevsMessage,
        store: &dyn ReplicaStore,
    ) -> Result<(RevsReceived, Vec<IncomingRevision>), SessionError> {
        let conflicted = self.conflicted_offers(head.collection, &message.revisions);
        let (received, revisions) =
            receiver::sort(context, head, message.revisions, OnConflict::Resolve, store)?;
        let pull = self.syncs.get_mut(received.collection).and_then(|work| work.pull.as_mut());
        if let Some(pull) = pull {
            pull.protocol.begin_revs(&received, revisions.len(), message.last)?;
        }
        self.conflicted_offers_answered(conflicted, &received);
        Ok((received, revisions))
    }

    fn received_revs(
        &mut self,
        context: &mut SessionContext,
        received: &RevsReceived,
        committed: &[bool],
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Some(work) = self.syncs.get_mut(received.collection) else { return Ok(()) };
        context.progress.completed += committed.iter().filter(|committed| **committed).count() as u64;
        if let Some(pull) = &mut work.pull {
            pull.protocol.settle_revs(received, committed);
        }
        work.checkpointer.take_note(0, received.through, store)?;
        Ok(())
    }

    fn may_read(&self, collection: &str) -> bool {
        self.config.access.as_ref().is_none_or(|access| access(collection).pull)
    }

    fn resolver(&self) -> Option<&Arc<dyn ConflictResolver>> {
        Some(&self.config.resolver)
    }

    fn pump(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        let count = self.syncs.len();
        for n in self.turns.order(count) {
            let work = &mut self.syncs[n];
            if let Some(pull) = &mut work.pull {
                pull.protocol.pump(context, &mut peer_is_behind(&mut work.push), store)?;
            }
            if let Some(push) = &mut work.push
                && let Some(sent) = push.pump(context, store)?
            {
                work.checkpointer.take_note(sent, 0, store)?;
            }
        }
        self.turns.taken(count, context.is_at_session_limit());
        Ok(())
    }

    fn update(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        if !self.agreed {
            return self.update_unagreed(context);
        }
        let pulls = self.syncs.iter_mut().filter_map(|work| work.pull.as_mut());
        pulls.for_each(|pull| pull.protocol.note_lists(context));
        let (mut idle, mut complete) = (context.inbox.is_empty(), context.inbox.is_empty());
        // The peer says where its feed ends, and may say anything.
        let mut unread = 0u64;
        for (n, work) in self.syncs.iter().enumerate() {
            unread = unread.saturating_add(work.pull.as_ref().map_or(0, Pull::unread));
            if let Some(push) = &work.push {
                let ceiling = context.feed_ceiling(n, store);
                unread = unread.saturating_add(push.unread(ceiling));
                idle &= push.is_idle(ceiling);
                complete &= push.is_complete(ceiling);
            }
            if let Some(pull) = &work.pull {
                idle &= pull.is_complete();
                complete &= pull.is_complete();
            }
        }
        self.end_retries(context);
        context.unread = unread;
        let stopping = context.phase != Phase::Running;
        let saving = self.syncs.iter().filter(|work| work.checkpointer.is_saving()).count();
        let quiet = context.inbox.is_empty() && context.awaiting_count() == saving;
        // A continuous run ends by itself only for what was refused, as soon as the rest is done.
        let over = if self.config.continuous { idle && self.refused.is_some() } else { complete };
        let ending = quiet && (stopping || over);
        // Whatever stops it: if the peer had nothing more, nothing settles them in this run. A run that is over is idle too.
        if idle {
            for push in self.syncs.iter_mut().filter_map(|work| work.push.as_mut()) {
                push.tell_conflicts(context, ending, store)?;
            }
        }
        let saved = self.save_checkpoints(context, ending, idle, store)?;
        if ending && saved {
            context.finish(self.refused.take().map_or(Ok(()), Err));
            return Ok(());
        }
        // What ends is not idle: whoever stops an idle run would not hear why it ended.
        context.set_activity(if idle && !stopping && !ending { Activity::Idle } else { Activity::Busy });
        Ok(())
    }

    fn poll_at(&self) -> Option<Instant> {
        let mut at: Option<Instant> = None;
        let mut earlier = |candidate: Option<Instant>| {
            if let Some(candidate) = candidate {
                at = Some(at.map_or(candidate, |at| at.min(candidate)));
            }
        };
        for work in &self.syncs {
            earlier(work.push.as_ref().and_then(Push::due_at));
            if self.agreed && !work.checkpointer.is_saving() && work.checkpointer.is_dirty(&work.current()) {
                earlier(Some(work.checkpointer.due_at()));
            }
        }
        at
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.syncs.iter_mut().filter_map(|work| work.push.as_mut()).for_each(|push| push.end_delay(now));
    }

    fn is_owed(&self) -> bool {
        self.syncs.iter().any(|work| work.pull.as_ref().is_some_and(Pull::is_owed))
    }

    fn stop(&mut self, context: &mut SessionContext) {
        context.begin_stop();
    }
}

impl CollectionSync {
    fn new(checkpointer: Checkpointer, pushes: bool, pulls: bool) -> CollectionSync {
        let loaded = Checkpoint::default();
        CollectionSync { push: None, pull: None, checkpointer, loaded, pushes, pulls }
    }

    /// The checkpoint as it would be saved now.
    fn current(&self) -> Checkpoint {
        Checkpoint {
            local: self.push.as_ref().map_or_else(|| self.loaded.local.clone(), |push| push.done().clone()),
            remote: self
                .pull
                .as_ref()
                .map_or_else(|| self.loaded.remote.clone(), |pull| pull.protocol.position()),
        }
    }
}

/// Tells the pushing half, if there is one, which revision the peer turns out to have.
fn peer_is_behind(push: &mut Option<Push>) -> impl FnMut(&str, RevId) {
    move |id, known| {
        if let Some(push) = push {
            push.peer_is_behind(id, known);
        }
    }
}

#[cfg(test)]
mod tests;
