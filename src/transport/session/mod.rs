//! Resumable connections over packet channels: the async driver of [`crate::link::Link`].
//!
//! A [`LinkConnection`] is a connection of the message endpoint that outlives its radio connections. As a central it is
//! made with a [`Connector`](crate::transport::packet::Connector), which is asked for another channel after each loss; as
//! a peripheral it comes out of a [`LinkAcceptor`], which gives each incoming channel to the session that it asks for.
//! How long a lost session is kept, and all that is said on the air, is the link's matter.
//!
//! Each connection has a task that moves packets between channel and link and never waits for anything else, so a radio
//! is always drained; a second task gives bytes to the library, and when the library has enough, the link's credit runs
//! out and the peer stops.

mod acceptor;
mod arrival;
mod config;
mod connection;
mod driver;
mod shared;
mod takeover;
#[cfg(test)]
mod tests;
mod timer;

pub use acceptor::{AcceptorRefusals, LinkAcceptor};
pub use config::{SessionConfig, SessionStats};
pub use connection::LinkConnection;
