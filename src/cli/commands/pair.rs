//! `gattway pair`: two devices that know nothing of each other come to trust each other by a short code.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::cli::commands::peers::RoleArgs;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::Events;
use crate::cli::support::flood::{BURST, EVERY, Limiter};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::listen::listen_failed;
use crate::cli::support::output::{Output, note};
use crate::cli::support::runtime::{self, Signals};
use crate::cli::support::trust::list_failed;
use crate::cli::support::{secret, security, store};
use crate::gateway::address::PlaceAddress;
use crate::node::access::own_name;
use crate::node::{Connect, Listen, ListenError, PairBuilder, PairError, PairEvent, Paired};
use crate::secure::SecureError;
use crate::secure::pairing::PairingCode;
use crate::transport::stream::Address;
use crate::trust::list::check_name;

/// Pair with another device by a code of six digits, shown there and typed here or the other way round.
///
/// The side that listens shows the code, the side that connects asks for it. Afterwards each has the other in its list
/// (`gattway peers`) and may sync without a common group. The code is good for two minutes and three attempts, and for
/// nothing afterwards; who listens in learns nothing from it. Over Bluetooth, end a `serve` on the same adapter meanwhile.
///
/// With --json, standard output has one event a line: `listening`, `code` (to be shown to a person), `attempt` (with its
/// error), and last `paired`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db gateway.db pair --listen ble          # shows a code
  gattway --db sensor.db pair ble:any                # asks for it
  gattway --db gateway.db pair --listen tcp:0.0.0.0:4986 --role write
  gattway --db sensor.db pair tcp:gateway.local:4986 --code-file code.txt")]
pub(crate) struct PairArgs {
    /// The device that shows the code: ble:ADDRESS, ble:NAME or ble:any, tcp:HOST:PORT, unix:PATH
    #[arg(value_name = "ADDRESS", required_unless_present = "listen", conflicts_with = "listen", value_parser = parse_place)]
    address: Option<PlaceAddress>,

    /// Show a code and wait for the other device: ble or ble:ADAPTER, tcp:HOST:PORT, unix:PATH
    #[arg(long, value_name = "ADDRESS", value_parser = parse_place)]
    listen: Option<PlaceAddress>,

    #[cfg(feature = "bluetooth")]
    #[command(flatten)]
    ble: crate::cli::support::ble::BleArgs,

    /// Take the code from this file, - is standard input, instead of showing or asking for one. When listening it is good
    /// for a single wrong attempt then, for ever: put another code into the file
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,

    /// What this device calls itself to the other [default: the name of this machine]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    roles: RoleArgs,

    /// Events for scripts on standard output
    #[arg(long)]
    json: bool,
}

