//! Whom each side lets in, and how it knows.

use std::sync::Arc;

use crate::endpoint::AccessRule;

/// Says whether a user has this password, and what the user may do: the rule of a connection, or `None` for all that the
/// listener allows. It is called on a thread that must not block; compare in constant time.
pub type PasswordCheck = Arc<dyn Fn(&str, &str) -> Result<Option<AccessRule>, NotAdmitted> + Send + Sync>;

/// The user or the password is wrong; which of them is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAdmitted;

/// Who may sync here.
#[derive(Clone)]
#[non_exhaustive]
pub enum Admission {
    /// Whoever reaches the port.
    Everybody,
    /// Users with a password (HTTP Basic).
    Passwords(PasswordCheck),
    /// Clients with a certificate from one of these roots (PEM); with TLS alone.
    Certificates(Vec<u8>),
}

/// Which servers are believed to be who they say, with `wss`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerTrust {
    /// Those with a certificate for their name from an issuer that this machine trusts, or from one of `extra_roots`.
    System {
        /// Further roots, each a PEM text with one or more certificates.
        extra_roots: Vec<Vec<u8>>,
    },
    /// The one with the first certificate of this PEM text, whatever names and dates are in it.
    Pinned(Vec<u8>),
}
