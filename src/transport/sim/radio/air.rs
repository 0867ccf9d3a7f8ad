//! The radio: all nodes and connections in one time line.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::connection::{Connection, Surroundings};
use super::phy::{DATA_LENGTH_MAX, DATA_LENGTH_MIN, Phy};
use super::types::{
    Change, ConnectionCounters, ConnectionId, ConnectionParameters, ConnectionSetup, NodeConfig, NodeId,
    Path, RadioError, RadioEvent, Side,
};
use crate::time::Instant;

/// Time from a connection request to the earliest first anchor point.
const TRANSMIT_WINDOW_DELAY: Duration = Duration::from_micros(1_250);
/// Places in the interval that are tried for the anchor points of a new connection.
const ANCHOR_CANDIDATES: u32 = 32;

struct Node {
    config: NodeConfig,
}

/// The radio with all nodes and connections.
pub struct Radio {
    now: Instant,
    rng: fastrand::Rng,
    nodes: Vec<Node>,
    paths: BTreeMap<(NodeId, NodeId), Path>,
    connections: BTreeMap<ConnectionId, Connection>,
    next_connection: u32,
    events: VecDeque<RadioEvent>,
    /// Sum over the connections that have ended.
    ended: ConnectionCounters,
}

impl Radio {
    /// An empty radio. `seed` decides every loss.
    pub fn new(seed: u64) -> Radio {
        Radio {
            now: Instant::ZERO,
            rng: fastrand::Rng::with_seed(seed),
            nodes: Vec::new(),
            paths: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            events: VecDeque::new(),
            ended: ConnectionCounters::default(),
        }
    }

    // ---- what is

    /// The parameters in force.
    pub fn parameters(&self, connection: ConnectionId) -> Option<ConnectionParameters> {
        Some(self.connections.get(&connection)?.parameters())
    }

    /// Counters of a connection that still exists.
    pub fn counters(&self, connection: ConnectionId) -> Option<ConnectionCounters> {
        Some(self.connections.get(&connection)?.counters())
    }

    /// Sum of the counters of all connections that there ever were.
    pub fn totals(&self) -> ConnectionCounters {
        self.connections.values().fold(self.ended, |sum, connection| sum.plus(connection.counters()))
    }

    /// The number of the latest connection event, for changes that have to be agreed some events ahead.
    pub fn event_counter(&self, connection: ConnectionId) -> Option<u32> {
        Some(self.connections.get(&connection)?.event_counter)
    }

    /// The node at an end of a connection.
    pub fn node(&self, connection: ConnectionId, side: Side) -> Option<NodeId> {
        let connection = self.connections.get(&connection)?;
        Some(match side {
            Side::Central => connection.central.node,
            Side::Peripheral => connection.peripheral.node,
        })
    }

    /// Fragments that `node` may still send before its buffers are full.
    pub fn free_buffers(&self, node: NodeId) -> u16 {
        let Some(config) = self.nodes.get(node.index()).map(|n| n.config) else { return 0 };
        let ends = self.connections.values().flat_map(|c| [&c.central, &c.peripheral]);
        let occupied: u16 = ends.filter(|end| end.node == node).map(|end| end.occupied_buffers()).sum();
        config.acl_buffers.saturating_sub(occupied)
    }

    /// How well two nodes hear each other.
    pub fn path(&self, a: NodeId, b: NodeId) -> Path {
        self.paths.get(&(a.min(b), a.max(b))).copied().unwrap_or_default()
    }

    /// Draws whether a PDU of `octets` payload sent outside of connections (an advert, a connection request) is understood.
    pub fn draw_reception(&mut self, from: NodeId, to: NodeId, phy: Phy, octets: usize) -> bool {
        let path = self.path(from, to);
        let chance =
            1.0 - (1.0 - path.loss) * (1.0 - phy.loss_at(path.rssi_dbm, phy.octets_on_air(octets, false)));
        path.reachable && (chance <= 0.0 || self.rng.f64() >= chance)
    }

    // ---- commands

