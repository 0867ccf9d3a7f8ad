//! A model of Bluetooth LE data connections: nodes, the paths between them, connections with their events, PDUs and
//! acknowledgements, in one time line that the caller moves.
//!
//! It carries opaque fragments (HCI ACL packets with parts of L2CAP PDUs) and opaque link-layer control PDUs, so it serves
//! the modelled connection beside it as well as controllers that speak HCI. It leaves to its user: advertising and scanning,
//! the meaning of control PDUs, L2CAP, hosts.
//!
//! Use it like any sans-IO core: [`Radio::handle_timeout`] with the time, then commands ([`Radio::send`] and the others),
//! then [`Radio::poll_event`] until `None`, then wait until [`Radio::poll_at`] or the next command. The same seed and the
//! same calls give the same events. Formulas: `firmware-notes/radio-model.md`.

mod air;
mod connection;
mod end;
mod phy;
#[cfg(test)]
mod tests;
mod throughput;
mod types;

pub use air::Radio;
pub use phy::{DATA_LENGTH_MAX, DATA_LENGTH_MIN, Phy, T_IFS};
pub use throughput::{ATT_HEADER_OCTETS, L2CAP_HEADER_OCTETS, ceiling, packets_per_second};
pub use types::{
    Change, ConnectionCounters, ConnectionId, ConnectionParameters, ConnectionSetup, EndCounters, LossCause,
    NodeConfig, NodeId, Path, RadioError, RadioEvent, Side,
};
