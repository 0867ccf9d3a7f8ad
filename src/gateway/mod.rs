//! What makes a daemon of nodes: one configuration, a database with its listeners and upstreams for each of its sections,
//! supervision that starts again what has failed, and the status that it tells. Output is the command's.
//!
//! A [`Gateway`](daemon::Gateway) has a task for each database (`unit`), which opens it, serves it, and answers for it; each
//! place (`place`) is opened and each sync (`upstream`) is kept going by itself, so that one that fails stops no other. What is
//! beyond the rules of a collection is removed by a task for each section of rules (`retention`), old tombstones by one for the
//! database (`tombstones`). A task for each broker publishes documents and takes messages (`mqtt`). What is written is counted
//! (`medium`).

pub(crate) mod address;
pub(crate) mod board;
pub(crate) mod config;
mod counted;
pub(crate) mod daemon;
mod durations;
pub(crate) mod happened;
pub(crate) mod history;
pub(crate) mod http;
mod medium;
#[cfg(feature = "mqtt")]
pub(crate) mod mqtt;
mod neighbours;
pub(crate) mod notify;
mod pace;
pub(crate) mod pairing;
pub(crate) mod peer_row;
mod place;
#[cfg(feature = "bluetooth")]
mod radio;
pub(crate) mod record;
pub(crate) mod retention;
pub(crate) mod secret;
mod serving;
pub(crate) mod status;
pub(crate) mod tombstones;
#[cfg(feature = "mqtt")]
pub(crate) mod topics;
pub(crate) mod unit;
pub(crate) mod upstream;
pub(crate) mod web;
#[cfg(feature = "websocket")]
pub(crate) mod web_files;

use std::sync::Arc;
use std::time::Duration;

use crate::database::Database;
use crate::node::{NodeEvent, SyncEvent};

/// Something that happened in a gateway.
#[derive(Clone)]
pub(crate) enum GatewayEvent {
    /// A database is open, and will be served.
    Opened { database: Arc<str>, db: Database },
    /// It is about to be closed.
    Closed { database: Arc<str> },
    /// It cannot be opened or has failed; it is tried again.
    DatabaseFailed { database: Arc<str>, error: String, retry: Duration },
    /// It could not be closed as it should.
    CloseFailed { database: Arc<str>, error: String },
    /// No peer could know it: it is in no group and has no paired peer.
    KnowsNobody { database: Arc<str> },
    /// What its node tells.
    Node { database: Arc<str>, event: Box<NodeEvent> },
    /// What a sync tells.
    Sync { database: Arc<str>, upstream: Arc<str>, event: Box<SyncEvent> },
    /// A sync has ended by a failure; it is begun again.
    UpstreamFailed { database: Arc<str>, upstream: Arc<str>, error: String, retry: Duration },
    /// A broker cannot be used; it is tried again.
    #[cfg_attr(not(feature = "mqtt"), allow(dead_code))]
    MqttFailed { database: Arc<str>, name: Arc<str>, error: String, retry: Duration },
    /// A listener shows a certificate that was made here: clients that are to believe it need it.
    OwnCertificate { database: Arc<str>, listener: Arc<str>, pem: String },
    /// Programs are answered over HTTP at this address.
    HttpListens { address: Arc<str> },
    /// They cannot be; it is tried again.
    HttpFailed { error: String, retry: Duration },
    /// HTTP shows a certificate that was made here.
    HttpCertificate { pem: String },
    /// A device wants to pair: this code must be typed there.
    Passkey { database: Arc<str>, peer: String, code: String },
}

/// Is told of each event, from the task where it happens: it must not block.
pub(crate) type Tell = Arc<dyn Fn(&GatewayEvent) + Send + Sync>;
