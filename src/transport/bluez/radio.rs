//! The radio connections of a node, as far as they can be known: ATT MTU, connection interval, PHY, signal strength.
//!
//! BlueZ tells the MTU; nothing on D-Bus tells the rest of a connection. The kernel's monitor shows interval and PHY to who has
//! CAP_NET_RAW and listened when the connection was made, its management interface the signal strength to who has
//! CAP_NET_ADMIN: root sees everything; for other users the missing fields are `None`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bluer::Address;
use serde::Serialize;
use tokio::task::JoinHandle;
use tracing::debug;

use super::kernel::{self, ConnectionEvent, Monitor};

/// Connections that the monitor keeps in mind.
const WATCHED_MAX: usize = 64;

/// One radio connection as it is now; what is not known is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RadioStatus {
    /// Address of the peer.
    pub peer: String,
    /// Adapter, `hci0`.
    pub adapter: String,
    /// What carries the packets: `gatt`, `l2cap`.
    pub via: &'static str,
    /// ATT MTU of this connection, bytes.
    pub att_mtu: Option<u16>,
    /// Longest link packet, bytes.
    pub packet_bytes: usize,
    /// Connection interval.
    pub interval_ms: Option<f64>,
    /// Connection events that the peripheral may skip.
    pub latency: Option<u16>,
    /// Silence after which the controllers give the connection up.
    pub supervision_timeout_ms: Option<u32>,
    /// PHYs, sent and received: `1M`, `2M`, `coded`.
    pub phy: Option<[&'static str; 2]>,
    /// Octets of a data PDU, sent and received.
    pub data_octets: Option<[u16; 2]>,
    /// Signal strength.
    pub rssi_dbm: Option<i8>,
}

/// The radio connections that were announced, and what the kernel's monitor has told of connections.
#[derive(Default)]
pub(super) struct Radio {
    announced: Mutex<Announcements>,
    monitor: OnceLock<Option<Watching>>,
}

/// What the monitor tells, taken up until this is dropped.
struct Watching {
    watched: Arc<Mutex<Watched>>,
    task: JoinHandle<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection that was announced; it is forgotten when this is dropped.
pub(super) struct Announced {
    radio: Arc<Radio>,
    key: u64,
}

#[derive(Clone)]
struct Connection {
    adapter: String,
    peer: Address,
    random: bool,
    via: &'static str,
    att_mtu: Option<u16>,
    packet_bytes: usize,
}

#[derive(Default)]
struct Announcements {
    next: u64,
    connections: HashMap<u64, Connection>,
}

/// Parameters by controller and handle.
type Watched = HashMap<(u16, u16), Parameters>;

#[derive(Clone, Copy)]
struct Parameters {
    peer: Address,
    interval: u16,
    latency: u16,
    timeout: u16,
    phy: [u8; 2],
    octets: [u16; 2],
}

/// No change under these locks can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Radio {
    /// Listens to the monitor from now on, if it may; connections made before it stay unknown. Needs a tokio runtime.
    pub(super) fn watch(&self) {
        self.monitor.get_or_init(|| match Monitor::open() {
            Ok(monitor) => {
                let watched = Arc::new(Mutex::default());
                let task = tokio::spawn(follow(monitor, Arc::clone(&watched)));
                Some(Watching { watched, task })
            }
            Err(error) => {
                debug!(%error, "connection interval and PHY stay unknown: the kernel's Bluetooth monitor is not open to this user");
                None
            }
        });
    }

    /// Announces a connection.
    pub(super) fn announce(
        self: &Arc<Self>,
        adapter: &str,
        peer: Address,
        random: bool,
        via: &'static str,
        att_mtu: Option<u16>,
        packet_bytes: usize,
    ) -> Announced {
        let mut announced = lock(&self.announced);
        announced.next += 1;
        let key = announced.next;
        let connection = Connection { adapter: adapter.to_owned(), peer, random, via, att_mtu, packet_bytes };
        announced.connections.insert(key, connection);
        drop(announced);
        Announced { radio: Arc::clone(self), key }
    }

    /// All connections that are announced now.
    pub(super) async fn status(&self) -> Vec<RadioStatus> {
        let mut connections: Vec<(u64, Connection)> = lock(&self.announced)
            .connections
            .iter()
            .map(|(key, connection)| (*key, connection.clone()))
            .collect();
        connections.sort_unstable_by_key(|(key, _)| *key);
        let mut all = Vec::with_capacity(connections.len());
        for (_, connection) in connections {
            all.push(self.look(connection).await);
        }
        all
    }

