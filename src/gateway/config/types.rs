//! What a configuration says, once it is read and right.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "mqtt")]
use crate::database::DocumentPath;
use crate::database::Durability;
use crate::gateway::address::PlaceAddress;
use crate::gateway::secret::{Secret, Stamp};
#[cfg(feature = "mqtt")]
use crate::gateway::topics::{BrokerAddress, Pattern, TopicFilter};
use crate::gateway::web::{WebClient, WebServer};
use crate::node::advertising::AdvertPolicy;
use crate::node::retention::Rule;
use crate::node::retention::files::FilesRule;
use crate::replicator::{PeerQuota, ReplicatorType};

/// Everything that a gateway is told to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// The socket by which `gattway status` asks.
    pub(crate) socket: PathBuf,
    /// Where databases are whose path is not absolute, and what is kept of the process.
    pub(crate) state: PathBuf,
    /// How often the medium can be written over, if somebody has said it.
    pub(crate) medium_cycles: Option<u64>,
    /// HTTP on TCP, if it is wanted.
    pub(crate) http: Option<HttpConfig>,
    /// By name; at least one.
    pub(crate) databases: BTreeMap<String, DatabaseConfig>,
}

/// HTTP on TCP.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpConfig {
    /// `HOST:PORT`.
    pub(crate) listen: String,
    pub(crate) token: Secret,
    /// Names of this machine, beside its own.
    pub(crate) hosts: Vec<String>,
    /// The certificate and its key, if it is encrypted.
    pub(crate) web: WebServer,
    /// Of the files that are named.
    pub(crate) stamps: Vec<Stamp>,
}

/// A database with all that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DatabaseConfig {
    pub(crate) store: StoreConfig,
    pub(crate) node: NodeConfig,
    pub(crate) listeners: BTreeMap<String, ListenerConfig>,
    pub(crate) bluetooth: BTreeMap<String, BluetoothConfig>,
    pub(crate) upstreams: BTreeMap<String, UpstreamConfig>,
    pub(crate) retention: BTreeMap<String, RetentionConfig>,
    #[cfg(feature = "mqtt")]
    pub(crate) mqtt: BTreeMap<String, MqttConfig>,
    /// How long tombstones are kept where no section says it.
    pub(crate) tombstones: Duration,
}

/// What holds for as long as a database is open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoreConfig {
    pub(crate) path: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) commit_delay: Duration,
    pub(crate) keep_free: u64,
}

/// What holds for as long as its node runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeConfig {
    /// None: all.
    pub(crate) collections: Vec<String>,
    pub(crate) create_collections: bool,
    pub(crate) read_only: bool,
    pub(crate) trust_all: bool,
    /// The code of the group to join, if the database is in none.
    pub(crate) group: Option<Secret>,
    pub(crate) connections: usize,
    pub(crate) quota: Option<PeerQuota>,
}

/// A place where peers connect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerConfig {
    pub(crate) address: PlaceAddress,
    pub(crate) plain: bool,
    pub(crate) web: WebServer,
    /// Of the files that are named: one that was changed makes another listener of it.
    pub(crate) stamps: Vec<Stamp>,
}

/// How an adapter is used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BluetoothConfig {
    /// Empty: the first.
    pub(crate) adapter: String,
    pub(crate) is_central: bool,
    pub(crate) is_peripheral: bool,
    pub(crate) slots: u16,
    /// As central.
    pub(crate) direction: ReplicatorType,
    /// Listens by turns while nothing is new.
    pub(crate) spares_wifi: bool,
    pub(crate) advertise_name: bool,
    pub(crate) link_security: LinkLevel,
    pub(crate) bonded_only: bool,
    /// When it advertises.
    pub(crate) adverts: AdvertPolicy,
}

/// What the radio connection must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkLevel {
    None,
    Encrypt,
    Authenticate,
}

/// A peer that is connected to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UpstreamConfig {
    pub(crate) address: PlaceAddress,
    pub(crate) plain: bool,
    /// None: all of the database's.
    pub(crate) collections: Vec<String>,
    pub(crate) direction: ReplicatorType,
    /// `None`: stays connected.
    pub(crate) every: Option<Duration>,
    pub(crate) retry_wait: Duration,
    /// How long the peer may be silent, if not as long as usual.
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) peer: Option<String>,
    pub(crate) web: WebClient,
    /// Of the files that are named.
    pub(crate) stamps: Vec<Stamp>,
}

/// What is kept of collections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetentionConfig {
    /// None: all of the database's.
    pub(crate) collections: Vec<String>,
    pub(crate) rule: Rule,
    pub(crate) files: FilesRule,
    /// The upstream without whose word nothing is removed.
    pub(crate) only_confirmed: Option<String>,
    pub(crate) tombstones: Option<Duration>,
}

/// A broker, what is published there, and what is taken from there.
#[cfg(feature = "mqtt")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MqttConfig {
    pub(crate) broker: BrokerAddress,
    pub(crate) web: WebClient,
    pub(crate) client_id: Option<String>,
    /// Whether anything is published.
    pub(crate) publishes: bool,
    /// None: all of the database's.
    pub(crate) collections: Vec<String>,
    pub(crate) topic: Pattern,
    pub(crate) time: Option<DocumentPath>,
    /// None: the body.
    pub(crate) fields: Vec<DocumentPath>,
    pub(crate) retain: bool,
    /// In bytes.
    pub(crate) largest: u64,
    /// Empty: none.
    pub(crate) availability: String,
    pub(crate) discovery: String,
    pub(crate) topics: BTreeMap<String, TopicConfig>,
    pub(crate) sensors: BTreeMap<String, SensorConfig>,
    /// Of the files that are named.
    pub(crate) stamps: Vec<Stamp>,
}

/// Messages that become documents.
#[cfg(feature = "mqtt")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopicConfig {
    pub(crate) filter: TopicFilter,
    pub(crate) collection: String,
    pub(crate) id: Pattern,
}

/// A value that Home Assistant shows.
#[cfg(feature = "mqtt")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SensorConfig {
    pub(crate) field: DocumentPath,
    pub(crate) device: Pattern,
    pub(crate) name: Option<String>,
    pub(crate) unit: Option<String>,
    pub(crate) device_class: Option<String>,
    pub(crate) state_class: Option<String>,
}
