//! sled, the log that the store is kept in: the only folder that names its crate.
//!
//! | module | responsible for |
//! |---|---|
//! | `log` | opens, writes and syncs it, and keeps its panics in |
//! | `files` | its files, read without it |
//! | `seal` | whether a log is as it was when it was closed |
//! | `tail` | the end of a log after a crash |
//!
//! What that costs, and what another log would have to do: `firmware-notes/store.md`.

pub(super) mod files;
pub(super) mod log;
pub(super) mod seal;
pub(super) mod tail;
