//! What a replicator is made of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::quota::{PeerQuota, Quotas};
use super::retry::{ONE_SHOT_ATTEMPTS_MAX, RETRY_WAIT_MAX};
use crate::blip::BlipConfig;
use crate::endpoint::MessageEndpoint;
use crate::replica::store::{ConflictResolver, ReplicaStore};
use crate::replicator::config::{ActiveConfig, CollectionConfig, ReplicatorType};
use crate::replicator::driver::{ConnectionLimits, Traffic};
use crate::replicator::extension::RevsFormat;
use crate::replicator::resolver::DefaultResolver;

/// Settings of a [`Replicator`](super::Replicator). Make one with [`new`](Self::new) and change what differs.
/// ```
/// use std::sync::Arc;
///
/// use gattway::replicator::ReplicatorType;
/// use gattway::{Database, DatabaseConfig, MessageEndpoint, ProtocolType, ReplicatorConfiguration};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use gattway::endpoint::{MessageEndpointConnection, MessagingError, ReplicatorConnection};
/// # use gattway::Message;
/// # struct Cable;
/// # #[async_trait::async_trait]
/// # impl MessageEndpointConnection for Cable {
/// #     async fn open(&self, _: ReplicatorConnection) -> Result<(), MessagingError> {
/// #         Err(MessagingError::recoverable("not plugged in"))
/// #     }
/// #     async fn send(&self, _: Message) -> Result<(), MessagingError> { Ok(()) }
/// #     async fn close(&self, _: Option<MessagingError>) -> Result<(), MessagingError> { Ok(()) }
/// # }
/// # let cable = |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> { Arc::new(Cable) };
/// # let directory = tempfile::tempdir()?;
/// // `cable` makes the connections of a transport, see `MessageEndpoint`.
/// let gateway = MessageEndpoint::new("gateway", Arc::new(()), ProtocolType::ByteStream, Arc::new(cable));
/// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// let mut config =
///     ReplicatorConfiguration::new(gateway, Arc::new(db)).with_collections(["plant.readings"]);
/// (config.replicator_type, config.continuous) = (ReplicatorType::Push, true);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ReplicatorConfiguration {
    /// The remote peer.
    pub endpoint: MessageEndpoint,
    /// The local database.
    pub store: Arc<dyn ReplicaStore>,
    /// What is replicated. The default collection alone, unless changed.
    pub collections: Vec<CollectionConfig>,
    /// In which direction. Both, unless changed.
    pub replicator_type: ReplicatorType,
    /// Whether to stay connected and go on with every change. Off, unless changed.
    pub continuous: bool,
    /// Whether to try again, in each run, what stands on the lists of what could not be synced. Off, unless changed.
    pub retry_unsynced: bool,
    /// Decides conflicts. Unless changed: a deletion wins, otherwise the later clock.
    pub resolver: Arc<dyn ConflictResolver>,
    /// Whether a document that a Sync Gateway says is no longer for us (access was lost, or it is in none of our channels) is removed
    /// here, as [`Collection::purge`](crate::database::Collection::purge) does, but so that it comes back with the access. One that was changed here and not pushed stays. On,
    /// unless changed.
    pub auto_purge: bool,
    /// Attempts until it gives up, the first included, counted again after each success. Unless changed:
    /// [`ONE_SHOT_ATTEMPTS_MAX`] for a one-shot replicator, no limit for a continuous one.
    pub max_attempts: Option<u32>,
    /// The longest wait between two attempts.
    pub max_attempt_wait: Duration,
    /// What the peer may have stored here in a time, if it proves who it is; `None`: anything. As a default `None`: whoever
    /// starts a replicator asks for what the peer has. What is given here for peers that are called without anybody looking on
    /// keeps one that turned hostile from filling the disk.
    pub peer_quota: Option<PeerQuota>,
    /// What peers have used, if somebody else counts with it as well: goes before `peer_quota`.
    pub(crate) quotas: Option<Arc<Quotas>>,
    /// Counts what all connections carry.
    pub(crate) traffic: Traffic,
    /// See [`ActiveConfig::confirmed_as`].
    pub(crate) confirmed_as: Option<String>,
    /// Time and size limits of each connection, heartbeat included.
    pub limits: ConnectionLimits,
    /// Limits and compression of messages.
    #[doc(hidden)]
    pub blip: BlipConfig,
    /// Whether to offer the extension that saves bytes between two peers of this library.
    pub extension: bool,
    /// Whether a changed document may travel as what has changed of it, to and from peers that know deltas. On, unless changed.
    pub deltas: bool,
    /// The newest form of its messages, for measuring an older one.
    pub(crate) revs_format: RevsFormat,
}

