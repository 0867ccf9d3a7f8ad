//! Push, pull, checkpoints and conflicts.

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod event;
pub mod messages;
pub mod resolver;
pub mod sequences;
pub mod store;
