//! Revisions on their way in: from the peer's request to the store, and from what the store decided to the answer.

#![deny(clippy::disallowed_methods)]

use super::super::batched::receiver;
use super::super::context::{RequestError, Response};
use super::super::error::SessionError;
use super::super::event::{CommitId, CommitResult, Direction};
use super::super::extension::codec;
use super::super::in_flight::RevsReceived;
use super::super::in_flight::Ticket;
use super::super::inbox::{Batch, Origin};
use super::super::incoming::{self, parse_rev};
use super::super::messages::{SEQUENCE_TEXT_MAX, refuse, rejection_error};
use super::super::sequences::RemoteSequence;
use super::super::unsynced::failure::Failure;
use super::Session;
use crate::blip::{ErrorReply, IncomingRequest, OutgoingMessage};
use crate::replica::revision::Causality;
use crate::replica::store::{CommitOutcome, IncomingRevision, Rejection, ReplicaStore, ReplicaStoreError};

impl Session {
    /// Answers `rev` when the store has it.
    pub(super) fn handle_rev(
        &mut self,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let (collection, ticket) = self.revision_target(request, store)?;
        let sequence = sequence_of(request);
        match parse_rev(&self.context, collection, request, store) {
            Ok(revision) if !incoming::passes(&self.context, collection, &revision) => {
                self.left_out(collection, ticket, request, &revision, store)
            }
            Ok(revision) => {
                self.side.receiving(&mut self.context);
                let (request, no_reply) = (request.number, request.no_reply);
                let origin = Origin::Rev { request, no_reply, collection, ticket, sequence };
                let revisions = vec![revision];
                self.store_or_fetch(collection, Batch { origin, revisions, corrupt: Vec::new() }, store)?;
                Ok(Response::Later)
            }
            // No failure: the whole body comes instead.
            Err(RequestError::Reply(error)) if error == refuse::delta() => {
                self.side.delta_refused(collection, ticket);
                Err(error.into())
            }
            Err(RequestError::Reply(error)) => {
                self.not_taken(collection, request, error.clone());
                self.side.not_received(&mut self.context, collection, ticket);
                Err(error.into())
            }
            Err(fatal) => Err(fatal),
        }
    }

