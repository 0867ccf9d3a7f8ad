//! Receiving by the extension: what a `revs` message asks of the store, and the answer when that is done.

use crate::blip::ErrorReply;
use crate::replica::revision::Causality;
use crate::replica::store::{CommitOutcome, IncomingRevision, ReplicaStore};
use crate::replicator::config::FilterInput;
use crate::replicator::context::SessionContext;
use crate::replicator::error::SessionError;
use crate::replicator::event::Direction;
use crate::replicator::extension::answer::RevAnswer;
use crate::replicator::extension::codec::{Content, RevEntry};
use crate::replicator::in_flight::RevsReceived;
use crate::replicator::messages::{id_error, refuse, rejection_error};
use crate::replicator::sequences::RemoteSequence;
use crate::replicator::unsynced::failure::Failure;

/// Whether conflicts are refused here (passive) or resolved (active).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::replicator) enum OnConflict {
    Refuse,
    Resolve,
}

/// Sorts the revisions of a message: those that can be answered at once are, the others are for the store.
pub(in crate::replicator) fn sort(
    context: &mut SessionContext,
    mut received: RevsReceived,
    entries: Vec<RevEntry>,
    on_conflict: OnConflict,
    store: &dyn ReplicaStore,
) -> Result<(RevsReceived, Vec<IncomingRevision>), SessionError> {
    let collection = received.collection;
    let mut revisions = Vec::with_capacity(entries.len());
    received.answers.reserve(entries.len());
    for entry in entries {
        let sequence = entry.sequence;
        let answer = match &entry.content {
            Content::Gone => Some(RevAnswer::Known),
            Content::Offer => match refuse_entry(context, collection, &entry) {
                None => {
                    let answer = answer_offer(context, collection, &entry, on_conflict, store)?;
                    note_answer(context, collection, &entry.id, &answer);
                    Some(answer)
                }
                refused => refused,
            },
            Content::Body(_) => match known_of(context, collection, &entry, on_conflict, store)? {
                None => refuse_entry(context, collection, &entry),
                known => known,
            },
        };
        if answer.is_none() {
            revisions.push(to_incoming(context, collection, entry));
        }
        received.answers.push((sequence, answer));
    }
    Ok((received, revisions))
}

/// Notes what an answer says of the document.
fn note_answer(context: &mut SessionContext, collection: usize, id: &str, answer: &RevAnswer) {
    match answer {
        RevAnswer::Stored(_) | RevAnswer::Known => context.settled(Direction::Received, collection, id),
        RevAnswer::Conflict(_) => context.conflict_refused(collection, id),
        _ => {}
    }
}

fn answer_offer(
    context: &SessionContext,
    collection: usize,
    entry: &RevEntry,
    on_conflict: OnConflict,
    store: &dyn ReplicaStore,
) -> Result<RevAnswer, SessionError> {
    let Some(local) = context.durable_revision(collection, &entry.id, store)? else {
        let is_removed = context.is_removed(collection, &entry.id, &entry.vector, true, store)?;
        return Ok(if is_removed { RevAnswer::Known } else { RevAnswer::Wanted });
    };
    Ok(match (local.vector.compare(&entry.vector), on_conflict) {
        (Causality::Same, _) => RevAnswer::Stored(local.sequence),
        (Causality::Newer, _) => RevAnswer::Known,
        (Causality::Older, _) | (Causality::Conflict, OnConflict::Resolve) => RevAnswer::Wanted,
        // The store sees to it that the peer pulls ours once more.
        (Causality::Conflict, OnConflict::Refuse) if local.vector.mutually_contains(&entry.vector) => {
            RevAnswer::Wanted
        }
        (Causality::Conflict, OnConflict::Refuse) => RevAnswer::Conflict(local.vector),
    })
}

/// The answer to a revision that a filter leaves out if the document here makes it needless: it is no failure then.
fn known_of(
    context: &mut SessionContext,
    collection: usize,
    entry: &RevEntry,
    on_conflict: OnConflict,
    store: &dyn ReplicaStore,
) -> Result<Option<RevAnswer>, SessionError> {
    if refuse_reason(context, collection, &entry.id, entry.deleted, &entry.content)
        != Some(refuse::filtered())
    {
        return Ok(None);
    }
    let answer = answer_offer(context, collection, entry, on_conflict, store)?;
    note_answer(context, collection, &entry.id, &answer);
    Ok(Some(answer).filter(|answer| *answer != RevAnswer::Wanted))
}

