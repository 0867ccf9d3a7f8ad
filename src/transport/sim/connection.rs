//! The modelled radio for async code: devices that listen and connect, channels of packets between them, and faults on
//! command.
//!
//! One task moves the model along; the ends of a connection talk to it under one lock. It runs on a [`Clock`]: real
//! time, scaled time, or tokio's paused time.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use super::host::HostConfig;
use super::radio::{ConnectionId, ConnectionSetup, NodeConfig, NodeId, Path, RadioError, Side, ceiling};
use super::world::{World, WorldCounters};
use crate::link::AttMtu;
use crate::transport::clock::Clock;
use crate::transport::packet::{Connector, PacketChannel, PacketSink, PacketSource};

/// Connections that wait to be accepted by a listener.
const ACCEPT_QUEUE: usize = 8;
/// Time to find an advertising device, connect, exchange the MTU and subscribe.
pub(super) const CONNECT_TIME: Duration = Duration::from_millis(150);
/// Time after which a device that is not there or does not listen counts as not found.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks for a device.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// How connections from one device to another are made.
#[derive(Clone, Copy, Debug)]
pub struct SimLink {
    /// What the controllers agree on.
    pub setup: ConnectionSetup,
    /// What the hosts agree on.
    pub att_mtu: AttMtu,
}

impl SimLink {
    /// The defaults of the model (2M, 251 octets, 30 ms) with this ATT MTU.
    pub fn new(att_mtu: AttMtu) -> SimLink {
        SimLink { setup: ConnectionSetup::default(), att_mtu }
    }

    /// The most that a connection like this carries over `path`, in bytes of packets per second.
    ///
    /// # Errors
    /// The setup is outside the specification.
    pub fn ceiling(&self, path: Path, from: Side) -> Result<f64, RadioError> {
        ceiling(&self.setup, path, from, self.att_mtu.packet_size().bytes())
    }
}

/// A radio with its devices. Clones are the same radio; it stops when the last of them, and of its devices, is dropped.
#[derive(Clone)]
pub struct SimRadio {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Something was done that may be due earlier than what the task sleeps for.
    changed: Arc<Notify>,
    clock: Clock,
}

struct State {
    world: World,
    names: Vec<String>,
    listeners: BTreeMap<NodeId, mpsc::Sender<PacketChannel>>,
    wakers: BTreeMap<(ConnectionId, Side), Wakers>,
}

#[derive(Default)]
struct Wakers {
    receive: Option<Waker>,
    send: Option<Waker>,
}

impl SimRadio {
    /// Starts a radio; `seed` decides every loss. Needs a tokio runtime.
    pub fn new(seed: u64, clock: Clock) -> SimRadio {
        let state = State {
            world: World::new(seed),
            names: Vec::new(),
            listeners: BTreeMap::new(),
            wakers: BTreeMap::new(),
        };
        let changed = Arc::new(Notify::new());
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Arc::clone(&changed), clock });
        tokio::spawn(run(Arc::downgrade(&shared), changed, clock));
        SimRadio { shared }
    }

    /// The clock that the radio runs on.
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// Adds a device with a usual controller.
    pub fn add_device(&self, name: impl Into<String>, host: HostConfig) -> SimDevice {
        let mut state = self.shared.lock();
        let node = state.world.add_device(host, NodeConfig::default());
        state.names.push(name.into());
        SimDevice { radio: self.clone(), node }
    }

    /// Sets how well two devices hear each other: range, signal strength, loss.
    pub fn set_path(&self, a: &SimDevice, b: &SimDevice, path: Path) {
        self.shared.act(|state| state.world.set_path(a.node, b.node, path));
    }

    /// Breaks all connections between two devices at once; both ends notice immediately.
    pub fn cut(&self, a: &SimDevice, b: &SimDevice) {
        self.shared.act(|state| state.world.break_connections(a.node, b.node));
    }

    /// Totals since the radio was made.
    pub fn counters(&self) -> WorldCounters {
        self.shared.lock().world.counters()
    }
}

/// A device on a [`SimRadio`]. Clones are the same device.
#[derive(Clone)]
pub struct SimDevice {
    radio: SimRadio,
    node: NodeId,
}

impl SimDevice {
    /// Changes the host: its queues, latency and faults.
    pub fn set_host(&self, config: HostConfig) {
        self.radio.shared.act(|state| state.world.set_host(self.node, config));
    }

    /// The clock of its radio.
    pub fn clock(&self) -> Clock {
        self.radio.clock()
    }

    /// Advertises, so that others can connect, until the listener is dropped. A second listener replaces the first.
    pub fn listen(&self) -> SimListener {
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        self.radio.shared.lock().listeners.insert(self.node, sender);
        SimListener { receiver }
    }

    /// Connects to `peer` each time it is asked.
    pub fn connector(&self, peer: &SimDevice, link: SimLink) -> Arc<SimConnector> {
        Arc::new(SimConnector { central: self.clone(), peripheral: peer.clone(), link: Mutex::new(link) })
    }
}

/// Connections that came in.
pub struct SimListener {
    receiver: mpsc::Receiver<PacketChannel>,
}

impl SimListener {
    /// The next connection; `None` when the radio is gone or another listener has taken over.
    pub async fn accept(&mut self) -> Option<PacketChannel> {
        self.receiver.recv().await
    }
}

