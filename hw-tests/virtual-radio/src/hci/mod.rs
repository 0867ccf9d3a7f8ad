//! HCI wire facts: H4 packets, opcodes, reading parameters, building events. Nothing here has state but the splitter.
//!
//! Source: Core Specification 5.2, Vol 4 (host controller interface).

pub mod event;
pub mod opcode;
pub mod wire;

use std::fmt;

/// H4 packet type: command, host to controller.
pub const H4_COMMAND: u8 = 1;
/// H4 packet type: ACL data, both directions.
pub const H4_ACL: u8 = 2;
/// H4 packet type: event, controller to host.
pub const H4_EVENT: u8 = 4;

/// Type, opcode and length of a command.
const COMMAND_HEADER: usize = 4;
/// Type, handle with flags and length of ACL data.
const ACL_HEADER: usize = 5;
/// Longest ACL payload a host may put into a packet before the splitter calls its stream broken; far above our buffers.
const ACL_LENGTH_MAX: usize = 4096;

/// A device address as it goes over the wire: little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u8; 6]);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let a = self.0;
        write!(f, "{:02X}:{:02X}:{:02X}:{:02X}:{:02X}:{:02X}", a[5], a[4], a[3], a[2], a[1], a[0])
    }
}

/// An address with its type: public or random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// 0 public, 1 random.
    pub kind: u8,
    /// The address.
    pub address: Address,
}

/// Error codes (Core 5.2, Vol 1, Part F).
pub mod error_code {
    /// Done.
    pub const SUCCESS: u8 = 0x00;
    /// The controller does not know the command.
    pub const UNKNOWN_COMMAND: u8 = 0x01;
    /// No connection has this handle.
    pub const UNKNOWN_CONNECTION: u8 = 0x02;
    /// The peer's host has no key.
    pub const KEY_MISSING: u8 = 0x06;
    /// Nothing was heard for the supervision timeout.
    pub const CONNECTION_TIMEOUT: u8 = 0x08;
    /// Not in this state.
    pub const COMMAND_DISALLOWED: u8 = 0x0c;
    /// Parameters are missing or make no sense.
    pub const INVALID_PARAMETERS: u8 = 0x12;
    /// The other side's user ended the connection.
    pub const REMOTE_USER_TERMINATED: u8 = 0x13;
    /// This side's host ended the connection.
    pub const LOCAL_HOST_TERMINATED: u8 = 0x16;
    /// An advertising set has used its time or its events.
    pub const ADVERTISING_TIMEOUT: u8 = 0x3c;
    /// Keys do not match.
    pub const MIC_FAILURE: u8 = 0x3d;
    /// The first six connection events brought nothing.
    pub const NOT_ESTABLISHED: u8 = 0x3e;
    /// No such advertising set.
    pub const UNKNOWN_ADVERTISING_SET: u8 = 0x42;
    /// A table is full.
    pub const MEMORY_EXCEEDED: u8 = 0x07;
}

/// The host's byte stream makes no sense; only a new stream helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A packet starts with a type that hosts do not send.
    #[error("a packet of type {found:#04x}, allowed are 1 and 2")]
    PacketType {
        /// The byte found.
        found: u8,
    },
    /// ACL data longer than any buffer.
    #[error("ACL data of {actual} octets, allowed are {max}")]
    AclLength {
        /// Longest allowed.
        max: usize,
        /// What the header says.
        actual: usize,
    },
}

/// Cuts the byte stream of a host (H4) into packets, whatever the pieces it arrives in.
#[derive(Default)]
pub struct Splitter {
    buffer: Vec<u8>,
}

impl Splitter {
    /// Takes in bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet with its type byte.
    ///
    /// # Errors
    /// The stream is broken; what was received is dropped.
    pub fn next_packet(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        let Some(length) = packet_length(&self.buffer).inspect_err(|_| self.buffer.clear())? else {
            return Ok(None);
        };
        if self.buffer.len() < length {
            return Ok(None);
        }
        Ok(Some(self.buffer.drain(..length).collect()))
    }
}

/// Length of the packet that begins `bytes`, if its header is there.
fn packet_length(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
    match bytes {
        [] => Ok(None),
        [H4_COMMAND, _, _, length, ..] => Ok(Some(COMMAND_HEADER + usize::from(*length))),
        [H4_ACL, _, _, low, high, ..] => {
            let actual = usize::from(u16::from_le_bytes([*low, *high]));
            if actual > ACL_LENGTH_MAX {
                return Err(FramingError::AclLength { max: ACL_LENGTH_MAX, actual });
            }
            Ok(Some(ACL_HEADER + actual))
        }
        [H4_COMMAND | H4_ACL, ..] => Ok(None),
        [found, ..] => Err(FramingError::PacketType { found: *found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_whole_whatever_the_pieces() {
        let stream = [&[1, 3, 12, 0][..], &[2, 0x40, 0x20, 2, 0, 7, 8], &[1, 1, 0x20, 1, 5]].concat();
        for piece in 1..=stream.len() {
            let mut splitter = Splitter::default();
            let mut packets = Vec::new();
            for bytes in stream.chunks(piece) {
                splitter.push(bytes);
                while let Some(packet) = splitter.next_packet().expect("a good stream") {
                    packets.push(packet);
                }
            }
            assert_eq!(packets, [&stream[..4], &stream[4..11], &stream[11..]], "pieces of {piece}");
        }
    }

    #[test]
    fn a_broken_stream_is_an_error_and_ends() {
        let mut splitter = Splitter::default();
        splitter.push(&[9, 9, 9]);
        assert_eq!(splitter.next_packet(), Err(FramingError::PacketType { found: 9 }));
        assert_eq!(splitter.next_packet(), Ok(None));
        splitter.push(&[2, 0, 0, 0xff, 0xff]);
        assert!(matches!(splitter.next_packet(), Err(FramingError::AclLength { actual: 0xffff, .. })));
    }
}
