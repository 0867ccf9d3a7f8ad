//! WebSocket over TCP and TLS: how stock peers and servers are met on a network.
//!
//! The active side connects to a [`WebSocketUrl`] ([`WebSocketClient`]; what Couchbase Lite calls a URLEndpoint), the
//! passive side listens ([`WebSocketListener`]; a URLEndpointListener). HTTP is hyper's and TLS is rustls'; once the request
//! is upgraded, the frames are those of a byte stream, so heartbeats, close codes and limits are the endpoint's own
//! (RFC 6455; `crate::endpoint::framing`).
//!
//! The request names one sub-protocol, that of the generation of revision IDs: [`SUB_PROTOCOL`] for version vectors,
//! [`SUB_PROTOCOL_OF_TREES`] for revision trees.
//! Source: `firmware-notes/websocket.md`.

mod client;
mod connection;
mod handshake;
mod listener;
#[cfg(test)]
mod tests;
mod tls;
mod trust;
mod url;

pub use client::{Credentials, WebSocketClient, WebSocketClientConfig};
pub use connection::WebSocketConnection;
pub use handshake::{SUB_PROTOCOL, SUB_PROTOCOL_OF_TREES};
pub use listener::{WebSocketListener, WebSocketListenerConfig};
#[cfg_attr(not(feature = "mqtt"), allow(unused_imports))] // for the gateway
pub(crate) use tls::client_config;
pub use tls::{TlsError, TlsIdentity};
pub use trust::{Admission, NotAdmitted, ServerTrust};
pub use url::WebSocketUrl;
