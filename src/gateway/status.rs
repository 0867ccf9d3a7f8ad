//! What a gateway tells of itself: what listens, who was heard, what is synced, and what fails and why.
//!
//! A board is kept for each database (`board`); a [`GatewayStatus`] is read from the boards.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::durations::Durations;
use crate::database::{Collection, Database};
use crate::replicator::{Refusals, ReplicatorActivity};

/// Everything at one moment. The field names are a promise to scripts; times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GatewayStatus {
    pub(crate) version: String,
    pub(crate) process: u32,
    pub(crate) since_s: u64,
    pub(crate) now_s: u64,
    /// Where its configuration is.
    pub(crate) config: String,
    pub(crate) databases: Vec<DatabaseStatus>,
    /// HTTP on TCP, if it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<ListenerStatus>,
    /// `None`: the system does not say what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) medium: Option<MediumStatus>,
}

/// What the gateway writes, and what that means for the medium.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MediumStatus {
    /// Bytes that the process has handed to the medium, as the kernel counts them, in all its lives that were measured.
    pub(crate) written_bytes: u64,
    /// How long that took.
    pub(crate) measured_s: u64,
    /// What that would be in a day; `None` while it is too early to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_a_day: Option<u64>,
    /// The block device of the databases, if all are on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_bytes: Option<u64>,
    /// Days after which so much was written as the device has room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) days_to_fill: Option<u64>,
    /// How often it can be written over, as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cycles: Option<u64>,
    /// Days until then, if nothing else writes, and the device no more than it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) days_to_wear: Option<u64>,
}

/// One database.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DatabaseStatus {
    pub(crate) name: String,
    pub(crate) path: String,
    /// Whether it is open, and served.
    pub(crate) open: bool,
    /// Why it is not, or why it was not the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Times that it was closed by a failure or could not be opened, since the start.
    pub(crate) failures: u64,
    pub(crate) collections: Vec<CollectionStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) free_bytes: Option<u64>,
    /// Whether nothing is stored for want of room.
    pub(crate) full: bool,
    /// Commits since it was opened.
    #[serde(default)]
    pub(crate) commits: u64,
    /// Syncs to the medium since then; commits share them.
    #[serde(default)]
    pub(crate) syncs: u64,
    /// Bytes that the log grew by.
    #[serde(default)]
    pub(crate) log_bytes: u64,
    /// Bytes of all its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) files_bytes: Option<u64>,
    /// Bytes of replication that peers and syncs were sent and have sent, without what sessions and links add, since its node
    /// was started.
    #[serde(default)]
    pub(crate) sent_bytes: u64,
    #[serde(default)]
    pub(crate) received_bytes: u64,
    #[serde(default)]
    pub(crate) refused: RefusedStatus,
    pub(crate) listeners: Vec<ListenerStatus>,
    pub(crate) upstreams: Vec<UpstreamStatus>,
    pub(crate) neighbours: Vec<NeighbourStatus>,
    #[serde(default)]
    pub(crate) adapters: Vec<AdapterStatus>,
    /// The newest, the newest first.
    #[serde(default)]
    pub(crate) conflicts: Vec<ConflictStatus>,
    /// All since the start.
    #[serde(default)]
    pub(crate) conflicts_total: u64,
    /// Documents that were not synced: the newest, the newest first.
    #[serde(default)]
    pub(crate) left_out: Vec<LeftOutStatus>,
    /// All since the start.
    #[serde(default)]
    pub(crate) left_out_total: u64,
    #[serde(default)]
    pub(crate) retention: Vec<RetentionStatus>,
    #[serde(default)]
    pub(crate) mqtt: Vec<MqttStatus>,
    /// Tombstones that were removed for their age, since the start.
    #[serde(default)]
    pub(crate) tombstones_removed: u64,
}

/// What was refused to peers that connected.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RefusedStatus {
    /// Who was not let in, since the start.
    pub(crate) strangers: u64,
    /// What else was refused, by reason, since the node of the database was started.
    #[serde(flatten)]
    pub(crate) peers: Refusals,
}

/// One collection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CollectionStatus {
    pub(crate) name: String,
    /// Documents, without tombstones.
    pub(crate) documents: u64,
    /// The newest sequence of its change feed.
    #[serde(default)]
    pub(crate) update_seq: u64,
}

impl CollectionStatus {
    /// How it stands with a collection.
    pub(crate) fn of(db: &Database, name: String) -> CollectionStatus {
        let collection = db.collection(&name);
        let of = |read: fn(&Collection) -> u64| collection.as_ref().map_or(0, read);
        CollectionStatus { documents: of(Collection::count), update_seq: of(Collection::last_sequence), name }
    }
}

/// Both sides had changed a document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConflictStatus {
    pub(crate) at_s: u64,
    /// With whom.
    pub(crate) peer: String,
    pub(crate) collection: String,
    pub(crate) id: String,
    /// `open` (the peer is to resolve it), `local`, `remote`, `merged` or `deleted`.
    pub(crate) outcome: String,
}

/// A document that was not synced.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LeftOutStatus {
    pub(crate) at_s: u64,
    /// With whom.
    pub(crate) peer: String,
    pub(crate) collection: String,
    pub(crate) id: String,
    /// `sent` or `received`.
    pub(crate) direction: String,
    pub(crate) error: String,
}

