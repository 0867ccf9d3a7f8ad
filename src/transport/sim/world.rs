//! Devices on one modelled radio, sans-IO: the radio model with a host at each end of each connection, in one time line.
//!
//! [`World`] carries packets between the two ends of connections. Who calls it when is left to its user: the async
//! connection in `connection.rs`, the benchmark in `bench.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::host::{HostConfig, HostEnd, PacketCounters};
use super::radio::{
    ConnectionCounters, ConnectionId, ConnectionSetup, EndCounters, NodeConfig, NodeId, Path, Radio,
    RadioError, RadioEvent, Side,
};
use crate::time::Instant;

/// Length of the control PDU that ends a connection: opcode and reason.
const TERMINATE: &[u8] = &[0x02, 0x13];
const SIDES: [Side; 2] = [Side::Central, Side::Peripheral];

/// Totals of a world since it began, over all its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldCounters {
    /// Connections made.
    pub connections: u32,
    /// On air, link layer.
    pub radio: ConnectionCounters,
    /// Packets from centrals to peripherals.
    pub to_peripheral: PacketCounters,
    /// Packets from peripherals to centrals.
    pub to_central: PacketCounters,
}

impl WorldCounters {
    /// Packets of both directions.
    pub fn packets(&self) -> PacketCounters {
        self.to_peripheral.plus(self.to_central)
    }

    /// Link-layer PDUs of both directions.
    pub fn on_air(&self) -> EndCounters {
        self.radio.total()
    }

    fn add(&mut self, [central, peripheral]: &[HostEnd; 2]) {
        let direction = |from: &HostEnd, to: &HostEnd| PacketCounters {
            dropped: to.dropped,
            delivered: to.delivered,
            overtaken: to.overtaken_packets,
            ..from.sent
        };
        self.to_peripheral = self.to_peripheral.plus(direction(central, peripheral));
        self.to_central = self.to_central.plus(direction(peripheral, central));
    }
}

/// Packets between two hosts.
struct Connection {
    ends: [HostEnd; 2],
    nodes: [NodeId; 2],
    /// The ends that know that the connection has ended.
    ended: [bool; 2],
    /// The ends whose application is done with it.
    released: [bool; 2],
}

/// The radio and all hosts.
pub struct World {
    radio: Radio,
    hosts: Vec<(HostConfig, NodeConfig)>,
    connections: BTreeMap<ConnectionId, Connection>,
    ended: WorldCounters,
    rng: fastrand::Rng,
    now: Instant,
}

