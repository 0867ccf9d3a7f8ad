//! A Bluetooth LE connection without Bluetooth.
//!
//! | module | responsible for |
//! |---|---|
//! | [`radio`] | the radio: events, PDUs, acknowledgement, loss, range. Sans-IO; virtual controllers use it too |
//! | `host` | a host's queues, headers and faults at one end of a connection. Sans-IO |
//! | [`energy`] | what radios take for it, by data sheets |
//! | `world` | radio and hosts in one time line. Sans-IO |
//! | `uart_log` | a log read over a UART service, for comparison |
//! | [`mod@bench`] | goodput of the link on it, in virtual time |
//! | `connection` | the same for async code: devices, listeners, connectors |

#[deny(clippy::disallowed_methods)] // sans-IO, clippy.toml
pub mod bench;
mod connection;
#[deny(clippy::disallowed_methods)] // sans-IO
pub mod energy;
#[deny(clippy::disallowed_methods)] // sans-IO
mod host;
#[deny(clippy::disallowed_methods)] // sans-IO
pub mod radio;
#[cfg(test)]
mod tests;
#[cfg(any(feature = "cli", test))]
#[deny(clippy::disallowed_methods)] // sans-IO
pub mod uart_log;
#[deny(clippy::disallowed_methods)] // sans-IO
pub(crate) mod world;

pub use connection::{SimConnector, SimDevice, SimLink, SimListener, SimRadio};
pub use host::{HostConfig, PacketCounters};
pub use world::{World, WorldCounters};
