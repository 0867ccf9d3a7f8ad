//! One controller: what its host has set, and the answers to all commands that concern this controller alone.
//!
//! Commands about a connection or a procedure with a peer come out as [`LinkCommand`], for the world that knows the peers.

pub mod advertising;
mod commands;
pub mod scan;

use std::collections::BTreeMap;

use crate::hci::opcode::Capabilities;
use crate::hci::{Address, PeerAddress};
use advertising::AdvertisingSet;
use scan::Scan;

/// Longest ACL payload a controller takes from its host, octets.
pub const ACL_OCTETS: u16 = 251;
/// Octets of a data PDU before the controllers have agreed on more.
pub const INITIAL_OCTETS: u16 = 27;
/// Entries of the filter accept list.
pub const ACCEPT_LIST_SIZE: usize = 32;
/// Advertising sets of a controller.
pub const ADVERTISING_SETS: usize = 4;

/// What a controller is made with; survives a reset.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it offers to its host.
    pub capabilities: Capabilities,
    /// Its public address.
    pub address: Address,
    /// ACL packets it takes before one has been acknowledged by a peer.
    pub acl_buffers: u8,
}

impl Settings {
    /// The most octets of a data PDU.
    pub fn octets_max(&self) -> u16 {
        if self.capabilities.data_length { ACL_OCTETS } else { INITIAL_OCTETS }
    }
}

/// A connection that the host wants (LE Create Connection).
#[derive(Clone, Copy, Debug)]
pub struct Initiator {
    /// Anybody in the accept list, or this one.
    pub peer: Option<PeerAddress>,
    /// Own address type: 0 public, 1 random.
    pub own_kind: u8,
    /// Connection parameters to begin with.
    pub parameters: HostParameters,
}

/// Connection parameters in the host's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostParameters {
    /// Units of 1.25 ms.
    pub interval: u16,
    /// Events.
    pub latency: u16,
    /// Units of 10 ms.
    pub timeout: u16,
}

impl HostParameters {
    /// Whether the specification allows them (Core 5.2, Vol 4, Part E, 7.8.12).
    pub fn are_valid(&self) -> bool {
        (6..=3200).contains(&self.interval) && self.latency <= 499 && (10..=3200).contains(&self.timeout)
    }
}

/// A command about one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkCommand {
    /// Disconnect.
    Disconnect {
        /// What to tell the peer.
        reason: u8,
    },
    /// Read Remote Version Information.
    RemoteVersion,
    /// LE Read Remote Features.
    RemoteFeatures,
    /// LE Connection Update.
    Update(HostParameters),
    /// LE Set Data Length.
    DataLength {
        /// Octets.
        octets: u16,
    },
    /// LE Set PHY.
    SetPhy {
        /// Wants 2M to send with.
        two_m: bool,
    },
    /// LE Read PHY.
    ReadPhy,
    /// Read RSSI.
    ReadRssi,
    /// Read Transmit Power Level.
    ReadTxPower,
    /// LE Enable Encryption.
    EnableEncryption {
        /// Random number of the key, 0 with secure connections.
        random: u64,
        /// Diversifier of the key, 0 with secure connections.
        diversifier: u16,
        /// The key.
        key: [u8; 16],
    },
    /// LE Long Term Key Request Reply, or its negative.
    LongTermKey(Option<[u8; 16]>),
}

/// What a command leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Command Complete with these return parameters.
    Complete(Vec<u8>),
    /// Command Status.
    Status(u8),
    /// The controller has forgotten everything; its connections end without a word.
    Reset,
    /// The pending connection is given up: answer, then a Connection Complete that says so.
    ConnectionCancelled,
    /// For the world.
    Link {
        /// The connection.
        handle: u16,
        /// What to do.
        command: LinkCommand,
    },
}

/// A controller as its host has set it up.
pub struct Controller {
    pub(crate) settings: Settings,
    pub(crate) random_address: Address,
    pub(crate) le_event_mask: u64,
    pub(crate) accept_list: Vec<PeerAddress>,
    pub(crate) sets: BTreeMap<u8, AdvertisingSet>,
    pub(crate) scan: Scan,
    pub(crate) initiator: Option<Initiator>,
    /// What the host suggests for new connections, octets.
    pub(crate) suggested_octets: u16,
    pub(crate) prefers_two_m: bool,
    /// Commands since the start, resets included.
    pub(crate) commands: u64,
    rng: fastrand::Rng,
}

impl Controller {
    /// Events that are on after a reset: all of 4.0.
    const LE_EVENT_MASK: u64 = 0x1f;

    /// As after a reset. `seed` decides the random numbers it gives to its host.
    pub fn new(settings: Settings, seed: u64) -> Controller {
        Controller {
            settings,
            random_address: Address::default(),
            le_event_mask: Controller::LE_EVENT_MASK,
            accept_list: Vec::new(),
            sets: BTreeMap::new(),
            scan: Scan::default(),
            initiator: None,
            suggested_octets: INITIAL_OCTETS,
            prefers_two_m: false,
            commands: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Forgets what the host has set.
    pub fn reset(&mut self) {
        let commands = self.commands;
        *self = Controller::new(self.settings.clone(), self.rng.u64(..));
        self.commands = commands;
    }

    /// The address used on air with own address type `kind`; `set_random`: that of the advertising set, if it has one.
    pub fn own_address(&self, kind: u8, set_random: Option<Address>) -> PeerAddress {
        match kind & 1 {
            0 => PeerAddress { kind: 0, address: self.settings.address },
            _ => PeerAddress { kind: 1, address: set_random.unwrap_or(self.random_address) },
        }
    }

    /// Whether the host wants this LE meta event.
    pub fn wants(&self, subevent: u8) -> bool {
        subevent >= 1 && self.le_event_mask & (1 << (subevent - 1)) != 0
    }
}