impl World {
    /// An empty world. `seed` decides every loss.
    pub fn new(seed: u64) -> World {
        World {
            radio: Radio::new(seed),
            hosts: Vec::new(),
            connections: BTreeMap::new(),
            ended: WorldCounters::default(),
            rng: fastrand::Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15),
            now: Instant::ZERO,
        }
    }

    /// Adds a device.
    pub fn add_device(&mut self, host: HostConfig, node: NodeConfig) -> NodeId {
        self.hosts.push((host, node));
        self.radio.add_node(node)
    }

    /// Changes a host; its open connections follow.
    pub fn set_host(&mut self, device: NodeId, config: HostConfig) {
        self.hosts[device.index()].0 = config;
        for connection in self.connections.values_mut() {
            for (end, node) in connection.ends.iter_mut().zip(connection.nodes) {
                if node == device {
                    end.config = config;
                }
            }
        }
    }

    /// How well two devices hear each other.
    pub fn path(&self, a: NodeId, b: NodeId) -> Path {
        self.radio.path(a, b)
    }

    /// Sets how well two devices hear each other, from now on.
    pub fn set_path(&mut self, a: NodeId, b: NodeId, path: Path) {
        self.radio.set_path(a, b, path);
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// As [`Radio::connect`].
    pub fn connect(
        &mut self,
        now: Instant,
        central: NodeId,
        peripheral: NodeId,
        setup: &ConnectionSetup,
    ) -> Result<ConnectionId, RadioError> {
        let id = self.radio.connect(now, central, peripheral, setup)?;
        let nodes = [central, peripheral];
        let ends = nodes.map(|node| HostEnd::new(self.hosts[node.index()].0));
        self.connections.insert(id, Connection { ends, nodes, ended: [false; 2], released: [false; 2] });
        self.ended.connections += 1;
        Ok(id)
    }

    /// Takes a packet from `side`. `false`: its queue is full, nothing was taken. `None`: the connection has ended.
    pub fn send(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        side: Side,
        packet: &[u8],
    ) -> Option<bool> {
        let ends = self.connections.get_mut(&connection).filter(|c| !c.ended[side as usize])?;
        let taken = ends.ends[side as usize].push(now, packet);
        Some(taken)
    }

    /// Whether [`World::send`] would take a packet.
    pub fn can_send(&self, connection: ConnectionId, side: Side) -> bool {
        (self.connections.get(&connection))
            .is_some_and(|c| !c.ended[side as usize] && c.ends[side as usize].has_room())
    }

    /// The next packet for `side`. What arrived before the end of a connection can be taken after it.
    pub fn receive(&mut self, now: Instant, connection: ConnectionId, side: Side) -> Option<Bytes> {
        self.connections.get_mut(&connection)?.ends[side as usize].pop(now)
    }

    /// Whether [`World::receive`] would give a packet.
    pub fn can_receive(&self, now: Instant, connection: ConnectionId, side: Side) -> bool {
        self.connections.get(&connection).is_some_and(|c| c.ends[side as usize].readable(now))
    }

    /// Whether the connection lives, as far as `side` knows.
    pub fn is_connected(&self, connection: ConnectionId, side: Side) -> bool {
        self.connections.get(&connection).is_some_and(|c| !c.ended[side as usize])
    }

    /// `side` disconnects and is done with the connection: what it has queued is lost, the other end learns of it over the
    /// air.
    pub fn disconnect(&mut self, connection: ConnectionId, side: Side) {
        let Some(ends) = self.connections.get_mut(&connection) else { return };
        if !std::mem::replace(&mut ends.ended[side as usize], true) {
            // Fails only when the radio has lost the connection, which is what is wanted.
            let _ = self.radio.send_control(connection, side, Bytes::from_static(TERMINATE));
        }
        ends.released[side as usize] = true;
        self.forget_if_over(connection);
    }

    /// Ends all connections between two devices at once, at both ends.
    pub fn break_connections(&mut self, a: NodeId, b: NodeId) {
        let broken: Vec<ConnectionId> = (self.connections.iter())
            .filter(|(_, c)| c.nodes == [a, b] || c.nodes == [b, a])
            .map(|(id, _)| *id)
            .collect();
        broken.into_iter().for_each(|id| self.end(id, &SIDES));
    }

    /// When [`World::handle_timeout`] has something to do next.
    pub fn poll_at(&self) -> Option<Instant> {
        let hosts =
            self.connections.values().flat_map(|c| c.ends.iter().filter_map(|end| end.poll_at(self.now)));
        hosts.chain(self.radio.poll_at()).min()
    }

    /// Runs all that is due until `now`, in order of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.feed_radio();
        while let Some(due) = self.poll_at().filter(|due| *due <= now) {
            self.now = self.now.max(due);
            self.radio.handle_timeout(self.now);
            self.drain_radio();
            for end in self.connections.values_mut().flat_map(|c| &mut c.ends) {
                end.handle_timeout(self.now);
            }
            self.feed_radio();
        }
        self.now = self.now.max(now);
    }

    /// Totals so far.
    pub fn counters(&self) -> WorldCounters {
        let mut counters = WorldCounters { radio: self.radio.totals(), ..self.ended };
        self.connections.values().for_each(|connection| counters.add(&connection.ends));
        counters
    }

    /// Gives the controllers what they have room for, a fragment from each connection in turn.
    fn feed_radio(&mut self) {
        loop {
            let mut fed = false;
            for (id, connection) in &mut self.connections {
                for side in SIDES {
                    let node = connection.nodes[side as usize];
                    if connection.ended[side as usize]
                        || !connection.ends[side as usize].has_fragment(self.now)
                        || self.radio.free_buffers(node) == 0
                    {
                        continue;
                    }
                    let octets = usize::from(self.hosts[node.index()].1.acl_octets);
                    let Some((start, fragment)) =
                        connection.ends[side as usize].next_fragment(self.now, octets)
                    else {
                        continue;
                    };
                    // Refused only when the radio has lost the connection; then the fragment is lost too.
                    fed |= self.radio.send(*id, side, start, fragment).is_ok();
                }
            }
            if !fed {
                return;
            }
        }
    }

    fn drain_radio(&mut self) {
        while let Some(event) = self.radio.poll_event() {
            match event {
                RadioEvent::Data { connection, side, start, payload } => {
                    if let Some(c) = self.connections.get_mut(&connection)
                        && !c.ended[side as usize]
                    {
                        c.ends[side as usize].handle_data(self.now, start, &payload, &mut self.rng);
                    }
                }
                RadioEvent::Control { connection, payload, .. } if &payload[..] == TERMINATE => {
                    self.end(connection, &SIDES);
                }
                RadioEvent::Lost { connection, side, .. } => self.end(connection, &[side]),
                RadioEvent::Control { .. } | RadioEvent::Completed { .. } | RadioEvent::Changed { .. } => {}
            }
        }
    }

    fn end(&mut self, id: ConnectionId, sides: &[Side]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for side in sides {
            connection.ended[*side as usize] = true;
        }
        if connection.ended == [true; 2] {
            self.radio.remove(id);
        }
        self.forget_if_over(id);
    }

    /// Drops a connection that has ended for both sides once what it received has been taken.
    fn forget_if_over(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(&id)
            && connection.ended == [true; 2]
            && connection.released == [true; 2]
        {
            self.ended.add(&connection.ends);
            self.connections.remove(&id);
            // Both ends may have disconnected before either heard of it over the air.
            self.radio.remove(id);
        }
    }
}
