//! Settings and limits of a link.

use core::time::Duration;

/// The lowest protocol version that this code speaks.
pub const VERSION_MIN: u8 = 1;
/// The highest protocol version that this code speaks.
pub const VERSION_MAX: u8 = 2;
/// From this version on CLOSE may be said as soon as all has been sent: who hears it before all has arrived waits for the rest.
pub(super) const VERSION_EARLY_CLOSE: u8 = 2;

/// Packets in flight at most. A default socket of BlueZ holds 167 packets and drops what comes on top
/// without a word; the rest is left for acknowledgements and repetitions.
pub const PACKETS_IN_FLIGHT_MAX: u8 = 128;

/// Bytes of send buffer that suit a Linux device: two round trips of 100 ms at 2M PHY and 2 % loss.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of receive buffer that suit a Linux device.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// The largest receive buffer that a peer may announce, in bytes; keeps offset arithmetic far from 32 bits.
pub const WINDOW_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Settings of a link. The two sides need not have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// How long a session without a connection is kept, to be resumed.
    pub session_timeout: Duration,
    /// How long a handshake may take, from the connection on.
    pub handshake_timeout: Duration,
    /// How long a close may take, flushing included, before it is forced.
    pub close_timeout: Duration,
    /// The peer is asked for a sign of life after this long without a packet from it; `None`: never.
    pub keep_alive: Option<Duration>,
    /// The connection counts as dead when nothing arrived for this long though the peer was asked.
    pub dead_after: Duration,
    /// How long an acknowledgement may wait for data to ride on. The peer adds the same to its retransmission timeout.
    pub ack_delay: Duration,
    /// An acknowledgement is due after this many data packets, at the latest; sooner where buffers are small.
    pub ack_every_packets: u8,
    /// Packets that this side lets the peer have in flight: 1 to 128.
    pub window_packets: u8,
    /// How often a packet is sent again without any progress before the connection counts as dead.
    pub retries_max: u8,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            session_timeout: Duration::from_secs(120),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(10),
            keep_alive: Some(Duration::from_secs(5)),
            dead_after: Duration::from_secs(15),
            ack_delay: Duration::from_millis(40),
            ack_every_packets: 16,
            window_packets: PACKETS_IN_FLIGHT_MAX,
            retries_max: 8,
        }
    }
}
