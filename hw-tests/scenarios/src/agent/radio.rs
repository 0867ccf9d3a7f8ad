//! The radio of a node: BlueZ, or a device of the modelled radio. Both give what the product's transports give.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gattway::lab::link::{AttMtu, PacketSize};
use gattway::lab::secure::advert::Urgency;
use gattway::lab::transport::bluez::Bluez;
use gattway::lab::transport::bluez::adapter::Adapter;
use gattway::lab::transport::bluez::advertise::AdvertOrder;
use gattway::lab::transport::bluez::central::BluerCentral;
use gattway::lab::transport::bluez::central_btleplug::BtleplugCentral;
use gattway::lab::transport::bluez::l2cap::{L2capCentral, L2capListener, PSM};
use gattway::lab::transport::bluez::listener::{BluetoothListener, ListenerConfig};
use gattway::lab::transport::bluez::peripheral::Peripheral;
use gattway::lab::transport::bluez::profile::{AdvertState, Information, PROFILE_VERSION};
use gattway::lab::transport::bluez::radio::RadioStatus;
use gattway::lab::transport::bluez::search::{Search, Wanted, find};
use gattway::lab::transport::bluez::security::LinkSecurity;
use gattway::lab::transport::packet::{Connector, PacketChannel};
use gattway::lab::transport::session::{LinkAcceptor, LinkConnection, SessionConfig};
use gattway::lab::transport::sim::{SimDevice, SimLink};
use tokio::sync::mpsc;

use super::protocol::{Heard, Way};
use super::{Result, fail};

/// Bytes of a packet of [`Way::GattSmall`].
const SMALL_PACKET_BYTES: u16 = 182;
/// What raw peripherals advertise.
const STATE: AdvertState = AdvertState { group: 0, urgency: Urgency::None, device: 0x7e57_7e57, change: 0 };
/// How often a peripheral without sessions advertises anew until a central has come.
const ADVERTISE_AGAIN: Duration = Duration::from_secs(3);

/// A device of the modelled radio with the others it can connect to.
#[derive(Clone)]
pub struct ModelRadio {
    /// This device.
    pub device: SimDevice,
    /// All devices, by address.
    pub all: Arc<Mutex<HashMap<String, SimDevice>>>,
    /// Its address.
    pub address: String,
    /// The ATT MTU of its connections.
    pub att_mtu: u16,
}

/// How a node is on the air.
#[derive(Clone)]
pub enum NodeRadio {
    /// An adapter, by its name.
    Bluez(Bluez, String),
    /// A model.
    Model(ModelRadio),
}

/// Sessions that centrals open.
pub enum Sessions {
    /// On BlueZ.
    Bluez(Box<BluetoothListener>),
    /// On the model.
    Model(Arc<LinkAcceptor>, tokio::task::JoinHandle<()>),
}

impl Sessions {
    /// The next session.
    pub async fn accept(&self) -> Option<Arc<LinkConnection>> {
        match self {
            Sessions::Bluez(listener) => listener.accept().await,
            Sessions::Model(acceptor, _) => acceptor.next().await,
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        if let Sessions::Model(_, task) = self {
            task.abort();
        }
    }
}

impl NodeRadio {
    async fn adapter(&self) -> Result<Adapter> {
        match self {
            NodeRadio::Bluez(bluez, name) => Ok(Adapter::open(bluez, Some(name)).await?),
            NodeRadio::Model(_) => fail("the model has no adapter"),
        }
    }

    /// How others reach this node.
    pub async fn address(&self) -> Result<String> {
        match self {
            NodeRadio::Bluez(..) => Ok(self.adapter().await?.bluer().address().await?.to_string()),
            NodeRadio::Model(model) => Ok(model.address.clone()),
        }
    }

    /// Listens for adverts of `peer`.
    pub async fn scan(&self, peer: &str, limit: Duration) -> Result<Heard> {
        let adapter = self.adapter().await?;
        let began = std::time::Instant::now();
        let neighbour = find(&adapter, &Search::open(Wanted::parse(peer)), limit).await?;
        Ok(Heard { seconds: began.elapsed().as_secs_f64(), rssi_dbm: neighbour.rssi })
    }

    /// Becomes a peripheral with sessions.
    pub async fn sessions(&self, l2cap: bool, session: SessionConfig) -> Result<Sessions> {
        match self {
            NodeRadio::Bluez(bluez, adapter) => {
                let config = ListenerConfig {
                    bluez: bluez.clone(),
                    adapter: Some(adapter.clone()),
                    name: Some("hw-test".to_owned()),
                    l2cap,
                    advert: AdvertOrder::steady(STATE.encode()),
                    security: LinkSecurity::default(),
                    pairing: None,
                    session,
                };
                Ok(Sessions::Bluez(Box::new(BluetoothListener::start(config).await?)))
            }
            NodeRadio::Model(model) => {
                let acceptor = Arc::new(LinkAcceptor::new(session));
                let mut channels = model.device.listen();
                let to = Arc::clone(&acceptor);
                let task = tokio::spawn(async move {
                    while let Some(channel) = channels.accept().await {
                        to.incoming(channel);
                    }
                });
                Ok(Sessions::Model(acceptor, task))
            }
        }
    }

