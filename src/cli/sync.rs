//! `gattway sync`: the active side of a replication.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::address::PlaceAddress;
use super::args::GlobalArgs;
use super::events::{Event, Events};
use super::feed::{Feed, FeedArgs};
use super::output::{counted, thousands};
use super::progress::Progress;
use super::runtime::{self, Signals};
use super::{CliError, Exit, store};
use crate::database::Database;
use crate::endpoint::{MessageEndpoint, MessageEndpointConnection, MessageEndpointDelegate, ProtocolType};
use crate::replicator::error::SessionError;
use crate::replicator::{
    Direction, DocumentReplication, Replicator, ReplicatorActivity, ReplicatorConfiguration, ReplicatorError,
    ReplicatorStatus, ReplicatorType,
};
use crate::transport::stream::{Address, StreamConnection};

/// Attempts of a one-shot sync to connect: about six seconds, so that a wrong address is soon told.
const ONE_SHOT_ATTEMPTS: u32 = 3;

/// How often the display follows the replicator.
const DISPLAY_INTERVAL: Duration = Duration::from_millis(100);

/// Sync with a peer, once or continuously.
///
/// Both directions, unless --push or --pull alone is given. Every document that was reported as done is on the medium of
/// the side that received it. Interrupted, it continues where it was the next time.
///
/// With --json, standard output has one event a line: `status` (activity, completed, total, documents), `document`
/// (with --documents), `saved` and `rejected` (of --import), and last `finished`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db sensor.db sync ble:any
  gattway --db sensor.db sync tcp:gateway.local:4985
  gattway --db sensor.db sync tcp:gateway.local:4985 --push --collection plant.readings
  my-sensor | gattway --db sensor.db sync unix:/run/gateway.sock --continuous --import - --id-from time --json")]
pub(super) struct SyncArgs {
    /// The peer: ble:ADDRESS, ble:NAME or ble:any, tcp:HOST:PORT, unix:PATH or stdio
    #[arg(value_name = "ADDRESS")]
    address: PlaceAddress,

    #[cfg(feature = "bluetooth")]
    #[command(flatten)]
    ble: super::ble::BleArgs,

    /// Send documents to the peer
    #[arg(long)]
    push: bool,

    /// Get documents from the peer
    #[arg(long)]
    pull: bool,

    /// Stay connected and pass on every change, until Ctrl-C; connect again after a failure
    #[arg(long)]
    continuous: bool,

    /// A collection to sync, again for more; all of the database's unless given
    #[arg(long = "collection", short, value_name = "NAME")]
    collections: Vec<String>,

    /// Create the collections that do not exist here
    #[arg(long)]
    create_collections: bool,

    /// Forget what was synced before and compare everything again
    #[arg(long)]
    reset: bool,

    /// Name of the peer that outlives its address: what was synced before is remembered under it [default: the address]
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,

    /// Attempts to connect before giving up, counted again after each success [default: 3, or no limit if --continuous]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,

    /// Longest wait between two attempts, which doubles from two seconds [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    retry_wait: Option<Duration>,

    #[command(flatten)]
    feed: FeedArgs,

    /// Events for scripts on standard output
    #[arg(long)]
    json: bool,

    /// With --json: an event for each document as well
    #[arg(long, requires = "json")]
    documents: bool,
}

pub(super) fn run(global: &GlobalArgs, args: &SyncArgs) -> Result<(), CliError> {
    if args.address == PlaceAddress::Stream(Address::Stdio) {
        check_stdio(args.json, args.feed.import.as_deref())?;
    }
    let db = store::open(global.db_path()?)?;
    let collections = store::choose_collections(&db, &args.collections, args.create_collections)?;
    let events = Events::new(args.json);
    let began = Instant::now();
    let result = runtime::block_on(sync(&db, collections, args, &events));
    events.finish(began, &result);
    result.map(|_| ())
}

/// With `stdio`, the peer has standard input and output for itself.
pub(super) fn check_stdio(json: bool, import: Option<&Path>) -> Result<(), CliError> {
    let taken = if json {
        "--json writes to standard output"
    } else if import == Some(Path::new("-")) {
        "--import - reads standard input"
    } else {
        return Ok(());
    };
    Err(CliError::new(Exit::Usage, format!("{taken}, which carries the peer's bytes with the address stdio"))
        .help("use tcp: or unix:, or import from a file or a named pipe"))
}

