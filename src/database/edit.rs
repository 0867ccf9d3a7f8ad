//! Local edits: what a save, a deletion, a purge or an expiration does to a document.

use super::DatabaseError;
use super::packed::{Unpacker, json_len, pack_json, pack_map};
use super::store::{CollectionKey, Memory, NewRevision, Store, StoredRevision, Writer};
use crate::replica::revision::{RevId, Version, VersionVector, Versioning, child_id};
use crate::replica::validate::{check_numbers, check_size, may_be_too_large};
use crate::replica::{canonical_json, clip};

use std::sync::PoisonError;
use std::time::SystemTime;

use serde_json::{Map, Value};

/// Bytes of a packed body from which on it may stand for more JSON text than a body may have: one byte stands for the
/// document's ID, of which each byte may need an escape.
const PACKED_MEASURED_MIN: usize = 32 * 1024;

/// The latest expiration, the year 9999: what is beyond is taken for it.
const EXPIRATION_MAX: u64 = 253_402_300_799_000;

/// Packs a body of a local edit.
pub(super) fn pack_body(
    store: &Store,
    id: &str,
    body: &Map<String, Value>,
) -> Result<Vec<u8>, DatabaseError> {
    let mut packed = Vec::new();
    pack_map(body, id, store.names(), &mut packed)?;
    if packed.len() >= PACKED_MEASURED_MIN {
        check_packed_size(store, id, &packed)?;
    }
    Ok(packed)
}

/// Packs a body given as JSON text.
pub(super) fn pack_text(store: &Store, id: &str, text: &[u8]) -> Result<Vec<u8>, DatabaseError> {
    check_numbers(text)?;
    pack_checked(store, id, text)
}

/// Packs JSON text in which numbers may be written as a peer writes its doubles.
pub(super) fn pack_checked(store: &Store, id: &str, text: &[u8]) -> Result<Vec<u8>, DatabaseError> {
    let mut packed = Vec::with_capacity(text.len() / 2);
    pack_json(text, id, store.names(), &mut packed).map_err(|reason| DatabaseError::BadBody { reason })?;
    if may_be_too_large(text.len()) {
        check_packed_size(store, id, &packed)?;
    }
    Ok(packed)
}

/// Measures a packed body in the form that travels.
fn check_packed_size(store: &Store, id: &str, packed: &[u8]) -> Result<(), DatabaseError> {
    let names = store.names().read().unwrap_or_else(PoisonError::into_inner);
    let damaged = || DatabaseError::Damaged { detail: "a body that was just packed".into() };
    let size = json_len(&Unpacker::new(&names, id), packed).ok_or_else(damaged)?;
    Ok(check_size(size)?)
}

/// The revision that some peer is known to have of a document whose stored revision is `before`.
pub(super) fn remote_ancestor(
    writer: &Writer<'_>,
    store: &Store,
    collection: CollectionKey,
    before: Option<&StoredRevision>,
) -> Option<RevId> {
    let before = before?;
    // A tree ID does not say who made it: of what came from a peer it is noted that a peer has it.
    let is_from_peer =
        store.versioning != Versioning::RevisionTrees && !store.is_own(before.vector.current.source);
    if is_from_peer || writer.is_pushed(collection, before.sequence) {
        Some(before.vector.id())
    } else {
        before.remote_ancestor
    }
}

/// The revision that a body makes on top of another one, in a database with revision trees.
pub(super) fn tree_edit(
    store: &Store,
    id: &str,
    parent: Option<&VersionVector>,
    deleted: bool,
    packed: &[u8],
) -> Result<VersionVector, DatabaseError> {
    let damaged = || DatabaseError::Damaged { detail: format!("the body of {:?}", clip(id)) };
    let body = match packed {
        [] => "{}".to_owned(),
        packed => {
            let names = store.names().read().unwrap_or_else(PoisonError::into_inner);
            let text = Unpacker::new(&names, id).json(packed).ok_or_else(damaged)?;
            drop(names);
            canonical_json(&serde_json::from_slice(&text).map_err(|_| damaged())?)
        }
    };
    let parent_id = parent.and_then(|parent| parent.trees.first().copied());
    let child = child_id(parent_id, deleted, &body).ok_or(DatabaseError::Unsupported {
        feature: "one more revision of a document that has a million",
    })?;
    Ok(parent.map_or_else(|| VersionVector::at_tree(child), |parent| parent.tree_edited(child)))
}

