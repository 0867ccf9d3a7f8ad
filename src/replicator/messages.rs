//! The replication messages on the wire: names and bodies, and (`refuse`) error replies. No state. One file,
//! because each message's reading and writing stand side by side.
//!
//! Source: `firmware-notes/replication.md`, messages.

#![deny(clippy::disallowed_methods)]

pub mod refuse;
pub mod trees;

use serde_json::Value;
use serde_json::value::RawValue;

use super::bounded_json::{self, ListError};
use super::config::{COLLECTIONS_MAX, LIST_ENTRIES_MAX};
pub use super::names::{DEFAULT_COLLECTION, canonical_name, wire_name};
use super::sequences::RemoteSequence;
use crate::blip::{ErrorReply, OutgoingMessage, Properties};
use crate::replica::revision::{RevId, VersionVector, Versioning};
use crate::replica::store::{Change, Rejection};
use crate::replica::validate::{check_id, check_stored};

/// The property by which `getCollections` names the connection for the logs of both sides.
pub const CORRELATION: &str = "uuid";

/// Longest JSON list of a peer, in bytes, so that what it unfolds to in memory stays small.
const LIST_BYTES_MAX: usize = 4 << 20;

/// Longest text of a place in a peer's feed, in bytes; a server's compound ones take some dozens. Each change that is
/// under way holds one, and so does the checkpoint.
pub(super) const SEQUENCE_TEXT_MAX: usize = 256;

/// Versions taken from the answer to one change; Couchbase Lite names a few.
const ANCESTORS_MAX: usize = 16;

/// Names of request types.
pub mod profile {
    #![allow(missing_docs)]
    pub const GET_COLLECTIONS: &str = "getCollections";
    pub const GET_CHECKPOINT: &str = "getCheckpoint";
    pub const SET_CHECKPOINT: &str = "setCheckpoint";
    pub const SUB_CHANGES: &str = "subChanges";
    pub const CHANGES: &str = "changes";
    pub const PROPOSE_CHANGES: &str = "proposeChanges";
    pub const REV: &str = "rev";
    pub const NOREV: &str = "norev";
    pub const GET_ATTACHMENT: &str = "getAttachment";
    pub const PROVE_ATTACHMENT: &str = "proveAttachment";
    /// Of the extension between gattway peers.
    pub const REVS: &str = "revs";

    /// All of them, for tests and fuzz targets that try each.
    pub const ALL: [&str; 11] = [
        GET_COLLECTIONS,
        GET_CHECKPOINT,
        SET_CHECKPOINT,
        SUB_CHANGES,
        CHANGES,
        PROPOSE_CHANGES,
        REV,
        NOREV,
        REVS,
        GET_ATTACHMENT,
        PROVE_ATTACHMENT,
    ];
}

/// Keys of properties that have a meaning in some request, for tests and fuzz targets that try each.
pub const PROPERTY_KEYS: [&str; 18] = [
    "collection",
    "client",
    "rev",
    "id",
    "history",
    "sequence",
    "since",
    "batch",
    "offer",
    "versioning",
    "gattway",
    "deleted",
    "digest",
    "continuous",
    "activeOnly",
    "noconflicts",
    "conflictIncludesRev",
    "filter",
];

/// The error reply for a revision that the store refused.
pub fn rejection_error(rejection: &Rejection) -> ErrorReply {
    let (domain, code) = match rejection {
        Rejection::BadBody(_) => ("LiteCore", 5),
        Rejection::BadId { .. } => ("LiteCore", 29),
        Rejection::TooLarge { .. } => ("HTTP", 413),
        Rejection::BadRevision(_) => ("HTTP", 400),
        Rejection::Resolver(_) => ("HTTP", 500),
        // As Couchbase Lite answers when it cannot get a blob.
        Rejection::MissingBlob { .. } => ("LiteCore", 7),
        Rejection::CorruptBlob { .. } => ("LiteCore", 15),
    };
    ErrorReply::new(domain, code, rejection.to_string())
}

