//! What a log says of itself: its format, and whose it is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::engine::{Engine, Writes};
use super::ground::io_error;
use super::keys;
use crate::database::DatabaseError;
use crate::database::config::DatabaseConfig;
use crate::replica::revision::{SourceId, Versioning};

/// Version of the stored format. A newer one is refused. Format 1 had no blocks in columns; a database of it becomes one of this with
/// the commit that writes the first.
pub(crate) const FORMAT: u32 = 2;

/// What a log says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Alone in front, so that any release can read it.
    pub(super) format: u32,
    /// 4 version vectors, 3 rev-trees.
    pub(super) generation: u8,
    pub(super) source: SourceId,
}

const GENERATION_VECTORS: u8 = 4;
const GENERATION_TREES: u8 = 3;

impl Meta {
    /// What a database says that is written by this release.
    pub(super) fn newest(source: SourceId, versioning: Versioning) -> Meta {
        let generation = match versioning {
            Versioning::VersionVectors => GENERATION_VECTORS,
            Versioning::RevisionTrees => GENERATION_TREES,
        };
        Meta { format: FORMAT, generation, source }
    }

    /// How it identifies revisions; `None` if this release knows no such way.
    pub(super) fn versioning(&self) -> Option<Versioning> {
        match self.generation {
            GENERATION_VECTORS => Some(Versioning::VersionVectors),
            GENERATION_TREES => Some(Versioning::RevisionTrees),
            _ => None,
        }
    }

    /// That it identifies revisions as whoever opens it wants.
    pub(super) fn check(&self, path: &Path, config: &DatabaseConfig) -> Result<(), DatabaseError> {
        match (self.versioning(), config.versioning) {
            (Some(found), Some(asked)) if found != asked => {
                Err(DatabaseError::OtherVersioning { path: path.to_owned(), found, asked })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, writes: &mut Writes) {
        // Numbers and bytes always have a form.
        writes.insert(keys::META, postcard::to_stdvec(self).unwrap_or_default());
    }
}

/// Reads what the log says of itself, or writes it into a new one; whether it was new.
pub(super) fn open(
    engine: &Engine,
    path: &Path,
    config: &DatabaseConfig,
    new_source: impl FnOnce() -> Result<SourceId, DatabaseError>,
) -> Result<(Meta, bool), DatabaseError> {
    match stored(engine, path)? {
        Some(meta) => meta.check(path, config).map(|()| (meta, false)),
        None => create(engine, config, new_source).map(|meta| (meta, true)),
    }
}

/// Reads what a log says of itself that is only read.
pub(super) fn to_read(
    engine: &Engine,
    path: &Path,
    config: &DatabaseConfig,
) -> Result<Option<Meta>, DatabaseError> {
    let meta = stored(engine, path)?;
    meta.iter().try_for_each(|meta| meta.check(path, config))?;
    Ok(meta)
}

/// Reads what the log says of itself.
pub(super) fn stored(engine: &Engine, path: &Path) -> Result<Option<Meta>, DatabaseError> {
    let Some(bytes) = engine.get(keys::META)? else { return Ok(None) };
    let damaged = || DatabaseError::Damaged { detail: "the format header".into() };
    let (found, _) = postcard::take_from_bytes::<u32>(&bytes).map_err(|_| damaged())?;
    if found > FORMAT {
        return Err(DatabaseError::NewerFormat { path: path.to_owned(), found, supported: FORMAT });
    }
    let meta: Meta = postcard::from_bytes(&bytes).map_err(|_| damaged())?;
    match meta.versioning() {
        Some(_) => Ok(Some(meta)),
        None => {
            Err(DatabaseError::Unsupported { feature: "the way in which the database identifies revisions" })
        }
    }
}

/// The source IDs that a database had before.
pub(super) fn former_sources(value: &[u8]) -> Vec<SourceId> {
    value.chunks_exact(16).filter_map(|bytes| bytes.try_into().ok().map(SourceId)).collect()
}

/// A random ID for a new database.
pub(super) fn new_source() -> Result<SourceId, DatabaseError> {
    let mut source = [0; 16];
    getrandom::fill(&mut source)
        .map_err(|e| io_error("choose an ID", std::io::Error::other(e.to_string())))?;
    Ok(SourceId(source))
}

fn create(
    engine: &Engine,
    config: &DatabaseConfig,
    new_source: impl FnOnce() -> Result<SourceId, DatabaseError>,
) -> Result<Meta, DatabaseError> {
    if engine.first(&[], &[0xff])?.is_some() {
        return Err(DatabaseError::Damaged { detail: "no format header".into() });
    }
    let source = new_source()?;
    let meta = Meta::newest(source, config.versioning.unwrap_or_default());
    let mut writes = Writes::default();
    meta.write(&mut writes);
    writes.insert(keys::numbered(keys::SOURCE, 1), source.0);
    let ticket = engine.apply(writes, Default::default())?;
    engine.sync(ticket, || std::time::Duration::ZERO, |_| ())?;
    Ok(meta)
}
