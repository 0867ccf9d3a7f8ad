//! Bluetooth in the commands: how `sync` dials, and how `serve` listens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::{Args, ValueEnum};
use futures_util::future::BoxFuture;

use super::events::{Event, Events};
use super::output::note;
use super::security::{Security, TrustRefresher};
use super::{CliError, Exit};
use crate::database::Database;
use crate::replica::store::ReplicaStore;
use crate::transport::bluez::BluetoothError;
use crate::transport::bluez::adapter::{self, Adapter, SLOTS_DEFAULT, set_slots};
use crate::transport::bluez::agent::{Pairing, PairingAgent};
use crate::transport::bluez::central::BluerCentral;
use crate::transport::bluez::central_btleplug::BtleplugCentral;
use crate::transport::bluez::l2cap::L2capCentral;
use crate::transport::bluez::listener::{BluetoothListener, ListenerConfig};
use crate::transport::bluez::profile::{AdvertBytes, AdvertCodec, AdvertState, PlainAdvert};
use crate::transport::bluez::radio::{self, RadioStatus};
use crate::transport::bluez::scan::{Heard, Search, Wanted};
use crate::transport::bluez::sealed::SealedAdvert;
use crate::transport::bluez::security::{LinkSecurity, SecurityLevel};
use crate::transport::packet::{Connector, PacketChannel};
use crate::transport::session::{LinkConnection, SessionConfig};

/// Limit of making a connection, the secure handshake included. Each step has a limit of its own and says what it waited for:
/// 15 s to find the peer, then to connect and to discover.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Limit of one attempt to connect where a person may have to type a code; BlueZ waits about 30 s for it.
const PAIRING_LIMIT: Duration = Duration::from_secs(50);
/// How often radio connections are looked at.
const RADIO_INTERVAL: Duration = Duration::from_secs(2);
/// Time for radio connections to be ended before the process ends.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Change of signal strength that is told.
const RSSI_STEP_DB: u8 = 6;

/// Limits of [`advert_lifetime`]: about as long as an address lives with BlueZ's Privacy.
const ADVERT_LIFETIME_S: std::ops::RangeInclusive<u64> = 600..=900;
/// Limits of [`advert_turn`]: each registration costs a round trip to bluetoothd and a moment without an advert.
const ADVERT_TURN_S: std::ops::RangeInclusive<u64> = 20..=40;

/// Of the options in `--help`. Each has it by itself: a heading of a whole group would go on over what follows.
const HEADING: &str = "Bluetooth";

/// How a central gets at the peer's characteristics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Central {
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
pub(super) struct BleArgs {
    /// The adapter, by name (hci0) or address [default: the first]
    #[arg(help_heading = HEADING, long, value_name = "ADAPTER")]
    pub(super) adapter: Option<String>,

    /// How packets are sent
    #[arg(help_heading = HEADING, long, value_enum, default_value_t, value_name = "HOW")]
    pub(super) central: Central,

    /// Connections the adapter is trusted with, of all programs; BlueZ cannot tell how many it has
    #[arg(help_heading = HEADING, long, value_name = "N", default_value_t = SLOTS_DEFAULT as u16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) slots: u16,

    /// Pair with a peer that wants it (serve --link-security); if it shows a code of six digits, that is asked for,
    /// a line on standard input
    #[arg(help_heading = HEADING, long)]
    pub(super) link_pair: bool,

    /// The advert by which this peer was chosen.
    #[arg(skip)]
    pub(super) heard: Option<Heard>,
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
pub(super) enum LinkSecurityArg {
    /// nothing: the session above encrypts by itself
    #[default]
    None,
    /// encryption: the devices pair without a code, nobody knows with whom
    Encrypt,
    /// encryption with a key for which somebody typed the code that this side shows
    Authenticate,
}

/// Options of `serve` for Bluetooth's own security.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct LinkArgs {
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
}

impl LinkArgs {
    fn security(self) -> LinkSecurity {
        let level = match self.link_security {
            LinkSecurityArg::None if self.bonded_only => SecurityLevel::Encrypt,
            LinkSecurityArg::None => SecurityLevel::None,
            LinkSecurityArg::Encrypt => SecurityLevel::Encrypt,
            LinkSecurityArg::Authenticate => SecurityLevel::Authenticate,
        };
        LinkSecurity { level, bonded_only: self.bonded_only }
    }

