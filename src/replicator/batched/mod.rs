//! The extension between gattway peers at work: many revisions in a message, and one durable answer for many.

#![deny(clippy::disallowed_methods)]

pub(super) mod feed;
mod form;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod receiver;
mod sender;
mod unit_tracker;

#[cfg(test)]
mod tests;
