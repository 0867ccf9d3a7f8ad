//! The layout of one frame: `number | flags | payload | CRC-32`, and its exact inverse.

use super::config::FRAME_SIZE_ACCEPTED_MAX;
use super::error::BlipError;
use super::varint;

/// Bytes of the checksum that ends every frame but an acknowledgement.
pub const CHECKSUM_LEN: usize = 4;

const TYPE_MASK: u64 = 0x07;
const COMPRESSED: u64 = 0x08;
const URGENT: u64 = 0x10;
const NO_REPLY: u64 = 0x20;
const MORE_COMING: u64 = 0x40;

/// What a frame is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// A request.
    Request,
    /// A successful reply.
    Reply,
    /// A reply that says what failed.
    Error,
    /// Bytes of a request that have arrived.
    AckRequest,
    /// Bytes of a reply that have arrived.
    AckReply,
    /// A number without meaning; the frame is ignored.
    Unknown(u8),
}

impl FrameType {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            FrameType::Request => 0,
            FrameType::Reply => 1,
            FrameType::Error => 2,
            FrameType::AckRequest => 4,
            FrameType::AckReply => 5,
            FrameType::Unknown(code) => code & TYPE_MASK as u8,
        }
    }

    /// The type of a number on the wire.
    pub fn from_code(code: u8) -> FrameType {
        match code {
            0 => FrameType::Request,
            1 => FrameType::Reply,
            2 => FrameType::Error,
            4 => FrameType::AckRequest,
            5 => FrameType::AckReply,
            code => FrameType::Unknown(code),
        }
    }

    /// Whether frames of this type end with the running checksum and may be compressed.
    pub fn has_checksum(self) -> bool {
        matches!(self, FrameType::Request | FrameType::Reply | FrameType::Error)
    }
}

/// The flags of a frame. Bits without a meaning are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameFlags(u64);

impl FrameFlags {
    /// Flags of a frame of this type with nothing else set.
    pub fn new(kind: FrameType) -> FrameFlags {
        FrameFlags(u64::from(kind.code()))
    }

    /// Flags of an acknowledgement: urgent, no reply.
    pub fn ack(kind: FrameType) -> FrameFlags {
        FrameFlags::new(kind).with_urgent(true).with_no_reply(true)
    }

    /// The bits as on the wire.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// What the frame is part of.
    pub fn kind(self) -> FrameType {
        FrameType::from_code((self.0 & TYPE_MASK) as u8)
    }

    /// Whether the payload is part of the sender's deflate stream.
    pub fn compressed(self) -> bool {
        self.0 & COMPRESSED != 0
    }

    /// Whether the message goes ahead of others.
    pub fn urgent(self) -> bool {
        self.0 & URGENT != 0
    }

    /// Whether the sender wants no answer.
    pub fn no_reply(self) -> bool {
        self.0 & NO_REPLY != 0
    }

    /// Whether further frames of this message follow.
    pub fn more_coming(self) -> bool {
        self.0 & MORE_COMING != 0
    }

    /// With the compressed flag set or cleared.
    #[must_use]
    pub fn with_compressed(self, on: bool) -> FrameFlags {
        self.with(COMPRESSED, on)
    }

    /// With the urgent flag set or cleared.
    #[must_use]
    pub fn with_urgent(self, on: bool) -> FrameFlags {
        self.with(URGENT, on)
    }

    /// With the no-reply flag set or cleared.
    #[must_use]
    pub fn with_no_reply(self, on: bool) -> FrameFlags {
        self.with(NO_REPLY, on)
    }

    /// With the more-coming flag set or cleared.
    #[must_use]
    pub fn with_more_coming(self, on: bool) -> FrameFlags {
        self.with(MORE_COMING, on)
    }

    fn with(self, bit: u64, on: bool) -> FrameFlags {
        FrameFlags(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// The two integers a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Message number, counted from 1 in each direction.
    pub number: u64,
    /// Type and flags.
    pub flags: FrameFlags,
}

impl FrameHeader {
    /// Appends the header.
    pub fn emit(&self, out: &mut Vec<u8>) {
        varint::put(self.number, out);
        varint::put(self.flags.bits(), out);
    }

    /// Bytes that [`FrameHeader::emit`] appends.
    pub fn encoded_len(&self) -> usize {
        varint::len(self.number) + varint::len(self.flags.bits())
    }
}

/// A frame as it arrived: borrowed, payload still compressed, checksum not yet compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Number and flags.
    pub header: FrameHeader,
    /// What stands between header and checksum.
    pub payload: &'a [u8],
    /// The checksum; `None` on a type that has none.
    pub checksum: Option<u32>,
}

impl<'a> Frame<'a> {
    /// Takes a frame apart.
    ///
    /// # Errors
    /// [`BlipError::FrameTooLarge`], [`BlipError::FrameTooShort`], or a malformed integer.
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, BlipError> {
        if bytes.len() > FRAME_SIZE_ACCEPTED_MAX {
            return Err(BlipError::FrameTooLarge { max: FRAME_SIZE_ACCEPTED_MAX, actual: bytes.len() });
        }
        let (number, rest) = varint::take(bytes, "message number")?;
        let (bits, rest) = varint::take(rest, "frame flags")?;
        let header = FrameHeader { number, flags: FrameFlags(bits) };
        if !header.flags.kind().has_checksum() {
            return Ok(Frame { header, payload: rest, checksum: None });
        }
        let Some((payload, checksum)) = rest.split_last_chunk::<CHECKSUM_LEN>() else {
            return Err(BlipError::FrameTooShort { min: CHECKSUM_LEN, actual: rest.len() });
        };
        Ok(Frame { header, payload, checksum: Some(u32::from_be_bytes(*checksum)) })
    }

    /// Appends the frame as [`Frame::parse`] would read it.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.header.emit(out);
        out.extend_from_slice(self.payload);
        if let Some(checksum) = self.checksum {
            out.extend_from_slice(&checksum.to_be_bytes());
        }
    }

    /// Bytes that count in acknowledgements: all that follows the header.
    pub fn counted_len(&self) -> u64 {
        let checksum = if self.checksum.is_some() { CHECKSUM_LEN } else { 0 };
        (self.payload.len() + checksum) as u64
    }
}
