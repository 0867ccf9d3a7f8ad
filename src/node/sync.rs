//! The active side of a node: a sync with one peer, or with all neighbours.

use std::fmt;
use std::sync::Arc;

use super::error::SyncError;
use super::handle::Node;
use super::hub::{EventStream, Observer};
use super::shared::NodeShared;
use super::sync_event::SyncEvent;
use super::sync_shared::SyncShared;
use super::target::{SyncTarget, TargetKind};
use super::visit::{SyncOptions, SyncSettings, Visit};
use crate::replicator::{Replicator, ReplicatorActivity, ReplicatorStatus, ReplicatorType};
use crate::task;

/// Settings of a [`SyncHandle`], from [`Node::sync`]. Push and pull of the node's collections, once, unless
/// changed.
#[must_use = "nothing is synced before `start`"]
pub struct SyncBuilder {
    target: SyncTarget,
    settings: SyncSettings,
    observers: Vec<Observer<SyncEvent>>,
}

/// Starts syncs of a node, also where the node itself is not at hand.
#[derive(Clone)]
pub(crate) struct Syncs(Arc<NodeShared>);

impl Syncs {
    /// As [`Node::sync`].
    pub(crate) fn sync(&self, target: impl Into<SyncTarget>) -> SyncBuilder {
        SyncBuilder::new(Arc::clone(&self.0), target.into())
    }
}

impl Node {
    /// Starts syncs where the node itself is not at hand.
    pub(crate) fn syncs(&self) -> Syncs {
        Syncs(Arc::clone(&self.shared))
    }

    /// A sync with a peer, to be started; with `Ble::any` with all neighbours, several at a time.
    pub fn sync(&self, target: impl Into<SyncTarget>) -> SyncBuilder {
        SyncBuilder::new(Arc::clone(&self.shared), target.into())
    }
}

impl SyncBuilder {
    fn new(node: Arc<NodeShared>, target: SyncTarget) -> SyncBuilder {
        let settings = SyncSettings {
            collections: None,
            plain: false,
            node,
            direction: ReplicatorType::PushAndPull,
            continuous: false,
            options: SyncOptions::default(),
        };
        SyncBuilder { target, settings, observers: Vec::new() }
    }

    /// In which direction documents go.
    pub fn direction(mut self, direction: ReplicatorType) -> SyncBuilder {
        self.settings.direction = direction;
        self
    }

    /// Stays connected and passes on every change, and connects again after a failure, until it is stopped.
    pub fn continuous(mut self, continuous: bool) -> SyncBuilder {
        self.settings.continuous = continuous;
        self
    }

    /// Everything else that can be chosen.
    pub fn options(mut self, options: SyncOptions) -> SyncBuilder {
        self.settings.options = options;
        self
    }

    /// Some of the node's collections, by their full names.
    pub(crate) fn collections(mut self, names: Vec<String>) -> SyncBuilder {
        self.settings.collections = Some(names);
        self
    }

    /// No secure session, whatever holds for the node: for a server that knows none.
    pub(crate) fn plain(mut self, plain: bool) -> SyncBuilder {
        self.settings.plain = plain;
        self
    }

    /// Calls back with each event, from the task where it happens; the callback must not block. Unlike the stream it misses
    /// none.
    pub fn observe(mut self, observer: impl Fn(&SyncEvent) + Send + Sync + 'static) -> SyncBuilder {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Starts.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start(self) -> SyncHandle {
        let SyncBuilder { target, settings, observers } = self;
        let shared = SyncShared::new(observers);
        let events = shared.hub.stream();
        settings.node.add_sync(&shared);
        match target.0 {
            TargetKind::One(way) => {
                settings.node.prefer(settings.options.peer_name.as_deref().or(way.name()));
                let visit = Visit { continuous: settings.continuous, attempts: None, uid: None, name: None };
                let replicator = settings.start(way, visit, &shared);
                task::spawn(follow_one(Arc::clone(&shared), replicator));
            }
            #[cfg(feature = "bluetooth")]
            TargetKind::Neighbours(ways) => {
                settings.node.prefer(settings.options.peer_name.as_deref());
                task::spawn(super::neighbours::run(ways, settings, Arc::clone(&shared)));
            }
        }
        SyncHandle { shared, events }
    }
}

/// Waits for the end of a sync with one peer.
async fn follow_one(shared: Arc<SyncShared>, replicator: Arc<Replicator>) {
    let status = tokio::select! {
        status = replicator.wait_until_stopped() => status,
        () = shared.stopped() => {
            replicator.stop();
            replicator.wait_until_stopped().await
        }
    };
    let address = replicator.configuration().endpoint.target_as::<Arc<str>>().cloned().unwrap_or_default();
    let result = match &status.error {
        Some(error) => Err(SyncError::Replication { address: Arc::clone(&address), source: error.clone() }),
        None => Ok(()),
    };
    shared.hub.emit(SyncEvent::Status { address, status });
    shared.end(result);
}

/// A sync that was started. Dropping it equals [`stop`](Self::stop).
pub struct SyncHandle {
    shared: Arc<SyncShared>,
    events: EventStream<SyncEvent>,
}

impl SyncHandle {
    /// All that happens from its start on; ends with the sync.
    pub fn events(&mut self) -> &mut EventStream<SyncEvent> {
        &mut self.events
    }

    /// The state of the replication that runs now, of the one that began last if there are several, or of the last one.
    pub fn status(&self) -> ReplicatorStatus {
        self.shared.status().unwrap_or_else(|| ReplicatorStatus::new(ReplicatorActivity::Stopped))
    }

    /// The peers that are synced with now, each with its state: neighbours by the name of [`SyncEvent::Visiting`], others by their
    /// address.
    #[cfg(feature = "cli")]
    pub(crate) fn peers(&self) -> Vec<(Arc<str>, ReplicatorStatus)> {
        self.shared.peers()
    }

    /// Asks it to stop; what is in flight may finish. Returns at once; see [`finished`](Self::finished).
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits until it has ended, by itself or because it was told to. May be dropped and called again.
    ///
    /// # Errors
    /// It was not all synced: the peer was not reached, refused, or failed.
    pub async fn finished(&self) -> Result<(), SyncError> {
        self.shared.ended().await
    }
}

impl Drop for SyncHandle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl fmt::Debug for SyncHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}
