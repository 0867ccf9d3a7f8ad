//! What a link tells its driver: events, states, reasons and counters.

use core::time::Duration;

use super::error::LinkError;
use super::mtu::PacketSize;
use super::reason::{CloseReason, SessionId};

/// Which end of the radio connection this is. The central speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkRole {
    /// The side that connected.
    Central,
    /// The side that was connected to.
    Peripheral,
}

/// Where a link is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// Never connected.
    Idle,
    /// A transport is there, the handshake is not done.
    Handshaking,
    /// Bytes flow.
    Established,
    /// No transport; the session waits to be resumed, until its time-out.
    Suspended,
    /// Established, and [`Link::close`](super::Link::close) was called: flushing, then saying so.
    Closing,
    /// Final: closed in order by either side. Received bytes can still be read.
    Closed,
    /// Final: broken.
    Failed,
}

impl LinkState {
    /// Nothing more will happen on this link.
    pub const fn is_final(self) -> bool {
        matches!(self, LinkState::Closed | LinkState::Failed)
    }
}

/// Why a session lost its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SuspendCause {
    /// The driver said so.
    ConnectionLost,
    /// Nothing arrived for this long, though the peer was asked.
    PeerSilent(Duration),
    /// Packets were sent again this many times and not acknowledged.
    Unacknowledged(u32),
    /// The handshake on the new connection failed; the session is kept.
    Handshake(LinkError),
}

/// What the two sides agreed on for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// Protocol version in use.
    pub version: u8,
    /// Size of packets in both directions on this connection.
    pub packet_size: PacketSize,
    /// The peer's receive buffer in bytes.
    pub window_bytes: u32,
    /// Packets that may be in flight towards the peer.
    pub window_packets: u8,
}

/// What happened; see [`Link::poll_event`](super::Link::poll_event).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// Bytes flow: a new session, or an old one that goes on.
    Established {
        /// The session.
        session: SessionId,
        /// Whether the session is one that lost its connection and goes on where it was.
        resumed: bool,
        /// What was agreed on.
        peer: PeerLimits,
    },
    /// Bytes have arrived since the last such event.
    Readable,
    /// Room has come free in the send buffer after a write that was not taken whole.
    Writable,
    /// The connection is of no use any more: the driver drops it, and connects again if it is the central's.
    Suspended(SuspendCause),
    /// Final: closed in order.
    Closed {
        /// Why.
        reason: CloseReason,
        /// Whether the peer closed it.
        by_peer: bool,
    },
    /// Final: broken.
    Failed(LinkError),
}

/// Counters of a link since it was made; they go on across resumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets given to the transport, of all kinds.
    pub packets_sent: u64,
    /// Bytes given to the transport, link headers included.
    pub packet_bytes_sent: u64,
    /// Packets that arrived, of all kinds.
    pub packets_received: u64,
    /// Bytes of the stream given to the transport, repetitions not counted.
    pub bytes_sent: u64,
    /// Bytes of the stream that wait to be given to the transport for the first time.
    pub bytes_unsent: u64,
    /// Bytes of the stream that the peer acknowledged.
    pub bytes_acknowledged: u64,
    /// Bytes of the stream that arrived in order.
    pub bytes_received: u64,
    /// Data packets sent again because they, or their acknowledgement, seemed lost.
    pub retransmissions: u64,
    /// Bytes of the stream sent again, after a loss or a resume.
    pub bytes_retransmitted: u64,
    /// Retransmissions that turned out to be needless: the first packet was only late.
    pub retransmissions_needless: u64,
    /// Packets without data, for acknowledgement only.
    pub acks_sent: u64,
    /// Packets that only acknowledge, from the peer.
    pub acks_received: u64,
    /// Data packets that had arrived before.
    pub duplicates: u64,
    /// Data packets that arrived ahead of another.
    pub out_of_order: u64,
    /// Packets whose length was wrong: dropped.
    pub damaged: u64,
    /// Packets that had no business in the state they met, and were dropped.
    pub ignored: u64,
    /// Times the session was resumed.
    pub resumes: u32,
    /// Packets in flight now.
    pub in_flight: u16,
    /// The most packets ever in flight.
    pub in_flight_max: u16,
    /// Smoothed round-trip time; zero before the first measurement.
    pub srtt: Duration,
    /// Packets that may overtake another before it counts as lost.
    pub reorder_threshold: u16,
}
