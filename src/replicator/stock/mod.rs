//! The protocol of Couchbase Lite at work: lists of changes, and a message with its own answer for each revision that the
//! peer wants of them.

#![deny(clippy::disallowed_methods)]

pub(super) mod answers;
pub(super) mod feed;
mod list_tracker;
pub(super) mod pull;
pub(super) mod push;
mod sender;
