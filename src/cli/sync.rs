//! `gattway sync`: the active side of a replication.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::address::PlaceAddress;
use super::args::GlobalArgs;
use super::control::Control;
use super::display::{Display, emit_document, say_failed};
use super::events::Events;
use super::feed::{Feed, FeedArgs};
use super::output::counted;
use super::runtime::{self, CLOSING_LIMIT, Signals};
use super::security::{self, Security, SecurityArgs, TrustRefresher};
use super::{CliError, Exit, store, words};
use crate::database::Database;
use crate::endpoint::{MessageEndpoint, MessageEndpointConnection, MessageEndpointDelegate, ProtocolType};
use crate::replicator::{Replicator, ReplicatorConfiguration, ReplicatorType};
use crate::transport::stream::{Address, StreamConnection};

/// Attempts of a one-shot sync to connect: about six seconds, so that a wrong address is soon told.
const ONE_SHOT_ATTEMPTS: u32 = 3;

/// How often the display follows the replicator.
const DISPLAY_INTERVAL: Duration = Duration::from_millis(100);

/// Sync with a peer, once or continuously.
///
/// Both directions, unless --push or --pull alone is given. Every document that was reported as done is on stable storage of
/// the side that received it. Interrupted, it continues where it was the next time.
///
/// What one side refuses is named and left out, the rest is synced, and the exit code is 7: documents, for what they are; and,
/// unless they are named with --collection, collections that the peer lacks, or what it may not do or does not let us do.
/// `gattway db unsynced` lists the documents. They are tried again when they were changed, or with --retry.
///
/// With --json, standard output has one event a line: `status` (activity, completed, total, documents), `document` (those
/// that failed; all with --documents), `conflict` (both sides had changed a document: `outcome` tells what was kept), `unsynced` (when that has changed), `saved` and `rejected` (of --import), and last
/// `finished`. Nobody waits for whoever reads them: events beyond 1 MiB that were not read are left out, and `dropped`
/// tells how many. A reader that ends ends nothing else.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db sensor.db sync ble:any
  gattway --db sensor.db sync ble:any --continuous   # every neighbour that has something new, one after the other
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

    /// Try again what earlier syncs could not (`gattway db unsynced` lists it)
    #[arg(long)]
    retry: bool,

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
    security: SecurityArgs,

    /// Events for scripts on standard output
    #[arg(long)]
    json: bool,

    /// With --json: an event for each document as well
    #[arg(long, requires = "json")]
    documents: bool,

    // Last: its heading goes on over what follows.
    #[command(flatten)]
    feed: FeedArgs,
}

pub(super) fn run(global: &GlobalArgs, args: &SyncArgs) -> Result<(), CliError> {
    if args.address == PlaceAddress::Stream(Address::Stdio) {
        check_stdio(args.json, args.feed.import.as_deref())?;
    }
    security::keep_secrets_in_memory();
    if args.continuous {
        words::tell_time();
    }
    let path = global.db_path()?;
    let db = store::open(path)?;
    let _control = Control::start(&db);
    let chosen = store::choose_collections(&db, &args.collections, args.create_collections)?;
    let events = Events::new(args.json);
    store::tell_if_new(&db, &events);
    let (security, mut trust_refresher) = args.security.open(path).inspect_err(|_| chosen.take_back(&db))?;
    security.check_offer().inspect_err(|_| chosen.take_back(&db))?;
    let began = Instant::now();
    let names = chosen.names.clone();
    let result = runtime::block_on(sync(&db, names, args, &security, &mut trust_refresher, &events))
        .inspect_err(|_| chosen.take_back(&db))
        .and_then(|n| events.all_taken(n))
        .and_then(|n| events.all_synced(n));
    trust_refresher.tell(&events);
    store::tell_copy(&db, &events);
    let closed = db.close();
    let result = result.and_then(|n| closed.map(|()| n).map_err(store::failed));
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
    security: &Security,
    trust_refresher: &mut TrustRefresher,
    events: &Events,
) -> Result<u64, CliError> {
    trust_refresher.start(events);
    trust_refresher.prefer(args.peer.as_deref().or(args.address.ble_peer()));
    if !security.is_secure() {
        security.notes().iter().for_each(|note| events.say(note));
    }
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
    #[cfg(feature = "bluetooth")]
    let _radio = super::ble::Reporter::start(args.address.is_ble(), events);
    let start = |args: &SyncArgs| {
        let replicator =
            Replicator::new(configuration(db, collections.clone(), args, security, trust_refresher, events));
        listen(&replicator, args, events);
        if args.reset {
            replicator.start_with_reset();
        } else {
            replicator.start();
        }
        replicator
    };
    #[cfg(feature = "bluetooth")]
    if args.address.is_any_ble() {
        let codec = super::ble::advert_codec(db, security, trust_refresher);
        let result =
            visit_neighbours(db, &collections, args, events, &mut signals, feed, codec, &start).await;
        if !args.continuous && matches!(result, Ok(0)) {
            // Perhaps nobody had anything new, so that nobody was asked: what was left out before still is.
            events.left_out_before(db);
        }
        super::ble::wait_for_disconnects().await;
        return result;
    }
    let result = follow(db, &start(args), feed, args, events, &mut signals).await;
    #[cfg(feature = "bluetooth")]
    super::ble::wait_for_disconnects().await;
    result
}

