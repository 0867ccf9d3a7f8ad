//! How collections are named, here and on the wire.

use crate::replica::canonical_collection_name;

/// The short name of the default collection.
pub const DEFAULT_COLLECTION: &str = "_default";

/// What stands before the name of a collection of the default scope in its full name, and is left out on the wire.
const DEFAULT_SCOPE: &str = "_default.";

/// The full name under which a collection is compared, of any form a user or a peer may write: `logs` and
/// `_default.logs` are one. A name that no collection can have stays as it is.
pub fn canonical_name(name: &str) -> String {
    canonical_collection_name(name).unwrap_or_else(|| name.to_owned())
}

/// How a collection is named to a peer: Couchbase Lite leaves out the default scope and knows no other form.
pub fn wire_name(canonical: &str) -> &str {
    canonical.strip_prefix(DEFAULT_SCOPE).unwrap_or(canonical)
}
