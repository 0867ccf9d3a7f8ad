//! Bluetooth in the commands: the options of `sync` and `serve`.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::future::BoxFuture;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::output::note;
use crate::node::{AdvertPolicy, Ble, BleCentral, BlePeer, BlePlace};
use crate::transport::bluez::BluetoothError;
use crate::transport::bluez::adapter::SLOTS_DEFAULT;
use crate::transport::bluez::agent::Pairing;
use crate::transport::bluez::security::SecurityLevel;

/// What to do when Bluetooth cannot be used.
pub(crate) const DOCTOR: &str = "`gattway doctor` says what is missing on this machine";

/// Of the options in `--help`. Each has it by itself: a heading of a whole group would go on over what follows.
const HEADING: &str = "Bluetooth";

/// How a central gets at the peer's characteristics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Central {
    /// bluer: an L2CAP channel where the peer offers one, else sockets for both characteristics
    #[default]
    Auto,
    /// bluer, never L2CAP
    Gatt,
    /// btleplug: one D-Bus call a packet, for comparison
    Btleplug,
}

/// Options of commands that use Bluetooth.
#[derive(Clone, Debug, Args)]
pub(crate) struct BleArgs {
    /// The adapter, by name (hci0) or address [default: the first]
    #[arg(help_heading = HEADING, long, value_name = "ADAPTER")]
    pub(crate) adapter: Option<String>,

    /// How packets are sent
    #[arg(help_heading = HEADING, long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) central: Central,

    /// Connections the adapter is trusted with, of all programs; BlueZ cannot tell how many it has
    #[arg(help_heading = HEADING, long, value_name = "N", default_value_t = SLOTS_DEFAULT as u16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) slots: u16,

    /// Pair with a peer that wants it (serve --link-security); if it shows a code of six digits, that is asked for,
    /// a line on standard input
    #[arg(help_heading = HEADING, long)]
    pub(crate) link_pair: bool,
}

/// Asks for the code that a peer shows.
fn ask_passkey(peer: String) -> BoxFuture<'static, Option<u32>> {
    note(&format!("{peer} shows a code of six digits; type it here:"));
    Box::pin(async {
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let code = line.await.ok()?.ok()?.trim().parse().ok();
        code.filter(|code| *code <= 999_999)
    })
}

/// What `serve` requires of a radio connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LinkSecurityArg {
    /// nothing: the session above encrypts by itself
    #[default]
    None,
    /// encryption: the devices pair without a code, nobody knows with whom
    Encrypt,
    /// encryption with a key for which somebody typed the code that this side shows
    Authenticate,
}

/// Options of `serve` for Bluetooth's own security, and for adverts.
#[derive(Clone, Debug, Args)]
pub(crate) struct LinkArgs {
    /// What the radio connection must have, beneath the session's own security
    #[arg(help_heading = HEADING, long, value_enum, default_value_t, value_name = "LEVEL")]
    link_security: LinkSecurityArg,

    /// Only devices that have paired before; implies at least --link-security encrypt
    #[arg(help_heading = HEADING, long)]
    bonded_only: bool,

    /// Tell everybody the name of this machine; peers find it by `ble:NAME` without knowing it. Always told
    /// with --plain
    #[arg(help_heading = HEADING, long)]
    advertise_name: bool,

    #[command(flatten)]
    adverts: AdvertArgs,
}

/// When to advertise, and how fast. The defaults are the policy's own.
#[derive(Clone, Debug, Args)]
struct AdvertArgs {
    /// How often to advertise while something is new: 20ms to 10.24s [default: 100ms]. BlueZ 5.66 takes no
    /// interval unless it runs with --experimental: that of /etc/bluetooth/main.conf holds then
    #[arg(help_heading = HEADING, long, value_name = "INTERVAL", value_parser = humantime::parse_duration)]
    advert_fast_interval: Option<Duration>,

    /// How long at most; it ends sooner when a peer has fetched all [default: 30s]
    #[arg(help_heading = HEADING, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    advert_fast_for: Option<Duration>,

    /// How long after that it is not fast, whatever is new but urgent [default: 5m]
    #[arg(help_heading = HEADING, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    advert_fast_rest: Option<Duration>,

    /// How often to advertise otherwise [default: 1s]
    #[arg(help_heading = HEADING, long, value_name = "INTERVAL", value_parser = humantime::parse_duration)]
    advert_slow_interval: Option<Duration>,

