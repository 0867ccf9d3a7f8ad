//! What an open stream is made of.

use tokio::io::{AsyncRead, AsyncWrite};

/// The two directions of an open stream.
pub(super) struct Halves {
    pub(super) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Whether closing the writer tells the peer; if not, there is no use in waiting for the peer's end.
    pub(super) full_close: bool,
}
