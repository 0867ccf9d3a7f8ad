//! Settings of resumable connections, and what they tell of themselves.

use std::time::Duration;

use crate::endpoint::MessagingError;
use crate::link::{
    Link, LinkConfig, LinkSeed, LinkState, LinkStats, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES, SessionId,
};
use crate::transport::clock::Clock;

/// The link as it is on a device that runs tokio.
pub(super) type DeviceLink = Link<SEND_BUFFER_BYTES, RECEIVE_BUFFER_BYTES>;

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
    /// Sessions that an acceptor keeps, connected or lost. For one more, the one that was lost first gives way, those first
    /// whose peers have proven nothing; a newcomer takes the place of one that has only when it has too, and until then has
    /// one of four beyond the limit. When all are connected, it is told that the peer is busy. Each takes about 130 KiB.
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

    /// What the names, nonces and tokens of one link come of. Without randomness of the system there is no link: its token
    /// keeps strangers from resuming a session, and what is bound to it counts as fresh.
    pub(super) fn link_seed(&self) -> Result<LinkSeed, MessagingError> {
        if let Some(seed) = self.seed {
            return Ok(seed.into());
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| MessagingError::permanent(format!("the system has no randomness: {error}")))?;
        Ok(random.into())
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
