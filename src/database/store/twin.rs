//! That another device goes on with a copy of this database: both give out versions under one source ID, and peers take an
//! edit of one for a successor of the other's.

use super::engine::Engine;
use super::keys;
use crate::database::DatabaseError;
use crate::replica::revision::Version;

/// What showed it: a peer had a version under this database's source ID that this database never gave that document. It was
/// copied to another device, or its files were set back to an earlier state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Twin {
    /// Full name of the document's collection.
    pub collection: String,
    /// The document's ID.
    pub id: String,
    /// The version that was not made here.
    pub version: Version,
    /// When it was noticed, in nanoseconds since 1970 by this device's clock.
    pub noticed_ns: u64,
}

impl Twin {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Version { time, source } = self.version;
        postcard::to_stdvec(&(&self.collection, &self.id, time, source, self.noticed_ns)).unwrap_or_default()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Twin> {
        let (collection, id, time, source, noticed_ns) = postcard::from_bytes(bytes).ok()?;
        Some(Twin { collection, id, version: Version { time, source }, noticed_ns })
    }
}

/// What was noticed in an earlier run. It only warns, so what cannot be read is none.
pub(super) fn stored(engine: &Engine) -> Result<Option<Twin>, DatabaseError> {
    Ok(engine.get(keys::TWIN)?.and_then(|bytes| Twin::from_bytes(&bytes)))
}
