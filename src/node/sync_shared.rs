//! What the handle of a sync and its task share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::error::SyncError;
use super::hub::{Hub, Observer};
use super::sync_event::SyncEvent;
use crate::replicator::{Replicator, ReplicatorActivity, ReplicatorStatus};

/// What the handle of a sync and its task share.
pub(super) struct SyncShared {
    pub(super) hub: Hub<SyncEvent>,
    /// The replications that run now, or the last.
    running: Mutex<Vec<Running>>,
    stop: watch::Sender<bool>,
    end: watch::Sender<Option<Result<(), SyncError>>>,
}

/// A replication with one peer.
struct Running {
    peer: Arc<str>,
    replicator: Arc<Replicator>,
}

impl SyncShared {
    pub(super) fn new(observers: Vec<Observer<SyncEvent>>) -> Arc<SyncShared> {
        Arc::new(SyncShared {
            hub: Hub::new(observers),
            running: Mutex::default(),
            stop: watch::Sender::new(false),
            end: watch::Sender::new(None),
        })
    }

    /// Nothing under this lock can be left half done.
    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replication has begun.
    pub(super) fn begun(&self, peer: Arc<str>, replicator: Arc<Replicator>) {
        let mut running = self.running();
        running.retain(|running| running.replicator.status().activity != ReplicatorActivity::Stopped);
        running.push(Running { peer, replicator });
    }

    /// The state of the replication that began last.
    pub(super) fn status(&self) -> Option<ReplicatorStatus> {
        self.running().last().map(|running| running.replicator.status())
    }

    /// The peers that are synced with now, and the states of that.
    #[cfg(feature = "cli")]
    pub(super) fn peers(&self) -> Vec<(Arc<str>, ReplicatorStatus)> {
        let running = self.running();
        let states = running.iter().map(|running| (Arc::clone(&running.peer), running.replicator.status()));
        states.filter(|(_, status)| status.activity != ReplicatorActivity::Stopped).collect()
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
