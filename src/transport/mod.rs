//! What carries packets or bytes between peers, each as a connection that the message endpoint can use.
//!
//! | module | what it carries |
//! |---|---|
//! | `bluez` | Bluetooth LE on BlueZ, both roles (feature `bluetooth`) |
//! | [`clock`] | the pace of the drivers |
//! | [`packet`] | the contract of a radio: whole packets, unreliable |
//! | [`secure`] | secure sessions over any of the others |
//! | [`session`] | a reliable, resumable byte stream over such packets |
//! | [`sim`] | a modelled radio that keeps that contract |
//! | [`stream`] | TCP, Unix sockets, stdio: raw bytes |
//! | `websocket` | WebSocket over TCP and TLS, both roles (feature `websocket`) |

#[cfg(feature = "bluetooth")]
pub mod bluez;
pub mod clock;
pub mod packet;
pub mod secure;
pub mod session;
pub mod sim;
pub mod stream;
#[cfg(feature = "websocket")]
pub mod websocket;
