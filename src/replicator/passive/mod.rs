//! The passive side: answers what the active side asks, refuses conflicts, feeds it changes.

#![deny(clippy::disallowed_methods)]

pub(super) mod lists;
pub(super) mod subscription;

use super::checkpoint::OWN_PREFIX;
use super::config::{
    CHECKPOINT_CLIENT_MAX, CHECKPOINT_INTERVAL, CHECKPOINT_SIZE_MAX, COLLECTIONS_MAX, DOCUMENT_IDS_MAX,
    PassiveConfig,
};
use super::conflicts::ConflictOutcome;
use super::core::{Answer, Awaiting, Core, Fault, SessionCollection};
use super::error::SessionError;
use super::event::Activity;
use super::extension;
use super::extension::RevsFormat;
use super::extension::receiver::RevsReceived;
use super::messages::{DEFAULT_COLLECTION, canonical_name, parse_get_collections, profile, refuse};
use super::store::{CommitOutcome, ReplicaStore, StoredCheckpoint};
use super::unsynced::list::UnsyncedList;
use super::unsynced::{Lack, ONLY_AT_PEER_MAX, TAKES};
use crate::blip::{ErrorReply, IncomingReply, IncomingRequest, OutgoingMessage};
use crate::database::canonical_collection_name;
use crate::time::Instant;
use subscription::Subscription;

/// See the head of the file.
pub(super) struct Passive {
    config: PassiveConfig,
    /// Whether a first request has settled which collections there are.
    settled: bool,
    /// One for each collection that the peer subscribed to.
    subscriptions: Vec<Option<Subscription>>,
    /// Which of them is next to send first: they share the session's limits.
    first: usize,
    /// When the lists of what could not be synced were last kept.
    lists_saved: Option<Instant>,
}

impl Passive {
    pub fn new(config: PassiveConfig) -> Passive {
        Passive { config, settled: false, subscriptions: Vec::new(), first: 0, lists_saved: None }
    }

    /// Names the peer by what it has proven.
    pub fn set_peer_uid(&mut self, uid: String) {
        self.config.peer_uid = uid;
    }

