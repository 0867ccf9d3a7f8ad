//! `gattway run`: the daemon.

mod notes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use self::notes::{line_of, open_places};
use crate::cli::commands::config::{self, ConfigArgs};
use crate::cli::commands::control::Control;
use crate::cli::commands::control::gateway::GatewaySocket;
use crate::cli::commands::db::print_asked;
use crate::cli::support::connected::Peers;
use crate::cli::support::error::{CliError, Exit};
#[cfg(feature = "bluetooth")]
use crate::cli::support::events::Event;
use crate::cli::support::events::Events;
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::paced::Topic;
use crate::cli::support::runtime::{self, Signals};
use crate::cli::support::synclog::SyncLog;
use crate::cli::support::{condition, memory, security, store, words};
use crate::gateway::GatewayEvent;
use crate::gateway::config::Config;
use crate::gateway::daemon::Gateway;
use crate::gateway::http::api::{Api, Limits, Question};
use crate::gateway::http::databases::Databases;
use crate::gateway::notify::ServiceManager;
use crate::gateway::pairing::RadioTurn;
use crate::task;

/// How often the loop looks at everything, unless the service manager wants to hear of it more often.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// After something has happened, how often it is looked for so long what is to be told of it.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
const TELL_FOR: Duration = Duration::from_secs(15);

/// Requests over the socket that wait for the loop.
const REQUESTS_MAX: usize = 16;

/// Run the gateway until SIGTERM or SIGINT: its databases, adapters, listeners and upstreams, as the configuration says.
///
/// What cannot be opened, listened on or reached is tried again, and holds up nothing else. SIGHUP reads the configuration
/// again: what has changed is changed, the rest goes on; if it is wrong, it is told and the old one holds.
///
/// Under systemd it tells when it is ready, what goes on, and, for a watchdog, that it works. `gattway status` asks it.
///
/// With --json, standard output has the events of `serve` and `sync`, one a line, each with its `database`; besides
/// `database_failed` and `upstream_failed` (they are tried again), `certificate` (one that was made here), and `reloaded`
/// or `reload_failed`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway config init && gattway config check
  gattway run
  gattway run --config ./gattway.toml --json")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// Events for scripts on standard output
    #[arg(long)]
    json: bool,
}

