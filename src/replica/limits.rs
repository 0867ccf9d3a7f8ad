//! Limits of what a database holds and a replication carries.

/// Longest document ID, in bytes of UTF-8: Couchbase Lite refuses longer ones.
pub const DOCUMENT_ID_MAX: usize = 240;

/// Largest document body, in bytes of JSON text as it travels: with ID and history it fills one message of 20 MiB, the most
/// that peers take. Larger content belongs into blobs.
pub const DOCUMENT_BODY_MAX: usize = (20 << 20) - DOCUMENT_OVERHEAD_MAX;

/// Bytes that a message may need beside a document's body: ID, history, columns.
pub const DOCUMENT_OVERHEAD_MAX: usize = 64 * 1024;

/// Deepest nesting of objects and arrays in a body, so that no stack grows with what a peer sends.
pub const DOCUMENT_DEPTH_MAX: usize = 100;

/// Longest name of a scope or a collection, in bytes, as in Couchbase Lite.
pub const COLLECTION_NAME_MAX: usize = 251;

/// Longest checkpoint ID of a peer, in bytes.
pub const CHECKPOINT_CLIENT_MAX: usize = 250;

/// Longest checkpoint a peer may store here, in bytes.
pub const CHECKPOINT_SIZE_MAX: usize = 64 << 10;

/// Commits of one session under way at one time: one prepares while the other waits for stable storage.
pub const COMMITS_IN_FLIGHT_MAX: usize = 2;
