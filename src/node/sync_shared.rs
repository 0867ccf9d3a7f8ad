//! What the handle of a sync and its task share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::error::SyncError;
use super::hub::{Hub, Observer};
use super::sync_event::SyncEvent;
use crate::replicator::Replicator;

/// What the handle of a sync and its task share.
pub(super) struct SyncShared {
    pub(super) hub: Hub<SyncEvent>,
    /// The replication that runs now, or the last.
    current: Mutex<Option<Arc<Replicator>>>,
    stop: watch::Sender<bool>,
    end: watch::Sender<Option<Result<(), SyncError>>>,
}

impl SyncShared {
    pub(super) fn new(observers: Vec<Observer<SyncEvent>>) -> Arc<SyncShared> {
        Arc::new(SyncShared {
            hub: Hub::new(observers),
            current: Mutex::default(),
            stop: watch::Sender::new(false),
            end: watch::Sender::new(None),
        })
    }

    /// Nothing under this lock can be left half done.
    pub(super) fn current(&self) -> MutexGuard<'_, Option<Arc<Replicator>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it is to end.
    pub(super) async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// It has ended: nothing more is told.
    pub(super) fn end(&self, result: Result<(), SyncError>) {
        self.hub.close();
        self.end.send_replace(Some(result));
    }

    pub(super) async fn ended(&self) -> Result<(), SyncError> {
        match self.end.subscribe().wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }
}
