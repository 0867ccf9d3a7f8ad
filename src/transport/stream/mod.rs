//! TCP, Unix sockets and stdio: the raw bytes of a `ByteStream` endpoint, with no handshake of our own, so that any
//! compatible peer can be met without a radio.
//!
//! [`StreamConnection`] is one connection, of either role; [`StreamListener`] accepts them. Who the peer is, and whether
//! it may connect, is left to the layers above and to the permissions of the socket.

mod address;
mod connection;
mod halves;
mod listener;
mod outbox;
mod stdio;
#[cfg(test)]
mod tests;

pub(in crate::transport) use address::Form;
pub use address::{Address, AddressError};
pub use connection::StreamConnection;
pub use listener::StreamListener;
