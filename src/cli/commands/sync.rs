//! `gattway sync`: the active side of a replication.

mod args;

use std::time::{Duration, Instant};

pub(crate) use self::args::SyncArgs;

use crate::cli::commands::control::Control;
use crate::cli::commands::db::print_asked;
use crate::cli::support::display::{Display, tell_document};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::Events;
use crate::cli::support::feed::{Feed, check_stdio, finish_feed};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::quota::QuotaArgs;
use crate::cli::support::runtime::{self, Signals};
use crate::cli::support::security::{self, Security, TrustRefresher};
#[cfg(feature = "bluetooth")]
use crate::cli::support::visits::Visits;
use crate::cli::support::{condition, memory, store, words};
use crate::database::Database;
use crate::gateway::address::PlaceAddress;
use crate::gateway::http::api::Limits;
use crate::gateway::http::databases::name_of;
#[cfg(feature = "bluetooth")]
use crate::node::SyncError;
use crate::node::{
    CLOSING_LIMIT, Node, NodeEvent, NodeOptions, SyncBuilder, SyncEvent, SyncHandle, SyncOptions,
};
use crate::replicator::ReplicatorType;
use crate::transport::stream::Address;

/// How often the display follows the replicator.
const DISPLAY_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) fn run(global: &GlobalArgs, args: &SyncArgs) -> Result<(), CliError> {
    if args.address == PlaceAddress::Stream(Address::Stdio) {
        check_stdio(args.json, args.feed.import.as_deref())?;
    }
    security::keep_secrets_in_memory();
    if args.continuous {
        memory::keep_little();
        words::tell_time();
    }
    let path = global.db_path()?;
    let db = store::open(path)?;
    let chosen = store::choose_collections(&db, &args.collections, args.create_collections)?;
    let events = Events::new(args.json);
    store::tell_if_new(&db, &events);
    let access = args.security.open(path).inspect_err(|_| chosen.take_back(&db))?;
    security::check_offer(&access.0).inspect_err(|_| chosen.take_back(&db))?;
    let began = Instant::now();
    let names = chosen.names.clone();
    let syncing = sync(&db, names, args, access, &events);
    let result = runtime::block_on(giving_back(args.continuous, syncing))
        .inspect_err(|_| chosen.take_back(&db))
        .and_then(|n| events.all_taken(n))
        .and_then(|n| events.all_synced(n));
    condition::tell_copy(&db, &events);
    let closed = db.close();
    let result = result.and_then(|n| closed.map(|()| n).map_err(store::failed));
    events.finish(began, &result);
    result.map(|_| ())
}

/// Does something and gives memory back meanwhile, if it takes long.
async fn giving_back<T>(takes_long: bool, work: impl Future<Output = T>) -> T {
    if !takes_long {
        return work.await;
    }
    tokio::select! {
        result = work => result,
        never = memory::keep_giving_back() => match never {},
    }
}

/// Runs the sync to its end; gives the number of documents that went over.
async fn sync(
    db: &Database,
    collections: Vec<String>,
    args: &SyncArgs,
    access: (Security, TrustRefresher),
    events: &Events,
) -> Result<u64, CliError> {
    let control = Control::start(db, &name_of(db), &Limits::default(), print_asked);
    let synced = sync_with_peers(db, collections, args, access, events).await;
    if let Some(control) = control {
        control.stop().await;
    }
    synced
}