    /// Adds a device.
    pub fn add_node(&mut self, config: NodeConfig) -> NodeId {
        self.nodes.push(Node { config });
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// Sets how well two nodes hear each other, from now on.
    pub fn set_path(&mut self, a: NodeId, b: NodeId, path: Path) {
        self.paths.insert((a.min(b), a.max(b)), path);
    }

    /// Makes a connection at time `now`; its first event comes 1.25 ms later or when its nodes are free of others.
    ///
    /// # Errors
    /// Unknown or equal nodes, parameters outside the specification; nothing has changed then.
    pub fn connect(
        &mut self,
        now: Instant,
        central: NodeId,
        peripheral: NodeId,
        setup: &ConnectionSetup,
    ) -> Result<ConnectionId, RadioError> {
        for node in [central, peripheral] {
            if node.index() >= self.nodes.len() {
                return Err(RadioError::UnknownNode { index: node.index() });
            }
        }
        if central == peripheral {
            return Err(RadioError::SameNode { index: central.index() });
        }
        check_parameters(&setup.parameters)?;
        check_data_length(setup.data_length)?;
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let anchor =
            self.free_anchor(now + TRANSMIT_WINDOW_DELAY, [central, peripheral], setup.parameters.interval);
        self.connections.insert(id, Connection::new(id, [central, peripheral], setup, now, anchor));
        Ok(id)
    }

    /// Gives the controller of `side` a fragment to send: `start` if an L2CAP PDU begins with it. It keeps a buffer until
    /// [`RadioEvent::Completed`].
    ///
    /// # Errors
    /// Unknown connection, no free buffer, empty or too long; the fragment has not been taken then.
    pub fn send(
        &mut self,
        connection: ConnectionId,
        side: Side,
        start: bool,
        fragment: Bytes,
    ) -> Result<(), RadioError> {
        let node =
            self.node(connection, side).ok_or(RadioError::UnknownConnection { index: connection.index() })?;
        let config = self.nodes[node.index()].config;
        if fragment.is_empty() || fragment.len() > usize::from(config.acl_octets) {
            return Err(RadioError::FragmentLength { max: config.acl_octets.into(), actual: fragment.len() });
        }
        if self.free_buffers(node) == 0 {
            return Err(RadioError::BuffersFull { buffers: config.acl_buffers });
        }
        self.connection(connection)?.end(side).push_fragment(start, fragment);
        Ok(())
    }

    /// Sends a link-layer control PDU ahead of waiting data.
    ///
    /// # Errors
    /// Unknown connection.
    pub fn send_control(
        &mut self,
        connection: ConnectionId,
        side: Side,
        payload: Bytes,
    ) -> Result<(), RadioError> {
        self.connection(connection)?.end(side).push_control(payload);
        Ok(())
    }

    /// Sets the longest payload that `side` sends from its next fragment on, 27 to 251 octets.
    ///
    /// # Errors
    /// Unknown connection, length out of bounds.
    pub fn set_data_length(
        &mut self,
        connection: ConnectionId,
        side: Side,
        octets: u16,
    ) -> Result<(), RadioError> {
        check_data_length(octets)?;
        self.connection(connection)?.end(side).data_length = octets;
        Ok(())
    }

    /// From now on each PDU with a payload carries a MIC, or none does any more.
    ///
    /// # Errors
    /// Unknown connection.
    pub fn set_encrypted(&mut self, connection: ConnectionId, encrypted: bool) -> Result<(), RadioError> {
        self.connection(connection)?.encrypted = encrypted;
        Ok(())
    }

    /// Makes `change` at the connection event `event_counter` (at the next, if that has passed);
    /// [`RadioEvent::Changed`] tells when.
    ///
    /// # Errors
    /// Unknown connection, parameters outside the specification.
    pub fn schedule(
        &mut self,
        connection: ConnectionId,
        event_counter: u32,
        change: Change,
    ) -> Result<(), RadioError> {
        if let Change::Parameters(parameters) = &change {
            check_parameters(parameters)?;
        }
        self.connection(connection)?.schedule(event_counter, change);
        Ok(())
    }

    /// The host of `side` has gone without a word (reset, power off): the other end notices by its supervision timeout.
    ///
    /// # Errors
    /// Unknown connection.
    pub fn silence(&mut self, connection: ConnectionId, side: Side) -> Result<(), RadioError> {
        let ends = self.connection(connection)?;
        ends.end(side).silent = true;
        if ends.central.silent && ends.peripheral.silent {
            self.remove(connection);
        }
        Ok(())
    }

    /// Ends a connection at both ends at once, without an event: its users have agreed on it. Gives its last counters.
    pub fn remove(&mut self, connection: ConnectionId) -> Option<ConnectionCounters> {
        let counters = self.connections.remove(&connection)?.counters();
        self.ended = self.ended.plus(counters);
        Some(counters)
    }

    // ---- time

    /// When [`Radio::handle_timeout`] has something to do next.
    pub fn poll_at(&self) -> Option<Instant> {
        self.connections.values().map(|c| c.next).min()
    }

    /// Runs all that is due until `now`, in order of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((due, id)) = self.connections.values().map(|c| (c.next, c.id)).min()
            && due <= now
        {
            self.now = due;
            self.step(id);
        }
        self.now = self.now.max(now);
    }

