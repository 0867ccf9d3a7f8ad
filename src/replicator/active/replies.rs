//! What the peer's replies to the active side's requests mean.

use super::super::core::{Awaiting, Core};
use super::super::error::SessionError;
use super::super::extension::answer;
use super::super::extension::sender::SentRevision;
use super::super::messages::{parse_proposals_reply, profile};
use super::Active;
use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::store::{Change, ReplicaStore};

impl Active {
    /// Takes the reply to one of our requests.
    pub fn handle_reply(
        &mut self,
        core: &mut Core,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        match awaiting {
            Awaiting::Collections => self.collections_replied(core, result, store),
            Awaiting::Checkpoint { collection, after_conflict } => {
                self.checkpoint_replied(core, collection, after_conflict, result, store)
            }
            Awaiting::CheckpointSaved { collection, body } => {
                let checkpointer = &mut self.works[collection].checkpointer;
                match result {
                    Ok(reply) => {
                        let revision = reply.properties.get("rev").unwrap_or_default();
                        Ok(checkpointer.saved(revision, body, store)?)
                    }
                    Err(error) => checkpointer.refused(core, error.code),
                }
            }
            Awaiting::Subscribed { collection } => self.subscribed(core, collection, result),
            Awaiting::Proposals { collection, changes } => {
                self.proposals_replied(core, collection, changes, result, store)
            }
            Awaiting::Rev { collection, rev } => {
                if let Some(push) = &mut self.works[collection].push {
                    push.rev_answered(core, rev, result.map(|_| ()), store)?;
                }
                Ok(())
            }
            Awaiting::Revs { collection, revisions, .. } => {
                self.revs_replied(core, collection, revisions, result, store)
            }
            // Only the passive side sends lists.
            Awaiting::Changes { .. } => Ok(()),
        }
    }

    fn subscribed(
        &mut self,
        core: &mut Core,
        collection: usize,
        result: Result<IncomingReply, ErrorReply>,
    ) -> Result<(), SessionError> {
        let Err(error) = result else { return Ok(()) };
        if error.domain == "LiteCore" && error.code == 501 {
            return Err(SessionError::Versioning);
        }
        if let Some(pull) = &mut self.works[collection].pull {
            pull.refuse();
        }
        self.refuse_half(core, collection, profile::SUB_CHANGES, error);
        Ok(())
    }

    fn proposals_replied(
        &mut self,
        core: &mut Core,
        collection: usize,
        changes: Vec<Change>,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Some(push) = &mut self.works[collection].push else { return Ok(()) };
        match result {
            Ok(reply) => {
                let answers = parse_proposals_reply(&reply.body, changes.len())
                    .ok_or(SessionError::Malformed { what: "reply to proposeChanges" })?;
                push.proposals_answered(core, changes, answers, store)?;
            }
            Err(error) if error.domain == "LiteCore" && error.code == 26 => {
                return Err(SessionError::Versioning);
            }
            Err(error) => {
                push.refuse();
                self.refuse_half(core, collection, profile::PROPOSE_CHANGES, error);
            }
        }
        Ok(())
    }

    fn revs_replied(
        &mut self,
        core: &mut Core,
        collection: usize,
        revisions: Vec<SentRevision>,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let work = &mut self.works[collection];
        let Some(push) = &mut work.push else { return Ok(()) };
        push.revs_answered();
        match result {
            Ok(reply) => {
                let answers = answer::decode(&reply.body, revisions.len())
                    .map_err(|_| SessionError::Malformed { what: "answer to revs" })?;
                for (revision, answer) in revisions.into_iter().zip(answers) {
                    let at_peer = push.revision_answered(core, revision, answer, store)?;
                    if let (Some(sequence), Some(pull)) = (at_peer, &mut work.pull) {
                        pull.peer_has(sequence);
                    }
                }
            }
            Err(error) => {
                push.refuse();
                self.refuse_half(core, collection, profile::REVS, error);
            }
        }
        Ok(())
    }
}
