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
mod connection;
mod contest;
mod driver;
mod shared;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use acceptor::{AcceptorRefusals, LinkAcceptor};
pub use connection::LinkConnection;

use crate::link::{
    Link, LinkConfig, LinkState, LinkStats, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES, SessionId,
};
use crate::transport::clock::Clock;

/// The link as it is on a device that runs tokio.
type DeviceLink = Link<SEND_BUFFER_BYTES, RECEIVE_BUFFER_BYTES>;

/// Settings of resumable connections.
#[derive(Clone, Copy, Debug)]
pub struct SessionConfig {
    /// Settings of the link, with how long a lost session is kept.
    pub link: LinkConfig,
    /// The clock that all runs on.
    pub clock: Clock,
    /// Time for one attempt to get a channel.
    pub connect_timeout: Duration,
    /// Pause before the second attempt to get a channel back; doubles with each failure.
    pub backoff_min: Duration,
    /// Longest pause between two attempts.
    pub backoff_max: Duration,
    /// Sessions that an acceptor keeps, connected or lost. For one more, the one that was lost first gives way; when all are
    /// connected, it is told that the peer is busy. Each takes about 130 KiB.
    pub sessions_max: usize,
    /// Connections in a handshake that an acceptor keeps; more are told that it is busy.
    pub handshakes_max: usize,
    /// Makes names and nonces repeatable, for tests; `None`: from the operating system.
    pub seed: Option<u64>,
}

impl Default for SessionConfig {
    fn default() -> SessionConfig {
        SessionConfig {
            link: LinkConfig::default(),
            clock: Clock::default(),
            connect_timeout: Duration::from_secs(30),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            sessions_max: 16,
            handshakes_max: 8,
            seed: None,
        }
    }
}

impl SessionConfig {
    /// The defaults on another clock.
    pub fn on(clock: Clock) -> SessionConfig {
        SessionConfig { clock, ..SessionConfig::default() }
    }

    /// A seed for one link.
    fn link_seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            match getrandom::fill(&mut bytes) {
                Ok(()) => u64::from_le_bytes(bytes),
                // A system without randomness: names need only differ, proofs come from the secure session.
                Err(_) => fastrand::u64(..),
            }
        })
    }
}

/// What a connection has done so far; readable at any time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionStats {
    /// Where the link is in its life.
    pub state: LinkState,
    /// The session, once there is one.
    pub session: Option<SessionId>,
    /// Counters of the link, resumes among them; they go on across channels.
    pub link: LinkStats,
    /// Channels that carried it so far, the present one included.
    pub channels: u32,
    /// The present or the latest channel.
    pub label: String,
}
