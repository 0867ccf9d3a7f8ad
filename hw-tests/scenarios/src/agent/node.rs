//! One node: a device with one adapter, its sessions and databases, and what it is asked to do.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gattway::database::Database;
use gattway::endpoint::MessageEndpointConnection;
use gattway::lab::transport::bluez::profile::PROFILE_VERSION;
use gattway::lab::transport::packet::PacketChannel;
use gattway::lab::transport::session::{LinkAcceptor, LinkConnection, SessionConfig};
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::protocol::{Air, Command, Cost, Identity, Opened, Said, Service, Usage, Way};
use super::radio::{NodeRadio, Sessions};
use super::replication::{ActiveSync, Watch, passive};
use super::session::{ByteSession, sample};
use super::turns::{Once, Turns, User};
use super::{Result, fail, raw, store};

/// How often the counters of a session are told.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
/// With every how many of these the signal strength is asked for.
const SIGNAL_EVERY: u32 = 10;
/// Time for the orderly end of anything.
const END_LIMIT: Duration = Duration::from_secs(60);
/// For a session that has to wait for its turn: it must not take that for a loss.
const PATIENCE: Duration = Duration::from_secs(600);
/// Number of another profile version.
const WRONG_PROFILE: u8 = PROFILE_VERSION + 8;

const NO_TURNS: &str = "there is no channel for turns";

/// A node.
pub struct Node {
    index: u32,
    radio: NodeRadio,
    directory: PathBuf,
    session: SessionConfig,
    said: mpsc::UnboundedSender<Said>,
    sessions: Mutex<HashMap<u32, Arc<ByteSession>>>,
    next_session: AtomicU32,
    databases: Mutex<HashMap<String, Database>>,
    listening: AsyncMutex<Option<Listening>>,
    accepted: AsyncMutex<Option<mpsc::Receiver<Arc<ByteSession>>>>,
    sync: Mutex<Option<Arc<ActiveSync>>>,
    /// The channel that raw packets and a session share, and the raw packets' end of it if this is a central.
    turns: Arc<Mutex<Option<Turns>>>,
    raw: AsyncMutex<Option<PacketChannel>>,
}

/// A peripheral at work; dropping it ends it.
struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// No change under these locks can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))
}

impl Node {
    /// A node that does nothing yet. Its databases are in `directory`; counters go to `said`.
    pub fn new(
        index: u32,
        radio: NodeRadio,
        directory: PathBuf,
        session: SessionConfig,
        said: mpsc::UnboundedSender<Said>,
    ) -> Arc<Node> {
        Arc::new(Node {
            index,
            radio,
            directory,
            session,
            said,
            sessions: Mutex::default(),
            next_session: AtomicU32::new(1),
            databases: Mutex::default(),
            listening: AsyncMutex::default(),
            accepted: AsyncMutex::default(),
            sync: Mutex::default(),
            turns: Arc::default(),
            raw: AsyncMutex::default(),
        })
    }

