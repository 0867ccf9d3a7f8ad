//! One sync of a gateway, kept going: with an upstream, or with all neighbours of an adapter.
//!
//! A continuous sync tries again by itself while its peer is out of reach. It ends where trying again is of no use as things
//! stand (a wrong password, a file that is missing); then it is made anew from the configuration after a while, for somebody
//! may have put that right.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::GatewayEvent;
use super::Tell;
use super::address::PlaceAddress;
use super::board::Board;
use super::config::{BluetoothConfig, UpstreamConfig};
use super::status::now_s;
use crate::node::{CLOSING_LIMIT, SyncBuilder, SyncHandle, SyncOptions, SyncTarget, Syncs};
use crate::replicator::{ReplicatorType, RetryPolicy};
use crate::task;

/// The longest pause before a sync that has ended is made anew.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// What is synced with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Upstream {
    Peer(Box<UpstreamConfig>),
    /// All neighbours that an adapter hears.
    Neighbours(Vec<BluetoothConfig>),
}

/// What syncs are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Now,
    Pause,
    Resume,
}

/// What it is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Orders {
    stop: bool,
    paused: bool,
    /// Counts how often it was told to sync now.
    now: u64,
}

/// A sync that is kept going, until dropped or stopped.
pub(super) struct Supervised {
    pub(super) upstream: Upstream,
    orders: watch::Sender<Orders>,
    task: tokio::task::JoinHandle<()>,
}

impl Supervised {
    /// Begins.
    pub(super) fn start(upstream: Upstream, worker: Worker, paused: bool) -> Supervised {
        let (orders, told) = watch::channel(Orders { paused, ..Orders::default() });
        worker.board.upstream(&worker.name, &upstream.address());
        let task = task::spawn(worker.run(upstream.clone(), told));
        Supervised { upstream, orders, task }
    }

    /// It makes no connection until it is told to go on, or goes on.
    pub(super) fn pause(&self, paused: bool) {
        self.orders.send_if_modified(|orders| std::mem::replace(&mut orders.paused, paused) != paused);
    }