impl ReplicatorConfiguration {
    /// Push and pull of the default collection, once.
    pub fn new(endpoint: MessageEndpoint, store: Arc<dyn ReplicaStore>) -> ReplicatorConfiguration {
        let defaults = ActiveConfig::default();
        ReplicatorConfiguration {
            endpoint,
            store,
            collections: defaults.collections,
            replicator_type: ReplicatorType::PushAndPull,
            continuous: false,
            retry_unsynced: false,
            resolver: Arc::new(DefaultResolver),
            auto_purge: defaults.auto_purge,
            max_attempts: None,
            max_attempt_wait: RETRY_WAIT_MAX,
            peer_quota: None,
            quotas: None,
            traffic: Traffic::default(),
            confirmed_as: None,
            limits: ConnectionLimits::default(),
            blip: defaults.blip,
            extension: defaults.extension,
            deltas: defaults.deltas,
            revs_format: defaults.revs_format,
        }
    }

    /// Notes under this name how far the peer has confirmed what is here.
    #[cfg(feature = "simulation")]
    #[doc(hidden)]
    pub fn note_confirmed_as(&mut self, name: &str) {
        self.confirmed_as = Some(name.to_owned());
    }

    /// Replaces the list of collections, by full names (`scope.name`, or `_default`).
    pub fn with_collections<T: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = T>,
    ) -> ReplicatorConfiguration {
        self.collections = names.into_iter().map(CollectionConfig::new).collect();
        self
    }

    /// Goes on without collections that the peer lacks, and in the directions that are allowed: see
    /// [`CollectionConfig::optional`].
    pub(crate) fn with_optional_collections(mut self) -> ReplicatorConfiguration {
        self.collections.iter_mut().for_each(|collection| collection.optional = true);
        self
    }

    /// What counts what the peer uses.
    pub(super) fn quotas(&self) -> Option<Arc<Quotas>> {
        let names = self.collections.iter().map(|collection| collection.name.as_str());
        let own = || self.peer_quota.map(|quota| Quotas::new(quota, &self.store, names));
        self.quotas.clone().or_else(own)
    }

    /// Attempts until it gives up.
    pub(super) fn attempts_max(&self) -> Option<u32> {
        self.max_attempts.or((!self.continuous).then_some(ONE_SHOT_ATTEMPTS_MAX))
    }

    /// Settings of the session of one connection.
    pub(super) fn session(&self, reset: bool, report_documents: bool, correlation: &str) -> ActiveConfig {
        ActiveConfig {
            collections: self.collections.clone(),
            direction: self.replicator_type,
            continuous: self.continuous,
            reset,
            retry_unsynced: self.retry_unsynced,
            peer_uid: self.endpoint.uid().to_owned(),
            confirmed_as: self.confirmed_as.clone(),
            blip: self.blip.clone(),
            extension: self.extension,
            deltas: self.deltas,
            revs_format: self.revs_format,
            resolver: Arc::clone(&self.resolver),
            auto_purge: self.auto_purge,
            correlation: correlation.to_owned(),
            report_documents,
            mark_seed: fastrand::u64(..),
            ..ActiveConfig::default()
        }
    }
}

impl fmt::Debug for ReplicatorConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatorConfiguration")
            .field("endpoint", &self.endpoint)
            .field("collections", &self.collections)
            .field("replicator_type", &self.replicator_type)
            .field("continuous", &self.continuous)
            .finish_non_exhaustive()
    }
}