/// The error reply for an ID that no document may have.
pub fn id_error(id: &str) -> Option<ErrorReply> {
    let reason = check_id(id).err()?;
    Some(rejection_error(&Rejection::bad_id(id, &reason)))
}

/// Why no peer can be sent a stored revision, which an earlier release has taken.
pub fn unsendable(change: &Change, body_size_max: usize) -> Option<ErrorReply> {
    let size = change.body.as_ref().map_or(change.body_size, |body| body.len() as u64);
    if size > body_size_max as u64 {
        return Some(refuse::too_large());
    }
    let invalid = check_stored(&change.id, size, change.body.as_deref()).err()?;
    Some(rejection_error(&Rejection::of_stored(&change.id, invalid)))
}

/// An entry of `changes`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeEntry {
    /// Its place in the peer's feed.
    pub sequence: RemoteSequence,
    /// The document's ID; not checked.
    pub id: String,
    /// The revision; of a server possibly the current version alone.
    pub vector: VersionVector,
    /// 1 deleted, 2 access revoked, 4 removed from all channels.
    pub flags: u64,
}

/// An entry of `changes` that names no document or no revision.
#[derive(Clone, Debug, PartialEq)]
pub struct BadEntry {
    /// Its place in the peer's feed.
    pub sequence: RemoteSequence,
    /// The document's ID, if it names one; not checked.
    pub id: String,
    /// What is wrong.
    pub error: ErrorReply,
}

/// An entry of `proposeChanges`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProposedEntry {
    /// The document's ID; not checked.
    pub id: String,
    /// The revision, mostly the current version alone.
    pub vector: VersionVector,
    /// The newest revision the proposer knows the receiver had.
    pub known: Option<VersionVector>,
}

/// Items of a list entry that have a meaning here.
const ENTRY_ITEMS: usize = 4;

/// The items of one entry, as JSON text.
type EntryItems<'a> = [Option<&'a RawValue>; ENTRY_ITEMS];

/// Reads a JSON array of arrays within the limits.
fn parse_list(body: &[u8]) -> Result<Vec<EntryItems<'_>>, ErrorReply> {
    if body.len() > LIST_BYTES_MAX {
        return Err(refuse::list_length());
    }
    bounded_json::rows(body, LIST_ENTRIES_MAX).map_err(|error| match error {
        ListError::TooLong => refuse::list_length(),
        ListError::Malformed => refuse::body(),
    })
}

fn text(item: Option<&RawValue>) -> String {
    item.and_then(bounded_json::string).unwrap_or_default()
}

fn entry_vector(id: &str, revision: &str) -> Result<VersionVector, ErrorReply> {
    if id.is_empty() {
        return Err(refuse::list_entry(id, revision));
    }
    VersionVector::from_list_text(revision).map_err(|_| refuse::list_entry(id, revision))
}

/// Reads the body of `changes`, where one bad entry makes the list bad, as for a stock passive peer.
///
/// # Errors
/// The error reply that is due.
pub fn parse_changes(body: &[u8]) -> Result<Vec<ChangeEntry>, ErrorReply> {
    parse_change_entries(body)?.into_iter().map(|entry| entry.map_err(|bad| bad.error)).collect()
}

/// Reads the body of `changes`; what is wrong with an entry stands in its place.
///
/// # Errors
/// The error reply that is due to the whole list.
pub fn parse_change_entries(body: &[u8]) -> Result<Vec<Result<ChangeEntry, BadEntry>>, ErrorReply> {
    if body.is_empty() || body == b"[]" {
        return Ok(Vec::new());
    }
    let entry = |[sequence, id, revision, flags]: EntryItems<'_>| {
        let (id, revision) = (text(id), text(revision));
        let flags = match flags.map_or("0", RawValue::get) {
            "true" => 1,
            number => number.parse().unwrap_or(0),
        };
        let sequence = sequence.map_or("null", RawValue::get);
        if sequence.len() > SEQUENCE_TEXT_MAX {
            return Err(refuse::sequence());
        }
        let sequence = RemoteSequence::from_json(sequence);
        Ok(match entry_vector(&id, &revision) {
            Ok(vector) => Ok(ChangeEntry { sequence, vector, id, flags }),
            Err(error) => Err(BadEntry { sequence, id, error }),
        })
    };
    parse_list(body)?.into_iter().map(entry).collect()
}

