//! What can go wrong on a link, each with the numbers that a person needs to find out why.

use super::reason::{RefuseReason, SessionId};

/// Why a link, or one attempt to connect it, has failed.
///
/// Whether the session is gone says [`Link::state`](super::Link::state): after an error in a resume handshake it is
/// `Suspended` and the session lives on, after any other it is `Failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The first packet does not begin with our mark: whoever is there speaks another protocol.
    #[error("the peer is not ours: its first packet begins with {first:#04x} instead of our mark")]
    NotOurs {
        /// The first byte that arrived.
        first: u8,
    },
    /// The two sides have no protocol version in common.
    #[error(
        "no common link version: the peer speaks {theirs_min} to {theirs_max}, this side {ours_min} to {ours_max}"
    )]
    Version {
        /// The lowest version of this side.
        ours_min: u8,
        /// The highest version of this side.
        ours_max: u8,
        /// The lowest version of the peer.
        theirs_min: u8,
        /// The highest version of the peer.
        theirs_max: u8,
    },
    /// A packet size outside of the protocol's range.
    #[error("packet size of {actual} bytes, allowed are {min} to {max}")]
    PacketSize {
        /// The size in bytes.
        actual: u16,
        /// The smallest allowed, in bytes.
        min: u16,
        /// The largest allowed, in bytes.
        max: u16,
    },
    /// A window in a handshake that the protocol does not allow.
    #[error("the peer offers a window of {actual}, allowed are {min} to {max}")]
    Window {
        /// What the peer offered, in bytes or packets.
        actual: u32,
        /// The smallest allowed.
        min: u32,
        /// The largest allowed.
        max: u32,
    },
    /// Many packets in a row had the wrong length: the transport cuts them.
    #[error("{count} packets in a row were damaged, the last of {actual} bytes where {expected} were due")]
    Damaged {
        /// Packets in a row.
        count: u32,
        /// The length that the last one should have had, in bytes.
        expected: usize,
        /// The length that it had, in bytes.
        actual: usize,
    },
    /// A packet of a kind that this version does not know.
    #[error("unknown packet kind {first:#04x}")]
    UnknownPacket {
        /// The first byte of the packet.
        first: u8,
    },
    /// A whole control message that cannot be decoded, or has a kind that nobody knows.
    #[error("malformed control message of kind {kind}, {length} bytes")]
    MalformedControl {
        /// The kind of the message.
        kind: u8,
        /// Its length in bytes.
        length: usize,
    },
    /// A control message that has no business in this state or from this role.
    #[error("control message of kind {kind} when it was not due")]
    UnexpectedControl {
        /// The kind of the message.
        kind: u8,
    },
    /// A data packet further ahead than a window reaches.
    #[error("sequence number {sequence} is outside of the window that begins at {expected}")]
    SequenceBeyondWindow {
        /// The number of the packet.
        sequence: u16,
        /// The number that is due next.
        expected: u16,
    },
    /// A data packet without data.
    #[error("data packet {sequence} is empty")]
    EmptyData {
        /// The number of the packet.
        sequence: u16,
    },
    /// Data beyond the credit that this side gave.
    #[error("data up to offset {end}, but credit reaches to {limit} only")]
    CreditExceeded {
        /// Offset of the end of the data in the stream, in bytes.
        end: u64,
        /// The credit, as an offset in the stream.
        limit: u64,
    },
    /// An acknowledgement of what was never sent.
    #[error("the peer acknowledges packet {acknowledged}, but the next to be sent is {next}")]
    AckOfUnsent {
        /// The number that the peer expects next, or a number beyond the next that it claims to have.
        acknowledged: u16,
        /// The number of the next new packet.
        next: u16,
    },
    /// More credit than the peer has buffer.
    #[error("the peer gives credit of {credit} bytes, but said that its buffer has {max}")]
    CreditTooLarge {
        /// Credit beyond what is acknowledged, in bytes.
        credit: u64,
        /// The peer's receive buffer, in bytes.
        max: u64,
    },
    /// Credit that was given is taken back in a resume.
    #[error("the peer takes back credit: it reached to {before}, now to {now}")]
    CreditWithdrawn {
        /// The credit before, as an offset in the stream.
        before: u64,
        /// The credit now.
        now: u64,
    },
    /// A resume at an offset that cannot be.
    #[error("the peer resumes at offset {claimed}, possible are {acknowledged} to {sent}")]
    ResumeOffset {
        /// What the peer says to have received, in bytes.
        claimed: u64,
        /// What it had acknowledged before.
        acknowledged: u64,
        /// What was ever sent to it.
        sent: u64,
    },
    /// The proof that the peer is the same as before is wrong.
    #[error("the proof of the resumed session is wrong: this is not the peer of before")]
    ResumeProof,
    /// A handshake for another session than that of this link.
    #[error("the handshake is for another session than {ours}")]
    SessionMismatch {
        /// The session of this link.
        ours: SessionId,
    },
    /// The peer broke off.
    #[error("the peer broke off: {0}")]
    Refused(RefuseReason),
    /// The peer began anew on the same connection, so its half of the session is gone.
    #[error("the peer has begun a new session on a connection in use: its half of this one is gone")]
    PeerRestarted,
    /// The peer closes at another offset than all that arrived.
    #[error("the peer closes its stream at offset {said}, but {arrived} bytes have arrived")]
    CloseOffset {
        /// The length of the stream, as the peer says it, in bytes.
        said: u64,
        /// The bytes that arrived in order.
        arrived: u64,
    },
    /// The connection was lost before the handshake was done.
    #[error("the connection was lost before there was a session")]
    ConnectionLost,
    /// No handshake within the limit.
    #[error("no handshake within {limit_ms} ms")]
    HandshakeTimeout {
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The session was not resumed within the limit.
    #[error("the session was not resumed within {limit_ms} ms")]
    SessionTimeout {
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// Closing took too long.
    #[error("closed by force after {limit_ms} ms: {unacknowledged} bytes were never acknowledged")]
    CloseTimeout {
        /// The limit in milliseconds.
        limit_ms: u64,
        /// Bytes that the peer may not have.
        unacknowledged: u64,
    },
    /// Connections come and go, but no byte gets across.
    #[error("no progress over {attempts} connections: packets leave, acknowledgements do not come")]
    NoProgress {
        /// Connections in a row that ended without progress.
        attempts: u32,
    },
}
