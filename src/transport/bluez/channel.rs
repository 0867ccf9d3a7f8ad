//! Opening an L2CAP channel to a device that is connected.

use std::io::ErrorKind;
use std::time::Duration;

use bluer::Device;
use bluer::l2cap::{SeqPacket, Socket, SocketAddr};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::adapter::Adapter;
use super::error::BluetoothError;

/// Receive MTU: 65535 stalls the other direction on BlueZ 5.66, this does not (`firmware-notes/bluez.md`).
pub(super) const RECEIVE_MTU: u16 = 8192;
/// Limit before anything is known of the peer: a refusal takes a round trip, and a peer without channels may say nothing.
pub(super) const EARLY_LIMIT: Duration = Duration::from_secs(3);
/// How often the channel is looked at until it is up.
const PAUSE: Duration = Duration::from_millis(20);

/// Opens a channel to `psm` of a device that is connected.
pub(super) async fn open(
    adapter: &Adapter,
    device: &Device,
    psm: u16,
    limit: Duration,
) -> Result<SeqPacket, BluetoothError> {
    const WHAT: &str = "opening an L2CAP channel";
    let failed = || BluetoothError::socket("open an L2CAP channel");
    let bluez = || BluetoothError::bluez("read an address");
    let local = adapter.bluer();
    let (local_type, local_address, peer_type) =
        tokio::try_join!(local.address_type(), local.address(), device.address_type()).map_err(bluez())?;
    let socket = Socket::<SeqPacket>::new_seq_packet().map_err(failed())?;
    socket.bind(SocketAddr::new(local_address, local_type, 0)).map_err(failed())?;
    socket.set_recv_mtu(RECEIVE_MTU).map_err(failed())?;
    let peer = SocketAddr::new(device.address(), peer_type, psm);
    let deadline = Instant::now() + limit;
    let socket = timeout_at(deadline, socket.connect(peer))
        .await
        .map_err(|_| BluetoothError::TimedOut { what: WHAT, limit })?
        .map_err(failed())?;
    // `connect` returns before the channel is up, and writing gives ENOTCONN until then. A peripheral does not speak first: what can be received before the channel is up is its refusal.
    while let Err(source) = socket.peer_addr().and_then(|_| socket.send_mtu()) {
        match timeout(PAUSE, socket.recv(&mut [0; 1])).await {
            Ok(Ok(_)) => return Err(failed()(ErrorKind::ConnectionRefused.into())),
            Ok(Err(error)) if error.kind() != ErrorKind::NotConnected => return Err(failed()(error)),
            Ok(Err(_)) => sleep(PAUSE).await,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Err(failed()(source));
        }
    }
    Ok(socket)
}
