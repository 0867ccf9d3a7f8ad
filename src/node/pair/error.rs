//! Why two devices are not paired.

use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::MessagingError;
use crate::node::access::AccessError;
use crate::node::error::ListenError;
use crate::secure::pairing::{PairingCodeError, PairingError};
use crate::trust::files::PrivateFileError;
use crate::trust::list::TrustError;

/// Why two devices are not paired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The identity of this device cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// This is no code.
    #[error("{0}")]
    Code(
        #[doc(hidden)]
        #[from]
        PairingCodeError,
    ),
    /// The code was tried before and was wrong; whoever tries it again may be somebody else.
    #[error("this code was tried before and was wrong: it is good for nothing any more")]
    CodeSpent,
    /// The other device cannot come in there.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Nobody can come in any more.
    #[error("the listener has ended")]
    ListenerEnded,
    /// The other device cannot be reached, or speaks another version.
    #[error("{address}: {error}")]
    #[non_exhaustive]
    Connect {
        /// Where it was to be.
        address: String,
        /// Why not.
        error: MessagingError,
    },
    /// The other device does not have the code, or does not keep to the protocol.
    #[error("not paired: {0}")]
    Refused(#[doc(hidden)] PairingError),
    /// The connection has ended too early.
    #[error("not paired: {reason}")]
    #[non_exhaustive]
    Lost {
        /// When.
        reason: Arc<str>,
    },
    /// No guess is left at the code that was shown.
    #[error("not paired: the code was wrong too often, and is good for nothing now")]
    NoAttemptLeft,
    /// Nobody has paired in this time.
    #[error("not paired within {} s", limit.as_secs())]
    #[non_exhaustive]
    TimedOut {
        /// The time for all of it.
        limit: Duration,
    },
    /// The other device cannot be entered into the trust list, or this one cannot be called so.
    #[error(transparent)]
    List(
        #[doc(hidden)]
        #[from]
        TrustError,
    ),
    /// The guesses at the code cannot be counted.
    #[error("the guesses at pairing codes: {0}")]
    Guesses(#[doc(hidden)] PrivateFileError),
}
