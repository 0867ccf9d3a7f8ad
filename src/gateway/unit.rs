//! One database of a gateway: opened, served and synced, closed and opened again after a failure, by one task that answers
//! for all of it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::board::Board;
use super::config::{DatabaseConfig, StoreConfig};
use super::secret::Secret;
use super::serving::{Context, Serving, sync_names};
use super::upstream::Order;
use super::{GatewayEvent, Tell};
use crate::database::{Database, DatabaseConfig as StoreSettings};
use crate::replicator::RetryPolicy;
use crate::secure::group::GroupSecret;
use crate::task;
use crate::trust::group::Group;

/// The longest pause before a database that failed is opened again.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

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
    /// Let go of the adapters as a place where peers come in, or listen there again.
    LendRadio(bool, oneshot::Sender<()>),
    /// End in order.
    Stop,
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
                    Request::Ping(answer) | Request::LendRadio(_, answer) => drop(answer.send(())),
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
                Some(Request::Ping(answer) | Request::LendRadio(_, answer)) => drop(answer.send(())),
                Some(Request::Sync(order, name, answer)) => {
                    let _ = answer.send(self.remember(order, name.as_deref()));
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

    /// Notes who is paused; gives how many are meant.
    fn remember(&mut self, order: Order, name: Option<&str>) -> usize {
        let names = sync_names(&self.config);
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
        let StoreConfig { path, durability, commit_delay, keep_free } = self.config.store.clone();
        let group = self.config.node.group.clone();
        let opened = spawn_blocking(move || {
            let settings =
                StoreSettings { durability, commit_delay, keep_free_bytes: keep_free, ..Default::default() };
            let db = Database::open(&path, settings)
                .map_err(|error| format!("the database {} cannot be opened: {error}", path.display()))?;
            if let Some(secret) = &group {
                join(&db, secret)?;
            }
            Ok(db)
        });
        async { opened.await.unwrap_or_else(|_| Err("opening the database panicked".into())) }
    }

    async fn start(&mut self, db: &Database) -> Result<Serving, String> {
        let (name, board, tell) = (Arc::clone(&self.name), self.board.clone(), Arc::clone(&self.tell));
        let (config, paused) = (self.config.clone(), self.paused.clone());
        let context = Context { name, board, tell };
        self.wait_for(Serving::start(context, db, &config, paused)).await
    }

    /// Serves the database until it fails or is to be closed, and closes it.
    async fn serve_open(&mut self, db: Database) -> Ended {
        self.board.opened(&db);
        (self.tell)(&GatewayEvent::Opened { database: Arc::clone(&self.name), db: db.clone() });
        let ended = loop {
            match self.start(&db).await {
                Ok(mut serving) => {
                    let ended = self.serve(&mut serving).await;
                    // What waits to be synced with others would hold up the end.
                    db.gather(false);
                    self.wait_for(serving.end()).await;
                    if let Some(ended) = ended {
                        break ended;
                    }
                    // Other settings of the node hold.
                    db.gather(true);
                }
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

    /// Answers until it is to end. `None`: the node is to be started again.
    async fn serve(&mut self, serving: &mut Serving) -> Option<Ended> {
        let (mut changed, mut is_radio_lent) = (serving.watch(), false);
        loop {
            // A write that fails is told of as a change; what a read found is seen when somebody asks whether this works.
            if let Some(error) = serving.failure() {
                return Some(Ended::Failed(error));
            }
            if serving.is_outdated() && !is_radio_lent {
                tracing::info!(database = %self.name, "collections have come or gone: connections are made again");
                let config = self.config.clone();
                if let Err(error) = self.wait_for(serving.renew_node(&config)).await {
                    return Some(Ended::Failed(error));
                }
            }
            let request = tokio::select! {
                request = self.next() => request,
                Ok(()) = changed.changed() => continue,
            };
            match request {
                None | Some(Request::Stop) => return Some(Ended::Stop),
                Some(Request::Ping(answer)) => drop(answer.send(())),
                Some(Request::LendRadio(lent, answer)) => {
                    serving.lend_radio(lent, &self.config);
                    is_radio_lent = lent;
                    let _ = answer.send(());
                }
                Some(Request::Sync(order, name, answer)) => {
                    serving.order(order, name.as_deref());
                    let _ = answer.send(self.remember(order, name.as_deref()));
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
                    let _ = answer.send(serving.apply(&self.config, &before).await);
                }
            }
        }
    }
}

/// Joins a group, if the database is in none.
fn join(db: &Database, secret: &Secret) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("the group cannot be joined: {error}");
    if Group::load(db.path()).map_err(|error| failed(&error))?.is_some() {
        return Ok(());
    }
    let code = secret.line().map_err(|error| failed(&format!("{error}; {}", error.advice())))?;
    let secret = GroupSecret::parse(&code).map_err(|error| failed(&error))?;
    let group = Group::new(None, secret).map_err(|error| failed(&error))?;
    group.store(db.path()).map_err(|error| failed(&error))
}
