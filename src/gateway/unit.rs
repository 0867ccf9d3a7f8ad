//! One database of a gateway: opened, served and synced, closed and opened again after a failure, by one task that answers
//! for all of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::config::{DatabaseConfig, NodeConfig, StoreConfig};
use super::place::{Kind, Place};
use super::status::Board;
use super::upstream::{Supervised, Upstream, Worker};
use super::{GatewayEvent, Tell};
use crate::database::{Database, DatabaseConfig as StoreSettings};
use crate::node::{Admission, Node, PlaceId};
use crate::replicator::RetryPolicy;
use crate::secure::group::GroupSecret;
use crate::task;
use crate::trust::group::Group;

/// The longest pause before a database that failed is opened again.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// How often it is looked whether the database has failed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A database that has worked for so long has not failed at once.
const WORKS_AFTER: Duration = Duration::from_secs(60);

/// What a unit is asked.
pub(super) enum Request {
    /// Do as this says from now on; the answer is what became of it, in lines.
    Configure(Box<DatabaseConfig>, oneshot::Sender<Vec<String>>),
    /// Say that you work.
    Ping(oneshot::Sender<()>),
    /// The syncs of this name, or all: now, or pause, or go on. The answer is how many there are.
    Sync(Order, Option<String>, oneshot::Sender<usize>),
    /// End in order.
    Stop,
}

/// What syncs are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Now,
    Pause,
    Resume,
}

/// A unit that runs.
pub(super) struct Unit {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) board: Board,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl Unit {
    pub(super) fn start(name: &str, config: DatabaseConfig, tell: Tell) -> Unit {
        let (requests, asked) = mpsc::channel(16);
        let board = Board::new(name, &config.store.path.display().to_string());
        let runner = Runner {
            name: name.into(),
            config,
            board: board.clone(),
            tell,
            asked,
            deferred: VecDeque::new(),
            paused: BTreeSet::new(),
        };
        Unit { requests, board, task: task::spawn(runner.run()) }
    }
}

/// How serving has ended.
enum Ended {
    Stop,
    /// Other settings of the database hold.
    Reopen,
    Failed(String),
}

struct Runner {
    name: Arc<str>,
    config: DatabaseConfig,
    board: Board,
    tell: Tell,
    asked: mpsc::Receiver<Request>,
    /// Requests that came while something else had to be waited for.
    deferred: VecDeque<Request>,
    /// Syncs that were paused, by name.
    paused: BTreeSet<String>,
}

/// What runs while the database is open.
struct Serving {
    db: Database,
    node: Node,
    places: BTreeMap<String, PlaceId>,
    syncs: BTreeMap<String, Supervised>,
}

impl Runner {
    /// The next request; `None`: nobody will ask any more. May be dropped without loss.
    async fn next(&mut self) -> Option<Request> {
        match self.deferred.pop_front() {
            Some(request) => Some(request),
            None => self.asked.recv().await,
        }
    }

