//! All controllers and the radio between them, as one sans-IO core: packets of hosts and the time in, packets for hosts out.
//!
//! Data connections run on [`gattway::lab::transport::sim::radio`], the model that the project's own simulation uses. Here are what
//! that model leaves to controllers: advertising and scanning (`air.rs`), the procedures between link layers (`procedure.rs`), and
//! faults on command (`faults.rs`).
//!
//! Use: [`World::handle_timeout`], then [`World::handle_packet`], then [`World::poll_packet`] until `None`; wait until
//! [`World::poll_at`] or the next packet. The same seed and the same calls give the same packets.

mod air;
mod faults;
mod pdu;
mod procedure;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use gattway::lab::time::Instant;
use gattway::lab::transport::sim::radio::{
    ConnectionId, ConnectionParameters, LossCause, NodeConfig, NodeId, Path, Phy, Radio, RadioError,
    RadioEvent, Side,
};

use crate::controller::{ACL_OCTETS, Controller, HostParameters, INITIAL_OCTETS, Outcome, Settings};
use crate::hci::error_code::{COMMAND_DISALLOWED, CONNECTION_TIMEOUT, NOT_ESTABLISHED, UNKNOWN_CONNECTION};
use crate::hci::event::{self, Connected};
use crate::hci::opcode::Capabilities;
use crate::hci::{Address, H4_ACL, H4_COMMAND, PeerAddress};

pub use faults::{ConnectionReport, ControllerReport, FaultError};

/// How all controllers and the radio begin.
#[derive(Clone, Debug)]
pub struct Config {
    /// What controllers offer.
    pub capabilities: Capabilities,
    /// ACL packets that a controller takes at once, shared by its connections.
    pub acl_buffers: u8,
    /// The central's controller moves each connection to 2M by itself, as a host would ask that prefers it. Kernel 6.1 never asks.
    pub moves_to_two_m: bool,
    /// How well controllers hear each other.
    pub path: Path,
    /// Decides every loss and delay.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            capabilities: Capabilities { data_length: true, two_m: true, extended_advertising: true },
            acl_buffers: 8,
            moves_to_two_m: false,
            path: Path::default(),
            seed: 1,
        }
    }
}

/// Connections of one controller; handles are given out below this.
const HANDLES_MAX: u16 = 64;

/// One end of a connection, as its controller sees it.
struct End {
    controller: usize,
    handle: u16,
    tx_octets: u16,
    rx_octets: u16,
    /// The host waits for the peer's version.
    version_asked: bool,
    version_sent: bool,
    peer_version_known: bool,
    /// The host waits for the result of its Set PHY.
    phy_asked: bool,
    /// The controller has reset or lost power: its host knows nothing of the connection any more.
    gone: bool,
}

/// A connection with what its two controllers know.
struct Link {
    central: End,
    peripheral: End,
    /// As the hosts were told.
    parameters: HostParameters,
    phy: Phy,
    encrypted: bool,
    /// The key the central wants to encrypt with, while the peripheral's host is asked for its own.
    wanted_key: Option<[u8; 16]>,
    since: Instant,
}

impl Link {
    fn end(&self, side: Side) -> &End {
        match side {
            Side::Central => &self.central,
            Side::Peripheral => &self.peripheral,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Central => &mut self.central,
            Side::Peripheral => &mut self.peripheral,
        }
    }
}

/// The controllers, the connections and the radio.
pub struct World {
    config: Config,
    now: Instant,
    radio: Radio,
    controllers: Vec<Controller>,
    /// A controller without power is neither heard nor answers.
    powered: Vec<bool>,
    nodes: Vec<NodeId>,
    links: BTreeMap<ConnectionId, Link>,
    rng: fastrand::Rng,
    out: VecDeque<(usize, Vec<u8>)>,
    restore: Vec<(Instant, usize, usize)>,
}

impl World {
    /// `count` controllers with public addresses 00:AA:01:00:00:00 and up.
    pub fn new(config: Config, count: usize) -> World {
        let mut radio = Radio::new(config.seed);
        let node = NodeConfig { acl_buffers: config.acl_buffers.into(), acl_octets: ACL_OCTETS };
        let nodes: Vec<NodeId> = (0..count).map(|_| radio.add_node(node)).collect();
        for (i, a) in nodes.iter().enumerate() {
            for b in &nodes[i + 1..] {
                radio.set_path(*a, *b, config.path);
            }
        }
        let settings = |index: usize| Settings {
            capabilities: config.capabilities,
            address: Address([index as u8, (index >> 8) as u8, 0, 1, 0xaa, 0]),
            acl_buffers: config.acl_buffers,
        };
        let controllers =
            (0..count).map(|i| Controller::new(settings(i), config.seed.wrapping_add(i as u64))).collect();
        World {
            now: Instant::ZERO,
            radio,
            controllers,
            powered: vec![true; count],
            nodes,
            links: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(!config.seed),
            out: VecDeque::new(),
            restore: Vec::new(),
            config,
        }
    }

