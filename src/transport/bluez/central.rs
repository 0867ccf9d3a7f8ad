//! The central role on bluer: connect, resolve, subscribe, acquire the write socket.
//!
//! The default central, because a packet costs one system call; btleplug's costs a D-Bus call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bluer::gatt::remote::Characteristic;
use bluer::{AddressType, Device, Uuid};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::adapter::Adapter;
use super::error::BluetoothError;
use super::packets::{CharacteristicSink, CharacteristicSource, Guard, att_mtu, packet_size};
use super::profile::{INFORMATION, Information, from_peripheral, to_peripheral};
use super::retry;
use super::search::{Search, find};
use super::services::resolve;
use super::shared::Slot;
use super::steps::Steps;
use crate::link::PacketSize;
use crate::transport::packet::{Connector, PacketChannel};

/// How long a peer is looked for.
pub const SCAN_LIMIT: Duration = Duration::from_secs(15);
/// What an attempt was doing when it took too long.
const CONNECTING: &str = "connecting";
/// The other one.
const DISCOVERING: &str = "discovery of the peer's services";
/// Limit for the discovery of the services.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);
/// The same on the first attempt. It takes 0.4 to 0.9 s at an interval of 15 ms; a peer that has blocked us meanwhile keeps the
/// connection and says nothing, and a new connection is answered as soon as it does not any more.
const RESOLVE_LIMIT_FIRST: Duration = Duration::from_secs(6);
/// Limit of reading and subscribing; a pairing may be in between, which takes a person's time where a code is typed.
const GATT_LIMIT: Duration = Duration::from_secs(30);
/// Time for an earlier connection to end before the next one is made.
pub(super) const DISCONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Connects to one peripheral over GATT with AcquireNotify and AcquireWrite.
pub struct BluerCentral {
    adapter: Adapter,
    search: Arc<Search>,
}

impl BluerCentral {
    /// A central on `adapter` for the peer of `search`.
    pub fn new(adapter: Adapter, search: Arc<Search>) -> Arc<BluerCentral> {
        Arc::new(BluerCentral { adapter, search })
    }
}

#[async_trait]
impl Connector for BluerCentral {
    async fn connect(&self) -> std::io::Result<PacketChannel> {
        let connected = Connected::open(&self.adapter, &self.search).await?;
        Ok(open_gatt(connected).await?)
    }
}

/// A connected device with its services; disconnects when dropped.
pub(super) struct Connected {
    pub(super) device: Device,
    pub(super) information: Information,
    adapter: Adapter,
    random_address: bool,
    characteristics: Vec<(Uuid, Characteristic)>,
    /// How long each step took until now.
    pub(super) steps: Steps,
    guard: Disconnect,
}

impl Connected {
    /// Finds, connects and resolves, one at a time on this adapter.
    pub(super) async fn open(adapter: &Adapter, search: &Search) -> Result<Connected, BluetoothError> {
        let mut steps = Steps::begin();
        let _one_at_a_time = adapter.shared().connecting().await;
        adapter.power_on().await?;
        steps.done("adapter");
        let neighbour = find(adapter, search, SCAN_LIMIT).await?;
        steps.done("scan");
        adapter.shared().wait_for_disconnect(neighbour.address, DISCONNECT_LIMIT).await;
        let slot = adapter.slot(neighbour.address).await?;
        let device =
            adapter.bluer().device(neighbour.address).map_err(BluetoothError::bluez("open the peer"))?;
        // Connecting would leave the kernel with a connection that nobody can use or end.
        if device.is_blocked().await.unwrap_or(false) {
            return Err(BluetoothError::PeerBlocked { peer: device.address().to_string() });
        }
        let guard = Disconnect { adapter: adapter.clone(), device: device.clone(), slot: Some(slot) };
        steps.done("slot");
        let characteristics = connect_and_resolve(adapter, &device, &mut steps).await?;
        let mut connected = Connected {
            adapter: adapter.clone(),
            random_address: matches!(device.address_type().await, Ok(AddressType::LeRandom)),
            information: Information { profile: 0, packet_size_max: 0, l2cap_psm: None, lane: None },
            device,
            characteristics,
            steps,
            guard,
        };
        match connected.read_information().await {
            Ok(information) => {
                connected.steps.done("information");
                connected.information = information;
            }
            Err(error) => {
                connected.forget_stale().await;
                return Err(error);
            }
        }
        Ok(connected)
    }

    fn find(&self, uuid: Uuid) -> Result<Characteristic, BluetoothError> {
        let found = self.characteristics.iter().find(|(u, _)| *u == uuid).map(|(_, c)| c.clone());
        found.ok_or_else(|| BluetoothError::NoService {
            peer: self.device.address().to_string(),
            message: format!("characteristic {uuid} is missing"),
        })
    }

    async fn read_information(&self) -> Result<Information, BluetoothError> {
        let information = self.find(INFORMATION)?;
        let value = timeout(GATT_LIMIT, information.read())
            .await
            .map_err(|_| BluetoothError::TimedOut {
                what: "reading the peer's information",
                limit: GATT_LIMIT,
            })?
            .map_err(|error| self.unreadable(error))?;
        Information::decode(&value)
            .map_err(|message| BluetoothError::NotOurs { peer: self.device.address().to_string(), message })
    }

    /// Reading is where a peripheral that requires security says so: by an error of ATT, or by hanging up in the middle of a
    /// pairing that failed, which BlueZ reports as ATT error 0x0e.
    fn unreadable(&self, error: bluer::Error) -> BluetoothError {
        const ATT_ERRORS: [&str; 4] =
            ["ATT error: 0x05", "ATT error: 0x08", "ATT error: 0x0e", "ATT error: 0x0f"];
        let refused = matches!(error.kind, bluer::ErrorKind::NotAuthorized | bluer::ErrorKind::NotPermitted)
            || ATT_ERRORS.iter().any(|text| error.message.contains(text));
        if refused {
            let peer = self.device.address().to_string();
            return BluetoothError::PairingNeeded { peer, message: error.to_string() };
        }
        BluetoothError::bluez("read information")(error)
    }

