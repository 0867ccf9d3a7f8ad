//! What a database tells of itself.

use super::store::Room;
use crate::replica::revision::{SourceId, Versioning};

/// What a database holds and has done since it was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DatabaseInfo {
    /// The author ID of this database.
    pub source: SourceId,
    /// How it identifies revisions.
    pub versioning: Versioning,
    /// Version of the stored format.
    pub format: u32,
    /// Collections with their count of documents and newest sequence.
    pub collections: Vec<CollectionInfo>,
    /// Bytes of all its files.
    pub disk_bytes: u64,
    /// Commits since it was opened.
    pub commits: u64,
    /// Syncs to stable storage since it was opened; several commits can share one.
    pub syncs: u64,
    /// Versions seen since it was opened whose time is more than a day ahead of the wall clock: a
    /// peer's clock is wrong, or this device's.
    pub versions_ahead: u64,
    /// Whole blobs.
    pub blobs: u64,
    /// Bytes of their content.
    pub blob_bytes: u64,
    /// Free space.
    pub room: Room,
}

/// One collection in [`DatabaseInfo`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CollectionInfo {
    /// Full name.
    pub name: String,
    /// Documents, without tombstones.
    pub documents: u64,
    /// Newest sequence.
    pub last_sequence: u64,
}