    /// Public address of a controller.
    pub fn address(&self, controller: usize) -> Option<Address> {
        Some(self.controllers.get(controller)?.settings.address)
    }

    // ---- packets

    /// Takes in a whole packet of a host, with its H4 type. What makes no sense is refused or dropped, as a controller does.
    pub fn handle_packet(&mut self, controller: usize, packet: &[u8]) {
        if controller >= self.controllers.len() {
            return;
        }
        match packet {
            [H4_COMMAND, low, high, _, parameters @ ..] => {
                self.powered[controller] = true; // a host that speaks has switched it on
                self.handle_command(controller, u16::from_le_bytes([*low, *high]), parameters);
            }
            [H4_ACL, low, high, _, _, payload @ ..] => {
                self.handle_acl(controller, u16::from_le_bytes([*low, *high]), payload);
            }
            _ => {}
        }
        self.drain_radio();
    }

    /// The next packet for a host, with its H4 type.
    pub fn poll_packet(&mut self) -> Option<(usize, Vec<u8>)> {
        self.out.pop_front()
    }

    fn send(&mut self, controller: usize, packet: Vec<u8>) {
        if self.powered[controller] {
            self.out.push_back((controller, packet));
        }
    }

    fn send_meta(&mut self, controller: usize, subevent: u8, parameters: &[u8]) {
        if self.controllers[controller].wants(subevent) {
            self.send(controller, event::le_meta(subevent, parameters));
        }
    }

    fn handle_command(&mut self, controller: usize, code: u16, parameters: &[u8]) {
        let answer = match self.controllers[controller].command(self.now, code, parameters) {
            Outcome::Link { handle, command } => match self.find(controller, handle) {
                Some((id, side)) => self.link_command(id, side, handle, command),
                None => procedure::refusal(&command, handle, UNKNOWN_CONNECTION),
            },
            other => other,
        };
        match answer {
            Outcome::Complete(returned) => self.send(controller, event::command_complete(code, &returned)),
            Outcome::Status(status) => self.send(controller, event::command_status(code, status)),
            Outcome::Reset => {
                self.forget_links(controller);
                self.send(controller, event::command_complete(code, &[0]));
            }
            Outcome::ConnectionCancelled => {
                self.send(controller, event::command_complete(code, &[0]));
                self.send_no_connection(controller);
            }
            // link_command answers with nothing else
            Outcome::Link { .. } => self.send(controller, event::command_status(code, COMMAND_DISALLOWED)),
        }
    }

    fn send_no_connection(&mut self, controller: usize) {
        let peer = PeerAddress::default();
        let connected = Connected {
            status: UNKNOWN_CONNECTION,
            handle: 0,
            role: 0,
            peer,
            interval: 0,
            latency: 0,
            timeout: 0,
        };
        self.send_connected(controller, connected);
    }

    fn send_connected(&mut self, controller: usize, connected: Connected) {
        let enhanced = self.controllers[controller].wants(event::meta::ENHANCED_CONNECTION_COMPLETE);
        self.send(controller, connected.packet(enhanced));
    }

    fn handle_acl(&mut self, controller: usize, handle_and_flags: u16, payload: &[u8]) {
        const CONTINUING: u16 = 1;
        let Some((id, side)) = self.find(controller, handle_and_flags & 0x0fff) else { return };
        let start = (handle_and_flags >> 12) & 3 != CONTINUING;
        match self.radio.send(id, side, start, Bytes::copy_from_slice(payload)) {
            Err(RadioError::BuffersFull { .. }) => self.send(controller, event::data_buffer_overflow()),
            // an empty or too long fragment: a controller drops it, and its host gets the buffer back
            Err(_) => self.send(controller, event::completed_packets(handle_and_flags & 0x0fff, 1)),
            Ok(()) => {}
        }
    }

