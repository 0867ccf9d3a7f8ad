//! A device: its disk, its clock, and the process that runs our code on it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use fastrand::Rng;
use gattway::database::{Database, DatabaseConfig, Durability};
use gattway::endpoint::{MessageEndpoint, MessageEndpointConnection, ProtocolType};
use gattway::lab::database::{FileLie, SimulatedDisk};
use gattway::lab::link::AttMtu;
use gattway::lab::replica::revision::{SourceId, Versioning};
use gattway::lab::secure::PeerId;
use gattway::lab::simulation::Process;
use gattway::lab::transport::packet::Connector;
use gattway::lab::transport::secure::{Carrier, Incoming, SecureAcceptor, SecureConnectionConfig};
use gattway::lab::transport::session::{LinkAcceptor, LinkConnection, SessionConfig};
use gattway::lab::transport::sim::radio::ConnectionSetup;
use gattway::lab::transport::sim::{HostConfig, SimDevice, SimLink};
use gattway::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};
use gattway::replicator::{Replicator, ReplicatorConfiguration};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::adverse::{Beginning, Copy, Waiting};
use super::files::Files;
use super::model::NodeIndex;
use super::plan::{Bug, Edge, PlanKind};
use super::radio::{Channels, TappedConnector, tap};
use super::removal::{Rules, UPSTREAM};
use super::secure;
use super::store::Watched;
use super::world::{Recorder, World, lock};

/// The wall clock when a run begins, nanoseconds since 1970.
pub const WALL_START_NS: i64 = 1_790_000_000_000_000_000;

/// Longest wait of a replicator between two attempts. Short, so that a run need not be long to see many.
const ATTEMPT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Time that a commit takes on a usual card, before and after its effect.
pub const WORK_TIME: std::ops::Range<Duration> = Duration::ZERO..Duration::from_millis(12);

/// Connections made as central.
pub type Connections = Arc<Mutex<Vec<Weak<LinkConnection>>>>;

/// A device.
pub struct Node {
    pub index: NodeIndex,
    pub device: SimDevice,
    pub disk: SimulatedDisk,
    pub host: HostConfig,
    /// What is added to the true time, nanoseconds.
    pub wall_offset: Arc<AtomicI64>,
    pub running: Option<Running>,
    /// When to start the process again.
    pub boot_at: Option<Instant>,
    /// Gone for good.
    pub vanished: bool,
    /// Whether the power has failed in a write, and nobody has seen to it yet.
    pub power_failed: Arc<Mutex<bool>>,
    /// Saved by its application, and not known to be on stable storage.
    pub waiting: Waiting,
    /// Its files as they were at some moment.
    pub copy: Option<Copy>,
    /// Who may come in, where files say so.
    pub files: Option<Files>,
    /// Counts its processes.
    pub boots: u32,
    /// The newest process, for a power failure that was armed before it began.
    newest: Arc<Mutex<Option<Process>>>,
    channels: Arc<Channels>,
    rng: Rng,
}

/// A process that runs.
pub struct Running {
    pub process: Process,
    pub db: Database,
    pub store: Arc<Watched>,
    pub listener: Arc<MessageEndpointListener>,
    pub replicators: Vec<ActiveEdge>,
    /// The tasks that wait for peers.
    pub accepting: Vec<JoinHandle<()>>,
    /// For their counters.
    pub connections: Connections,
}

/// A replicator of a process.
pub struct ActiveEdge {
    pub edge: Edge,
    pub replicator: Replicator,
    /// When the present run of a one-shot one began.
    pub started: Instant,
    /// What the two sides had then; taken away once it has ended and was checked.
    pub began: Option<Beginning>,
    /// Nobody has looked yet what they have.
    pub has_just_begun: bool,
}

impl Node {
    pub fn new(world: &Arc<World>, index: NodeIndex, channels: &Arc<Channels>, seed: u64) -> Node {
        let mut rng = Rng::with_seed(seed);
        let wall_offset = Arc::new(AtomicI64::new(0));
        let (offset, start) = (Arc::clone(&wall_offset), Instant::now());
        let wall = move || {
            let elapsed = start.elapsed().as_nanos() as i64;
            (WALL_START_NS + elapsed).saturating_add(offset.load(Ordering::Relaxed)).max(0) as u64
        };
        let mut source = [0; 16];
        rng.fill(&mut source);
        let host = HostConfig::default();
        let disk = SimulatedDisk::new(rng.u64(..), SourceId(source), wall);
        disk.set_syncs_lie(world.plan.bug == Some(Bug::SyncLies));
        disk.set_file_lie(match world.plan.bug {
            Some(Bug::BlobsUnsynced) => FileLie::Content,
            Some(Bug::BlobNamesUnsynced) => FileLie::Names,
            _ => FileLie::None,
        });
        world.model().sources.push(SourceId(source));
        Node {
            index,
            device: world.radio.add_device(format!("node-{index}"), host),
            disk,
            host,
            wall_offset,
            running: None,
            boot_at: None,
            vanished: false,
            power_failed: Arc::default(),
            waiting: Waiting::default(),
            copy: None,
            files: Files::new(world),
            boots: 0,
            newest: Arc::default(),
            channels: Arc::clone(channels),
            rng,
        }
    }

