//! What the two protocols of the replicator do differently: `stock` as Couchbase Lite does it, a message for each revision, and `batched`,
//! the extension between gattway peers, many revisions in a message. Which one a connection speaks is agreed in its first
//! round trip; nothing above these traits asks again.

#![deny(clippy::disallowed_methods)]

pub(super) mod conflicts;
pub(super) mod feed;
pub(super) mod pull;
pub(super) mod push;
