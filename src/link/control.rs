//! Control messages: what they hold, in postcard, and how one goes over the air in one packet or in pieces.
//!
//! A message that fits into a packet goes whole. Else it goes in pieces of 16 bytes, as many as the smallest packet
//! holds, so that a resume with its proof works with an ATT MTU of 23 too. Losses are the sender's matter: it sends the
//! whole message again when no answer comes.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use super::config::{PACKETS_IN_FLIGHT_MAX, VERSION_MAX, VERSION_MIN, WINDOW_BYTES_MAX};
use super::error::LinkError;
use super::mtu::PacketSize;
use super::packet::{CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, PIECE_BYTES, Packet, WHOLE};
use super::prover::PROOF_BYTES;
use super::reason::{CloseReason, RefuseReason, SessionId};

/// Bytes of a control message at most.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * PIECE_BYTES;
/// Bytes of what a proof is computed over: a role, a HELLO, a WELCOME.
pub(super) const TRANSCRIPT_BYTES_MAX: usize = 1 + 2 * MESSAGE_BYTES_MAX;

/// The bytes of a control message.
pub(super) type MessageBytes = Vec<u8, MESSAGE_BYTES_MAX>;
/// A fresh random number of one side.
pub(super) type Nonce = [u8; 8];
/// A proof of identity at a resume.
pub(super) type Proof = [u8; PROOF_BYTES];

/// The kinds of control messages, as the wire numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Welcome = 2,
    Confirm = 3,
    Refuse = 4,
    Close = 5,
    CloseAck = 6,
}

/// What a side can do on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parameters {
    /// The largest packet, in bytes.
    pub(super) packet_size: u16,
    /// The receive buffer, in bytes.
    pub(super) buffer_bytes: u32,
    /// What is free of it: credit from the offset where the stream begins or goes on.
    pub(super) window_bytes: u32,
    /// The send buffer: what this side can have unacknowledged, so that the peer acknowledges often enough.
    pub(super) send_bytes: u32,
    /// Packets that may be in flight towards this side.
    pub(super) window_packets: u8,
    /// How long an acknowledgement may wait here.
    pub(super) ack_delay_ms: u16,
}

impl Parameters {
    /// Checks the numbers of a peer; the size that both sides can do is the result.
    pub(super) fn agree(&self, own: PacketSize) -> Result<PacketSize, LinkError> {
        let size = PacketSize::try_new(self.packet_size)?.min(own);
        let window = |actual, min, max| LinkError::Window { actual, min, max };
        let payload = (size.bytes() - DATA_HEADER_BYTES) as u32;
        if !(payload..=WINDOW_BYTES_MAX).contains(&self.buffer_bytes) {
            return Err(window(self.buffer_bytes, payload, WINDOW_BYTES_MAX));
        }
        if self.window_bytes > self.buffer_bytes {
            return Err(window(self.window_bytes, 0, self.buffer_bytes));
        }
        if !(1..=PACKETS_IN_FLIGHT_MAX).contains(&self.window_packets) {
            return Err(window(self.window_packets.into(), 1, PACKETS_IN_FLIGHT_MAX.into()));
        }
        Ok(size)
    }
}

/// The first word of a central. Versions and session stand first in every version of the protocol, so that any side can
/// refuse another version and find the session; later versions append, and bytes behind what is known are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version_min: u8,
    pub(super) version_max: u8,
    /// The session to be resumed; none: a new one.
    pub(super) session: Option<SessionId>,
    pub(super) nonce: Nonce,
    pub(super) parameters: Parameters,
    /// Bytes of the peripheral's stream that have arrived here in order.
    pub(super) offset: u64,
    /// The oldest prover that this side still takes proofs from: 0 is the session's token.
    pub(super) prover: u32,
}

/// What the peripheral makes of a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Grant {
    /// A new session, and its random token.
    New(Proof),
    /// The session goes on.
    Resumed {
        /// Bytes of the central's stream that have arrived here in order.
        offset: u64,
        /// That this is the peripheral of before: over the transcript up to here. It stands last in the message.
        proof: Proof,
    },
}

/// The peripheral's answer to a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) version: u8,
    pub(super) session: SessionId,
    pub(super) nonce: Nonce,
    pub(super) parameters: Parameters,
    pub(super) grant: Grant,
}