    /// Starts the process: opens the database, listens, starts the replicators. `devices` are those of all nodes.
    ///
    /// # Errors
    /// The database cannot be opened, for people.
    pub fn boot(&mut self, world: &Arc<World>, devices: &[SimDevice]) -> Result<(), String> {
        let durability =
            if world.plan.relaxed[self.index] { Durability::Relaxed } else { Durability::Synced };
        let mut config = DatabaseConfig::default();
        config.durability = durability;
        if world.plan.kind == PlanKind::Trees {
            config.versioning = Some(Versioning::RevisionTrees);
        }
        let opened = Database::open_simulated(&self.disk, config);
        let db = opened.map_err(|error| error.to_string())?;
        world.reborn(self.index);
        (self.waiting, self.boots) = (Waiting::default(), self.boots + 1);
        let process = Process::new(self.rng.u64(..));
        process.set_work_time(WORK_TIME);
        *lock(&self.newest) = Some(process.clone());
        let connections = Connections::default();
        let files = self.files.as_mut().map(|files| files.open(&process)).transpose()?;
        let (policy, looking) = files.unzip();
        let plan = &world.plan;
        let seed = self.rng.u64(..);
        let (index, clock) = (self.index, world.clock);
        let secure = |wanted: Option<usize>| {
            // No two share their random numbers.
            let seed = seed ^ wanted.map_or(0, |wanted| wanted as u64 + 1);
            secure::config(plan, index, seed, clock, wanted, policy.clone())
        };
        let store = process.enter(|| Watched::new(db.clone(), world, self.index, &process));
        let (listener, mut accepting, replicators) = process.enter(|| {
            let (listener, accepting) = self.listen(world, &process, &store, secure(None));
            let lied_to = world.plan.lied_to.iter().filter(|_| !world.liar.is_gone());
            let edges = world.plan.edges.iter().chain(lied_to);
            let edges: Vec<Edge> = edges.filter(|edge| edge.active == self.index).copied().collect();
            let replicator = |edge: Edge| {
                let secure = secure(Some(edge.passive));
                self.replicate(world, edge, devices, &store, &connections, secure)
            };
            (listener, accepting, edges.into_iter().map(replicator).collect())
        });
        accepting.extend(looking);
        self.running = Some(Running { process, db, store, listener, replicators, accepting, connections });
        Ok(())
    }

    fn listen(
        &mut self,
        world: &Arc<World>,
        process: &Process,
        store: &Arc<Watched>,
        secure: Option<SecureConnectionConfig>,
    ) -> (Arc<MessageEndpointListener>, Vec<JoinHandle<()>>) {
        let mut config =
            MessageEndpointListenerConfiguration::new(Arc::clone(store) as _, ProtocolType::ByteStream);
        config.extension = world.plan.accepts_extension[self.index];
        let listener = Arc::new(MessageEndpointListener::new(config));
        let seed = Some(self.rng.u64(..));
        let acceptor = LinkAcceptor::new(SessionConfig { seed, ..SessionConfig::on(world.clock) });
        let (mut incoming, node) = (self.device.listen(), self.index);
        let channels_come = process.spawn({
            let (acceptor, world, channels) =
                (acceptor.clone(), Arc::clone(world), Arc::clone(&self.channels));
            async move {
                while let Some(channel) = incoming.accept().await {
                    acceptor.incoming(tap(channel, &world, &channels, Some(node)));
                }
            }
        });
        let sessions_come = process.spawn({
            let listener = Arc::clone(&listener);
            let gate = self.files.as_ref().map(Files::gate).unwrap_or_default();
            let (world, node) = (Arc::clone(world), self.index);
            async move {
                let let_in = |peer: &PeerId| {
                    if *peer == secure::identity(world.plan.seed, world.plan.nodes).id() {
                        world.violation(format!("node {node} lets in {peer}, whom its list denies"));
                    } else if gate.is_closed() {
                        world.violation(format!("node {node} lets {peer} in without its trust list"));
                    }
                };
                accept(acceptor, secure, listener, let_in).await;
            }
        });
        (listener, vec![channels_come, sessions_come])
    }

