//! L2CAP connection-oriented channels on bluer: the same packets without ATT.
//!
//! A central tries the channel at once, before it knows the peripheral's services: discovery and a read are a dozen connection
//! events that a channel does not need. If it is refused, and the information characteristic names a PSM, that one is tried; else
//! the central goes on with GATT.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bluer::AddressType;
use bluer::l2cap::{self, SeqPacket, SeqPacketListener, Socket, SocketAddr};
use tokio::time::sleep;
use tracing::{info, warn};

use super::adapter::Adapter;
use super::central::{Connected, Early, open_gatt};
use super::channel::{self, RECEIVE_MTU};
use super::error::BluetoothError;
use super::packets::{Guard, L2capHalf};
use super::profile::PSM;
use super::search::Search;
use super::security::{LinkSecurity, SecurityLevel};
use crate::link::{PACKET_BYTES_MAX, PacketSize};
use crate::transport::packet::{Connector, PacketChannel};

/// Limit of opening a channel that the peer's information names.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The socket of before may still be open when everything is registered anew.
const BIND_ATTEMPTS: u32 = 20;
/// Pause between two attempts to listen.
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// Connects over L2CAP where the peer offers it, over GATT otherwise or when L2CAP fails.
pub struct L2capCentral {
    adapter: Adapter,
    search: Arc<Search>,
    early: Early,
}

impl L2capCentral {
    /// A central on `adapter` for the peer of `search`.
    pub fn new(adapter: Adapter, search: Arc<Search>) -> Arc<L2capCentral> {
        Arc::new(L2capCentral { adapter, search, early: Early::Channel })
    }

    /// The same, which reads the peer's information first: where that begins a pairing, a person may have to type a code, for
    /// which a channel does not wait.
    pub fn after_information(adapter: Adapter, search: Arc<Search>) -> Arc<L2capCentral> {
        Arc::new(L2capCentral { adapter, search, early: Early::Nothing })
    }
}

#[async_trait]
impl Connector for L2capCentral {
    async fn connect(&self) -> std::io::Result<PacketChannel> {
        let mut connected = Connected::open(&self.adapter, &self.search, self.early).await?;
        if let Some(socket) = connected.channel.take() {
            return Ok(carried(connected, socket, PACKET_BYTES_MAX));
        }
        let Some(psm) = connected.information.l2cap_psm else { return Ok(open_gatt(connected).await?) };
        // No lane is needed here: the channel is this central's alone.
        match channel::open(&self.adapter, &connected.device, psm, CONNECT_LIMIT).await {
            Ok(socket) => {
                let limit = connected.information.packet_size_max;
                Ok(carried(connected, socket, limit))
            }
            Err(error) => {
                warn!(peer = %connected.device.address(), %error, "no L2CAP channel, using GATT");
                Ok(open_gatt(connected).await?)
            }
        }
    }
}

/// A central's channel, with packets of at most `limit` bytes.
fn carried(mut connected: Connected, socket: SeqPacket, limit: u16) -> PacketChannel {
    let address = connected.device.address();
    connected.steps.done("channel");
    info!(peer = %address, psm = connected.information.l2cap_psm, steps = %connected.steps, "connected over L2CAP");
    let size = packet_size(&socket, limit);
    let guard = connected.into_guard("l2cap", None, size);
    channel(socket, size, format!("l2cap {address}"), Some(guard))
}

/// Listens for L2CAP channels; give each to the same acceptor as GATT's.
pub struct L2capListener {
    listener: SeqPacketListener,
    adapter: Adapter,
    security: LinkSecurity,
}

impl L2capListener {
    /// Listens on [`PSM`] of `adapter`; the kernel sees to it that a channel has the link security that is asked for.
    ///
    /// # Errors
    /// [`BluetoothError`], among them that another process listens there, still after 2 s.
    pub async fn bind(adapter: &Adapter, security: LinkSecurity) -> Result<L2capListener, BluetoothError> {
        let mut attempt = 1;
        loop {
            match L2capListener::bind_now(adapter, security).await {
                Err(BluetoothError::Socket { source, .. })
                    if source.kind() == std::io::ErrorKind::AddrInUse && attempt < BIND_ATTEMPTS =>
                {
                    attempt += 1;
                    sleep(BIND_PAUSE).await;
                }
                bound => return bound,
            }
        }
    }

    async fn bind_now(adapter: &Adapter, security: LinkSecurity) -> Result<L2capListener, BluetoothError> {
        let failed = || BluetoothError::socket("listen for L2CAP channels");
        let bluez = || BluetoothError::bluez("read an address");
        let local = adapter.bluer();
        let address = SocketAddr::new(
            local.address().await.map_err(bluez())?,
            local.address_type().await.map_err(bluez())?,
            PSM,
        );
        let socket = Socket::<SeqPacket>::new_seq_packet().map_err(failed())?;
        // Unless nothing is asked for: even the lowest level can make the kernel ask for a pairing (bluez #1789).
        let level = match security.level {
            SecurityLevel::None => None,
            SecurityLevel::Encrypt => Some(l2cap::SecurityLevel::Medium),
            SecurityLevel::Authenticate => Some(l2cap::SecurityLevel::High),
        };
        if let Some(level) = level {
            socket.set_security(l2cap::Security { level, key_size: 0 }).map_err(failed())?;
        }
        socket.bind(address).map_err(failed())?;
        socket.set_recv_mtu(RECEIVE_MTU).map_err(failed())?;
        let listener = socket.listen(4).map_err(failed())?;
        Ok(L2capListener { listener, adapter: adapter.clone(), security })
    }

    /// The next channel; `None`: one of a device that may not connect was dropped.
    ///
    /// # Errors
    /// The listener is gone.
    pub async fn accept(&self) -> Result<Option<PacketChannel>, BluetoothError> {
        let (socket, peer) =
            self.listener.accept().await.map_err(BluetoothError::socket("accept an L2CAP channel"))?;
        if !self.security.admits(self.adapter.bluer(), peer.addr).await {
            return Ok(None);
        }
        let random = peer.addr_type == AddressType::LeRandom;
        let size = packet_size(&socket, PACKET_BYTES_MAX);
        let (radio, adapter) = (self.adapter.radio(), self.adapter.name());
        let announced = radio.announce(adapter, peer.addr, random, "l2cap", None, size.bytes());
        Ok(Some(channel(socket, size, format!("l2cap {}", peer.addr), Some(Box::new(announced)))))
    }
}

/// What both sides carry: one packet an SDU.
fn packet_size(socket: &SeqPacket, peer_limit: u16) -> PacketSize {
    let sdu = socket.send_mtu().unwrap_or(PacketSize::MIN.bytes());
    PacketSize::fitting(sdu.min(usize::from(peer_limit))).unwrap_or(PacketSize::MIN)
}

fn channel(socket: SeqPacket, size: PacketSize, label: String, guard: Option<Guard>) -> PacketChannel {
    let socket = Arc::new(socket);
    PacketChannel {
        sink: Box::new(L2capHalf { socket: Arc::clone(&socket), _guard: guard }),
        source: Box::new(L2capHalf { socket, _guard: None }),
        size,
        label,
    }
}