    /// The next thing that happened, in order of time.
    pub fn poll_event(&mut self) -> Option<RadioEvent> {
        self.events.pop_front()
    }

    fn step(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let nodes = [connection.central.node, connection.peripheral.node];
        let path = self.path(nodes[0], nodes[1]);
        let others =
            || self.connections.iter().filter(|(o, c)| **o != id && nodes.iter().any(|n| c.uses(*n)));
        let busy = others().any(|(_, c)| c.in_event());
        let others_anchor = others().map(|(_, c)| c.anchor).min();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let surroundings = Surroundings {
            now: self.now,
            path,
            busy,
            others_anchor,
            rng: &mut self.rng,
            events: &mut self.events,
        };
        if connection.step(surroundings) {
            self.remove(id);
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Result<&mut Connection, RadioError> {
        self.connections.get_mut(&id).ok_or(RadioError::UnknownConnection { index: id.index() })
    }

    /// The place in the interval that leaves the most time to the other connections of these nodes.
    fn free_anchor(&self, earliest: Instant, nodes: [NodeId; 2], interval: Duration) -> Instant {
        let period = interval.as_micros() as u64;
        let taken: Vec<u64> = (self.connections.values())
            .filter(|c| nodes.iter().any(|n| c.uses(*n)))
            .map(|c| c.anchor.as_micros())
            .collect();
        let distance = |candidate: Instant| {
            let gap = |anchor: &u64| {
                let phase = candidate.as_micros().abs_diff(*anchor) % period;
                phase.min(period - phase)
            };
            taken.iter().map(gap).min().unwrap_or(0)
        };
        let candidates = (0..ANCHOR_CANDIDATES).map(|k| earliest + interval * k / ANCHOR_CANDIDATES);
        // Of equally good places the earliest.
        candidates.rev().max_by_key(|candidate| distance(*candidate)).unwrap_or(earliest)
    }
}

fn check_parameters(parameters: &ConnectionParameters) -> Result<(), RadioError> {
    let bounds = |name, value: Duration, min, max| {
        let actual = value.as_micros() as u64;
        if (min..=max).contains(&actual) {
            Ok(())
        } else {
            Err(RadioError::OutOfBounds { name, min, max, actual })
        }
    };
    bounds("connection interval in us", parameters.interval, 7_500, 4_000_000)?;
    bounds("supervision timeout in us", parameters.supervision_timeout, 100_000, 32_000_000)?;
    let latency = u64::from(parameters.peripheral_latency);
    if latency > 499 {
        return Err(RadioError::OutOfBounds {
            name: "peripheral latency in events",
            min: 0,
            max: 499,
            actual: latency,
        });
    }
    Ok(())
}

fn check_data_length(octets: u16) -> Result<(), RadioError> {
    if (DATA_LENGTH_MIN..=DATA_LENGTH_MAX).contains(&octets) {
        return Ok(());
    }
    Err(RadioError::OutOfBounds {
        name: "data length in octets",
        min: DATA_LENGTH_MIN.into(),
        max: DATA_LENGTH_MAX.into(),
        actual: octets.into(),
    })
}