    /// Waits for what takes its time, as a large database that is opened, and goes on to say that this works.
    async fn wait_for<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(request) = self.asked.recv() => match request {
                    Request::Ping(answer) => drop(answer.send(())),
                    request => self.deferred.push_back(request),
                },
            }
        }
    }

    async fn run(mut self) {
        let mut retry = RetryPolicy::new(None, RETRY_WAIT_MAX);
        loop {
            let began = Instant::now();
            let opening = self.open();
            let error = match self.wait_for(opening).await {
                Ok(db) => match self.serve_open(db).await {
                    Ended::Stop => return,
                    Ended::Reopen => continue,
                    Ended::Failed(error) => error,
                },
                Err(error) => error,
            };
            if began.elapsed() >= WORKS_AFTER {
                retry.succeeded();
            }
            let wait = retry.failed(fastrand::u32(..)).unwrap_or(RETRY_WAIT_MAX);
            self.board.closed(Some(error.clone()));
            let database = Arc::clone(&self.name);
            (self.tell)(&GatewayEvent::DatabaseFailed { database, error, retry: wait });
            if !self.wait(wait).await {
                return;
            }
        }
    }

    /// Waits until it is time to open again; false: it is to end.
    async fn wait(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            let request = tokio::select! {
                request = self.next() => request,
                () = tokio::time::sleep_until(until) => return true,
            };
            match request {
                None | Some(Request::Stop) => return false,
                Some(Request::Ping(answer)) => drop(answer.send(())),
                Some(Request::Sync(order, name, answer)) => {
                    let names = self.sync_names();
                    let _ = answer.send(self.remember(order, name.as_deref(), &names));
                    if order == Order::Now {
                        return true;
                    }
                }
                Some(Request::Configure(config, answer)) => {
                    self.config = *config;
                    self.board.moved(&self.config.store.path.display().to_string());
                    drop(answer.send(vec!["is opened as the new configuration says".into()]));
                    return true;
                }
            }
        }
    }

    fn sync_names(&self) -> Vec<String> {
        self.upstreams().into_keys().collect()
    }

    /// Notes who is paused; gives how many are meant.
    fn remember(&mut self, order: Order, name: Option<&str>, names: &[String]) -> usize {
        let meant: Vec<&String> =
            names.iter().filter(|known| name.is_none_or(|name| name == *known)).collect();
        for name in &meant {
            match order {
                Order::Pause => drop(self.paused.insert((*name).clone())),
                Order::Resume => drop(self.paused.remove(*name)),
                Order::Now => {}
            }
        }
        meant.len()
    }

    fn open(&self) -> impl Future<Output = Result<Database, String>> + use<> {
        let StoreConfig { path, durability, keep_free } = self.config.store.clone();
        let group = self.config.node.group.clone();
        let opened = spawn_blocking(move || {
            let mut settings = StoreSettings::default().with_durability(durability);
            settings.keep_free_bytes = keep_free;
            let db = Database::open(&path, settings)
                .map_err(|error| format!("the database {} cannot be opened: {error}", path.display()))?;
            if let Some(secret) = &group {
                join(&db, secret)?;
            }
            Ok(db)
        });
        async { opened.await.unwrap_or_else(|_| Err("opening the database panicked".into())) }
    }

    /// Serves the database until it fails or is to be closed, and closes it.
    async fn serve_open(&mut self, db: Database) -> Ended {
        self.board.opened(&db);
        (self.tell)(&GatewayEvent::Opened { database: Arc::clone(&self.name), db: db.clone() });
        let ended = loop {
            match self.start(&db).await {
                Ok(mut serving) => match self.serve(&mut serving).await {
                    Some(ended) => {
                        let ending = end(self.board.clone(), serving);
                        self.wait_for(ending).await;
                        break ended;
                    }
                    // Other settings of the node hold.
                    None => {
                        let ending = end(self.board.clone(), serving);
                        self.wait_for(ending).await;
                    }
                },
                Err(error) => break Ended::Failed(error),
            }
        };
        (self.tell)(&GatewayEvent::Closed { database: Arc::clone(&self.name) });
        self.board.closed(None);
        let closed = self.wait_for(spawn_blocking(move || db.close())).await;
        match (ended, closed) {
            (Ended::Stop, Ok(Err(error))) => {
                let (database, error) = (Arc::clone(&self.name), error.to_string());
                (self.tell)(&GatewayEvent::CloseFailed { database, error });
                Ended::Stop
            }
            (ended, _) => ended,
        }
    }

    async fn start(&self, db: &Database) -> Result<Serving, String> {
        let NodeConfig { read_only, trust_all, connections, quota, .. } = self.config.node.clone();
        let admission = if trust_all { Admission::Anybody } else { Admission::Known };
        let mut builder = Node::builder(db.clone())
            .admission(admission)
            .accept_push(!read_only)
            .connections_max(connections)
            .peer_quota(quota);
        if let Some(collections) = choose_collections(db, &self.config.node)? {
            builder = builder.collections(collections);
        }
        let (board, tell, database) = (self.board.clone(), Arc::clone(&self.tell), Arc::clone(&self.name));
        let builder = builder.observe(move |event| {
            board.observe_node(event);
            let database = Arc::clone(&database);
            tell(&GatewayEvent::Node { database, event: Box::new(event.clone()) });
        });
        let node = builder.start().await.map_err(|error| error.to_string())?;
        if node.knows_nobody() {
            (self.tell)(&GatewayEvent::KnowsNobody { database: Arc::clone(&self.name) });
        }
        let mut serving = Serving { db: db.clone(), node, places: BTreeMap::new(), syncs: BTreeMap::new() };
        for (name, (kind, plain)) in self.kinds() {
            self.listen(&mut serving, &name, kind, plain);
        }
        for (name, upstream) in self.upstreams() {
            self.sync(&mut serving, &name, upstream);
        }
        self.board.works();
        Ok(serving)
    }

    /// Everything that is listened on, by name.
    fn kinds(&self) -> BTreeMap<String, (Kind, bool)> {
        let configured = self.config.listeners.iter();
        let configured = configured
            .map(|(name, config)| (name.clone(), (Kind::Configured(Box::new(config.clone())), config.plain)));
        #[allow(unused_mut)]
        let mut kinds: BTreeMap<String, (Kind, bool)> = configured.collect();
        #[cfg(feature = "bluetooth")]
        for (name, config) in self.config.bluetooth.iter().filter(|(_, config)| config.is_peripheral) {
            let place = super::radio::place(&self.name, config, &self.tell);
            kinds.insert(radio_name(name), (Kind::Bluetooth(place), false));
        }
        kinds
    }

    /// Everything that is synced with, by name.
    fn upstreams(&self) -> BTreeMap<String, Upstream> {
        let peers = self.config.upstreams.iter();
        let mut all: BTreeMap<String, Upstream> =
            peers.map(|(name, config)| (name.clone(), Upstream::Peer(Box::new(config.clone())))).collect();
        for (name, config) in self.config.bluetooth.iter().filter(|(_, config)| config.is_central) {
            all.insert(radio_name(name), Upstream::Neighbours(config.clone()));
        }
        all
    }

    fn listen(&self, serving: &mut Serving, name: &str, kind: Kind, plain: bool) {
        let (tell, database) = (Arc::clone(&self.tell), Arc::clone(&self.name));
        let listener: Arc<str> = name.into();
        let place = Place {
            name: name.to_owned(),
            kind,
            directory: serving.db.path().to_owned(),
            board: self.board.clone(),
            own_certificate: Box::new(move |pem| {
                let (database, listener, pem) =
                    (Arc::clone(&database), Arc::clone(&listener), pem.to_owned());
                tell(&GatewayEvent::OwnCertificate { database, listener, pem });
            }),
        };
        self.board.listener(name, &crate::node::Listen::address(&place));
        serving.places.insert(name.to_owned(), serving.node.listen(place, plain));
    }

    fn sync(&self, serving: &mut Serving, name: &str, upstream: Upstream) {
        let worker = Worker {
            database: Arc::clone(&self.name),
            name: name.into(),
            syncs: serving.node.syncs(),
            board: self.board.clone(),
            tell: Arc::clone(&self.tell),
        };
        let paused = self.paused.contains(name);
        serving.syncs.insert(name.to_owned(), Supervised::start(upstream, worker, paused));
    }

    /// Answers until it is to end. `None`: the node is to be started again.
    async fn serve(&mut self, serving: &mut Serving) -> Option<Ended> {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let request = tokio::select! {
                request = self.next() => request,
                _ = look.tick() => match serving.db.failure() {
                    Some(reason) => {
                        let path = serving.db.path().display();
                        let error = format!("database {path}: {reason}; nothing that was acknowledged is lost");
                        return Some(Ended::Failed(error));
                    }
                    None => continue,
                },
            };
            match request {
                None | Some(Request::Stop) => return Some(Ended::Stop),
                Some(Request::Ping(answer)) => drop(answer.send(())),
                Some(Request::Sync(order, name, answer)) => {
                    let _ = answer.send(self.order(serving, order, name.as_deref()));
                }
                Some(Request::Configure(config, answer)) => {
                    let before = std::mem::replace(&mut self.config, *config);
                    if before.store != self.config.store {
                        self.board.moved(&self.config.store.path.display().to_string());
                        drop(answer.send(vec!["closed, and opened as the new configuration says".into()]));
                        return Some(Ended::Reopen);
                    }
                    if before.node != self.config.node {
                        drop(answer.send(vec!["served anew: connections are made again".into()]));
                        return None;
                    }
                    let _ = answer.send(self.apply(serving, &before).await);
                }
            }
        }
    }

    fn order(&mut self, serving: &Serving, order: Order, name: Option<&str>) -> usize {
        let names: Vec<String> = serving.syncs.keys().cloned().collect();
        let meant = self.remember(order, name, &names);
        for (_, sync) in serving.syncs.iter().filter(|(known, _)| name.is_none_or(|name| name == **known)) {
            match order {
                Order::Now => sync.sync_now(),
                Order::Pause => sync.pause(true),
                Order::Resume => sync.pause(false),
            }
        }
        meant
    }

    /// Changes listeners and syncs while all others go on; gives what was done.
    async fn apply(&self, serving: &mut Serving, before: &DatabaseConfig) -> Vec<String> {
        let mut done = Vec::new();
        let kinds = self.kinds();
        let is_same = |name: &str| match name.strip_prefix(RADIO) {
            Some(radio) => before.bluetooth.get(radio) == self.config.bluetooth.get(radio),
            None => before.listeners.get(name) == self.config.listeners.get(name),
        };
        for name in serving.places.keys().cloned().collect::<Vec<_>>() {
            if !kinds.contains_key(&name) || !is_same(&name) {
                if let Some(place) = serving.places.remove(&name) {
                    serving.node.stop_listening(place);
                }
                if !kinds.contains_key(&name) {
                    self.board.forget_listener(&name);
                    done.push(format!("listener {name}: ended"));
                }
            }
        }
        for (name, (kind, plain)) in kinds {
            if !serving.places.contains_key(&name) {
                self.listen(serving, &name, kind, plain);
                done.push(format!("listener {name}: opened as the new configuration says"));
            }
        }
        let upstreams = self.upstreams();
        for name in serving.syncs.keys().cloned().collect::<Vec<_>>() {
            if serving.syncs.get(&name).map(|sync| &sync.upstream) != upstreams.get(&name)
                && let Some(sync) = serving.syncs.remove(&name)
            {
                sync.stop().await;
                if !upstreams.contains_key(&name) {
                    self.board.forget_upstream(&name);
                    done.push(format!("upstream {name}: ended"));
                }
            }
        }
        for (name, upstream) in upstreams {
            if !serving.syncs.contains_key(&name) {
                self.sync(serving, &name, upstream);
                done.push(format!("upstream {name}: started as the new configuration says"));
            }
        }
        done
    }
}

