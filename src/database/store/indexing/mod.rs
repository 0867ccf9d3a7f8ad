//! What is done with indexes on paths ([`super::indexes`]) beside the commits of documents.
//!
//! | module | responsible for |
//! |---|---|
//! | `build` | making, building a piece at a time, dropping |
//! | `background` | who does that, and how fast |
//! | `cursor` | reading entries of ranges, in either direction |

mod background;
mod build;
mod cursor;
#[cfg(test)]
mod tests;

pub use self::build::IndexInfo;
pub(crate) use self::build::Work;
pub(crate) use self::cursor::{Cursor, Ranges};