/// Reads the body of `proposeChanges`.
///
/// # Errors
/// The error reply that is due.
pub fn parse_proposals(body: &[u8]) -> Result<Vec<ProposedEntry>, ErrorReply> {
    let entry = |[id, revision, known, _]: EntryItems<'_>| {
        let (id, revision, known) = (text(id), text(revision), text(known));
        let vector = entry_vector(&id, &revision)?;
        let known = if known.is_empty() { None } else { VersionVector::from_list_text(&known).ok() };
        Ok(ProposedEntry { vector, id, known })
    };
    parse_list(body)?.into_iter().map(entry).collect()
}

/// What a peer answers about one entry of a list.
#[derive(Clone, Debug, PartialEq)]
pub enum ListAnswer {
    /// Send it.
    Wanted {
        /// Versions of the document that the peer has, as bases for a delta.
        ancestors: Vec<RevId>,
    },
    /// The peer has it, or does not want it.
    Unwanted,
    /// It conflicts with what the peer has.
    Conflict {
        /// The peer's revision, if it says which.
        rev: Option<VersionVector>,
    },
    /// The peer does not have the document at all, so not what it was said to have of it.
    Lacking,
    /// Refused with a status.
    Refused(i32),
}

/// Reads the reply to `changes`; entries left out at the end are unwanted. `None` if it is malformed.
pub fn parse_changes_reply(body: &[u8], entries: usize) -> Option<Vec<ListAnswer>> {
    let items = parse_answers(body, entries)?;
    let answer = |item: &&RawValue| match item.get().as_bytes() {
        list @ [b'[', ..] => {
            let ancestors = bounded_json::first_items(list, ANCESTORS_MAX);
            let ancestors = ancestors.into_iter().filter_map(|a| bounded_json::string(a)?.parse().ok());
            ListAnswer::Wanted { ancestors: ancestors.collect() }
        }
        _ => ListAnswer::Unwanted,
    };
    let mut answers: Vec<ListAnswer> = items.iter().map(answer).collect();
    answers.resize(entries, ListAnswer::Unwanted);
    Some(answers)
}

/// Reads the reply to `proposeChanges`; entries left out at the end are wanted. `None` if it is malformed.
pub fn parse_proposals_reply(body: &[u8], entries: usize) -> Option<Vec<ListAnswer>> {
    let items = parse_answers(body, entries)?;
    let wanted = || ListAnswer::Wanted { ancestors: Vec::new() };
    let status = |status: i64, rev: Option<VersionVector>| match status {
        0 => wanted(),
        304 => ListAnswer::Unwanted,
        409 => ListAnswer::Conflict { rev },
        other => ListAnswer::Refused(i32::try_from(other).unwrap_or(500)),
    };
    let number = |item: &RawValue| item.get().parse::<i64>().unwrap_or(0);
    let answer = |item: &&RawValue| match item.get().as_bytes() {
        object @ [b'{', ..] => {
            let member = |key| bounded_json::member(object, key).ok().flatten();
            let rev = member("rev").and_then(bounded_json::string);
            let lacks = rev.as_ref().is_some_and(String::is_empty);
            let rev = rev.and_then(|rev| VersionVector::from_list_text(&rev).ok());
            match status(member("status").map_or(0, number), rev) {
                ListAnswer::Conflict { .. } if lacks => ListAnswer::Lacking,
                answer => answer,
            }
        }
        _ => status(number(item), None),
    };
    let mut answers: Vec<ListAnswer> = items.iter().map(answer).collect();
    answers.resize_with(entries, wanted);
    Some(answers)
}

