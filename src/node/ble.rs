//! Bluetooth LE for a node: how it is found, how it finds a peer and connects to it, and what it tells of its radio.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::access::machine_name;
use super::advertised::Advertised;
use super::advertising::AdvertPolicy;
use super::connect::Connect;
use super::listen::{Accept, Arrival, Listen, Local, Sealed};
use super::scheduler::RadioPlan;
use crate::transport::bluez::Bluez;
use crate::transport::bluez::adapter::{Adapter, SLOTS_DEFAULT};
use crate::transport::bluez::advertise::AdvertOrder;
use crate::transport::bluez::agent::{Pairing, PairingAgent};
use crate::transport::bluez::central::BluerCentral;
use crate::transport::bluez::central_btleplug::BtleplugCentral;
use crate::transport::bluez::l2cap::L2capCentral;
use crate::transport::bluez::listener::{BluetoothListener, ListenerConfig};
use crate::transport::bluez::profile::{AdvertCodec, AdvertState};
use crate::transport::bluez::sealed::PairingAdvert;
use crate::transport::bluez::search::{Heard, Search, Wanted};
use crate::transport::bluez::security::{LinkSecurity, SecurityLevel};
use crate::transport::packet::{Connector, PacketChannel};
use crate::transport::secure::Carrier;
use crate::transport::session::{LinkConnection, SessionConfig};

/// How long nobody is listened for at a time. Whoever passes by for half a minute is heard all the same.
const LISTENING_REST: Duration = Duration::from_secs(15);

/// Limit of making a connection, the secure handshake included. Each step has a limit of its own and says what it waited for:
/// 15 s to find the peer, then to connect and to discover.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Limit of one attempt to connect where a person may have to type a code; BlueZ waits about 30 s for it.
const PAIRING_LIMIT: Duration = Duration::from_secs(50);
/// Time for radio connections to be ended before the process ends.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Makes places and ways of Bluetooth LE.
/// ```no_run
/// use gattway::{Ble, Database, DatabaseConfig, Node};
///
/// # async fn run() -> Result<(), gattway::Error> {
/// let db = Database::open("station.db", DatabaseConfig::default())?;
/// let node = Node::builder(db).listen(Ble::adapter("hci0")).start().await?;
/// node.sync(Ble::peer("gateway")).start().finished().await?;
/// node.shutdown().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Ble;

impl Ble {
    /// Listens on an adapter, by name (`hci0`) or address; empty: the first. GATT and L2CAP, with an advert that tells
    /// members of the group and paired peers of each change; registered again after a restart of bluetoothd.
    pub fn adapter(adapter: impl Into<String>) -> BlePlace {
        BlePlace {
            adapter: adapter.into(),
            name: None,
            advertises_name: false,
            security: LinkSecurity::default(),
            pairing: None,
            policy: AdvertPolicy::default(),
        }
    }

    /// Reaches one device, by its address, the name that it advertises, or its name in the trust list.
    pub fn peer(peer: impl Into<String>) -> BlePeer {
        BlePeer {
            peer: peer.into(),
            adapter: None,
            central: BleCentral::default(),
            slots: SLOTS_DEFAULT as u16,
            spares_air: true,
            pairing: None,
            heard: None,
        }
    }
}

/// How a central gets at the peer's characteristics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BleCentral {
    /// bluer: an L2CAP channel where the peer offers one, else sockets for both characteristics.
    #[default]
    Auto,
    /// bluer, never L2CAP.
    Gatt,
    /// btleplug: one D-Bus call a packet, for comparison.
    Btleplug,
}

/// An adapter on which a node listens.
#[derive(Clone)]
pub struct BlePlace {
    adapter: String,
    name: Option<String>,
    advertises_name: bool,
    security: LinkSecurity,
    pairing: Option<Pairing>,
    policy: AdvertPolicy,
}

impl BlePlace {
    /// When to advertise, and how fast. Where the policy cannot be followed ([`AdvertPolicy::check`]), the place cannot be opened.
    #[must_use]
    pub fn adverts(mut self, policy: AdvertPolicy) -> BlePlace {
        self.policy = policy;
        self
    }

    /// Tells everybody the name of this machine, so that peers find it by its name without knowing it. Always told where
    /// nobody proves anything, for there is nothing to hide.
    #[must_use]
    pub fn advertise_name(mut self, advertise: bool) -> BlePlace {
        self.advertises_name = advertise;
        self
    }