/// A time as expirations are stored, milliseconds since 1970; a fraction counts as a whole one, so that nothing goes early.
pub(super) fn expiration_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).min(EXPIRATION_MAX)
}

/// One local change, prepared without the writer's lock.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) collection: CollectionKey,
    pub(super) id: String,
    pub(super) kind: EditKind,
    pub(super) expects: Expects,
}

/// What a change does.
#[derive(Debug)]
pub(super) enum EditKind {
    /// Stores this packed body.
    Save(Vec<u8>),
    /// Leaves a tombstone.
    Delete,
    /// Leaves a mark alone.
    Purge,
    /// Lets it go at this time, milliseconds since 1970, or never.
    Expire(Option<u64>),
}

/// What the document has to be for the change to be made.
#[derive(Debug)]
pub(super) enum Expects {
    /// Anything: the last write wins.
    Anything,
    /// Absent or deleted.
    Absent,
    /// At this revision.
    At(Version),
}

/// What a change did.
#[derive(Debug)]
pub(super) struct Edited {
    pub(super) vector: VersionVector,
    pub(super) sequence: u64,
}

impl Edit {
    /// Stages the change; `Ok(None)` if there was nothing to delete or purge.
    ///
    /// # Errors
    /// Of the store; the document is not as expected, or not there to expire.
    pub(super) fn stage(
        self,
        store: &Store,
        writer: &mut Writer<'_>,
    ) -> Result<Option<Edited>, DatabaseError> {
        let before = writer.revision(self.collection, &self.id)?;
        let live = before.as_ref().filter(|b| !b.deleted);
        let is_expected = match self.expects {
            Expects::Anything => true,
            Expects::Absent => live.is_none(),
            Expects::At(version) => live.is_some_and(|b| b.vector.current == version),
        };
        if !is_expected {
            return Err(DatabaseError::Conflict { id: clip(&self.id) });
        }
        let (deleted, body) = match self.kind {
            EditKind::Save(body) => (false, body),
            EditKind::Delete if live.is_none() => return Ok(None),
            EditKind::Delete => (true, Vec::new()),
            EditKind::Purge => {
                let Some(before) = before else { return Ok(None) };
                writer.purge(self.collection, &before, Memory::Mark)?;
                return Ok(Some(Edited { vector: before.vector, sequence: 0 }));
            }
            EditKind::Expire(time_ms) => {
                let Some(before) = before else { return Err(DatabaseError::NotFound { id: clip(&self.id) }) };
                writer.set_expiration(self.collection, &self.id, time_ms);
                return Ok(Some(Edited { vector: before.vector, sequence: before.sequence }));
            }
        };
        if !deleted && let Some(digest) = writer.missing_blob(&self.id, &body, before.as_ref())? {
            return Err(DatabaseError::MissingBlob { digest: digest.to_string() });
        }
        let remote_ancestor = remote_ancestor(writer, store, self.collection, before.as_ref());
        let vector = match (store.versioning, &before) {
            (Versioning::RevisionTrees, before) => {
                let parent = before.as_ref().map(|before| &before.vector);
                let edited = tree_edit(store, &self.id, parent, deleted, &body)?;
                // What a peer has must be found in what it is sent, however many edits there were since.
                let known = remote_ancestor.and_then(|known| known.tree());
                edited.with_closed(known.into_iter().collect())
            }
            (_, None) => VersionVector::new(writer.first_version(self.collection, &self.id)?),
            (_, Some(before)) => before.vector.edited(writer.next_version(&[&before.vector])),
        };
        let new = NewRevision {
            id: self.id.into_boxed_str(),
            vector: vector.clone(),
            deleted,
            remote_ancestor,
            body,
        };
        let sequence = writer.put(self.collection, new, before.as_ref())?;
        Ok(Some(Edited { vector, sequence }))
    }
}