/// Tells of documents, or of those that failed.
fn listen(replicator: &Replicator, args: &SyncArgs, events: &Events) {
    let (events, all) = (events.clone(), args.documents);
    let (teller, peer) = (events.clone(), args.address.to_string());
    replicator.add_conflict_listener(move |conflict| teller.conflict(&peer, conflict));
    replicator.add_document_listener(move |document| {
        if all {
            emit_document(&events, None, document);
        } else {
            say_failed(&events, document);
        }
    });
}

/// Syncs with one neighbour that has something new, or with all of them for ever.
#[cfg(feature = "bluetooth")]
#[expect(clippy::too_many_arguments, reason = "all that one command has, once")]
async fn visit_neighbours(
    db: &Database,
    collections: &[String],
    args: &SyncArgs,
    events: &Events,
    signals: &mut Signals,
    feed: Option<Feed>,
    codec: Arc<dyn crate::transport::bluez::profile::AdvertCodec>,
    start: &(dyn Fn(&SyncArgs) -> Replicator + Sync),
) -> Result<u64, CliError> {
    use super::neighbours::Neighbourhood;
    use super::neighbours::sync_marks::{Directions, SyncMarks};

    let replicator = move |heard: &crate::transport::bluez::scan::Heard, uid: String, stays: bool| {
        let mut visit = args.clone();
        visit.address = PlaceAddress::Ble(heard.neighbour.address.to_string());
        visit.ble.heard = Some(heard.clone());
        if args.security.is_plain() {
            // Else what was synced is remembered under the name that the peer proves.
            visit.peer = visit.peer.or(Some(uid));
        }
        if args.continuous {
            // Whoever is not reached gets its turn again.
            visit.attempts = visit.attempts.or(Some(if stays { ONE_SHOT_ATTEMPTS } else { 1 }));
        }
        visit.continuous = stays;
        start(&visit)
    };
    let directions = Directions { push: args.push || !args.pull, pull: args.pull || !args.push };
    let mut neighbourhood = Neighbourhood {
        adapter: args.ble.adapter.as_deref(),
        sync_marks: SyncMarks::new(db, collections, codec, directions),
        events,
        replicator: &replicator,
        signals,
        secure: !args.security.is_plain(),
        all: args.reset || args.retry,
    };
    if args.continuous { neighbourhood.forever(feed).await } else { neighbourhood.once().await }
}

