//! The limits of one BLIP connection.

use super::budget::Budget;

/// Longest frame a sender makes, header and checksum included, in bytes.
pub const FRAME_SIZE_MAX: usize = 16_384;

/// Longest frame of an ordinary message while an urgent one waits, in bytes, so that the urgent one soon has its turn.
pub const FRAME_SIZE_MAX_WHILE_URGENT: usize = 4_096;

/// Longest frame accepted from a peer, in bytes: the message limit of the framing below.
pub const FRAME_SIZE_ACCEPTED_MAX: usize = 1 << 20;

/// Most bytes of a message after decompression, properties included: the largest document a server of this protocol takes
/// is 20 MB.
pub const MESSAGE_SIZE_MAX: usize = 20 << 20;

/// Most bytes of encoded properties in a message.
pub const PROPERTIES_SIZE_MAX: usize = 100 * 1024;

/// A receiver acknowledges an unfinished message whenever this many of its bytes are unacknowledged.
pub const ACK_THRESHOLD: u64 = 50_000;

/// A sender pauses a message when more than this many of its bytes are unacknowledged.
pub const UNACKNOWLEDGED_MAX: u64 = 128_000;

/// Bytes of unfinished messages that a connection has for itself: only what is beyond comes out of a shared
/// [`Budget`], so that one that is used up does not stop the others' ordinary messages.
pub const OPEN_BYTES_OWN: usize = 256 * 1024;

/// Settings and limits of a [`Connection`](super::Connection). What a peer does beyond a limit ends the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlipConfig {
    /// Deflate level of messages that ask for compression, 0..=9; 0 sends them uncompressed. Higher values act as 9.
    pub compression_level: u32,
    /// Most bytes of one message after decompression, properties included, in both directions.
    pub message_size_max: usize,
    /// Most bytes of encoded properties in one message, in both directions.
    pub properties_size_max: usize,
    /// Most messages of the peer that have begun and not ended.
    pub open_messages_max: usize,
    /// Most bytes that all begun and not ended messages of the peer may hold together.
    pub open_bytes_max: usize,
    /// What those of several connections may hold together; `None`: each has its own limit alone.
    pub open_bytes_shared: Option<Budget>,
    /// Most requests of the peer that have arrived and are not answered yet.
    pub unanswered_requests_max: usize,
}

impl Default for BlipConfig {
    fn default() -> BlipConfig {
        BlipConfig {
            compression_level: 6,
            message_size_max: MESSAGE_SIZE_MAX,
            properties_size_max: PROPERTIES_SIZE_MAX,
            // Couchbase Lite keeps 10 revisions, 5 change lists and a few attachments open.
            open_messages_max: 256,
            open_bytes_max: 40 << 20,
            open_bytes_shared: None,
            unanswered_requests_max: 4_096,
        }
    }
}
