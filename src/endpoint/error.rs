//! The error that crosses between transport and library.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a transport failed, and whether a new connection may help.
#[derive(Clone)]
pub struct MessagingError {
    recoverable: bool,
    message: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl MessagingError {
    /// A failure that a new connection may overcome: the peer is out of range, the link is lost.
    pub fn recoverable(message: impl Into<String>) -> MessagingError {
        MessagingError { recoverable: true, message: message.into(), source: None }
    }

    /// A failure that comes again with every connection: no such address, not permitted, the wrong peer.
    pub fn permanent(message: impl Into<String>) -> MessagingError {
        MessagingError { recoverable: false, message: message.into(), source: None }
    }

    /// Adds the error that caused this one.
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> MessagingError {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Whether the replicator should try again with a new connection; otherwise it stops.
    pub fn is_recoverable(&self) -> bool {
        self.recoverable
    }

    /// What happened, without the source.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<std::io::Error> for MessagingError {
    /// Recoverable, unless the error says that the request itself was wrong or is not allowed.
    fn from(error: std::io::Error) -> MessagingError {
        use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        let recoverable = !matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported);
        MessagingError { recoverable, message: error.to_string(), source: Some(Arc::new(error)) }
    }
}

impl fmt::Display for MessagingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for MessagingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.recoverable { "recoverable" } else { "permanent" };
        write!(f, "MessagingError({kind}: {:?}", self.message)?;
        if let Some(source) = &self.source {
            write!(f, ", from {source:?}")?;
        }
        f.write_str(")")
    }
}

impl Error for MessagingError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
