//! Push, pull, checkpoints and conflicts.
//!
//! [`session::Session`] is one connection, active or passive, sans-IO; its two sides are `active` and `passive`. What it
//! needs of a database is [`store::ReplicaStore`].

mod active;
mod bounded_json;
pub mod checkpoint;
pub mod config;
mod conflicts;
mod core;
pub(crate) mod driver;
pub mod error;
pub mod event;
pub mod extension;
mod feed;
pub mod handle;
mod held;
mod inbox;
mod incoming;
mod limits;
pub mod messages;
mod outgoing;
mod passive;
pub mod resolver;
pub mod sequences;
pub mod session;
pub mod store;
pub mod unsynced;

pub use self::config::{CollectionConfig, FilterInput, ReplicationFilter, ReplicatorType};
pub use self::conflicts::ConflictOutcome;
pub use self::driver::ConnectionLimits;
pub use self::event::Direction;
pub use self::handle::{
    ConflictReport, DocumentReplication, ListenerToken, Replicator, ReplicatorActivity,
    ReplicatorConfiguration, ReplicatorError, ReplicatorProgress, ReplicatorStatus,
};
pub use self::resolver::{DefaultResolver, FnResolver};
pub use self::unsynced::{Lack, Unsynced, UnsyncedCollection, UnsyncedDocument};

#[cfg(any(test, feature = "fuzzing"))]
#[allow(missing_docs, clippy::unwrap_used)]
#[path = "tests/memory_store.rs"]
pub(crate) mod memory_store;
#[cfg(test)]
mod tests;
