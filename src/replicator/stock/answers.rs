//! Answers to lists of changes: what is wanted, what is known, what conflicts. Both sides answer `changes`.

use crate::blip::OutgoingMessage;
use crate::replica::revision::{RevId, TREE_SOURCE, TreeId, VersionVector, Versioning};
use crate::replica::store::{Change, ReplicaStore, ReplicaStoreError};
use crate::replica::{DOCUMENT_ID_MAX, clip};
use crate::replicator::blobs::FINDS_BLOBS;
use crate::replicator::config::{CONFLICT_VECTOR_BYTES_MAX, LIST_ENTRIES_MAX};
use crate::replicator::context::{RequestError, Response, SessionContext};
use crate::replicator::messages::trees::{HISTORY_TOLD, check_kind};
use crate::replicator::messages::{
    ChangeEntry, ProposedEntry, id_error, parse_changes, parse_proposals, wanted_answer, write_answers,
};
use crate::replicator::pushed::PushedNote;
use crate::replicator::sequences::RemoteSequence;
use crate::replicator::unsynced::failure::Failure;

/// Flags of an entry of `changes`: access revoked, or removed from all channels, so that nothing is to be had.
pub(super) const NOT_FOR_US: u64 = 2 | 4;

/// What is unwanted in a reply to `changes`.
const UNWANTED: &str = "0";

/// What is wanted in a reply to `proposeChanges`.
const ACCEPTED: &str = "0";

/// What cannot be taken in a reply to `proposeChanges`.
const REFUSED: &str = "500";

/// The answer to one entry of `proposeChanges`.
enum Proposal {
    /// Wanted.
    Accepted,
    /// Here already.
    Known,
    /// Refused for a conflict, with the local revision if the peer wants to hear of it.
    Conflict(Option<String>),
}

impl Proposal {
    fn into_text(self) -> String {
        match self {
            Proposal::Accepted => ACCEPTED.into(),
            Proposal::Known => "304".into(),
            Proposal::Conflict(None) => "409".into(),
            Proposal::Conflict(Some(rev)) => format!("{{\"status\":409,\"rev\":\"{rev}\"}}"),
        }
    }
}

/// Answers `proposeChanges`.
pub(crate) fn answer_proposals(
    context: &mut SessionContext,
    collection: usize,
    body: &[u8],
    conflict_includes_rev: bool,
    pushed: &mut PushedNote,
    store: &dyn ReplicaStore,
) -> Result<Response, RequestError> {
    let entries = parse_proposals(body)?;
    for entry in &entries {
        check_kind(context.versioning, &entry.id, &entry.vector)?;
    }
    if entries.is_empty() {
        pushed.nothing_proposed();
    }
    debug_assert!(entries.len() <= LIST_ENTRIES_MAX);
    let mut answers = Vec::with_capacity(entries.len());
    let mut vector_bytes = if conflict_includes_rev { Some(CONFLICT_VECTOR_BYTES_MAX) } else { None };
    for entry in &entries {
        if entry.id.len() > DOCUMENT_ID_MAX {
            // As Couchbase Lite answers; what else may be wrong with an ID, the answer to the revision says in words.
            if let Some(error) = id_error(&entry.id) {
                let (id, revision) = (clip(&entry.id), entry.vector.id().to_string());
                let failure = Failure::received(&id, revision, RemoteSequence::START, false, error);
                context.failed(collection, failure);
            }
            answers.push(REFUSED.into());
            continue;
        }
        let local = context.durable_revision(collection, &entry.id, store)?;
        if let Some(local) = &local {
            pushed.proposed(local, entry.known.as_ref());
        }
        let of_it = (collection, &*entry.id, &entry.vector);
        let answer = match is_removed_here(context, of_it, local.as_ref(), store)? {
            true => Proposal::Known,
            false => answer_proposal(entry, local.as_ref(), &mut vector_bytes, context.versioning),
        };
        if matches!(answer, Proposal::Conflict(_)) {
            context.conflict_refused(collection, &entry.id);
        }
        answers.push(answer.into_text());
    }
    Ok(Response::Now(list_reply(context, collection, write_answers(&answers, ACCEPTED))))
}