async fn sync_with_peers(
    db: &Database,
    collections: Vec<String>,
    args: &SyncArgs,
    access: (Security, TrustRefresher),
    events: &Events,
) -> Result<u64, CliError> {
    let (security, trust_refresher) = access;
    if !security.is_secure() && !args.is_encrypted() {
        security::notes(&security).iter().for_each(|note| events.say(note));
    }
    let teller = events.clone();
    let quota = args.quota().as_ref().and_then(QuotaArgs::quota);
    let node = Node::builder(db.clone()).collections(collections).access(security, trust_refresher);
    let node =
        node.options(NodeOptions { peer_quota: quota, ..NodeOptions::default() }).observe(move |event| {
            match event {
                NodeEvent::Group(news) => security::tell_group_news(&teller, news),
                #[cfg(feature = "bluetooth")]
                NodeEvent::Radio(status) => teller.radio(status),
                _ => {}
            }
        });
    let node = node.start().await.map_err(|error| CliError::new(Exit::Failure, error.to_string()))?;
    let mut signals = Signals::listen()?;
    let feed = Feed::start(db, &args.feed, events)?;
    let feed = match feed {
        // Once: everything is imported, then synced.
        Some(feed) if !args.continuous => {
            tokio::select! {
                fed = finish_feed(feed, events) => fed?,
                () = signals.next() => {
                    let message = "interrupted before the import had ended; what was saved is sent by the next sync";
                    return Err(CliError::new(Exit::Interrupted, message));
                }
            }
            None
        }
        other => other,
    };
    let mut run = Run { db, args, events, feed };
    let result = match &args.address {
        PlaceAddress::Stream(address) => {
            let sync = run.observed(node.sync(address.clone())).start();
            run.follow(sync, &mut signals).await
        }
        #[cfg(feature = "websocket")]
        PlaceAddress::WebSocket(url) => {
            let sync = run.observed(node.sync(args.web.client(url)?)).start();
            run.follow(sync, &mut signals).await
        }
        #[cfg(feature = "bluetooth")]
        address @ PlaceAddress::Ble(_) if address.is_any_ble() => {
            run.follow_neighbours(&node, &mut signals).await
        }
        #[cfg(feature = "bluetooth")]
        PlaceAddress::Ble(peer) => {
            let sync = run.observed(node.sync(args.ble.peer(peer))).start();
            run.follow(sync, &mut signals).await
        }
        #[cfg(not(feature = "bluetooth"))]
        PlaceAddress::Ble(_) => unreachable!("such an address is refused when it is read"),
    };
    // Its sync has ended, or was given the time for it.
    let _ = node.shutdown_within(Duration::ZERO).await;
    result
}

/// What one sync of the command has.
struct Run<'a> {
    db: &'a Database,
    args: &'a SyncArgs,
    events: &'a Events,
    feed: Option<Feed>,
}