    /// Answers a request of the peer.
    pub fn handle_request(
        &mut self,
        core: &mut Core,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Answer, Fault> {
        match request.profile() {
            profile::GET_COLLECTIONS => self.get_collections(core, request, store),
            profile::GET_CHECKPOINT => self.get_checkpoint(core, request, store),
            profile::SET_CHECKPOINT => self.set_checkpoint(core, request, store),
            profile::SUB_CHANGES => self.sub_changes(core, request, store),
            profile::PROPOSE_CHANGES => {
                let collection = self.collection_for_push(core, request, store)?;
                let conflicts = request.properties.get_bool("conflictIncludesRev");
                lists::answer_proposals(core, collection, &request.body, conflicts, store)
            }
            profile::CHANGES => {
                let collection = self.collection_for_push(core, request, store)?;
                lists::answer_changes(core, collection, &request.body, store)
            }
            _ => Err(ErrorReply::no_handler().into()),
        }
    }

    /// The collection of a request by which the peer pushes, if it may.
    pub fn collection_for_push(
        &mut self,
        core: &mut Core,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<usize, Fault> {
        let collection = self.collection(core, request, store)?;
        let may = self.config.access_to(&core.collections[collection].name).push;
        if may { Ok(collection) } else { Err(refuse::push().into()) }
    }

    /// The collection of a request. A peer that begins with anything but `getCollections` means the default one.
    pub fn collection(
        &mut self,
        core: &mut Core,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<usize, Fault> {
        if !self.settled && request.properties.get("collection").is_none() {
            self.settle_on_default(core, store)?;
        }
        Ok(core.collection_of(request)?)
    }

    fn settle_on_default(&mut self, core: &mut Core, store: &dyn ReplicaStore) -> Result<(), Fault> {
        if !self.config.default_without_collections || !self.config.offers(DEFAULT_COLLECTION) {
            return Ok(());
        }
        let Some(id) = store.collection(DEFAULT_COLLECTION) else { return Ok(()) };
        self.settled = true;
        core.lists = vec![UnsyncedList::load(store, id, &self.config.peer_uid)?];
        core.unsynced_changed = true;
        let incoming_filter = self.config.incoming_filter.clone();
        core.collections =
            vec![SessionCollection { name: DEFAULT_COLLECTION.into(), id, index: None, incoming_filter }];
        self.subscriptions = vec![None];
        Ok(())
    }

    fn get_collections(
        &mut self,
        core: &mut Core,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Answer, Fault> {
        if self.settled {
            return Err(refuse::collections("not the first message").into());
        }
        let asked = parse_get_collections(&request.body)?;
        debug_assert!(asked.len() <= COLLECTIONS_MAX);
        let mut answers = Vec::with_capacity(asked.len());
        let mut found = Vec::with_capacity(asked.len());
        for (n, (client, name)) in asked.into_iter().enumerate() {
            let id = if self.config.offers(&name) { store.collection(&name) } else { None };
            let Some(id) = id else {
                answers.push("null".to_owned());
                // The default one is asked for by every peer that syncs all it has.
                if name != DEFAULT_COLLECTION && canonical_collection_name(&name).is_ok() {
                    core.left_out(&name, Lack::MissingHere);
                }
                continue;
            };
            let checkpoint =
                if client.starts_with(OWN_PREFIX) { None } else { store.checkpoint(id, &client)? };
            answers.push(checkpoint.map_or_else(|| "{}".to_owned(), |c| checkpoint_with_revision(&c)));
            let incoming_filter = self.config.incoming_filter.clone();
            found.push(SessionCollection { name, id, index: Some(n.to_string()), incoming_filter });
        }
        // With one missing the indices would not fit: the peer gives up then, or asks for the others.
        let complete = found.len() == answers.len();
        let mut reply = OutgoingMessage::default().with_body(format!("[{}]", answers.join(",")));
        let offered = request.properties.get(extension::PROPERTY) == Some(extension::VERSION);
        let accepts = self.config.extension && offered;
        if !complete {
            return Ok(Answer::Now(match accepts {
                // That it may ask once more.
                true => reply.with(extension::PROPERTY, extension::VERSION),
                false => reply,
            }));
        }
        self.settled = true;
        self.subscriptions = found.iter().map(|_| None).collect();
        let load = |c: &SessionCollection| UnsyncedList::load(store, c.id, &self.config.peer_uid);
        core.lists = found.iter().map(load).collect::<Result<_, _>>()?;
        core.unsynced_changed = true;
        core.collections = found;
        core.extension = accepts;
        if core.extension {
            // Who may not pull learns no count, and by asking for more that it may not.
            let last = |c: &SessionCollection| match self.config.access_to(&c.name).pull {
                true => store.last_sequence(c.id),
                false => u64::MAX,
            };
            let last: Vec<u64> = core.collections.iter().map(last).collect();
            reply = reply.with(extension::PROPERTY, &extension::acceptance(&last));
            reply = reply.with(extension::TAKES_PROPERTY, &TAKES.to_string());
            let also = self.not_asked_for(core, store);
            if !also.is_empty() {
                reply = reply.with(extension::ALSO_PROPERTY, &also.join(","));
            }
            let newest = request.properties.get(extension::FORMAT_PROPERTY);
            core.revs_format = RevsFormat::agreed(newest);
            // A peer that says nothing of formats gets the answer that it always got.
            if newest.is_some() {
                reply = reply.with(extension::FORMAT_PROPERTY, RevsFormat::NEWEST.text());
            }
        }
        Ok(Answer::Now(reply))
    }

    /// Collections that the peer could have and has not asked for.
    fn not_asked_for(&self, core: &Core, store: &dyn ReplicaStore) -> Vec<String> {
        let offered = self.config.collections.iter().map(|name| canonical_name(name));
        let others = offered.filter(|name| {
            let is_asked_for = core.collections.iter().any(|c| c.name == *name);
            !is_asked_for
                && self.config.offers(name)
                && store.collection(name).is_some_and(|id| store.last_sequence(id) > 0)
        });
        others.take(ONLY_AT_PEER_MAX).collect()
    }

    fn get_checkpoint(
        &mut self,
        core: &mut Core,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Answer, Fault> {
        let collection = self.collection(core, request, store)?;
        let client = client_of(request)?;
        let missing = || Fault::Reply(ErrorReply::http(404, ""));
        let checkpoint = store.checkpoint(core.collections[collection].id, client)?.ok_or_else(missing)?;
        Ok(Answer::Now(
            OutgoingMessage::default().with("rev", &checkpoint.revision).with_body(checkpoint.body),
        ))
    }

    fn set_checkpoint(
        &mut self,
        core: &mut Core,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Answer, Fault> {
        let collection = self.collection(core, request, store)?;
        let client = client_of(request)?;
        if request.body.len() > CHECKPOINT_SIZE_MAX {
            return Err(ErrorReply::http(413, "checkpoint too large").into());
        }
        let expected = request.properties.get("rev").filter(|rev| !rev.is_empty());
        let id = core.collections[collection].id;
        self.save_lists(core, store);
        match store.set_checkpoint(id, client, expected, request.body.clone()) {
            // A checkpoint that cannot be kept only costs work; damage shows with the next document.
            Err(error) => Err(ErrorReply::http(500, error.message).into()),
            Ok(Some(revision)) => Ok(Answer::Now(OutgoingMessage::default().with("rev", &revision))),
            Ok(None) => Err(ErrorReply::http(409, "checkpoint revision does not match").into()),
        }
    }

    fn sub_changes(
        &mut self,
        core: &mut Core,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Answer, Fault> {
        let collection = self.collection(core, request, store)?;
        if !self.config.access_to(&core.collections[collection].name).pull {
            return Err(refuse::pull().into());
        }
        let filter = self.config.outgoing_filter.clone();
        // The new subscription takes the place of the one before.
        self.subscriptions[collection] = None;
        let named: usize = self.subscriptions.iter().flatten().map(Subscription::document_ids).sum();
        let ids_max = DOCUMENT_IDS_MAX.saturating_sub(named);
        let subscription = Subscription::new(core, collection, request, filter, ids_max, store)?;
        self.subscriptions[collection] = Some(subscription);
        core.set_activity(Activity::Busy);
        Ok(Answer::empty())
    }

    /// Takes the reply to one of our requests.
    pub fn handle_reply(
        &mut self,
        core: &mut Core,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
    ) -> Result<(), SessionError> {
        let collection = match &awaiting {
            Awaiting::Changes { collection, .. }
            | Awaiting::Rev { collection, .. }
            | Awaiting::Revs { collection, .. } => *collection,
            // The passive side asks nothing else.
            _ => return Ok(()),
        };
        match self.subscriptions.get_mut(collection).and_then(Option::as_mut) {
            Some(subscription) => subscription.handle_reply(core, collection, awaiting, result),
            None => Ok(()),
        }
    }

    /// A revision of the peer is durable, or not.
    pub fn received(&mut self, core: &mut Core, collection: usize, outcome: &CommitOutcome) {
        core.progress.completed += 1;
        if let CommitOutcome::Inserted { sequence } = outcome {
            core.progress.documents += 1;
            if let Some(subscription) = self.subscriptions.get_mut(collection).and_then(Option::as_mut) {
                subscription.feed.skip(*sequence);
            }
        }
    }

    /// All answers to a `revs` message are there.
    pub fn received_revs(&mut self, received: &RevsReceived) {
        // What we have in the same revision need not be offered either.
        let Some(subscription) = self.subscriptions.get_mut(received.collection).and_then(Option::as_mut)
        else {
            return;
        };
        for (_, answer) in &received.answers {
            if let Some(extension::answer::RevAnswer::Stored(sequence)) = answer {
                subscription.feed.skip(*sequence);
            }
        }
    }

    /// Adds to what is to be sent.
    pub fn pump(&mut self, core: &mut Core, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        let count = self.subscriptions.len();
        for n in 0..count {
            let collection = (self.first + n) % count;
            if let Some(subscription) = &mut self.subscriptions[collection] {
                subscription.pump(core, collection, store)?;
            }
        }
        if core.is_at_session_limit() && count > 0 {
            self.first = (self.first + 1) % count;
        }
        Ok(())
    }

    /// Keeps what could not be synced, now and then: the peer may make it grow as often as it likes.
    fn save_lists(&mut self, core: &mut Core, store: &dyn ReplicaStore) {
        if self.lists_saved.is_some_and(|at| core.now < at + CHECKPOINT_INTERVAL) {
            return;
        }
        self.lists_saved = Some(core.now);
        if let Err(error) = core.save_lists(store) {
            tracing::warn!(%error, "cannot keep the list of what could not be synced");
        }
    }

    /// The connection is over. A peer that was sent everything, and has pushed nothing over ours, has kept ours. A stock peer
    /// may yet push what it decided, with its next sync.
    pub fn tell_kept_conflicts(&self, core: &mut Core) {
        if !core.extension || core.activity() != Activity::Idle {
            return;
        }
        for (collection, id) in core.open_conflicts.take() {
            if self.subscriptions.get(collection).is_some_and(Option::is_some) {
                core.tell_conflict(collection, &id, ConflictOutcome::Local);
            }
        }
    }

    /// Says whether there is work.
    pub fn update(&mut self, core: &mut Core, store: &dyn ReplicaStore) {
        let mut idle = core.inbox.is_empty() && core.awaiting_count() == 0;
        for (collection, subscription) in self.subscriptions.iter().enumerate() {
            if let Some(subscription) = subscription {
                idle &= subscription.is_idle(core.feed_ceiling(collection, store));
            }
        }
        if idle {
            self.save_lists(core, store);
        }
        core.set_activity(if idle { Activity::Idle } else { Activity::Busy });
    }
}

/// The checkpoint ID of a request.
fn client_of(request: &IncomingRequest) -> Result<&str, ErrorReply> {
    match request.properties.get("client") {
        None | Some("") => Err(refuse::no_client()),
        // What this database keeps for itself is nobody's business.
        Some(client) if client.starts_with(OWN_PREFIX) || client.len() > CHECKPOINT_CLIENT_MAX => {
            Err(ErrorReply::http(403, "this checkpoint ID is reserved"))
        }
        Some(client) => Ok(client),
    }
}

/// A checkpoint with its revision, under the keys of both kinds of peers.
fn checkpoint_with_revision(checkpoint: &StoredCheckpoint) -> String {
    let parsed = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&checkpoint.body);
    let mut object = parsed.unwrap_or_default();
    for key in ["rev", "_rev"] {
        object.insert(key.to_owned(), checkpoint.revision.clone().into());
    }
    serde_json::Value::Object(object).to_string()
}
