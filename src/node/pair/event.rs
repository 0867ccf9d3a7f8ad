//! What a pairing tells while it goes on, and what comes of it.

use std::fmt;

use crate::secure::PeerId;

/// Something that happened in a pairing. `Display` gives one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PairEvent<'a> {
    /// The other device can connect now.
    #[non_exhaustive]
    Listening {
        /// Where; for TCP with the real port.
        address: &'a str,
    },
    /// The code that a person must type on the other device.
    #[non_exhaustive]
    Code {
        /// Six digits in two groups: `482 915`.
        code: &'a str,
    },
    /// Somebody has connected and was not let in, before any code was tried. Whoever is near can cause this as often as it
    /// likes.
    #[non_exhaustive]
    Refused {
        /// Where it came from.
        label: &'a str,
        /// Why.
        error: String,
    },
    /// A device has failed.
    #[non_exhaustive]
    Attempt {
        /// Which one.
        peer: PeerId,
        /// Why.
        error: String,
        /// Guesses that are left.
        left: u32,
        /// Whether it has tried a code. One that has not can be caused by whoever is near, as often as it likes.
        counted: bool,
    },
    /// The other device was denied; this pairing lets it in again.
    #[non_exhaustive]
    Readmitted {
        /// Which one.
        peer: PeerId,
    },
}

impl fmt::Display for PairEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PairEvent::Listening { address } => write!(f, "listening on {address}"),
            PairEvent::Code { code } => write!(f, "code: {code}"),
            PairEvent::Refused { label, error } => write!(f, "{label}: {error}"),
            PairEvent::Attempt { peer, error, left: 1, counted: true } => {
                write!(f, "{peer}: {error}; 1 attempt left")
            }
            PairEvent::Attempt { peer, error, left, counted: true } => {
                write!(f, "{peer}: {error}; {left} attempts left")
            }
            PairEvent::Attempt { peer, error, .. } => write!(f, "{peer}: {error}"),
            PairEvent::Readmitted { .. } => f.write_str("it was denied; this pairing lets it in again"),
        }
    }
}

/// A device that is in the trust list now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Paired {
    /// What it proves from now on.
    pub id: PeerId,
    /// Its name in the list of this database.
    pub name: Option<String>,
    /// The other side has said that it has entered this one. Else the connection ended before; if it has not, pair again.
    pub confirmed: bool,
}
