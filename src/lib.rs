//! Document sync between nearby devices over Bluetooth LE, for embedded Linux.
//!
//! What most programs need stands here; the rest is in four modules:
//!
//! | module | for |
//! |---|---|
//! | [`database`] | documents, revisions, the change feed |
//! | [`node`] | the front door: listeners, syncs, who may come in, events; any packet radio of your own |
//! | [`replicator`] | push, pull and conflicts over a transport in the manner of Couchbase Lite: `Replicator`, `MessageEndpointListener` |
//! | [`endpoint`] | the contract with such a transport |
//!
//! As a library without the command: `default-features = false` with `bluetooth`, `websocket`, both, or `std` alone. Without
//! `std` the crate is its link layer alone, for microcontrollers: a reliable, resumable byte stream over ATT packets.
//! The layers inside, and what each may use: `firmware-notes/architecture.md`. The feature `lab` opens what is private to the
//! project's own tests and rigs, `simulation`, `test-faults` and `fuzzing` add to that: no promise holds with them.

#![cfg_attr(not(any(feature = "std", test)), no_std)]
// What only tests, rigs or the command need is without use in smaller builds; the build with all features tells what is so everywhere.
#![cfg_attr(
    not(all(feature = "lab", feature = "cli", feature = "bluetooth", feature = "websocket")),
    allow(dead_code, unused_imports)
)]

#[cfg(feature = "std")]
#[deny(clippy::disallowed_methods)] // sans-IO: no clock, no spawning, no sleeping, no lock (clippy.toml)
mod blip;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "std")]
pub mod database;
#[cfg(feature = "std")]
mod durable;
#[cfg(feature = "std")]
pub mod endpoint;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "fuzzing")]
mod fuzzing;
#[cfg(feature = "cli")]
mod gateway;
#[cfg(feature = "lab")]
#[doc(hidden)]
pub mod lab;
#[cfg(not(feature = "std"))]
#[deny(clippy::disallowed_methods)] // sans-IO
pub mod link;
#[cfg(feature = "std")]
#[deny(clippy::disallowed_methods)]
mod link;
#[cfg(feature = "std")]
pub mod node;
#[cfg(feature = "std")]
mod replica;
#[cfg(feature = "std")]
pub mod replicator;
#[cfg(feature = "std")]
#[deny(clippy::disallowed_methods)] // sans-IO
mod secure;
#[cfg(feature = "simulation")]
mod simulation;
#[cfg(feature = "std")]
mod task;
#[cfg(not(feature = "std"))]
pub mod time;
#[cfg(feature = "std")]
mod time;
#[cfg(feature = "std")]
mod transport;
#[cfg(feature = "std")]
mod trust;

#[cfg(feature = "std")]
pub use crate::database::{Collection, Database, DatabaseConfig, Document};
#[cfg(feature = "std")]
pub use crate::endpoint::{Message, MessageEndpoint, ProtocolType};
#[cfg(feature = "std")]
pub use crate::error::Error;
#[cfg(feature = "bluetooth")]
pub use crate::node::Ble;
#[cfg(feature = "std")]
pub use crate::node::{Node, Tcp};
#[cfg(feature = "std")]
pub use crate::replicator::{
    MessageEndpointListener, MessageEndpointListenerConfiguration, Replicator, ReplicatorConfiguration,
};
