//! The extension between gattway peers at work: many revisions in a message, and one durable answer for many.

#![deny(clippy::disallowed_methods)]

pub(super) mod receiver;
pub(super) mod sender;
