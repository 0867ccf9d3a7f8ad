//! The name of a session, and why one side refuses or ends it, as the other is told.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Names a session across connections; chosen by the peripheral.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub(super) [u8; 8]);

impl SessionId {
    /// A session's name from its number.
    pub const fn new(number: u64) -> SessionId {
        SessionId(number.to_le_bytes())
    }

    /// The name as a number.
    pub const fn number(self) -> u64 {
        u64::from_le_bytes(self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.number())
    }
}

/// Why a side closed the link, as the other side is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CloseReason {
    /// All is done.
    Finished,
    /// This side cannot go on now; a new connection may be tried. The code is the application's.
    Recoverable(u16),
    /// This side will not go on; trying again is no use. The code is the application's.
    Permanent(u16),
    /// The session to be resumed is not known (any more): begin a new one.
    SessionUnknown,
}

impl CloseReason {
    /// Whether a new connection may be tried.
    pub const fn is_recoverable(self) -> bool {
        matches!(self, CloseReason::Recoverable(_) | CloseReason::SessionUnknown)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Finished => f.write_str("finished"),
            CloseReason::Recoverable(code) => write!(f, "cannot go on now, try again (code {code})"),
            CloseReason::Permanent(code) => write!(f, "will not go on (code {code})"),
            CloseReason::SessionUnknown => f.write_str("the session to be resumed is not known there"),
        }
    }
}

/// Why a peer refused a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefuseReason {
    /// No common protocol version; these are the peer's.
    Version {
        /// Its lowest version.
        min: u8,
        /// Its highest version.
        max: u8,
    },
    /// The peer has no such session (any more).
    SessionUnknown,
    /// The proof of the resumed session was wrong.
    ResumeProof,
    /// A number in the handshake is impossible.
    Parameters,
    /// Something else that the protocol forbids; the session is gone.
    Violation,
    /// The peer serves as many as it can; nothing is wrong, another connection may be tried later.
    Busy,
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefuseReason::Version { min, max } => write!(f, "it speaks versions {min} to {max} only"),
            RefuseReason::SessionUnknown => f.write_str("it does not know the session"),
            RefuseReason::ResumeProof => f.write_str("the proof of the resumed session was wrong"),
            RefuseReason::Parameters => f.write_str("a number in the handshake is impossible"),
            RefuseReason::Violation => f.write_str("this side broke the protocol"),
            RefuseReason::Busy => f.write_str("it serves as many peers as it can, try again later"),
        }
    }
}
