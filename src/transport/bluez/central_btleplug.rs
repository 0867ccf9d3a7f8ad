//! The central role on btleplug: portable, one D-Bus call a packet.
//!
//! Selectable beside [`super::central`], which is faster on Linux; it shows that nothing here needs more than writes
//! without response and notifications.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bluer::Address;
use btleplug::api::{
    Central as _, CharPropFlags, Characteristic, Manager as _, Peripheral as _, ScanFilter, WriteType,
};
use btleplug::platform::{Manager, Peripheral};
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::adapter::{farewell, farewells};
use super::central::FAREWELL_LIMIT;
use super::error::BluetoothError;
use super::packets::{copy, packet_size};
use super::profile::{INFORMATION, Information, SERVICE, advert_state, from_peripheral, to_peripheral};
use super::retry;
use super::scan::{Neighbour, Search};
use crate::link::{ATT_HEADER_BYTES, PacketSize};
use crate::transport::packet::{Connector, PacketChannel, PacketSink, PacketSource};

/// How long a peer is looked for.
const SCAN_LIMIT: Duration = Duration::from_secs(15);
/// How often the devices seen are looked through.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
/// Limit of the discovery of services.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two of them.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Connects to one peripheral with btleplug.
pub struct BtleplugCentral {
    adapter: String,
    search: Arc<Search>,
}

impl BtleplugCentral {
    /// A central on the adapter named `adapter` (`hci0`) for the peer of `search`.
    pub fn new(adapter: impl Into<String>, search: Arc<Search>) -> Arc<BtleplugCentral> {
        Arc::new(BtleplugCentral { adapter: adapter.into(), search })
    }

    async fn open(&self) -> Result<PacketChannel, BluetoothError> {
        let peripheral = self.find().await?;
        // What was connected before is being disconnected; a connect in between would be taken for the old one.
        farewells(FAREWELL_LIMIT).await;
        let guard = Disconnect { peripheral: peripheral.clone() };
        connect(&peripheral).await?;
        let peer = peripheral.address().to_string();
        let characteristics = peripheral.characteristics();
        let find = |uuid, flags| {
            let found =
                characteristics.iter().find(|c| c.uuid == uuid && c.properties.contains(flags)).cloned();
            found.ok_or_else(|| BluetoothError::NotOurs {
                peer: peer.clone(),
                message: format!("characteristic {uuid} is missing"),
            })
        };
        let information = find(INFORMATION, CharPropFlags::READ)?;
        let value = peripheral.read(&information).await.map_err(failed("read information"))?;
        let information = Information::decode(&value)
            .map_err(|message| BluetoothError::NotOurs { peer: peer.clone(), message })?;
        let notifications = peripheral.notifications().await.map_err(failed("listen to notifications"))?;
        let lane = information.lane.ok_or_else(|| BluetoothError::Busy { peer: peer.clone() })?;
        let from_peripheral = find(from_peripheral(lane), CharPropFlags::NOTIFY)?;
        peripheral.subscribe(&from_peripheral).await.map_err(failed("subscribe"))?;
        let to_peripheral = find(to_peripheral(lane), CharPropFlags::WRITE_WITHOUT_RESPONSE)?;
        // A snapshot of service discovery, 23 if BlueZ did not say: the smallest packet then.
        let size = packet_size(usize::from(peripheral.mtu()).saturating_sub(usize::from(ATT_HEADER_BYTES)))
            .min(PacketSize::try_new(information.packet_size_max).unwrap_or(PacketSize::MIN));
        let uuid = from_peripheral.uuid;
        let values = notifications
            .filter_map(move |n| std::future::ready((n.uuid == uuid).then_some(n.value)))
            .boxed();
        Ok(PacketChannel {
            sink: Box::new(Sink {
                peripheral,
                characteristic: Arc::new(to_peripheral),
                writing: None,
                _guard: guard,
            }),
            source: Box::new(Source { values }),
            size,
            label: format!("gatt (btleplug) {peer}"),
        })
    }

    async fn find(&self) -> Result<Peripheral, BluetoothError> {
        let manager = Manager::new().await.map_err(failed("reach bluetoothd"))?;
        let mut adapter = None;
        for candidate in manager.adapters().await.map_err(failed("list adapters"))? {
            // The order of the list is not stable; the first word of the information is the name.
            let info = candidate.adapter_info().await.map_err(failed("read adapter"))?;
            if info.split_whitespace().next() == Some(self.adapter.as_str()) {
                adapter = Some(candidate);
            }
        }
        let adapter = adapter.ok_or_else(|| BluetoothError::NoAdapter {
            wanted: self.adapter.clone(),
            present: "see `gattway doctor`".to_owned(),
        })?;
        adapter.start_scan(ScanFilter::default()).await.map_err(failed("start scan"))?;
        let deadline = Instant::now() + SCAN_LIMIT;
        let found = loop {
            let mut found = None;
            for peripheral in adapter.peripherals().await.map_err(failed("list devices"))? {
                if self.fits(&peripheral).await {
                    found = Some(peripheral);
                }
            }
            if found.is_some() || Instant::now() >= deadline {
                break found;
            }
            sleep(SCAN_PAUSE).await;
        };
        adapter.stop_scan().await.map_err(failed("stop scan"))?;
        found.ok_or_else(|| self.search.not_seen(SCAN_LIMIT))
    }

