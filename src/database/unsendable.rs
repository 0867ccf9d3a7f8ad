//! What a database holds that no peer can be sent, because an earlier release took it. Found by looking at every document;
//! what peers have refused is remembered, and shown by `unsynced`.

use std::sync::PoisonError;

use super::packed::Unpacker;
use super::store::StoredRevision;
use super::{Database, DatabaseError};
use crate::replica::validate::{Invalid, check_stored};

/// Revisions looked at together, and bytes of their bodies as stored: each may be of the largest size.
const PAGE_ROWS: usize = 512;
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Documents that no peer can be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsendable {
    /// How many there are.
    pub count: u64,
    /// The first of them, as many as were asked for.
    pub named: Vec<UnsendableDocument>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnsendableDocument {
    /// Full name of its collection.
    pub collection: String,
    /// Its ID.
    pub id: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl Database {
    /// Documents and tombstones that no peer can be sent; names the first `named_max`. Looks at all of them.
    ///
    /// # Errors
    /// Of the store.
    pub(crate) fn unsendable(&self, named_max: usize) -> Result<Unsendable, DatabaseError> {
        let mut found = Unsendable::default();
        for name in self.collections() {
            let Some(key) = self.store.collection_key(&name) else { continue };
            let mut since = 0;
            loop {
                let revisions = self.store.changes_within(key, since, u64::MAX, PAGE_ROWS, PAGE_BYTES_MAX)?;
                let Some(last) = revisions.last() else { break };
                since = last.sequence;
                for revision in &revisions {
                    let Err(invalid) = self.check_revision(revision)? else { continue };
                    found.count += 1;
                    if found.named.len() < named_max {
                        let (id, reason) = (revision.id.to_string(), invalid.to_string());
                        found.named.push(UnsendableDocument { collection: name.clone(), id, reason });
                    }
                }
            }
        }
        Ok(found)
    }

    fn check_revision(&self, revision: &StoredRevision) -> Result<Result<(), Invalid>, DatabaseError> {
        if revision.body.is_empty() {
            return Ok(check_stored(&revision.id, 0, None));
        }
        let names = self.store.names().read().unwrap_or_else(PoisonError::into_inner);
        let damaged = || DatabaseError::Damaged { detail: format!("the body of {:?}", revision.id) };
        let json = Unpacker::new(&names, &revision.id).json(&revision.body).ok_or_else(damaged)?;
        Ok(check_stored(&revision.id, json.len() as u64, Some(&json)))
    }
}
