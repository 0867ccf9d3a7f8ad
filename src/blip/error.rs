//! What can go wrong on a BLIP connection.

/// A violation by the peer (from `handle_frame`; the connection is then dead) or by the caller (from a command; nothing
/// was changed).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlipError {
    /// A variable-length integer that is cut off.
    #[error("truncated integer in {what}")]
    TruncatedInteger {
        /// The field.
        what: &'static str,
    },
    /// A variable-length integer above 64 bits.
    #[error("integer of more than 64 bits in {what}")]
    IntegerOverflow {
        /// The field.
        what: &'static str,
    },
    /// A frame too short to hold its checksum.
    #[error("frame of {actual} bytes after its header, at least {min} expected")]
    FrameTooShort {
        /// Fewest bytes that must follow the header.
        min: usize,
        /// Bytes that follow it.
        actual: usize,
    },
    /// A frame above the limit.
    #[error("frame of {actual} bytes, at most {max} are accepted")]
    FrameTooLarge {
        /// The limit in bytes.
        max: usize,
        /// What arrived, in bytes.
        actual: usize,
    },
    /// The running checksum does not match.
    #[error("checksum of message {number} is {actual:08x}, frame says {expected:08x}")]
    BadChecksum {
        /// Message the frame belongs to.
        number: u64,
        /// In the frame.
        expected: u32,
        /// Computed.
        actual: u32,
    },
    /// A compressed payload that is not the continuation of the peer's deflate stream.
    #[error("compressed payload of message {number} is corrupt")]
    BadDeflate {
        /// Message the frame belongs to.
        number: u64,
    },
    /// A message, or its decompressed form, above the limit.
    #[error("message {number} has more than {max} bytes")]
    MessageTooLarge {
        /// Message number.
        number: u64,
        /// The limit in bytes.
        max: usize,
    },
    /// Properties above the limit.
    #[error("message {number} has {actual} bytes of properties, at most {max} are accepted")]
    PropertiesTooLarge {
        /// Message number; 0 for one that was not sent.
        number: u64,
        /// The limit in bytes.
        max: usize,
        /// What was announced, in bytes.
        actual: u64,
    },
    /// Properties that are cut off, not pairs, or not UTF-8.
    #[error("message {number} has malformed properties")]
    MalformedProperties {
        /// Message number.
        number: u64,
    },
    /// A request that does not begin in order.
    #[error("request {actual} begins out of order, {expected} was expected")]
    OutOfOrder {
        /// The next number in order.
        expected: u64,
        /// The frame's number.
        actual: u64,
    },
    /// A reply to a request that was not sent, or was answered already, or asked for no reply.
    #[error("reply to request {number}, which awaits none")]
    UnexpectedReply {
        /// Message number.
        number: u64,
    },
    /// A message whose frames disagree about what it is.
    #[error("frames of message {number} are of different types")]
    MixedTypes {
        /// Message number.
        number: u64,
    },
    /// Too many unfinished messages.
    #[error("more than {max} unfinished messages")]
    TooManyOpenMessages {
        /// The limit.
        max: usize,
    },
    /// Unfinished messages hold too many bytes together.
    #[error("unfinished messages hold more than {max} bytes")]
    TooManyOpenBytes {
        /// The limit in bytes.
        max: usize,
    },
    /// Unfinished messages of all connections hold too many bytes together.
    #[error("unfinished messages of all peers hold more than {max} bytes")]
    SharedBytesUsedUp {
        /// The limit in bytes.
        max: usize,
    },
    /// Too many requests wait for an answer.
    #[error("more than {max} unanswered requests")]
    TooManyUnanswered {
        /// The limit.
        max: usize,
    },
    /// The caller replies to a request that has not arrived.
    #[error("request {number} has not arrived")]
    NoSuchRequest {
        /// Message number.
        number: u64,
    },
    /// The connection failed before; this is why.
    #[error("connection has failed: {0}")]
    Failed(Box<BlipError>),
}
