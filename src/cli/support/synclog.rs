//! What a daemon tells of a sync that it keeps going: each change of its state, and what was left out.

use std::sync::Arc;

use crate::cli::support::display::{activity_name, tell_document};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::output::counted;
use crate::cli::support::paced::{State, Topic};
use crate::cli::support::security;
use crate::node::SyncEvent;
use crate::replicator::{ReplicatorActivity, ReplicatorStatus, Unsynced};

/// The state that was told.
#[derive(Default)]
pub(crate) struct SyncLog {
    /// Whether the peer has proven who it is.
    secure: bool,
    activity: Option<ReplicatorActivity>,
    /// Of the present connection.
    documents: u64,
    /// Of those before.
    earlier_documents: u64,
    unsynced: Arc<Unsynced>,
    error: Option<String>,
}

impl SyncLog {
    /// Tells of one event, if it is news.
    pub(crate) fn take(&mut self, events: &Events, name: &str, event: &SyncEvent) {
        match event {
            SyncEvent::Authenticated { address, peer, name: known_as, via, .. } => {
                self.secure = true;
                security::announce(events, address, peer, known_as.as_deref(), *via);
            }
            SyncEvent::Status { address, status, .. } => self.status(events, name, address, status),
            SyncEvent::Document { document, .. } => tell_document(events, Some(name), document, false),
            SyncEvent::Conflict { address, conflict, .. } => events.conflict(address, conflict, false),
            // The status says the rest.
            SyncEvent::Visited { .. } => {}
            other => {
                if events.may_tell(Topic::Sync, name) {
                    events.say(&format!("{name}: {other}"));
                }
            }
        }
    }

    fn status(&mut self, events: &Events, name: &str, address: &str, status: &ReplicatorStatus) {
        let documents = status.progress.documents;
        if documents < self.documents {
            // Numbers start again with each connection.
            self.earlier_documents += self.documents;
        }
        self.documents = documents;
        let error = status.error.as_ref().map(ToString::to_string);
        let is_news = self.activity.replace(status.activity) != Some(status.activity) || self.error != error;
        if is_news && events.may_tell(Topic::Sync, name) {
            self.say(events, name, status, error.as_deref());
        }
        self.error.clone_from(&error);
        if self.unsynced != status.unsynced {
            let before = std::mem::replace(&mut self.unsynced, Arc::clone(&status.unsynced));
            events.left_out(address, &status.unsynced);
            events.lacking_collections(name, &before, &status.unsynced);
        }
        let event = Event::Status {
            peer: address,
            secure: self.secure,
            activity: activity_name(status.activity),
            completed: status.progress.completed,
            total: status.progress.total,
            documents: self.documents(),
            error,
        };
        events.tell_state(State::Connection, address, &event);
    }

    fn say(&self, events: &Events, name: &str, status: &ReplicatorStatus, error: Option<&str>) {
        match (status.activity, error) {
            (ReplicatorActivity::Offline, Some(error)) => {
                events.say(&format!("{name}: offline: {error}; will try again"));
            }
            (ReplicatorActivity::Idle, _) => {
                events.say(&format!("{name}: in sync, {} so far", counted(self.documents(), "document")));
            }
            (ReplicatorActivity::Stopped, None) => {
                events.say(&format!("{name}: done, {} so far", counted(self.documents(), "document")));
            }
            _ => {}
        }
    }

    /// Documents that went over, all connections together.
    pub(crate) fn documents(&self) -> u64 {
        self.earlier_documents + self.documents
    }
}