/// Something that happened. The field names are a promise to scripts.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    /// The other device can connect now.
    Listening { address: &'a str },
    /// The code that a person must type on the other device.
    Code { code: &'a str },
    /// An attempt has failed.
    Attempt { error: String, left: u32 },
    /// Each side has the other in its list.
    Paired { id: String, name: Option<&'a str> },
}

/// Two devices that are paired are near each other.
fn parse_place(text: &str) -> Result<PlaceAddress, String> {
    match text.parse()? {
        #[cfg(feature = "websocket")]
        PlaceAddress::WebSocket(_) => Err("devices are paired over Bluetooth, TCP or a Unix socket".into()),
        address => Ok(address),
    }
}

pub(crate) fn run(global: &GlobalArgs, args: &PairArgs) -> Result<(), CliError> {
    security::keep_secrets_in_memory();
    let name = args.name.clone().unwrap_or_else(own_name);
    check_name(&name).map_err(list_failed)?;
    if args.address.iter().chain(&args.listen).any(|place| *place == PlaceAddress::Stream(Address::Stdio)) {
        return Err(CliError::new(Exit::Usage, "two devices cannot be paired over stdio")
            .help("use ble:, tcp: or unix:, or `gattway peers add` with the ID of each on the other"));
    }
    let code = match (&args.code_file, &args.address) {
        (Some(file), _) => Some(read_code(Some(file))?),
        (None, Some(_)) => Some(read_code(None)?),
        (None, None) => None,
    };
    // Not before the code was read: without one there is no use for a new database.
    let directory = store::private_directory(global.db_path()?)?;
    let events = Events::new(args.json);
    let teller = Arc::new(Teller::new(args.json, events.clone()));
    let (roles, told) = (args.roles.clone(), Arc::clone(&teller));
    let pairing = PairBuilder::new(&directory)
        .name(name)
        .roles(Arc::new(move |list, id| roles.for_peer(list, id)))
        .observe(move |event| told.tell(event));
    let paired = args.pair(pairing, code, &teller);
    let ended = finish(paired, args, &events);
    events.end();
    ended
}

/// How the command ended: paired or not, or stopped before.
type Outcome = Result<Result<Paired, PairError>, CliError>;

impl PairArgs {
    fn pair(&self, pairing: PairBuilder, code: Option<PairingCode>, teller: &Teller) -> Outcome {
        match (&self.address, &self.listen, code) {
            (Some(address), _, Some(code)) => {
                let way = self.way(address);
                runtime::block_on(teller.unless_interrupted(pairing.connect_by(&*way, &code)))
            }
            (None, Some(address), code) => {
                let place = self.place(address);
                runtime::block_on(teller.unless_interrupted(pairing.listen_on(place, code)))
            }
            _ => Err(CliError::new(Exit::Usage, "no device to pair with was named")),
        }
    }

    /// How the device that shows the code is reached.
    fn way(&self, address: &PlaceAddress) -> Box<dyn Connect> {
        match address {
            PlaceAddress::Stream(address) => Box::new(address.clone()),
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(peer) => Box::new(self.ble.peer(peer)),
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => unreachable!("such an address is refused when it is read"),
            #[cfg(feature = "websocket")]
            PlaceAddress::WebSocket(_) => unreachable!("such an address is refused when it is read"),
        }
    }

    /// Where the other device arrives; over Bluetooth under this one's name, so that a person finds it.
    fn place(&self, address: &PlaceAddress) -> Box<dyn Listen> {
        match address {
            PlaceAddress::Stream(address) => Box::new(address.clone()),
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(adapter) => Box::new(crate::node::Ble::adapter(adapter).named(self.own_name())),
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => unreachable!("such an address is refused when it is read"),
            #[cfg(feature = "websocket")]
            PlaceAddress::WebSocket(_) => unreachable!("such an address is refused when it is read"),
        }
    }

    /// What this device calls itself.
    fn own_name(&self) -> String {
        self.name.clone().unwrap_or_else(own_name)
    }
}

fn read_code(file: Option<&std::path::Path>) -> Result<PairingCode, CliError> {
    let text = secret::read("the code that the other device shows", file)?;
    PairingCode::parse(&text).map_err(|error| CliError::new(Exit::Input, error.to_string()))
}

/// Tells a script, or people.
struct Teller {
    events: Events,
    json: bool,
    refusals: Mutex<Limiter<()>>,
    /// Why the code could not be shown.
    unseen: Mutex<Option<CliError>>,
    is_unseen: Notify,
}

impl Teller {
    fn new(json: bool, events: Events) -> Teller {
        let refusals = Mutex::new(Limiter::new(BURST, EVERY));
        Teller { events, json, refusals, unseen: Mutex::default(), is_unseen: Notify::new() }
    }

    /// Runs the pairing, until there is a signal or nobody reads the code.
    async fn unless_interrupted(&self, pairing: impl Future<Output = Result<Paired, PairError>>) -> Outcome {
        let mut signals = Signals::listen()?;
        tokio::select! {
            done = pairing => Ok(done),
            () = signals.next() => Err(CliError::new(Exit::Interrupted, "interrupted, not paired")),
            () = self.is_unseen.notified() => {
                Err(lock(&self.unseen).take().unwrap_or_else(|| CliError::new(Exit::Failure, "no output")))
            }
        }
    }

    fn tell(&self, event: &PairEvent<'_>) {
        match event {
            PairEvent::Listening { address, .. } => {
                self.events.emit_own(&Event::Listening { address });
                self.events.say(&event.to_string());
            }
            PairEvent::Code { code, .. } if self.json => {
                let digits = Zeroizing::new(code.replace(' ', ""));
                self.events.emit_own(&Event::Code { code: &digits });
            }
            PairEvent::Code { .. } => {
                if let Err(error) = show_code(event) {
                    *lock(&self.unseen) = Some(error);
                    self.is_unseen.notify_one();
                }
            }
            PairEvent::Refused { .. } => match self.ask() {
                Some(left_out @ 1..) => note(&format!("{event} (and {left_out} like it)")),
                Some(_) => note(&event.to_string()),
                None => {}
            },
            PairEvent::Attempt { peer, error, left, counted, .. } => {
                if *counted || self.ask().is_some() {
                    let error = format!("{peer}: {error}");
                    self.events.emit_own(&Event::Attempt { error, left: *left });
                    self.events.say(&event.to_string());
                }
            }
            PairEvent::Readmitted { .. } => note(&event.to_string()),
        }
    }

    /// Asks about one more line that whoever is near can cause, as often as it likes.
    fn ask(&self) -> Option<u64> {
        lock(&self.refusals).ask(&(), Instant::now())
    }
}

/// Nothing under these locks can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show_code(event: &PairEvent<'_>) -> Result<(), CliError> {
    let text = Zeroizing::new(event.to_string());
    let mut out = Output::new();
    out.line(&*text)?;
    out.flush()?;
    note("type it on the other device: gattway pair ADDRESS");
    Ok(())
}

fn finish(outcome: Outcome, args: &PairArgs, events: &Events) -> Result<(), CliError> {
    let paired = outcome?.map_err(|error| failed(error, args))?;
    let name = paired.name.as_deref();
    events.emit_last(&Event::Paired { id: paired.id.to_text(), name });
    let name = name.unwrap_or("a device without a name");
    events.say(&format!("paired with {name} ({})", paired.id));
    if !paired.confirmed {
        note(
            "the connection ended before the other side said that it has entered this one; if it did not, pair again",
        );
    }
    Ok(())
}

/// What there is to do about it.
fn failed(error: PairError, args: &PairArgs) -> CliError {
    let text = error.to_string();
    let peer = |help: &str| CliError::new(Exit::Peer, text.clone()).help(help.to_owned());
    match error {
        PairError::Access(error) => security::failed(error),
        PairError::List(error) => list_failed(error),
        PairError::Guesses(error) => CliError::new(Exit::Database, text).help(error.advice()),
        PairError::Code(_) => CliError::new(Exit::Input, text),
        PairError::CodeSpent => CliError::new(Exit::Input, text)
            .help("write another code into the file; if nobody mistyped, somebody nearby is trying"),
        PairError::Listen(error) => not_listening(&error, args),
        PairError::ListenerEnded => CliError::new(Exit::Peer, text),
        PairError::Connect { error, .. } => {
            // A version says itself what to do.
            let source = error.source().and_then(|source| source.downcast_ref());
            if let Some(SecureError::Version { .. }) = source {
                return CliError::new(Exit::Peer, text);
            }
            peer(
                "run `gattway pair --listen` on the other device, and mind that it waits for two minutes only",
            )
        }
        PairError::Refused(_) => {
            peer("compare the code and try again; if it was right, somebody may be in between")
        }
        PairError::Lost { .. } => peer("bring the devices nearer to each other and start again"),
        PairError::NoAttemptLeft => {
            peer("start again for a new code; if nobody mistyped, somebody nearby is trying")
        }
        PairError::TimedOut { .. } => peer("start it again on both sides"),
    }
}

fn not_listening(error: &ListenError, args: &PairArgs) -> CliError {
    if !error.is_of_opening() {
        return CliError::new(Exit::Peer, error.to_string());
    }
    #[cfg(feature = "bluetooth")]
    if args.listen.as_ref().is_some_and(PlaceAddress::is_ble) {
        return crate::cli::support::ble::failed(error.io_error());
    }
    let _ = args;
    listen_failed(error)
}
