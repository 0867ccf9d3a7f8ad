//! The rules of the message endpoint, against transports and peers that break them.

mod lifecycle;
mod listening;
mod pipe;
mod replication;
mod scripted;
mod stream;
