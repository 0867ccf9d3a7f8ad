//! `gattway pair`: two devices that know nothing of each other come to trust each other by a short code.
//!
//! One file, because both sides hold the same conversation and end in the same ways; who may try a code is in `attempts`.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::cli::commands::pairing_listener::{PairingListener, PairingPolicy};
use crate::cli::commands::peers::RoleArgs;
use crate::cli::support::attempts::{self, Attempts, Talks, Turn};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::Events;
use crate::cli::support::flood::{BURST, EVERY, Limiter};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::{Output, counted, note};
use crate::cli::support::runtime::{self, Signals};
use crate::cli::support::trust::list_failed;
use crate::cli::support::{secret, security, store};
use crate::endpoint::{Inbound, Message, MessageEndpointConnection, MessagingError, ReplicatorConnection};
use crate::gateway::address::PlaceAddress;
use crate::node::access::own_name;
use crate::node::{Connect, Local};
use crate::secure::pairing::{DeviceInfo, Pairing, PairingCode, PairingError, PairingStep};
use crate::secure::{Established, Identity, PeerId, SecureError};
use crate::transport::secure::{
    Accepted, Incoming, SecureAcceptor, SecureConnection, SecureConnectionConfig,
};
use crate::transport::stream::Address;
use crate::trust::Guesses;
use crate::trust::files::PrivateFileError;
use crate::trust::list::{Origin, TrustError, TrustList, check_name};

/// Time for all of it: a person walks from one device to the other and types six digits.
const PAIRING_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for the messages of one attempt: five flights at the slowest interval of Bluetooth.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the peer that may wait: some messages.
const INBOUND_BYTES: usize = 4096;

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

/// What one side of a pairing needs.
struct Side<'a> {
    args: &'a PairArgs,
    events: Events,
    directory: PathBuf,
    identity: Arc<Identity>,
    device_info: DeviceInfo,
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
    let identity = Arc::new(security::identity(&directory)?);
    let device_info = DeviceInfo { name, advert_key: identity.advert_key() };
    let events = Events::new(args.json);
    let side = Side { args, events: events.clone(), directory, identity, device_info };
    let paired = side.pair(code);
    events.end();
    paired
}

impl Side<'_> {
    fn pair(&self, code: Option<PairingCode>) -> Result<(), CliError> {
        match (&self.args.address, &self.args.listen, code) {
            (Some(address), _, Some(code)) => runtime::block_on(within_limits(self.connect(address, &code))),
            (None, Some(address), code) => {
                let attempts = match &code {
                    None => Attempts::of_shown_code(),
                    Some(code) => {
                        Attempts::of_given_code(Guesses::of(&self.directory, &self.identity, code))?
                    }
                };
                let shown = code.is_none();
                let code =
                    code.map_or_else(|| secret::random().map(|bytes| PairingCode::from_entropy(*bytes)), Ok)?;
                runtime::block_on(within_limits(self.listen(address, &code, shown, &attempts)))
            }
            _ => Err(CliError::new(Exit::Usage, "no device to pair with was named")),
        }
    }
}

fn read_code(file: Option<&std::path::Path>) -> Result<PairingCode, CliError> {
    let text = secret::read("the code that the other device shows", file)?;
    PairingCode::parse(&text).map_err(|error| CliError::new(Exit::Input, error.to_string()))
}

/// Ends with the time limit or a signal.
async fn within_limits(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = timeout(PAIRING_TIMEOUT, work) => done.unwrap_or_else(|_| {
            Err(CliError::new(Exit::Peer, format!("not paired within {} s", PAIRING_TIMEOUT.as_secs()))
                .help("start it again on both sides"))
        }),
        () = signals.next() => Err(CliError::new(Exit::Interrupted, "interrupted, not paired")),
    }
}

