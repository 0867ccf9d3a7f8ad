//! `gattway serve`: the passive side; accepts peers on any number of addresses.

use std::sync::Arc;

use clap::Args;

use crate::cli::commands::control::Control;
use crate::cli::commands::db::print_asked;
use crate::cli::support::connected::Peers;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::feed::{Feed, FeedArgs, check_stdio, finish_feed};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::listen::listen_failed;
use crate::cli::support::output::counted;
use crate::cli::support::quota::QuotaArgs;
use crate::cli::support::runtime::{self, Signals};
use crate::cli::support::security::{self, Security, SecurityArgs, TrustRefresher};
use crate::cli::support::{condition, memory, store, words};
use crate::database::Database;
use crate::gateway::address::PlaceAddress;
use crate::gateway::http::api::Limits;
use crate::gateway::http::databases::name_of;
use crate::node::{Node, NodeBuilder, NodeError, NodeOptions};
use crate::replicator::{MessageEndpointListener, Refusals};
use crate::transport::stream::Address;

/// Be the passive side: accept peers and sync with each, until Ctrl-C.
///
/// A peer that sends garbage or falls silent loses its connection; the others go on. A Unix socket is open to its owner
/// alone; whoever reaches a TCP port may read and write the collections that are offered.
///
/// An address where it cannot listen yet (bluetoothd does not run, the port is in use, the interface is not up) is tried
/// again while another works; if none works at the start, the command fails.
///
/// SIGINT, SIGTERM and SIGHUP end it in order, within five seconds and what the disk takes.
///
/// With --json, standard output has one event a line: `created` if there was no database, `listening` (the address, with
/// the real port), `listen_failed` (it is tried again), `status` of each connection, `document` for each that was not synced
/// (for all with --documents), `conflict` (both sides have changed a document: `outcome` tells what was kept), `unsynced`
/// (what a peer leaves out), `suppressed` (how many events of a peer that came too fast were left out; with --documents
/// each document and conflict has its event), `saved` and `rejected` (of --import), `storage` when the disk has no room for more and
/// when it has again, `clock`
/// when versions of the far future come, and last `finished`. Nobody waits for whoever reads them: events beyond 1 MiB that
/// were not read are left out, and `dropped` tells how many. A reader that ends ends nothing else.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db gateway.db serve --listen ble
  gattway --db gateway.db serve --listen ble --advert-slow-interval 5s --advert-silent-after 10m --advert-urgent plant.alarms
  gattway --db gateway.db serve --listen tcp:127.0.0.1:4985
  gattway --db gateway.db serve --listen unix:/run/gateway.sock --listen tcp:[::1]:0 --collection plant.readings
  gattway --db gateway.db serve --listen wss://0.0.0.0:4984/plant --tls-self-signed --users users.txt --plain   # stock peers
  ssh gateway gattway --db gateway.db serve --listen stdio   # the bytes go over standard input and output
  my-sensor | gattway --db sensor.db serve --listen tcp:0.0.0.0:4985 --import - --id-from time --json")]
pub(crate) struct ServeArgs {
    /// Where peers connect, again for more: ble or ble:ADAPTER, tcp:HOST:PORT (port 0: any), unix:PATH,
    /// ws://HOST:PORT/DATABASE or wss://..., or stdio
    #[arg(long, required = true, value_name = "ADDRESS")]
    listen: Vec<PlaceAddress>,

    /// A collection that peers may reach, again for more; unless given, all that the database has when it starts
    #[arg(long = "collection", short, value_name = "NAME")]
    collections: Vec<String>,

    /// Create the collections that do not exist here
    #[arg(long)]
    create_collections: bool,

    /// Peers may only get documents
    #[arg(long)]
    read_only: bool,

