//! What the peer's replies to the active side's requests mean.

use super::super::context::SessionContext;
use super::super::error::SessionError;
use super::super::extension::answer;
use super::super::in_flight::Awaiting;
use super::super::in_flight::SentRevision;
use super::super::messages::{parse_proposals_reply, profile};
use super::Active;
use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::store::{Change, ReplicaStore};

impl Active {
    /// Takes the reply to one of our requests.
    pub fn handle_reply(
        &mut self,
        context: &mut SessionContext,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        match awaiting {
            Awaiting::Collections => self.collections_replied(context, result, store),
            Awaiting::Checkpoint { collection, after_conflict } => {
                self.checkpoint_replied(context, collection, after_conflict, result, store)
            }
            Awaiting::CheckpointSaved { collection, body } => {
                let checkpointer = &mut self.syncs[collection].checkpointer;
                match result {
                    Ok(reply) => {
                        let revision = reply.properties.get("rev").unwrap_or_default();
                        Ok(checkpointer.saved(revision, body, store)?)
                    }
                    Err(error) => checkpointer.refused(context, error.code),
                }
            }
            Awaiting::Subscribed { collection } => self.subscribed(context, collection, result),
            Awaiting::Proposals { collection, changes } => {
                self.proposals_replied(context, collection, changes, result, store)
            }
            Awaiting::Rev { collection, rev } => {
                if let Some(push) = &mut self.syncs[collection].push {
                    push.rev_answered(context, rev, result.map(|_| ()), store)?;
                }
                Ok(())
            }
            Awaiting::Revs { collection, revisions, .. } => {
                self.revs_replied(context, collection, revisions, result, store)
            }
            // Only the passive side sends lists.
            Awaiting::Changes { .. } => Ok(()),
        }
    }

    fn subscribed(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        result: Result<IncomingReply, ErrorReply>,
    ) -> Result<(), SessionError> {
        let Err(error) = result else { return Ok(()) };
        if error.domain == "LiteCore" && error.code == 501 {
            return Err(SessionError::Versioning);
        }
        if let Some(pull) = &mut self.syncs[collection].pull {
            pull.refuse();
        }
        self.refuse_half(context, collection, profile::SUB_CHANGES, error);
        Ok(())
    }

    fn proposals_replied(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        changes: Vec<Change>,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Some(push) = &mut self.syncs[collection].push else { return Ok(()) };
        match result {
            Ok(reply) => {
                let answers = parse_proposals_reply(&reply.body, changes.len())
                    .ok_or(SessionError::Malformed { what: "reply to proposeChanges" })?;
                push.proposals_answered(context, changes, answers, store)?;
            }
            Err(error) if error.domain == "LiteCore" && error.code == 26 => {
                return Err(SessionError::Versioning);
            }
            Err(error) => {
                push.refuse();
                self.refuse_half(context, collection, profile::PROPOSE_CHANGES, error);
            }
        }
        Ok(())
    }

    fn revs_replied(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        revisions: Vec<SentRevision>,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let work = &mut self.syncs[collection];
        let Some(push) = &mut work.push else { return Ok(()) };
        push.revs_answered();
        match result {
            Ok(reply) => {
                let answers = answer::decode(&reply.body, revisions.len())
                    .map_err(|_| SessionError::Malformed { what: "answer to revs" })?;
                for (revision, answer) in revisions.into_iter().zip(answers) {
                    let at_peer = push.revision_answered(context, revision, answer, store)?;
                    if let (Some(sequence), Some(pull)) = (at_peer, &mut work.pull) {
                        pull.peer_has(sequence);
                    }
                }
            }
            Err(error) => {
                push.refuse();
                self.refuse_half(context, collection, profile::REVS, error);
            }
        }
        Ok(())
    }
}
