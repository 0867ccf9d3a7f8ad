//! BLIP 3: messages with properties, multiplexed over frames. Sans-IO.
//!
//! A [`Connection`] takes the frames of one peer ([`Connection::handle_frame`]) and gives events
//! ([`Connection::poll_event`]); it takes messages ([`Connection::send_request`], [`Connection::reply`]) and gives
//! frames ([`Connection::poll_frame`]). It never waits, reads a clock or touches a socket. What the frames travel in is
//! the matter of `endpoint`, what the messages mean that of `replicator`.
//!
//! Methods come in four kinds: getters, `handle_*` (input from the peer), commands (from the layer above) and `poll_*`
//! (output; call until nothing comes).
//!
//! Source: `firmware-notes/blip.md`.

#[cfg(feature = "cli")]
pub mod bench;
mod budget;
mod config;
mod connection;
mod error;
pub mod frame;
mod inbox;
mod message;
mod outbox;
mod properties;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod varint;

pub use budget::Budget;
pub use config::{BlipConfig, MESSAGE_SIZE_MAX};
pub use connection::{BlipStats, Connection};
pub use error::BlipError;
pub use message::{ErrorReply, Event, IncomingReply, IncomingRequest, MessageNumber, OutgoingMessage};
pub use properties::Properties;
