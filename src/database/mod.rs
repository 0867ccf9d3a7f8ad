//! Documents, revisions and the change feed, on a compact sled store.

pub mod revision;
