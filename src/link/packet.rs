//! The layout of packets: raw bytes to a [`Packet`] and back, without state.
//!
//! ```text
//! data, full:   00 sssssssssss aaaaaaaaaaa                    payload: all the rest, up to the packet size exactly
//! data, short:  1h sssssssssss aaaaaaaaaaa llllllll           payload: hl bytes exactly
//! acknowledge:  0x40, or 0x41 to ask for an answer at once; u16 next expected; u32 credit; u8 n; n bytes of bitmap
//! control:      'G' 'W', kind << 4 | piece, u8 length of the message; piece 15: all of it, else 16 bytes or the rest
//! ```
//! s: number of this packet, a: number that the sender expects next, both 11 bits, most significant bit first. Numbers of
//! several bytes in an acknowledgement have the least significant first.
//!
//! Each layout fixes its own length, so that a packet that was cut or grew on the way is known for damaged.

use super::mtu::PacketSize;
use super::sequence::{SPAN_MAX, Sequence};

/// Header of a full data packet.
pub(super) const DATA_HEADER_BYTES: usize = 3;
/// Header of a data packet with an explicit length.
pub(super) const SHORT_HEADER_BYTES: usize = 4;
/// An acknowledgement without a bitmap.
pub(super) const ACK_HEADER_BYTES: usize = 8;
/// Bytes of bitmap that cover the whole window.
pub(super) const BITMAP_BYTES_MAX: usize = (SPAN_MAX / 8) as usize;
/// What every control packet begins with.
pub(super) const MAGIC: [u8; 2] = *b"GW";
/// Header of a control packet.
pub(super) const CONTROL_HEADER_BYTES: usize = 4;
/// Bytes of a control message in each piece but the last, if it does not fit whole: what the smallest packet holds.
pub(super) const PIECE_BYTES: usize = PacketSize::MIN.bytes() - CONTROL_HEADER_BYTES;
/// In the place of a piece's number: the packet holds the whole message.
pub(super) const WHOLE: u8 = 0x0f;

const KIND_SHIFT: u32 = 6;
const KIND_FULL: u8 = 0b00;
const KIND_OTHER: u8 = 0b01;
const KIND_SHORT: u8 = 0b10;
/// Bit of the kind of a short packet that is the ninth bit of its length.
const KIND_LENGTH_BIT: u8 = 0b01;
const ACK: u8 = KIND_OTHER << KIND_SHIFT;
const ACK_REQUEST: u8 = ACK | 1;

/// Whether the sender of an acknowledgement wants one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    None,
    AtOnce,
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack<'a> {
    pub(super) answer: Answer,
    /// All packets before this one have arrived.
    pub(super) next: Sequence,
    /// Low bits of the offset that the receiver of this may send up to.
    pub(super) credit: u32,
    /// Bit `i % 8` of byte `i / 8`: packet `next + 1 + i` has arrived.
    pub(super) bitmap: &'a [u8],
}

