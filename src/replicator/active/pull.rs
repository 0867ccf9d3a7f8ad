//! The pulling half of one collection: asks for the peer's feed, and keeps what comes of it.

use crate::replica::store::{CommitOutcome, Rejection};
use crate::replicator::config::CHANGES_BATCH;
use crate::replicator::context::SessionContext;
use crate::replicator::error::SessionError;
use crate::replicator::in_flight::{Awaiting, Ticket};
use crate::replicator::messages::profile;
use crate::replicator::protocol::pull::PullProtocol;
use crate::replicator::sequences::RemoteSequence;

/// Sync Gateway's filter for channels.
const BY_CHANNEL: &str = "sync_gateway/bychannel";

/// What of one collection's feed at the peer has come, and what of it is durable here.
pub(super) struct Pull {
    pub protocol: Box<dyn PullProtocol>,
    collection: usize,
    /// Whether there is nothing to pull: the peer refuses, or said that it has nothing new.
    over: bool,
    refused: bool,
}

/// What `subChanges` says beside the position.
pub(super) struct Subscribe<'a> {
    pub continuous: bool,
    pub active_only: bool,
    pub document_ids: Option<&'a [String]>,
    pub filter: Option<&'a str>,
    pub channels: &'a [String],
    /// Extension: up to here the peer shall offer before it sends.
    pub offer_until: u64,
}

impl Pull {
    pub fn new(collection: usize, protocol: Box<dyn PullProtocol>) -> Pull {
        Pull { protocol, collection, over: false, refused: false }
    }

    /// There is nothing to pull.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// The peer gives nothing.
    pub fn refuse(&mut self) {
        self.over = true;
        self.refused = true;
    }

    /// Whether the peer gives nothing.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Asks for the feed.
    pub fn subscribe(&self, context: &mut SessionContext, how: &Subscribe<'_>) -> Result<(), SessionError> {
        let mut message = context.message(profile::SUB_CHANGES, self.collection);
        let since = self.protocol.position();
        if since != RemoteSequence::START {
            message = message.with("since", &since.to_string());
        }
        if how.continuous {
            message = message.with("continuous", "true");
        }
        message = message.with("batch", &CHANGES_BATCH.to_string());
        message =
            message.with("sendReplacementRevs", "1").with("versioning", &context.versioning.to_string());
        if how.active_only {
            message = message.with("activeOnly", "true");
        }
        message = message.with("revocations", "true");
        if let Some(filter) = how.filter.or((!how.channels.is_empty()).then_some(BY_CHANNEL)) {
            message = message.with("filter", filter);
        }
        if !how.channels.is_empty() {
            message = message.with("channels", &how.channels.join(","));
        }
        if context.extension && how.offer_until > since.number().unwrap_or(0) {
            message = message.with("offer", &how.offer_until.to_string());
        }
        if let Some(ids) = how.document_ids {
            message = message.with_body(serde_json::json!({"docIDs": ids}).to_string());
        }
        context.request(message, Awaiting::Subscribed { collection: self.collection })
    }

    /// What was asked for by this ticket is settled.
    pub fn settle(&mut self, context: &mut SessionContext, ticket: Option<Ticket>, done: bool) {
        if let Some(ticket) = ticket {
            context.progress.completed += 1;
            self.protocol.settle(ticket, done);
        }
    }

    /// Whether everything the peer had when it was asked is durable here.
    pub fn is_complete(&self) -> bool {
        self.over || self.protocol.is_complete()
    }

    /// Whether the peer's feed has come to its end, and was not only given up.
    pub fn has_caught_up(&self) -> bool {
        !self.over && self.protocol.is_complete()
    }

    /// Changes of the peer that have not come yet, as far as that is known.
    pub fn unread(&self) -> u64 {
        if self.over { 0 } else { self.protocol.unread() }
    }

    /// Whether the peer owes something.
    pub fn is_owed(&self) -> bool {
        !self.over && self.protocol.is_owed()
    }
}

/// Whether a revision need not be tried again.
pub(super) fn is_settled_for_good(outcome: &CommitOutcome) -> bool {
    !matches!(outcome, CommitOutcome::Rejected(Rejection::Resolver(_)))
}
