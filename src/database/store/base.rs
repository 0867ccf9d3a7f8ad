//! What a document was when a peer last had it, for deltas: kept beside a document that was edited since, as the delta by which
//! the body of now becomes the one of then. That is short where a delta is worth sending, and nothing is kept where it is not.
//!
//! It is a help, and never needed: one that is missing, damaged, or of another revision than the stored one (an earlier release
//! knows none of this, and edits the document) counts as none.

use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::block::StoredRevision;
use super::engine::Writes;
use super::ground::{VALUE_BYTES_MAX, damaged};
use super::handle::Store;
use super::keys::{self, CollectionKey};
use super::writer::{NewRevision, Writer};
use crate::database::DatabaseError;
use crate::database::packed::{Unpacker, json_len};
use crate::replica::delta::{DELTA_BODY_MAX, DELTA_BODY_MIN, applied_to_object, between_objects};
use crate::replica::revision::{RevId, SourceId, Version};

/// A packed body of fewer bytes is not unpacked to see whether its JSON is long enough.
const PACKED_MIN: usize = 32;

/// The entry of a document.
#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    /// The revision that a peer had.
    base: &'a str,
    /// The stored revision that the delta is applied to: time and source.
    of: (u64, [u8; 16]),
    /// As JSON.
    delta: &'a [u8],
}

impl Store {
    /// The body that a document had at the revision that a peer is known to have, if it is still known: of `stored`, which is what
    /// it is now.
    pub(crate) fn base_body(
        &self,
        key: CollectionKey,
        stored: &StoredRevision,
        revision: RevId,
    ) -> Result<Option<Map<String, Value>>, DatabaseError> {
        if stored.remote_ancestor != Some(revision) {
            return Ok(None);
        }
        let Some(entry) = self.engine().get(&keys::base(key, &stored.id))? else { return Ok(None) };
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        Ok(base_in(&entry, stored, revision, &Unpacker::new(&names, &stored.id)))
    }

    /// Stages to forget those of a collection that is being deleted.
    pub(super) fn forget_bases(&self, key: CollectionKey, writes: &mut Writes) -> Result<(), DatabaseError> {
        let prefix = keys::base(key, "");
        self.engine().scan(&prefix, &keys::kind_range(keys::BASE).1, |entry, _| {
            if !entry.starts_with(&prefix) {
                return Ok(std::ops::ControlFlow::Break(()));
            }
            writes.remove(entry);
            Ok(std::ops::ControlFlow::Continue(()))
        })
    }
}

impl Writer<'_> {
    /// Stages what a document was when a peer had it, if `new` takes the place of `before`; or that this is forgotten.
    pub(super) fn note_base(
        &mut self,
        key: CollectionKey,
        new: Option<&NewRevision>,
        before: Option<&StoredRevision>,
    ) -> Result<(), DatabaseError> {
        let Some(before) = before else { return Ok(()) };
        let entry_key = keys::base(key, &before.id);
        let old = match self.bases.get(&entry_key) {
            Some(staged) => staged.clone(),
            // Only what has such an ancestor has an entry.
            None if before.remote_ancestor.is_some() => {
                self.store.engine().get(&entry_key)?.map(|value| value.to_vec())
            }
            None => None,
        };
        let entry = match new {
            Some(new) => self.base_entry(new, before, old.as_deref())?,
            None => None,
        };
        if entry.is_some() || old.is_some() {
            self.bases.insert(entry_key, entry);
        }
        Ok(())
    }

    fn base_entry(
        &self,
        new: &NewRevision,
        before: &StoredRevision,
        old: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let Some(revision) = new.remote_ancestor.filter(|_| !new.deleted && new.body.len() >= PACKED_MIN)
        else {
            return Ok(None);
        };
        let is_before = revision == before.vector.id();
        if before.deleted || !is_before && old.is_none() {
            return Ok(None);
        }
        let names = self.store.names.read().unwrap_or_else(PoisonError::into_inner);
        let unpacker = Unpacker::new(&names, &new.id);
        let packed = || damaged("a body that was just packed");
        let len = json_len(&unpacker, &new.body).ok_or_else(packed)? as usize;
        if !(DELTA_BODY_MIN..=DELTA_BODY_MAX).contains(&len) {
            return Ok(None);
        }
        let base = match old {
            _ if is_before => unpacker.map(&before.body),
            Some(old) => base_in(old, before, revision, &unpacker),
            None => None,
        };
        let Some(base) = base else { return Ok(None) };
        let now = unpacker.map(&new.body).ok_or_else(packed)?;
        let delta = serde_json::to_vec(&between_objects(&now, &base)).map_err(|_| packed())?;
        let (base, current) = (revision.to_string(), new.vector.current);
        let entry = Entry { base: &base, of: (current.time, current.source.0), delta: &delta };
        let entry = postcard::to_stdvec(&entry).map_err(|_| packed())?;
        // What is no shorter than a good part of the body would not be sent.
        Ok(Some(entry).filter(|entry| entry.len() <= VALUE_BYTES_MAX && delta.len() <= len / 2))
    }
}

/// The body of then, from an entry. Names are read already: to read them twice at once can wait for ever.
fn base_in(
    entry: &[u8],
    stored: &StoredRevision,
    revision: RevId,
    unpacker: &Unpacker<'_>,
) -> Option<Map<String, Value>> {
    let Entry { base, of, delta } = postcard::from_bytes(entry).ok()?;
    let of = Version { time: of.0, source: SourceId(of.1) };
    if base.parse() != Ok(revision) || of != stored.vector.current {
        return None;
    }
    applied_to_object(unpacker.map(&stored.body)?, serde_json::from_slice(delta).ok()?).ok()
}