    /// Tells everybody this name instead of the machine's.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> BlePlace {
        (self.name, self.advertises_name) = (Some(name.into()), true);
        self
    }

    /// What the radio connection must have, beneath the session's own security, and how devices may pair for it. With
    /// [`Pairing::Refused`] only devices that have paired before come in, which takes at least encryption: an address alone
    /// can be anybody's.
    #[must_use]
    pub fn link_security(mut self, level: SecurityLevel, pairing: Option<Pairing>) -> BlePlace {
        let bonded_only = matches!(pairing, Some(Pairing::Refused));
        let level = if bonded_only { level.max(SecurityLevel::Encrypt) } else { level };
        (self.security, self.pairing) = (LinkSecurity { level, bonded_only }, pairing);
        self
    }
}

impl Sealed for BlePlace {}

#[async_trait]
impl Listen for BlePlace {
    fn address(&self) -> String {
        if self.adapter.is_empty() { "ble".to_owned() } else { format!("ble:{}", self.adapter) }
    }

    async fn open(&self, local: &Local) -> io::Result<Box<dyn Accept>> {
        self.policy.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut advertised = local.advert.as_ref().map(|advert| {
            let (told, shown) = (local.connections.subscribe(), Arc::clone(&local.adverts));
            Advertised::new(advert, self.policy.clone(), told, shown)
        });
        let advert = match &mut advertised {
            Some(advertised) => advertised.order(),
            None => AdvertOrder::steady(AdvertState::PAIRING.encode()),
        };
        // A name that stays would give away what the sealed state hides.
        let tells_name = self.advertises_name || !local.is_secure;
        let config = ListenerConfig {
            bluez: local.bluez.clone(),
            adapter: (!self.adapter.is_empty()).then(|| self.adapter.clone()),
            name: tells_name.then(|| self.name.clone().unwrap_or_else(machine_name)),
            l2cap: true,
            advert,
            security: self.security,
            pairing: self.pairing.clone(),
            session: SessionConfig::default(),
        };
        let bluetooth = BluetoothListener::start(config).await?;
        local.report_radio();
        if let Some(advertised) = &advertised {
            advertised.show(bluetooth.adapter(), bluetooth.pace_control());
        }
        Ok(Box::new(OpenAdapter { bluetooth, advertised }))
    }
}

/// An adapter with everything registered.
struct OpenAdapter {
    bluetooth: BluetoothListener,
    /// `None`: what is advertised stays.
    advertised: Option<Advertised>,
}

#[async_trait]
impl Accept for OpenAdapter {
    fn address(&self) -> String {
        format!("ble:{}", self.bluetooth.adapter())
    }

    /// The next central's session; advertises meanwhile what the policy says.
    async fn accept(&mut self) -> io::Result<Option<Arrival>> {
        loop {
            let order = async {
                match &mut self.advertised {
                    Some(advertised) => advertised.next().await,
                    None => std::future::pending().await,
                }
            };
            let connection = tokio::select! {
                connection = self.bluetooth.accept() => connection,
                order = order => {
                    self.bluetooth.set_advert(order);
                    if let Some(advertised) = &self.advertised {
                        advertised.show(self.bluetooth.adapter(), self.bluetooth.pace_control());
                    }
                    continue;
                }
            };
            let Some(connection) = connection else { return Ok(None) };
            // Another state after each connection, so that nobody can follow it.
            if let Some(advertised) = &mut self.advertised {
                advertised.began(&connection);
                self.bluetooth.set_advert(advertised.order());
            }
            let label = "Bluetooth central".to_owned();
            return Ok(Some(Arrival { carrier: Carrier::Link(connection), label }));
        }
    }
}

/// A device that is reached by Bluetooth.
#[derive(Clone)]
pub struct BlePeer {
    peer: String,
    adapter: Option<String>,
    central: BleCentral,
    slots: u16,
    spares_air: bool,
    pairing: Option<Pairing>,
    /// The advert by which it was chosen.
    heard: Option<Heard>,
}

impl BlePeer {
    /// The adapter to use, by name (`hci0`) or address; the first unless given.
    #[must_use]
    pub fn through(mut self, adapter: Option<String>) -> BlePeer {
        self.adapter = adapter;
        self
    }

    /// How packets are sent.
    #[must_use]
    pub fn central(mut self, central: BleCentral) -> BlePeer {
        self.central = central;
        self
    }

    /// Connections the adapter is trusted with, of all programs; BlueZ cannot tell how many it has.
    #[must_use]
    pub(crate) fn slots(mut self, slots: u16) -> BlePeer {
        self.slots = slots;
        self
    }