impl Side<'_> {
    /// Tells a script, or people.
    fn tell(&self, event: &Event<'_>, line: &str) {
        self.events.emit_own(event);
        self.events.say(line);
    }

    fn config(&self) -> SecureConnectionConfig {
        let mut config =
            SecureConnectionConfig::new(Arc::clone(&self.identity), Arc::new(PairingPolicy::new()));
        config.pairing = true;
        config.trust_refusals = true;
        config
    }

    /// The side where the code was typed.
    async fn connect(&self, address: &PlaceAddress, code: &PairingCode) -> Result<(), CliError> {
        let way: Box<dyn Connect> = match address {
            PlaceAddress::Stream(address) => Box::new(address.clone()),
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(peer) => Box::new(self.args.ble.peer(peer)),
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => unreachable!("such an address is refused when it is read"),
            #[cfg(feature = "websocket")]
            PlaceAddress::WebSocket(_) => unreachable!("such an address is refused when it is read"),
        };
        let carrier = way.connect(&Local::default());
        let connection = SecureConnection::active(carrier, self.config());
        let (handle, inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
        let opened = connection.open(handle).await;
        let established = opened.and_then(|()| {
            connection.peer().ok_or_else(|| MessagingError::permanent("the secure session has no peer"))
        });
        let established = match established {
            Ok(established) => established,
            Err(error) => {
                let _ = connection.close(Some(error.clone())).await;
                let told = CliError::new(Exit::Peer, format!("{address}: {error}"));
                // A version says itself what to do.
                let source = error.source().and_then(|source| source.downcast_ref());
                return Err(match source {
                    Some(SecureError::Version { .. }) => told,
                    _ => told.help(
                        "run `gattway pair --listen` on the other device, and mind that it waits for two minutes only",
                    ),
                });
            }
        };
        let pairing = Pairing::active(
            code,
            established.hash,
            self.identity.id(),
            established.peer,
            self.device_info.clone(),
        );
        let turn = Turn::default();
        self.finish(self.converse(&connection, inbound, pairing, &established, &turn).await)
    }

    /// The side that shows the code.
    async fn listen(
        &self,
        address: &PlaceAddress,
        code: &PairingCode,
        shown: bool,
        attempts: &Attempts,
    ) -> Result<(), CliError> {
        let acceptor = SecureAcceptor::new(self.config());
        let mut pairing_listener = PairingListener::bind(address, &self.device_info.name).await?;
        self.tell(
            &Event::Listening { address: &pairing_listener.address },
            &format!("listening on {}", pairing_listener.address),
        );
        if shown {
            let text = code.text();
            if self.args.json {
                let digits = Zeroizing::new(text.replace(' ', ""));
                self.events.emit_own(&Event::Code { code: &digits });
            } else {
                let mut out = Output::new();
                out.line(format!("code: {}", &*text))?;
                out.flush()?;
                note("type it on the other device: gattway pair ADDRESS");
            }
        }
        let mut refusals = Limiter::new(BURST, EVERY);
        let mut talks = Talks::default();
        while attempts.left() > 0 || talks.has_proven() {
            let accepted = tokio::select! {
                taken = pairing_listener.take(&acceptor) => {
                    taken?;
                    continue;
                }
                incoming = acceptor.next() => match incoming {
                    Some(Incoming::Accepted(accepted)) => *accepted,
                    Some(Incoming::Refused { label, error, .. }) => {
                        match refusals.ask(&(), Instant::now()) {
                            Some(left_out @ 1..) => note(&format!("{label}: {error} (and {left_out} like it)")),
                            Some(_) => note(&format!("{label}: {error}")),
                            None => {}
                        }
                        continue;
                    }
                    None => break,
                },
                (peer, ended) = talks.next() => {
                    if let Some(done) = self.ended(peer, ended, attempts, &mut refusals) {
                        return self.finish(done);
                    }
                    continue;
                }
            };
            talks.begin(|turn| self.answer(accepted, code, turn.counted_by(attempts)));
        }
        Err(CliError::new(
            Exit::Peer,
            "not paired: the code was wrong too often, and is good for nothing now",
        )
        .help("start again for a new code; if nobody mistyped, somebody nearby is trying"))
    }

    /// One newcomer's attempt, from its arrival on.
    async fn answer(&self, accepted: Accepted, code: &PairingCode, turn: Turn<'_>) -> (PeerId, Ended) {
        let Accepted { connection, established, .. } = accepted;
        let (handle, inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
        let (peer, me) = (established.peer, self.identity.id());
        let pairing = Pairing::passive(code.clone(), established.hash, me, peer, self.device_info.clone());
        let ended = match connection.open(handle).await {
            Ok(()) => self.converse(&connection, inbound, pairing, &established, &turn).await,
            Err(error) => Ended::Lost(error.to_string()),
        };
        (peer, ended)
    }

    /// Tells of an attempt that has failed; gives back how it ended if that is the end of the command.
    fn ended(
        &self,
        peer: PeerId,
        ended: Ended,
        attempts: &Attempts,
        refusals: &mut Limiter<()>,
    ) -> Option<Ended> {
        let left = attempts.left();
        match ended {
            Ended::Failed(error) => {
                let error = format!("{peer}: {error}");
                let line = format!("{error}; {} left", counted(left.into(), "attempt"));
                self.tell(&Event::Attempt { error, left }, &line);
            }
            // Whoever connects can cause one of these, as often as he likes.
            Ended::Lost(error) => {
                if refusals.ask(&(), Instant::now()).is_some() {
                    let error = format!("{peer}: {error}");
                    let line = error.clone();
                    self.tell(&Event::Attempt { error, left }, &line);
                }
            }
            done => return Some(done),
        }
        None
    }

    /// Runs one attempt to its end and closes the connection.
    async fn converse(
        &self,
        connection: &SecureConnection,
        inbound: Inbound,
        pairing: Pairing,
        established: &Established,
        turn: &Turn<'_>,
    ) -> Ended {
        let talk = self.talk(connection, inbound, pairing, established, turn);
        let ended = timeout(ATTEMPT_TIMEOUT, talk)
            .await
            .unwrap_or_else(|_| Ended::Lost(format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs())));
        // In order, so that a last word arrives.
        let _ = connection.close(None).await;
        ended
    }

    async fn talk(
        &self,
        connection: &SecureConnection,
        mut inbound: Inbound,
        mut pairing: Pairing,
        established: &Established,
        turn: &Turn<'_>,
    ) -> Ended {
        let mut bytes = Vec::new();
        let mut entered = None;
        loop {
            let mut step = pairing.handle_bytes(&bytes);
            if step == Ok(PairingStep::Guess) {
                match turn.count() {
                    Ok(true) => step = turn.judged(pairing.judge()),
                    Ok(false) => return Ended::Lost("the code was tried too often meanwhile".into()),
                    Err(error) => return Ended::NotCounted(error),
                }
            }
            if let Ok(PairingStep::Enter(device_info)) = &step {
                match self.enter(established.peer, device_info) {
                    Ok(name) => entered = Some(Peer { id: established.peer, name, confirmed: false }),
                    Err(error) => return Ended::NotEntered(error),
                }
                step = pairing.entered();
            }
            let output = pairing.take_output();
            let sent =
                if output.is_empty() { Ok(()) } else { connection.send(Message::from_bytes(output)).await };
            match (step, entered.take()) {
                (Err(error), _) => return Ended::Failed(error),
                (Ok(PairingStep::Done), Some(peer)) => {
                    return Ended::Paired(Peer { confirmed: true, ..peer });
                }
                (_, peer) => entered = peer,
            }
            let message = match sent {
                Ok(()) => inbound.next().await,
                Err(_) => None,
            };
            match (message, entered.take()) {
                (Some(message), peer) => {
                    bytes = message.as_slice().to_vec();
                    entered = peer;
                }
                (None, Some(peer)) => return Ended::Paired(peer),
                (None, None) => return Ended::Lost("the connection ended before the code was proven".into()),
            }
        }
    }

    /// Enters the other device into the list; gives the name it has there.
    fn enter(&self, id: PeerId, device_info: &DeviceInfo) -> Result<Option<String>, TrustError> {
        TrustList::update(&self.directory, |list| {
            let permissions = self.args.roles.for_peer(list, &id)?;
            let peer = list.enter(id, Origin::Paired)?;
            if peer.denied {
                note("it was denied; this pairing lets it in again");
            }
            (peer.origin, peer.denied) = (Origin::Paired, false);
            peer.permissions = permissions.or(peer.permissions.take());
            peer.advert_key = Some(device_info.advert_key.clone());
            if peer.name.is_none() {
                list.suggest_name(&id, &device_info.name);
            }
            Ok(list.get(&id).and_then(|peer| peer.name.clone()))
        })
    }

    fn finish(&self, ended: Ended) -> Result<(), CliError> {
        match ended {
            Ended::Paired(peer) => {
                let name = peer.name.as_deref();
                self.events.emit_last(&Event::Paired { id: peer.id.to_text(), name });
                let name = name.unwrap_or("a device without a name");
                self.events.say(&format!("paired with {name} ({})", peer.id));
                if !peer.confirmed {
                    note(
                        "the connection ended before the other side said that it has entered this one; if it did not, pair again",
                    );
                }
                Ok(())
            }
            Ended::NotEntered(error) => Err(list_failed(error)),
            Ended::NotCounted(error) => Err(attempts::failed(&error)),
            Ended::Failed(error) => Err(CliError::new(Exit::Peer, format!("not paired: {error}"))
                .help("compare the code and try again; if it was right, somebody may be in between")),
            Ended::Lost(error) => Err(CliError::new(Exit::Peer, format!("not paired: {error}"))
                .help("bring the devices nearer to each other and start again")),
        }
    }
}

/// How an attempt ended.
enum Ended {
    Paired(Peer),
    Failed(PairingError),
    Lost(String),
    NotEntered(TrustError),
    NotCounted(PrivateFileError),
}

/// Who is in the list now.
struct Peer {
    id: PeerId,
    name: Option<String>,
    /// The other side has said that it has entered this one.
    confirmed: bool,
}
