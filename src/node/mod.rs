//! The front door: a database that its neighbours sync with.
//!
//! A [`Node`] listens for peers in any number of places, syncs with those that it is asked to, and knows who may come in: its
//! identity, its group and its trust list lie beside the documents, and are made at the first use. What carries the bytes is
//! one of two contracts, [`Listen`] and [`Connect`]:
//!
//! | | listens | connects |
//! |---|---|---|
//! | TCP, Unix sockets | [`Tcp::bind`], [`Unix::bind`] | [`Tcp::connect`], [`Unix::connect`] |
//! | WebSocket (feature `websocket`) | `WebSocket::bind` | `WebSocketClient` |
//! | Bluetooth LE (feature `bluetooth`) | `Ble::adapter` | `Ble::peer`, `Ble::any` |
//! | a packet radio of your own, or the modelled one | [`Packets::listen`] | [`Packets::connect`] |
//!
//! ```no_run
//! use gattway::database::{Database, DatabaseConfig};
//! use gattway::node::{Node, Tcp};
//!
//! # async fn station() -> Result<(), Box<dyn std::error::Error>> {
//! let db = Database::open("station.db", DatabaseConfig::default())?;
//! let node = Node::builder(db).listen(Tcp::bind("0.0.0.0:4985")).start().await?;
//! let mut sync = node.sync(Tcp::connect("gateway.local:4985")).continuous(true).start();
//! while let Some(event) = sync.events().next().await {
//!     println!("{event}");
//! }
//! node.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Whoever brings a transport in the manner of Couchbase Lite uses [`Replicator`](crate::replicator::Replicator) and
//! [`MessageEndpointListener`] instead.

pub(crate) mod access;
#[cfg(feature = "bluetooth")]
mod advert;
#[cfg(feature = "bluetooth")]
pub(crate) mod ble;
mod builder;
mod connect;
mod error;
mod event;
mod intake;
pub(crate) mod listen;
#[cfg(feature = "bluetooth")]
mod marks;
mod modelled;
#[cfg(feature = "bluetooth")]
mod neighbours;
mod packets;
#[cfg(feature = "bluetooth")]
mod radio;
mod sync;
mod sync_event;
#[cfg(test)]
mod tests;
#[cfg(feature = "websocket")]
mod websocket;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle, JoinSet};

pub use self::access::{AccessError, Admission};
#[cfg(feature = "bluetooth")]
pub use self::ble::{Ble, BleCentral, BleNeighbours, BlePeer, BlePlace};
pub use self::builder::NodeBuilder;
pub use self::connect::Connect;
pub use self::error::{ListenError, NodeError, SyncError};
pub use self::event::{ConnectionId, EventStream, NodeEvent, STREAM_EVENTS_MAX};
pub use self::listen::Listen;
pub(crate) use self::listen::{Accept, Arrival, Local};
pub use self::modelled::{ModelledDevice, ModelledRadio};
pub use self::packets::{PacketListener, PacketPlace, PacketWay, Packets};
pub use self::sync::{SyncBuilder, SyncHandle, SyncTarget};
pub use self::sync_event::SyncEvent;
#[cfg(feature = "websocket")]
pub use self::websocket::{Users, WebSocket, WebSocketPlace};
pub use crate::secure::{Established, PeerId, PeerIdError};
#[cfg(feature = "bluetooth")]
pub use crate::transport::bluez::agent::{AskPasskey, Pairing, Passkey};
#[cfg(feature = "bluetooth")]
pub use crate::transport::bluez::radio::RadioStatus;
#[cfg(feature = "bluetooth")]
pub use crate::transport::bluez::security::{LinkSecurity, SecurityLevel};
pub use crate::transport::packet::{Connector, PacketChannel, PacketSink, PacketSource};
pub use crate::transport::stream::{Address, AddressError};
#[cfg(feature = "websocket")]
pub use crate::transport::websocket::{
    Admission as WebSocketAdmission, Credentials, NotAdmitted, PasswordCheck, ServerTrust, TlsError,
    TlsIdentity, WebSocketClient, WebSocketClientConfig, WebSocketListenerConfig, WebSocketUrl,
    WebSocketUrlError,
};
pub use crate::trust::GroupNews;

