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
//! [`MessageEndpointListener`](crate::replicator::MessageEndpointListener) instead.

pub(crate) mod access;
#[cfg(feature = "bluetooth")]
mod advert;
#[cfg(feature = "bluetooth")]
pub(crate) mod advertised;
#[cfg(any(feature = "bluetooth", feature = "cli", test))]
pub(crate) mod advertising;
#[cfg(feature = "bluetooth")]
pub(crate) mod ble;
mod builder;
mod connect;
mod error;
mod event;
mod handle;
mod hub;
mod intake;
pub(crate) mod listen;
#[cfg(feature = "bluetooth")]
mod listening;
#[cfg(feature = "bluetooth")]
mod marks;
mod modelled;
#[cfg(feature = "bluetooth")]
mod neighbourhood;
#[cfg(feature = "bluetooth")]
mod neighbours;
mod packets;
pub(crate) mod pair;
mod places;
#[cfg(feature = "bluetooth")]
mod radio;
#[cfg(feature = "cli")]
pub(crate) mod retention;
#[cfg(any(feature = "bluetooth", test))]
mod scheduler;
mod shared;
mod sockets;
mod sync;
mod sync_event;
mod sync_shared;
mod target;
#[cfg(test)]
mod tests;
mod visit;
#[cfg(feature = "websocket")]
mod websocket;

pub use self::access::{AccessError, Admission};
#[cfg(feature = "bluetooth")]
pub use self::advertising::{AdvertPolicy, AdvertPolicyError};
#[cfg(feature = "bluetooth")]
pub use self::ble::{Ble, BleCentral, BlePeer, BlePlace};
pub use self::builder::{NodeBuilder, NodeOptions};
pub use self::connect::Connect;
pub use self::error::{ListenError, NodeError, SyncError};
pub use self::event::NodeEvent;
pub(crate) use self::handle::CLOSING_LIMIT;
pub use self::handle::Node;
pub use self::hub::EventStream;
pub use self::listen::Listen;
pub(crate) use self::listen::{Accept, Arrival, Local};
pub use self::modelled::{ModelledDevice, ModelledRadio};
pub use self::packets::{PacketListener, Packets};
pub use self::pair::{PairBuilder, PairError, PairEvent, Paired};
pub(crate) use self::places::PlaceId;
#[cfg(all(feature = "simulation", feature = "cli"))]
#[doc(hidden)]
pub use self::retention::simulated::{SimulatedKeeper, SimulatedTombstones};
pub use self::sockets::{Tcp, Unix};
pub(crate) use self::sync::Syncs;
pub use self::sync::{SyncBuilder, SyncHandle};
pub use self::sync_event::SyncEvent;
pub use self::target::SyncTarget;
pub use self::visit::SyncOptions;
#[cfg(feature = "websocket")]
pub use self::websocket::WebSocket;
pub use crate::secure::{PeerId, PeerIdError};
#[cfg(feature = "bluetooth")]
pub use crate::transport::bluez::agent::{Pairing, Passkey};
#[cfg(feature = "bluetooth")]
pub use crate::transport::bluez::radio::RadioStatus;
#[cfg(feature = "bluetooth")]
pub use crate::transport::bluez::security::SecurityLevel;
pub use crate::transport::packet::{Connector, PacketChannel, PacketSink, PacketSource};
pub use crate::transport::stream::{Address, AddressError};
#[cfg(feature = "websocket")]
pub use crate::transport::websocket::{
    Admission as WebSocketAdmission, Credentials, NotAdmitted, ServerTrust, TlsError, TlsIdentity,
    WebSocketClient, WebSocketClientConfig, WebSocketListenerConfig, WebSocketUrl,
};
pub use crate::trust::GroupNews;
