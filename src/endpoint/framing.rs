//! How BLIP frames travel over a transport, for each [`ProtocolType`]. Sans-IO.
//!
//! Over a byte stream each BLIP frame is one binary message of RFC 6455 (WebSocket), without the HTTP handshake in front:
//! the first byte on the wire belongs to a frame. The active side masks, the passive side does not; the role decides it
//! and a peer that does otherwise is refused. PING, PONG and CLOSE are those of RFC 6455. Over a message stream a BLIP
//! frame is a message and there is nothing else: such a transport keeps itself alive and tells of the end itself.
//!
//! Answering a PING or a CLOSE is left to the driver.
//! Source: `firmware-notes/blip.md`; RFC 6455 sections 5 and 7.

use std::collections::VecDeque;
use std::io::Cursor;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::ProtocolType;

#[cfg(test)]
mod tests;

/// Most bytes of one message, in both directions; a longer one ends the connection.
pub const MESSAGE_SIZE_MAX: usize = 1 << 20;

/// The code of an orderly end.
pub const CLOSE_NORMAL: u16 = 1000;

/// What a CLOSE without a code means.
const CLOSE_NO_CODE: u16 = 1005;

/// Longest frame head: two bytes, a 64-bit length, the mask.
const HEAD_LEN_MAX: usize = 14;

/// Most payload of PING, PONG and CLOSE, in bytes (RFC 6455 section 5.5).
const CONTROL_SIZE_MAX: usize = 125;

/// Memory set aside on the word of a frame head alone, in bytes; more only as the payload arrives.
const RESERVE_MAX: usize = 16 * 1024;

/// Which side of the replication this is; it decides who masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingRole {
    /// The replicator: masks what it sends.
    Active,
    /// The listener: does not.
    Passive,
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FramingEvent {
    /// One BLIP frame.
    Frame(Bytes),
    /// The peer asks for a sign of life: send this back with [`Framing::encode_pong`]. When several wait, the last one
    /// is enough.
    Ping(Bytes),
    /// A sign of life.
    Pong(Bytes),
    /// The peer ends the connection: answer with the same code unless that has been said already. Nothing follows.
    Close {
        /// 1000 is an orderly end; 1005 stands for none.
        code: u16,
        /// Text for people.
        reason: String,
    },
}

/// A violation by the peer. The stream cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A message above the limit.
    #[error("message of {actual} bytes, at most {max} are accepted")]
    MessageTooLarge {
        /// The limit in bytes.
        max: usize,
        /// What was announced, in bytes.
        actual: u64,
    },
    /// A PING, PONG or CLOSE above the limit or in fragments.
    #[error("control frame of {actual} bytes, at most {max} are accepted, in one piece")]
    BadControl {
        /// The limit in bytes.
        max: usize,
        /// What was announced, in bytes.
        actual: u64,
    },
    /// A frame type that has no place here; what came is not this protocol at all, or text.
    #[error("frame with opcode {opcode:#x} where a binary message was expected")]
    UnexpectedOpcode {
        /// The opcode.
        opcode: u8,
    },
    /// Reserved bits, which only an extension that was agreed on may set.
    #[error("frame with reserved bits set")]
    ReservedBits,
    /// The peer masks and should not, or the other way round: most likely both sides play the same role.
    #[error("the peer of the {role:?} side must {}mask its frames", if *.role == FramingRole::Active { "not " } else { "" })]
    WrongMask {
        /// Our role.
        role: FramingRole,
    },
    /// A fragment without a beginning, or a message begun within another.
    #[error("fragments of messages out of order")]
    BadFragment,
    /// A CLOSE with half a code.
    #[error("malformed close frame")]
    MalformedClose,
}

/// Where in the input the next byte belongs.
#[derive(Debug)]
enum State {
    Head { bytes: [u8; HEAD_LEN_MAX], len: usize },
    Payload { header: FrameHeader, remaining: usize, done: usize },
    Closed,
    Failed(FramingError),
}

const HEAD_START: State = State::Head { bytes: [0; HEAD_LEN_MAX], len: 0 };