    /// Refuse what peers send while less than this is free on the disk, in bytes or as 500K, 64M, 2G
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = crate::cli::support::global::parse_size)]
    keep_free: u64,

    /// Connections at one time
    #[arg(long, value_name = "N", default_value_t = crate::replicator::CONNECTIONS_MAX)]
    connections: usize,

    #[command(flatten)]
    quota: QuotaArgs,

    #[cfg(feature = "bluetooth")]
    #[command(flatten)]
    link: crate::cli::support::ble::LinkArgs,

    #[cfg(feature = "websocket")]
    #[command(flatten)]
    web: crate::cli::support::web::WebListenArgs,

    #[command(flatten)]
    security: SecurityArgs,

    /// Events for scripts on standard output
    #[arg(long)]
    json: bool,

    /// With --json: an event for each document that comes or goes as well
    #[arg(long, requires = "json")]
    documents: bool,

    // Last: its heading goes on over what follows.
    #[command(flatten)]
    feed: FeedArgs,
}

pub(crate) fn run(global: &GlobalArgs, args: &ServeArgs) -> Result<(), CliError> {
    if args.listen.contains(&PlaceAddress::Stream(Address::Stdio)) {
        check_stdio(args.json, args.feed.import.as_deref())?;
    }
    #[cfg(feature = "bluetooth")]
    args.link.check()?;
    memory::keep_little();
    security::keep_secrets_in_memory();
    words::tell_time();
    let path = global.db_path()?;
    let db = store::open_keeping_free(path, args.keep_free)?;
    let chosen = store::choose_collections(&db, &args.collections, args.create_collections)?;
    let events = Events::new(args.json);
    store::tell_if_new(&db, &events);
    let access = args.security.open(path).inspect_err(|_| chosen.take_back(&db))?;
    let began = std::time::Instant::now();
    let names = chosen.names.clone();
    let result = runtime::block_on(serve(&db, names, args, access, &events))
        .inspect_err(|_| chosen.take_back(&db))
        .and_then(|n| events.all_taken(n));
    condition::tell_copy(&db, &events);
    events.count_left_out(&db);
    let closed = db.close();
    let result = result.and_then(|n| closed.map(|()| n).map_err(store::failed));
    events.finish(began, &result);
    result.map(|_| ())
}

/// Accepts until a signal comes or no address is left; gives the number of documents that went over.
async fn serve(
    db: &Database,
    collections: Vec<String>,
    args: &ServeArgs,
    access: (Security, TrustRefresher),
    events: &Events,
) -> Result<u64, CliError> {
    let control = Control::start(db, &name_of(db), &Limits::default(), print_asked);
    let served = serve_peers(db, collections, args, access, events).await;
    if let Some(control) = control {
        control.stop().await;
    }
    served
}

async fn serve_peers(
    db: &Database,
    collections: Vec<String>,
    args: &ServeArgs,
    access: (Security, TrustRefresher),
    events: &Events,
) -> Result<u64, CliError> {
    args.protection(&access.0).iter().for_each(|note| events.say(note));
    let mut signals = Signals::listen()?;
    let peers = Arc::new(Peers::new(events, access.0.is_secure(), args.documents));
    let mut node = tokio::select! {
        biased;
        started = args.node(db, collections, access, &peers)?.start() => started.map_err(|error| failed(error, events))?,
        () = signals.next() => {
            // It tells that it listens a moment before it has started, and whoever has heard that may end it in order.
            if peers.have_been_awaited() {
                return Ok(0);
            }
            return Err(CliError::new(Exit::Interrupted, "interrupted before it listened"));
        }
    };
    let feed = Feed::start(db, &args.feed, events)?;
    let result = until_told(db, &mut node, feed, &mut signals, &peers).await;
    let listener = Arc::clone(node.listener());
    tokio::select! {
        ended = node.shutdown() => if let Err(NodeError::CutOff { connections, .. }) = ended {
            let connections = counted(connections as u64, "connection");
            events.say(&format!("{connections} did not end in time: cut off"));
        },
        () = signals.next() => return Err(CliError::new(Exit::Interrupted, "interrupted before the orderly end")),
    }
    events.tell_rest();
    tell_refusals(&listener, events);
    peers.tell_turned_away();
    result.map(|()| peers.documents())
}

/// A node that did not start, or whose listener has failed.
fn failed(error: NodeError, events: &Events) -> CliError {
    match error {
        NodeError::Access(error) => security::failed(error),
        NodeError::Listen { first, others, .. } => {
            others.iter().for_each(|error| events.say(&error.to_string()));
            listen_failed(&first)
        }
        error => CliError::new(Exit::Failure, error.to_string()),
    }
}