    /// Becomes a peripheral without sessions; its channels come out of the receiver until that is dropped.
    pub async fn raw(&self, profile: u8) -> Result<mpsc::Receiver<PacketChannel>> {
        let (sender, receiver) = mpsc::channel(8);
        match self {
            NodeRadio::Bluez(..) => {
                let adapter = self.adapter().await?;
                let l2cap = L2capListener::bind(&adapter, LinkSecurity::default()).await?;
                let information = Information {
                    profile,
                    packet_size_max: gattway::lab::link::PACKET_BYTES_MAX,
                    l2cap_psm: (profile == PROFILE_VERSION).then_some(PSM),
                    lane: None,
                };
                let name = Some("hw-test".to_owned());
                let (advert, security) = (AdvertOrder::steady(STATE.encode()), LinkSecurity::default());
                let mut peripheral = Peripheral::start(&adapter, information, name, advert, security).await?;
                tokio::spawn(async move {
                    let mut connected = false;
                    let mut again = tokio::time::interval(ADVERTISE_AGAIN);
                    again.tick().await;
                    loop {
                        let channel = tokio::select! {
                            channel = peripheral.accept() => channel,
                            channel = l2cap.accept() => channel.ok().flatten(),
                            () = sender.closed() => return,
                            // A connection of before may have ended after the advertisement was registered, and with it that.
                            _ = again.tick(), if !connected => {
                                if peripheral.advertise(advert).await.is_err() {
                                    return;
                                }
                                continue;
                            }
                        };
                        let Some(channel) = channel else { return };
                        connected = true;
                        if sender.send(channel).await.is_err() || peripheral.advertise(advert).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
            NodeRadio::Model(model) => {
                let mut channels = model.device.listen();
                tokio::spawn(async move {
                    loop {
                        tokio::select! {
                            Some(channel) = channels.accept() => if sender.send(channel).await.is_err() { return },
                            () = sender.closed() => return,
                            else => return,
                        }
                    }
                });
            }
        }
        Ok(receiver)
    }

    /// What connects to `peer`, each time the next of `ways`.
    pub fn dialer(&self, peer: &str, ways: Vec<Way>) -> Arc<dyn Connector> {
        Arc::new(Dialer { radio: self.clone(), peer: peer.to_owned(), ways, count: AtomicUsize::new(0) })
    }

    /// Switches the adapter on or off.
    pub async fn power(&self, on: bool) -> Result<()> {
        let NodeRadio::Bluez(_, name) = self else { return fail("the model has no adapter") };
        // Not `Adapter::open`, which would switch it on first.
        let session = bluer::Session::new().await?;
        Ok(session.adapter(name)?.set_powered(on).await?)
    }

    /// How long bluetoothd takes for an answer; bluer waits for it for two minutes.
    pub async fn probe(&self) -> Result<f64> {
        let NodeRadio::Bluez(_, name) = self else { return fail("the model has no bluetoothd") };
        let began = std::time::Instant::now();
        let session = bluer::Session::new().await?;
        session.adapter(name)?.is_powered().await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// What BlueZ and the kernel tell of the radio connections.
    pub async fn status(&self) -> Vec<RadioStatus> {
        match self {
            NodeRadio::Bluez(bluez, _) => bluez.radio_status().await,
            NodeRadio::Model(_) => Vec::new(),
        }
    }

    /// Devices that are connected to this adapter.
    pub async fn connected(&self) -> Result<u32> {
        let NodeRadio::Bluez(_, name) = self else { return Ok(0) };
        let session = bluer::Session::new().await?;
        let adapter = session.adapter(name)?;
        let mut connected = 0;
        for address in adapter.device_addresses().await? {
            connected += u32::from(adapter.device(address)?.is_connected().await.unwrap_or(false));
        }
        Ok(connected)
    }
}

struct Dialer {
    radio: NodeRadio,
    peer: String,
    ways: Vec<Way>,
    count: AtomicUsize,
}

#[async_trait]
impl Connector for Dialer {
    async fn connect(&self) -> io::Result<PacketChannel> {
        let count = self.count.load(Ordering::Relaxed);
        let way = self.ways.get(count % self.ways.len().max(1)).copied().unwrap_or(Way::Gatt);
        let mut channel = match &self.radio {
            NodeRadio::Bluez(handle, name) => bluez(handle, name, &self.peer, way).await?,
            NodeRadio::Model(model) => model_connector(model, &self.peer, way)?.connect().await?,
        };
        if way == Way::GattSmall {
            let small = PacketSize::try_new(SMALL_PACKET_BYTES).unwrap_or(PacketSize::MIN);
            channel.size = channel.size.min(small);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(channel)
    }
}

/// The adapter is opened anew each time, so that nothing of a bluetoothd that was restarted stays in use.
async fn bluez(handle: &Bluez, name: &str, peer: &str, way: Way) -> io::Result<PacketChannel> {
    let adapter = Adapter::open(handle, Some(name)).await?;
    let search = Search::open(Wanted::parse(peer));
    let central: Arc<dyn Connector> = match way {
        Way::Gatt | Way::GattSmall => BluerCentral::new(adapter, search),
        Way::L2cap => L2capCentral::new(adapter, search),
        Way::Btleplug => BtleplugCentral::new(adapter, search),
    };
    central.connect().await
}

fn model_connector(model: &ModelRadio, peer: &str, way: Way) -> io::Result<Arc<dyn Connector>> {
    if matches!(way, Way::L2cap | Way::Btleplug) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the model has GATT alone"));
    }
    let all = model.all.lock().unwrap_or_else(PoisonError::into_inner);
    let peer = all.get(peer).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such device"))?;
    Ok(model.device.connector(peer, SimLink::new(AttMtu::new(model.att_mtu))))
}
