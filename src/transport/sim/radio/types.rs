//! What goes into the radio model and what comes out of it: identifiers, parameters, events, counters, errors.

use std::time::Duration;

use bytes::Bytes;

use super::phy::{DATA_LENGTH_MAX, Phy};

/// A device: one radio with its host's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

/// A connection between two nodes. Never used again after it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(super) u32);

impl NodeId {
    /// Position in the order in which nodes were added, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl ConnectionId {
    /// Position in the order in which connections were made, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that opens each connection event.
    Central,
    /// The end that answers.
    Peripheral,
}

impl Side {
    /// The other end.
    pub const fn other(self) -> Side {
        match self {
            Side::Central => Side::Peripheral,
            Side::Peripheral => Side::Central,
        }
    }
}

/// A device as its host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Fragments that the controller takes before one has been acknowledged over the air; shared by all its connections.
    pub acl_buffers: u16,
    /// Longest fragment the controller takes, octets.
    pub acl_octets: u16,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig { acl_buffers: 8, acl_octets: DATA_LENGTH_MAX }
    }
}

/// The parameters that a connection update changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionParameters {
    /// Time between two anchor points: 7.5 ms to 4 s.
    pub interval: Duration,
    /// Events that the peripheral may skip when it has nothing to say.
    pub peripheral_latency: u16,
    /// Silence after which an end gives the connection up: 100 ms to 32 s.
    pub supervision_timeout: Duration,
}

impl Default for ConnectionParameters {
    /// 30 ms, no latency, 2 s: what a Linux central asks for, with a whole number of events in a supervision timeout.
    fn default() -> ConnectionParameters {
        ConnectionParameters {
            interval: Duration::from_millis(30),
            peripheral_latency: 0,
            supervision_timeout: Duration::from_secs(2),
        }
    }
}

/// All that decides how fast a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionSetup {
    /// Interval, latency and supervision timeout.
    pub parameters: ConnectionParameters,
    /// PHY of both directions.
    pub phy: Phy,
    /// Longest payload of a data PDU, octets, both directions: 27 to 251.
    pub data_length: u16,
    /// Whether each PDU with a payload carries a MIC.
    pub encrypted: bool,
    /// Longest connection event; `None`: until the next anchor point.
    pub event_length_max: Option<Duration>,
    /// Most exchanges (a PDU each way) in an event; `None`: as many as fit. Phones commonly allow 4 to 6.
    pub exchanges_per_event_max: Option<u16>,
}

impl Default for ConnectionSetup {
    fn default() -> ConnectionSetup {
        ConnectionSetup {
            parameters: ConnectionParameters::default(),
            phy: Phy::Le2M,
            data_length: DATA_LENGTH_MAX,
            encrypted: false,
            event_length_max: None,
            exchanges_per_event_max: None,
        }
    }
}

impl ConnectionSetup {
    /// What every connection has before its controllers have agreed on more: 1M, 27 octets, not encrypted.
    pub fn initial(parameters: ConnectionParameters) -> ConnectionSetup {
        ConnectionSetup {
            parameters,
            phy: Phy::Le1M,
            data_length: super::phy::DATA_LENGTH_MIN,
            ..ConnectionSetup::default()
        }
    }
}

/// How well two nodes hear each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// False: nothing arrives (out of range, shielded, switched off).
    pub reachable: bool,
    /// Received signal strength, dBm; weak signals lose PDUs by themselves.
    pub rssi_dbm: i8,
    /// Share of PDUs lost besides, by interference: 0 to 1.
    pub loss: f64,
}

impl Default for Path {
    fn default() -> Path {
        Path { reachable: true, rssi_dbm: -50, loss: 0.0 }
    }
}

/// A change that both ends make at the same connection event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Connection update.
    Parameters(ConnectionParameters),
    /// PHY update: what the central and what the peripheral send with.
    Phy {
        /// PHY of the central's PDUs.
        central: Phy,
        /// PHY of the peripheral's PDUs.
        peripheral: Phy,
    },
}

/// Why the model ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// No PDU arrived for the supervision timeout.
    SupervisionTimeout,
    /// No PDU arrived in the first six events.
    NotEstablished,
}

