//! Push, pull, checkpoints and conflicts.
//!
//! `session::Session` is one connection, active or passive, sans-IO; its two sides are `active` and `passive`. What it
//! needs of a database is [`ReplicaStore`].

mod active;
mod batched;
mod blobs;
mod bounded_json;
pub(crate) mod checkpoint;
pub(crate) mod config;
mod conflicts;
mod context;
pub(crate) mod delivery;
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod deltas;
mod direction;
pub(crate) mod driver;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod extension;
mod feed;
mod held;
mod in_flight;
mod inbox;
mod incoming;
mod limits;
pub(crate) mod messages;
mod names;
mod passive;
pub(crate) mod pending;
mod protocol;
mod pushed;
mod request_rate;
pub(crate) mod resolver;
pub(crate) mod sequences;
pub(crate) mod service;
pub(crate) mod session;
mod side;
mod stock;
mod turns;
pub(crate) mod unsynced;

pub use self::config::{CollectionConfig, FilterInput, ReplicationFilter, ReplicatorType};
pub use self::driver::ConnectionLimits;
pub(crate) use self::driver::Traffic;
pub use self::driver::error::{ReplicatorError, TransportCall};
pub use self::error::SessionError;
pub use self::event::Direction;
pub use self::event::DocumentReplication;
pub use self::resolver::DefaultResolver;
pub(crate) use self::service::CONNECTIONS_MAX;
pub use self::service::{
    ConflictReport, ListenerError, ListenerToken, MessageEndpointListener, MessageEndpointListenerChange,
    MessageEndpointListenerConfiguration, PeerQuota, Refusals, Replicator, ReplicatorActivity,
    ReplicatorConfiguration, ReplicatorProgress, ReplicatorStatus, StatusStream,
};
#[doc(hidden)]
pub use self::service::{ONE_SHOT_ATTEMPTS_MAX, REASSEMBLY_BYTES_MAX, REASSEMBLY_BYTES_SHARED_MAX};
pub(crate) use self::service::{Quotas, RetryPolicy};
pub use self::unsynced::{Lack, Unsynced, UnsyncedCollection, UnsyncedDocument};
pub use crate::blip::ErrorReply;
pub use crate::replica::store::{Conflict, ConflictOutcome, ConflictResolver, ReplicaStore, Resolution};

#[cfg(any(test, feature = "fuzzing"))]
#[allow(missing_docs, clippy::unwrap_used)]
#[path = "tests/memory_blobs.rs"]
pub(crate) mod memory_blobs;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(missing_docs, clippy::unwrap_used)]
#[path = "tests/memory_store.rs"]
pub(crate) mod memory_store;
#[cfg(test)]
mod tests;