    /// It does not wait for its time, or until a failure is over.
    pub(super) fn sync_now(&self) {
        self.orders.send_modify(|orders| orders.now += 1);
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) {
        self.orders.send_modify(|orders| orders.stop = true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Where it is, for people.
    pub(super) fn address(&self) -> String {
        match self {
            Upstream::Peer(config) => config.address.to_string(),
            Upstream::Neighbours(adapters) if adapters.iter().all(|config| config.adapter.is_empty()) => {
                "ble:any".to_owned()
            }
            Upstream::Neighbours(adapters) => {
                let name = |config: &BluetoothConfig| match config.adapter.as_str() {
                    "" => "the first".to_owned(),
                    adapter => adapter.to_owned(),
                };
                let names: Vec<String> = adapters.iter().map(name).collect();
                format!("ble:any through {}", names.join(" and "))
            }
        }
    }

    fn every(&self) -> Option<Duration> {
        match self {
            Upstream::Peer(config) => config.every,
            Upstream::Neighbours(_) => None,
        }
    }

    fn direction(&self) -> ReplicatorType {
        match self {
            Upstream::Peer(config) => config.direction,
            // All have the same.
            Upstream::Neighbours(adapters) => adapters[0].direction,
        }
    }

    /// Makes what is connected to, from the files as they are now.
    fn target(&self) -> Result<SyncTarget, String> {
        match self {
            Upstream::Peer(config) => match &config.address {
                PlaceAddress::Stream(address) => Ok(address.clone().into()),
                #[cfg(feature = "websocket")]
                PlaceAddress::WebSocket(url) => {
                    let told = |error: super::web::WebError| {
                        let advice = error.advice().map_or_else(String::new, |advice| format!("; {advice}"));
                        format!("{error}{advice}")
                    };
                    let credentials = config.web.credentials().map_err(told)?;
                    Ok(super::web_files::client_of(&config.web, url, credentials).map_err(told)?.into())
                }
                #[cfg(feature = "bluetooth")]
                PlaceAddress::Ble(peer) => Ok(crate::node::Ble::peer(peer.clone()).into()),
                #[cfg(not(feature = "bluetooth"))]
                PlaceAddress::Ble(_) => Err("this gattway was built without Bluetooth".into()),
            },
            #[cfg(feature = "bluetooth")]
            Upstream::Neighbours(adapters) => {
                Ok(crate::node::Ble::any_through(adapters.iter().map(super::radio::way).collect()))
            }
            #[cfg(not(feature = "bluetooth"))]
            Upstream::Neighbours(_) => Err("this gattway was built without Bluetooth".into()),
        }
    }
}

/// What keeps one sync going.
pub(super) struct Worker {
    pub(super) database: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) syncs: Syncs,
    pub(super) board: Board,
    pub(super) tell: Tell,
}

/// How one sync has ended.
enum Ended {
    Done,
    Failed(String),
    /// By an order; what it is to do now is in the orders.
    Told,
}

impl Worker {
    async fn run(self, upstream: Upstream, mut orders: watch::Receiver<Orders>) {
        let mut retry = RetryPolicy::new(None, RETRY_WAIT_MAX);
        loop {
            let now = *orders.borrow_and_update();
            if now.stop {
                return;
            }
            if now.paused {
                self.board.upstream_waits(&self.name, "paused", None);
                match orders.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
            let began = Instant::now();
            let wait = match self.sync(&upstream, &mut orders).await {
                Ended::Told => continue,
                Ended::Done => {
                    retry.succeeded();
                    upstream.every().map(|every| every.saturating_sub(began.elapsed()))
                }
                Ended::Failed(error) => {
                    let wait = retry.failed(fastrand::u32(..)).unwrap_or(RETRY_WAIT_MAX);
                    self.board.upstream_failed(&self.name, &error);
                    let (database, upstream) = (Arc::clone(&self.database), Arc::clone(&self.name));
                    (self.tell)(&GatewayEvent::UpstreamFailed { database, upstream, error, retry: wait });
                    Some(wait)
                }
            };
            // A continuous sync ends without an error only where it was told to by its node, which ends.
            let wait = wait.unwrap_or(RETRY_WAIT_MAX);
            self.board.upstream_waits(&self.name, "waiting", Some(now_s() + wait.as_secs()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = orders.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One sync, to its end.
    async fn sync(&self, upstream: &Upstream, orders: &mut watch::Receiver<Orders>) -> Ended {
        let target = match upstream.target() {
            Ok(target) => target,
            Err(error) => return Ended::Failed(error),
        };
        let sync = self.observed(self.syncs.sync(target), upstream).start();
        tokio::select! {
            ended = sync.finished() => match ended {
                Ok(()) => Ended::Done,
                Err(error) => Ended::Failed(error.to_string()),
            },
            _ = orders.changed() => {
                end(&sync).await;
                Ended::Told
            }
        }
    }

    fn observed(&self, sync: SyncBuilder, upstream: &Upstream) -> SyncBuilder {
        let continuous = upstream.every().is_none();
        let mut sync = sync.direction(upstream.direction()).continuous(continuous);
        if let Upstream::Peer(config) = upstream {
            let named = !config.collections.is_empty();
            sync = sync.plain(config.plain).options(SyncOptions {
                retry_wait: Some(config.retry_wait),
                heartbeat: config.heartbeat,
                peer_name: config.peer.clone(),
                optional_collections: named.then_some(false),
                confirmed_as: Some(self.name.to_string()),
                ..SyncOptions::default()
            });
            if named {
                sync = sync.collections(config.collections.clone());
            }
        }
        let (database, name) = (Arc::clone(&self.database), Arc::clone(&self.name));
        let (board, tell) = (self.board.clone(), Arc::clone(&self.tell));
        sync.observe(move |event| {
            board.observe_sync(&name, event);
            let (database, upstream) = (Arc::clone(&database), Arc::clone(&name));
            tell(&GatewayEvent::Sync { database, upstream, event: Box::new(event.clone()) });
        })
    }
}

/// Ends a sync in order, if it does so in time.
async fn end(sync: &SyncHandle) {
    sync.stop();
    let _ = tokio::time::timeout(CLOSING_LIMIT, sync.finished()).await;
}
