//! Two sessions back to back over a modelled pipe, each with a store in memory.

use super::memory_store;

mod authors;
mod clocks;
mod conflicts;
mod convergence;
mod cost;
mod crossing;
mod database;
mod entry;
mod exchange;
mod hostile;
mod lists;
mod pair;
mod probes;
mod progress;
mod scripted;
mod trees;
mod unsynced;