    /// What the monitor has told of the connection to `peer`.
    fn parameters(&self, controller: Option<u16>, peer: Address) -> Option<Parameters> {
        let watching = self.monitor.get()?.as_ref()?;
        let watched = lock(&watching.watched);
        watched.iter().find(|((number, _), p)| Some(*number) == controller && p.peer == peer).map(|(_, p)| *p)
    }

    async fn look(&self, connection: Connection) -> RadioStatus {
        let Connection { adapter, peer, random, via, att_mtu, packet_bytes } = connection;
        let controller = kernel::controller_number(&adapter);
        let watched = self.parameters(controller, peer);
        let rssi_dbm = match controller {
            Some(controller) => kernel::connection_rssi(controller, peer, random).await.ok().flatten(),
            None => None,
        };
        RadioStatus {
            peer: peer.to_string(),
            adapter,
            via,
            att_mtu,
            packet_bytes,
            interval_ms: watched.map(|p| f64::from(p.interval) * 1.25),
            latency: watched.map(|p| p.latency),
            supervision_timeout_ms: watched.map(|p| u32::from(p.timeout) * 10),
            phy: watched.map(|p| p.phy.map(phy_name)),
            data_octets: watched.map(|p| p.octets),
            rssi_dbm,
        }
    }
}

async fn follow(monitor: Monitor, watched: Arc<Mutex<Watched>>) {
    loop {
        match monitor.next().await {
            Ok((controller, handle, event)) => take(&mut lock(&watched), (controller, handle), event),
            Err(error) => return debug!(%error, "the Bluetooth monitor has ended"),
        }
    }
}

fn take(watched: &mut Watched, key: (u16, u16), event: ConnectionEvent) {
    if let ConnectionEvent::Connected { peer, interval, latency, timeout } = event {
        if watched.len() < WATCHED_MAX {
            // Every connection begins so.
            let parameters = Parameters { peer, interval, latency, timeout, phy: [1; 2], octets: [27; 2] };
            watched.insert(key, parameters);
        }
        return;
    }
    let Some(known) = watched.get_mut(&key) else { return };
    match event {
        ConnectionEvent::Updated { interval, latency, timeout } => {
            (known.interval, known.latency, known.timeout) = (interval, latency, timeout);
        }
        ConnectionEvent::DataLength { sent, received } => known.octets = [sent, received],
        ConnectionEvent::Phy { sent, received } => known.phy = [sent, received],
        ConnectionEvent::Disconnected | ConnectionEvent::Connected { .. } => {
            watched.remove(&key);
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        lock(&self.radio.announced).connections.remove(&self.key);
    }
}

fn phy_name(number: u8) -> &'static str {
    match number {
        1 => "1M",
        2 => "2M",
        3 => "coded",
        _ => "unknown",
    }
}

impl std::fmt::Display for RadioStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn or_unknown<T: std::fmt::Display>(value: Option<T>, unit: &str) -> String {
            value.map_or_else(|| "unknown".to_owned(), |value| format!("{value}{unit}"))
        }
        let phy = self.phy.map(
            |[sent, received]| {
                if sent == received { sent.to_owned() } else { format!("{sent}/{received}") }
            },
        );
        write!(
            f,
            "{} on {} over {}: ATT MTU {}, packets of {} bytes, interval {}, PHY {}, signal {}",
            self.peer,
            self.adapter,
            self.via,
            or_unknown(self.att_mtu, ""),
            self.packet_bytes,
            or_unknown(self.interval_ms, " ms"),
            or_unknown(phy, ""),
            or_unknown(self.rssi_dbm, " dBm"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_followed_from_its_beginning_to_its_end() {
        let mut watched = Watched::new();
        let (key, peer) = ((0, 64), Address([1, 2, 3, 4, 5, 6]));
        take(&mut watched, key, ConnectionEvent::Phy { sent: 2, received: 2 });
        assert!(watched.is_empty(), "one that was there before is not known");
        take(&mut watched, key, ConnectionEvent::Connected { peer, interval: 12, latency: 0, timeout: 42 });
        take(&mut watched, key, ConnectionEvent::Phy { sent: 2, received: 1 });
        take(&mut watched, key, ConnectionEvent::Updated { interval: 24, latency: 1, timeout: 200 });
        take(&mut watched, key, ConnectionEvent::DataLength { sent: 251, received: 251 });
        let known = watched[&key];
        assert_eq!((known.interval, known.latency, known.timeout), (24, 1, 200));
        assert_eq!((known.phy, known.octets), ([2, 1], [251, 251]));
        take(&mut watched, key, ConnectionEvent::Disconnected);
        assert!(watched.is_empty());
    }
}
