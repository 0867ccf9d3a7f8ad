//! Choices made when a database is opened, and the limits of what it holds.

use std::time::Duration;

use crate::replica::revision::Versioning;

/// Most collections in one database: a collection is a table of documents, not a key.
pub const COLLECTIONS_MAX: usize = 1000;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// A write returns when stable storage has it: it survives a power cut. Concurrent writers share one sync.
    #[default]
    Synced,
    /// A write returns at once; stable storage has it within half a second. A power cut loses what was written since,
    /// a killed process loses what was not handed to the operating system yet. What is there is always whole commits.
    /// What comes from a peer is synced before the peer is told that it is here, as with [`Durability::Synced`].
    Relaxed,
}

/// Longest time in milliseconds a write of a [`Durability::Relaxed`] database waits for stable storage.
pub const RELAXED_SYNC_MS: u64 = 500;

/// Settings of one open database. The default fits a small device.
/// ```
/// use gattway::database::Durability;
/// use gattway::{Database, DatabaseConfig};
///
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("station.db");
/// let mut config = DatabaseConfig::default();
/// (config.durability, config.cache_bytes) = (Durability::Relaxed, 1 << 20);
/// let readings = Database::open(&path, config)?.create_collection("readings")?;
/// drop(readings);
/// let mut config = DatabaseConfig::default();
/// config.read_only = true;
/// let readings = Database::open(&path, config)?.create_collection("readings")?;
/// assert!(readings.put("boiler", &serde_json::json!({ "celsius": 71.5 })).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// When a write counts as done.
    pub durability: Durability,
    /// How long a commit may wait for others before it is synced, so that they share one sync; whoever made it waits as long to be
    /// told. Zero: none waits.
    pub(crate) commit_delay: Duration,
    /// How revisions are identified. `None`: as the database does; a new one gets version vectors. A database that does it
    /// otherwise is refused with [`DatabaseError::OtherVersioning`](super::DatabaseError::OtherVersioning).
    pub versioning: Option<Versioning>,
    /// Memory for cached pages, bytes. Beyond it pages are read from the file again.
    pub cache_bytes: u64,
    /// Whether a missing database is created.
    pub create: bool,
    /// Opens it to be read alone, and writes no byte: for a medium that cannot be written to. It must exist, and be whole;
    /// opening it reads every page. Others may read it at the same time, and nobody may write.
    pub read_only: bool,
    /// Bytes of the file system that commits leave free: one that could take them is refused with
    /// [`DatabaseError::Full`](super::DatabaseError::Full) before it is begun, and the database goes on when there is room
    /// again. 0: commits are begun until the operating system refuses a write.
    pub keep_free_bytes: u64,
}

impl Default for DatabaseConfig {
    fn default() -> DatabaseConfig {
        DatabaseConfig {
            durability: Durability::default(),
            commit_delay: Duration::ZERO,
            versioning: None,
            cache_bytes: CACHE_BYTES_DEFAULT,
            create: true,
            read_only: false,
            keep_free_bytes: KEEP_FREE_BYTES_DEFAULT,
        }
    }
}

/// Default page cache: a few MiB, as a device with 64 MiB of memory can spare.
pub const CACHE_BYTES_DEFAULT: u64 = 4 * 1024 * 1024;

/// Default of [`DatabaseConfig::keep_free_bytes`]: several of sled's segments and what it writes when it is closed.
pub const KEEP_FREE_BYTES_DEFAULT: u64 = 2 * 1024 * 1024;