/// Runs the replicator to its end; gives the number of documents that went over.
async fn sync(
    db: &Database,
    collections: Vec<String>,
    args: &SyncArgs,
    events: &Events,
) -> Result<u64, CliError> {
    let mut signals = Signals::listen()?;
    let feed = Feed::start(db, &args.feed, events)?;
    let feed = match feed {
        // Once: everything is imported, then synced.
        Some(feed) if !args.continuous => {
            finish_feed(feed, events).await?;
            None
        }
        other => other,
    };
    let replicator = Replicator::new(configuration(db, collections, args));
    if args.documents {
        let events = events.clone();
        replicator.add_document_listener(move |document| emit_document(&events, document));
    } else {
        let events = events.clone();
        replicator.add_document_listener(move |document| say_failed(&events, document));
    }
    if args.reset {
        replicator.start_with_reset();
    } else {
        replicator.start();
    }
    follow(&replicator, feed, args, events, &mut signals).await
}

fn configuration(db: &Database, collections: Vec<String>, args: &SyncArgs) -> ReplicatorConfiguration {
    let address = args.address.clone();
    let uid = args.peer.clone().unwrap_or_else(|| address.to_string());
    let target = Arc::new(address.clone());
    let dial = Dial {
        address,
        #[cfg(feature = "bluetooth")]
        ble: args.ble.clone(),
    };
    let endpoint = MessageEndpoint::new(uid, target, ProtocolType::ByteStream, Arc::new(dial));
    let mut config =
        ReplicatorConfiguration::new(endpoint, Arc::new(db.clone())).with_collections(collections);
    config.replicator_type = match (args.push, args.pull) {
        (true, false) => ReplicatorType::Push,
        (false, true) => ReplicatorType::Pull,
        _ => ReplicatorType::PushAndPull,
    };
    config.continuous = args.continuous;
    config.max_attempts = args.attempts.or((!args.continuous).then_some(ONE_SHOT_ATTEMPTS));
    config.max_attempt_wait = args.retry_wait.unwrap_or(config.max_attempt_wait);
    config
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Makes a new connection for each attempt.
struct Dial {
    address: PlaceAddress,
    #[cfg(feature = "bluetooth")]
    ble: super::ble::BleArgs,
}

impl MessageEndpointDelegate for Dial {
    fn create_connection(&self, _: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        match &self.address {
            PlaceAddress::Stream(address) => Arc::new(StreamConnection::connect(address.clone())),
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(peer) => super::ble::dial(peer, &self.ble),
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => unreachable!("such an address is refused when it is read"),
        }
    }
}

/// Shows what the replicator does until it has stopped, by itself or by a signal.
async fn follow(
    replicator: &Replicator,
    mut feed: Option<Feed>,
    args: &SyncArgs,
    events: &Events,
    signals: &mut Signals,
) -> Result<u64, CliError> {
    let mut display = Display::new(args, events);
    let mut interrupted = false;
    let mut tick = tokio::time::interval(DISPLAY_INTERVAL);
    loop {
        tokio::select! {
            status = replicator.wait_until_stopped() => {
                display.show(&status);
                break;
            }
            _ = tick.tick() => display.show(&replicator.status()),
            () = signals.next() => {
                if interrupted {
                    return Err(CliError::new(Exit::Interrupted, "interrupted before the orderly end"));
                }
                interrupted = true;
                display.say("stopping");
                replicator.stop();
            }
            () = events.reader_gone(), if !interrupted => {
                interrupted = true;
                replicator.stop();
            }
        }
        if let Some(done) = feed.take_if(|feed| feed.is_finished())
            && let Err(error) = finish_feed(done, events).await
        {
            replicator.stop();
            replicator.wait_until_stopped().await;
            return Err(error);
        }
    }
    display.finish(&replicator.status(), interrupted, args)
}

pub(super) async fn finish_feed(feed: Feed, events: &Events) -> Result<(), CliError> {
    let fed = tokio::task::spawn_blocking(move || feed.wait())
        .await
        .unwrap_or_else(|_| Err(CliError::new(Exit::Failure, "the import panicked")))?;
    let mut line = format!("imported {}", counted(fed.saved, "record"));
    if fed.rejected > 0 {
        line.push_str(&format!(", skipped {}", counted(fed.rejected, "line")));
    }
    events.say(&line);
    Ok(())
}

/// The state of a replicator as people and scripts see it.
struct Display<'a> {
    peer: String,
    events: &'a Events,
    progress: Progress,
    began: Instant,
    last: Option<(ReplicatorActivity, u64, u64)>,
    /// Documents of earlier connections of this run.
    earlier_documents: u64,
    documents: u64,
}

