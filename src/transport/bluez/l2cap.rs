//! L2CAP connection-oriented channels on bluer: the same packets without ATT.
//!
//! A channel is used when the peripheral's information characteristic names a PSM and connecting works; else GATT.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bluer::AddressType;
use bluer::l2cap::{self, PSM_LE_DYN_START, SeqPacket, SeqPacketListener, Socket, SocketAddr};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::adapter::Adapter;
use super::central::{Connected, open_gatt};
use super::error::BluetoothError;
use super::packets::{Guard, L2capHalf};
use super::search::Search;
use super::security::{LinkSecurity, SecurityLevel};
use crate::link::{PACKET_BYTES_MAX, PacketSize};
use crate::transport::packet::{Connector, PacketChannel};

/// PSM that our peripherals listen on, of the dynamic range.
pub const PSM: u16 = PSM_LE_DYN_START + 5;
/// Receive MTU: 65535 stalls the other direction on BlueZ 5.66, this does not (`firmware-notes/bluez.md`).
const RECEIVE_MTU: u16 = 8192;
/// `connect` returns before the channel is up, and writing gives ENOTCONN until then.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The socket of before may still be open when everything is registered anew.
const BIND_ATTEMPTS: u32 = 20;
/// Pause between two attempts to listen.
const BIND_PAUSE: Duration = Duration::from_millis(100);
/// How often the channel is looked at meanwhile.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Connects over L2CAP where the peer offers it, over GATT otherwise or when L2CAP fails.
pub struct L2capCentral {
    adapter: Adapter,
    search: Arc<Search>,
}

impl L2capCentral {
    /// A central on `adapter` for the peer of `search`.
    pub fn new(adapter: Adapter, search: Arc<Search>) -> Arc<L2capCentral> {
        Arc::new(L2capCentral { adapter, search })
    }
}

#[async_trait]
impl Connector for L2capCentral {
    async fn connect(&self) -> std::io::Result<PacketChannel> {
        let mut connected = Connected::open(&self.adapter, &self.search).await?;
        let Some(psm) = connected.information.l2cap_psm else { return Ok(open_gatt(connected).await?) };
        let limit = connected.information.packet_size_max;
        // No lane is needed here: the channel is this central's alone.
        match open(&self.adapter, &connected, psm).await {
            Ok(socket) => {
                let address = connected.device.address();
                connected.steps.done("channel");
                info!(peer = %address, psm, steps = %connected.steps, "connected over L2CAP");
                let size = packet_size(&socket, limit);
                let guard = connected.into_guard("l2cap", None, size);
                Ok(channel(socket, size, format!("l2cap {address}"), Some(guard)))
            }
            Err(error) => {
                warn!(peer = %connected.device.address(), %error, "no L2CAP channel, using GATT");
                Ok(open_gatt(connected).await?)
            }
        }
    }
}

async fn open(adapter: &Adapter, connected: &Connected, psm: u16) -> Result<SeqPacket, BluetoothError> {
    let failed = || BluetoothError::socket("open an L2CAP channel");
    let bluez = || BluetoothError::bluez("read an address");
    let local = adapter.bluer();
    let (local_type, local_address, peer_type) =
        tokio::try_join!(local.address_type(), local.address(), connected.device.address_type())
            .map_err(bluez())?;
    let socket = Socket::<SeqPacket>::new_seq_packet().map_err(failed())?;
    socket.bind(SocketAddr::new(local_address, local_type, 0)).map_err(failed())?;
    socket.set_recv_mtu(RECEIVE_MTU).map_err(failed())?;
    let peer = SocketAddr::new(connected.device.address(), peer_type, psm);
    let socket = timeout(CONNECT_LIMIT, socket.connect(peer))
        .await
        .map_err(|_| BluetoothError::TimedOut { what: "opening an L2CAP channel", limit: CONNECT_LIMIT })?
        .map_err(failed())?;
    let deadline = Instant::now() + CONNECT_LIMIT;
    while let Err(source) = socket.peer_addr().and_then(|_| socket.send_mtu()) {
        if Instant::now() >= deadline {
            return Err(BluetoothError::Socket { what: "open an L2CAP channel", source });
        }
        sleep(CONNECT_PAUSE).await;
    }
    Ok(socket)
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
