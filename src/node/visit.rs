//! One replication of a sync: how a peer is met, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use super::access::{Security, check_grant};
use super::connect::{Connect, Dial};
use super::shared::NodeShared;
use super::sync_event::SyncEvent;
use super::sync_shared::SyncShared;
use crate::endpoint::{MessageEndpoint, ProtocolType};
use crate::replicator::{Replicator, ReplicatorActivity, ReplicatorConfiguration, ReplicatorType};

/// Attempts of a one-shot sync to connect: about six seconds, so that a wrong address is soon told.
pub(super) const ONE_SHOT_ATTEMPTS: u32 = 3;

/// Settings of a sync.
#[derive(Clone)]
pub(super) struct SyncSettings {
    pub(super) node: Arc<NodeShared>,
    pub(super) direction: ReplicatorType,
    pub(super) continuous: bool,
    /// Of the node's, if not all of them.
    pub(super) collections: Option<Vec<String>>,
    /// Whether nobody proves anything, whatever holds for the node.
    pub(super) plain: bool,
    pub(super) options: SyncOptions,
}

/// Settings of a sync that not many need: make the default and change what differs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SyncOptions {
    /// Whether the sync goes on without a collection that the peer lacks or does not let us reach, and in the directions that
    /// are allowed; that is told in [`ReplicatorStatus::unsynced`](crate::replicator::ReplicatorStatus). As a default, if the
    /// node offers all collections.
    pub optional_collections: Option<bool>,
    /// Whether it forgets what was synced before and compares everything again.
    pub reset: bool,
    /// Whether it tries again what earlier syncs could not.
    pub retry_unsynced: bool,
    /// A name of the peer under which is remembered what was synced; else the ID that it proves, or its address.
    pub peer_name: Option<String>,
    /// Attempts to connect until it gives up, counted again after each success. As a default 3, and without a limit if it is
    /// continuous.
    pub attempts: Option<u32>,
    /// The longest wait between two attempts, which doubles from two seconds; as a default 300 s.
    pub retry_wait: Option<Duration>,
    /// How long the peer may be silent before it is asked whether it is there, and then until it counts as gone; as a default
    /// 300 s and 150 s, the most that the second can be.
    pub(crate) heartbeat: Option<Duration>,
    /// Whether what it gets counts for the peer's quota, and ends where that is used up
    /// ([`NodeOptions::peer_quota`](super::NodeOptions::peer_quota)). As a default it does if it is continuous; a sync that is
    /// done once was asked for all there is.
    pub within_quota: Option<bool>,
    /// The name under which is noted how far the peer has confirmed what is here
    /// ([`delivery`](crate::replicator::delivery)).
    pub(crate) confirmed_as: Option<String>,
    /// Whether each document gives an event, and not those alone that failed. It costs something for each.
    pub report_documents: bool,
}

/// How one peer is synced with, where that differs from the settings.
pub(super) struct Visit {
    pub(super) continuous: bool,
    pub(super) attempts: Option<u32>,
    /// A name that outlives the address, for a peer that proves nothing.
    pub(super) uid: Option<String>,
    /// What people call the peer, if not by its address.
    pub(super) name: Option<String>,
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
        let peer = self.options.peer_name.clone().or(visit.uid.filter(|_| !self.security().is_secure()));
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
        if self.is_optional() {
            config = config.with_optional_collections();
        }
        config.replicator_type = self.direction;
        config.retry_unsynced = self.options.retry_unsynced;
        config.continuous = visit.continuous;
        config.confirmed_as.clone_from(&self.options.confirmed_as);
        if self.options.within_quota.unwrap_or(self.continuous) {
            config.quotas.clone_from(&node.quotas);
        }
        config.traffic = node.traffic.clone();
        config.max_attempts =
            self.options.attempts.or(visit.attempts).or((!visit.continuous).then_some(ONE_SHOT_ATTEMPTS));
        config.limits.open = open_limit.unwrap_or(config.limits.open);
        if let Some(heartbeat) = self.options.heartbeat {
            config.limits.heartbeat = heartbeat;
            config.limits.heartbeat_timeout = config.limits.heartbeat_timeout.min(heartbeat);
        }
        config.max_attempt_wait = self.options.retry_wait.unwrap_or(config.max_attempt_wait);
        let replicator = Arc::new(Replicator::new(config));
        self.listen(&replicator, &address, shared);
        if self.options.reset {
            replicator.start_with_reset();
        } else {
            replicator.start();
        }
        shared.begun(visit.name.map_or(address, Into::into), Arc::clone(&replicator));
        replicator
    }

    fn security(&self) -> &Security {
        if self.plain { &Security::Plain } else { &self.node.security }
    }

    fn collections(&self) -> &[String] {
        self.collections.as_deref().unwrap_or(&self.node.collections)
    }

    /// Whether a collection that the peer lacks is left out.
    fn is_optional(&self) -> bool {
        self.options.optional_collections.unwrap_or(self.node.all_collections)
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
        let (collections, some) = (self.collections().to_vec(), self.is_optional());
        let wanted = (self.direction.pushes(), self.direction.pulls());
        let (address, shared) = (Arc::clone(address), Arc::downgrade(shared));
        config.check = Some(Arc::new(move |peer| {
            if let Some(shared) = shared.upgrade() {
                let (address, name) = (Arc::clone(&address), peer.grant.name.clone());
                shared.hub.emit(SyncEvent::Authenticated { address, peer: peer.peer, name, via: peer.via });
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
        let (weak, at, all) = (Arc::downgrade(shared), Arc::clone(address), self.options.report_documents);
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