/// What happened on the radio. An event names the end that learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RadioEvent {
    /// A data PDU arrived at `side`: a whole fragment or a part of one.
    Data {
        /// The connection.
        connection: ConnectionId,
        /// The end that received it.
        side: Side,
        /// Whether it is the start of an L2CAP PDU.
        start: bool,
        /// What it carries.
        payload: Bytes,
    },
    /// A link-layer control PDU arrived at `side`; its meaning is the controllers' own.
    Control {
        /// The connection.
        connection: ConnectionId,
        /// The end that received it.
        side: Side,
        /// What it carries.
        payload: Bytes,
    },
    /// Fragments that `side` sent are acknowledged: their buffers are free (HCI's number of completed packets).
    Completed {
        /// The connection.
        connection: ConnectionId,
        /// The end whose host gets its buffers back.
        side: Side,
        /// How many.
        fragments: u16,
    },
    /// A change agreed for this event has been made; both ends learn of it.
    Changed {
        /// The connection.
        connection: ConnectionId,
        /// What changed.
        change: Change,
    },
    /// The connection is gone for `side`.
    Lost {
        /// The connection; unknown to the model once both ends have lost it.
        connection: ConnectionId,
        /// The end that noticed.
        side: Side,
        /// Why.
        cause: LossCause,
    },
}

/// What one end of a connection has sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndCounters {
    /// PDUs on air, retransmissions and empty ones included.
    pub pdus: u64,
    /// Of these: empty.
    pub empty_pdus: u64,
    /// Of these: sent again because no acknowledgement came.
    pub retransmissions: u64,
    /// Of these: not understood at the other end.
    pub lost_pdus: u64,
    /// Payload of data PDUs, octets, each counted once.
    pub payload_octets: u64,
    /// All octets from preamble to CRC, every transmission counted.
    pub air_octets: u64,
    /// Time on air, microseconds, every transmission counted.
    pub air_time_us: u64,
}

impl EndCounters {
    /// Sum of two counts.
    pub fn plus(self, other: EndCounters) -> EndCounters {
        self.with(other, |a, b| a + b)
    }

    /// What was added since `before`.
    pub fn since(self, before: EndCounters) -> EndCounters {
        self.with(before, |a, b| a - b)
    }

    fn with(self, other: EndCounters, of: fn(u64, u64) -> u64) -> EndCounters {
        EndCounters {
            pdus: of(self.pdus, other.pdus),
            empty_pdus: of(self.empty_pdus, other.empty_pdus),
            retransmissions: of(self.retransmissions, other.retransmissions),
            lost_pdus: of(self.lost_pdus, other.lost_pdus),
            payload_octets: of(self.payload_octets, other.payload_octets),
            air_octets: of(self.air_octets, other.air_octets),
            air_time_us: of(self.air_time_us, other.air_time_us),
        }
    }
}

/// What a connection has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounters {
    /// Sent by the central.
    pub central: EndCounters,
    /// Sent by the peripheral.
    pub peripheral: EndCounters,
    /// Connection events held.
    pub events: u64,
    /// Anchor points at which no event took place: out of range, or the radio was busy with another connection.
    pub events_missed: u64,
}

impl ConnectionCounters {
    /// Sum of two counts.
    pub fn plus(self, other: ConnectionCounters) -> ConnectionCounters {
        self.with(other, |a, b| a + b)
    }

    /// What was added since `before`.
    pub fn since(self, before: ConnectionCounters) -> ConnectionCounters {
        self.with(before, |a, b| a - b)
    }

    fn with(self, other: ConnectionCounters, of: fn(u64, u64) -> u64) -> ConnectionCounters {
        ConnectionCounters {
            central: self.central.with(other.central, of),
            peripheral: self.peripheral.with(other.peripheral, of),
            events: of(self.events, other.events),
            events_missed: of(self.events_missed, other.events_missed),
        }
    }

    /// Both directions together.
    pub fn total(&self) -> EndCounters {
        self.central.plus(self.peripheral)
    }
}

/// A call that the model refuses; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RadioError {
    /// No such node.
    #[error("there is no node {index}")]
    UnknownNode {
        /// The index asked for.
        index: usize,
    },
    /// The connection does not exist (any more).
    #[error("there is no connection {index}")]
    UnknownConnection {
        /// The index asked for.
        index: usize,
    },
    /// A node cannot connect to itself.
    #[error("node {index} cannot connect to itself")]
    SameNode {
        /// The node.
        index: usize,
    },
    /// A parameter is outside what the specification allows.
    #[error("{name} is {actual}, allowed is {min} to {max}")]
    OutOfBounds {
        /// The parameter with its unit.
        name: &'static str,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
        /// What was given.
        actual: u64,
    },
    /// All buffers of the controller hold fragments that are not acknowledged yet.
    #[error("all {buffers} buffers of the controller are in use")]
    BuffersFull {
        /// Buffers of the controller.
        buffers: u16,
    },
    /// A fragment is longer than the controller's buffers, or empty.
    #[error("a fragment has {actual} octets, allowed are 1 to {max}")]
    FragmentLength {
        /// Buffer size, octets.
        max: usize,
        /// What was given.
        actual: usize,
    },
}
