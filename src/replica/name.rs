//! Names of scopes and collections, and of the records that a database keeps for itself.

use super::limits::COLLECTION_NAME_MAX;

/// Name of the default scope and the default collection.
pub const DEFAULT_NAME: &str = "_default";

/// What the names of a database's own checkpoints begin with; no peer may store one of such a name.
pub const OWN_PREFIX: &str = "own/";

/// The canonical full name of a collection: `_default` for the default one, else `scope.name` (`name` alone means the
/// default scope and becomes `_default.name`). `None` if no collection can have that name.
pub fn canonical_collection_name(name: &str) -> Option<String> {
    let (scope, collection) = name.split_once('.').unwrap_or((DEFAULT_NAME, name));
    match (scope, collection) {
        (DEFAULT_NAME, DEFAULT_NAME) => Some(DEFAULT_NAME.to_owned()),
        (scope, collection)
            if (scope == DEFAULT_NAME || is_plain_name(scope)) && is_plain_name(collection) =>
        {
            Some(format!("{scope}.{collection}"))
        }
        _ => None,
    }
}

fn is_plain_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'%');
    (1..=COLLECTION_NAME_MAX).contains(&name.len())
        && !name.starts_with(['_', '%'])
        && name.bytes().all(allowed)
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
            assert!(canonical_collection_name(bad).is_none(), "{bad:?} was accepted");
        }
    }
}
