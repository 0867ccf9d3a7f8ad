//! What does not hold together, made on purpose: entry by entry in a store, and in logs that are written by hand.

mod rebuild;
pub(super) mod salvaged;
mod verify;
