//! The far end of a rig: does on a machine what the director asks, over standard input and output or a serial line.
//!
//! | module | responsible for |
//! |---|---|
//! | [`protocol`], [`answers`] | requests, replies, events |
//! | [`supervisor`] | one machine: a process for each node, which can be killed |
//! | [`node`] | one node: sessions, databases, one adapter |
//! | [`radio`] | that adapter, or a device of the modelled radio |
//! | [`session`], [`replication`], [`raw`], [`turns`], [`store`] | what a node does |

pub mod answers;
pub mod node;
pub mod protocol;
pub mod radio;
pub mod raw;
pub mod replication;
pub mod session;
pub mod store;
pub mod supervisor;
pub mod turns;

use std::time::SystemTime;

/// Anything may go wrong; the director is told as text.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// An error that says so.
pub fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(message.into().into())
}

/// This machine's clock: microseconds since 1970.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