    /// Whether it is the one that is looked for; then the search keeps in mind who it is.
    async fn fits(&self, peripheral: &Peripheral) -> bool {
        let Ok(Some(properties)) = peripheral.properties().await else { return false };
        // No signal strength: BlueZ only remembers it.
        let state = properties.service_data.get(&SERVICE).and_then(|data| advert_state(data));
        let (Some(rssi), Some(state)) = (properties.rssi, state) else { return false };
        let neighbour = Neighbour {
            address: Address(peripheral.address().into_inner()),
            name: properties.local_name,
            rssi: Some(rssi),
            state,
        };
        let fits = self.search.fits(&neighbour);
        if fits {
            self.search.remember(&neighbour);
        }
        fits
    }
}

#[async_trait]
impl Connector for BtleplugCentral {
    async fn connect(&self) -> io::Result<PacketChannel> {
        Ok(self.open().await?)
    }
}

async fn connect(peripheral: &Peripheral) -> Result<(), BluetoothError> {
    let mut attempt = 1;
    loop {
        let error = match timeout(retry::CONNECT_LIMIT, peripheral.connect()).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) if attempt == retry::ATTEMPTS => return Err(failed("connect")(error)),
            Ok(Err(error)) => failed("connect")(error),
            Err(_) => {
                // BlueZ would go on for a while, and refuse the next attempt.
                let _ = timeout(retry::CONNECT_LIMIT, peripheral.disconnect()).await;
                let error = BluetoothError::TimedOut { what: "connecting", limit: retry::CONNECT_LIMIT };
                if attempt >= retry::SLOW_ATTEMPTS {
                    return Err(error);
                }
                error
            }
        };
        debug!(peer = %peripheral.address(), %error, attempt, "connect failed, trying again");
        attempt += 1;
        sleep(CONNECT_PAUSE).await;
    }
    timeout(RESOLVE_LIMIT, peripheral.discover_services())
        .await
        .map_err(|_| BluetoothError::TimedOut {
            what: "discovery of the peer's services",
            limit: RESOLVE_LIMIT,
        })?
        .map_err(failed("discover services"))
}

fn failed(what: &'static str) -> impl FnOnce(btleplug::Error) -> BluetoothError {
    move |source| BluetoothError::Btleplug { what, source }
}

/// Ends the radio connection when dropped.
struct Disconnect {
    peripheral: Peripheral,
}

impl Drop for Disconnect {
    fn drop(&mut self) {
        let peripheral = self.peripheral.clone();
        farewell(async move {
            if let Err(error) = peripheral.disconnect().await {
                debug!(peer = %peripheral.address(), %error, "disconnect");
            }
        });
    }
}

struct Sink {
    peripheral: Peripheral,
    characteristic: Arc<Characteristic>,
    /// The write under way; the next packet is taken when it is done, its failure is reported then.
    writing: Option<BoxFuture<'static, btleplug::Result<()>>>,
    _guard: Disconnect,
}

impl PacketSink for Sink {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        if let Some(writing) = &mut self.writing {
            let result = ready!(writing.as_mut().poll(cx));
            self.writing = None;
            result.map_err(|source| BluetoothError::Btleplug { what: "write", source })?;
        }
        let (peripheral, characteristic) = (self.peripheral.clone(), Arc::clone(&self.characteristic));
        let packet = packet.to_vec();
        let mut writing: BoxFuture<'static, _> =
            Box::pin(
                async move { peripheral.write(&characteristic, &packet, WriteType::WithoutResponse).await },
            );
        // Nobody polls a sink that has nothing more to send: the write must be on its way now.
        match writing.as_mut().poll(cx) {
            Poll::Ready(result) => {
                result.map_err(|source| BluetoothError::Btleplug { what: "write", source })?;
            }
            Poll::Pending => self.writing = Some(writing),
        }
        Poll::Ready(Ok(()))
    }
}

struct Source {
    values: Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>,
}

impl PacketSource for Source {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(value) = ready!(self.values.as_mut().poll_next(cx)) else { return Poll::Ready(Ok(0)) };
        Poll::Ready(copy(&value, packet))
    }
}
