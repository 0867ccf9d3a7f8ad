//! What a node and its syncs share.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::access::{Security, TrustRefresher};
use super::event::NodeEvent;
use super::hub::Hub;
use super::listen::Local;
use super::sync_shared::SyncShared;
use crate::database::Database;
use crate::replicator::{Quotas, Traffic};

/// What a node and its syncs share.
pub(super) struct NodeShared {
    pub(super) db: Database,
    pub(super) collections: Vec<String>,
    /// Whether nobody has chosen collections.
    pub(super) all_collections: bool,
    pub(super) security: Security,
    pub(super) trust_refresher: Mutex<TrustRefresher>,
    pub(super) local: Local,
    pub(super) events: Arc<Hub<NodeEvent>>,
    pub(super) quotas: Option<Arc<Quotas>>,
    pub(super) traffic: Traffic,
    pub(super) syncs: Mutex<Vec<Weak<SyncShared>>>,
}

impl NodeShared {
    /// The peer that a person named.
    pub(super) fn prefer(&self, name: Option<&str>) {
        if let Some(name) = name {
            self.trust_refresher.lock().unwrap_or_else(PoisonError::into_inner).prefer(name);
        }
    }

    pub(super) fn add_sync(&self, sync: &Arc<SyncShared>) {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.retain(|sync| sync.strong_count() > 0);
        syncs.push(Arc::downgrade(sync));
    }

    pub(super) fn syncs(&self) -> Vec<Arc<SyncShared>> {
        let syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.iter().filter_map(Weak::upgrade).collect()
    }
}
