//! What the peer's replies to the active side's requests mean.

use super::super::context::SessionContext;
use super::super::error::SessionError;
use super::super::in_flight::Awaiting;
use super::super::messages::profile;
use super::super::protocol::push::Replied;
use super::{Active, CollectionSync};
use crate::blip::{ErrorReply, IncomingReply};
use crate::replica::store::ReplicaStore;

impl Active {
    /// Takes the reply to one of our requests.
    pub(super) fn replied(
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
                        Ok(checkpointer.saved(revision, &body, store)?)
                    }
                    Err(error) => checkpointer.refused(context, error.code),
                }
            }
            Awaiting::Subscribed { collection } => self.subscribed(context, collection, result),
            Awaiting::Proposals { collection, .. }
            | Awaiting::Rev { collection, .. }
            | Awaiting::Revs { collection, .. } => {
                self.push_replied(context, collection, awaiting, result, store)
            }
            // Only the passive side sends lists; the session takes blobs.
            Awaiting::Changes { .. } | Awaiting::Blob { .. } => Ok(()),
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

    fn push_replied(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        awaiting: Awaiting,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let CollectionSync { push: Some(push), pull, .. } = &mut self.syncs[collection] else {
            return Ok(());
        };
        let Replied { at_peer, refused } = push.handle_reply(context, awaiting, result, store)?;
        if let Some(pull) = pull {
            at_peer.into_iter().for_each(|sequence| pull.protocol.peer_has(sequence));
        }
        if let Some((request, error)) = refused {
            self.refuse_half(context, collection, request, error);
        }
        Ok(())
    }
}