/// Ends what runs, in order.
async fn end(board: Board, serving: Serving) {
    let Serving { node, syncs, places, .. } = serving;
    let names: Vec<String> = syncs.keys().cloned().collect();
    let ending: Vec<_> = syncs.into_values().map(|sync| task::spawn(sync.stop())).collect();
    // Each sync has the same limit.
    let _ = node.shutdown().await;
    for ended in ending {
        let _ = ended.await;
    }
    names.iter().for_each(|name| board.forget_upstream(name));
    places.keys().for_each(|name| board.forget_listener(name));
}

/// What stands before the name of an adapter where listeners and syncs of all kinds are named.
const RADIO: &str = "bluetooth.";

fn radio_name(name: &str) -> String {
    format!("{RADIO}{name}")
}

/// Joins a group, if the database is in none.
fn join(db: &Database, secret: &super::secret::Secret) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("the group cannot be joined: {error}");
    if Group::load(db.path()).map_err(|error| failed(&error))?.is_some() {
        return Ok(());
    }
    let code = secret.line().map_err(|error| failed(&format!("{error}; {}", error.advice())))?;
    let secret = GroupSecret::parse(&code).map_err(|error| failed(&error))?;
    let group = Group::new(None, secret).map_err(|error| failed(&error))?;
    group.store(db.path()).map_err(|error| failed(&error))
}

/// The collections that are named, made if that is wanted; `None`: all.
fn choose_collections(db: &Database, config: &NodeConfig) -> Result<Option<Vec<String>>, String> {
    if config.collections.is_empty() {
        return Ok(None);
    }
    for name in config.collections.iter().filter(|name| db.collection(name).is_none()) {
        if !config.create_collections {
            return Err(format!("there is no collection {name}, and create-collections is false"));
        }
        db.create_collection(name).map_err(|error| format!("collection {name} cannot be made: {error}"))?;
    }
    Ok(Some(config.collections.clone()))
}
