//! What is different in the messages of databases with revision trees: which revisions a list may name, and the properties of a
//! `rev`.
//!
//! Source: `firmware-notes/replication.md`, revision IDs.

#![deny(clippy::disallowed_methods)]

use super::refuse;
use crate::blip::{ErrorReply, Properties};
use crate::replica::revision::{
    CLOSED_IDS_MAX, RevId, RevisionError, TreeId, VersionVector, Versioning, child_id,
};
use crate::replica::store::Change;

/// Property of a `rev` by which Couchbase Lite closes the branch of the receiver, which has lost a conflict: the ID of a tombstone
/// on top of it, and its own.
const DELETED_BRANCH: &str = "deleted_branch";

/// Property of a `rev` of ours, which others ignore: all branches that were closed.
pub const CLOSED_BRANCHES: &str = "gattway-branches";

/// The body of which the ID of a tombstone is made that closes a branch.
const EMPTY_BODY: &str = "{}";

/// Longest history that Couchbase Lite is told it may send: what it says itself.
pub const HISTORY_TOLD: &str = "50";

/// Of an entry of a list: it names a revision of this kind. A database with version vectors takes those of trees, from peers that
/// were upgraded.
///
/// # Errors
/// The error reply that is due to the whole list.
pub fn check_kind(versioning: Versioning, id: &str, vector: &VersionVector) -> Result<(), ErrorReply> {
    match versioning {
        Versioning::RevisionTrees if !vector.is_tree() => {
            Err(refuse::list_entry(id, &vector.id().to_string()))
        }
        _ => Ok(()),
    }
}

/// Reads the revision of a `rev`.
///
/// # Errors
/// The error reply that is due.
pub fn parse_revision(properties: &Properties) -> Result<VersionVector, ErrorReply> {
    let property = |name| properties.get(name).unwrap_or_default();
    let (rev, history) = (property("rev"), property("history"));
    // A malformed revision and a malformed history are two errors.
    rev.trim().parse::<TreeId>().map_err(|_| ErrorReply::http(400, "malformed revision ID"))?;
    let vector = VersionVector::from_tree_history(rev, history).map_err(refuse::versions)?;
    let deleted = parse_branches(property(DELETED_BRANCH)).map_err(refuse::versions)?;
    let mut closed: Vec<TreeId> = deleted.last().copied().into_iter().collect();
    closed.extend(parse_branches(property(CLOSED_BRANCHES)).map_err(refuse::versions)?);
    Ok(if closed.is_empty() { vector } else { vector.with_closed(closed) })
}

fn parse_branches(text: &str) -> Result<Vec<TreeId>, RevisionError> {
    let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
    ids.take(CLOSED_IDS_MAX).map(str::parse).collect()
}

/// Writes what a `rev` says of its ancestors to a peer that is known to have `change.remote_ancestor`.
pub fn write_ancestors(properties: &mut Properties, change: &Change, no_conflicts: bool) {
    let vector = &change.vector;
    let history = vector.tree_history_text(change.remote_ancestor);
    if !history.is_empty() {
        properties.set("history", &history);
    }
    let closed = vector.closed_branches();
    if !closed.is_empty() {
        properties.set(CLOSED_BRANCHES, &text_of(closed));
    }
    let lost = change.remote_ancestor.and_then(|known| known.tree()).filter(|known| closed.contains(known));
    match lost.and_then(|lost| Some([child_id(Some(lost), true, EMPTY_BODY)?, lost])) {
        Some(branch) if no_conflicts => properties.set(DELETED_BRANCH, &text_of(&branch)),
        _ if no_conflicts => properties.set("noconflicts", "1"),
        _ => {}
    }
}

fn text_of(ids: &[TreeId]) -> String {
    ids.iter().map(TreeId::to_string).collect::<Vec<_>>().join(",")
}

/// Of what a peer says it has the first that this revision is or descends from.
pub fn known_of(vector: &VersionVector, named: &[RevId]) -> Option<RevId> {
    named.iter().copied().find(|id| id.tree().is_some_and(|id| vector.trees.contains(&id)))
}