    /// Does what is asked.
    pub async fn handle(self: &Arc<Node>, command: Command) -> Result<Value> {
        Ok(match command {
            Command::Identity => json!(Identity { address: self.radio.address().await? }),
            Command::Scan { peer, seconds: s } => json!(self.radio.scan(&peer, seconds(s)).await?),
            Command::Listen { service, l2cap, database } => self.listen(service, l2cap, &database).await?,
            Command::StopListening => {
                *self.listening.lock().await = None;
                Value::Null
            }
            Command::Accept { seconds: s } => self.accept(seconds(s)).await?,
            Command::Dial { peer, ways } => self.dial(&peer, ways).await?,
            Command::Send { session, bytes, seed, message_bytes } => {
                json!(self.session(session)?.send(bytes, seed, message_bytes).await?)
            }
            Command::Receive { session, bytes, seed, offset } => {
                json!(self.session(session)?.receive(bytes, seed, offset).await?)
            }
            Command::Ping { session, count, bytes } => {
                json!(self.session(session)?.ping(count, bytes).await?)
            }
            Command::Echo { session, count, bytes } => {
                json!(self.session(session)?.echo(count, bytes).await?)
            }
            Command::Close { session } => {
                let session = self.session(session)?;
                timeout(END_LIMIT, session.connection.close(None))
                    .await
                    .map_err(|_| "the close took too long")??;
                Value::Null
            }
            Command::WaitClosed { session, seconds: s } => {
                json!(self.session(session)?.wait_closed(seconds(s)).await?)
            }
            Command::Stats { session } => json!(sample(session, &self.session(session)?.connection.stats())),
            Command::RawRun { peer, way, packets } => {
                let began = std::time::Instant::now();
                let channel = self.radio.dialer(&peer, vec![way]).connect().await?;
                json!(raw::run(channel, began.elapsed().as_secs_f64(), packets).await?)
            }
            Command::DialTurns { peer, way } => self.dial_turns(&peer, way).await?,
            Command::Turn { raw } => {
                let user = if raw { User::Raw } else { User::Session };
                lock(&self.turns).as_ref().ok_or(NO_TURNS)?.give(user);
                Value::Null
            }
            Command::RawTurn { up, packets } => {
                let mut raw = self.raw.lock().await;
                let channel = raw.as_mut().ok_or(NO_TURNS)?;
                json!(if up { raw::up(channel, packets).await? } else { raw::down(channel, packets).await? })
            }
            Command::EndTurns => {
                *self.raw.lock().await = None;
                *lock(&self.turns) = None;
                Value::Null
            }
            Command::Cost => json!(cost()),
            // Saves wait for stable storage.
            Command::Import { database, records } => {
                let database = self.database(&database)?;
                json!(tokio::task::spawn_blocking(move || store::import(&database, records)).await??)
            }
            Command::Put { database, document, body } => {
                let database = self.database(&database)?;
                let put = move || database.default_collection()?.put(&document, &body);
                json!(tokio::task::spawn_blocking(put).await??)
            }
            Command::WaitFor { database, document, seconds: s } => {
                json!(store::wait_for(&self.database(&database)?, &document, seconds(s)).await?)
            }
            Command::Digest { database } => {
                let database = self.database(&database)?;
                json!(tokio::task::spawn_blocking(move || store::digest(&database)).await??)
            }
            Command::Sync { database, peer, way, continuous } => {
                let connector = self.radio.dialer(&peer, vec![way]);
                let database = self.database(&database)?;
                let sync =
                    ActiveSync::start(&database, &peer, connector, continuous, self.session, self.watch());
                *lock(&self.sync) = Some(Arc::new(sync));
                Value::Null
            }
            Command::WaitSynced { seconds: s } => json!(self.sync()?.wait_synced(seconds(s)).await?),
            Command::WaitDocuments { documents, seconds: s } => {
                json!(self.sync()?.wait_documents(documents, seconds(s)).await?)
            }
            Command::StopSync => json!(self.sync()?.stop(END_LIMIT).await?),
            Command::Power { on } => json!(self.radio.power(on).await?),
            Command::Probe => json!(self.radio.probe().await?),
            Command::Air => {
                let air = self.radio.status().await.into_iter().map(|status| Air {
                    text: status.to_string(),
                    packet_bytes: status.packet_bytes as u64,
                    att_mtu: status.att_mtu,
                    interval_ms: status.interval_ms,
                    rssi_dbm: status.rssi_dbm,
                });
                json!(air.collect::<Vec<_>>())
            }
            Command::Usage => json!(Usage { rss_kib: rss_kib(), connected: self.radio.connected().await? }),
            Command::Quit => {
                self.end().await;
                Value::Null
            }
            _ => return fail("not a request for a node"),
        })
    }

    /// Ends everything in order, or at least soon.
    pub async fn end(&self) {
        let sync = lock(&self.sync).take();
        if let Some(sync) = sync {
            let _ = sync.stop(END_LIMIT).await;
        }
        let sessions: Vec<_> = lock(&self.sessions).drain().map(|(_, session)| session).collect();
        for session in sessions {
            let _ = timeout(END_LIMIT, session.connection.close(None)).await;
        }
        *self.raw.lock().await = None;
        *self.listening.lock().await = None;
        lock(&self.databases).clear();
    }