    fn find(&self, controller: usize, handle: u16) -> Option<(ConnectionId, Side)> {
        let matches = |end: &End| end.controller == controller && end.handle == handle && !end.gone;
        self.links.iter().find_map(|(id, link)| {
            if matches(&link.central) {
                return Some((*id, Side::Central));
            }
            matches(&link.peripheral).then_some((*id, Side::Peripheral))
        })
    }

    /// The lowest handle that a controller does not use.
    fn free_handle(&self, controller: usize) -> Option<u16> {
        (1..=HANDLES_MAX).find(|handle| self.find(controller, *handle).is_none())
    }

    // ---- time

    /// When [`World::handle_timeout`] has something to do next.
    pub fn poll_at(&self) -> Option<Instant> {
        let restore = self.restore.iter().map(|(at, ..)| *at).min();
        [self.radio.poll_at(), self.next_advert().map(|(at, ..)| at), restore].into_iter().flatten().min()
    }

    /// Does all that is due until `now`, in order of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.poll_at().filter(|due| *due <= now) {
            self.now = self.now.max(due);
            self.radio.handle_timeout(self.now);
            self.drain_radio();
            self.restore_paths();
            if let Some((at, controller, set)) = self.next_advert()
                && at <= self.now
            {
                self.advertising_event(controller, set);
            }
        }
        self.now = self.now.max(now);
    }

    fn drain_radio(&mut self) {
        while let Some(radio_event) = self.radio.poll_event() {
            self.handle_radio_event(radio_event);
        }
    }

    fn handle_radio_event(&mut self, radio_event: RadioEvent) {
        match radio_event {
            RadioEvent::Data { connection, side, start, payload } => {
                self.tell_end(connection, side, |end| event::acl(end.handle, start, &payload));
            }
            RadioEvent::Control { connection, side, payload } => {
                if let Some(pdu) = pdu::Pdu::decode(&payload) {
                    self.handle_pdu(connection, side, pdu);
                }
            }
            RadioEvent::Completed { connection, side, fragments } => {
                self.tell_end(connection, side, |end| event::completed_packets(end.handle, fragments));
            }
            RadioEvent::Changed { connection, change } => self.handle_change(connection, change),
            RadioEvent::Lost { connection, side, cause } => {
                let reason = match cause {
                    LossCause::SupervisionTimeout => CONNECTION_TIMEOUT,
                    LossCause::NotEstablished => NOT_ESTABLISHED,
                };
                self.end_of_link(connection, side, reason);
            }
        }
    }

    /// Sends the host of one end a packet, unless its controller has forgotten the connection.
    fn tell_end(&mut self, connection: ConnectionId, side: Side, packet: impl FnOnce(&End) -> Vec<u8>) {
        let Some(end) = self.links.get(&connection).map(|link| link.end(side)).filter(|end| !end.gone) else {
            return;
        };
        let (controller, packet) = (end.controller, packet(end));
        self.send(controller, packet);
    }

    /// One end has lost its connection. The link goes when both have.
    fn end_of_link(&mut self, connection: ConnectionId, side: Side, reason: u8) {
        self.tell_end(connection, side, |end| event::disconnection_complete(end.handle, reason));
        let Some(link) = self.links.get_mut(&connection) else { return };
        link.end_mut(side).gone = true;
        if link.central.gone && link.peripheral.gone {
            self.links.remove(&connection);
        }
    }

    /// A controller forgets its connections; their peers notice by the supervision timeout.
    fn forget_links(&mut self, controller: usize) {
        let mut forgotten = Vec::new();
        for (id, link) in &mut self.links {
            for side in [Side::Central, Side::Peripheral] {
                let end = link.end_mut(side);
                if end.controller == controller && !end.gone {
                    end.gone = true;
                    forgotten.push((*id, side));
                }
            }
        }
        for (id, side) in forgotten {
            // unknown to the radio: it has ended there already
            let _ = self.radio.silence(id, side);
        }
        self.links.retain(|_, link| !(link.central.gone && link.peripheral.gone));
    }
}

/// The host's units as the radio's.
fn radio_parameters(host: HostParameters) -> ConnectionParameters {
    ConnectionParameters {
        interval: Duration::from_micros(1_250) * u32::from(host.interval),
        peripheral_latency: host.latency,
        supervision_timeout: Duration::from_millis(10) * u32::from(host.timeout),
    }
}

fn new_end(controller: usize, handle: u16) -> End {
    End {
        controller,
        handle,
        tx_octets: INITIAL_OCTETS,
        rx_octets: INITIAL_OCTETS,
        version_asked: false,
        version_sent: false,
        peer_version_known: false,
        phy_asked: false,
        gone: false,
    }
}
