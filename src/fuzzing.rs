//! Doors to what is private, for the fuzz targets in `hw-tests/fuzz`. No public interface: whatever is here may change.

pub use crate::replicator::memory_store::MemoryStore;

/// The link's control messages.
pub mod link {
    pub use crate::link::fuzzing::read_and_write_control;
}

/// What the database stores.
pub mod store {
    pub use crate::database::fuzzing::*;
}

/// What the command reads.
pub mod cli {
    pub use crate::cli::fuzzing::*;
}
