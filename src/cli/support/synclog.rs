//! What a daemon tells of a sync that it keeps going: each change of its state, and what was left out.

use std::sync::Arc;

use crate::cli::support::display::{activity_name, emit_document, say_failed};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::output::counted;
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
            SyncEvent::Authenticated { address, peer, .. } => {
                self.secure = true;
                if events.may_tell(&format!("came {}", peer.peer)) {
                    security::announce(events, address, peer);
                }
            }
            SyncEvent::Status { address, status, .. } => self.status(events, name, address, status),
            SyncEvent::Document { document, .. } => {
                if events.may_tell(&format!("document {name}")) {
                    match document.error {
                        Some(_) => say_failed(events, document),
                        None => emit_document(events, None, document),
                    }
                }
            }
            SyncEvent::Conflict { address, conflict, .. } => events.conflict(address, conflict),
            // The status says the rest.
            SyncEvent::Visited { .. } => {}
            other => {
                if events.may_tell(&format!("sync {name}")) {
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
        if is_news && events.may_tell(&format!("state {name}")) {
            self.say(events, name, status, error.as_deref());
        }
        self.error.clone_from(&error);
        if self.unsynced != status.unsynced {
            self.unsynced = Arc::clone(&status.unsynced);
            events.left_out(address, &status.unsynced);
            for collection in &status.unsynced.collections {
                events.say(&format!("{name}: collection {:?}: {}", collection.name, collection.lack));
            }
        }
        events.emit(&Event::Status {
            peer: address,
            secure: self.secure,
            activity: activity_name(status.activity),
            completed: status.progress.completed,
            total: status.progress.total,
            documents: self.documents(),
            error,
        });
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
