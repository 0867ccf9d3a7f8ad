//! Doors to what is private, for the fuzz targets in `hw-tests/fuzz`. No public interface: whatever is here may change.

pub use crate::replicator::memory_store::MemoryStore;

/// The link's control messages.
pub mod link {
    pub use crate::link::fuzzing::read_and_write_control;
}

/// Deltas of documents.
pub mod delta {
    use serde_json::{Map, Value};

    use crate::replica::delta;

    /// What a delta makes of a body; `None` if it does not fit.
    pub fn applied(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
        delta::applied(base, delta).ok()
    }

    /// The delta between two bodies.
    pub fn between(base: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
        delta::between_objects(base, new)
    }
}

/// What the database stores.
pub mod store {
    pub use crate::database::fuzzing::*;
}

/// What the command reads.
pub mod cli {
    pub use crate::cli::fuzzing::*;
}

/// Files in the database's directory that say who is who, from their bytes.
pub mod secure {
    use std::path::PathBuf;

    use crate::secure::Identity;
    use crate::trust::files::PrivateFile;
    use crate::trust::group::{self, Group};
    use crate::trust::identity;
    use crate::trust::list::{self, TrustList};

    /// The trust list of a content, and the content that is written for it.
    pub fn trust_list(content: &[u8]) -> Option<(TrustList, Vec<u8>)> {
        let list = TrustList::from_content(content).ok()?;
        let written = list.content().to_vec();
        Some((list, written))
    }

    /// The group of a content, unless its name cannot be one.
    pub fn group(content: &[u8]) -> Option<Group> {
        Group::from_content(content)?.ok()
    }

    /// The identity of a whole file.
    pub fn identity(file: &[u8]) -> Option<Identity> {
        identity::parse(file)
    }

    /// A whole file around a content: the trust list's, or the group's.
    pub fn packed(is_group: bool, content: &[u8]) -> Vec<u8> {
        file(is_group).pack(content).to_vec()
    }

    /// The content of a whole file.
    pub fn unpacked(is_group: bool, bytes: &[u8]) -> Option<Vec<u8>> {
        file(is_group).unpack(bytes, PathBuf::new()).ok().map(|(_, content)| content.to_vec())
    }

    fn file(is_group: bool) -> PrivateFile {
        if is_group { group::FILE } else { list::FILE }
    }
}
