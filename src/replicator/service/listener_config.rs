//! Settings of the passive side.

use std::fmt;
use std::sync::Arc;

use super::quota::{PeerQuota, Quotas};
use crate::blip::{BlipConfig, Budget};
use crate::endpoint::ProtocolType;
use crate::replica::store::ReplicaStore;
use crate::replicator::config::{PassiveConfig, ReplicationFilter};
use crate::replicator::driver::{ConnectionLimits, Traffic};

/// Connections that a listener takes at one time, unless configured otherwise. Each may hold a few MiB while it is busy.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Connections that one peer has at one time, if the transport knows who it is: a device that comes over two ways, and
/// comes again before its old connection was found dead. Of more the oldest ends.
pub(crate) const PEER_CONNECTIONS_MAX: usize = 4;

/// Bytes that the unfinished messages of one peer may hold: the largest document and what goes beside it. A peer that
/// pushes has no more than 2 MiB on their way beside one document.
pub const REASSEMBLY_BYTES_MAX: usize = 24 << 20;

/// Bytes that the unfinished messages of all peers may hold together, beyond 256 KiB for each: the largest document of two at
/// once. With what else attackers can make a process hold it stays below 64 MiB.
pub const REASSEMBLY_BYTES_SHARED_MAX: usize = 2 * REASSEMBLY_BYTES_MAX;

/// What a [`MessageEndpointListener`](super::MessageEndpointListener) is made of. Make one with [`new`](Self::new) and change what differs.
/// ```
/// use std::sync::Arc;
///
/// use gattway::{Database, DatabaseConfig, MessageEndpointListenerConfiguration, ProtocolType};
///
/// # let directory = tempfile::tempdir()?;
/// let db = Database::open(directory.path().join("gateway.db"), DatabaseConfig::default())?;
/// let mut config = MessageEndpointListenerConfiguration::new(Arc::new(db), ProtocolType::ByteStream)
///     .with_collections(["plant.readings"]);
/// (config.accept_pull, config.connections_max) = (false, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct MessageEndpointListenerConfiguration {
    /// The local database.
    pub store: Arc<dyn ReplicaStore>,
    /// Full names of the collections that peers may reach. The default collection alone, unless changed.
    pub collections: Vec<String>,
    /// What the transport keeps of the bytes.
    pub protocol_type: ProtocolType,
    /// Whether peers may push to us.
    pub accept_push: bool,
    /// Whether peers may pull from us.
    pub accept_pull: bool,
    /// Revisions it refuses are not stored.
    pub incoming_filter: Option<ReplicationFilter>,
    /// Revisions it refuses are not offered.
    pub outgoing_filter: Option<ReplicationFilter>,
    /// Connections at one time; 64, unless changed.
    pub connections_max: usize,
    /// What each peer may have stored in a time, if the transport knows who it is; `None`: anything.
    pub peer_quota: Option<PeerQuota>,
    /// What peers have used, if somebody else counts with it as well: goes before `peer_quota`.
    pub(crate) quotas: Option<Arc<Quotas>>,
    /// Counts what all connections carry.
    pub(crate) traffic: Traffic,
    /// Time and size limits of each connection.
    pub limits: ConnectionLimits,
    /// Limits and compression of messages.
    #[doc(hidden)]
    pub blip: BlipConfig,
    /// Whether to accept the extension that saves bytes between two peers of this library.
    pub extension: bool,
    /// Whether a changed document may travel as what has changed of it, to and from peers that know deltas. On, unless changed.
    pub deltas: bool,
    /// Whether listeners of documents hear of those that went over, too. Off, unless changed: it costs something for each.
    pub report_documents: bool,
}

impl MessageEndpointListenerConfiguration {
    /// Offers the default collection for push and pull.
    pub fn new(
        store: Arc<dyn ReplicaStore>,
        protocol_type: ProtocolType,
    ) -> MessageEndpointListenerConfiguration {
        let defaults = PassiveConfig::default();
        MessageEndpointListenerConfiguration {
            store,
            collections: defaults.collections,
            protocol_type,
            accept_push: defaults.accept_push,
            accept_pull: defaults.accept_pull,
            incoming_filter: None,
            outgoing_filter: None,
            connections_max: CONNECTIONS_MAX,
            peer_quota: Some(PeerQuota::default()),
            quotas: None,
            traffic: Traffic::default(),
            limits: ConnectionLimits::default(),
            blip: BlipConfig {
                open_bytes_max: REASSEMBLY_BYTES_MAX,
                open_bytes_shared: Some(Budget::new(REASSEMBLY_BYTES_SHARED_MAX)),
                ..defaults.blip
            },
            extension: defaults.extension,
            deltas: defaults.deltas,
            report_documents: false,
        }
    }

    /// Replaces the list of collections, by full names (`scope.name`, or `_default`).
    pub fn with_collections<T: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = T>,
    ) -> MessageEndpointListenerConfiguration {
        self.collections = names.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn session(&self) -> PassiveConfig {
        PassiveConfig {
            collections: self.collections.clone(),
            accept_push: self.accept_push,
            accept_pull: self.accept_pull,
            incoming_filter: self.incoming_filter.clone(),
            outgoing_filter: self.outgoing_filter.clone(),
            blip: self.blip.clone(),
            extension: self.extension,
            deltas: self.deltas,
            report_documents: self.report_documents,
            ..PassiveConfig::default()
        }
    }
}

impl fmt::Debug for MessageEndpointListenerConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEndpointListenerConfiguration")
            .field("collections", &self.collections)
            .field("protocol_type", &self.protocol_type)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}
