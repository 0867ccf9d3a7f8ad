//! The limits of one connection: times, and bytes on their way.

use std::time::Duration;

use crate::endpoint::INBOUND_BYTES_MAX;

/// Bytes of frames that one `send` carries at most in a byte stream (a longer frame goes alone). Enough that a system
/// call or a lock for each costs nothing beside the work.
pub const SEND_BYTES: usize = 32 * 1024;

/// How long each thing may take, and how much may be on its way, on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Time for `open`.
    pub open: Duration,
    /// Time for each `send`. Above what a slow radio needs for [`send_bytes`](Self::send_bytes), and above the time for
    /// which a transport keeps a lost link to resume it.
    pub send: Duration,
    /// Time for `close`, and before it for the last frames and the peer's answer to the closing frame, each.
    pub close: Duration,
    /// Time in which replication must come to an orderly end after `stop`; then it is cut off.
    pub stop: Duration,
    /// Passive side: time from `open` to the peer's first correct frame.
    pub handshake: Duration,
    /// Passive side: time without a single byte from the peer, heartbeats included; `None` for no limit.
    pub idle: Option<Duration>,
    /// Byte stream: silence of the peer after which it is sent a PING.
    pub heartbeat: Duration,
    /// Byte stream: silence after that PING after which the peer counts as dead. Above the time for which a transport
    /// keeps a lost link to resume it.
    pub heartbeat_timeout: Duration,
    /// Bytes taken from the transport before `receive` waits.
    pub inbound_bytes: usize,
    /// Byte stream: bytes that one `send` carries at most, unless a single frame is longer.
    pub send_bytes: usize,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            open: Duration::from_secs(15),
            send: Duration::from_secs(150),
            close: Duration::from_secs(5),
            stop: Duration::from_secs(10),
            handshake: Duration::from_secs(30),
            idle: Some(Duration::from_secs(3600)),
            heartbeat: Duration::from_secs(300),
            heartbeat_timeout: Duration::from_secs(150),
            inbound_bytes: INBOUND_BYTES_MAX,
            send_bytes: SEND_BYTES,
        }
    }
}