fn parse_answers(body: &[u8], entries: usize) -> Option<Vec<&RawValue>> {
    if body.is_empty() {
        return Some(Vec::new());
    }
    if body.len() > LIST_BYTES_MAX {
        return None;
    }
    bounded_json::items(body, entries).ok()
}

/// Writes the reply to `changes` or `proposeChanges`: what is at the end and equal to `tail` is cut off.
pub fn write_answers(answers: &[String], tail: &str) -> String {
    let count = answers.iter().rposition(|answer| answer != tail).map_or(0, |last| last + 1);
    format!("[{}]", answers[..count].join(","))
}

/// The answer to a list entry that is wanted, with the versions that are here.
pub fn wanted_answer(ancestors: &[RevId]) -> String {
    let quoted: Vec<String> = ancestors.iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", quoted.join(","))
}

/// Appends `text` as a JSON string.
fn push_json(list: &mut String, text: &str) {
    list.push_str(&Value::from(text).to_string());
}

/// The body of `changes`. Tombstones leave the size out, but for those of a tree.
pub fn write_changes(changes: &[Change], versioning: Versioning) -> String {
    let mut list = String::with_capacity(changes.len() * 72);
    list.push('[');
    for change in changes {
        if list.len() > 1 {
            list.push(',');
        }
        list.push_str(&format!("[{},", change.sequence));
        push_json(&mut list, &change.id);
        list.push_str(&format!(",\"{}\"", change.vector.list_text(None)));
        match change.deleted {
            true if versioning == Versioning::RevisionTrees => {
                list.push_str(&format!(",1,{}]", change.body_size));
            }
            true => list.push_str(",1]"),
            false => list.push_str(&format!(",0,{}]", change.body_size)),
        }
    }
    list.push(']');
    list
}

/// The body of `proposeChanges`: each change with the revision that the peer is known to have. Tombstones leave the
/// size out, but for those of a tree.
pub fn write_proposals<'a>(
    proposals: impl Iterator<Item = (&'a Change, Option<RevId>)>,
    versioning: Versioning,
) -> String {
    let mut list = String::from("[");
    for (change, known) in proposals {
        if list.len() > 1 {
            list.push(',');
        }
        list.push('[');
        push_json(&mut list, &change.id);
        list.push_str(&format!(",\"{}\"", change.vector.list_text(known)));
        let leaves_out_size = change.deleted && versioning != Versioning::RevisionTrees;
        match (known, leaves_out_size) {
            (Some(known), true) => list.push_str(&format!(",\"{known}\"")),
            (None, true) => {}
            (Some(known), false) => list.push_str(&format!(",\"{known}\",{}", change.body_size)),
            (None, false) => list.push_str(&format!(",\"\",{}", change.body_size)),
        }
        list.push(']');
    }
    list.push(']');
    list
}

/// The body of `getCollections`, of canonical names.
pub fn write_get_collections(checkpoint_ids: &[String], names: &[&str]) -> String {
    let names: Vec<&str> = names.iter().map(|name| wire_name(name)).collect();
    let (ids, names) = (Value::from(checkpoint_ids.to_vec()), Value::from(names));
    format!("{{\"checkpoint_ids\":{ids},\"collections\":{names}}}")
}

