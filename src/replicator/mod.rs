//! Push, pull, checkpoints and conflicts.

pub mod store;
