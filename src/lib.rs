//! Document sync between nearby devices over Bluetooth LE, for embedded Linux.
//!
//! The modules are the layers, from the radio up; data goes down on one side and up on the other.
//!
//! | module | responsible for |
//! |---|---|
//! | [`time`] | the clock type that every sans-IO core is given |
//! | [`link`] | a reliable, resumable byte stream over ATT packets (`no_std`, no alloc) |
//! | [`blip`] | BLIP 3 frames and messages |
//! | [`replica`] | revision IDs, names, limits and the trait that a database and a replicator share |
//! | [`database`] | documents, revisions, change feed, on a compact sled store |
//! | [`replicator`] | push, pull, checkpoints, conflicts; the `Replicator` handle |
//! | [`endpoint`] | the message-endpoint model: who gives which bytes to whom |
//! | [`secure`] | identities, group secrets, pairing, the encrypted session |
//! | [`trust`] | who is known and who may come in: the files that say so |
//! | [`transport`] | what carries packets or bytes: a modelled radio, TCP, Unix sockets, stdio |
//! | [`node`] | the front door: listeners, syncs, who may come in, events |
//! | [`cli`] | the `gattway` command |

#![cfg_attr(not(any(feature = "std", test)), no_std)]

#[cfg(feature = "std")]
#[deny(clippy::disallowed_methods)] // sans-IO: no clock, no spawning, no sleeping, no lock (clippy.toml)
pub mod blip;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "std")]
pub mod database;
#[cfg(feature = "std")]
mod durable;
#[cfg(feature = "std")]
pub mod endpoint;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[deny(clippy::disallowed_methods)] // sans-IO
pub mod link;
#[cfg(feature = "std")]
pub mod node;
#[cfg(feature = "std")]
pub mod replica;
#[cfg(feature = "std")]
pub mod replicator;
#[cfg(feature = "std")]
#[deny(clippy::disallowed_methods)] // sans-IO
pub mod secure;
#[cfg(feature = "simulation")]
pub mod simulation;
#[cfg(feature = "std")]
mod task;
pub mod time;
#[cfg(feature = "std")]
pub mod transport;
#[cfg(feature = "std")]
pub mod trust;