/// `vector_bytes`: how many bytes of vectors the reply may still name; `None` if the peer wants to hear none.
fn answer_proposal(
    entry: &ProposedEntry,
    local: Option<&Change>,
    vector_bytes: &mut Option<usize>,
    versioning: Versioning,
) -> Proposal {
    let Some(local) = local else { return Proposal::Accepted };
    // What the proposer knows of, its revision includes.
    let proposed = match &entry.known {
        Some(known) => entry.vector.with_history_of(known),
        None => entry.vector.clone(),
    };
    if is_known(&local.vector, &proposed, entry.vector.id(), versioning) {
        return Proposal::Known;
    }
    let descends = proposed.contains(local.vector.current);
    let untold = match versioning {
        Versioning::RevisionTrees => local.vector.contains(entry.vector.current),
        _ => local.vector.has_ancestor(entry.vector.id()).is_none(),
    };
    // A new document may take the place of a tombstone.
    if descends || untold || (local.deleted && entry.known.is_none()) {
        return Proposal::Accepted;
    }
    let Some(left) = vector_bytes else { return Proposal::Conflict(None) };
    let vector = local.vector.versions_text();
    Proposal::Conflict(Some(match left.checked_sub(vector.len()) {
        Some(rest) => {
            *left = rest;
            vector
        }
        // The reply to a list of long vectors would be longer than the peer takes: the pull brings the rest.
        None => local.vector.id().to_string(),
    }))
}

/// Whether a listed revision need not be sent. One that crosses the local one is wanted, and one that may do so: it comes
/// with all its history, and the store decides. Of a closed branch of a tree the name does not say whether it does.
fn is_known(local: &VersionVector, listed: &VersionVector, id: RevId, versioning: Versioning) -> bool {
    if versioning == Versioning::RevisionTrees {
        return id.tree().is_some_and(|id| local.line().contains(&id));
    }
    local.current == listed.current
        || (local.has_ancestor(id) == Some(true) && !local.mutually_contains(listed))
}

/// Answers `changes` on the passive side, where everything unknown is wanted.
pub(crate) fn answer_changes(
    context: &mut SessionContext,
    collection: usize,
    body: &[u8],
    store: &dyn ReplicaStore,
) -> Result<Response, RequestError> {
    let entries = parse_changes(body)?;
    for entry in &entries {
        check_kind(context.versioning, &entry.id, &entry.vector)?;
    }
    if entries.is_empty() {
        return Ok(Response::empty());
    }
    let mut answers = Vec::with_capacity(entries.len());
    for entry in &entries {
        answers.push(answer_listed(context, collection, entry, store)?.unwrap_or_else(|| UNWANTED.into()));
    }
    Ok(Response::Now(list_reply(context, collection, write_answers(&answers, UNWANTED))))
}

/// The answer to one entry of `changes` if it is wanted: not if it is here, nor if it was removed here.
pub(crate) fn answer_listed(
    context: &SessionContext,
    collection: usize,
    entry: &ChangeEntry,
    store: &dyn ReplicaStore,
) -> Result<Option<String>, ReplicaStoreError> {
    let local = context.durable_revision(collection, &entry.id, store)?;
    let of_it = (collection, &*entry.id, &entry.vector);
    let is_removed = is_removed_here(context, of_it, local.as_ref(), store)?;
    Ok(if is_removed { None } else { answer_change(entry, local.as_ref(), context.versioning) })
}

/// Whether a listed revision is of a document that is not here because it was removed.
fn is_removed_here(
    context: &SessionContext,
    (collection, id, listed): (usize, &str, &VersionVector),
    local: Option<&Change>,
    store: &dyn ReplicaStore,
) -> Result<bool, ReplicaStoreError> {
    Ok(local.is_none() && context.is_removed(collection, id, listed, false, store)?)
}

