//! Names: scopes and collections, document IDs.

use super::DatabaseError;
use super::config::COLLECTION_NAME_MAX;
use super::error::clip;
use super::validate::check_id;

/// Name of the default scope and the default collection.
pub const DEFAULT_NAME: &str = "_default";

/// The canonical full name of a collection: `_default` for the default one, else `scope.name` (`name` alone means the
/// default scope and becomes `_default.name`).
///
/// # Errors
/// [`DatabaseError::InvalidCollectionName`].
pub fn canonical_collection_name(name: &str) -> Result<String, DatabaseError> {
    let (scope, collection) = name.split_once('.').unwrap_or((DEFAULT_NAME, name));
    match (scope, collection) {
        (DEFAULT_NAME, DEFAULT_NAME) => Ok(DEFAULT_NAME.to_owned()),
        (scope, collection)
            if (scope == DEFAULT_NAME || is_plain_name(scope)) && is_plain_name(collection) =>
        {
            Ok(format!("{scope}.{collection}"))
        }
        _ => Err(DatabaseError::InvalidCollectionName { name: clip(name) }),
    }
}

fn is_plain_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'%');
    (1..=COLLECTION_NAME_MAX).contains(&name.len())
        && !name.starts_with(['_', '%'])
        && name.bytes().all(allowed)
}

/// Checks a document ID.
///
/// # Errors
/// [`DatabaseError::InvalidId`] if it is empty, longer than [`DOCUMENT_ID_MAX`](super::DOCUMENT_ID_MAX), begins with `_` or
/// holds a control character below U+0020: no peer would take it.
pub fn check_document_id(id: &str) -> Result<(), DatabaseError> {
    check_id(id).map_err(|reason| DatabaseError::InvalidId { id: clip(id), reason: reason.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_names() {
        for (given, full) in [
            ("_default", "_default"),
            ("_default._default", "_default"),
            ("logs", "_default.logs"),
            ("_default.logs", "_default.logs"),
            ("plant.line-1%", "plant.line-1%"),
        ] {
            assert_eq!(canonical_collection_name(given).expect(given), full);
        }
        for bad in
            ["", ".", "a.", ".a", "_x", "a._default", "_x.a", "%a", "a.b.c", "a b", "ä", "plant._default"]
        {
            assert!(canonical_collection_name(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
