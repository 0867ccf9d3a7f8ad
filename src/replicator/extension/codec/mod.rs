//! The body of a `revs` message: revisions in columns, so that like stands beside like when deflate sees it.
//!
//! Source: `firmware-notes/replication.md`, extension, byte tables.

mod decode;
mod encode;
mod fold;
mod format;
#[cfg(test)]
mod tests;
mod unfold;

pub use self::decode::decode;
pub use self::encode::RevsEncoder;
pub use self::format::{CodecError, Content, RevEntry, RevsMessage};
pub(super) use self::format::{get, put, unzigzag, zigzag};