    /// Pairs with a peer that wants it. An attempt to connect then lasts up to 50 s, since somebody may have to type a code.
    #[must_use]
    pub fn pairing(mut self, pairing: Option<Pairing>) -> BlePeer {
        self.pairing = pairing;
        self
    }

    /// Whether neighbours are listened for by turns where nothing has been new for a while: Wi-Fi may have the same antenna.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the gateway's setting"))]
    pub(crate) fn spares_air(mut self, spares_air: bool) -> BlePeer {
        self.spares_air = spares_air;
        self
    }

    /// How neighbours are visited through it.
    pub(super) fn plan(&self) -> RadioPlan {
        RadioPlan {
            links: self.slots.into(),
            rest: if self.spares_air { LISTENING_REST } else { Duration::ZERO },
        }
    }

    /// The same for a peer whose advert was heard.
    pub(crate) fn heard(&self, heard: Heard) -> BlePeer {
        BlePeer { peer: heard.neighbour.address.to_string(), heard: Some(heard), ..self.clone() }
    }

    /// The adapter to use, if one was named.
    pub(crate) fn adapter_name(&self) -> Option<&str> {
        self.adapter.as_deref()
    }
}

impl Sealed for BlePeer {}

impl Connect for BlePeer {
    fn address(&self) -> String {
        if self.peer.is_empty() { "ble".to_owned() } else { format!("ble:{}", self.peer) }
    }

    fn connect(&self, local: &Local) -> Carrier {
        local.report_radio();
        let codec: Arc<dyn AdvertCodec> = local
            .advert
            .as_ref()
            .map_or_else(|| Arc::new(PairingAdvert) as _, |advert| Arc::clone(&advert.codec));
        let search = match &self.heard {
            Some(heard) => Search::heard(heard.clone(), codec),
            None if self.peer.is_empty() => Search::new(Wanted::Any, codec),
            None => Search::new(Wanted::parse(&self.peer), codec),
        };
        let mut session = SessionConfig::default();
        if self.pairing.is_some() {
            session.connect_timeout = PAIRING_LIMIT;
        }
        Carrier::Link(LinkConnection::central(
            Arc::new(Dial { bluez: local.bluez.clone(), peer: self.clone(), search }),
            session,
        ))
    }

    fn name(&self) -> Option<&str> {
        Some(&self.peer)
    }

    fn open_limit(&self) -> Option<Duration> {
        Some(OPEN_LIMIT)
    }
}

/// Opens the adapter anew for each connection, so that nothing of a bluetoothd that was restarted stays in use.
struct Dial {
    bluez: Bluez,
    peer: BlePeer,
    search: Arc<Search>,
}

#[async_trait]
impl Connector for Dial {
    async fn connect(&self) -> io::Result<PacketChannel> {
        let BlePeer { adapter, central, slots, pairing, .. } = &self.peer;
        let adapter = Adapter::open(&self.bluez, adapter.as_deref()).await?.with_slots((*slots).into());
        let _agent = match pairing {
            Some(pairing) => Some(PairingAgent::register(&adapter, pairing.clone()).await?),
            None => None,
        };
        let search = Arc::clone(&self.search);
        let central: Arc<dyn Connector> = match central {
            BleCentral::Auto => L2capCentral::new(adapter, search),
            BleCentral::Gatt => BluerCentral::new(adapter, search),
            BleCentral::Btleplug => BtleplugCentral::new(adapter, search),
        };
        central.connect().await
    }
}

/// Waits until radio connections are ended: a process that just ends would leave the peer connected and its slot taken.
pub(super) async fn wait_for_disconnects(local: &Local) {
    local.bluez.wait_for_disconnects(DISCONNECT_LIMIT).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_admits_bonded_devices_alone_asks_for_encryption_at_least() {
        use SecurityLevel::{Authenticate, Encrypt, None as Nothing};
        for (level, pairing, expected) in [
            (Nothing, None, (Nothing, false)),
            (Encrypt, Some(Pairing::JustWorks), (Encrypt, false)),
            (Nothing, Some(Pairing::Refused), (Encrypt, true)),
            (Authenticate, Some(Pairing::Refused), (Authenticate, true)),
        ] {
            let place = Ble::adapter("hci0").link_security(level, pairing);
            assert_eq!((place.security.level, place.security.bonded_only), expected, "{level:?}");
        }
    }
}
