//! Errors that a passive peer answers with. Domains and codes are those of Couchbase Lite.

#![deny(clippy::disallowed_methods)]

use crate::blip::ErrorReply;
use crate::replica::revision::RevisionError;

/// A `collection` property where none belongs, or none where one does.
pub fn collection_property() -> ErrorReply {
    ErrorReply::http(400, "collection property missing or out of place")
}

/// A collection index beyond the list.
pub fn collection_index() -> ErrorReply {
    ErrorReply::http(400, "collection index out of range")
}

/// `getCollections` that makes no sense.
pub fn collections(reason: &str) -> ErrorReply {
    ErrorReply::blip(400, format!("getCollections: {reason}"))
}

/// A body that is not the JSON that belongs there.
pub fn body() -> ErrorReply {
    ErrorReply::blip(400, "malformed body")
}

/// A checkpoint request without ID.
pub fn no_client() -> ErrorReply {
    ErrorReply::blip(400, "no checkpoint ID")
}

/// The peer may not push.
pub fn push() -> ErrorReply {
    ErrorReply::http(403, "what you push is not taken here: read-only, or your role is to read")
}

/// The peer may not pull.
pub fn pull() -> ErrorReply {
    ErrorReply::http(403, "nothing is given here: your role is to write")
}

/// Another generation of revision IDs.
pub fn versioning() -> ErrorReply {
    ErrorReply::new("LiteCore", 501, "another kind of revision IDs is in use here")
}

/// A revision whose history is malformed or too long.
pub fn versions(error: RevisionError) -> ErrorReply {
    ErrorReply::new("LiteCore", 4, error.to_string())
}

/// `subChanges` with a filter.
pub fn filter() -> ErrorReply {
    ErrorReply::new("LiteCore", 19, "no filters here")
}

/// An entry of a change list that names no document or no revision.
pub fn list_entry(id: &str, revision: &str) -> ErrorReply {
    let clip = |text: &str| text.chars().take(80).collect::<String>();
    ErrorReply::new("LiteCore", 26, format!("change list names {:?} {:?}", clip(id), clip(revision)))
}

/// A list of more bytes or entries than are accepted.
pub fn list_length() -> ErrorReply {
    ErrorReply::http(413, "list too long")
}

/// A place in a feed whose text is longer than any.
pub fn sequence() -> ErrorReply {
    ErrorReply::blip(400, "sequence too long")
}

/// A revision that is not a descendant of the one here.
pub fn conflict() -> ErrorReply {
    ErrorReply::new("LiteCore", 8, "conflicts with the revision here")
}

/// The same, and the peer has listed nothing that it could be with, in the second run now.
pub fn unlisted_conflict() -> ErrorReply {
    ErrorReply::new("LiteCore", 8, "conflicts with a revision there that the peer does not list any more")
}

/// The same, although everything that the peer has was listed for it.
pub fn hidden_conflict() -> ErrorReply {
    ErrorReply::new("LiteCore", 8, "conflicts with a revision there that the peer does not list")
}

/// A revision that the application does not want.
pub fn filtered() -> ErrorReply {
    ErrorReply::http(403, "refused by a filter")
}

/// A delta on a revision that is not here, or that does not fit it: the sender gives the whole body then.
pub fn delta() -> ErrorReply {
    ErrorReply::http(422, "no base revision for this delta")
}

/// A document that is no longer for us and was changed here since the peer had it.
pub fn access_lost() -> ErrorReply {
    ErrorReply::http(403, "access was lost; it stays, for it was changed here and not pushed")
}

/// A document that does not fit into a message.
pub fn too_large() -> ErrorReply {
    ErrorReply::http(413, "document too large to be sent")
}

/// A revision that a newer one has replaced.
pub fn gone() -> ErrorReply {
    ErrorReply::http(404, "no longer here")
}

/// No such blob: none is stored.
pub fn no_blob() -> ErrorReply {
    ErrorReply::new("LiteCore", 7, "no such blob")
}

/// Not a digest.
pub fn digest() -> ErrorReply {
    ErrorReply::new("LiteCore", 9, "missing or malformed digest")
}
