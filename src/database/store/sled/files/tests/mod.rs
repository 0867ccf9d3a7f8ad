//! Logs that are written by hand, byte by byte: what a survey tells of them, and what is saved.

pub(in crate::database::store) mod salvage;
mod survey;
