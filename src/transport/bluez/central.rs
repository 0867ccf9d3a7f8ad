//! The central role on bluer: connect, resolve, subscribe, acquire the write socket.
//!
//! The default central, because a packet costs one system call; btleplug's costs a D-Bus call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bluer::Device;
use bluer::Uuid;
use bluer::gatt::remote::Characteristic;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::adapter::Adapter;
use super::error::BluetoothError;
use super::packets::{CharacteristicSink, CharacteristicSource, packet_size};
use super::profile::{INFORMATION, Information, SERVICE, from_peripheral, to_peripheral};
use super::scan::{Wanted, find};
use crate::link::PacketSize;
use crate::transport::packet::{Connector, PacketChannel};

/// How long a peer is looked for.
pub const SCAN_LIMIT: Duration = Duration::from_secs(15);
/// `le-connection-abort-by-local` right after a scan goes away with a few more attempts (bleak #1255).
const CONNECT_ATTEMPTS: u32 = 4;
/// Pause between two of them.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Limit of one attempt; BlueZ's own is 20 to 40 s.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Limit for the discovery of the services.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);
/// How often the resolved services are looked for.
const RESOLVE_PAUSE: Duration = Duration::from_millis(50);

/// Connects to one peripheral over GATT with AcquireNotify and AcquireWrite.
pub struct BluerCentral {
    adapter: Adapter,
    wanted: Wanted,
}

impl BluerCentral {
    /// A central on `adapter` for the peer `wanted`.
    pub fn new(adapter: Adapter, wanted: Wanted) -> Arc<BluerCentral> {
        Arc::new(BluerCentral { adapter, wanted })
    }
}

#[async_trait]
impl Connector for BluerCentral {
    async fn connect(&self) -> std::io::Result<PacketChannel> {
        let connected = Connected::open(&self.adapter, &self.wanted).await?;
        Ok(open_gatt(connected).await?)
    }
}

/// A connected device with its services; disconnects when dropped.
pub(super) struct Connected {
    pub(super) device: Device,
    pub(super) information: Information,
    to_peripheral: Characteristic,
    from_peripheral: Characteristic,
    guard: Disconnect,
}

impl Connected {
    /// Finds, connects and resolves, one at a time on this adapter.
    pub(super) async fn open(adapter: &Adapter, wanted: &Wanted) -> Result<Connected, BluetoothError> {
        let slot = adapter.slot()?;
        let _one_at_a_time = adapter.connecting().await;
        adapter.power_on().await?;
        let neighbour = find(adapter, wanted, SCAN_LIMIT).await?;
        let device =
            adapter.bluer().device(neighbour.address).map_err(BluetoothError::bluez("open the peer"))?;
        let guard = Disconnect { device: device.clone(), _slot: slot };
        connect(&device).await?;
        let characteristics = timeout(RESOLVE_LIMIT, resolve(&device)).await.map_err(|_| {
            BluetoothError::TimedOut { what: "discovery of the peer's services", limit: RESOLVE_LIMIT }
        })??;
        let peer = device.address().to_string();
        let find = |uuid: Uuid| {
            let found = characteristics.iter().find(|(u, _)| *u == uuid).map(|(_, c)| c.clone());
            found.ok_or_else(|| BluetoothError::NotOurs {
                peer: peer.clone(),
                message: format!("characteristic {uuid} is missing"),
            })
        };
        let value = find(INFORMATION)?.read().await.map_err(BluetoothError::bluez("read information"))?;
        let information = Information::decode(&value)
            .map_err(|message| BluetoothError::NotOurs { peer: peer.clone(), message })?;
        let lane = information.lane.ok_or_else(|| BluetoothError::Busy { peer: peer.clone() })?;
        let (to_peripheral, from_peripheral) = (find(to_peripheral(lane))?, find(from_peripheral(lane))?);
        Ok(Connected { device, information, to_peripheral, from_peripheral, guard })
    }

    /// What ends the connection when dropped.
    pub(super) fn into_guard(self) -> Disconnect {
        self.guard
    }
}

/// Ends the radio connection and frees the slot when dropped; a connection that is forgotten keeps its slot taken.
pub(super) struct Disconnect {
    device: Device,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Disconnect {
    fn drop(&mut self) {
        let device = self.device.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = device.disconnect().await {
                    debug!(peer = %device.address(), %error, "disconnect");
                }
            });
        }
    }
}

async fn connect(device: &Device) -> Result<(), BluetoothError> {
    let mut attempt = 1;
    loop {
        if device.is_connected().await.unwrap_or(false) {
            return Ok(());
        }
        match timeout(CONNECT_LIMIT, device.connect()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if attempt < CONNECT_ATTEMPTS => {
                debug!(peer = %device.address(), %error, attempt, "connect failed, trying again");
            }
            Ok(Err(error)) => return Err(BluetoothError::bluez("connect")(error)),
            Err(_) => return Err(BluetoothError::TimedOut { what: "connecting", limit: CONNECT_LIMIT }),
        }
        attempt += 1;
        sleep(CONNECT_PAUSE).await;
    }
}

/// The characteristics of our service, once BlueZ has resolved it.
async fn resolve(device: &Device) -> Result<Vec<(Uuid, Characteristic)>, BluetoothError> {
    let what = "read the peer's services";
    while !device.is_services_resolved().await.map_err(BluetoothError::bluez(what))? {
        sleep(RESOLVE_PAUSE).await;
    }
    let mut found = Vec::new();
    for service in device.services().await.map_err(BluetoothError::bluez(what))? {
        if service.uuid().await.map_err(BluetoothError::bluez(what))? != SERVICE {
            continue;
        }
        for characteristic in service.characteristics().await.map_err(BluetoothError::bluez(what))? {
            found.push((characteristic.uuid().await.map_err(BluetoothError::bluez(what))?, characteristic));
        }
    }
    if found.is_empty() {
        let peer = device.address().to_string();
        return Err(BluetoothError::NotOurs { peer, message: format!("it has no service {SERVICE}") });
    }
    Ok(found)
}

/// Subscribes first, so that nothing the peripheral sends is lost, then acquires the write socket.
pub(super) async fn open_gatt(connected: Connected) -> Result<PacketChannel, BluetoothError> {
    let reader = connected.from_peripheral.notify_io().await.map_err(BluetoothError::bluez("subscribe"))?;
    let writer = connected
        .to_peripheral
        .write_io()
        .await
        .map_err(BluetoothError::bluez("acquire the write socket"))?;
    let limit = connected.information.packet_size_max;
    let size = packet_size(writer.mtu()).min(PacketSize::try_new(limit).unwrap_or(PacketSize::MIN));
    let label = format!("gatt {}", connected.device.address());
    info!(peer = %connected.device.address(), packet = size.bytes(), "connected to peripheral");
    Ok(PacketChannel {
        sink: Box::new(CharacteristicSink { writer, _guard: Some(Box::new(connected.into_guard())) }),
        source: Box::new(CharacteristicSource::new(reader)),
        size,
        label,
    })
}