fn configuration(
    db: &Database,
    collections: Vec<String>,
    args: &SyncArgs,
    security: &Security,
    trust_refresher: &TrustRefresher,
    events: &Events,
) -> ReplicatorConfiguration {
    #[cfg(not(feature = "bluetooth"))]
    let _ = trust_refresher;
    let replicator_type = match (args.push, args.pull) {
        (true, false) => ReplicatorType::Push,
        (false, true) => ReplicatorType::Pull,
        _ => ReplicatorType::PushAndPull,
    };
    let address = args.address.clone();
    let uid = args.peer.clone().unwrap_or_else(|| address.to_string());
    let target = Arc::new(address.clone());
    let dial = Dial {
        security: meet(args, &collections, replicator_type, security, events),
        address,
        #[cfg(feature = "bluetooth")]
        ble: args.ble.clone(),
        #[cfg(feature = "bluetooth")]
        codec: super::ble::advert_codec(db, security, trust_refresher),
    };
    let endpoint = MessageEndpoint::new(uid, target, ProtocolType::ByteStream, Arc::new(dial));
    let mut config =
        ReplicatorConfiguration::new(endpoint, Arc::new(db.clone())).with_collections(collections);
    if args.collections.is_empty() {
        config = config.with_optional_collections();
    }
    config.replicator_type = replicator_type;
    config.retry_unsynced = args.retry;
    config.continuous = args.continuous;
    config.max_attempts = args.attempts.or((!args.continuous).then_some(ONE_SHOT_ATTEMPTS));
    #[cfg(feature = "bluetooth")]
    if args.address.is_ble() {
        config.limits.open = super::ble::OPEN_LIMIT;
    }
    config.max_attempt_wait = args.retry_wait.unwrap_or(config.max_attempt_wait);
    config
}

/// The settings for the peers of one sync: each is shown, and asked for no more than it may do.
fn meet(
    args: &SyncArgs,
    collections: &[String],
    replicator_type: ReplicatorType,
    security: &Security,
    events: &Events,
) -> Security {
    let Security::Secure(config) = security else { return Security::Plain };
    let mut config = config.clone();
    let (collections, events, label) = (collections.to_vec(), events.clone(), args.address.to_string());
    let wanted = (replicator_type.pushes(), replicator_type.pulls());
    let some = args.collections.is_empty();
    config.check = Some(Arc::new(move |peer| {
        security::announce(&events, &label, peer);
        security::check_grant(&peer.peer, &peer.grant, &collections, wanted, some)
    }));
    config.trust_refusals = !args.continuous;
    config.names_peer = args.peer.is_none();
    Security::Secure(config)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Makes a new connection for each attempt.
struct Dial {
    security: Security,
    address: PlaceAddress,
    #[cfg(feature = "bluetooth")]
    ble: super::ble::BleArgs,
    #[cfg(feature = "bluetooth")]
    codec: Arc<dyn crate::transport::bluez::profile::AdvertCodec>,
}

impl MessageEndpointDelegate for Dial {
    fn create_connection(&self, _: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        match &self.address {
            PlaceAddress::Stream(address) => {
                self.security.over_stream(Arc::new(StreamConnection::connect(address.clone())))
            }
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(peer) => {
                self.security.over_link(super::ble::dial(peer, &self.ble, Arc::clone(&self.codec)))
            }
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => unreachable!("such an address is refused when it is read"),
        }
    }
}

/// Shows what the replicator does until it has stopped, by itself or by a signal.
async fn follow(
    db: &Database,
    replicator: &Replicator,
    mut feed: Option<Feed>,
    args: &SyncArgs,
    events: &Events,
    signals: &mut Signals,
) -> Result<u64, CliError> {
    let mut display =
        Display::new(args.address.to_string(), !args.security.is_plain(), args.continuous, events);
    let mut interrupted = false;
    let mut closing = std::pin::pin!(async { tokio::time::sleep(CLOSING_LIMIT).await });
    let mut tick = tokio::time::interval(DISPLAY_INTERVAL);
    let mut condition = std::pin::pin!(store::tell_condition(db, events));
    loop {
        tokio::select! {
            never = &mut condition => match never {},
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
            () = &mut closing, if interrupted => {
                display.say("the peer did not end in time: cut off");
                break;
            }
            error = store::broken(db), if args.continuous => {
                replicator.stop();
                replicator.wait_until_stopped().await;
                return Err(error);
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
    display.finish(&replicator.status(), interrupted && !args.continuous)
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
