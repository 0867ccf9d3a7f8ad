//! What lets documents go, and stay away, and which indexes were declared: taken from one store to another by backup, restore
//! and repair; and checked.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::super::block::{Codec, SourceNumbers};
use super::super::engine::{Engine, Writes};
use super::super::expiry::time_of;
use super::super::indexes::Definition;
use super::super::keys::{self, CollectionKey, IdHash, IndexKey};
use super::super::removed::Mark;
use super::super::tables::{self, Sources};
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;
use crate::replica::revision::SourceId;

/// The kinds of entries that tell it; the others are made of them.
pub(super) const KINDS: [u8; 5] =
    [keys::EXPIRATION, keys::MARK, keys::HORIZON, keys::AUTHOR_HORIZON, keys::DEFINITION];

/// One of its entries, apart from the numbers of a store.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Kept {
    /// A document expires.
    Expires { key: u16, id: String, time_ms: u64 },
    /// A document was removed. Versions name their authors in full.
    Removed { key: u16, hash: IdHash, mark: Vec<u8> },
    /// All documents up to a time were.
    Horizon { key: u16, time: u64 },
    /// All tombstones of an author up to a time were.
    AuthorHorizon { key: u16, author: [u8; 16], time: u64 },
    /// An index was declared on paths. Its entries are made anew.
    Index { key: u16, number: u16, name: String, paths: Vec<String>, is_dropped: bool },
    /// A document names a blob.
    Blob { key: u16, digest: [u8; 20], id: String },
}

/// Versions name their authors in full.
struct Unnumbered;

impl SourceNumbers for Unnumbered {
    fn number(&self, _: SourceId) -> u32 {
        0
    }

    fn source(&self, _: u32) -> Option<SourceId> {
        None
    }
}

impl Kept {
    /// Of an entry of a store; `None` means damage.
    pub(super) fn of(
        key: &[u8],
        value: &[u8],
        sources: &impl SourceNumbers,
        codec: &mut Codec,
    ) -> Option<Kept> {
        Some(match *key.first()? {
            keys::EXPIRATION => {
                let (collection, id) = keys::expiration_parts(key)?;
                Kept::Expires { key: collection.0, id: id.to_owned(), time_ms: time_of(value)? }
            }
            keys::MARK => {
                let (collection, hash) = keys::mark_parts(key)?;
                let mark = Mark::from_bytes(value, sources, codec)?.to_bytes(&Unnumbered, codec);
                Kept::Removed { key: collection.0, hash, mark }
            }
            keys::HORIZON => {
                let number = key.get(1..)?.try_into().ok()?;
                Kept::Horizon { key: u16::from_be_bytes(number), time: time_of(value)? }
            }
            keys::AUTHOR_HORIZON => {
                let (collection, author) = keys::author_horizon_parts(key)?;
                Kept::AuthorHorizon { key: collection.0, author: author.0, time: time_of(value)? }
            }
            keys::DEFINITION => {
                let index = keys::definition_index(key)?;
                let Definition { name, paths, is_dropped, .. } = Definition::from_bytes(value)?;
                Kept::Index { key: index.collection.0, number: index.number, name, paths, is_dropped }
            }
            keys::BLOB => {
                let (digest, collection, id) = keys::blob_name_parts(key)?;
                Kept::Blob { key: collection.0, digest: digest.0, id: id.to_owned() }
            }
            _ => return None,
        })
    }

    pub(super) fn collection(&self) -> CollectionKey {
        let (Kept::Expires { key, .. }
        | Kept::Removed { key, .. }
        | Kept::Horizon { key, .. }
        | Kept::AuthorHorizon { key, .. }
        | Kept::Index { key, .. }
        | Kept::Blob { key, .. }) = self;
        CollectionKey(*key)
    }

    /// Adds it to the writes of another store; gives how many marks it is, `None` if it is damaged.
    pub(super) fn write(&self, sources: &mut Sources, codec: &mut Codec, writes: &mut Writes) -> Option<u64> {
        let collection = self.collection();
        match self {
            Kept::Expires { id, time_ms, .. } => {
                writes.insert(keys::expiration(collection, id), time_ms.to_be_bytes());
                writes.insert(keys::due(*time_ms, collection, id), []);
            }
            Kept::Horizon { time, .. } => {
                writes.insert(keys::numbered(keys::HORIZON, collection.0), time.to_be_bytes());
            }
            Kept::AuthorHorizon { author, time, .. } => {
                writes.insert(keys::author_horizon(collection, Some(SourceId(*author))), time.to_be_bytes());
            }
            Kept::Index { is_dropped: true, .. } => {}
            Kept::Blob { digest, id, .. } => {
                writes.insert(keys::blob_name(&BlobDigest(*digest), collection, id), []);
            }
            Kept::Index { number, name, paths, .. } => {
                // Without a stamp it is built when the store is opened.
                let (name, paths) = (name.clone(), paths.clone());
                let definition = Definition { name, paths, built: Some(0), is_dropped: false };
                let index = IndexKey { collection, number: *number };
                writes.insert(keys::definition(index), definition.to_bytes());
            }
            Kept::Removed { hash, mark, .. } => {
                let mark = Mark::from_bytes(mark, &Unnumbered, codec)?;
                mark.vector.versions().for_each(|version| sources.intern(version.source));
                writes.insert(keys::mark(collection, Some(*hash)), mark.to_bytes(&*sources, codec));
                writes.insert(keys::marked(mark.minute, collection, *hash), []);
                return Some(1);
            }
        }
        Some(0)
    }
}

/// What does not hold together of it in a store, in words.
pub(super) fn problems(
    engine: &Engine,
    sources: &Sources,
    codec: &mut Codec,
) -> Result<Vec<String>, DatabaseError> {
    let (mut problems, mut expirations, mut marks) = (Vec::new(), 0u64, 0u64);
    for kind in KINDS {
        let (from, to) = keys::kind_range(kind);
        engine.scan(&from, &to, |key, value| {
            let other = match Kept::of(key, value, sources, codec) {
                None => {
                    problems.push(format!("an entry of table {:?} is damaged", char::from(kind)));
                    return Ok(ControlFlow::Continue(()));
                }
                Some(
                    Kept::Horizon { .. }
                    | Kept::AuthorHorizon { .. }
                    | Kept::Index { .. }
                    | Kept::Blob { .. },
                ) => {
                    return Ok(ControlFlow::Continue(()));
                }
                Some(Kept::Expires { key, id, time_ms }) => {
                    expirations += 1;
                    keys::due(time_ms, CollectionKey(key), &id)
                }
                Some(Kept::Removed { key, hash, .. }) => {
                    marks += 1;
                    let minute = value.first_chunk().map_or(0, |minute| u32::from_be_bytes(*minute));
                    keys::marked(minute, CollectionKey(key), hash)
                }
            };
            if engine.get(&other)?.is_none() {
                problems
                    .push(format!("an entry of table {:?} is not in the order of time", char::from(kind)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    for (kind, name, expected) in
        [(keys::DUE, "expirations", expirations), (keys::MARKED, "marks of removed documents", marks)]
    {
        let (mut found, (from, to)) = (0, keys::kind_range(kind));
        engine.scan(&from, &to, |_, _| {
            found += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        if found != expected {
            problems.push(format!("{expected} {name}, {found} in the order of time"));
        }
    }
    let counted = tables::marks(engine)?;
    if counted != marks {
        problems.push(format!("counts {counted} marks of removed documents, has {marks}"));
    }
    Ok(problems)
}
