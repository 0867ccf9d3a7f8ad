//! The active side of a node: a sync with one peer, or with all neighbours in turn.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::NodeShared;
use super::access::{Security, check_grant};
use super::connect::{Connect, Dial};
use super::error::SyncError;
use super::event::{EventStream, Hub, Observer};
use super::sync_event::SyncEvent;
use crate::endpoint::{MessageEndpoint, ProtocolType};
use crate::replicator::{
    Replicator, ReplicatorActivity, ReplicatorConfiguration, ReplicatorStatus, ReplicatorType,
};
use crate::task;

/// Attempts of a one-shot sync to connect: about six seconds, so that a wrong address is soon told.
pub(super) const ONE_SHOT_ATTEMPTS: u32 = 3;

/// With whom a node syncs.
pub struct SyncTarget(pub(super) TargetKind);

pub(super) enum TargetKind {
    One(Arc<dyn Connect>),
    #[cfg(feature = "bluetooth")]
    Neighbours(super::ble::BlePeer),
}

impl<T: Connect> From<T> for SyncTarget {
    fn from(way: T) -> SyncTarget {
        SyncTarget(TargetKind::One(Arc::new(way)))
    }
}

/// Settings of a [`SyncHandle`], from [`Node::sync`](super::Node::sync). Push and pull of the node's collections, once, unless
/// changed.
#[must_use = "nothing is synced before `start`"]
pub struct SyncBuilder {
    target: SyncTarget,
    settings: SyncSettings,
    observers: Vec<Observer<SyncEvent>>,
}

#[derive(Clone)]
pub(super) struct SyncSettings {
    pub(super) node: Arc<NodeShared>,
    pub(super) direction: ReplicatorType,
    pub(super) continuous: bool,
    /// Of the node's, if not all of them.
    collections: Option<Vec<String>>,
    /// Whether nobody proves anything, whatever holds for the node.
    plain: bool,
    /// Whether a collection that the peer lacks is left out.
    optional: bool,
    pub(super) reset: bool,
    pub(super) retry_unsynced: bool,
    peer: Option<String>,
    attempts: Option<u32>,
    retry_wait: Option<Duration>,
    within_quota: Option<bool>,
    report_documents: bool,
}

