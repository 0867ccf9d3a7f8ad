//! `gattway serve`: the passive side; accepts peers on any number of addresses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::commands::control::Control;
use crate::cli::commands::sync::check_stdio;
use crate::cli::support::display::{activity_name, tell_document};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::feed::{Feed, FeedArgs};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::listen::listen_failed;
use crate::cli::support::output::counted;
use crate::cli::support::paced::{State, Topic};
use crate::cli::support::quota::QuotaArgs;
use crate::cli::support::runtime::{self, Signals};
use crate::cli::support::security::{self, Security, SecurityArgs, TrustRefresher};
use crate::cli::support::{condition, memory, store, words};
use crate::database::Database;
use crate::endpoint::MessagingError;
use crate::gateway::address::PlaceAddress;
use crate::node::{ConnectionId, Node, NodeBuilder, NodeError, NodeEvent};
use crate::replicator::error::is_conflict;
use crate::replicator::{DocumentReplication, MessageEndpointListener, Refusals};
use crate::replicator::{ReplicatorActivity, ReplicatorStatus, Unsynced};
use crate::secure::PeerId;
use crate::transport::stream::Address;

/// How long nothing moves with a peer before it is told to be in sync: between two messages nothing moves either.
const REST: Duration = Duration::from_secs(1);

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

    /// A collection that peers may reach, again for more; all of the database's unless given
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
    memory::keep_little();
    security::keep_secrets_in_memory();
    words::tell_time();
    let path = global.db_path()?;
    let db = store::open_keeping_free(path, args.keep_free)?;
    let _control = Control::start(&db);
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
    args.protection(&access.0).iter().for_each(|note| events.say(note));
    let mut signals = Signals::listen()?;
    let peers = Arc::new(Peers::new(events, access.0.is_secure(), args.documents));
    let mut node = tokio::select! {
        started = args.node(db, collections, access, &peers)?.start() => started.map_err(|error| failed(error, events))?,
        () = signals.next() => return Err(CliError::new(Exit::Interrupted, "interrupted before it listened")),
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
            .accept_push(!self.read_only)
            .connections_max(self.connections)
            .peer_quota(self.quota.quota())
            .report_documents(self.documents)
            .observe(move |event| observer.observe(event));
        self.listen.iter().try_fold(node, |node, address| match address {
            PlaceAddress::Stream(address) => Ok(node.listen(address.clone())),
            #[cfg(feature = "websocket")]
            PlaceAddress::WebSocket(url) => Ok(node.listen(self.web.place(url, db, &peers.events)?)),
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(adapter) => Ok(node.listen(self.link.place(adapter, &peers.events))),
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
                    crate::cli::commands::sync::finish_feed(done, events).await?;
                }
            }
        }
    }
}

/// Who is connected, for the display.
pub(crate) struct Peers {
    events: Events,
    secure: bool,
    /// Whether a script hears of each document.
    documents: bool,
    state: Mutex<PeersState>,
}

#[derive(Default)]
struct PeersState {
    by_connection: HashMap<ConnectionId, Peer>,
    /// Documents of connections that have ended.
    documents: u64,
    /// Peers that were not let in.
    turned_away: u64,
}

struct Peer {
    name: String,
    /// Whether it has proven who it is, in a secure session.
    secure: bool,
    activity: ReplicatorActivity,
    documents: u64,
    /// Nothing moves since then, which was not told.
    at_rest: Option<Instant>,
    /// How many documents were told.
    told: Option<u64>,
    /// Whether it is told of. One of those that come too fast is not, before it has begun to sync.
    is_told: bool,
    /// What was told of it last.
    unsynced: Arc<Unsynced>,
}

impl Peer {
    /// Notes what it does now.
    fn moved(&mut self, status: &ReplicatorStatus) {
        let before = std::mem::replace(&mut self.activity, status.activity);
        let documents = std::mem::replace(&mut self.documents, status.progress.documents);
        match status.activity {
            ReplicatorActivity::Idle if before != status.activity || documents != self.documents => {
                self.at_rest = Some(Instant::now());
            }
            ReplicatorActivity::Idle => {}
            _ => self.at_rest = None,
        }
    }

    /// What is told once nothing has moved for a while, after the peer's name.
    fn rest_text(&mut self) -> Option<(String, String)> {
        self.at_rest.take_if(|since| since.elapsed() >= REST)?;
        if self.told == Some(self.documents) {
            return None;
        }
        self.told = Some(self.documents);
        let line = format!("{}: in sync, {} so far", self.name, counted(self.documents, "document"));
        Some((self.name.clone(), line))
    }
}

impl Peers {
    pub(crate) fn new(events: &Events, secure: bool, documents: bool) -> Peers {
        Peers { events: events.clone(), secure, documents, state: Mutex::default() }
    }

    /// Tells of what the node tells.
    pub(crate) fn observe(&self, event: &NodeEvent) {
        let events = &self.events;
        match event {
            NodeEvent::Listening { address, .. } => {
                events.emit(&Event::Listening { address: address.clone() });
                events.say(&format!("listening on {address}"));
            }
            NodeEvent::ListenFailed { address, error, .. } => {
                let error = error.to_string();
                events.say(&format!("{error}; will try again"));
                events.emit(&Event::ListenFailed { address: address.clone(), error: &error });
            }
            NodeEvent::Authenticated { label, peer, .. } => security::announce(events, label, peer),
            NodeEvent::Refused { label, peer, error, .. } => self.turned_away(label, *peer, error),
            NodeEvent::Connected { connection, peer, uid, .. } => self.add(*connection, peer, uid.as_deref()),
            NodeEvent::Declined { connection, error, .. } => self.refuse(*connection, &error.to_string()),
            NodeEvent::Status { connection, status, .. } => self.changed(*connection, status),
            NodeEvent::Document { peer, document, .. } => self.document(peer, document),
            NodeEvent::Conflict { peer, conflict, .. } => events.conflict(peer, conflict, self.documents),
            NodeEvent::Group(news) => security::tell_group_news(events, news),
            #[cfg(feature = "bluetooth")]
            NodeEvent::Radio(status) => events.radio(status),
        }
    }

