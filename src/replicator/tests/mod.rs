//! Two sessions back to back over a modelled pipe, each with a store in memory.

mod convergence;
mod cost;
mod database;
mod exchange;
mod hostile;
mod memory_store;
mod pair;
