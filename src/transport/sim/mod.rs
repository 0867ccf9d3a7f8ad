//! A Bluetooth LE connection without Bluetooth.
//!
//! | module | responsible for |
//! |---|---|
//! | [`radio`] | the radio: events, PDUs, acknowledgement, loss, range. Sans-IO; virtual controllers use it too |
//! | `host` | a host's queues, headers and faults at one end of a connection. Sans-IO |
//! | `world` | radio and hosts in one time line. Sans-IO |
//! | `connection` | the same for async code: devices, listeners, connectors |

mod connection;
mod host;
pub mod radio;
#[cfg(test)]
mod tests;
mod world;

pub use connection::{SimConnector, SimDevice, SimLink, SimListener, SimRadio};
pub use host::{HostConfig, PacketCounters};
pub use world::{World, WorldCounters};