use self::access::{Security, TrustRefresher};
use self::event::Hub;
use self::listen::{Places, Report};
use self::sync::SyncShared;
use crate::database::Database;
use crate::replicator::{MessageEndpointListener, Quotas};

/// How long connections and syncs may take to come to an orderly end; what is still open then is cut off.
pub(crate) const CLOSING_LIMIT: Duration = Duration::from_millis(2500);

/// Makes places and ways of TCP.
/// ```
/// use gattway::Tcp;
///
/// assert_eq!(Tcp::connect("gateway.local:4985").to_string(), "tcp:gateway.local:4985");
/// ```
#[derive(Debug)]
pub struct Tcp;

impl Tcp {
    /// Listens on `HOST:PORT`; port 0: any. An IPv6 host stands in brackets.
    pub fn bind(host_and_port: impl Into<String>) -> Address {
        Address::Tcp(host_and_port.into())
    }

    /// Reaches `HOST:PORT`.
    pub fn connect(host_and_port: impl Into<String>) -> Address {
        Address::Tcp(host_and_port.into())
    }
}

/// Makes places and ways of Unix sockets.
#[derive(Debug)]
pub struct Unix;

impl Unix {
    /// Listens on a socket that is made with mode 0600: its owner alone can connect.
    pub fn bind(path: impl Into<PathBuf>) -> Address {
        Address::Unix(path.into())
    }

    /// Reaches the socket of another process.
    pub fn connect(path: impl Into<PathBuf>) -> Address {
        Address::Unix(path.into())
    }
}

/// What a node and its syncs share.
pub(crate) struct NodeShared {
    db: Database,
    collections: Vec<String>,
    /// Whether nobody has chosen collections.
    all_collections: bool,
    security: Security,
    trust_refresher: Mutex<TrustRefresher>,
    local: Local,
    events: Arc<Hub<NodeEvent>>,
    quotas: Option<Arc<Quotas>>,
    syncs: Mutex<Vec<Weak<SyncShared>>>,
}

impl NodeShared {
    /// The peer that a person named.
    fn prefer(&self, name: Option<&str>) {
        if let Some(name) = name {
            self.trust_refresher.lock().unwrap_or_else(PoisonError::into_inner).prefer(name);
        }
    }

    fn add_sync(&self, sync: &Arc<SyncShared>) {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.retain(|sync| sync.strong_count() > 0);
        syncs.push(Arc::downgrade(sync));
    }

    fn syncs(&self) -> Vec<Arc<SyncShared>> {
        let syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.iter().filter_map(Weak::upgrade).collect()
    }
}

/// A database that peers can reach, and that syncs with peers. Dropping it ends it without waiting for anybody; see
/// [`shutdown`](Self::shutdown).
/// ```
/// use gattway::{Database, DatabaseConfig, Node, Tcp};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// let node = Node::builder(db).collections(["_default"]).listen(Tcp::bind("127.0.0.1:0")).start().await?;
/// assert_eq!(node.addresses().len(), 1);
/// node.shutdown().await?;
/// # Ok(()) }
/// ```
pub struct Node {
    shared: Arc<NodeShared>,
    listener: Arc<MessageEndpointListener>,
    /// One task for each place.
    listening: JoinSet<()>,
    listens: bool,
    places: PlaceSet,
    intake: JoinHandle<()>,
}

/// The places of a node, of which some come and go while it runs.
struct PlaceSet {
    places: Places,
    next: usize,
    added: HashMap<usize, AbortHandle>,
}

/// A place that was added to a node that runs.
#[derive(Debug)]
pub(crate) struct PlaceId(usize);

/// Starts syncs of a node, also where the node itself is not at hand.
#[derive(Clone)]
pub(crate) struct Syncs(Arc<NodeShared>);

impl Syncs {
    /// As [`Node::sync`].
    pub(crate) fn sync(&self, target: impl Into<SyncTarget>) -> SyncBuilder {
        SyncBuilder::new(Arc::clone(&self.0), target.into())
    }
}

impl Node {
    /// A node for a database, to be started.
    pub fn builder(db: Database) -> NodeBuilder {
        NodeBuilder::new(db)
    }

    /// A sync with a peer, to be started; with `Ble::any` with all neighbours in turn.
    pub fn sync(&self, target: impl Into<SyncTarget>) -> SyncBuilder {
        SyncBuilder::new(Arc::clone(&self.shared), target.into())
    }