/// Reads the body of `getCollections`: checkpoint IDs and canonical names, equally many.
///
/// # Errors
/// The error reply that is due.
pub fn parse_get_collections(body: &[u8]) -> Result<Vec<(String, String)>, ErrorReply> {
    if body.len() > LIST_BYTES_MAX {
        return Err(refuse::collections("body too long"));
    }
    let missing = || refuse::collections("checkpoint_ids or collections missing");
    let list = |key: &str| -> Result<Vec<String>, ErrorReply> {
        let list = bounded_json::member(body, key).map_err(|_| refuse::collections("malformed body"))?;
        let items = bounded_json::items(list.ok_or_else(missing)?.get().as_bytes(), COLLECTIONS_MAX);
        let items = items.map_err(|error| match error {
            ListError::TooLong => refuse::collections("too many collections"),
            ListError::Malformed => missing(),
        })?;
        items.into_iter().map(|item| bounded_json::string(item).ok_or_else(missing)).collect()
    };
    let (ids, names) = (list("checkpoint_ids")?, list("collections")?);
    if ids.is_empty() || ids.len() != names.len() {
        return Err(refuse::collections("no collections, or lists of different lengths"));
    }
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(ids.len());
    for (id, name) in ids.into_iter().zip(names) {
        let name = canonical_name(&name);
        if pairs.iter().any(|(_, earlier)| *earlier == name) {
            return Err(refuse::collections("a collection is named twice"));
        }
        pairs.push((id, name));
    }
    Ok(pairs)
}

/// Document IDs from the body of `subChanges`, at most `max`; `None` if it names none.
///
/// # Errors
/// The error reply that is due.
pub fn parse_document_ids(body: &[u8], max: usize) -> Result<Option<Vec<String>>, ErrorReply> {
    if body.is_empty() {
        return Ok(None);
    }
    if body.len() > LIST_BYTES_MAX {
        return Err(ErrorReply::http(413, "body too long"));
    }
    let ids = match bounded_json::member(body, "docIDs") {
        Ok(ids) => ids,
        // Some other JSON value names none.
        Err(_) if serde_json::from_slice::<&RawValue>(body).is_ok() => None,
        Err(_) => return Err(refuse::body()),
    };
    let Some(ids) = ids else { return Ok(None) };
    let ids = bounded_json::items(ids.get().as_bytes(), max).map_err(|error| match error {
        ListError::TooLong => ErrorReply::http(413, "too many document IDs"),
        ListError::Malformed => refuse::body(),
    })?;
    Ok(Some(ids.into_iter().filter_map(bounded_json::string).collect()))
}

/// A `rev` request for this change, which carries its body.
pub fn write_rev(
    collection: Option<&str>,
    change: &Change,
    no_conflicts: bool,
    versioning: Versioning,
) -> OutgoingMessage {
    let mut properties = Properties::of_profile(profile::REV);
    if let Some(index) = collection {
        properties.set("collection", index);
    }
    properties.set("id", &change.id);
    properties.set("rev", &change.vector.id().to_string());
    properties.set("sequence", &change.sequence.to_string());
    if change.deleted {
        properties.set("deleted", "1");
    }
    if versioning == Versioning::RevisionTrees {
        trees::write_ancestors(&mut properties, change, no_conflicts);
    } else {
        let history = change.vector.history_text_for(change.remote_ancestor);
        if !history.is_empty() {
            properties.set("history", &history);
        }
        if no_conflicts {
            properties.set("noconflicts", "1");
        }
    }
    let body = change.body.clone().unwrap_or_default();
    // An empty body is fatal to some peers; a tombstone's is an empty object.
    let body = if body.is_empty() { bytes::Bytes::from_static(b"{}") } else { body };
    OutgoingMessage { properties, body, compressed: true, urgent: false, no_reply: false }
}

/// A `norev` request: the revision that the peer asked for does not come. With `error` 404 a newer one is further on in the
/// feed; any other says that this one stays away.
pub fn write_norev(
    collection: Option<&str>,
    id: &str,
    revision: &str,
    sequence: u64,
    error: &ErrorReply,
) -> OutgoingMessage {
    let mut properties = Properties::of_profile(profile::NOREV);
    if let Some(index) = collection {
        properties.set("collection", index);
    }
    let code = error.code.to_string();
    for (key, value) in [("id", id), ("rev", revision), ("error", &code), ("reason", &error.message)] {
        properties.set(key, value);
    }
    properties.set("sequence", &sequence.to_string());
    OutgoingMessage { properties, ..OutgoingMessage::default() }
}
