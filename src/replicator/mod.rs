//! Push, pull, checkpoints and conflicts.
//!
//! [`session::Session`] is one connection, active or passive, sans-IO; its two sides are `active` and `passive`. What it
//! needs of a database is [`store::ReplicaStore`].

mod active;
pub mod checkpoint;
pub mod config;
mod core;
pub mod error;
pub mod event;
pub mod extension;
mod feed;
mod inbox;
mod incoming;
pub mod messages;
mod outgoing;
mod passive;
pub mod resolver;
pub mod sequences;
pub mod session;
pub mod store;
