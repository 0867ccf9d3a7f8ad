//! The store under the database: records in blocks, indexes, small tables, group commit.
//!
//! The folder `sled` is the only place that names sled, [`engine`] has the durability rule. What is above knows
//! [`StoredRevision`]s by collection, ID and sequence.

mod ahead;
mod background;
mod base;
mod blobs;
mod block;
mod checkpoint;
mod commit;
mod content;
mod engine;
mod expiry;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gathering;
mod ground;
mod handle;
mod index;
mod indexes;
mod indexing;
mod keys;
mod layout;
mod maintenance;
mod meta;
mod pieces;
#[cfg(test)]
mod probe;
mod purged;
mod read;
mod redo;
mod removed;
#[cfg(feature = "simulation")]
mod simulated;
mod sled;
mod space;
mod state;
mod sweep;
mod syncing;
mod tables;
#[cfg(test)]
mod tests;
mod timer;
mod twin;
mod writer;

pub use self::ahead::AHEAD_COUNTED_MAX;
#[cfg(test)]
pub(crate) use self::blobs::CHUNK_BYTES;
pub(crate) use self::blobs::{BLOB_BYTES_MAX, BlobCounts, BlobFile, NewBlob};
pub(crate) use self::block::StoredRevision;
#[cfg(test)]
pub(crate) use self::checkpoint::{CHECKPOINTS_MAX, PEER_CHECKPOINTS_MAX};
pub(crate) use self::checkpoint::{CheckpointOwner, content as checkpoint_content};
pub(crate) use self::engine::EngineCounts;
#[cfg(test)]
pub(in crate::database) use self::engine::SEGMENT_BYTES;
#[cfg(feature = "cli")]
pub(crate) use self::engine::directory_bytes;
pub(crate) use self::handle::Store;
pub(crate) use self::indexes::{Entry, IndexUse, VALUES_BYTES_MAX};
pub use self::indexing::IndexInfo;
pub(crate) use self::indexing::{Cursor, Ranges, Work};
pub(crate) use self::keys::CollectionKey;
#[cfg(feature = "cli")]
pub(crate) use self::layout::lock_file;
pub(crate) use self::layout::{exists, is_writable};
pub use self::maintenance::backup::{BackupInfo, RestoreReport};
pub(crate) use self::maintenance::backup::{check_backup, restore};
pub(crate) use self::maintenance::check::check;
pub use self::maintenance::check::{Damage, VerifyReport};
pub use self::maintenance::renew::RenewReport;
pub(crate) use self::maintenance::renew::renew;
pub use self::maintenance::repair::{DocumentName, SalvageReport};
pub(crate) use self::maintenance::repair::{repair, salvage};
#[cfg(test)]
pub(crate) use self::meta::FORMAT;
#[cfg(test)]
pub(crate) use self::probe::{has_redo_list, log_end};
pub(crate) use self::removed::has_an_age;
#[cfg(test)]
pub(crate) use self::removed::{AUTHORS_MAX, MARKS_MAX};
#[cfg(feature = "simulation")]
pub use self::simulated::{DiskCounts, FileLie, SimulatedDisk};
#[cfg(feature = "cli")]
pub(crate) use self::sled::log::contains_panics;
#[cfg(test)]
pub(crate) use self::sled::tail::REWRITTEN;
pub use self::space::{Lack, Room};
pub(crate) use self::state::CollectionState;
pub use self::twin::Twin;
pub(crate) use self::writer::{CHECKPOINT_BODY_MAX, Memory, NewRevision, OwnVersions, Writer};