/// What only a gateway tells. The field names are a promise to scripts.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum OwnEvent<'a> {
    DatabaseFailed { error: &'a str, retry_seconds: f64 },
    UpstreamFailed { upstream: &'a str, error: &'a str, retry_seconds: f64 },
    MqttFailed { mqtt: &'a str, error: &'a str, retry_seconds: f64 },
    Certificate { listener: &'a str, pem: &'a str },
    Reloaded { done: &'a [String] },
    ReloadFailed { errors: Vec<String> },
    HttpListening { address: &'a str },
    HttpFailed { error: &'a str, retry_seconds: f64 },
    HttpCertificate { pem: &'a str },
}

pub(crate) fn run(_: &GlobalArgs, args: &RunArgs) -> Result<(), CliError> {
    memory::keep_little();
    security::keep_secrets_in_memory();
    words::tell_time();
    let config = config::load(&args.config.path)?;
    let events = Events::new(args.json);
    let began = Instant::now();
    let log = Arc::new(Log::new(&events, config.databases.len() > 1));
    let result = runtime::block_on(daemon(config, args, &log));
    log.end();
    let result = result.map(|()| log.documents()).and_then(|documents| events.all_taken(documents));
    events.finish(began, &result);
    result.map(|_| ())
}

async fn daemon(config: Config, args: &RunArgs, log: &Arc<Log>) -> Result<(), CliError> {
    let (questions, asked) = mpsc::channel(REQUESTS_MAX);
    let api = Api::new(log.databases.clone(), Some(questions), log.limits.clone());
    let socket = GatewaySocket::open(&config.socket, api.clone())?;
    open_places(&config).iter().for_each(|note| log.events.say(note));
    let mut signals = Signals::listen_but_hangup()?;
    let mut manager = ServiceManager::default();
    let teller = Arc::clone(log);
    let mut gateway = Gateway::start(config, &args.config.path, Arc::new(move |event| teller.take(event)));
    gateway.answer_with(api);
    manager.ready();
    let looked = look_after(&mut gateway, args, asked, log, &mut signals, &mut manager).await;
    manager.stopping();
    log.events.say("stopping");
    let stopping = async {
        log.databases.clear();
        socket.stop().await;
        gateway.stop().await;
    };
    tokio::select! {
        () = stopping => looked,
        () = signals.next() => Err(CliError::new(Exit::Interrupted, "interrupted before the orderly end")),
    }
}

/// Answers, reloads and looks whether all works, until told to end.
async fn look_after(
    gateway: &mut Gateway,
    args: &RunArgs,
    mut asked: mpsc::Receiver<Question>,
    log: &Arc<Log>,
    signals: &mut Signals,
    manager: &mut ServiceManager,
) -> Result<(), CliError> {
    let failed = |error| CliError::new(Exit::Failure, format!("cannot listen for SIGHUP: {error}"));
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let every = manager.wants_to_hear().map_or(LOOK_INTERVAL, |wanted| (wanted / 3).min(LOOK_INTERVAL));
    let mut look = tokio::time::interval(every);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut giving_back = std::pin::pin!(memory::keep_giving_back());
    let mut turns = gateway.radio_turns().unwrap_or_else(|| watch::channel(RadioTurn::Places).1);
    let mut tick = tokio::time::interval(TELL_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Nobody is woken while nothing happens.
    let mut tell_until = tokio::time::Instant::now() + TELL_FOR;
    loop {
        let tells = tokio::time::Instant::now() < tell_until;
        tokio::select! {
            () = signals.next() => return Ok(()),
            _ = hangup.recv() => reload(gateway, args, log, manager).await,
            Some(question) = asked.recv() => match question {
                Question::Status(answer) => drop(answer.send(Box::new(gateway.status()))),
                Question::History(answer) => drop(answer.send(gateway.history())),
                Question::Sync(order, name, answer) => {
                    let _ = answer.send(gateway.order(order, name.as_deref()).await);
                }
            },
            Ok(()) = turns.changed() => {
                let turn = *turns.borrow_and_update();
                gateway.take_turns(turn).await;
            }
            _ = look.tick() => {
                if gateway.is_alive().await {
                    manager.alive();
                }
                tell(gateway, log, manager);
            }
            () = log.happened.notified() => tell_until = tokio::time::Instant::now() + TELL_FOR,
            _ = tick.tick(), if tells => tell(gateway, log, manager),
            never = &mut giving_back => match never {},
        }
    }
}

/// Tells what is due, and the service manager how it stands.
fn tell(gateway: &Gateway, log: &Log, manager: &mut ServiceManager) {
    log.look();
    if manager.is_there() {
        manager.status(line_of(&gateway.status()));
    }
}

async fn reload(gateway: &mut Gateway, args: &RunArgs, log: &Log, manager: &mut ServiceManager) {
    manager.reloading();
    match crate::gateway::config::load(&args.config.path) {
        Ok(config) => {
            log.is_several(config.databases.len() > 1);
            let done = gateway.reload(config).await;
            match done.is_empty() {
                true => log.events.say("read the configuration again: nothing has changed"),
                false => log.events.say("read the configuration again:"),
            }
            done.iter().for_each(|line| log.events.say(&format!("  {line}")));
            log.events.emit_own(&OwnEvent::Reloaded { done: &done });
        }
        Err(problems) => {
            config::tell(&problems);
            log.events.say("the configuration is wrong: the one before goes on to hold");
            let errors = problems.iter().map(ToString::to_string).collect();
            log.events.emit_own(&OwnEvent::ReloadFailed { errors });
        }
    }
    manager.ready();
}

/// Tells what happens.
struct Log {
    events: Events,
    /// Something did, since somebody waited for it.
    happened: Notify,
    /// Those that programs reach over HTTP.
    databases: Databases,
    limits: Limits,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    /// Whether lines say which database they are of.
    is_several: bool,
    peers: HashMap<String, Arc<Peers>>,
    syncs: HashMap<(String, String), SyncLog>,
    /// Sockets for commands beside the gateway, as `gattway --db PATH db ls`.
    controls: HashMap<String, Control>,
    /// What tells of disks and clocks.
    conditions: HashMap<String, tokio::task::JoinHandle<()>>,
}

impl Log {
    fn new(events: &Events, is_several: bool) -> Log {
        let happened = Notify::new();
        Log {
            events: events.clone(),
            happened,
            databases: Databases::default(),
            limits: Limits::default(),
            state: Mutex::new(LogState { is_several, ..LogState::default() }),
        }
    }

    /// Nothing under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_several(&self, is_several: bool) {
        self.lock().is_several = is_several;
    }

    fn about(&self, database: &str) -> Events {
        let is_several = self.lock().is_several;
        self.events.about(database, is_several)
    }

    fn take(&self, event: &GatewayEvent) {
        self.happened.notify_one();
        match event {
            GatewayEvent::Opened { database, db } => {
                let events = self.about(database);
                store::tell_if_new(db, &events);
                self.databases.add(database, db);
                let control = Control::start(db, database, &self.limits, print_asked);
                let db = db.clone();
                let condition =
                    task::spawn(async move { match condition::tell_condition(&db, &events).await {} });
                let mut state = self.lock();
                state.controls.extend(control.map(|control| (database.to_string(), control)));
                state.conditions.insert(database.to_string(), condition);
            }
            GatewayEvent::Closed { database } => {
                self.databases.remove(database);
                let mut state = self.lock();
                state.conditions.remove(&**database).iter().for_each(tokio::task::JoinHandle::abort);
                let control = state.controls.remove(&**database);
                drop(state);
                drop(control);
            }
            GatewayEvent::DatabaseFailed { database, error, retry } => {
                let (events, retry_seconds) = (self.about(database), retry.as_secs_f64());
                events.say(&format!("{error}; will try again in {} s", retry.as_secs()));
                events.emit_own(&OwnEvent::DatabaseFailed { error, retry_seconds });
            }
            GatewayEvent::CloseFailed { database, error } => {
                self.about(database).say(&format!("the database was not closed as it should: {error}"));
            }
            GatewayEvent::KnowsNobody { database } => {
                let events = self.about(database);
                events.say("nobody may connect yet: this database is in no group and has no paired peer");
                events.say("  -> group-file in the configuration, or `gattway --db PATH group create`, `group join`, `pair`");
            }
            GatewayEvent::Node { database, event } => self.peers(database).observe(event),
            GatewayEvent::Sync { database, upstream, event } => {
                let events = self.about(database);
                let key = (database.to_string(), upstream.to_string());
                self.lock().syncs.entry(key).or_default().take(&events, upstream, event);
            }
            GatewayEvent::UpstreamFailed { database, upstream, error, retry } => {
                let (events, retry_seconds) = (self.about(database), retry.as_secs_f64());
                if events.may_tell(Topic::Sync, &format!("{database} {upstream}")) {
                    events.say(&format!("{upstream}: {error}; will try again in {} s", retry.as_secs()));
                    events.emit_own(&OwnEvent::UpstreamFailed { upstream, error, retry_seconds });
                }
            }
            GatewayEvent::MqttFailed { database, name, error, retry } => {
                let (events, retry_seconds) = (self.about(database), retry.as_secs_f64());
                if events.may_tell(Topic::Sync, &format!("{database} mqtt {name}")) {
                    events.say(&format!("mqtt {name}: {error}; will try again in {} s", retry.as_secs()));
                    events.emit_own(&OwnEvent::MqttFailed { mqtt: name, error, retry_seconds });
                }
            }
            GatewayEvent::OwnCertificate { database, listener, pem } => {
                let events = self.about(database);
                events.say(&format!(
                    "{listener}: clients believe this gateway by --pin-cert and a file with this certificate:"
                ));
                events.say(pem);
                events.emit_own(&OwnEvent::Certificate { listener, pem });
            }
            GatewayEvent::HttpListens { .. }
            | GatewayEvent::HttpFailed { .. }
            | GatewayEvent::HttpCertificate { .. } => tell_http(&self.events, event),
            GatewayEvent::Passkey { database, peer, code } => {
                let events = self.about(database);
                events.say(&format!("{peer} wants to pair: type {code} there"));
                #[cfg(feature = "bluetooth")]
                events.emit(&Event::Passkey { peer, code: code.clone() });
            }
        }
    }

    fn peers(&self, database: &str) -> Arc<Peers> {
        let events = self.about(database);
        let mut state = self.lock();
        let peers = state
            .peers
            .entry(database.to_owned())
            .or_insert_with(|| Arc::new(Peers::new(&events, true, false)));
        Arc::clone(peers)
    }

    /// Tells what is due.
    fn look(&self) {
        let peers: Vec<Arc<Peers>> = self.lock().peers.values().cloned().collect();
        peers.iter().for_each(|peers| peers.tell_at_rest());
        self.events.tell_left_out();
    }

    /// Tells what is left to tell.
    fn end(&self) {
        let peers: Vec<Arc<Peers>> = self.lock().peers.values().cloned().collect();
        self.events.tell_rest();
        peers.iter().for_each(|peers| peers.tell_turned_away());
    }

    /// Documents that went over, with all peers.
    fn documents(&self) -> u64 {
        let state = self.lock();
        let peers = state.peers.values().map(|peers| peers.documents());
        let syncs = state.syncs.values().map(SyncLog::documents);
        peers.chain(syncs).sum()
    }
}

fn tell_http(events: &Events, event: &GatewayEvent) {
    match event {
        GatewayEvent::HttpListens { address } => {
            events.say(&format!("HTTP: listens on {address}"));
            events.emit_own(&OwnEvent::HttpListening { address });
        }
        GatewayEvent::HttpFailed { error, retry } => {
            let retry_seconds = retry.as_secs_f64();
            events.say(&format!("{error}; will try again in {} s", retry.as_secs()));
            events.emit_own(&OwnEvent::HttpFailed { error, retry_seconds });
        }
        GatewayEvent::HttpCertificate { pem } => {
            events.say("HTTP: clients believe this gateway by this certificate:");
            events.say(pem);
            events.emit_own(&OwnEvent::HttpCertificate { pem });
        }
        _ => {}
    }
}
