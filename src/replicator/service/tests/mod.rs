//! The rules of the message endpoint, against transports and peers that break them.

mod asked;
mod blobs;
mod foreign;
mod lifecycle;
mod listening;
mod pair;
mod pipe;
mod replication;
pub mod scripted;
mod settings;
mod stream;
