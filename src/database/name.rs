//! Names: scopes and collections, document IDs.

use super::DatabaseError;
use crate::replica::validate::check_id;
use crate::replica::{self, clip};

/// The canonical full name of a collection: `_default` for the default one, else `scope.name` (`name` alone means the
/// default scope and becomes `_default.name`).
///
/// # Errors
/// [`DatabaseError::InvalidCollectionName`].
pub fn canonical_collection_name(name: &str) -> Result<String, DatabaseError> {
    replica::canonical_collection_name(name)
        .ok_or_else(|| DatabaseError::InvalidCollectionName { name: clip(name) })
}

/// Checks a document ID.
///
/// # Errors
/// [`DatabaseError::InvalidId`] if it is empty, longer than [`DOCUMENT_ID_MAX`](super::DOCUMENT_ID_MAX), begins with `_` or
/// holds a control character below U+0020: no peer would take it.
pub fn check_document_id(id: &str) -> Result<(), DatabaseError> {
    check_id(id).map_err(|reason| DatabaseError::InvalidId { id: clip(id), reason: reason.to_string() })
}
