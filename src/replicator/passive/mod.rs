//! The passive side: answers what the active side asks, refuses conflicts, feeds it changes.

#![deny(clippy::disallowed_methods)]

mod agree;
mod subscription;

use super::batched::receiver::{self, OnConflict};
use super::config::{CHECKPOINT_INTERVAL, DOCUMENT_IDS_MAX, PassiveConfig};
use super::context::{RequestError, Response, SessionContext};
use super::error::SessionError;
use super::event::Activity;
use super::extension;
use super::extension::codec::RevsMessage;
use super::in_flight::{Awaiting, RevsReceived, Ticket};
use super::messages::{profile, refuse};
use super::pushed::PushedNote;
use super::sequences::RemoteSequence;
use super::side::Side;
use super::stock::answers;
use super::turns::Turns;
use crate::blip::{ErrorReply, IncomingReply, IncomingRequest, OutgoingMessage};
use crate::replica::store::{CommitOutcome, ConflictOutcome, IncomingRevision, ReplicaStore};
use crate::replica::{CHECKPOINT_CLIENT_MAX, CHECKPOINT_SIZE_MAX, OWN_PREFIX};
use crate::time::Instant;
use subscription::Subscription;

/// The state of a passive session beside what both sides share.
pub(super) struct Passive {
    config: PassiveConfig,
    /// Whether a first request has settled which collections there are.
    settled: bool,
    /// One for each collection that the peer subscribed to.
    subscriptions: Vec<Option<Subscription>>,
    /// What the peer pushed to each collection.
    pushed: Vec<PushedNote>,
    turns: Turns,
    /// When the lists of what could not be synced were last kept.
    lists_saved: Option<Instant>,
}

impl Passive {
    pub fn new(config: PassiveConfig) -> Passive {
        let (subscriptions, pushed) = (Vec::new(), Vec::new());
        Passive { config, settled: false, subscriptions, pushed, turns: Turns::default(), lists_saved: None }
    }

