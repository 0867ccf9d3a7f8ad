//! Indexes that are declared on paths: every document of the collection has one entry in each, in order of what it has there.
//!
//! | module | responsible for |
//! |---|---|
//! | `pages` | entries in pages, and how a commit changes them |
//! | `state` | what an index is, how far it is built, who reads it |
//!
//! Entries are changed in the commit that changes the document ([`super::writer`]); indexes are made, built and read by
//! [`super::indexing`]. Beside the entries stands what the collection was at its last commit that knew of indexes (the *stamp*):
//! where that is not what the collection is, a program that knows none has written, and they are built anew.

pub(super) mod pages;
mod state;

pub(super) use self::pages::{Edit, copy, count, find};
pub(crate) use self::pages::{Entry, VALUES_BYTES_MAX};
pub(super) use self::state::{Definition, Indexes, Life, Stamp, load};
pub(crate) use self::state::{IndexUse, Secondary};
