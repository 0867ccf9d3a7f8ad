//! The active side: agrees on collections and checkpoints, pushes and pulls each collection, saves checkpoints, ends.

#![deny(clippy::disallowed_methods)]

pub(super) mod checkpointer;
mod conflicts;
pub(super) mod pull;
pub(super) mod push;
mod replies;
pub(super) mod tracker;

use serde_json::Value;

use super::checkpoint::{Checkpoint, checkpoint_id};
use super::config::{ActiveConfig, COLLECTIONS_MAX, CollectionConfig};
use super::core::{Answer, Awaiting, Core, Fault, Phase, SessionCollection};
use super::error::SessionError;
use super::event::Activity;
use super::extension;
use super::extension::RevsFormat;
use super::extension::answer::RevAnswer;
use super::extension::codec::{Content, RevEntry};
use super::extension::receiver::RevsReceived;
use super::extension::sender::BatchSender;
use super::feed::Feed;
use super::messages::{canonical_name, profile, write_get_collections};
use super::sequences::RemoteSequence;
use super::store::{CommitOutcome, IncomingRevision, ReplicaStore};
use crate::blip::{ErrorReply, IncomingRequest, OutgoingMessage};
use crate::database::revision::RevId;
use crate::time::Instant;
use checkpointer::Checkpointer;
use pull::{Pull, Subscribe, is_settled_for_good};
use push::Push;
use tracker::Ticket;

/// One collection at work.
struct Work {
    push: Option<Push>,
    pull: Option<Pull>,
    checkpointer: Checkpointer,
    /// What the checkpoint was when the run began: the half that does not run keeps its part.
    loaded: Checkpoint,
}

/// See the head of the file.
pub(super) struct Active {
    config: ActiveConfig,
    /// One for each collection, once both sides have agreed.
    works: Vec<Work>,
    /// Which of them is next to send first: they share the session's limits.
    first: usize,
    /// Whether they have.
    agreed: bool,
    /// Why one half was refused; the run ends with it when the other half is done.
    refused: Option<SessionError>,
}

impl Active {
    pub fn new(config: ActiveConfig) -> Active {
        Active { config, works: Vec::new(), first: 0, agreed: false, refused: None }
    }

    /// The configuration, for the driver.
    pub fn config(&self) -> &ActiveConfig {
        &self.config
    }

    /// Names the peer by what it has proven.
    pub fn set_peer_uid(&mut self, uid: String) {
        self.config.peer_uid = uid;
    }

    /// Asks the peer for its collections and checkpoints.
    pub fn start(&mut self, core: &mut Core, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        self.check_config()?;
        for (n, collection) in self.config.collections.iter().enumerate() {
            let name = canonical_name(&collection.name);
            let missing = || SessionError::LocalCollectionMissing { name: name.clone() };
            let id = store.collection(&name).ok_or_else(missing)?;
            let client = checkpoint_id(
                store.source(),
                &self.config.peer_uid,
                self.config.direction,
                &CollectionConfig { name: name.clone(), ..collection.clone() },
            );
            let incoming_filter = collection.pull_filter.clone();
            core.collections.push(SessionCollection {
                name,
                id,
                index: Some(n.to_string()),
                incoming_filter,
            });
            let checkpointer = Checkpointer::new(n, id, client, core.now, self.config.checkpoint_interval);
            self.works.push(Work { push: None, pull: None, checkpointer, loaded: Checkpoint::default() });
        }
        let clients: Vec<String> = self.works.iter().map(|work| work.checkpointer.client.clone()).collect();
        let names: Vec<&str> = core.collections.iter().map(|c| c.name.as_str()).collect();
        let body = write_get_collections(&clients, &names);
        let mut message = OutgoingMessage::request(profile::GET_COLLECTIONS).with_body(body);
        if self.config.extension {
            message = message.with(extension::PROPERTY, extension::VERSION);
            message = message.with(extension::FORMAT_PROPERTY, RevsFormat::NEWEST.text());
        }
        core.request(message, Awaiting::Collections)
    }

    fn check_config(&self) -> Result<(), SessionError> {
        let names: Vec<String> = self.config.collections.iter().map(|c| canonical_name(&c.name)).collect();
        let twice = names.iter().enumerate().any(|(n, name)| names[..n].contains(name));
        let reason = match () {
            () if names.is_empty() => "no collections",
            () if names.len() > COLLECTIONS_MAX => "too many collections",
            () if twice => "a collection is named twice",
            () => return Ok(()),
        };
        Err(SessionError::Configuration { reason })
    }

