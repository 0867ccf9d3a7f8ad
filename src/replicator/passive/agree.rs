//! Agreeing with the active side on collections: which there are here, what it had reached, and what both sides speak.

#![deny(clippy::disallowed_methods)]

use super::super::config::COLLECTIONS_MAX;
use super::super::context::{RequestError, Response, SessionCollection, SessionContext};
use super::super::extension::{self, RevsFormat};
use super::super::messages::{
    CORRELATION, DEFAULT_COLLECTION, canonical_name, parse_get_collections, refuse,
};
use super::super::pushed::PushedNote;
use super::super::unsynced::list::UnsyncedList;
use super::super::unsynced::{Lack, ONLY_AT_PEER_MAX, TAKES};
use super::{Passive, client_allowed};
use crate::blip::{IncomingRequest, OutgoingMessage};
use crate::replica::OWN_PREFIX;
use crate::replica::canonical_collection_name;
use crate::replica::revision::Versioning;
use crate::replica::store::{ReplicaStore, ReplicaStoreError, StoredCheckpoint};

/// Bytes of the peer's name for the connection, in the log, at most.
const CORRELATION_MAX: usize = 64;

impl Passive {
    /// The peer begins with something else than `getCollections`: it means the default collection.
    pub(super) fn settle_on_default(
        &mut self,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<(), RequestError> {
        if !self.config.default_without_collections || !self.config.offers(DEFAULT_COLLECTION) {
            return Ok(());
        }
        let Some(id) = store.collection(DEFAULT_COLLECTION) else { return Ok(()) };
        self.settled = true;
        context.lists = vec![UnsyncedList::load(store, id, &self.config.peer_uid)?];
        context.unsynced_changed = true;
        let (incoming_filter, outgoing_filter) = self.config.filters();
        context.collections = vec![SessionCollection {
            name: DEFAULT_COLLECTION.into(),
            id,
            index: None,
            incoming_filter,
            outgoing_filter,
        }];
        self.subscriptions = vec![None];
        self.pushed = vec![PushedNote::none(id)];
        Ok(())
    }

    /// Answers `getCollections`.
    pub(super) fn get_collections(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        if self.settled {
            return Err(refuse::collections("not the first message").into());
        }
        let asked = parse_get_collections(&request.body)?;
        if let Some(correlation) = request.properties.get(CORRELATION).filter(|text| is_loggable(text)) {
            tracing::Span::current().record("correlation", correlation);
            tracing::debug!("the peer asks for collections");
        }
        debug_assert!(asked.len() <= COLLECTIONS_MAX);
        let mut answers = Vec::with_capacity(asked.len());
        let mut found = Vec::with_capacity(asked.len());
        let mut clients = Vec::with_capacity(asked.len());
        for (n, (client, name)) in asked.into_iter().enumerate() {
            let id = if self.config.offers(&name) { store.collection(&name) } else { None };
            let Some(id) = id else {
                answers.push("null".to_owned());
                // The default one is asked for by every peer that syncs all it has.
                if name != DEFAULT_COLLECTION && canonical_collection_name(&name).is_some() {
                    context.left_out(&name, Lack::MissingHere);
                }
                continue;
            };
            let checkpoint =
                if client.starts_with(OWN_PREFIX) { None } else { store.checkpoint(id, &client)? };
            answers.push(checkpoint.map_or_else(|| "{}".to_owned(), |c| checkpoint_with_revision(&c)));
            let (incoming_filter, outgoing_filter) = self.config.filters();
            let index = Some(n.to_string());
            found.push(SessionCollection { name, id, index, incoming_filter, outgoing_filter });
            clients.push(client);
        }
        // With one missing the indices would not fit: the peer gives up then, or asks for the others.
        let complete = found.len() == answers.len();
        let mut reply = OutgoingMessage::default().with_body(format!("[{}]", answers.join(",")));
        let offered = request.properties.get(extension::PROPERTY) == Some(extension::VERSION);
        let has_trees = context.versioning == Versioning::RevisionTrees;
        let accepts = self.config.extension && offered && !has_trees;
        if !complete {
            return Ok(Response::Now(match accepts {
                // That it may ask once more.
                true => reply.with(extension::PROPERTY, extension::VERSION),
                false => reply,
            }));
        }
        self.settled = true;
        self.subscriptions = found.iter().map(|_| None).collect();
        let load = |c: &SessionCollection| UnsyncedList::load(store, c.id, &self.config.peer_uid);
        context.lists = found.iter().map(load).collect::<Result<_, _>>()?;
        context.unsynced_changed = true;
        context.collections = found;
        context.extension = accepts;
        self.pushed = context.collections.iter().map(|collection| PushedNote::none(collection.id)).collect();
        for (collection, client) in clients.iter().enumerate() {
            self.load_pushed(context, collection, client, store)?;
        }
        if context.extension {
            // Who may not pull learns no count, and by asking for more that it may not.
            let last = |c: &SessionCollection| match self.config.access_to(&c.name).pull {
                true => store.last_sequence(c.id),
                false => u64::MAX,
            };
            let last: Vec<u64> = context.collections.iter().map(last).collect();
            reply = reply.with(extension::PROPERTY, &extension::acceptance(&last));
            reply = reply.with(extension::TAKES_PROPERTY, &TAKES.to_string());
            let also = self.not_asked_for(context, store);
            if !also.is_empty() {
                reply = reply.with(extension::ALSO_PROPERTY, &also.join(","));
            }
            let newest = request.properties.get(extension::FORMAT_PROPERTY);
            context.revs_format = self.config.revs_format.agreed(newest);
            reply.compressed = context.revs_format >= RevsFormat::Folded;
            // A peer that says nothing of formats gets the answer that it always got.
            if newest.is_some() {
                reply = reply.with(extension::FORMAT_PROPERTY, self.config.revs_format.text());
            }
        }
        Ok(Response::Now(reply))
    }

    /// Reads what the peer pushed in earlier runs. A gattway peer gets the sequences with our answers instead.
    pub(super) fn load_pushed(
        &mut self,
        context: &SessionContext,
        collection: usize,
        client: &str,
        store: &dyn ReplicaStore,
    ) -> Result<(), ReplicaStoreError> {
        let is_usable = client_allowed(client) && !context.extension;
        if is_usable && !self.pushed[collection].is_of(client) {
            let id = context.collections[collection].id;
            self.pushed[collection] = PushedNote::load(store, id, &self.config.peer_uid, client)?;
        }
        Ok(())
    }

    /// Collections that the peer could have and has not asked for.
    fn not_asked_for(&self, context: &SessionContext, store: &dyn ReplicaStore) -> Vec<String> {
        let offered = self.config.collections.iter().map(|name| canonical_name(name));
        let others = offered.filter(|name| {
            let is_asked_for = context.collections.iter().any(|c| c.name == *name);
            !is_asked_for
                && self.config.offers(name)
                && store.collection(name).is_some_and(|id| store.last_sequence(id) > 0)
        });
        others.take(ONLY_AT_PEER_MAX).collect()
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

/// Whether a peer's word for the log is short and plain.
fn is_loggable(text: &str) -> bool {
    text.len() <= CORRELATION_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}