    /// The collection of a single revision, and its ticket if it was asked for.
    fn revision_target(
        &mut self,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<(usize, Option<Ticket>), RequestError> {
        let target = self.side.revision_target(&mut self.context, request, store)?;
        if target.1.is_some() {
            self.context.requests.waive();
        }
        Ok(target)
    }

    /// A filter of this side leaves a revision out. If the document here makes it needless, that is no failure.
    fn left_out(
        &mut self,
        collection: usize,
        ticket: Option<Ticket>,
        request: &IncomingRequest,
        revision: &IncomingRevision,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        self.side.not_received(&mut self.context, collection, ticket);
        let local = self.context.durable_revision(collection, &revision.id, store)?;
        match local.map(|local| revision.vector.compare(&local.vector)) {
            Some(Causality::Same | Causality::Older) => {
                self.context.settled(Direction::Received, collection, &revision.id);
                Ok(Response::empty())
            }
            // The active side settles it, and may not need this one at all.
            Some(Causality::Conflict) if self.side.resolver().is_none() => {
                self.context.conflict_refused(collection, &revision.id);
                Err(refuse::conflict().into())
            }
            _ => {
                self.not_taken(collection, request, refuse::filtered());
                Err(refuse::filtered().into())
            }
        }
    }

    /// A revision is not what may come, or does not come for a reason that the peer has.
    fn not_taken(&mut self, collection: usize, request: &IncomingRequest, error: ErrorReply) {
        let property = |name| request.properties.get(name).unwrap_or_default();
        let id: String = property("id").chars().take(crate::replica::DOCUMENT_ID_MAX).collect();
        let deleted = request.properties.get_bool("deleted");
        if error == refuse::filtered() {
            // Left out on purpose.
            return self.context.report(Direction::Received, collection, &id, deleted, Some(error));
        }
        let revision = property("rev").split([',', ';']).next().unwrap_or_default().trim().to_owned();
        let failure = Failure::received(&id, revision, sequence_of(request), deleted, error);
        self.context.failed(collection, failure);
    }

    /// The peer does not send a revision that we asked for: a newer one is further on in its feed, or it says why.
    pub(super) fn handle_norev(
        &mut self,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let (collection, ticket) = self.revision_target(request, store)?;
        let code = request.properties.get("error").and_then(|code| code.parse().ok()).unwrap_or(404);
        if code != 404 {
            let reason: String =
                request.properties.get("reason").unwrap_or_default().chars().take(200).collect();
            self.not_taken(collection, request, ErrorReply::http(code, reason));
        }
        self.side.not_received(&mut self.context, collection, ticket);
        Ok(Response::empty())
    }

    /// Answers `revs` when the store has all that it has to decide of.
    pub(super) fn handle_revs(
        &mut self,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let (collection, _) = self.side.revision_target(&mut self.context, request, store)?;
        let message = codec::decode(&request.body).map_err(|_| SessionError::Malformed { what: "revs" })?;
        let head = RevsReceived {
            request: request.number,
            no_reply: request.no_reply,
            collection,
            asked: message.asked,
            from: message.from,
            through: message.through,
            answers: Vec::new(),
        };
        let (mut received, revisions) = self.side.receiving_revs(&mut self.context, head, message, store)?;
        self.context.progress.total += revisions.len() as u64;
        if revisions.is_empty() {
            self.revs_settled(&mut received, &[], store)?;
            let may_read = self.may_read(collection);
            return Ok(Response::Now(received.to_reply(self.context.revs_format, may_read)));
        }
        let origin = Origin::Revs(Box::new(received));
        self.store_or_fetch(collection, Batch { origin, revisions, corrupt: Vec::new() }, store)?;
        Ok(Response::Later)
    }

    pub(super) fn may_read(&self, collection: usize) -> bool {
        let collection = self.context.collections.get(collection);
        collection.is_some_and(|collection| self.side.may_read(&collection.name))
    }

    /// The store has decided about everything in a `revs` message.
    fn revs_settled(
        &mut self,
        received: &mut RevsReceived,
        outcomes: &[CommitOutcome],
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let committed: Vec<bool> = received.answers.iter().map(|(_, answer)| answer.is_none()).collect();
        receiver::settle(received, outcomes);
        self.side.received_revs(&mut self.context, received, &committed, store)
    }

    /// Answers the requests whose revisions a commit has settled.
    pub(super) fn take_commit(
        &mut self,
        id: CommitId,
        result: CommitResult,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Some(committed) = self.context.inbox.take_running(id) else { return Ok(()) };
        let outcomes = result?;
        if !committed.blobs.is_empty() {
            return self.blobs_durable(&committed.blobs, &outcomes, store);
        }
        if outcomes.len() != committed.revisions.len() {
            let message = format!("{} outcomes for {} revisions", outcomes.len(), committed.revisions.len());
            return Err(ReplicaStoreError { message, recoverable: false }.into());
        }
        let mut at = 0;
        for (origin, count) in committed.origins {
            let (revisions, outcomes) = (&committed.revisions[at..at + count], &outcomes[at..at + count]);
            at += count;
            match origin {
                Origin::Rev { request, no_reply, collection, ticket, sequence } => {
                    self.outcome(collection, ticket, sequence, &revisions[0], &outcomes[0]);
                    match outcome_error(&outcomes[0]) {
                        None => self.context.reply(request, no_reply, OutgoingMessage::default()),
                        Some(error) => self.context.reply_error(request, no_reply, error),
                    }
                }
                Origin::Revs(mut received) => {
                    let unanswered = received.answers.iter().filter(|(_, answer)| answer.is_none());
                    let sequences: Vec<u64> = unanswered.map(|(sequence, _)| *sequence).collect();
                    for ((revision, outcome), sequence) in revisions.iter().zip(outcomes).zip(sequences) {
                        let sequence = RemoteSequence::Number(sequence);
                        self.outcome(received.collection, None, sequence, revision, outcome);
                    }
                    self.revs_settled(&mut received, outcomes, store)?;
                    let may_read = self.may_read(received.collection);
                    let reply = received.to_reply(self.context.revs_format, may_read);
                    self.context.reply(received.request, received.no_reply, reply);
                }
            }
        }
        Ok(())
    }

    /// Notes and reports what became of a revision.
    fn outcome(
        &mut self,
        collection: usize,
        ticket: Option<Ticket>,
        sequence: RemoteSequence,
        revision: &IncomingRevision,
        outcome: &CommitOutcome,
    ) {
        self.side.received(&mut self.context, (collection, ticket, &sequence), revision, outcome);
        let (direction, id, deleted) = (Direction::Received, &revision.id, revision.deleted);
        match outcome {
            CommitOutcome::Rejected(rejection) => {
                let (version, error) = (revision.vector.current.to_string(), rejection_error(rejection));
                // The application's resolver may do better another time.
                let is_open = matches!(rejection, Rejection::Resolver(_));
                let failure = Failure::received(id, version, sequence, deleted, error);
                self.context.failed(collection, Failure { is_open, ..failure });
            }
            // The active side resolves it.
            CommitOutcome::Conflict { .. } => {
                self.context.conflict_refused(collection, id);
                self.context.report(direction, collection, id, deleted, Some(refuse::conflict()));
            }
            _ => {
                if !matches!(outcome, CommitOutcome::AlreadyKnown { .. }) {
                    // Ours that the peer refused is not the newest any more.
                    self.context.settled(Direction::Sent, collection, id);
                    self.context.conflict_ended(collection, revision);
                }
                if let CommitOutcome::Resolved { outcome, .. } = outcome {
                    self.context.tell_conflict(collection, id, *outcome);
                }
                self.context.succeeded(direction, collection, id, deleted);
            }
        }
    }
}

/// The place in the peer's feed that a request about one revision names.
fn sequence_of(request: &IncomingRequest) -> RemoteSequence {
    let text = request.properties.get("sequence").filter(|text| text.len() <= SEQUENCE_TEXT_MAX);
    text.map_or(RemoteSequence::START, RemoteSequence::from_json)
}

/// The error reply for what became of a single revision, if it was not taken.
fn outcome_error(outcome: &CommitOutcome) -> Option<ErrorReply> {
    match outcome {
        CommitOutcome::Inserted { .. }
        | CommitOutcome::AlreadyKnown { .. }
        | CommitOutcome::Resolved { .. } => None,
        CommitOutcome::Conflict { .. } => Some(refuse::conflict()),
        CommitOutcome::Rejected(rejection) => Some(rejection_error(rejection)),
    }
}