/// The answer to one entry if it is wanted, by what there is.
fn answer_change(entry: &ChangeEntry, local: Option<&Change>, versioning: Versioning) -> Option<String> {
    if entry.flags & NOT_FOR_US != 0 {
        return None;
    }
    let Some(local) = local else { return Some(wanted_answer(&[])) };
    if is_known(&local.vector, &entry.vector, entry.vector.id(), versioning) {
        return None;
    }
    if versioning == Versioning::RevisionTrees {
        let generation = entry.vector.trees.first().map_or(0, TreeId::generation);
        let ancestors: Vec<RevId> = local.vector.possible_ancestors(generation).map(RevId::Tree).collect();
        return Some(wanted_answer(&ancestors));
    }
    let mut ancestors: Vec<RevId> = Vec::new();
    // Of a tree ID the peer has to know, or the revision that it sends may name another one; of the version that stands
    // for one as well.
    if !local.deleted || local.vector.current.source == TREE_SOURCE {
        ancestors.push(local.vector.id());
    }
    ancestors.extend(local.remote_ancestor.filter(|ancestor| *ancestor != local.vector.id()));
    Some(wanted_answer(&ancestors))
}

/// The reply to `changes` from its items.
pub(crate) fn changes_reply(
    context: &mut SessionContext,
    collection: usize,
    answers: &[Option<String>],
) -> OutgoingMessage {
    let texts: Vec<String> = answers.iter().map(|a| a.clone().unwrap_or_else(|| UNWANTED.into())).collect();
    list_reply(context, collection, write_answers(&texts, UNWANTED))
}

/// A reply to a list. It says that blobs are found here, so that no stubs of the older kind come.
fn list_reply(context: &mut SessionContext, collection: usize, body: String) -> OutgoingMessage {
    let mut reply = OutgoingMessage::default();
    if context.versioning == Versioning::RevisionTrees {
        reply = reply.with("maxHistory", HISTORY_TOLD);
    }
    let mut reply = reply.with(FINDS_BLOBS, "true").with("sendReplacementRevs", "1").with_body(body);
    reply.compressed = true;
    reply.urgent = true;
    context.deltas.announce(collection, reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::revision::{SourceId, Version};

    fn version(time: u64, source: u8) -> VersionVector {
        VersionVector::new(Version { time, source: SourceId([source; 16]) })
    }

    /// A list names what is here, so that the peer can say what its revision descends from: not a tombstone, which nothing is to
    /// descend from, unless it is a tree's, and what a peer is known to have had, once.
    #[test]
    fn what_is_wanted_is_asked_for_with_what_is_here() {
        let tree = VersionVector::at_tree(TreeId::new(3, &[7; 16]).expect("an ID"));
        let (plain, older) = (version(5, 1), version(4, 1));
        let listed = ChangeEntry {
            sequence: RemoteSequence::Number(1),
            id: "d".into(),
            vector: version(9, 2),
            flags: 0,
        };
        let text = |vector: &VersionVector| format!("\"{}\"", vector.id());
        let asked = |vector: &VersionVector, deleted, remote_ancestor: Option<&VersionVector>| {
            let local = Change {
                sequence: 1,
                id: "d".into(),
                vector: vector.clone(),
                deleted,
                body_size: 2,
                remote_ancestor: remote_ancestor.map(VersionVector::id),
                body: None,
            };
            answer_change(&listed, Some(&local), Versioning::VersionVectors)
        };
        assert_eq!(answer_change(&listed, None, Versioning::VersionVectors), Some("[]".to_owned()));
        for (vector, deleted, ancestor, names) in [
            (&plain, false, None, text(&plain)),
            (&plain, true, None, String::new()),
            (&tree, false, None, text(&tree)),
            (&tree, true, None, text(&tree)),
            (&plain, false, Some(&older), format!("{},{}", text(&plain), text(&older))),
            (&plain, false, Some(&plain), text(&plain)),
            (&plain, true, Some(&older), text(&older)),
        ] {
            let answer = asked(vector, deleted, ancestor);
            assert_eq!(answer, Some(format!("[{names}]")), "{vector:?} {deleted} {ancestor:?}");
        }
        // What is here already, and what there is nothing to be had of.
        assert_eq!(asked(&listed.vector, false, None), None);
        for (flags, is_wanted) in [(1, true), (2, false), (4, false), (6, false)] {
            let listed = ChangeEntry { flags, ..listed.clone() };
            assert_eq!(
                answer_change(&listed, None, Versioning::VersionVectors).is_some(),
                is_wanted,
                "{flags}"
            );
        }
    }
}
