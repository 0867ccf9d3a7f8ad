//! Secure sessions over any connection that carries bytes: the async driver of [`crate::secure::SecureSession`].
//!
//! A [`SecureConnection`] wraps a connection of the message endpoint and is one itself: it shakes hands when it is opened,
//! then encrypts what goes through. As the passive side it comes out of a [`SecureAcceptor`], which shakes hands with
//! newcomers beside each other, a bounded number of them for a bounded time, and gives only those on who may come in, with
//! what they may do. Over a [`LinkConnection`](crate::transport::session::LinkConnection) it also supplies the key that a resume is proven with.
//!
//! When an answer of the policy changes, the connection that it concerns ends; the peer connects again and gets the new
//! answer.

mod acceptor;
pub mod bench;
mod carrier;
mod config;
mod connection;
mod handover;
mod shared;
#[cfg(test)]
mod tests;

pub use acceptor::{Accepted, AcceptorStats, Incoming, SecureAcceptor};
pub use carrier::Carrier;
pub use config::{GrantCheck, HALF_OPEN_MAX, KEYED_PLACE_TIME, SecureConnectionConfig};
pub use connection::{SecureConnection, access_rule};