/// The framing of one connection, both directions.
#[derive(Debug)]
pub struct Framing {
    role: FramingRole,
    protocol_type: ProtocolType,
    state: State,
    /// The message under way, unmasked.
    message: Vec<u8>,
    /// Whether further fragments of it must follow.
    fragmented: bool,
    control: Vec<u8>,
    events: VecDeque<FramingEvent>,
}

impl Framing {
    /// The framing of a connection on which nothing has been exchanged.
    pub fn new(role: FramingRole, protocol_type: ProtocolType) -> Framing {
        Framing {
            role,
            protocol_type,
            state: HEAD_START,
            message: Vec::new(),
            fragmented: false,
            control: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes what the transport received: any part of a byte stream, or one message of a message stream. What follows a
    /// CLOSE is ignored.
    ///
    /// # Errors
    /// A violation by the peer; events that came before it can still be polled, every further call fails in the same
    /// way.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        let result = match self.protocol_type {
            ProtocolType::MessageStream => self.handle_message(bytes),
            ProtocolType::ByteStream => self.handle_stream(bytes),
        };
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    /// The next event; `None` when there is none for now.
    pub fn poll_event(&mut self) -> Option<FramingEvent> {
        self.events.pop_front()
    }

    /// Whether [`Framing::poll_event`] has an event.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// One BLIP frame as the transport takes it. `mask` should be random; the passive side does not use it.
    pub fn encode_frame(&self, frame: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN_MAX + frame.len());
        self.encode_frame_into(frame, mask, &mut out);
        out
    }

    /// Appends one BLIP frame to `out`. Several may be given to a byte stream at once, to a message stream only one.
    pub fn encode_frame_into(&self, frame: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
        match self.protocol_type {
            ProtocolType::MessageStream => out.extend_from_slice(frame),
            ProtocolType::ByteStream => self.encode(OpCode::Data(Data::Binary), frame, mask, out),
        }
    }

    /// A PING; `None` on a message stream, which has none. At most 125 bytes of `payload` are sent.
    pub fn encode_ping(&self, payload: &[u8], mask: [u8; 4]) -> Option<Vec<u8>> {
        self.encode_control(Control::Ping, payload, mask)
    }

    /// The answer to a PING; `None` on a message stream.
    pub fn encode_pong(&self, payload: &[u8], mask: [u8; 4]) -> Option<Vec<u8>> {
        self.encode_control(Control::Pong, payload, mask)
    }

    /// A CLOSE; `None` on a message stream. A reason that is too long is cut.
    pub fn encode_close(&self, code: u16, reason: &str, mask: [u8; 4]) -> Option<Vec<u8>> {
        let mut payload = code.to_be_bytes().to_vec();
        let mut end = reason.len().min(CONTROL_SIZE_MAX - payload.len());
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        self.encode_control(Control::Close, &payload, mask)
    }

    fn encode_control(&self, control: Control, payload: &[u8], mask: [u8; 4]) -> Option<Vec<u8>> {
        if self.protocol_type == ProtocolType::MessageStream {
            return None;
        }
        let payload = &payload[..payload.len().min(CONTROL_SIZE_MAX)];
        let mut out = Vec::with_capacity(HEAD_LEN_MAX + payload.len());
        self.encode(OpCode::Control(control), payload, mask, &mut out);
        Some(out)
    }

