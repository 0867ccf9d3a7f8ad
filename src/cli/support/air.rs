//! Two devices on a modelled radio, as the demo and the benchmarks use them: a gateway that listens as peripheral, and a
//! field device that connects as central and is the active side of replication. Every layer is the real one; only the
//! radio below the packets is a model.

mod traffic;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::security::{self, Security, TrustRefresher};
use crate::database::Database;
use crate::link::{AttMtu, LinkStats};
use crate::node::listen::Sealed;
use crate::node::{Connect, Local, Node, Packets, SyncOptions};
use crate::replicator::{ONE_SHOT_ATTEMPTS_MAX, ReplicatorActivity, ReplicatorStatus};
use crate::secure::{Identity, Psk};
use crate::time::Instant;
use crate::transport::clock::Clock;
use crate::transport::secure::{Carrier, SecureConnectionConfig};
use crate::transport::session::{LinkConnection, SessionConfig};
use crate::transport::sim::energy::NRF52840;
use crate::transport::sim::radio::{Path, Phy, Side};
use crate::transport::sim::{HostConfig, SimConnector, SimDevice, SimLink, SimRadio};
pub(crate) use traffic::Traffic;
use traffic::traffic;

/// How often a run is looked at while it goes on.
const WATCH_INTERVAL: Duration = Duration::from_millis(10);

/// The radio connection that is modelled.
#[derive(Clone, Debug, Args)]
pub(crate) struct AirArgs {
    /// PHY of the connection
    #[arg(long, value_enum, default_value_t = PhyArg::TwoM)]
    pub(crate) phy: PhyArg,

    /// ATT MTU in bytes; a packet has three less
    #[arg(long, value_name = "BYTES", default_value_t = 247, value_parser = clap::value_parser!(u16).range(23..=517))]
    pub(crate) mtu: u16,

    /// Connection interval in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30.0, value_parser = parse_interval)]
    pub(crate) interval_ms: f64,

    /// Share of radio PDUs that interference destroys, in percent (the radio sends them again)
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = parse_percent)]
    pub(crate) loss: f64,

    /// Share of packets that full host buffers drop, in percent (the link protocol sends them again)
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = parse_percent)]
    pub(crate) drop: f64,

    /// Decides every loss: the same seed, the same losses
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// PHY as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PhyArg {
    /// 1 Mbit/s.
    #[value(name = "1m")]
    OneM,
    /// 2 Mbit/s.
    #[value(name = "2m")]
    TwoM,
    /// Coded, 500 kbit/s.
    #[value(name = "coded-s2")]
    CodedS2,
    /// Coded, 125 kbit/s.
    #[value(name = "coded-s8")]
    CodedS8,
}

impl From<PhyArg> for Phy {
    fn from(phy: PhyArg) -> Phy {
        match phy {
            PhyArg::OneM => Phy::Le1M,
            PhyArg::TwoM => Phy::Le2M,
            PhyArg::CodedS2 => Phy::LeCodedS2,
            PhyArg::CodedS8 => Phy::LeCodedS8,
        }
    }
}

impl std::fmt::Display for PhyArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PhyArg::OneM => "1M",
            PhyArg::TwoM => "2M",
            PhyArg::CodedS2 => "coded (S=2)",
            PhyArg::CodedS8 => "coded (S=8)",
        })
    }
}

fn parse_interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ms) if (7.5..=4000.0).contains(&ms) => Ok(ms),
        _ => Err("a connection interval is 7.5 to 4000 ms".to_owned()),
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=90.0).contains(&percent) => Ok(percent),
        _ => Err("a share is 0 to 90 percent".to_owned()),
    }
}

impl Default for AirArgs {
    /// As the command has them.
    fn default() -> AirArgs {
        #[derive(Parser)]
        struct Defaults {
            #[command(flatten)]
            air: AirArgs,
        }
        Defaults::parse_from(["air"]).air
    }
}

impl AirArgs {
    /// The connection that the devices make.
    fn link(&self) -> SimLink {
        let mut link = SimLink::new(AttMtu::new(self.mtu));
        link.setup.phy = self.phy.into();
        link.setup.parameters.interval = Duration::from_secs_f64(self.interval_ms / 1000.0);
        link
    }

    fn path(&self) -> Path {
        Path { loss: self.loss / 100.0, ..Path::default() }
    }

    fn host(&self) -> HostConfig {
        HostConfig { drop: self.drop / 100.0, ..HostConfig::default() }
    }

    /// The most that raw packets carry from the field device to the gateway, bytes per second.
    pub(crate) fn ceiling_bytes_per_s(&self) -> Result<f64, CliError> {
        self.link()
            .ceiling(self.path(), Side::Central)
            .map_err(|error| CliError::new(Exit::Usage, format!("no such radio connection: {error}")))
    }
}

/// Whether the two devices are members of one group, or speak without encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// As every command does unless told otherwise.
    Secure,
    /// For comparison.
    Plain,
}

/// The radio with both devices; the gateway listens as long as this lives.
pub(crate) struct Air {
    radio: SimRadio,
    field: SimDevice,
    gateway: SimDevice,
    path: Path,
    phy: Phy,
    way: Arc<FieldWay>,
    security: Security,
    node: Node,
}

/// A look at a run while it goes on.
pub(crate) struct Moment<'a> {
    /// The field device's replicator.
    pub(crate) status: ReplicatorStatus,
    /// The radio and both devices.
    pub(crate) air: &'a Air,
    /// How much of what the replicator has given to the link has gone out, 0 to 1.
    pub(crate) sent_share: f64,
    /// How often the session went on over a new connection so far.
    pub(crate) resumes: u32,
    /// Time of the radio's clock.
    pub(crate) now: Instant,
}