    /// The collection of a request by which the peer pushes, if it may.
    fn collection_for_push(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<usize, RequestError> {
        let collection = self.collection(context, request, store)?;
        let may = self.config.access_to(&context.collections[collection].name).push;
        if may { Ok(collection) } else { Err(refuse::push().into()) }
    }

    /// The collection of a request. A peer that begins with anything but `getCollections` means the default one.
    fn collection(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<usize, RequestError> {
        if !self.settled && request.properties.get("collection").is_none() {
            self.settle_on_default(context, store)?;
        }
        Ok(context.collection_of(request)?)
    }

    fn get_checkpoint(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let collection = self.collection(context, request, store)?;
        let client = client_of(request)?;
        if self.subscriptions[collection].is_none() {
            self.load_pushed(context, collection, client, store)?;
        }
        let missing = || RequestError::Reply(ErrorReply::http(404, ""));
        let checkpoint = store.checkpoint(context.collections[collection].id, client)?.ok_or_else(missing)?;
        Ok(Response::Now(
            OutgoingMessage::default().with("rev", &checkpoint.revision).with_body(checkpoint.body),
        ))
    }

    fn set_checkpoint(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let collection = self.collection(context, request, store)?;
        let client = client_of(request)?;
        if request.body.len() > CHECKPOINT_SIZE_MAX {
            return Err(ErrorReply::http(413, "checkpoint too large").into());
        }
        let expected = request.properties.get("rev").filter(|rev| !rev.is_empty());
        let id = context.collections[collection].id;
        self.save_lists(context, store);
        match store.set_peer_checkpoint(id, &self.config.peer_uid, client, expected, request.body.clone()) {
            // A checkpoint that cannot be kept only costs work; damage shows with the next document.
            Err(error) => Err(ErrorReply::http(500, error.message).into()),
            Ok(Some(revision)) => {
                let pushed = &mut self.pushed[collection];
                if pushed.is_of(client) {
                    pushed.checkpoint_set(&request.body);
                    pushed.save(store);
                }
                Ok(Response::Now(OutgoingMessage::default().with("rev", &revision)))
            }
            Ok(None) => Err(ErrorReply::http(409, "checkpoint revision does not match").into()),
        }
    }

    fn sub_changes(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let collection = self.collection(context, request, store)?;
        if !self.config.access_to(&context.collections[collection].name).pull {
            return Err(refuse::pull().into());
        }
        let filter = self.config.outgoing_filter.clone();
        // The new subscription takes the place of the one before.
        self.subscriptions[collection] = None;
        let named: usize = self.subscriptions.iter().flatten().map(Subscription::document_ids).sum();
        let ids_max = DOCUMENT_IDS_MAX.saturating_sub(named);
        let pushed = &mut self.pushed[collection];
        let subscription = Subscription::new(context, collection, request, filter, ids_max, pushed, store)?;
        self.subscriptions[collection] = Some(subscription);
        context.set_activity(Activity::Busy);
        Ok(Response::empty())
    }

    /// Keeps what could not be synced, now and then: the peer may make it grow as often as it likes.
    fn save_lists(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) {
        if self.lists_saved.is_some_and(|at| context.now < at + CHECKPOINT_INTERVAL) {
            return;
        }
        self.lists_saved = Some(context.now);
        if let Err(error) = context.save_lists(store) {
            tracing::warn!(%error, "cannot keep the list of what could not be synced");
        }
    }

    /// The connection is over. A peer that was sent everything, and has pushed nothing over ours, has kept ours. A stock peer
    /// may yet push what it decided, with its next sync.
    fn tell_kept_conflicts(&self, context: &mut SessionContext) {
        if !context.extension || context.activity() != Activity::Idle {
            return;
        }
        for (collection, id) in context.open_conflicts.take() {
            if self.subscriptions.get(collection).is_some_and(Option::is_some) {
                context.tell_conflict(collection, &id, ConflictOutcome::Local);
            }
        }
    }
}

impl Side for Passive {
    fn set_peer_uid(&mut self, uid: String) {
        self.config.peer_uid = uid;
    }

    fn handle_request(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        match request.profile() {
            profile::GET_COLLECTIONS => self.get_collections(context, request, store),
            profile::GET_CHECKPOINT => self.get_checkpoint(context, request, store),
            profile::SET_CHECKPOINT => self.set_checkpoint(context, request, store),
            profile::SUB_CHANGES => self.sub_changes(context, request, store),
            profile::PROPOSE_CHANGES => {
                let collection = self.collection_for_push(context, request, store)?;
                let conflicts = request.properties.get_bool("conflictIncludesRev");
                let pushed = &mut self.pushed[collection];
                answers::answer_proposals(context, collection, &request.body, conflicts, pushed, store)
            }
            profile::CHANGES => {
                let collection = self.collection_for_push(context, request, store)?;
                answers::answer_changes(context, collection, &request.body, store)
            }
            _ => Err(ErrorReply::no_handler().into()),
        }
    }

    fn handle_reply(
        &mut self,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        _store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let collection = match &awaiting {
            Awaiting::Changes { collection, .. }
            | Awaiting::Rev { collection, .. }
            | Awaiting::Revs { collection, .. } => *collection,
            // The passive side asks nothing else.
            _ => return Ok(()),
        };
        let Some(Some(subscription)) = self.subscriptions.get_mut(collection) else { return Ok(()) };
        subscription.handle_reply(context, awaiting, result, &mut self.pushed[collection])
    }

    fn revision_target(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<(usize, Option<Ticket>), RequestError> {
        Ok((self.collection_for_push(context, request, store)?, None))
    }

    fn receiving(&mut self, context: &mut SessionContext) {
        context.progress.total += 1;
    }

    fn received(
        &mut self,
        context: &mut SessionContext,
        from: (usize, Option<Ticket>, &RemoteSequence),
        _revision: &IncomingRevision,
        outcome: &CommitOutcome,
    ) {
        let (collection, _, remote) = from;
        context.progress.completed += 1;
        let inserted = match outcome {
            CommitOutcome::Inserted { sequence } => Some(*sequence),
            _ => None,
        };
        self.pushed[collection].came(remote, inserted);
        if let CommitOutcome::Inserted { sequence } = outcome {
            context.progress.documents += 1;
            if let Some(subscription) = self.subscriptions.get_mut(collection).and_then(Option::as_mut) {
                subscription.skip(*sequence);
            }
        }
    }

    fn receiving_revs(
        &mut self,
        context: &mut SessionContext,
        head: RevsReceived,
        message: RevsMessage,
        store: &dyn ReplicaStore,
    ) -> Result<(RevsReceived, Vec<IncomingRevision>), SessionError> {
        receiver::sort(context, head, message.revisions, OnConflict::Refuse, store)
    }

    fn received_revs(
        &mut self,
        _context: &mut SessionContext,
        received: &RevsReceived,
        _committed: &[bool],
        _store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        // What we have in the same revision need not be offered either.
        let Some(subscription) = self.subscriptions.get_mut(received.collection).and_then(Option::as_mut)
        else {
            return Ok(());
        };
        for (_, answer) in &received.answers {
            if let Some(extension::answer::RevAnswer::Stored(sequence)) = answer {
                subscription.skip(*sequence);
            }
        }
        Ok(())
    }

    fn may_read(&self, collection: &str) -> bool {
        self.config.access_to(collection).pull
    }

    fn pump(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        let count = self.subscriptions.len();
        for collection in self.turns.order(count) {
            if let Some(subscription) = &mut self.subscriptions[collection] {
                subscription.pump(context, &mut self.pushed[collection], store)?;
            }
        }
        self.turns.taken(count, context.is_at_session_limit());
        Ok(())
    }

    fn update(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        let mut idle = context.inbox.is_empty() && context.awaiting_count() == 0;
        for (collection, subscription) in self.subscriptions.iter_mut().enumerate() {
            let pushed = &mut self.pushed[collection];
            if let Some(subscription) = subscription {
                if let Some(position) = pushed.take_put_back() {
                    subscription.list_again(position, pushed);
                }
                let ceiling = context.feed_ceiling(collection, store);
                idle &= subscription.is_idle(ceiling);
                if subscription.has_given_all(ceiling) {
                    pushed.all_listed();
                }
            }
            if pushed.is_urgent() {
                pushed.save(store);
            }
        }
        if idle {
            self.save_lists(context, store);
        }
        context.set_activity(if idle { Activity::Idle } else { Activity::Busy });
        Ok(())
    }

    fn stop(&mut self, context: &mut SessionContext) {
        context.finish(Ok(()));
    }

    fn close(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) {
        self.tell_kept_conflicts(context);
        self.pushed.iter_mut().for_each(|pushed| pushed.save(store));
    }
}

/// The checkpoint ID of a request.
fn client_of(request: &IncomingRequest) -> Result<&str, ErrorReply> {
    match request.properties.get("client") {
        None | Some("") => Err(refuse::no_client()),
        Some(client) if client_allowed(client) => Ok(client),
        Some(_) => Err(ErrorReply::http(403, "this checkpoint ID is reserved")),
    }
}

/// Whether a peer may keep a checkpoint under this ID: what this database keeps for itself is nobody's business.
fn client_allowed(client: &str) -> bool {
    !client.is_empty() && !client.starts_with(OWN_PREFIX) && client.len() <= CHECKPOINT_CLIENT_MAX
}
