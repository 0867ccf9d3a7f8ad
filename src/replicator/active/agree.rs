//! The beginning of a run: which collections both sides have, what may go which way, where each of them goes on.

use serde_json::Value;

use super::super::batched::pull::BatchPull;
use super::super::batched::push::BatchPush;
use super::super::checkpoint::checkpoint_id;
use super::super::config::{COLLECTIONS_MAX, CollectionConfig};
use super::super::context::{SessionCollection, SessionContext};
use super::super::error::SessionError;
use super::super::event::Direction;
use super::super::extension;
use super::super::feed::Feed;
use super::super::in_flight::Awaiting;
use super::super::messages::{
    CORRELATION, DEFAULT_COLLECTION, canonical_name, profile, write_get_collections,
};
use super::super::protocol::pull::PullProtocol;
use super::super::protocol::push::{PushProtocol, PushState};
use super::super::sequences::{RemoteSequence, SequenceSet};
use super::super::stock::pull::ListPull;
use super::super::stock::push::ListPush;
use super::super::unsynced::list::{Retry, UnsyncedList};
use super::super::unsynced::{Lack, ONLY_AT_PEER_MAX};
use super::checkpointer::Checkpointer;
use super::pull::{Pull, Subscribe};
use super::push::Push;
use super::{Active, CollectionSync};
use crate::blip::{ErrorReply, IncomingReply, OutgoingMessage};
use crate::endpoint::CollectionAccess;
use crate::replica::store::ReplicaStore;

/// Bytes of the names that a peer may tell of collections of its own.
const ALSO_BYTES_MAX: usize = 4 << 10;

/// What a gattway peer says beside its checkpoints.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The newest sequence of this collection.
    last: Option<u64>,
    /// Which documents it takes.
    takes: Option<u32>,
}

impl Active {
    /// Asks the peer for its collections and checkpoints.
    pub(super) fn ask_first(
        &mut self,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        self.check_config()?;
        for collection in std::mem::take(&mut self.config.collections) {
            self.add_collection(context, store, collection)?;
        }
        if self.syncs.is_empty() {
            return Err(SessionError::Configuration {
                reason: "the peer may do nothing with any collection",
            });
        }
        self.ask(context)
    }

    /// Takes a collection into the run, unless it is known that it cannot be synced with this peer.
    fn add_collection(
        &mut self,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
        collection: CollectionConfig,
    ) -> Result<(), SessionError> {
        let name = canonical_name(&collection.name);
        let missing = || SessionError::LocalCollectionMissing { name: name.clone() };
        let id = store.collection(&name).ok_or_else(missing)?;
        if self.config.absent.contains(&name) {
            note_missing(context, store, &name, id);
            return Ok(());
        }
        let allowed = match &self.config.access {
            Some(access) => access(&name),
            None => CollectionAccess { push: true, pull: true },
        };
        let (wants_push, wants_pull) = (self.config.direction.pushes(), self.config.direction.pulls());
        // What the peer may read is what it could pull.
        let (pushes, pulls) = (wants_push && allowed.pull, wants_pull && allowed.push);
        if !collection.optional && (pushes, pulls) != (wants_push, wants_pull) {
            return Err(SessionError::Configuration {
                reason: "the peer may not do with a collection what is asked of it",
            });
        }
        if wants_push && !pushes {
            context.left_out(&name, Lack::MayNotRead);
        }
        if wants_pull && !pulls {
            context.left_out(&name, Lack::MayNotWrite);
        }
        if !pushes && !pulls {
            return Ok(());
        }
        let named = CollectionConfig { name: name.clone(), ..collection };
        let client = checkpoint_id(store.source(), &self.config.peer_uid, self.config.direction, &named);
        let n = self.syncs.len();
        context.collections.push(SessionCollection {
            name,
            id,
            index: Some(n.to_string()),
            incoming_filter: named.pull_filter.clone(),
            outgoing_filter: named.push_filter.clone(),
        });
        self.config.collections.push(named);
        // No two checkpoints of a session have the same marks.
        let seed = self.config.mark_seed.wrapping_add((n as u64) << 32);
        let interval = self.config.checkpoint_interval;
        let checkpointer = Checkpointer::new(n, id, client, context.now, interval, seed)
            .confirmed_as(self.config.confirmed_as.as_deref().filter(|_| pushes));
        self.syncs.push(CollectionSync::new(checkpointer, pushes, pulls));
        Ok(())
    }