/// The central's answer to a WELCOME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confirm {
    /// At a resume: that this is the central of before.
    pub(super) proof: Option<Proof>,
}

/// The last word of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Close {
    pub(super) reason: CloseReason,
    /// Bytes of the stream in all. In the first version every one of them was acknowledged; later, sent.
    pub(super) offset: u64,
}

/// A control message of either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Hello(Hello),
    Welcome(Welcome),
    Confirm(Confirm),
    Refuse(RefuseReason),
    Close(Close),
    CloseAck,
}

impl Message {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Message::Hello(_) => Kind::Hello,
            Message::Welcome(_) => Kind::Welcome,
            Message::Confirm(_) => Kind::Confirm,
            Message::Refuse(_) => Kind::Refuse,
            Message::Close(_) => Kind::Close,
            Message::CloseAck => Kind::CloseAck,
        }
    }

    /// The bytes of the message.
    pub(super) fn encode(&self) -> MessageBytes {
        let mut room = [0; MESSAGE_BYTES_MAX];
        let written = match self {
            Message::Hello(hello) => postcard::to_slice(hello, &mut room),
            Message::Welcome(welcome) => postcard::to_slice(welcome, &mut room),
            Message::Confirm(confirm) => postcard::to_slice(confirm, &mut room),
            Message::Refuse(reason) => postcard::to_slice(reason, &mut room),
            Message::Close(close) => postcard::to_slice(close, &mut room),
            Message::CloseAck => Ok(&mut room[..0]),
        };
        // The longest, a WELCOME of a resume with all numbers at their largest, has 63 bytes: see the test.
        debug_assert!(written.is_ok(), "control messages fit by construction");
        written.ok().and_then(|bytes| MessageBytes::from_slice(bytes).ok()).unwrap_or_default()
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// [`LinkError::Version`] from a HELLO or WELCOME of a version that is not spoken here, whatever else it holds;
    /// [`LinkError::MalformedControl`].
    pub(super) fn decode(kind: u8, bytes: &[u8]) -> Result<Message, LinkError> {
        let malformed = LinkError::MalformedControl { kind, length: bytes.len() };
        let message = match kind {
            1 => {
                let &[theirs_min, theirs_max, ..] = bytes else { return Err(malformed) };
                check_version(theirs_min, theirs_max)?;
                postcard::take_from_bytes(bytes).map(|(hello, _)| Message::Hello(hello))
            }
            2 => {
                let &[version, ..] = bytes else { return Err(malformed) };
                check_version(version, version)?;
                postcard::from_bytes(bytes).map(Message::Welcome)
            }
            3 => postcard::from_bytes(bytes).map(Message::Confirm),
            4 => postcard::from_bytes(bytes).map(Message::Refuse),
            5 => postcard::from_bytes(bytes).map(Message::Close),
            6 => Ok(Message::CloseAck),
            _ => return Err(malformed),
        };
        message.map_err(|_| malformed)
    }
}

fn check_version(theirs_min: u8, theirs_max: u8) -> Result<(), LinkError> {
    if theirs_min > VERSION_MAX || theirs_max < VERSION_MIN || theirs_min > theirs_max {
        return Err(LinkError::Version {
            ours_min: VERSION_MIN,
            ours_max: VERSION_MAX,
            theirs_min,
            theirs_max,
        });
    }
    Ok(())
}

/// What the first packet of a central asks for: `Some(None)` a new session, `Some(Some(id))` to resume one, `None` that
/// it is not the first packet of a central of ours. A peripheral finds the link to give the connection to by it.
pub fn peek_session(packet: &[u8]) -> Option<Option<SessionId>> {
    match Packet::parse(packet, packet.len()).ok()? {
        Packet::Control { kind, piece: 0 | WHOLE, chunk, .. } if kind == Kind::Hello as u8 => {
            let (session, _) = postcard::take_from_bytes(chunk.get(2..)?).ok()?;
            Some(session)
        }
        _ => None,
    }
}

/// Writes the packet that turns a central away because all places are taken, and gives its length; `None` if `out` is shorter
/// than that.
pub(super) fn busy_packet(out: &mut [u8]) -> Option<usize> {
    let mut outbox = Outbox::default();
    outbox.put(Kind::Refuse, Message::Refuse(RefuseReason::Busy).encode());
    let size = out.len();
    if size < CONTROL_HEADER_BYTES + outbox.bytes.len() {
        return None;
    }
    outbox.poll(out, size)
}