impl ServeArgs {
    /// The node that is served, to be started.
    fn node(
        &self,
        db: &Database,
        collections: Vec<String>,
        (security, trust_refresher): (Security, TrustRefresher),
        peers: &Arc<Peers>,
    ) -> Result<NodeBuilder, CliError> {
        let observer = Arc::clone(peers);
        let node = Node::builder(db.clone())
            .collections(collections)
            .access(security, trust_refresher)
            .options(NodeOptions {
                accept_push: !self.read_only,
                connections_max: self.connections,
                peer_quota: self.quota.quota(),
                report_documents: self.documents,
            })
            .observe(move |event| observer.observe(event));
        self.listen.iter().try_fold(node, |node, address| match address {
            PlaceAddress::Stream(address) => Ok(node.listen(address.clone())),
            #[cfg(feature = "websocket")]
            PlaceAddress::WebSocket(url) => Ok(node.listen(self.web.place(url, db, &peers.events)?)),
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(adapter) => Ok(node.listen(self.link.place(adapter, &peers.events)?)),
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => unreachable!("such an address is refused when it is read"),
        })
    }

    /// What there is to say of who may come in and who may read along.
    fn protection(&self, security: &Security) -> Vec<String> {
        #[cfg(feature = "websocket")]
        {
            let is_tls =
                |address: &PlaceAddress| matches!(address, PlaceAddress::WebSocket(url) if url.is_tls());
            if self.security.is_plain() && self.listen.iter().all(is_tls) {
                let open = "encrypted, but nobody has to prove anything: whoever reaches it may take part (--users says who may)";
                return if self.web.proves_peers() { Vec::new() } else { vec![open.to_owned()] };
            }
        }
        security::notes(security)
    }
}

/// What peers were refused, if they were.
fn tell_refusals(listener: &MessageEndpointListener, events: &Events) {
    let refusals = listener.refusals();
    if refusals.total() > 0 {
        events.emit(&Event::Refusals { refusals });
        let Refusals { connections, handshakes, stalled, violations, limits, documents, .. } = refusals;
        if refusals.total() > documents {
            events.say(&format!(
                "refused: {connections} connections beyond the limit, {handshakes} that did not begin, {stalled} that \
                 stalled, {violations} that broke the protocol, {limits} that went beyond a limit"
            ));
        }
        if documents > 0 {
            events.say(&format!(
                "{} not synced; `gattway db unsynced` lists which, and why",
                counted(documents, "document")
            ));
        }
    }
}

async fn until_told(
    db: &Database,
    node: &mut Node,
    mut feed: Option<Feed>,
    signals: &mut Signals,
    peers: &Peers,
) -> Result<(), CliError> {
    let events = &peers.events;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    let mut condition = std::pin::pin!(condition::tell_condition(db, events));
    let mut giving_back = std::pin::pin!(memory::keep_giving_back());
    loop {
        tokio::select! {
            never = &mut condition => match never {},
            () = signals.next() => {
                events.say("stopping");
                return Ok(());
            }
            error = condition::broken(db) => return Err(error),
            never = &mut giving_back => match never {},
            ended = node.until_deserted() => return ended.map_err(|error| failed(error, events)),
            _ = tick.tick() => {
                peers.tell_at_rest();
                events.tell_left_out();
                if let Some(done) = feed.take_if(|feed| feed.is_finished()) {
                    finish_feed(done, events).await?;
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "websocket")]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    /// Encrypted and open to anybody is neither "NOT encrypted" nor nothing to say.
    #[test]
    fn who_may_come_in_over_tls_is_said() {
        let said = |options: &[&str]| {
            let serve = ["gattway", "serve", "--plain", "--listen", "wss://127.0.0.1:0/plant"];
            let cli = Cli::try_parse_from([&serve[..], options].concat()).expect("arguments");
            let Command::Serve(args) = cli.command else { panic!("{options:?}") };
            args.protection(&Security::Plain).join(" ")
        };
        assert_eq!(said(&["--users", "users.txt"]), "");
        let open = said(&[]);
        assert!(open.contains("--users") && !open.contains("NOT encrypted"), "{open}");
        assert!(said(&["--listen", "tcp:127.0.0.1:0"]).contains("NOT encrypted"));
    }
}
