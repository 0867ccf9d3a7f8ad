//! The pulling half of one collection, as far as it depends on the protocol.

use crate::blip::IncomingRequest;
use crate::replica::revision::RevId;
use crate::replica::store::ReplicaStore;
use crate::replicator::context::{RequestError, Response, SessionContext};
use crate::replicator::error::SessionError;
use crate::replicator::in_flight::{RevsReceived, Ticket};
use crate::replicator::sequences::RemoteSequence;

/// Hears which revision the peer has of a document, where it is ours or an ancestor of ours.
pub(in crate::replicator) type PeerIsBehind<'a> = &'a mut dyn FnMut(&str, RevId);

/// How the feed of one collection comes in, and what of it is durable here. What the other protocol has of its own is refused
/// or says nothing.
pub(in crate::replicator) trait PullProtocol: Send + Sync {
    /// Answers `changes`.
    fn handle_changes(
        &mut self,
        _context: &mut SessionContext,
        _request: &IncomingRequest,
        _peer_is_behind: PeerIsBehind<'_>,
        _store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        Err(SessionError::Malformed { what: "changes where revs were agreed" }.into())
    }

    /// Answers lists that wait, when there is room again.
    fn pump(
        &mut self,
        _context: &mut SessionContext,
        _peer_is_behind: PeerIsBehind<'_>,
        _store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        Ok(())
    }

    /// Notes which lists are here. A short list overtakes a long one on the way, and the word that the feed ends here overtakes
    /// both: what stands in a list means nothing for those before it until they have come.
    fn note_lists(&mut self, _context: &SessionContext) {}

    /// A `rev` or `norev` has come; gives the ticket if it was asked for.
    fn arrived(&mut self, _sequence: &str) -> Option<Ticket> {
        None
    }

    /// What has come by this ticket is of no use, and the peer sends it once more.
    fn expect_again(&mut self, _ticket: Ticket) {}

    /// What was asked for by this ticket is settled.
    fn settle(&mut self, _ticket: Ticket, _done: bool) {}

    /// A `revs` message of the feed has come; `outstanding` of its revisions go to the store, and `last` says that the feed
    /// ends with it.
    fn begin_revs(
        &mut self,
        _received: &RevsReceived,
        _outstanding: usize,
        _last: bool,
    ) -> Result<(), SessionError> {
        Err(SessionError::Malformed { what: "revs that were not agreed" })
    }

    /// All answers to a `revs` message are there; `committed` says of which revisions the store decided.
    fn settle_revs(&mut self, _received: &RevsReceived, _committed: &[bool]) {}

    /// The peer has something of ours as this sequence of its feed.
    fn peer_has(&mut self, _sequence: u64) {}

    /// Whether everything the peer had when it was asked is durable here.
    fn is_complete(&self) -> bool;

    /// Whether the peer owes something.
    fn is_owed(&self) -> bool;

    /// Changes of the peer that have not come yet, as far as that is known.
    fn unread(&self) -> u64 {
        0
    }

    /// Everything of the peer's feed up to here is durable.
    fn position(&self) -> RemoteSequence;
}
