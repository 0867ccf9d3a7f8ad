//! What is done to a whole store, seldom: functions over it, and over the files of one that is not open.
//!
//! | module | responsible for |
//! |---|---|
//! | `backup` | a backup in one stream, and a store from it |
//! | `check` | whether all that is stored holds together |
//! | `compact` | a new log with what is live |
//! | `kept` | what lets documents go and stay away, and declared indexes, from one store to another |
//! | `named` | whether blobs are what documents name |
//! | `rebuild` | a new store of revisions that come in order |
//! | `renew` | a new source ID, for a copy |
//! | `repair`, `salvaged` | what can be saved of a damaged store |

pub(super) mod backup;
pub(super) mod check;
pub(super) mod compact;
mod kept;
mod named;
mod rebuild;
pub(super) mod renew;
pub(super) mod repair;
mod salvaged;

#[cfg(test)]
mod tests;
