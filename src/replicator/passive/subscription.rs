//! One collection that the peer pulls: what it has asked for, and how far it has come.

use crate::blip::{ErrorReply, IncomingReply, IncomingRequest};
use crate::replica::store::ReplicaStore;
use crate::replicator::batched::feed::BatchFeed;
use crate::replicator::config::ReplicationFilter;
use crate::replicator::context::{Phase, RequestError, SessionContext};
use crate::replicator::error::SessionError;
use crate::replicator::feed::Feed;
use crate::replicator::in_flight::Awaiting;
use crate::replicator::messages::{parse_document_ids, refuse};
use crate::replicator::protocol::feed::{FeedProtocol, FeedState};
use crate::replicator::pushed::PushedNote;
use crate::replicator::stock::feed::ListFeed;

/// What a peer has asked for of one collection's feed, and how far it has come.
pub(super) struct Subscription {
    state: FeedState,
    protocol: Box<dyn FeedProtocol>,
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
        // Who says nothing knows only trees.
        let asked = property("versioning").unwrap_or("rev-trees");
        if asked != context.versioning.to_string() {
            return Err(refuse::versioning().into());
        }
        if property("filter").is_some() || property("channels").is_some() {
            return Err(refuse::filter().into());
        }
        let number = |name| property(name).and_then(|number| number.parse().ok());
        let since: u64 = number("since").unwrap_or(0);
        let target = &context.collections[collection];
        let ids = parse_document_ids(&request.body, document_ids_max)?.map(|ids| ids.into_iter().collect());
        let listing = pushed.subscribe(store, since)?;
        let mut feed = Feed::new(target.id, &target.name, listing.since, None);
        feed.ids = ids;
        feed.left_out = listing.left_out;
        feed.active_only = request.properties.get_bool("activeOnly");
        feed.filter = filter;
        let protocol: Box<dyn FeedProtocol> = if context.extension {
            Box::new(BatchFeed::new(store.source(), since, number("offer").unwrap_or(0)))
        } else {
            let batch = property("batch").and_then(|batch| batch.parse().ok());
            Box::new(ListFeed::new(batch))
        };
        let state = FeedState {
            collection,
            feed,
            continuous: request.properties.get_bool("continuous"),
            caught_up: false,
            due: store.last_sequence(target.id),
        };
        Ok(Subscription { state, protocol })
    }

    /// Document IDs that it names.
    pub fn document_ids(&self) -> usize {
        self.state.feed.ids.as_ref().map_or(0, |ids| ids.len())
    }

    /// What is now this local sequence came from the peer.
    pub fn skip(&mut self, sequence: u64) {
        self.state.feed.skip(sequence);
    }

    /// Whether the peer has everything up to the newest change.
    pub fn is_idle(&self, ceiling: u64) -> bool {
        let read = self.state.feed.is_exhausted(ceiling) || !self.state.is_open();
        read && self.protocol.is_idle()
    }

    /// Whether the peer has answered everything up to the newest change.
    pub fn has_given_all(&self, ceiling: u64) -> bool {
        self.state.caught_up && self.state.feed.is_exhausted(ceiling) && self.protocol.is_idle()
    }

    /// See [`FeedState::list_again`].
    pub fn list_again(&mut self, position: u64, pushed: &mut PushedNote) {
        self.state.list_again(position, pushed);
    }

    /// Adds to what is to be sent.
    pub fn pump(
        &mut self,
        context: &mut SessionContext,
        pushed: &mut PushedNote,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        match context.phase {
            Phase::Running => self.protocol.pump(&mut self.state, context, pushed, store),
            _ => Ok(()),
        }
    }

    /// Takes a reply to a list or a revision.
    pub fn handle_reply(
        &mut self,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        pushed: &mut PushedNote,
    ) -> Result<(), SessionError> {
        self.protocol.handle_reply(&mut self.state, context, awaiting, result, pushed)
    }
}