    /// What happens from now on; ends with the node. What happened before it was started, as where it listens, is told by
    /// [`NodeBuilder::observe`].
    pub fn events(&self) -> EventStream<NodeEvent> {
        self.shared.events.stream()
    }

    /// The ID that this node proves to peers; `None` where nobody proves anything.
    pub fn id(&self) -> Option<PeerId> {
        match &self.shared.security {
            Security::Plain => None,
            Security::Secure(config) => Some(config.identity.id()),
        }
    }

    /// Whether no peer could know this node: its database is in no group and has no paired peer, and others are not met.
    pub fn knows_nobody(&self) -> bool {
        self.shared.security.knows_nobody()
    }

    /// Where it listens now, in the order of [`NodeBuilder::listen`]; for TCP with the real port.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.places.places.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.values().cloned().collect()
    }

    /// Listens there as well from now on; where it cannot, it tries again. `plain`: nobody proves anything there, whatever
    /// holds for the node.
    pub(crate) fn listen(&mut self, place: impl Listen, plain: bool) -> PlaceId {
        let number = self.places.next;
        self.places.next += 1;
        let listening = self.places.places.listening(number, Box::new(place), plain);
        let task = self.listening.spawn(listening.keep_open(Report::to_nobody()));
        self.places.added.insert(number, task);
        PlaceId(number)
    }

    /// Lets nobody in there any more; who came in that way goes on.
    pub(crate) fn stop_listening(&mut self, place: PlaceId) {
        if let Some(task) = self.places.added.remove(&place.0) {
            task.abort();
            self.places.places.forget(place.0);
        }
    }

    /// Starts syncs where the node itself is not at hand.
    pub(crate) fn syncs(&self) -> Syncs {
        Syncs(Arc::clone(&self.shared))
    }

    /// The passive side of replication: open connections, and counters of what was refused.
    pub(crate) fn listener(&self) -> &Arc<MessageEndpointListener> {
        &self.listener
    }

    /// Waits until nobody can come in any more, as after the one peer of stdio has left; never ends for a node without a
    /// listener. May be dropped and called again.
    ///
    /// # Errors
    /// A listener has panicked.
    pub(crate) async fn until_deserted(&mut self) -> Result<(), NodeError> {
        while self.listens {
            match self.listening.join_next().await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(NodeError::Panicked),
                None => return Ok(()),
            }
        }
        std::future::pending().await
    }

    /// Lets nobody in any more, and ends all connections and syncs in order, within 2.5 s and what Bluetooth takes
    /// to disconnect.
    ///
    /// # Errors
    /// Some did not end in time and were cut off.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        self.shutdown_within(CLOSING_LIMIT).await
    }

    /// As [`shutdown`](Self::shutdown), within another limit.
    ///
    /// # Errors
    /// Some connections did not end in time and were cut off.
    pub async fn shutdown_within(mut self, limit: Duration) -> Result<(), NodeError> {
        self.listening.abort_all();
        self.intake.abort();
        self.listener.close_all();
        let syncs = self.shared.syncs();
        syncs.iter().for_each(|sync| sync.stop());
        let all_ended = async {
            self.listener.wait_until_closed().await;
            for sync in &syncs {
                let _ = sync.ended().await;
            }
        };
        let result = match tokio::time::timeout(limit, all_ended).await {
            Ok(()) => Ok(()),
            Err(_) => Err(NodeError::CutOff { connections: self.listener.connections().len() }),
        };
        #[cfg(feature = "bluetooth")]
        ble::wait_for_disconnects().await;
        self.end();
        result
    }

    /// Tells and notes what was not yet, and ends the streams of events.
    fn end(&self) {
        self.shared.trust_refresher.lock().unwrap_or_else(PoisonError::into_inner).stop();
        if let Some(quotas) = &self.shared.quotas {
            quotas.save();
        }
        self.shared.events.close();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.intake.abort();
        self.listener.close_all();
        self.shared.syncs().iter().for_each(|sync| sync.stop());
        self.end();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("database", &self.shared.db.path())
            .field("collections", &self.shared.collections)
            .field("connections", &self.listener.connections().len())
            .finish_non_exhaustive()
    }
}