    fn session(&self, number: u32) -> Result<Arc<ByteSession>> {
        Ok(lock(&self.sessions).get(&number).cloned().ok_or_else(|| format!("no session {number}"))?)
    }

    fn sync(&self) -> Result<Arc<ActiveSync>> {
        Ok(lock(&self.sync).clone().ok_or("no replication was started")?)
    }

    fn database(&self, name: &str) -> Result<Database> {
        let mut databases = lock(&self.databases);
        if let Some(database) = databases.get(name) {
            return Ok(database.clone());
        }
        let database = store::open(&self.directory.join(name))?;
        databases.insert(name.to_owned(), database.clone());
        Ok(database)
    }

    /// Tells the counters of a connection now and then, as long as it lives; gives its number.
    fn observe(self: &Arc<Node>, connection: &Arc<LinkConnection>) -> u32 {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        let (weak, node, said) = (Arc::downgrade(connection), self.index, self.said.clone());
        let radio = self.radio.clone();
        tokio::spawn(async move {
            for count in 0u32.. {
                let Some(connection) = weak.upgrade() else { return };
                let stats = connection.stats();
                drop(connection);
                let mut sample = sample(number, &stats);
                if count.is_multiple_of(SIGNAL_EVERY) {
                    sample.rssi_dbm = radio.status().await.first().and_then(|status| status.rssi_dbm);
                }
                if stats.session.is_some() && said.send(Said::Sample { node, sample }).is_err() {
                    return;
                }
                if stats.state.is_final() {
                    return;
                }
                tokio::time::sleep(SAMPLE_INTERVAL).await;
            }
        });
        number
    }

    fn watch(self: &Arc<Node>) -> Watch {
        let node = Arc::downgrade(self);
        Arc::new(move |connection| {
            if let Some(node) = node.upgrade() {
                node.observe(connection);
            }
        })
    }

    fn keep(self: &Arc<Node>, session: &Arc<ByteSession>, seconds: f64) -> Value {
        let number = self.observe(&session.connection);
        lock(&self.sessions).insert(number, Arc::clone(session));
        json!(Opened { session: number, label: session.connection.stats().label, seconds })
    }

    async fn dial(self: &Arc<Node>, peer: &str, ways: Vec<Way>) -> Result<Value> {
        let began = std::time::Instant::now();
        let connection = LinkConnection::central(self.radio.dialer(peer, ways), self.session);
        let session = Arc::new(ByteSession::open(connection).await?);
        Ok(self.keep(&session, began.elapsed().as_secs_f64()))
    }

    async fn dial_turns(self: &Arc<Node>, peer: &str, way: Way) -> Result<Value> {
        let began = std::time::Instant::now();
        let channel = self.radio.dialer(peer, vec![way]).connect().await?;
        let (turns, mut raw, rest) = Turns::split(channel, false);
        raw::begin(&mut raw).await?;
        turns.give(User::Session);
        let connection = LinkConnection::central(Once::new(rest), patient(self.session));
        let session = Arc::new(ByteSession::open(connection).await?);
        *lock(&self.turns) = Some(turns);
        *self.raw.lock().await = Some(raw);
        Ok(self.keep(&session, began.elapsed().as_secs_f64()))
    }

    async fn accept(self: &Arc<Node>, limit: Duration) -> Result<Value> {
        let mut accepted = self.accepted.lock().await;
        let accepted = accepted.as_mut().ok_or("the node does not listen for sessions")?;
        match timeout(limit, accepted.recv()).await {
            Ok(Some(session)) => Ok(self.keep(&session, 0.0)),
            Ok(None) => fail("the node listens no more"),
            Err(_) => fail(format!("no central has come within {} s", limit.as_secs())),
        }
    }