/// The answer to a revision that need not be tried.
fn refuse_entry(context: &mut SessionContext, collection: usize, entry: &RevEntry) -> Option<RevAnswer> {
    let error = match &entry.refused {
        Some(error) => Some(refuse::versions(error.clone())),
        None => refuse_reason(context, collection, &entry.id, entry.deleted, &entry.content),
    }?;
    let (id, deleted) = (&entry.id, entry.deleted);
    if error == refuse::filtered() {
        // Left out on purpose.
        context.report(Direction::Received, collection, id, deleted, Some(error.clone()));
    } else {
        let (revision, sequence) = (entry.vector.id().to_string(), RemoteSequence::Number(entry.sequence));
        context.failed(collection, Failure::received(id, revision, sequence, deleted, error.clone()));
    }
    Some(RevAnswer::Failed(error))
}

fn refuse_reason(
    context: &SessionContext,
    collection: usize,
    id: &str,
    deleted: bool,
    content: &Content,
) -> Option<ErrorReply> {
    if let Some(error) = id_error(id) {
        return Some(error);
    }
    let Content::Body(body) = content else { return None };
    let target = context.collections.get(collection)?;
    let filter = target.incoming_filter.as_ref()?;
    let passes = filter(&FilterInput { collection: &target.name, id, deleted, body });
    (!passes).then(refuse::filtered)
}

fn to_incoming(context: &SessionContext, collection: usize, entry: RevEntry) -> IncomingRevision {
    let body = match entry.content {
        Content::Body(body) => body,
        Content::Offer | Content::Gone => bytes::Bytes::new(),
    };
    IncomingRevision {
        collection: context.collections[collection].id,
        id: entry.id,
        vector: entry.vector,
        deleted: entry.deleted,
        body,
    }
}

/// Puts the outcomes of a commit into the answers that wait for them.
pub(in crate::replicator) fn settle(received: &mut RevsReceived, outcomes: &[CommitOutcome]) {
    let mut outcomes = outcomes.iter();
    for (_, answer) in received.answers.iter_mut().filter(|(_, answer)| answer.is_none()) {
        *answer = outcomes.next().map(answer_outcome);
    }
}

fn answer_outcome(outcome: &CommitOutcome) -> RevAnswer {
    match outcome {
        CommitOutcome::Inserted { sequence } => RevAnswer::Stored(*sequence),
        CommitOutcome::AlreadyKnown { .. } => RevAnswer::Known,
        CommitOutcome::Resolved { sequence, push: false, .. } => RevAnswer::Stored(*sequence),
        // What the resolver made is a revision of its own here; the sender need not know where it stands.
        CommitOutcome::Resolved { .. } => RevAnswer::Known,
        CommitOutcome::Conflict { local } => RevAnswer::Conflict(local.clone()),
        CommitOutcome::Rejected(rejection) => RevAnswer::Failed(rejection_error(rejection)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blip::MessageNumber;
    use crate::replicator::extension::RevsFormat;
    use crate::replicator::extension::answer::decode;

    /// What it sees does not depend on what else is stored here.
    #[test]
    fn a_peer_that_may_not_read_learns_no_sequences() {
        let received = |first: u64, second: u64| RevsReceived {
            request: MessageNumber(1),
            no_reply: false,
            collection: 0,
            asked: false,
            from: 0,
            through: 3,
            answers: vec![
                (1, Some(RevAnswer::Stored(first))),
                (2, Some(RevAnswer::Known)),
                (3, Some(RevAnswer::Stored(second))),
            ],
        };
        let reply =
            |first, second, may_read| received(first, second).to_reply(RevsFormat::NEWEST, may_read).body;
        assert_eq!(reply(900, 17_000, false), reply(1, 2, false));
        let told = decode(&reply(900, 17_000, false), 3).expect("an answer");
        assert_eq!(told, [RevAnswer::Stored(1), RevAnswer::Known, RevAnswer::Stored(2)]);
        let told = decode(&reply(900, 17_000, true), 3).expect("an answer");
        assert_eq!(told, [RevAnswer::Stored(900), RevAnswer::Known, RevAnswer::Stored(17_000)]);
    }
}