/// The control message on its way out: one at a time, the newest counts.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    kind: u8,
    bytes: MessageBytes,
    /// The next piece to be sent, while there is one.
    piece: Option<u8>,
}

impl Outbox {
    pub(super) fn clear(&mut self) {
        *self = Outbox::default();
    }

    /// Puts a message in the place of what was there.
    pub(super) fn put(&mut self, kind: Kind, bytes: MessageBytes) {
        *self = Outbox { kind: kind as u8, bytes, piece: Some(0) };
    }

    /// Sends the message again from its first piece.
    pub(super) fn again(&mut self) {
        if self.kind != 0 {
            self.piece = Some(0);
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.piece.is_some()
    }

    /// Writes the next packet of the message.
    pub(super) fn poll(&mut self, out: &mut [u8], size: usize) -> Option<usize> {
        let number = self.piece?;
        let length = self.bytes.len();
        let (piece, chunk) = if CONTROL_HEADER_BYTES + length <= size {
            self.piece = None;
            (WHOLE, &self.bytes[..])
        } else {
            let start = usize::from(number) * PIECE_BYTES;
            let end = length.min(start + PIECE_BYTES);
            self.piece = (end < length).then_some(number + 1);
            (number, &self.bytes[start..end])
        };
        Some(Packet::Control { kind: self.kind, piece, length: length as u8, chunk }.emit(out, size))
    }
}

/// The control message on its way in.
#[derive(Debug)]
pub(super) struct Inbox {
    kind: u8,
    length: u8,
    /// Bit `i`: piece `i` is there.
    pieces: u8,
    bytes: [u8; MESSAGE_BYTES_MAX],
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox::of(0, 0)
    }
}

impl Inbox {
    /// Waits for the pieces of a message.
    const fn of(kind: u8, length: u8) -> Inbox {
        Inbox { kind, length, pieces: 0, bytes: [0; MESSAGE_BYTES_MAX] }
    }

    pub(super) fn clear(&mut self) {
        *self = Inbox::default();
    }

    /// Takes a piece, as [`Packet::parse`] has checked it; gives the message when it is whole.
    ///
    /// # Errors
    /// [`LinkError::MalformedControl`] for a message that is longer than any.
    pub(super) fn take(
        &mut self,
        kind: u8,
        piece: u8,
        length: u8,
        chunk: &[u8],
    ) -> Result<Option<(u8, MessageBytes)>, LinkError> {
        let total = usize::from(length);
        if total > MESSAGE_BYTES_MAX {
            return Err(LinkError::MalformedControl { kind, length: total });
        }
        if (self.kind, self.length) != (kind, length) {
            *self = Inbox::of(kind, length);
        }
        let (start, arrived) = match piece {
            WHOLE => (0, pieces_mask(total)),
            piece => (usize::from(piece) * PIECE_BYTES, 1 << piece),
        };
        self.bytes[start..start + chunk.len()].copy_from_slice(chunk);
        self.pieces |= arrived;
        if self.pieces != pieces_mask(total) {
            return Ok(None);
        }
        let bytes = MessageBytes::from_slice(&self.bytes[..total]).unwrap_or_default();
        self.clear();
        Ok(Some((kind, bytes)))
    }
}

/// One bit for each piece of a message of `length` bytes; an empty one has one piece.
fn pieces_mask(length: usize) -> u8 {
    let pieces = length.div_ceil(PIECE_BYTES).max(1);
    u8::MAX >> (u8::BITS as usize - pieces)
}

/// What a proof of `role` is computed over: who proves, the HELLO, and the WELCOME up to its own proof.
pub(super) fn transcript(role: Kind, hello: &[u8], welcome: &[u8]) -> Vec<u8, TRANSCRIPT_BYTES_MAX> {
    let mut transcript = Vec::new();
    let welcome = &welcome[..welcome.len().saturating_sub(PROOF_BYTES)];
    // Cannot overflow: each part is a message, and those are bounded.
    let parts: [&[u8]; 3] = [&[role as u8], hello, welcome];
    for part in parts {
        let fits = transcript.extend_from_slice(part).is_ok();
        debug_assert!(fits);
    }
    transcript
}

#[cfg(test)]
mod tests;
