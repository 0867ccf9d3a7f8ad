//! What the peer's replies to the active side's requests mean.

use serde_json::Value;

use super::super::core::{Awaiting, Core};
use super::super::error::SessionError;
use super::super::extension::sender::SentRevision;
use super::super::extension::{self, RevsFormat, answer};
use super::super::messages::{DEFAULT_COLLECTION, parse_proposals_reply, profile};
use super::super::store::{Change, ReplicaStore};
use super::Active;
use crate::blip::{ErrorReply, IncomingReply};

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
            Awaiting::Subscribed { collection } => self.subscribed(collection, result),
            Awaiting::Proposals { collection, changes } => {
                self.proposals_replied(core, collection, changes, result)
            }
            Awaiting::Rev { collection, rev } => {
                if let Some(push) = &mut self.works[collection].push {
                    push.rev_answered(core, rev, result.map(|_| ()));
                }
                Ok(())
            }
            Awaiting::Revs { collection, revisions, .. } => {
                self.revs_replied(core, collection, revisions, result)
            }
            // Only the passive side sends lists.
            Awaiting::Changes { .. } => Ok(()),
        }
    }

    fn collections_replied(
        &mut self,
        core: &mut Core,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let reply = match result {
            Ok(reply) => reply,
            Err(error) if is_unknown_profile(&error) && self.is_default_only(core) => {
                // An older peer: it knows one collection and is asked without naming it.
                core.collections[0].index = None;
                let client = self.works[0].checkpointer.client.clone();
                let message = core.message(profile::GET_CHECKPOINT, 0).with("client", &client);
                return core.request(message, Awaiting::Checkpoint { collection: 0, after_conflict: false });
            }
            Err(error) => return Err(SessionError::Refused { request: profile::GET_COLLECTIONS, error }),
        };
        let malformed = || SessionError::Malformed { what: "reply to getCollections" };
        let checkpoints: Vec<Value> = serde_json::from_slice(&reply.body).map_err(|_| malformed())?;
        if checkpoints.len() != self.works.len() {
            return Err(malformed());
        }
        if let Some(n) = checkpoints.iter().position(Value::is_null) {
            return Err(SessionError::RemoteCollectionMissing { name: core.collections[n].name.clone() });
        }
        let accepted = reply.properties.get(extension::PROPERTY).filter(|_| self.config.extension);
        let last = accepted.and_then(|value| extension::parse_acceptance(value, self.works.len()));
        core.extension = last.is_some();
        core.revs_format = RevsFormat::agreed(reply.properties.get(extension::FORMAT_PROPERTY));
        for (n, checkpoint) in checkpoints.iter().enumerate() {
            self.begin(core, n, checkpoint, last.as_ref().map(|last| last[n]), store)?;
        }
        self.agreed = true;
        Ok(())
    }

    fn is_default_only(&self, core: &Core) -> bool {
        core.collections.len() == 1 && core.collections[0].name == DEFAULT_COLLECTION
    }

    fn checkpoint_replied(
        &mut self,
        core: &mut Core,
        collection: usize,
        after_conflict: bool,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let reply = match result {
            Ok(reply) => Some(reply),
            Err(error) if error.code == 404 => None,
            Err(error) => return Err(SessionError::Refused { request: profile::GET_CHECKPOINT, error }),
        };
        let revision = reply.as_ref().and_then(|reply| reply.properties.get("rev"));
        if after_conflict {
            self.works[collection].checkpointer.learned(revision);
            return Ok(());
        }
        let body = reply.as_ref().map_or(&b"{}"[..], |reply| &reply.body);
        let mut checkpoint = serde_json::from_slice::<Value>(body).unwrap_or_else(|_| serde_json::json!({}));
        if let (Some(object), Some(revision)) = (checkpoint.as_object_mut(), revision) {
            object.insert("rev".into(), revision.into());
        }
        self.begin(core, collection, &checkpoint, None, store)?;
        self.agreed = true;
        Ok(())
    }

    fn subscribed(
        &mut self,
        collection: usize,
        result: Result<IncomingReply, ErrorReply>,
    ) -> Result<(), SessionError> {
        let Err(error) = result else { return Ok(()) };
        if error.domain == "LiteCore" && error.code == 501 {
            return Err(SessionError::Versioning);
        }
        if let Some(pull) = &mut self.works[collection].pull {
            pull.end();
        }
        self.refused.get_or_insert(SessionError::Refused { request: profile::SUB_CHANGES, error });
        Ok(())
    }

    fn proposals_replied(
        &mut self,
        core: &mut Core,
        collection: usize,
        changes: Vec<Change>,
        result: Result<IncomingReply, ErrorReply>,
    ) -> Result<(), SessionError> {
        let Some(push) = &mut self.works[collection].push else { return Ok(()) };
        match result {
            Ok(reply) => {
                let answers = parse_proposals_reply(&reply.body, changes.len())
                    .ok_or(SessionError::Malformed { what: "reply to proposeChanges" })?;
                push.proposals_answered(core, changes, answers);
            }
            Err(error) if error.domain == "LiteCore" && error.code == 26 => {
                return Err(SessionError::Versioning);
            }
            Err(error) => {
                push.refuse();
                self.refused
                    .get_or_insert(SessionError::Refused { request: profile::PROPOSE_CHANGES, error });
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
    ) -> Result<(), SessionError> {
        let work = &mut self.works[collection];
        let Some(push) = &mut work.push else { return Ok(()) };
        push.revs_answered();
        match result {
            Ok(reply) => {
                let answers = answer::decode(&reply.body, revisions.len())
                    .map_err(|_| SessionError::Malformed { what: "answer to revs" })?;
                for (revision, answer) in revisions.into_iter().zip(answers) {
                    let at_peer = push.revision_answered(core, revision, answer);
                    if let (Some(sequence), Some(pull)) = (at_peer, &mut work.pull) {
                        pull.peer_has(sequence);
                    }
                }
            }
            Err(error) => {
                push.refuse();
                self.refused.get_or_insert(SessionError::Refused { request: profile::REVS, error });
            }
        }
        Ok(())
    }
}

fn is_unknown_profile(error: &ErrorReply) -> bool {
    error.domain == "BLIP" && error.code == 404
}