impl SyncBuilder {
    pub(super) fn new(node: Arc<NodeShared>, target: SyncTarget) -> SyncBuilder {
        let settings = SyncSettings {
            collections: None,
            plain: false,
            optional: node.all_collections,
            node,
            direction: ReplicatorType::PushAndPull,
            continuous: false,
            reset: false,
            retry_unsynced: false,
            peer: None,
            attempts: None,
            retry_wait: None,
            within_quota: None,
            report_documents: false,
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

    /// Whether the sync goes on without a collection that the peer lacks or does not let us reach, and in the directions that
    /// are allowed; that is told in [`ReplicatorStatus::unsynced`]. As a default, if the node offers all collections.
    pub fn optional_collections(mut self, optional: bool) -> SyncBuilder {
        self.settings.optional = optional;
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

    /// Forgets what was synced before and compares everything again.
    pub fn reset(mut self, reset: bool) -> SyncBuilder {
        self.settings.reset = reset;
        self
    }

    /// Tries again what earlier syncs could not.
    pub fn retry_unsynced(mut self, retry: bool) -> SyncBuilder {
        self.settings.retry_unsynced = retry;
        self
    }

    /// A name of the peer under which is remembered what was synced; else the ID that it proves, or its address.
    pub fn peer_name(mut self, name: impl Into<String>) -> SyncBuilder {
        self.settings.peer = Some(name.into());
        self
    }

    /// Attempts to connect until it gives up, counted again after each success. As a default 3, and without a limit if it is
    /// continuous.
    pub fn attempts(mut self, attempts: u32) -> SyncBuilder {
        self.settings.attempts = Some(attempts);
        self
    }

    /// The longest wait between two attempts, which doubles from two seconds; as a default 300 s.
    pub fn retry_wait(mut self, wait: Duration) -> SyncBuilder {
        self.settings.retry_wait = Some(wait);
        self
    }

    /// Whether what it gets counts for the peer's quota, and ends where that is used up
    /// ([`NodeBuilder::peer_quota`](super::NodeBuilder::peer_quota)). As a default it does if it is continuous; a sync that is done
    /// once was asked for all there is.
    pub fn within_quota(mut self, within: bool) -> SyncBuilder {
        self.settings.within_quota = Some(within);
        self
    }

    /// Whether each document gives an event, and not those alone that failed. It costs something for each.
    pub fn report_documents(mut self, report: bool) -> SyncBuilder {
        self.settings.report_documents = report;
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
        let shared = Arc::new(SyncShared {
            hub: Hub::new(observers),
            current: Mutex::default(),
            stop: watch::Sender::new(false),
            end: watch::Sender::new(None),
        });
        let events = shared.hub.stream();
        settings.node.add_sync(&shared);
        match target.0 {
            TargetKind::One(way) => {
                settings.node.prefer(settings.peer.as_deref().or(way.name()));
                let visit = Visit { continuous: settings.continuous, attempts: None, uid: None };
                let replicator = settings.start(way, visit, &shared);
                task::spawn(follow_one(Arc::clone(&shared), replicator));
            }
            #[cfg(feature = "bluetooth")]
            TargetKind::Neighbours(ble) => {
                settings.node.prefer(settings.peer.as_deref());
                task::spawn(super::neighbours::run(ble, settings, Arc::clone(&shared)));
            }
        }
        SyncHandle { shared, events }
    }
}

/// How one peer is synced with, where that differs from the settings.
pub(super) struct Visit {
    pub(super) continuous: bool,
    pub(super) attempts: Option<u32>,
    /// A name that outlives the address, for a peer that proves nothing.
    pub(super) uid: Option<String>,
}

impl SyncSettings {
    /// Starts to sync with a peer.
    pub(super) fn start(
        &self,
        way: Arc<dyn Connect>,
        visit: Visit,
        shared: &Arc<SyncShared>,
    ) -> Arc<Replicator> {
        let address: Arc<str> = way.address().into();
        let node = &self.node;
        let peer = self.peer.clone().or(visit.uid.filter(|_| !self.security().is_secure()));
        let uid = peer.clone().unwrap_or_else(|| address.to_string());
        let security = self.meet(&address, visit.continuous, peer.is_none(), shared);
        let open_limit = way.open_limit();
        let dial = Dial { security, way, local: node.local.clone() };
        let endpoint = MessageEndpoint::new(
            uid,
            Arc::new(Arc::clone(&address)),
            ProtocolType::ByteStream,
            Arc::new(dial),
        );
        let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(node.db.clone()))
            .with_collections(self.collections().to_vec());
        if self.optional {
            config = config.with_optional_collections();
        }
        config.replicator_type = self.direction;
        config.retry_unsynced = self.retry_unsynced;
        config.continuous = visit.continuous;
        if self.within_quota.unwrap_or(self.continuous) {
            config.quotas.clone_from(&node.quotas);
        }
        config.max_attempts =
            self.attempts.or(visit.attempts).or((!visit.continuous).then_some(ONE_SHOT_ATTEMPTS));
        config.limits.open = open_limit.unwrap_or(config.limits.open);
        config.max_attempt_wait = self.retry_wait.unwrap_or(config.max_attempt_wait);
        let replicator = Arc::new(Replicator::new(config));
        self.listen(&replicator, &address, shared);
        if self.reset {
            replicator.start_with_reset();
        } else {
            replicator.start();
        }
        *shared.current() = Some(Arc::clone(&replicator));
        replicator
    }

    fn security(&self) -> &Security {
        if self.plain { &Security::Plain } else { &self.node.security }
    }

    fn collections(&self) -> &[String] {
        self.collections.as_deref().unwrap_or(&self.node.collections)
    }

    /// The settings for one peer: it is told who it is, and asked for no more than it may do.
    fn meet(
        &self,
        address: &Arc<str>,
        continuous: bool,
        names_peer: bool,
        shared: &Arc<SyncShared>,
    ) -> Security {
        let Security::Secure(config) = self.security() else { return Security::Plain };
        let mut config = config.clone();
        let (collections, some) = (self.collections().to_vec(), self.optional);
        let wanted = (self.direction.pushes(), self.direction.pulls());
        let (address, shared) = (Arc::clone(address), Arc::downgrade(shared));
        config.check = Some(Arc::new(move |peer| {
            if let Some(shared) = shared.upgrade() {
                let (address, peer) = (Arc::clone(&address), Box::new(peer.clone()));
                shared.hub.emit(SyncEvent::Authenticated { address, peer });
            }
            check_grant(&peer.peer, &peer.grant, &collections, wanted, some)
        }));
        config.trust_refusals = !continuous;
        config.names_peer &= names_peer;
        Security::Secure(config)
    }

    fn listen(&self, replicator: &Replicator, address: &Arc<str>, shared: &Arc<SyncShared>) {
        let (weak, at) = (Arc::downgrade(shared), Arc::clone(address));
        replicator.add_change_listener(move |status| {
            // Whoever waits for the end tells of it.
            if status.activity != ReplicatorActivity::Stopped
                && let Some(shared) = weak.upgrade()
            {
                let (address, status) = (Arc::clone(&at), status.clone());
                shared.hub.emit(SyncEvent::Status { address, status });
            }
        });
        let (weak, at) = (Arc::downgrade(shared), Arc::clone(address));
        replicator.add_conflict_listener(move |conflict| {
            if let Some(shared) = weak.upgrade() {
                let (address, conflict) = (Arc::clone(&at), conflict.clone());
                shared.hub.emit(SyncEvent::Conflict { address, conflict });
            }
        });
        let (weak, at, all) = (Arc::downgrade(shared), Arc::clone(address), self.report_documents);
        replicator.add_document_listener(move |document| {
            if (all || document.error.is_some())
                && let Some(shared) = weak.upgrade()
            {
                let (address, document) = (Arc::clone(&at), document.clone());
                shared.hub.emit(SyncEvent::Document { address, document });
            }
        });
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

/// What the handle of a sync and its task share.
pub(super) struct SyncShared {
    pub(super) hub: Hub<SyncEvent>,
    /// The replication that runs now, or the last.
    current: Mutex<Option<Arc<Replicator>>>,
    stop: watch::Sender<bool>,
    end: watch::Sender<Option<Result<(), SyncError>>>,
}

impl SyncShared {
    /// Nothing under this lock can be left half done.
    fn current(&self) -> MutexGuard<'_, Option<Arc<Replicator>>> {
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

    /// The state of the replication that runs now, or of the last one.
    pub fn status(&self) -> ReplicatorStatus {
        let current = self.shared.current().clone();
        current.map_or_else(|| ReplicatorStatus::new(ReplicatorActivity::Stopped), |current| current.status())
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
