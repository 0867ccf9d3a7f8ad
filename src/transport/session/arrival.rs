//! A channel that a session has yet to take.

use crate::link::PACKET_BYTES_MAX;
use crate::transport::packet::PacketChannel;

/// Room for a packet: more than any channel may carry, so that a longer one is noticed rather than cut to a good size.
pub(super) const PACKET_ROOM: usize = PACKET_BYTES_MAX as usize + 32;

/// A channel, and the packet that was read from it to see whose it is.
pub(super) struct Arrival {
    pub(super) channel: PacketChannel,
    pub(super) first_packet: Option<Vec<u8>>,
}

impl Arrival {
    pub(super) fn bare(channel: PacketChannel) -> Arrival {
        Arrival { channel, first_packet: None }
    }
}