impl Air {
    /// Switches both devices on; `clock` may be scaled.
    pub(crate) async fn start(
        args: &AirArgs,
        gateway_db: &Database,
        clock: Clock,
        protection: Protection,
    ) -> Result<Air, CliError> {
        let radio = SimRadio::new(args.seed, clock);
        let field = radio.add_device("field device", args.host());
        let gateway = radio.add_device("gateway", args.host());
        radio.set_path(&field, &gateway, args.path());
        let mut session = SessionConfig::on(clock);
        session.seed = Some(args.seed);
        let connector = field.connector(&gateway, args.link());
        let way = Arc::new(FieldWay { connector, session, connections: Mutex::default() });
        let [security, gateway_security] = security(protection, args.seed, clock);
        let node = Node::builder(gateway_db.clone())
            .access(gateway_security, TrustRefresher::default())
            .listen(Packets::listen_modelled(&gateway).with_session(session))
            .start();
        let node = node.await.map_err(|error| CliError::new(Exit::Failure, error.to_string()))?;
        Ok(Air { radio, field, gateway, path: args.path(), phy: args.phy.into(), way, security, node })
    }

    /// Runs one replication of the field device's database with the gateway to its end. `watch` is called again and
    /// again while it runs.
    pub(crate) async fn sync(
        &self,
        field_db: &Database,
        watch: &mut dyn FnMut(&Moment<'_>),
    ) -> Result<(ReplicatorStatus, Traffic), CliError> {
        let before = self.radio.counters();
        let began = self.radio.clock().now();
        self.way.connections().clear();
        let field =
            Node::builder(field_db.clone()).access(self.security.clone(), TrustRefresher::default()).start();
        let field = field.await.map_err(|error| CliError::new(Exit::Failure, error.to_string()))?;
        let mut sync = field
            .sync(Arc::clone(&self.way))
            .options(SyncOptions {
                peer_name: Some("gateway".to_owned()),
                optional_collections: Some(false),
                attempts: Some(ONE_SHOT_ATTEMPTS_MAX),
                ..SyncOptions::default()
            })
            .start();
        while sync.status().activity == ReplicatorActivity::Connecting && sync.events().next().await.is_some()
        {
        }
        let setup_s = self.radio.clock().now().since(began).as_secs_f64();
        loop {
            tokio::select! {
                // How it has ended is told by its status.
                _ = sync.finished() => break,
                () = tokio::time::sleep(WATCH_INTERVAL) => {
                    let links = self.way.stats();
                    let sum = |value: fn(&LinkStats) -> u64| links.iter().map(value).sum::<u64>() as f64;
                    let (sent, unsent) = (sum(|link| link.bytes_sent), sum(|link| link.bytes_unsent));
                    watch(&Moment {
                        status: sync.status(),
                        air: self,
                        sent_share: sent / (sent + unsent).max(1.0),
                        resumes: links.iter().map(|link| link.resumes).sum(),
                        now: self.radio.clock().now(),
                    });
                }
            }
        }
        let status = sync.status();
        let seconds = self.radio.clock().now().since(began).as_secs_f64();
        self.node.listener().wait_until_closed().await;
        if let Some(error) = &status.error {
            return Err(CliError::new(Exit::Peer, format!("sync with the gateway stopped: {error}")));
        }
        let traffic = traffic(&before, &self.radio.counters(), &self.way.stats());
        let field_uj = NRF52840.connection_uj(&traffic.radio, Side::Central, self.phy);
        Ok((status, Traffic { seconds, setup_s, field_uj, ..traffic }))
    }

    /// Bytes of ATT values so far, both directions.
    pub(crate) fn bytes(&self) -> u64 {
        self.radio.counters().packets().bytes
    }

    /// Breaks the radio connection and keeps the devices apart for `duration`.
    pub(crate) fn cut(&self, duration: Duration) {
        let (radio, field, gateway, path) =
            (self.radio.clone(), self.field.clone(), self.gateway.clone(), self.path);
        radio.set_path(&field, &gateway, Path { reachable: false, ..path });
        radio.cut(&field, &gateway);
        tokio::spawn(async move {
            radio.clock().sleep(duration).await;
            radio.set_path(&field, &gateway, path);
        });
    }
}

/// Two members of a group that exists for one run; their keys come from the seed, so that a run can be repeated.
fn security(protection: Protection, seed: u64, clock: Clock) -> [Security; 2] {
    [1u8, 2].map(|device| {
        if protection == Protection::Plain {
            return Security::Plain;
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let policy = Arc::new(security::Members(Psk(key)));
        key[8] = device;
        let mut config = SecureConnectionConfig::new(Arc::new(Identity::from_private(key)), policy);
        config.clock = clock;
        config.seed = Some(seed);
        // The peer is the same in every run of one pair of databases.
        config.names_peer = false;
        Security::Secure(config)
    })
}

/// The field device's way to the gateway: a new session for each attempt, remembered for its counters.
struct FieldWay {
    connector: Arc<SimConnector>,
    session: SessionConfig,
    connections: Mutex<Vec<Arc<LinkConnection>>>,
}

impl FieldWay {
    /// Nothing under this lock can be left half done.
    fn connections(&self) -> MutexGuard<'_, Vec<Arc<LinkConnection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> Vec<LinkStats> {
        self.connections().iter().map(|connection| connection.stats().link).collect()
    }
}

impl Sealed for FieldWay {}

impl Connect for FieldWay {
    fn address(&self) -> String {
        "gateway".to_owned()
    }

    fn connect(&self, _: &Local) -> Carrier {
        let connector: Arc<SimConnector> = Arc::clone(&self.connector);
        let connection = LinkConnection::central(connector, self.session);
        self.connections().push(Arc::clone(&connection));
        Carrier::Link(connection)
    }
}