    /// BlueZ may have taken the services from its cache, of an earlier version or an earlier start of the peer (bluez #191,
    /// bleak #882): it is made to forget them, unless the device is bonded.
    async fn forget_stale(&self) {
        if self.device.is_paired().await.unwrap_or(true) {
            return;
        }
        if let Err(error) = self.adapter.bluer().remove_device(self.device.address()).await {
            debug!(peer = %self.device.address(), %error, "could not be forgotten");
        }
    }

    /// What ends the connection when dropped; until then it is known as one of this node.
    pub(super) fn into_guard(self, via: &'static str, att_mtu: Option<u16>, size: PacketSize) -> Guard {
        let peer = self.device.address();
        let (radio, adapter) = (self.adapter.radio(), self.adapter.name());
        let announced = radio.announce(adapter, peer, self.random_address, via, att_mtu, size.bytes());
        Box::new((self.guard, announced))
    }
}

/// Ends the radio connection when dropped, and frees the slot when that is done.
pub(super) struct Disconnect {
    adapter: Adapter,
    device: Device,
    slot: Option<Slot>,
}

impl Drop for Disconnect {
    fn drop(&mut self) {
        self.adapter.disconnect(self.device.clone(), self.slot.take());
    }
}

/// Connects and waits for the services, again after each refusal that is known to go away.
async fn connect_and_resolve(
    adapter: &Adapter,
    device: &Device,
    steps: &mut Steps,
) -> Result<Vec<(Uuid, Characteristic)>, BluetoothError> {
    let mut attempt = 1;
    loop {
        let connected = connect(adapter, device).await;
        steps.done("connect");
        let error = match connected {
            Ok(()) => {
                let limit = if attempt == 1 { RESOLVE_LIMIT_FIRST } else { RESOLVE_LIMIT };
                match timeout(limit, resolve(adapter, device)).await {
                    Ok(Ok(found)) => {
                        steps.done("services");
                        return Ok(found);
                    }
                    Ok(Err(error)) => error,
                    Err(_) => {
                        // The next attempt would be on the same connection.
                        let _ = timeout(retry::CONNECT_LIMIT, device.disconnect()).await;
                        BluetoothError::TimedOut { what: DISCOVERING, limit }
                    }
                }
            }
            Err(error) => error,
        };
        let again = match &error {
            BluetoothError::BlueZ { source, .. } => retry::is_transient(source),
            BluetoothError::Disconnected { .. } => true,
            BluetoothError::TimedOut { what: CONNECTING | DISCOVERING, .. } => attempt < retry::SLOW_ATTEMPTS,
            _ => false,
        };
        if !again || attempt == retry::ATTEMPTS {
            return Err(error);
        }
        debug!(peer = %device.address(), %error, attempt, "connect failed, trying again");
        sleep(retry::pause(attempt)).await;
        attempt += 1;
    }
}

async fn connect(adapter: &Adapter, device: &Device) -> Result<(), BluetoothError> {
    if device.is_connected().await.unwrap_or(false) {
        return Ok(());
    }
    match timeout(retry::CONNECT_LIMIT, device.connect()).await {
        Ok(Err(error)) if error.kind != bluer::ErrorKind::AlreadyConnected => {
            Err(BluetoothError::bluez("connect")(error))
        }
        Ok(_) => Ok(()),
        Err(_) => {
            // BlueZ would go on for a while, and refuse the next attempt.
            let _ = timeout(retry::CONNECT_LIMIT, device.disconnect()).await;
            adapter.end_stuck_connect(device.address()).await?;
            Err(BluetoothError::TimedOut { what: CONNECTING, limit: retry::CONNECT_LIMIT })
        }
    }
}

/// Subscribes first, so that nothing the peripheral sends is lost, then acquires the write socket.
pub(super) async fn open_gatt(mut connected: Connected) -> Result<PacketChannel, BluetoothError> {
    let peer = connected.device.address();
    let lane = connected.information.lane.ok_or_else(|| BluetoothError::Busy { peer: peer.to_string() })?;
    let (towards, from) = (connected.find(to_peripheral(lane))?, connected.find(from_peripheral(lane))?);
    let sockets = async {
        let reader = from.notify_io().await.map_err(BluetoothError::bluez("subscribe"))?;
        let writer = towards.write_io().await.map_err(BluetoothError::bluez("acquire the write socket"))?;
        Ok::<_, BluetoothError>((reader, writer))
    };
    let (reader, writer) = timeout(GATT_LIMIT, sockets)
        .await
        .map_err(|_| BluetoothError::TimedOut { what: "subscribing to the peer", limit: GATT_LIMIT })??;
    let limit = connected.information.packet_size_max;
    let size = packet_size(writer.mtu()).min(PacketSize::try_new(limit).unwrap_or(PacketSize::MIN));
    let att_mtu = att_mtu(writer.mtu());
    connected.steps.done("subscribing");
    info!(%peer, lane, att_mtu, packet = size.bytes(), steps = %connected.steps, "connected to peripheral");
    let guard = connected.into_guard("gatt", Some(att_mtu), size);
    Ok(PacketChannel {
        sink: Box::new(CharacteristicSink { writer, _guard: Some(guard) }),
        source: Box::new(CharacteristicSource(reader)),
        size,
        label: format!("gatt {peer}"),
    })
}
