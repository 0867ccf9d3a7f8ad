//! The kernel's own Bluetooth sockets, for what bluetoothd does not tell: management commands, and the monitor, which shows the
//! events of controllers. The only place with system calls that Rust has no safe form of.
//!
//! Source: BlueZ `doc/mgmt-api.txt` and the Linux headers `net/bluetooth/hci_sock.h`, `hci_mon.h`, as facts.

mod connections;
mod management;
mod monitor;
mod socket;
#[cfg(test)]
mod tests;

pub(super) use self::connections::{Connection, connections};
pub(super) use self::management::{
    connection_rssi, controller_info, controller_number, phy_configuration, phys, settings,
};
pub(super) use self::monitor::{ConnectionEvent, Monitor};
