//! Bluetooth LE on a stock BlueZ: both roles, as packets for `crate::link`.
//!
//! | module | responsible for |
//! |---|---|
//! | [`profile`] | UUIDs, the information characteristic, the advertised state |
//! | [`error`] | what can go wrong, said for people |
//! | `daemon` | which bluetoothd, and is it still the same |
//! | [`handle`] | one node's use of bluetoothd, its adapters and radio connections |
//! | `shared` | what concerns an adapter and not the node that uses it |
//! | [`adapter`] | which adapter, is it usable, one connect at a time |
//! | `lane` | a pair of characteristics for each central, and its channel |
//! | `inbox` | the packets of one lane, from all sockets that BlueZ has for it |
//! | [`packets`] | BlueZ's sockets as packet channels |
//! | [`peripheral`] | the GATT application and the advertisement |
//! | [`security`] | what a peripheral requires of a radio connection |
//! | [`agent`] | pairing without a screen and a person |
//! | [`sealed`] | adverts that only holders of a key can read |
//! | [`radio`] | MTU, interval, PHY and signal strength of connections |
//! | `kernel` | the kernel's management and monitor sockets |
//! | [`doctor`] | is this machine fit, and what to do if not |
//! | [`listener`] | the passive end, kept alive through restarts |
//! | `stall` | what to do when nothing is heard |
//! | `retry` | which refusals go away by themselves |
//! | [`scan`] | neighbours, from fresh adverts only |
//! | [`search`] | one of them |
//! | `services` | the characteristics of a peer that is connected |
//! | `steps` | what connecting spends its time on |
//! | [`central`] | connecting with bluer's AcquireWrite / AcquireNotify |
//! | [`central_btleplug`] | connecting with btleplug, one D-Bus call a packet |
//! | [`l2cap`] | the same packets over an L2CAP connection-oriented channel |
//!
//! Workarounds name the fact they are for; the facts are in `firmware-notes/bluez.md`.

pub mod adapter;
pub mod advertise;
pub mod agent;
pub mod central;
pub mod central_btleplug;
mod daemon;
pub mod doctor;
pub mod error;
pub mod handle;
mod inbox;
mod kernel;
pub mod l2cap;
mod lane;
pub mod listener;
pub mod packets;
pub mod peripheral;
pub mod profile;
pub mod radio;
mod retry;
pub mod scan;
pub mod sealed;
pub mod search;
pub mod security;
mod services;
mod shared;
mod stall;
mod steps;

pub use error::BluetoothError;
pub use handle::Bluez;
