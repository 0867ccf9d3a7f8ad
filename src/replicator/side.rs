//! What the active and the passive side of a connection do differently.

#![deny(clippy::disallowed_methods)]

use std::sync::Arc;

use super::context::{RequestError, Response, SessionContext};
use super::error::SessionError;
use super::extension::codec::RevsMessage;
use super::in_flight::{Awaiting, RevsReceived, Ticket};
use super::sequences::RemoteSequence;
use crate::blip::{ErrorReply, IncomingReply, IncomingRequest};
use crate::endpoint::AccessRule;
use crate::replica::store::{CommitOutcome, ConflictResolver, IncomingRevision, ReplicaStore};
use crate::time::Instant;

/// One side of a connection. What it does not say the other side does.
pub(super) trait Side: Send + Sync {
    /// Names the peer by what it has proven.
    fn set_peer_uid(&mut self, uid: String);

    /// Says what the peer may do here; the passive side has it in its configuration.
    fn set_access(&mut self, _access: AccessRule) {}

    /// The connection is open: whoever speaks first does.
    fn start(
        &mut self,
        _context: &mut SessionContext,
        _store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        Ok(())
    }

    /// Answers a request of the peer that brings no revision.
    fn handle_request(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError>;

    /// Takes the reply to one of our requests.
    fn handle_reply(
        &mut self,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError>;

    /// The collection of a request that brings revisions, if they may come, and the ticket of the one it names.
    fn revision_target(
        &mut self,
        context: &mut SessionContext,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<(usize, Option<Ticket>), RequestError>;

    /// A single revision goes to the store.
    fn receiving(&mut self, _context: &mut SessionContext) {}

    /// A revision of the peer was refused before it came to the store, or will not come.
    fn not_received(&mut self, _context: &mut SessionContext, _collection: usize, _ticket: Option<Ticket>) {}

    /// A delta of the peer fits nothing here: the whole body comes next.
    fn delta_refused(&mut self, _collection: usize, _ticket: Option<Ticket>) {}

    /// A revision of the peer is durable, or not. `sequence`: its own at the peer.
    fn received(
        &mut self,
        context: &mut SessionContext,
        from: (usize, Option<Ticket>, &RemoteSequence),
        revision: &IncomingRevision,
        outcome: &CommitOutcome,
    );

    /// A `revs` message has come: gives what is known of the answer, and what goes to the store.
    fn receiving_revs(
        &mut self,
        context: &mut SessionContext,
        head: RevsReceived,
        message: RevsMessage,
        store: &dyn ReplicaStore,
    ) -> Result<(RevsReceived, Vec<IncomingRevision>), SessionError>;

    /// All answers to a `revs` message are there; `committed` says of which revisions the store decided.
    fn received_revs(
        &mut self,
        context: &mut SessionContext,
        received: &RevsReceived,
        committed: &[bool],
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError>;

    /// Whether documents of a collection may go to the peer.
    fn may_read(&self, collection: &str) -> bool;

    /// Who decides conflicts here; `None`: they are refused, and the peer decides.
    fn resolver(&self) -> Option<&Arc<dyn ConflictResolver>> {
        None
    }

    /// Adds to what is to be sent.
    fn pump(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) -> Result<(), SessionError>;

    /// Keeps what is due, says busy or idle, ends the session when all is done.
    fn update(&mut self, context: &mut SessionContext, store: &dyn ReplicaStore) -> Result<(), SessionError>;

    /// The next moment at which something is due.
    fn poll_at(&self) -> Option<Instant> {
        None
    }

    /// What was due at a moment is so no more.
    fn handle_timeout(&mut self, _now: Instant) {}

    /// Whether the peer owes something beyond replies.
    fn is_owed(&self) -> bool {
        false
    }

    /// Ends the session in good order, if it can.
    fn stop(&mut self, context: &mut SessionContext);

    /// The connection is over, whatever ended it.
    fn close(&mut self, _context: &mut SessionContext, _store: &dyn ReplicaStore) {}
}