    /// Be silent with nothing pending for so long: not found, and nobody can bring anything [default: never]
    #[arg(help_heading = HEADING, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    advert_silent_after: Option<Duration>,

    /// How long to be silent at most, before it is slow for as long as that again [default: 10m]
    #[arg(help_heading = HEADING, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    advert_silent_for: Option<Duration>,

    /// From how many changes on, that no peer has, the advert says that they are urgent [default: never]
    #[arg(help_heading = HEADING, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    advert_urgent_changes: Option<u64>,

    /// A collection of which every change is urgent, again for more
    #[arg(help_heading = HEADING, long = "advert-urgent", value_name = "COLLECTION")]
    advert_urgent_collections: Vec<String>,

    /// The shortest time between two changes of what is advertised [default: 1s]
    #[arg(help_heading = HEADING, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    advert_change_gap: Option<Duration>,
}

impl AdvertArgs {
    fn policy(&self) -> Result<AdvertPolicy, CliError> {
        let default = AdvertPolicy::default();
        let policy = AdvertPolicy {
            fast_interval: self.advert_fast_interval.unwrap_or(default.fast_interval),
            fast_for: self.advert_fast_for.unwrap_or(default.fast_for),
            fast_rest: self.advert_fast_rest.unwrap_or(default.fast_rest),
            slow_interval: self.advert_slow_interval.unwrap_or(default.slow_interval),
            silent_after: self.advert_silent_after,
            silent_for: self.advert_silent_for.unwrap_or(default.silent_for),
            urgent_changes: self.advert_urgent_changes,
            urgent_collections: self.advert_urgent_collections.clone(),
            change_gap: self.advert_change_gap.unwrap_or(default.change_gap),
        };
        match policy.check() {
            Ok(()) => Ok(policy),
            Err(error) => Err(CliError::new(Exit::Usage, format!("--advert-...: {error}"))),
        }
    }
}

impl LinkArgs {
    /// Whether adverts can be made as the options say, before anything is made for it.
    ///
    /// # Errors
    /// They cannot.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        self.adverts.policy().map(drop)
    }

    /// How an adapter is listened on.
    ///
    /// # Errors
    /// Adverts cannot be made as the options say.
    pub(crate) fn place(&self, adapter: &str, events: &Events) -> Result<BlePlace, CliError> {
        let level = match self.link_security {
            LinkSecurityArg::None => SecurityLevel::None,
            LinkSecurityArg::Encrypt => SecurityLevel::Encrypt,
            LinkSecurityArg::Authenticate => SecurityLevel::Authenticate,
        };
        let place = Ble::adapter(adapter).link_security(level, self.pairing(events));
        Ok(place.advertise_name(self.advertise_name).adverts(self.adverts.policy()?))
    }

    /// How devices may pair.
    fn pairing(&self, events: &Events) -> Option<Pairing> {
        if self.bonded_only {
            return Some(Pairing::Refused);
        }
        match self.link_security {
            LinkSecurityArg::None => None,
            LinkSecurityArg::Encrypt => Some(Pairing::JustWorks),
            LinkSecurityArg::Authenticate => {
                let events = events.clone();
                Some(Pairing::Show(Arc::new(move |passkey| {
                    let code = format!("{:06}", passkey.code);
                    events.say(&format!("{} wants to pair: type {code} there", passkey.peer));
                    events.emit(&Event::Passkey { peer: &passkey.peer, code });
                })))
            }
        }
    }
}

impl BleArgs {
    /// How the peripheral `peer` is reached: its address, its name, or `any`.
    pub(crate) fn peer(&self, peer: &str) -> BlePeer {
        let central = match self.central {
            Central::Auto => BleCentral::Auto,
            Central::Gatt => BleCentral::Gatt,
            Central::Btleplug => BleCentral::Btleplug,
        };
        let pairing = self.link_pair.then(|| Pairing::Type(Arc::new(ask_passkey)));
        Ble::peer(peer).through(self.adapter.clone()).central(central).slots(self.slots).pairing(pairing)
    }
}

pub(crate) fn cli_error(error: BluetoothError) -> CliError {
    failed(&error)
}

/// Bluetooth cannot be used, or has not found anybody.
pub(crate) fn failed(error: &dyn std::error::Error) -> CliError {
    CliError::new(Exit::Peer, error.to_string()).help(DOCTOR)
}