impl Display<'_> {
    fn new<'a>(args: &SyncArgs, events: &'a Events) -> Display<'a> {
        let peer = args.address.to_string();
        let progress = Progress::start("syncing", 0, args.json);
        Display {
            peer,
            events,
            progress,
            began: Instant::now(),
            last: None,
            earlier_documents: 0,
            documents: 0,
        }
    }

    fn show(&mut self, status: &ReplicatorStatus) {
        let progress = status.progress;
        let now = (status.activity, progress.completed, progress.total);
        if self.last == Some(now) {
            return;
        }
        if progress.documents < self.documents {
            // Numbers start again with each connection.
            self.earlier_documents += self.documents;
        }
        self.documents = progress.documents;
        if self.last.map(|last| last.0) != Some(status.activity) {
            self.say_activity(status);
        }
        self.last = Some(now);
        self.events.emit(&Event::Status {
            peer: &self.peer,
            activity: activity_name(status.activity),
            completed: progress.completed,
            total: progress.total,
            documents: self.total_documents(),
            error: status.error.as_ref().map(ToString::to_string),
        });
        if !matches!(status.activity, ReplicatorActivity::Busy | ReplicatorActivity::Idle) {
            return;
        }
        let rate = self.total_documents() as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        self.progress.update(
            progress.completed,
            progress.total,
            &format!("{} documents/s", thousands(rate as u64)),
        );
    }

    fn total_documents(&self) -> u64 {
        self.earlier_documents + self.documents
    }

    fn say_activity(&self, status: &ReplicatorStatus) {
        match (status.activity, &status.error) {
            (ReplicatorActivity::Connecting, _) => self.say(&format!("connecting to {}", self.peer)),
            (ReplicatorActivity::Offline, Some(error)) => {
                self.say(&format!("offline: {error}; will try again"))
            }
            (ReplicatorActivity::Idle, _) => self.say("in sync; waiting for changes"),
            _ => {}
        }
    }

    fn say(&self, line: &str) {
        self.progress.say(line);
    }

    fn finish(self, status: &ReplicatorStatus, interrupted: bool, args: &SyncArgs) -> Result<u64, CliError> {
        let documents = self.total_documents();
        if let Some(error) = &status.error {
            return Err(CliError::new(Exit::Peer, format!("sync with {} stopped: {error}", self.peer))
                .help(advice(error)));
        }
        if interrupted && !args.continuous {
            return Err(CliError::new(Exit::Interrupted, "interrupted; the next sync continues from here"));
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let summary = match documents {
            0 => format!("in sync with {}: nothing to do ({seconds:.1} s)", self.peer),
            n => format!("in sync with {}: {} in {seconds:.1} s", self.peer, counted(n, "document")),
        };
        self.progress.finish(&summary);
        Ok(documents)
    }
}

/// What to do about an error that ended a sync.
fn advice(error: &ReplicatorError) -> &'static str {
    match error {
        ReplicatorError::Messaging(_) => "check the address, and that `gattway serve` runs there",
        ReplicatorError::Session(SessionError::RemoteCollectionMissing { .. }) => {
            "create it there (`gattway db collections --create`), or name the collections to sync with --collection"
        }
        _ => "what was confirmed stays; the next sync continues from there",
    }
}

/// The names that scripts read.
pub(super) fn activity_name(activity: ReplicatorActivity) -> &'static str {
    match activity {
        ReplicatorActivity::Stopped => "stopped",
        ReplicatorActivity::Offline => "offline",
        ReplicatorActivity::Connecting => "connecting",
        ReplicatorActivity::Idle => "idle",
        ReplicatorActivity::Busy => "busy",
    }
}

pub(super) fn emit_document(events: &Events, document: &DocumentReplication) {
    events.emit(&Event::Document {
        direction: direction_name(document.direction),
        collection: &document.collection,
        id: &document.id,
        deleted: document.deleted,
        error: document.error.as_ref().map(ToString::to_string),
    });
}

pub(super) fn say_failed(events: &Events, document: &DocumentReplication) {
    if let Some(error) = &document.error {
        let direction = direction_name(document.direction);
        events.say(&format!("document {:?} was not {direction}: {error}", document.id));
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Sent => "sent",
        Direction::Received => "received",
    }
}