    /// Answers a request of the peer.
    pub fn handle_request(
        &mut self,
        core: &mut Core,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Answer, Fault> {
        match request.profile() {
            profile::CHANGES => {
                let (collection, _) = self.pull_of(core, request)?;
                let Work { pull: Some(pull), push, .. } = &mut self.works[collection] else {
                    return Err(ErrorReply::http(403, "not asked for").into());
                };
                let answer = pull.handle_changes(core, request, push.as_mut(), store);
                if matches!(answer, Err(Fault::Reply(_))) {
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

    /// The collection of a request by which the peer sends, if we pull it.
    pub fn pull_of(&mut self, core: &Core, request: &IncomingRequest) -> Result<(usize, &mut Pull), Fault> {
        let collection = core.collection_of(request)?;
        let pull = self.works.get_mut(collection).and_then(|work| work.pull.as_mut());
        let pull = pull.ok_or_else(|| ErrorReply::http(403, "not asked for"))?;
        Ok((collection, pull))
    }

    /// Begins both halves of a collection. `peer_last`: the newest sequence of a peer of our kind.
    fn begin(
        &mut self,
        core: &mut Core,
        n: usize,
        peer_checkpoint: &Value,
        peer_last: Option<u64>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let config = &self.config;
        let collection = &config.collections[n];
        let work = &mut self.works[n];
        let (id, name) = (core.collections[n].id, core.collections[n].name.clone());
        let checkpoint = work.checkpointer.load(peer_checkpoint, store, config.reset)?;
        let note = work.checkpointer.note();
        if config.direction.pushes() {
            let cursor = checkpoint.local_sequence();
            let target = (!config.continuous).then(|| store.last_sequence(id));
            let mut feed = Feed::new(id, &name, cursor, target);
            feed.ids = collection.document_ids.as_ref().map(|ids| ids.iter().cloned().collect());
            feed.filter = collection.push_filter.clone();
            feed.skip_all(&checkpoint.local);
            let batches = core.extension.then(|| BatchSender::new(store.source(), cursor, note.sent));
            let (pulls, done) = (config.direction.pulls(), checkpoint.local.clone());
            work.push = Some(Push::new(n, feed, done, batches, pulls, config.continuous));
        }
        if config.direction.pulls() {
            let since = checkpoint.remote.clone();
            let mut pull = Pull::new(n, since.clone(), peer_last, core.extension);
            let nothing_new = peer_last.is_some_and(|last| since.number().is_some_and(|since| since >= last));
            if nothing_new && !config.continuous {
                pull.end();
            } else {
                let how = Subscribe {
                    continuous: config.continuous,
                    active_only: collection.skip_deleted && since == RemoteSequence::START,
                    document_ids: collection.document_ids.as_deref(),
                    filter: collection.remote_filter.as_deref(),
                    offer_until: note.received,
                };
                pull.subscribe(core, &how)?;
            }
            work.pull = Some(pull);
        }
        work.loaded = checkpoint;
        Ok(())
    }

    /// A revision of the peer is durable, or not.
    pub fn received(
        &mut self,
        core: &mut Core,
        collection: usize,
        ticket: Option<Ticket>,
        revision: &IncomingRevision,
        outcome: &CommitOutcome,
    ) {
        let Some(work) = self.works.get_mut(collection) else { return };
        if let Some(pull) = &mut work.pull {
            pull.settle(core, ticket, is_settled_for_good(outcome));
        }
        core.progress.documents += u64::from(!matches!(outcome, CommitOutcome::Rejected(_)));
        let Some(push) = &mut work.push else { return };
        match outcome {
            CommitOutcome::AlreadyKnown { .. } => push.peer_is_behind(&revision.id, revision.vector.id()),
            outcome if is_settled_for_good(outcome) => push.conflict_settled(&revision.id),
            _ => {}
        }
        match outcome {
            CommitOutcome::Inserted { sequence } | CommitOutcome::Resolved { sequence, push: false } => {
                push.peer_has(*sequence);
            }
            CommitOutcome::Resolved { sequence, push: true } => push.resolution_made(core, *sequence),
            _ => {}
        }
    }

    /// A revision of the peer was refused before it came to the store, or will not come.
    pub fn not_received(&mut self, core: &mut Core, collection: usize, ticket: Option<Ticket>) {
        if let Some(pull) = self.works.get_mut(collection).and_then(|work| work.pull.as_mut()) {
            pull.settle(core, ticket, true);
        }
    }

    /// Offers among these of documents of which the peer has refused a revision: place, ID and version.
    pub fn conflicted_offers(&self, collection: usize, entries: &[RevEntry]) -> Vec<(usize, String, RevId)> {
        let Some(push) = self.works.get(collection).and_then(|work| work.push.as_ref()) else {
            return Vec::new();
        };
        let conflicted = |(_, entry): &(usize, &RevEntry)| {
            entry.content == Content::Offer && push.is_conflicted(&entry.id)
        };
        let offers = entries.iter().enumerate().filter(conflicted);
        offers.map(|(at, entry)| (at, entry.id.clone(), entry.vector.id())).collect()
    }

    /// What was answered to [`Active::conflicted_offers`].
    pub fn conflicted_offers_answered(
        &mut self,
        offers: Vec<(usize, String, RevId)>,
        received: &RevsReceived,
    ) {
        let Some(push) = self.works.get_mut(received.collection).and_then(|work| work.push.as_mut()) else {
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

    /// All answers to a `revs` message are there.
    pub fn received_revs(
        &mut self,
        core: &mut Core,
        received: &RevsReceived,
        committed: &[bool],
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Some(work) = self.works.get_mut(received.collection) else { return Ok(()) };
        core.progress.completed += committed.iter().filter(|committed| **committed).count() as u64;
        if let Some(pull) = &mut work.pull {
            pull.settle_revs(received, committed);
        }
        work.checkpointer.take_note(0, received.through, store)?;
        Ok(())
    }

    /// Adds to what is to be sent.
    pub fn pump(&mut self, core: &mut Core, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        let count = self.works.len();
        for n in 0..count {
            let work = &mut self.works[(self.first + n) % count];
            if let Some(pull) = &mut work.pull {
                pull.pump(core, work.push.as_mut(), store)?;
            }
            if let Some(push) = &mut work.push
                && let Some(sent) = push.pump(core, store)?
            {
                work.checkpointer.take_note(sent, 0, store)?;
            }
        }
        if core.is_at_session_limit() && count > 0 {
            self.first = (self.first + 1) % count;
        }
        Ok(())
    }

    /// Saves checkpoints that are due, says busy or idle, ends the session when all is done.
    pub fn update(&mut self, core: &mut Core, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        if !self.agreed {
            return self.update_unagreed(core);
        }
        self.works.iter_mut().filter_map(|work| work.pull.as_mut()).for_each(|pull| pull.note_lists(core));
        let (mut idle, mut complete) = (core.inbox.is_empty(), core.inbox.is_empty());
        // The peer says where its feed ends, and may say anything.
        let mut unread = 0u64;
        for (n, work) in self.works.iter().enumerate() {
            unread = unread.saturating_add(work.pull.as_ref().map_or(0, Pull::unread));
            if let Some(push) = &work.push {
                let ceiling = core.feed_ceiling(n, store);
                unread = unread.saturating_add(push.unread(ceiling));
                idle &= push.is_idle(ceiling);
                complete &= push.is_complete(ceiling);
            }
            if let Some(pull) = &work.pull {
                idle &= pull.is_complete();
                complete &= pull.is_complete();
            }
        }
        core.unread = unread;
        let stopping = core.phase != Phase::Running;
        let saving = self.works.iter().filter(|work| work.checkpointer.is_saving()).count();
        let quiet = core.inbox.is_empty() && core.awaiting_count() == saving;
        let ending = if stopping { quiet } else { complete && quiet && self.may_end() };
        let saved = self.save_checkpoints(core, ending, idle, store)?;
        if ending && saved {
            core.finish(self.refused.take().map_or(Ok(()), Err));
            return Ok(());
        }
        core.set_activity(if idle && !stopping { Activity::Idle } else { Activity::Busy });
        Ok(())
    }

    /// A one-shot run ends by itself; a continuous one if both its halves were refused.
    fn may_end(&self) -> bool {
        !self.config.continuous || self.refused.is_some()
    }

    fn update_unagreed(&mut self, core: &mut Core) -> Result<(), SessionError> {
        if core.phase != Phase::Running {
            core.finish(Ok(()));
        }
        Ok(())
    }

    /// Saves what is due; `true` if the end may come: every checkpoint is saved or given up.
    fn save_checkpoints(
        &mut self,
        core: &mut Core,
        ending: bool,
        idle: bool,
        store: &dyn ReplicaStore,
    ) -> Result<bool, SessionError> {
        let mut all_saved = true;
        for work in &mut self.works {
            let due = core.now >= work.checkpointer.due_at();
            if (ending || idle || due)
                && let Some(push) = &mut work.push
            {
                push.mark_pushed(store);
            }
            if ending || due {
                let current = work.current();
                work.checkpointer.save(core, &current)?;
                all_saved &= !work.checkpointer.is_saving() && !work.checkpointer.is_dirty(&current);
            }
        }
        Ok(ending && all_saved)
    }

    /// The next moment at which something is due.
    pub fn poll_at(&self) -> Option<Instant> {
        let mut at: Option<Instant> = None;
        let mut earlier = |candidate: Option<Instant>| {
            if let Some(candidate) = candidate {
                at = Some(at.map_or(candidate, |at| at.min(candidate)));
            }
        };
        for work in &self.works {
            earlier(work.push.as_ref().and_then(Push::due_at));
            if self.agreed && !work.checkpointer.is_saving() && work.checkpointer.is_dirty(&work.current()) {
                earlier(Some(work.checkpointer.due_at()));
            }
        }
        at
    }

    /// What was due at a moment is so no more.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.works.iter_mut().filter_map(|work| work.push.as_mut()).for_each(|push| push.end_delay(now));
    }

    /// Whether the peer owes something beyond replies.
    pub fn is_owed(&self) -> bool {
        self.works.iter().any(|work| work.pull.as_ref().is_some_and(Pull::is_owed))
    }
}

impl Work {
    /// The checkpoint as it would be saved now.
    fn current(&self) -> Checkpoint {
        Checkpoint {
            local: self.push.as_ref().map_or_else(|| self.loaded.local.clone(), |push| push.done.clone()),
            remote: self.pull.as_ref().map_or_else(|| self.loaded.remote.clone(), Pull::position),
        }
    }
}
