//! Sizes: what an ATT connection carries, and what one packet of ours may hold.
//!
//! All MTU arithmetic of the project is here. An [`AttMtu`] is what two Bluetooth stacks agreed on; a [`PacketSize`] is
//! the room for one ATT value. They are never the same number, and mixing them up costs truncated packets, so they are
//! two types.

use super::error::LinkError;

/// Octets of ATT header before the value of a write command or a notification: one of opcode, two of handle.
/// Source: Bluetooth Core Specification, Vol 3, Part F, 3.4.5.3 and 3.4.7.1.
pub const ATT_HEADER_BYTES: u16 = 3;

/// The ATT MTU of a connection on which nobody asked for more, and the smallest there is.
/// Source: Bluetooth Core Specification, Vol 3, Part G, 5.2.1.
pub const ATT_MTU_MIN: u16 = 23;

/// The largest ATT MTU that BlueZ agrees to.
pub const ATT_MTU_MAX: u16 = 517;

/// The smallest packet: what [`ATT_MTU_MIN`] leaves.
pub const PACKET_BYTES_MIN: u16 = ATT_MTU_MIN - ATT_HEADER_BYTES;

/// The largest packet: a value that BlueZ carries whole. It truncates above 512 octets, and releases before 5.69 drop
/// write commands of 510 octets and more without a word; 495 octets fill two link-layer packets of 251 octets
/// (2 x 251 - 4 of L2CAP header - 3 of ATT header).
pub const PACKET_BYTES_MAX: u16 = 495;

/// The packet that fills exactly one link-layer packet with data length extension (251 octets - 4 of L2CAP header - 3 of
/// ATT header): the most efficient size where a larger one would be cut badly.
pub const PACKET_BYTES_ONE_PDU: u16 = 244;

/// The ATT MTU that two Bluetooth stacks agreed on, in octets; includes the ATT header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttMtu(u16);

impl AttMtu {
    /// The MTU of a connection on which nobody asked for more.
    pub const DEFAULT: AttMtu = AttMtu(ATT_MTU_MIN);

    /// An ATT MTU as a Bluetooth stack reports it; what is below the specification's minimum counts as that minimum.
    pub const fn new(octets: u16) -> AttMtu {
        if octets < ATT_MTU_MIN { AttMtu::DEFAULT } else { AttMtu(octets) }
    }

    /// Octets, with the ATT header.
    pub const fn octets(self) -> u16 {
        self.0
    }

    /// The largest packet that this connection carries whole: one or two full link-layer packets where they fit, all
    /// there is otherwise.
    pub const fn packet_size(self) -> PacketSize {
        let value = self.0 - ATT_HEADER_BYTES;
        if value >= PACKET_BYTES_MAX {
            PacketSize(PACKET_BYTES_MAX)
        } else if value >= PACKET_BYTES_ONE_PDU {
            PacketSize(PACKET_BYTES_ONE_PDU)
        } else {
            PacketSize(value)
        }
    }
}

/// Bytes that one packet (one ATT value, or one L2CAP SDU) may have: 20 to 495.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketSize(u16);

impl PacketSize {
    /// The smallest packet size: a connection with the default ATT MTU.
    pub const MIN: PacketSize = PacketSize(PACKET_BYTES_MIN);
    /// The largest packet size.
    pub const MAX: PacketSize = PacketSize(PACKET_BYTES_MAX);

    /// A packet size in bytes.
    ///
    /// # Errors
    /// [`LinkError::PacketSize`] outside of 20 to 495.
    pub const fn try_new(bytes: u16) -> Result<PacketSize, LinkError> {
        if bytes < PACKET_BYTES_MIN || bytes > PACKET_BYTES_MAX {
            return Err(LinkError::PacketSize {
                actual: bytes,
                min: PACKET_BYTES_MIN,
                max: PACKET_BYTES_MAX,
            });
        }
        Ok(PacketSize(bytes))
    }

    /// The largest packet size that fits into `bytes`, as a transport without an ATT MTU offers them (an L2CAP SDU).
    ///
    /// # Errors
    /// [`LinkError::PacketSize`] below 20.
    pub const fn fitting(bytes: usize) -> Result<PacketSize, LinkError> {
        if bytes >= PACKET_BYTES_MAX as usize {
            Ok(PacketSize::MAX)
        } else {
            PacketSize::try_new(bytes as u16)
        }
    }

    /// Bytes of one packet.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// Bytes of one packet, as the handshake carries them.
    pub(super) const fn bytes_u16(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_sizes_follow_the_att_mtu() {
        for (mtu, bytes) in
            [(0, 20), (23, 20), (24, 21), (185, 182), (247, 244), (256, 244), (498, 495), (517, 495)]
        {
            assert_eq!(AttMtu::new(mtu).packet_size().bytes(), bytes, "ATT MTU {mtu}");
        }
    }

    #[test]
    fn sizes_outside_of_the_range_are_refused_with_the_numbers() {
        assert_eq!(PacketSize::try_new(19), Err(LinkError::PacketSize { actual: 19, min: 20, max: 495 }));
        assert_eq!(PacketSize::try_new(496), Err(LinkError::PacketSize { actual: 496, min: 20, max: 495 }));
        assert_eq!(PacketSize::fitting(8192), Ok(PacketSize::MAX));
        assert!(PacketSize::fitting(19).is_err());
    }
}
