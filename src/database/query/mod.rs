//! Queries: which documents, in which order, what of them, and what groups of them come to.
//!
//! A [`Query`] is put together in Rust or read from JSON, and checked when it is run (`plan`). Values are compared by encodings
//! whose bytes sort as the values do (`value`); `rows` reads the documents. Everything that a query may have, and that it may
//! take in memory, has a limit.
//!
//! Source: `firmware-notes/query.md`.

mod access;
mod bookmark;
mod filter;
mod groups;
mod indexed;
mod json;
mod moment;
mod plan;
mod record;
mod rows;
mod spec;
#[cfg(test)]
mod tests;

pub use self::filter::{Filter, Test};
#[cfg(feature = "mqtt")]
pub(crate) use self::moment::{moment, moment_text};
pub use self::rows::Rows;
#[cfg_attr(not(feature = "cli"), allow(unused_imports))] // for the gateway
pub(crate) use self::rows::Step;
pub use self::spec::{Aggregate, Query};