/// An adapter, as it is configured, and the radio connections through it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AdapterStatus {
    pub(crate) name: String,
    /// Its name or address; empty: the first.
    pub(crate) adapter: String,
    /// Whether it visits neighbours.
    pub(crate) central: bool,
    /// Whether it is found and connected to.
    pub(crate) peripheral: bool,
    /// Connections that it is trusted with.
    pub(crate) slots: u16,
    /// What it advertises, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advert: Option<AdvertTold>,
    pub(crate) links: Vec<LinkStatus>,
}

/// What an adapter advertises.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AdvertTold {
    /// `fast`, `slow`, or `silent`: not advertised at all.
    pub(crate) pace: String,
    /// Changes that no peer is known to have.
    pub(crate) pending: u64,
    /// Whether the advert says that they are urgent.
    pub(crate) urgent: bool,
    /// What the pace depends on: `interval`, as it was asked for, or `registration`, since BlueZ takes none.
    pub(crate) control: String,
}

/// A radio connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinkStatus {
    /// Address of the other device.
    pub(crate) peer: String,
    /// `gatt` or `l2cap`.
    pub(crate) via: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rssi_dbm: Option<i8>,
    /// Sent and received: `1M`, `2M`, `coded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phy: Option<[String; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interval_ms: Option<f64>,
}

/// A place where peers connect, or programs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ListenerStatus {
    pub(crate) name: String,
    /// With the real port, while it listens.
    pub(crate) address: String,
    pub(crate) listening: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) failures: u64,
}

impl ListenerStatus {
    /// Of one that was configured, and does not listen yet.
    pub(crate) fn new(name: &str, address: &str) -> ListenerStatus {
        ListenerStatus { name: name.into(), address: address.into(), ..ListenerStatus::default() }
    }

    /// How an attempt to listen has ended, or listening itself.
    pub(crate) fn take(&mut self, result: Result<String, String>) {
        self.listening = result.is_ok();
        match result {
            Ok(address) => (self.address, self.error) = (address, None),
            Err(error) => {
                self.failures += 1;
                self.error = Some(error);
            }
        }
    }
}

/// A peer that is connected to, or an adapter that looks for neighbours.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct UpstreamStatus {
    pub(crate) name: String,
    pub(crate) address: String,
    /// `stopped`, `offline`, `connecting`, `idle`, `busy`, `waiting` (for its time) or `paused`.
    pub(crate) activity: String,
    /// When all was synced last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_synced_s: Option<u64>,
    /// How long it took until all was synced, since the start. For metrics alone.
    #[serde(skip)]
    pub(crate) syncs: Durations,
    /// Revisions that are still to go over, as far as they are known.
    pub(crate) pending: u64,
    /// Documents that went over, all connections together.
    pub(crate) documents: u64,
    pub(crate) failures: u64,
    /// Why it failed last, until it succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// When it is tried next, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_s: Option<u64>,
}

/// A peer that came, or that was visited.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NeighbourStatus {
    /// What people call it, or where it came from.
    pub(crate) name: String,
    /// The ID that it has proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) connected: bool,
    pub(crate) last_heard_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_synced_s: Option<u64>,
    pub(crate) pending: u64,
    pub(crate) documents: u64,
    pub(crate) failures: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Signal strength of its radio connection, if it is visited and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rssi_dbm: Option<i8>,
}

/// A section of rules, and what was removed by them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RetentionStatus {
    pub(crate) name: String,
    /// Documents that were removed, since the start.
    pub(crate) removed: u64,
    /// Bytes of the documents that it looks after, as they are stored before they are compressed; 0 until it has looked.
    pub(crate) bytes: u64,
    /// Bytes of all files of the database, where they are limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) files_bytes: Option<u64>,
    /// How many they may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) files_allowed: Option<u64>,
    /// Times that the database was compacted for it, since the start.
    #[serde(default)]
    pub(crate) compactions: u64,
    /// Why the rules are not met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// A broker of MQTT. Numbers are since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MqttStatus {
    pub(crate) name: String,
    pub(crate) broker: String,
    pub(crate) connected: bool,
    /// Messages that were handed to it; after an outage some are handed over again.
    pub(crate) published: u64,
    /// Changes that it has not confirmed, at most.
    pub(crate) pending: u64,
    /// Documents that cannot be published.
    pub(crate) skipped: u64,
    /// The last of them, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_skipped: Option<String>,
    /// Documents that were made of messages.
    pub(crate) received: u64,
    /// Messages that no document can be made of.
    pub(crate) refused: u64,
    /// The last of them, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_refused: Option<String>,
    pub(crate) failures: u64,
    /// Why it failed last, until it is connected to again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The state of a sync, for scripts.
pub(crate) fn activity_word(activity: ReplicatorActivity) -> &'static str {
    match activity {
        ReplicatorActivity::Stopped => "stopped",
        ReplicatorActivity::Offline => "offline",
        ReplicatorActivity::Connecting => "connecting",
        ReplicatorActivity::Idle => "idle",
        ReplicatorActivity::Busy => "busy",
    }
}