    /// A newcomer that never became a peer.
    fn turned_away(&self, label: &str, peer: Option<PeerId>, error: &MessagingError) {
        self.lock().turned_away += 1;
        // Strangers are all alike: they can choose what they are called and what is wrong with them.
        let known = peer.map_or_else(String::new, |peer| peer.to_text());
        if !self.events.may_tell(Topic::Refused, &known) {
            return;
        }
        let who = peer.map_or_else(|| label.to_owned(), |peer| format!("{label}: {peer}"));
        self.events.say(&format!("{who}: refused: {error}"));
        self.events.emit(&Event::Refused {
            peer: label,
            id: peer.map(|peer| peer.to_text()),
            error: error.to_string(),
        });
    }

    fn add(&self, connection: ConnectionId, name: &str, uid: Option<&str>) {
        let (name, activity) = (name.to_owned(), ReplicatorActivity::Connecting);
        let is_told = self.events.may_tell(Topic::Connected, uid.unwrap_or_default());
        let peer = Peer {
            name: name.clone(),
            secure: self.secure && uid.is_some(),
            activity,
            is_told,
            documents: 0,
            at_rest: None,
            told: None,
            unsynced: Arc::default(),
        };
        self.lock().by_connection.insert(connection, peer);
        if is_told {
            self.events.say(&format!("{name}: connected"));
        }
    }

    fn refuse(&self, connection: ConnectionId, error: &str) {
        let Some(peer) = self.lock().by_connection.remove(&connection).filter(|peer| peer.is_told) else {
            return;
        };
        self.events.say(&format!("{}: refused: {error}", peer.name));
        self.events.emit(&Event::Refused { peer: &peer.name, id: None, error: error.to_owned() });
    }

    /// How many were not let in, at the end.
    pub(crate) fn tell_turned_away(&self) {
        let turned_away = self.lock().turned_away;
        if turned_away > 0 {
            self.events.say(&format!("{} turned away", counted(turned_away, "peer")));
        }
    }

    /// A document was replicated, or failed to be.
    fn document(&self, name: &str, document: &DocumentReplication) {
        // A conflict is told as what it is.
        if document.error.as_ref().is_some_and(is_conflict) {
            return;
        }
        tell_document(&self.events, Some(name), document, self.documents);
    }

    fn changed(&self, key: ConnectionId, status: &ReplicatorStatus) {
        let mut state = self.lock();
        let Some(peer) = state.by_connection.get_mut(&key) else { return };
        peer.moved(status);
        let name = peer.name.clone();
        let before = std::mem::replace(&mut peer.unsynced, Arc::clone(&status.unsynced));
        // Without a secure session a connection rests before anybody has said a word.
        let secure = peer.secure;
        peer.is_told |=
            secure && status.activity == ReplicatorActivity::Idle || status.progress.completed > 0;
        let is_told = peer.is_told;
        if status.activity == ReplicatorActivity::Stopped {
            state.by_connection.remove(&key);
            state.documents += status.progress.documents;
        }
        drop(state);
        if is_told {
            self.tell_left_out(&name, &before, status);
            self.tell_status(&name, secure, status);
        }
    }

    /// Tells what is not synced with a peer, if that is news.
    fn tell_left_out(&self, name: &str, before: &Unsynced, status: &ReplicatorStatus) {
        let now = &status.unsynced;
        let is_news = !now.is_empty() && before != &**now;
        if is_news || (status.activity == ReplicatorActivity::Idle && now.is_empty()) {
            self.events.left_out(name, now);
        }
        self.events.lacking_collections(name, before, now);
    }

    /// Tells how far the connection with a peer is, or how it ended.
    fn tell_status(&self, name: &str, secure: bool, status: &ReplicatorStatus) {
        let documents = status.progress.documents;
        let event = Event::Status {
            peer: name,
            secure,
            activity: activity_name(status.activity),
            completed: status.progress.completed,
            total: status.progress.total,
            documents,
            error: status.error.as_ref().map(ToString::to_string),
        };
        if status.activity != ReplicatorActivity::Stopped {
            return self.events.tell_state(State::Connection, name, &event);
        }
        if self.events.tell_end(name, &event) {
            let documents = counted(documents, "document");
            self.events.say(&match &status.error {
                None => format!("{name}: done, {documents}"),
                Some(error) => format!("{name}: ended after {documents}: {error}"),
            });
        }
    }

    /// Tells of peers with which nothing moves any more, unless that was told.
    pub(crate) fn tell_at_rest(&self) {
        let resting: Vec<(String, String)> =
            self.lock().by_connection.values_mut().filter_map(Peer::rest_text).collect();
        for (name, line) in resting {
            if self.events.may_tell(Topic::Rest, &name) {
                self.events.say(&line);
            }
        }
    }

    pub(crate) fn documents(&self) -> u64 {
        self.lock().documents
    }

    /// Nothing under this lock can be left half done.
    fn lock(&self) -> std::sync::MutexGuard<'_, PeersState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, feature = "websocket"))]
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