/// Makes connections between two devices.
pub struct SimConnector {
    central: SimDevice,
    peripheral: SimDevice,
    link: Mutex<SimLink>,
}

impl SimConnector {
    /// The clock of its radio.
    pub fn clock(&self) -> Clock {
        self.central.radio.clock()
    }

    /// The name of the device that it connects to.
    pub fn peer_name(&self) -> String {
        self.central.radio.shared.lock().names[self.peripheral.node.index()].clone()
    }

    /// What the next connection is like; a connection that exists stays as it is.
    pub fn set_link(&self, link: SimLink) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn try_connect(&self) -> io::Result<Option<PacketChannel>> {
        let link = *self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &self.central.radio.shared;
        let nodes = [self.central.node, self.peripheral.node];
        let mut state = shared.lock();
        let Some(place) =
            (state.listeners.get(&nodes[1])).and_then(|listener| listener.clone().try_reserve_owned().ok())
        else {
            return Ok(None);
        };
        if !state.world.path(nodes[0], nodes[1]).reachable {
            return Ok(None);
        }
        let now = shared.advance(&mut state);
        let id = (state.world.connect(now, nodes[0], nodes[1], &link.setup))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let size = link.att_mtu.packet_size();
        let names = nodes.map(|node| state.names[node.index()].clone());
        drop(state);
        let channel = |side: Side, label: &String| {
            let end = Arc::new(End { shared: Arc::clone(shared), connection: id, side });
            let (sink, source) = (SimSink(Arc::clone(&end)), SimSource(end));
            PacketChannel {
                sink: Box::new(sink),
                source: Box::new(source),
                size,
                label: format!("sim:{label}"),
            }
        };
        place.send(channel(Side::Peripheral, &names[0]));
        shared.changed.notify_one();
        Ok(Some(channel(Side::Central, &names[1])))
    }
}

#[async_trait]
impl Connector for SimConnector {
    async fn connect(&self) -> io::Result<PacketChannel> {
        let clock = self.central.radio.clock();
        let give_up = clock.now() + CONNECT_TIMEOUT;
        clock.sleep(CONNECT_TIME).await;
        loop {
            if let Some(channel) = self.try_connect()? {
                return Ok(channel);
            }
            if clock.now() >= give_up {
                let message = "the device was not found: out of range, or it does not listen";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            clock.sleep(SCAN_INTERVAL).await;
        }
    }
}

/// One end of a connection, shared by its two halves. Disconnects when both are gone.
struct End {
    shared: Arc<Shared>,
    connection: ConnectionId,
    side: Side,
}

impl Drop for End {
    fn drop(&mut self) {
        self.shared.act(|state| {
            state.world.disconnect(self.connection, self.side);
            state.wakers.remove(&(self.connection, self.side));
        });
    }
}

struct SimSink(Arc<End>);
struct SimSource(Arc<End>);

impl PacketSink for SimSink {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        let end = &self.0;
        let mut state = end.shared.lock();
        let now = end.shared.advance(&mut state);
        match state.world.send(now, end.connection, end.side, packet) {
            None => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the radio connection is lost")))
            }
            Some(true) => {
                drop(state);
                end.shared.changed.notify_one();
                Poll::Ready(Ok(()))
            }
            Some(false) => {
                state.wakers.entry((end.connection, end.side)).or_default().send = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl PacketSource for SimSource {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        let end = &self.0;
        let mut state = end.shared.lock();
        let now = end.shared.advance(&mut state);
        if let Some(received) = state.world.receive(now, end.connection, end.side) {
            let length = received.len().min(packet.len());
            packet[..length].copy_from_slice(&received[..length]);
            return Poll::Ready(Ok(length));
        }
        if !state.world.is_connected(end.connection, end.side) {
            return Poll::Ready(Ok(0));
        }
        state.wakers.entry((end.connection, end.side)).or_default().receive = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Shared {
    /// No panic can leave the state half changed: the model has none that a peer or a caller can reach.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the model to now.
    fn advance(&self, state: &mut State) -> crate::time::Instant {
        let now = self.clock.now();
        state.world.handle_timeout(now);
        now
    }

    /// Does something to the model and lets everybody see what came of it.
    fn act<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        self.advance(&mut state);
        let result = action(&mut state);
        let wakers = state.ready_wakers(self.clock.now());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_one();
        result
    }
}

impl State {
    /// The tasks whose wait is over.
    fn ready_wakers(&mut self, now: crate::time::Instant) -> Vec<Waker> {
        let mut ready = Vec::new();
        for ((connection, side), wakers) in &mut self.wakers {
            let ended = !self.world.is_connected(*connection, *side);
            if ended || self.world.can_receive(now, *connection, *side) {
                ready.extend(wakers.receive.take());
            }
            if ended || self.world.can_send(*connection, *side) {
                ready.extend(wakers.send.take());
            }
        }
        ready
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The task finds out that there is nothing left to move.
        self.changed.notify_one();
    }
}

/// Moves the model along until nobody holds it any more.
async fn run(shared: Weak<Shared>, changed: Arc<Notify>, clock: Clock) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let (wakers, next) = {
            let mut state = strong.lock();
            let now = strong.advance(&mut state);
            (state.ready_wakers(now), state.world.poll_at())
        };
        drop(strong);
        wakers.into_iter().for_each(Waker::wake);
        tokio::select! {
            biased;
            () = clock.sleep_until_some(next) => {}
            () = changed.notified() => {}
        }
    }
}