    fn replicate(
        &mut self,
        world: &Arc<World>,
        edge: Edge,
        devices: &[SimDevice],
        store: &Arc<Watched>,
        connections: &Connections,
        secure: Option<SecureConnectionConfig>,
    ) -> ActiveEdge {
        let mut setup = ConnectionSetup::default();
        setup.parameters.interval = edge.interval;
        let link = SimLink { setup, att_mtu: AttMtu::new(edge.att_mtu) };
        let inner = self.device.connector(&devices[edge.passive], link);
        let device = self.device.clone();
        let reach =
            Arc::new(move |other: &SimDevice| -> Arc<dyn Connector> { device.connector(other, link) });
        let ends = (edge.active, edge.passive);
        let (channels, world_of_tap) = (Arc::clone(&self.channels), Arc::clone(world));
        let connector = Arc::new(TappedConnector { inner, world: world_of_tap, channels, edge: ends, reach });
        let (seed, clock, connections) =
            (AtomicU64::new(self.rng.u64(..)), world.clock, Arc::clone(connections));
        let delegate = move |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> {
            let seed = Some(seed.fetch_add(0x9e37_79b9, Ordering::Relaxed));
            let config = SessionConfig { seed, ..SessionConfig::on(clock) };
            let connection = LinkConnection::central(Arc::clone(&connector) as _, config);
            let mut connections = lock(&connections);
            connections.retain(|connection| connection.strong_count() > 0);
            connections.push(Arc::downgrade(&connection));
            secure::active(connection, secure.as_ref())
        };
        let uid = format!("node-{}", edge.passive);
        let endpoint = MessageEndpoint::new(uid, Arc::new(()), ProtocolType::ByteStream, Arc::new(delegate));
        let mut config = ReplicatorConfiguration::new(endpoint, Arc::clone(store) as _);
        config.continuous = edge.continuous;
        config.collections = vec![edge.selection.config(world.plan.documents, world.plan.bug)];
        config.extension = edge.extension;
        config.max_attempt_wait = ATTEMPT_WAIT_MAX;
        if Rules::confirming(&world.plan.edges, self.index).is_some_and(|first| first.passive == edge.passive)
        {
            config.note_confirmed_as(UPSTREAM);
        }
        config.resolver = Arc::new(Recorder { world: Arc::clone(world), node: self.index });
        let replicator = Replicator::new(config);
        if edge.passive == world.plan.liar() {
            let world = Arc::clone(world);
            replicator.add_document_listener(move |replicated| {
                if replicated.error.is_some() {
                    world.liar.tell();
                }
            });
        }
        replicator.start();
        ActiveEdge { edge, replicator, started: Instant::now(), began: None, has_just_begun: true }
    }

    /// The process dies at once, and what the disk has not synced is at stake.
    pub fn die(&mut self) {
        self.disk.crash();
        if let Some(running) = self.running.take() {
            running.process.kill();
        }
    }

    /// The process dies at once, and what it has written stays in the page cache, which may be given up afterwards.
    pub fn end_life(&mut self, evicts: bool) {
        self.disk.before_syncs(None);
        self.disk.end_life();
        if let Some(running) = self.running.take() {
            running.process.kill();
        }
        if evicts {
            self.disk.evict();
        }
    }

    /// Lets the power fail in one of the next writes.
    pub fn arm_power_failure(&mut self, world: &Arc<World>) {
        if self.running.is_none() {
            return;
        }
        let (newest, failed, world) =
            (Arc::clone(&self.newest), Arc::clone(&self.power_failed), Arc::clone(world));
        self.disk.fail_power_after(self.rng.u64(1..=20), move || {
            lock(&newest).iter().for_each(Process::kill);
            *lock(&failed) = true;
            world.attention.notify_one();
        });
    }

    /// Changes the faults of its host.
    pub fn set_host(&mut self, change: impl FnOnce(&mut HostConfig)) {
        change(&mut self.host);
        self.device.set_host(self.host);
    }

    /// Whether the process runs.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }
}

/// Gives the listener each peer that may come in.
async fn accept(
    acceptor: LinkAcceptor,
    secure: Option<SecureConnectionConfig>,
    listener: Arc<MessageEndpointListener>,
    let_in: impl Fn(&PeerId),
) {
    let Some(secure) = secure.map(SecureAcceptor::new) else {
        while let Some(connection) = acceptor.next().await {
            // One more than it takes is dropped, which closes it.
            let _ = listener.accept(connection);
        }
        return;
    };
    loop {
        tokio::select! {
            biased;
            connection = acceptor.next() => match connection {
                Some(connection) => secure.incoming(Carrier::Link(connection), "radio"),
                None => return,
            },
            incoming = secure.next() => match incoming {
                Some(Incoming::Accepted(accepted)) => {
                    let_in(&accepted.established.peer);
                    drop(listener.accept(accepted.connection));
                }
                Some(Incoming::Refused { .. }) => {}
                None => return,
            },
        }
    }
}
