//! The central role on btleplug: portable, one D-Bus call a packet.
//!
//! Selectable beside [`super::central`], which is faster on Linux; it shows that a channel needs no more than writes
//! without response and notifications. The peer is looked for as everywhere here: btleplug cannot keep its scan apart from those
//! of other programs, which may drop what it looks for.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bluer::Address;
use btleplug::api::{Central as _, CharPropFlags, Characteristic, Manager as _, Peripheral as _, WriteType};
use btleplug::platform::{Manager, Peripheral};
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::adapter::Adapter;
use super::central::DISCONNECT_LIMIT;
use super::error::BluetoothError;
use super::packets::{copy, packet_size};
use super::profile::{INFORMATION, Information, from_peripheral, to_peripheral};
use super::retry;
use super::search::{Search, find};
use crate::link::{ATT_HEADER_BYTES, PacketSize};
use crate::transport::packet::{Connector, PacketChannel, PacketSink, PacketSource};

/// How long a peer is looked for.
const SCAN_LIMIT: Duration = Duration::from_secs(15);
/// Calls that wait for bluetoothd's answer. It takes them in their order, so that several save the time of each answer; should it
/// not, the link makes good what comes out of order by less than this.
const WRITES_MAX: usize = 7;
/// Limit of the discovery of services.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two of them.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Connects to one peripheral with btleplug.
pub struct BtleplugCentral {
    adapter: Adapter,
    search: Arc<Search>,
}

impl BtleplugCentral {
    /// A central on `adapter` for the peer of `search`.
    pub fn new(adapter: Adapter, search: Arc<Search>) -> Arc<BtleplugCentral> {
        Arc::new(BtleplugCentral { adapter, search })
    }

    async fn open(&self) -> Result<PacketChannel, BluetoothError> {
        let adapter = &self.adapter;
        let _one_at_a_time = adapter.shared().connecting().await;
        adapter.power_on().await?;
        let neighbour = find(adapter, &self.search, SCAN_LIMIT).await?;
        let device =
            adapter.bluer().device(neighbour.address).map_err(BluetoothError::bluez("open the peer"))?;
        if device.is_blocked().await.unwrap_or(false) {
            return Err(BluetoothError::PeerBlocked { peer: neighbour.address.to_string() });
        }
        let peripheral = self.peripheral(neighbour.address).await?;
        let peer = neighbour.address;
        adapter.shared().wait_for_disconnect(peer, DISCONNECT_LIMIT).await;
        let guard = Disconnect { adapter: adapter.clone(), peripheral: peripheral.clone(), peer };
        connect(adapter, &peripheral).await?;
        let peer = peripheral.address().to_string();
        let characteristics = peripheral.characteristics();
        let wanted = |uuid, flags| {
            let found =
                characteristics.iter().find(|c| c.uuid == uuid && c.properties.contains(flags)).cloned();
            found.ok_or_else(|| BluetoothError::NotOurs {
                peer: peer.clone(),
                message: format!("characteristic {uuid} is missing"),
            })
        };
        let information = wanted(INFORMATION, CharPropFlags::READ)?;
        let value = peripheral.read(&information).await.map_err(failed("read information"))?;
        let information = Information::decode(&value)
            .map_err(|message| BluetoothError::NotOurs { peer: peer.clone(), message })?;
        let notifications = peripheral.notifications().await.map_err(failed("listen to notifications"))?;
        let lane = information.lane.ok_or_else(|| BluetoothError::Busy { peer: peer.clone() })?;
        let from_peripheral = wanted(from_peripheral(lane), CharPropFlags::NOTIFY)?;
        peripheral.subscribe(&from_peripheral).await.map_err(failed("subscribe"))?;
        let to_peripheral = wanted(to_peripheral(lane), CharPropFlags::WRITE_WITHOUT_RESPONSE)?;
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
                writing: VecDeque::new(),
                _guard: guard,
            }),
            source: Box::new(Source { values }),
            size,
            label: format!("gatt (btleplug) {peer}"),
        })
    }

    /// The device that BlueZ knows by this address, in btleplug's hands.
    async fn peripheral(&self, address: Address) -> Result<Peripheral, BluetoothError> {
        let manager = Manager::new().await.map_err(failed("reach bluetoothd"))?;
        for adapter in manager.adapters().await.map_err(failed("list adapters"))? {
            // The order of the list is not stable; the first word of the information is the name.
            let info = adapter.adapter_info().await.map_err(failed("read adapter"))?;
            if info.split_whitespace().next() != Some(self.adapter.name()) {
                continue;
            }
            let peripherals = adapter.peripherals().await.map_err(failed("list devices"))?;
            let found = peripherals.into_iter().find(|device| device.address().into_inner() == address.0);
            return found.ok_or_else(|| self.search.not_seen(SCAN_LIMIT));
        }
        Err(BluetoothError::NoAdapter {
            wanted: self.adapter.name().to_owned(),
            present: "see `gattway doctor`".to_owned(),
        })
    }
}

#[async_trait]
impl Connector for BtleplugCentral {
    async fn connect(&self) -> io::Result<PacketChannel> {
        Ok(self.open().await?)
    }
}

async fn connect(adapter: &Adapter, peripheral: &Peripheral) -> Result<(), BluetoothError> {
    let mut attempt = 1;
    loop {
        let error = match timeout(retry::CONNECT_LIMIT, peripheral.connect()).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) if attempt == retry::ATTEMPTS => return Err(failed("connect")(error)),
            Ok(Err(error)) => failed("connect")(error),
            Err(_) => {
                // BlueZ would go on for a while, and refuse the next attempt.
                let _ = timeout(retry::CONNECT_LIMIT, peripheral.disconnect()).await;
                adapter.end_stuck_connect(Address(peripheral.address().into_inner())).await?;
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
    adapter: Adapter,
    peripheral: Peripheral,
    peer: Address,
}

impl Drop for Disconnect {
    fn drop(&mut self) {
        let peripheral = self.peripheral.clone();
        self.adapter.shared().begin_disconnect(self.peer, async move {
            if let Err(error) = peripheral.disconnect().await {
                debug!(peer = %peripheral.address(), %error, "disconnect");
            }
        });
    }
}

struct Sink {
    peripheral: Peripheral,
    characteristic: Arc<Characteristic>,
    /// Writes under way, the oldest first: a failure is reported when its turn comes.
    writing: VecDeque<BoxFuture<'static, btleplug::Result<()>>>,
    _guard: Disconnect,
}

impl PacketSink for Sink {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        let failed = |source| BluetoothError::Btleplug { what: "write", source };
        while let Some(oldest) = self.writing.front_mut() {
            match oldest.as_mut().poll(cx) {
                Poll::Ready(result) => {
                    self.writing.pop_front();
                    result.map_err(failed)?;
                }
                Poll::Pending if self.writing.len() >= WRITES_MAX => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        let (peripheral, characteristic) = (self.peripheral.clone(), Arc::clone(&self.characteristic));
        let packet = packet.to_vec();
        let mut writing: BoxFuture<'static, _> =
            Box::pin(
                async move { peripheral.write(&characteristic, &packet, WriteType::WithoutResponse).await },
            );
        // Nobody polls a sink that has nothing more to send: the write must be on its way now.
        match writing.as_mut().poll(cx) {
            Poll::Ready(result) => result.map_err(failed)?,
            Poll::Pending => self.writing.push_back(writing),
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
