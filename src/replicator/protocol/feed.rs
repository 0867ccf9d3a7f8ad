//! The feed of one collection on its way out to a peer that pulls it, as far as it depends on the protocol.

use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::store::ReplicaStore;
use crate::replicator::context::SessionContext;
use crate::replicator::error::SessionError;
use crate::replicator::feed::Feed;
use crate::replicator::in_flight::Awaiting;
use crate::replicator::pushed::PushedNote;
use crate::replicator::sequences::SequenceSet;

/// How changes go out to a peer that has subscribed to them.
pub(in crate::replicator) trait FeedProtocol: Send + Sync {
    /// Adds to what is to be sent.
    fn pump(
        &mut self,
        state: &mut FeedState,
        context: &mut SessionContext,
        pushed: &mut PushedNote,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError>;

    /// Takes the reply to something that was sent.
    fn handle_reply(
        &mut self,
        state: &mut FeedState,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        pushed: &mut PushedNote,
    ) -> Result<(), SessionError>;

    /// Whether nothing is queued or in flight.
    fn is_idle(&self) -> bool;
}

/// How far the peer has come in the feed of one collection.
pub(in crate::replicator) struct FeedState {
    /// Index of the collection.
    pub collection: usize,
    pub feed: Feed,
    pub continuous: bool,
    /// Whether the peer was told that it has everything.
    pub caught_up: bool,
    /// What was there when the peer asked. While a commit is under way the feed may stop before; it does not end there.
    pub due: u64,
}

impl FeedState {
    /// Whether changes still go to the peer.
    pub fn is_open(&self) -> bool {
        !self.caught_up || self.continuous
    }

    /// Whether the feed may be told to end: all that was there when it was asked for can be read. A commit under way hides
    /// what came after it began, and a change from before may have moved there: by an edit, or where revisions contain each
    /// other.
    pub fn may_end(&self, ceiling: u64, context: &SessionContext) -> bool {
        ceiling >= self.due && !context.inbox.is_committing()
    }

    /// The peer turns out to lack what was left out: goes back in the feed and leaves out nothing. A one-shot peer that was
    /// told that the feed ends takes no more; its next run begins there.
    pub fn list_again(&mut self, position: u64, pushed: &mut PushedNote) {
        if !self.is_open() {
            return;
        }
        self.feed.left_out = SequenceSet::new();
        self.feed.unread_after(position);
        pushed.lists_from(self.feed.cursor);
    }
}

/// Whether the peer does not want the document, whatever it is.
pub(in crate::replicator) fn is_filtered(error: &ErrorReply) -> bool {
    error.domain == "HTTP" && error.code == 403
}