    fn ask(&mut self, context: &mut SessionContext) -> Result<(), SessionError> {
        let clients: Vec<String> = self.syncs.iter().map(|work| work.checkpointer.client.clone()).collect();
        let names: Vec<&str> = context.collections.iter().map(|c| c.name.as_str()).collect();
        let body = write_get_collections(&clients, &names);
        let mut message = OutgoingMessage::request(profile::GET_COLLECTIONS).with_body(body);
        if !self.config.correlation.is_empty() {
            message = message.with(CORRELATION, &self.config.correlation);
        }
        if self.config.extension {
            message = message.with(extension::PROPERTY, extension::VERSION);
            message = message.with(extension::FORMAT_PROPERTY, self.config.revs_format.text());
        }
        context.request(message, Awaiting::Collections)
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

    /// The peer has said which collections it has.
    pub(super) fn collections_replied(
        &mut self,
        context: &mut SessionContext,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let reply = match result {
            Ok(reply) => reply,
            Err(error) if is_unknown_profile(&error) && self.is_default_only(context) => {
                // An older peer: it knows one collection and is asked without naming it.
                context.collections[0].index = None;
                let client = self.syncs[0].checkpointer.client.clone();
                let message = context.message(profile::GET_CHECKPOINT, 0).with("client", &client);
                return context
                    .request(message, Awaiting::Checkpoint { collection: 0, after_conflict: false });
            }
            Err(error) => return Err(SessionError::Refused { request: profile::GET_COLLECTIONS, error }),
        };
        let malformed = || SessionError::Malformed { what: "reply to getCollections" };
        let checkpoints: Vec<Value> = serde_json::from_slice(&reply.body).map_err(|_| malformed())?;
        if checkpoints.len() != self.syncs.len() {
            return Err(malformed());
        }
        let accepted = reply.properties.get(extension::PROPERTY).filter(|_| self.config.extension);
        let missing: Vec<usize> = (0..checkpoints.len()).filter(|n| checkpoints[*n].is_null()).collect();
        if !missing.is_empty() {
            return self.go_on_without(context, &missing, accepted.is_some(), store);
        }
        let last = accepted.and_then(|value| extension::parse_acceptance(value, self.syncs.len()));
        context.extension = last.is_some();
        context.revs_format =
            self.config.revs_format.agreed(reply.properties.get(extension::FORMAT_PROPERTY));
        let property = |name| reply.properties.get(name).filter(|_| last.is_some());
        let takes = property(extension::TAKES_PROPERTY).and_then(|takes| takes.parse().ok());
        if self.config.collections.iter().all(|collection| collection.optional) {
            context.only_at_peer(names_told(property(extension::ALSO_PROPERTY), store));
        }
        for (n, checkpoint) in checkpoints.iter().enumerate() {
            let told = Told { last: last.as_ref().map(|last| last[n]), takes };
            self.begin(context, n, checkpoint, told, store)?;
        }
        self.agreed = true;
        Ok(())
    }

    /// The peer lacks some collections: the others are synced, if that is allowed. A gattway peer is asked for them at
    /// once; Couchbase Lite answers this question once in a connection, so another one is needed.
    fn go_on_without(
        &mut self,
        context: &mut SessionContext,
        missing: &[usize],
        may_ask_again: bool,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let name = |n: &usize| context.collections[*n].name.clone();
        let needed = missing.iter().find(|n| !self.config.collections[**n].optional);
        let all = missing.len() == self.syncs.len();
        if let Some(n) = needed.or(missing.first().filter(|_| all)) {
            return Err(SessionError::RemoteCollectionMissing { name: name(n) });
        }
        if !may_ask_again {
            return Err(SessionError::SomeCollectionsMissing { names: missing.iter().map(name).collect() });
        }
        for n in missing {
            let SessionCollection { name, id, .. } = context.collections[*n].clone();
            note_missing(context, store, &name, id);
        }
        for n in missing.iter().rev() {
            context.collections.remove(*n);
            self.syncs.remove(*n);
            self.config.collections.remove(*n);
        }
        for (n, (work, collection)) in self.syncs.iter_mut().zip(&mut context.collections).enumerate() {
            work.checkpointer.collection = n;
            collection.index = Some(n.to_string());
        }
        self.ask(context)
    }

    fn is_default_only(&self, context: &SessionContext) -> bool {
        context.collections.len() == 1 && context.collections[0].name == DEFAULT_COLLECTION
    }

    /// An older peer's checkpoint has come, or the revision of one that could not be saved.
    pub(super) fn checkpoint_replied(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        after_conflict: bool,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let reply = match result {
            Ok(reply) => Some(reply),
            Err(error) if error.code == 404 => None,
            Err(error) => return Err(SessionError::Refused { request: profile::GET_CHECKPOINT, error }),
        };
        let revision = reply.as_ref().and_then(|reply| reply.properties.get("rev"));
        if after_conflict {
            self.syncs[collection].checkpointer.learned(revision);
            return Ok(());
        }
        let body = reply.as_ref().map_or(&b"{}"[..], |reply| &reply.body);
        let mut checkpoint = serde_json::from_slice::<Value>(body).unwrap_or_else(|_| serde_json::json!({}));
        if let (Some(object), Some(revision)) = (checkpoint.as_object_mut(), revision) {
            object.insert("rev".into(), revision.into());
        }
        self.begin(context, collection, &checkpoint, Told::default(), store)?;
        self.agreed = true;
        Ok(())
    }

    /// Begins both halves of a collection.
    fn begin(
        &mut self,
        context: &mut SessionContext,
        n: usize,
        peer_checkpoint: &Value,
        told: Told,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let (reset, all) = (self.config.reset, self.config.reset || self.config.retry_unsynced);
        let mut list = UnsyncedList::load(store, context.collections[n].id, &self.config.peer_uid)?;
        let peer_has_learned = told.takes.is_some_and(|takes| list.peer_takes(takes));
        let loaded = self.syncs[n].checkpointer.load(peer_checkpoint, store, reset)?;
        let CollectionSync { pushes, pulls, .. } = self.syncs[n];
        if pushes {
            let again = list.begin_retry(Direction::Sent, all || peer_has_learned);
            self.begin_push(context, n, without(loaded.local.clone(), &again), store);
        }
        if pulls {
            let outdated = list.is_outdated();
            let again = list.begin_retry(Direction::Received, all || outdated).position();
            let again = if list.has_unlisted_conflict() { Some(RemoteSequence::START) } else { again };
            self.begin_pull(context, n, &loaded.remote, again, told)?;
        }
        self.syncs[n].loaded = loaded;
        debug_assert_eq!(context.lists.len(), n);
        context.unsynced_changed |= !list.is_empty();
        context.lists.push(list);
        Ok(())
    }

    fn begin_push(
        &mut self,
        context: &mut SessionContext,
        n: usize,
        done: SequenceSet,
        store: &dyn ReplicaStore,
    ) {
        let config = &self.config;
        let work = &mut self.syncs[n];
        let (id, name) = (context.collections[n].id, context.collections[n].name.clone());
        let target = (!config.continuous).then(|| store.last_sequence(id));
        let cursor = done.prefix();
        let mut feed = Feed::new(id, &name, cursor, target);
        let collection = &config.collections[n];
        feed.ids = collection.document_ids.as_ref().map(|ids| ids.iter().cloned().collect());
        feed.filter = collection.push_filter.clone();
        feed.skip_all(&done);
        let sent = work.checkpointer.note().sent;
        let state = PushState::new(n, feed, done, work.pulls, config.continuous);
        let protocol: Box<dyn PushProtocol> = match context.extension {
            true => Box::new(BatchPush::new(store.source(), cursor, sent)),
            false => Box::new(ListPush::default()),
        };
        work.push = Some(Push::new(state, protocol));
    }

    /// `again`: the position from which the peer's feed is to be looked at once more.
    fn begin_pull(
        &mut self,
        context: &mut SessionContext,
        n: usize,
        position: &RemoteSequence,
        again: Option<RemoteSequence>,
        told: Told,
    ) -> Result<(), SessionError> {
        let config = &self.config;
        let collection = &config.collections[n];
        let work = &mut self.syncs[n];
        let since = match (again, position.number()) {
            (None, _) => position.clone(),
            (Some(RemoteSequence::Number(again)), Some(position)) => {
                RemoteSequence::Number(again.min(position))
            }
            // Only the peer knows the order of such places.
            (Some(_), _) => RemoteSequence::START,
        };
        if since == RemoteSequence::START
            && let Some(push) = &mut work.push
        {
            push.everything_is_listed();
        }
        let protocol: Box<dyn PullProtocol> = match context.extension {
            true => Box::new(BatchPull::new(since.number().unwrap_or(0), told.last.unwrap_or(0))),
            false => Box::new(ListPull::new(n, since.clone())),
        };
        let mut pull = Pull::new(n, protocol);
        let nothing_new = told.last.is_some_and(|last| since.number().is_some_and(|since| since >= last));
        if nothing_new && !config.continuous {
            pull.end();
        } else {
            let received = work.checkpointer.note().received;
            let how = Subscribe {
                continuous: config.continuous,
                active_only: collection.skip_deleted && since == RemoteSequence::START,
                document_ids: collection.document_ids.as_deref(),
                filter: collection.remote_filter.as_deref(),
                channels: &collection.channels,
                // What is looked at once more is mostly here.
                offer_until: received.max(position.number().unwrap_or(0)),
            };
            pull.subscribe(context, &how)?;
        }
        work.pull = Some(pull);
        Ok(())
    }
}

/// The set without what is to be tried again.
fn without(mut done: SequenceSet, again: &Retry) -> SequenceSet {
    again.sequences.iter().filter_map(RemoteSequence::number).for_each(|sequence| done.remove(sequence));
    if let Some(from) = again.from {
        // 0 is before the first change.
        done.remove_from(from.max(1));
    }
    done
}

/// The peer does not have a collection. The default one is there in every database: while it is empty nobody misses it.
fn note_missing(
    context: &mut SessionContext,
    store: &dyn ReplicaStore,
    name: &str,
    id: crate::replica::store::CollectionId,
) {
    if name != DEFAULT_COLLECTION || store.last_sequence(id) > 0 {
        context.left_out(name, Lack::MissingAtPeer);
    }
}

/// Names of collections that only the peer has, of those that it tells of.
fn names_told(told: Option<&str>, store: &dyn ReplicaStore) -> Vec<String> {
    let names = told.filter(|told| told.len() <= ALSO_BYTES_MAX).unwrap_or_default().split(',');
    let full = names.filter_map(crate::replica::canonical_collection_name);
    full.filter(|name| store.collection(name).is_none()).take(ONLY_AT_PEER_MAX).collect()
}

pub(super) fn is_unknown_profile(error: &ErrorReply) -> bool {
    error.domain == "BLIP" && error.code == 404
}
