//! Bluetooth LE on a stock BlueZ: both roles, as packets for [`crate::link`].
//!
//! | module | responsible for |
//! |---|---|
//! | [`profile`] | UUIDs, the information characteristic, the advertised state |
//! | [`error`] | what can go wrong, said for people |
//! | `daemon` | which bluetoothd, and is it still the same |
//! | [`adapter`] | which adapter, is it usable, one connect at a time |
//! | `lane` | a pair of characteristics for each central, and its channel |
//! | [`packets`] | BlueZ's sockets as packet channels |
//! | [`peripheral`] | the GATT application and the advertisement |
//! | [`doctor`] | is this machine fit, and what to do if not |
//! | [`listener`] | the passive end, kept alive through restarts |
//! | `stall` | what to do when nothing is heard |
//! | `retry` | which refusals go away by themselves |
//! | [`scan`] | neighbours, from fresh adverts only |
//! | [`central`] | connecting with bluer's AcquireWrite / AcquireNotify |
//! | [`central_btleplug`] | connecting with btleplug, one D-Bus call a packet |
//! | [`l2cap`] | the same packets over an L2CAP connection-oriented channel |
//!
//! Workarounds name the fact they are for; the facts are in `firmware-notes/bluez.md`.

pub mod adapter;
pub mod central;
pub mod central_btleplug;
mod daemon;
pub mod doctor;
pub mod error;
pub mod l2cap;
mod lane;
pub mod listener;
pub mod packets;
pub mod peripheral;
pub mod profile;
mod retry;
pub mod scan;
mod stall;

pub use error::BluetoothError;