    /// How devices may pair.
    fn pairing(self, events: &Events) -> Option<Pairing> {
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

/// Opens the adapter anew for each connection, so that nothing of a bluetoothd that was restarted stays in use.
struct Dial {
    args: BleArgs,
    search: Arc<Search>,
}

#[async_trait]
impl Connector for Dial {
    async fn connect(&self) -> std::io::Result<PacketChannel> {
        set_slots(self.args.slots.into());
        let adapter = Adapter::open(self.args.adapter.as_deref()).await?;
        let _agent = if self.args.link_pair {
            Some(PairingAgent::register(&adapter, Pairing::Type(Arc::new(ask_passkey))).await?)
        } else {
            None
        };
        let search = Arc::clone(&self.search);
        let central: Arc<dyn Connector> = match self.args.central {
            Central::Auto => L2capCentral::new(adapter, search),
            Central::Gatt => BluerCentral::new(adapter, search),
            Central::Btleplug => BtleplugCentral::new(adapter.name(), search),
        };
        central.connect().await
    }
}

/// A connection to the peripheral `peer`: its address, its name, or `any`.
pub(super) fn dial(peer: &str, args: &BleArgs, codec: Arc<dyn AdvertCodec>) -> Arc<LinkConnection> {
    let search = match &args.heard {
        Some(heard) => Search::heard(heard.clone(), codec),
        None if peer.is_empty() => Search::new(Wanted::Any, codec),
        None => Search::new(Wanted::parse(peer), codec),
    };
    let mut session = SessionConfig::default();
    if args.link_pair {
        session.connect_timeout = PAIRING_LIMIT;
    }
    LinkConnection::central(Arc::new(Dial { args: args.clone(), search }), session)
}

/// Listens on the adapter named in the address.
pub(super) async fn listen(
    adapter: &str,
    state: AdvertBytes,
    link: LinkArgs,
    is_secure: bool,
    events: &Events,
) -> Result<BluetoothListener, CliError> {
    let config = ListenerConfig {
        adapter: (!adapter.is_empty()).then(|| adapter.to_owned()),
        // A name that stays would give away what the sealed state hides.
        name: (!is_secure || link.advertise_name).then(host_name),
        l2cap: true,
        state,
        security: link.security(),
        pairing: link.pairing(events),
        session: SessionConfig::default(),
    };
    BluetoothListener::start(config).await.map_err(cli_error)
}

/// Listens to be paired. The name is told, so that a person finds the device; which one it is, is not.
pub(super) async fn listen_to_pair(adapter: &str, name: &str) -> Result<BluetoothListener, CliError> {
    let config = ListenerConfig {
        adapter: (!adapter.is_empty()).then(|| adapter.to_owned()),
        name: Some(name.to_owned()),
        l2cap: true,
        state: AdvertState::PAIRING.encode(),
        security: LinkSecurity::default(),
        pairing: None,
        session: SessionConfig::default(),
    };
    BluetoothListener::start(config).await.map_err(cli_error)
}

/// How this device's adverts are written, and those of others read: sealed unless all is plain.
pub(super) fn advert_codec(
    db: &Database,
    security: &Security,
    trust_refresher: &TrustRefresher,
) -> Arc<dyn AdvertCodec> {
    if let (Security::Secure(config), Some(trust)) = (security, trust_refresher.trust()) {
        let (trust, identity) = (Arc::clone(trust), Arc::clone(&config.identity));
        let strangers = config.policy.admits_strangers();
        return Arc::new(SealedAdvert::new(trust, identity, strangers, fastrand::u16(..)));
    }
    let source = db.source().0;
    let device = u32::from_le_bytes([source[0], source[1], source[2], source[3]]);
    Arc::new(PlainAdvert { group: 0, device })
}

/// How long one advert is used at most: another time each time, so that the change itself gives nobody away.
pub(super) fn advert_lifetime() -> Duration {
    Duration::from_secs(fastrand::u64(ADVERT_LIFETIME_S))
}

/// The same while members with a former secret of the group and those with the new one have to find this device by turns.
pub(super) fn advert_turn() -> Duration {
    Duration::from_secs(fastrand::u64(ADVERT_TURN_S))
}

/// The counter that is advertised: it grows with each change of `collections`, and comes from the database, so that it outlives
/// the process. Its low 24 bits are told.
pub(super) fn change_counter(db: &Database, collections: &[String]) -> u32 {
    let sequences = collections.iter().filter_map(|name| {
        let id = ReplicaStore::collection(db, name)?;
        Some(db.last_sequence(id))
    });
    let sum = sequences.fold(0, u64::wrapping_add);
    (sum & u64::from(AdvertState::CHANGE_MAX)) as u32
}

/// Tells of each radio connection when it is made and when something of it has changed, until it is dropped.
async fn report_radio(events: Events) {
    radio::watch();
    let mut tick = tokio::time::interval(RADIO_INTERVAL);
    let mut before: Vec<RadioStatus> = Vec::new();
    loop {
        tick.tick().await;
        let now = radio::status().await;
        for connection in now.iter().filter(|connection| !before.iter().any(|old| resembles(old, connection)))
        {
            tracing::info!("radio: {connection}");
            events.emit(&Event::Radio(connection));
        }
        before = now;
    }
}

/// [`report_radio`] while it lives.
pub(super) struct Reporter(Option<tokio::task::JoinHandle<()>>);

impl Reporter {
    /// Begins if `wanted`.
    pub(super) fn start(wanted: bool, events: &Events) -> Reporter {
        Reporter(wanted.then(|| tokio::spawn(report_radio(events.clone()))))
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Waits until radio connections are ended: a process that just ends would leave the peer connected and its slot taken.
pub(super) async fn wait_for_disconnects() {
    adapter::wait_for_disconnects(DISCONNECT_LIMIT).await;
}

/// Whether nothing worth telling has changed.
fn resembles(old: &RadioStatus, new: &RadioStatus) -> bool {
    let near = match (old.rssi_dbm, new.rssi_dbm) {
        (Some(old), Some(new)) => old.abs_diff(new) < RSSI_STEP_DB,
        (old, new) => old == new,
    };
    near && RadioStatus { rssi_dbm: None, ..old.clone() } == RadioStatus { rssi_dbm: None, ..new.clone() }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

pub(super) fn cli_error(error: BluetoothError) -> CliError {
    CliError::new(Exit::Peer, error.to_string()).help("`gattway doctor` says what is missing on this machine")
}
