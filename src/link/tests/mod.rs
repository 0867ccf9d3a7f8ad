//! Two links against each other over a channel that does its worst, stepped by a virtual clock; each failure prints the
//! seed that brings it back.

mod closing;
mod credit;
mod edges;
#[cfg(feature = "std")]
mod goodput;
mod handshake;
mod hostile;
mod notes;
mod pair;
mod proof;
mod resume;
mod storm;