    async fn listen(self: &Arc<Node>, service: Service, l2cap: bool, database: &str) -> Result<Value> {
        let mut listening = self.listening.lock().await;
        *listening = None;
        let task = match service {
            Service::Raw => tokio::spawn(serve_raw(self.radio.raw(PROFILE_VERSION).await?)),
            Service::WrongVersion => tokio::spawn(serve_raw(self.radio.raw(WRONG_PROFILE).await?)),
            Service::Bytes => {
                let sessions = self.radio.sessions(l2cap, self.session).await?;
                let (sender, receiver) = mpsc::channel(16);
                *self.accepted.lock().await = Some(receiver);
                tokio::spawn(serve_bytes(sessions, sender))
            }
            Service::Turns => {
                let channels = self.radio.raw(PROFILE_VERSION).await?;
                let (sender, receiver) = mpsc::channel(16);
                *self.accepted.lock().await = Some(receiver);
                let acceptor = LinkAcceptor::new(patient(self.session));
                tokio::spawn(serve_turns(channels, acceptor, Arc::clone(&self.turns), sender))
            }
            Service::Sync => {
                let database = self.database(database)?;
                let sessions = self.radio.sessions(l2cap, self.session).await?;
                tokio::spawn(serve_sync(sessions, database, self.watch()))
            }
        };
        *listening = Some(Listening(task));
        Ok(Value::Null)
    }
}

fn patient(mut config: SessionConfig) -> SessionConfig {
    config.link.keep_alive = Some(PATIENCE);
    config.link.dead_after = 2 * PATIENCE;
    config
}

async fn serve_turns(
    mut channels: mpsc::Receiver<PacketChannel>,
    acceptor: LinkAcceptor,
    current: Arc<Mutex<Option<Turns>>>,
    accepted: mpsc::Sender<Arc<ByteSession>>,
) {
    let mut answering = tokio::task::JoinSet::new();
    loop {
        let connection = tokio::select! {
            Some(channel) = channels.recv() => {
                let (turns, raw, session) = Turns::split(channel, true);
                *lock(&current) = Some(turns);
                answering.spawn(raw::answer(raw));
                acceptor.incoming(session);
                continue;
            }
            Some(connection) = acceptor.next() => connection,
            else => return,
        };
        match ByteSession::open(connection).await {
            Ok(session) => {
                if accepted.send(Arc::new(session)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "a session of a central"),
        }
    }
}

async fn serve_raw(mut channels: mpsc::Receiver<PacketChannel>) {
    let mut answering = tokio::task::JoinSet::new();
    while let Some(channel) = channels.recv().await {
        answering.spawn(async move {
            let label = channel.label.clone();
            if let Err(error) = raw::answer(channel).await {
                tracing::debug!(label, %error, "raw packets");
            }
        });
    }
}

async fn serve_bytes(sessions: Sessions, accepted: mpsc::Sender<Arc<ByteSession>>) {
    while let Some(connection) = sessions.accept().await {
        match ByteSession::open(connection).await {
            Ok(session) => {
                if accepted.send(Arc::new(session)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "a session of a central"),
        }
    }
}

async fn serve_sync(sessions: Sessions, database: Database, watch: Watch) {
    let listener = passive(&database);
    while let Some(connection) = sessions.accept().await {
        watch(&connection);
        let connection: Arc<dyn MessageEndpointConnection> = connection;
        if let Err(error) = listener.accept(connection) {
            tracing::warn!(%error, "a session of a central");
        }
    }
}

/// Resident memory of this process, KiB.
fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What this process has cost.
fn cost() -> Cost {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_us =
        u64::try_from(cpu.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(cpu.tv_nsec).unwrap_or(0) / 1_000;
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let status = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    let switches = status.flat_map(|status| status.lines().filter_map(switched).collect::<Vec<_>>()).sum();
    Cost { pid: std::process::id(), cpu_us, switches }
}

/// The number in a line such as `voluntary_ctxt_switches: 7`.
fn switched(line: &str) -> Option<u64> {
    let (name, count) = line.split_once(':')?;
    if name.ends_with("voluntary_ctxt_switches") { count.trim().parse().ok() } else { None }
}