impl Run<'_> {
    /// A sync as the arguments want it, which tells of documents, or of those that failed.
    fn observed(&self, sync: SyncBuilder) -> SyncBuilder {
        let args = self.args;
        let direction = match (args.push, args.pull) {
            (true, false) => ReplicatorType::Push,
            (false, true) => ReplicatorType::Pull,
            _ => ReplicatorType::PushAndPull,
        };
        let options = SyncOptions {
            confirmed_as: None,
            heartbeat: None,
            optional_collections: Some(args.collections.is_empty()),
            reset: args.reset,
            retry_unsynced: args.retry,
            peer_name: args.peer.clone(),
            attempts: args.attempts,
            retry_wait: args.retry_wait,
            within_quota: Some(args.quota().is_some()),
            report_documents: args.documents,
        };
        let (events, all) = (self.events.clone(), args.documents);
        sync.direction(direction).continuous(args.continuous).options(options).observe(move |event| {
            match event {
                SyncEvent::Authenticated { address, peer, name, via, .. } => {
                    security::announce(&events, address, peer, name.as_deref(), *via);
                }
                SyncEvent::Conflict { address, conflict, .. } => events.conflict(address, conflict, all),
                SyncEvent::Document { document, .. } => tell_document(&events, None, document, all),
                _ => {}
            }
        })
    }

    /// Shows what the sync does until it has stopped, by itself or by a signal.
    async fn follow(&mut self, sync: SyncHandle, signals: &mut Signals) -> Result<u64, CliError> {
        let (args, events) = (self.args, self.events);
        let mut display =
            Display::new(args.address.to_string(), !args.security.is_plain(), args.continuous, events);
        let mut interrupted = false;
        let mut closing = std::pin::pin!(async { tokio::time::sleep(CLOSING_LIMIT).await });
        let mut tick = tokio::time::interval(DISPLAY_INTERVAL);
        let mut condition = std::pin::pin!(condition::tell_condition(self.db, events));
        loop {
            tokio::select! {
                never = &mut condition => match never {},
                _ = sync.finished() => {
                    display.show(&sync.status());
                    break;
                }
                _ = tick.tick() => {
                    display.show(&sync.status());
                    events.tell_left_out();
                }
                () = signals.next() => {
                    if interrupted {
                        return Err(CliError::new(Exit::Interrupted, "interrupted before the orderly end"));
                    }
                    interrupted = true;
                    display.say("stopping");
                    sync.stop();
                }
                () = &mut closing, if interrupted => {
                    display.say("the peer did not end in time: cut off");
                    break;
                }
                error = condition::broken(self.db), if args.continuous => return Err(ended(&sync, error).await),
            }
            if let Err(error) = self.look_after_feed().await {
                return Err(ended(&sync, error).await);
            }
        }
        display.finish(&sync.status(), interrupted && !args.continuous)
    }

    /// Shows the visits of one neighbour after the other until the sync has stopped, by itself or by a signal.
    #[cfg(feature = "bluetooth")]
    async fn follow_neighbours(&mut self, node: &Node, signals: &mut Signals) -> Result<u64, CliError> {
        let (args, events) = (self.args, self.events);
        let neighbours = args.ble.peer("any").any_neighbour();
        let (sender, mut visits) = tokio::sync::mpsc::unbounded_channel();
        let sync = self.observed(node.sync(neighbours)).observe(move |event| {
            if !matches!(
                event,
                SyncEvent::Status { .. } | SyncEvent::Document { .. } | SyncEvent::Conflict { .. }
            ) {
                let _ = sender.send(event.clone());
            }
        });
        let sync = sync.start();
        let (secure, continuous) = (!args.security.is_plain(), args.continuous);
        let mut shown = Visits { secure, continuous, events, displays: Vec::new(), documents: 0 };
        let mut told = false;
        let mut closing = std::pin::pin!(async { tokio::time::sleep(CLOSING_LIMIT).await });
        let mut tick = tokio::time::interval(DISPLAY_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = signals.next() => {
                    if told {
                        return Err(interrupted());
                    }
                    told = true;
                    if !shown.displays.is_empty() {
                        shown.say("stopping");
                    }
                    sync.stop();
                }
                // Before the end is looked at: nothing that was told is left out.
                Some(event) = visits.recv() => shown.take(&event)?,
                ended = sync.finished() => match ended {
                    Err(SyncError::Search(error)) => return Err(crate::cli::support::ble::failed(&*error)),
                    _ => break,
                },
                () = &mut closing, if told => {
                    shown.say("the peer did not end in time: cut off");
                    break;
                }
                _ = tick.tick() => {
                    events.tell_left_out();
                    shown.show(&sync);
                    if let Err(error) = self.look_after_feed().await {
                        return Err(ended(&sync, error).await);
                    }
                }
            }
        }
        if told && !args.continuous {
            return Err(interrupted());
        }
        if !args.continuous && shown.documents == 0 {
            // Perhaps nobody had anything new, so that nobody was asked: what was left out before still is.
            events.left_out_before(self.db);
        }
        Ok(shown.documents)
    }

    /// Tells of the import when it has ended.
    async fn look_after_feed(&mut self) -> Result<(), CliError> {
        match self.feed.take_if(|feed| feed.is_finished()) {
            Some(done) => finish_feed(done, self.events).await,
            None => Ok(()),
        }
    }
}

#[cfg(feature = "bluetooth")]
fn interrupted() -> CliError {
    CliError::new(Exit::Interrupted, "interrupted; the next sync continues from here")
}

/// Ends a sync in order, for another reason.
async fn ended(sync: &SyncHandle, why: CliError) -> CliError {
    sync.stop();
    let _ = sync.finished().await;
    why
}