/// One packet, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Data { sequence: Sequence, ack: Sequence, payload: &'a [u8] },
    Ack(Ack<'a>),
    Control { kind: u8, piece: u8, length: u8, chunk: &'a [u8] },
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketError {
    /// The length is not that of the layout.
    Length { expected: usize, actual: usize },
    /// No layout begins so.
    Kind { first: u8 },
}

impl<'a> Packet<'a> {
    /// Reads a packet of a connection whose packets have `size`.
    pub(super) fn parse(bytes: &'a [u8], size: usize) -> Result<Packet<'a>, PacketError> {
        let damaged = |expected| PacketError::Length { expected, actual: bytes.len() };
        let first = *bytes.first().ok_or(damaged(1))?;
        match first >> KIND_SHIFT {
            KIND_FULL if bytes.len() == size => Packet::data(bytes, DATA_HEADER_BYTES).ok_or(damaged(size)),
            KIND_FULL => Err(damaged(size)),
            KIND_OTHER if first == ACK || first == ACK_REQUEST => Packet::parse_ack(bytes),
            KIND_OTHER => Packet::parse_control(bytes),
            kind => {
                let low = *bytes.get(DATA_HEADER_BYTES).ok_or(damaged(SHORT_HEADER_BYTES))?;
                let expected =
                    SHORT_HEADER_BYTES + usize::from(low) + (usize::from(kind & KIND_LENGTH_BIT) << u8::BITS);
                if bytes.len() != expected || expected > size {
                    return Err(damaged(expected.min(size)));
                }
                Packet::data(bytes, SHORT_HEADER_BYTES).ok_or(damaged(expected))
            }
        }
    }

    fn data(bytes: &'a [u8], header: usize) -> Option<Packet<'a>> {
        let [high, middle, low] = *bytes.first_chunk::<DATA_HEADER_BYTES>()?;
        let numbers = u32::from_be_bytes([0, high, middle, low]);
        Some(Packet::Data {
            sequence: Sequence::new((numbers >> 11) as u16),
            ack: Sequence::new(numbers as u16),
            payload: bytes.get(header..)?,
        })
    }

    fn parse_ack(bytes: &'a [u8]) -> Result<Packet<'a>, PacketError> {
        let damaged = |expected| PacketError::Length { expected, actual: bytes.len() };
        let Some((header, bitmap)) = bytes.split_first_chunk::<ACK_HEADER_BYTES>() else {
            return Err(damaged(ACK_HEADER_BYTES));
        };
        let [first, next_low, next_high, c0, c1, c2, c3, count] = *header;
        if bitmap.len() != usize::from(count) || bitmap.len() > BITMAP_BYTES_MAX {
            return Err(damaged(ACK_HEADER_BYTES + usize::from(count).min(BITMAP_BYTES_MAX)));
        }
        Ok(Packet::Ack(Ack {
            answer: if first == ACK_REQUEST { Answer::AtOnce } else { Answer::None },
            next: Sequence::new(u16::from_le_bytes([next_low, next_high])),
            credit: u32::from_le_bytes([c0, c1, c2, c3]),
            bitmap,
        }))
    }

    fn parse_control(bytes: &'a [u8]) -> Result<Packet<'a>, PacketError> {
        let mark = bytes.len().min(MAGIC.len());
        if bytes[..mark] != MAGIC[..mark] {
            return Err(PacketError::Kind { first: bytes[0] });
        }
        let damaged = |expected| PacketError::Length { expected, actual: bytes.len() };
        let Some((&[_, _, kind_and_piece, length], chunk)) =
            bytes.split_first_chunk::<CONTROL_HEADER_BYTES>()
        else {
            return Err(damaged(CONTROL_HEADER_BYTES));
        };
        let piece = kind_and_piece & 0x0f;
        let expected = if piece == WHOLE {
            usize::from(length)
        } else {
            usize::from(length).saturating_sub(usize::from(piece) * PIECE_BYTES).min(PIECE_BYTES)
        };
        if chunk.len() != expected || (expected == 0 && piece != WHOLE) {
            return Err(damaged(CONTROL_HEADER_BYTES + expected));
        }
        Ok(Packet::Control { kind: kind_and_piece >> 4, piece, length, chunk })
    }

    /// Writes the packet into `out`, which holds the packet size, and returns its length. A payload of `size` less the
    /// full header gets the full layout, a smaller one the short.
    pub(super) fn emit(&self, out: &mut [u8], size: usize) -> usize {
        match *self {
            Packet::Data { sequence, ack, payload } => {
                let header = emit_data_header(out, sequence, ack, payload.len(), size);
                out[header..header + payload.len()].copy_from_slice(payload);
                header + payload.len()
            }
            Packet::Ack(Ack { answer, next, credit, bitmap }) => {
                out[0] = if answer == Answer::AtOnce { ACK_REQUEST } else { ACK };
                out[1..3].copy_from_slice(&next.number().to_le_bytes());
                out[3..7].copy_from_slice(&credit.to_le_bytes());
                out[7] = bitmap.len() as u8;
                out[ACK_HEADER_BYTES..ACK_HEADER_BYTES + bitmap.len()].copy_from_slice(bitmap);
                ACK_HEADER_BYTES + bitmap.len()
            }
            Packet::Control { kind, piece, length, chunk } => {
                out[..2].copy_from_slice(&MAGIC);
                out[2] = kind << 4 | piece;
                out[3] = length;
                out[CONTROL_HEADER_BYTES..CONTROL_HEADER_BYTES + chunk.len()].copy_from_slice(chunk);
                CONTROL_HEADER_BYTES + chunk.len()
            }
        }
    }
}

/// Writes the header of a data packet with `length` bytes of payload and returns where the payload goes.
pub(super) fn emit_data_header(
    out: &mut [u8],
    sequence: Sequence,
    ack: Sequence,
    length: usize,
    size: usize,
) -> usize {
    let full = length + DATA_HEADER_BYTES == size;
    let kind = if full { KIND_FULL } else { KIND_SHORT | (length >> u8::BITS) as u8 };
    let numbers = u32::from(sequence.number()) << 11 | u32::from(ack.number());
    let [_, high, middle, low] = numbers.to_be_bytes();
    out[..DATA_HEADER_BYTES].copy_from_slice(&[kind << KIND_SHIFT | high, middle, low]);
    if full {
        return DATA_HEADER_BYTES;
    }
    out[DATA_HEADER_BYTES] = length as u8;
    SHORT_HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(bytes: &[u8], size: usize) -> impl Strategy<Value = Packet<'_>> {
        let sequence = || (0u16..2048).prop_map(Sequence::new);
        let data = (sequence(), sequence(), 1..=size - DATA_HEADER_BYTES)
            .prop_map(|(sequence, ack, length)| Packet::Data { sequence, ack, payload: &bytes[..length] });
        let answer = prop_oneof![Just(Answer::None), Just(Answer::AtOnce)];
        let ack = (answer, sequence(), any::<u32>(), 0..=BITMAP_BYTES_MAX.min(size - ACK_HEADER_BYTES))
            .prop_map(|(answer, next, credit, n)| {
                Packet::Ack(Ack { answer, next, credit, bitmap: &bytes[..n] })
            });
        let whole = (0u8..16, 0..=size.min(64) - CONTROL_HEADER_BYTES).prop_map(|(kind, length)| {
            Packet::Control { kind, piece: WHOLE, length: length as u8, chunk: &bytes[..length] }
        });
        let piece = (0u8..16, 0u8..4, 17u8..=64).prop_filter_map("no such piece", |(kind, piece, length)| {
            let rest = usize::from(length).checked_sub(usize::from(piece) * PIECE_BYTES)?;
            let chunk = &bytes[..rest.min(PIECE_BYTES)];
            (!chunk.is_empty()).then_some(Packet::Control { kind, piece, length, chunk })
        });
        prop_oneof![data, ack, whole, piece]
    }

    static BYTES: [u8; 495] = [0xa5; 495];

    proptest! {
        /// Emit and parse are inverse, and any other length is damage, never another packet with other bytes.
        #[test]
        fn packets_come_back_and_damage_is_seen(
            (size, packet) in (20usize..=495).prop_flat_map(|size| (Just(size), packet(&BYTES, size))),
            cut in 0usize..495, grown in 1usize..40,
        ) {
            let mut out = [0u8; 600];
            let length = packet.emit(&mut out, size);
            prop_assert!(length <= size);
            prop_assert_eq!(Packet::parse(&out[..length], size), Ok(packet));
            for changed in [cut % length, length + grown] {
                let is_damage = matches!(Packet::parse(&out[..changed], size), Err(PacketError::Length { .. }));
                prop_assert!(is_damage, "{} bytes changed to {}", length, changed);
            }
        }

        #[test]
        fn any_bytes_are_a_packet_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64), size in 20usize..=495) {
            if let Ok(packet) = Packet::parse(&bytes, size) {
                let mut out = [0u8; 600];
                let length = packet.emit(&mut out, size);
                if !matches!(packet, Packet::Ack(_)) {
                    prop_assert_eq!(&out[..length], &bytes[..]);
                }
            }
        }
    }

    #[test]
    fn a_steady_data_packet_has_three_bytes_of_header() {
        for size in 20..=495 {
            let payload = &BYTES[..size - DATA_HEADER_BYTES];
            let packet = Packet::Data { sequence: Sequence::new(2047), ack: Sequence::new(1), payload };
            let mut out = [0u8; 495];
            assert_eq!(packet.emit(&mut out, size), size);
            assert!(size - payload.len() <= 3);
        }
    }
}
