//! What agents and nodes answer: machines, sessions, figures.

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Host name.
    pub name: String,
    /// Kernel release.
    pub kernel: String,
    /// Version of bluetoothd.
    pub bluez: String,
    /// Setting of main.conf: EATT channels; BlueZ's default is 3.
    pub channels: u32,
    /// Setting of main.conf: the ATT MTU offered; BlueZ's default is 517.
    pub exchange_mtu: u32,
    /// A line about each adapter.
    pub adapters: Vec<String>,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// How others reach it.
    pub address: String,
}

/// A peer that was heard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heard {
    /// After so long, seconds.
    pub seconds: f64,
    /// How strongly, dBm.
    pub rssi_dbm: Option<i16>,
}

/// A session that was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// Its number at this node.
    pub session: u32,
    /// The channel below.
    pub label: String,
    /// Until bytes could flow, seconds.
    pub seconds: f64,
}

/// A pattern that was sent or received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moved {
    /// Beginning.
    pub from_us: u64,
    /// End.
    pub to_us: u64,
    /// Bytes in all that had arrived, and when, at most one each 10 ms: from whom receives only.
    pub arrivals: Vec<(u64, u64)>,
}

/// Messages there and back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Each one, milliseconds, in order of time.
    pub ms: Vec<f64>,
}

/// What raw packets did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Raw {
    /// The channel.
    pub label: String,
    /// Bytes of each packet.
    pub packet_bytes: u64,
    /// Until the channel was open, seconds.
    pub connect_seconds: f64,
    /// To the peripheral.
    pub up: RawWay,
    /// From the peripheral.
    pub down: RawWay,
}

/// One direction of raw packets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RawWay {
    /// Packets that arrived.
    pub packets: u32,
    /// Of these: not after the one before.
    pub out_of_order: u32,
    /// From the first to the last, seconds.
    pub seconds: f64,
    /// Bytes a second between the first and the last arrival.
    pub bytes_per_s: f64,
}

/// What a database holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Documents.
    pub documents: u64,
    /// Of all IDs, revisions and bodies.
    pub sha1: String,
}

/// State of a replication.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Synced {
    /// Documents that went over.
    pub documents: u64,
    /// Since the start, seconds.
    pub seconds: f64,
    /// Why it stopped, if not in order.
    pub error: Option<String>,
}

/// A radio connection, as far as BlueZ and the kernel tell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Air {
    /// All of it, as text.
    pub text: String,
    /// Bytes of a packet.
    pub packet_bytes: u64,
    /// ATT MTU.
    pub att_mtu: Option<u16>,
    /// Connection interval, milliseconds.
    pub interval_ms: Option<f64>,
    /// Signal strength, dBm.
    pub rssi_dbm: Option<i8>,
}

/// What a process and its adapter use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Resident, KiB.
    pub rss_kib: u64,
    /// Devices that are connected.
    pub connected: u32,
}

/// What a process has cost since it was started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// The process.
    pub pid: u32,
    /// Of a processor, in this process and in the kernel for it, microseconds.
    pub cpu_us: u64,
    /// Times one of its threads gave the processor up or lost it.
    pub switches: u64,
}

/// Counters of a session at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Number of the session at its node.
    pub session: u32,
    /// When.
    pub at_us: u64,
    /// The channel below.
    pub label: String,
    /// Bytes of the stream that the peer has acknowledged.
    pub sent: u64,
    /// Bytes of the stream that were given to the radio, each counted once.
    pub given: u64,
    /// Bytes of the stream received.
    pub received: u64,
    /// Packets sent, of all kinds.
    pub packets_sent: u64,
    /// Packets received, of all kinds.
    pub packets_received: u64,
    /// Data packets sent again.
    pub retransmissions: u64,
    /// Bytes of the stream sent again.
    pub bytes_retransmitted: u64,
    /// Of the packets sent again: the first had arrived.
    pub needless: u64,
    /// Data packets that arrived ahead of another.
    pub out_of_order: u64,
    /// Times the session was resumed.
    pub resumes: u32,
    /// Channels that carried it.
    pub channels: u32,
    /// Round trip, milliseconds; 0 before the first measurement.
    pub srtt_ms: f64,
    /// Signal strength, dBm, now and then.
    #[serde(default)]
    pub rssi_dbm: Option<i8>,
}