    fn encode(&self, opcode: OpCode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
        let mask = (self.role == FramingRole::Active).then_some(mask);
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        // Writing to a vector does not fail.
        let written = header.format(payload.len() as u64, out);
        debug_assert!(written.is_ok());
        let start = out.len();
        out.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(&mut out[start..], mask, 0);
        }
    }

    fn handle_message(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        check_size(bytes.len() as u64)?;
        self.events.push_back(FramingEvent::Frame(Bytes::copy_from_slice(bytes)));
        Ok(())
    }

    fn handle_stream(&mut self, mut input: &[u8]) -> Result<(), FramingError> {
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(error.clone()),
                State::Closed => return Ok(()),
                State::Head { bytes, len } => {
                    if input.is_empty() {
                        return Ok(());
                    }
                    let Some((header, length)) = take_head(bytes, len, &mut input)? else { continue };
                    self.begin_frame(header, length)?;
                }
                State::Payload { header, remaining, done } => {
                    let (part, rest) = input.split_at(input.len().min(*remaining));
                    let buffer = if is_control(header) { &mut self.control } else { &mut self.message };
                    let start = buffer.len();
                    buffer.extend_from_slice(part);
                    if let Some(mask) = header.mask {
                        apply_mask(&mut buffer[start..], mask, *done);
                    }
                    *remaining -= part.len();
                    *done += part.len();
                    input = rest;
                    if *remaining > 0 {
                        return Ok(());
                    }
                    let (opcode, is_final) = (header.opcode, header.is_final);
                    self.state = HEAD_START;
                    self.end_frame(opcode, is_final)?;
                }
            }
        }
    }

    /// Checks a head against what is allowed here.
    fn begin_frame(&mut self, header: FrameHeader, length: u64) -> Result<(), FramingError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FramingError::ReservedBits);
        }
        if header.mask.is_some() != (self.role == FramingRole::Passive) {
            return Err(FramingError::WrongMask { role: self.role });
        }
        if is_control(&header) {
            if length > CONTROL_SIZE_MAX as u64 || !header.is_final {
                return Err(FramingError::BadControl { max: CONTROL_SIZE_MAX, actual: length });
            }
            self.control.clear();
        } else {
            match header.opcode {
                OpCode::Data(Data::Binary) if !self.fragmented => {}
                OpCode::Data(Data::Continue) if self.fragmented => {}
                OpCode::Data(Data::Binary | Data::Continue) => return Err(FramingError::BadFragment),
                opcode => return Err(FramingError::UnexpectedOpcode { opcode: opcode.into() }),
            }
            check_size(length.saturating_add(self.message.len() as u64))?;
            self.message.reserve_exact((length as usize).min(RESERVE_MAX));
        }
        self.state = State::Payload { header, remaining: length as usize, done: 0 };
        Ok(())
    }

    fn end_frame(&mut self, opcode: OpCode, is_final: bool) -> Result<(), FramingError> {
        let event = match opcode {
            OpCode::Data(_) => {
                self.fragmented = !is_final;
                if !is_final {
                    return Ok(());
                }
                FramingEvent::Frame(Bytes::from(std::mem::take(&mut self.message)))
            }
            OpCode::Control(Control::Ping) => FramingEvent::Ping(Bytes::copy_from_slice(&self.control)),
            OpCode::Control(Control::Pong) => FramingEvent::Pong(Bytes::copy_from_slice(&self.control)),
            OpCode::Control(_) => {
                self.state = State::Closed;
                parse_close(&self.control)?
            }
        };
        self.events.push_back(event);
        Ok(())
    }
}

/// Collects a frame head from as many pieces of input as it takes.
fn take_head(
    bytes: &mut [u8; HEAD_LEN_MAX],
    len: &mut usize,
    input: &mut &[u8],
) -> Result<Option<(FrameHeader, u64)>, FramingError> {
    let copied = input.len().min(HEAD_LEN_MAX - *len);
    bytes[*len..*len + copied].copy_from_slice(&input[..copied]);
    let mut cursor = Cursor::new(&bytes[..*len + copied]);
    let parsed = FrameHeader::parse(&mut cursor)
        .map_err(|_| FramingError::UnexpectedOpcode { opcode: bytes[0] & 0x0f })?;
    let taken = if parsed.is_some() { cursor.position() as usize - *len } else { copied };
    *input = &input[taken..];
    *len += taken;
    Ok(parsed)
}

fn is_control(header: &FrameHeader) -> bool {
    matches!(header.opcode, OpCode::Control(_))
}

fn check_size(actual: u64) -> Result<(), FramingError> {
    if actual > MESSAGE_SIZE_MAX as u64 {
        return Err(FramingError::MessageTooLarge { max: MESSAGE_SIZE_MAX, actual });
    }
    Ok(())
}

fn parse_close(payload: &[u8]) -> Result<FramingEvent, FramingError> {
    let (code, reason) = match payload {
        [] => (CLOSE_NO_CODE, &[][..]),
        [_] => return Err(FramingError::MalformedClose),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    Ok(FramingEvent::Close { code, reason: String::from_utf8_lossy(reason).into_owned() })
}

/// Masks or unmasks the part of a payload that begins `offset` bytes in; eight bytes at a time.
fn apply_mask(bytes: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = [chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]];
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
