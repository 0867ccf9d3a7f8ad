//! Keeps the checkpoint of one collection: reads what both sides remember, saves when it is time.

use serde_json::Value;

use super::super::checkpoint::{Checkpoint, NOTE_PREFIX, RunNote};
use super::super::context::SessionContext;
use super::super::delivery::{Confirmation, own_checkpoint};
use super::super::error::SessionError;
use super::super::extension::RevsFormat;
use super::super::in_flight::Awaiting;
use super::super::messages::profile;
use super::marks::Marks;
use crate::blip::OutgoingMessage;
use crate::replica::store::{CollectionId, ReplicaStore, ReplicaStoreError};
use crate::time::Instant;
use std::time::Duration;

/// How often a save may meet another revision of the checkpoint at the peer before it is given up for this run.
const CONFLICTS_MAX: u32 = 2;

/// The checkpoint of one collection: both sides' copies, what was saved last, and when it is saved next.
pub(crate) struct Checkpointer {
    /// Index of the collection.
    pub collection: usize,
    store_id: CollectionId,
    /// The name on both sides.
    pub client: String,
    /// Revision of the peer's copy; empty if it has none.
    peer_revision: String,
    /// Revision of our copy.
    own_revision: Option<String>,
    /// What the peer has.
    saved: Checkpoint,
    /// What is being saved.
    saving: Option<Checkpoint>,
    /// Whether the peer is asked for the revision of what it holds.
    asking: bool,
    conflicts: u32,
    /// Whether saving is given up: it only costs work in the next run.
    given_up: bool,
    next_save: Instant,
    interval: Duration,
    note: RunNote,
    note_revision: Option<String>,
    marks: Marks,
    confirmation: Option<Confirmation>,
}

impl Checkpointer {
    pub fn new(
        collection: usize,
        store_id: CollectionId,
        client: String,
        now: Instant,
        interval: Duration,
        mark_seed: u64,
    ) -> Checkpointer {
        Checkpointer {
            collection,
            store_id,
            client,
            peer_revision: String::new(),
            own_revision: None,
            saved: Checkpoint::default(),
            saving: None,
            asking: false,
            conflicts: 0,
            given_up: false,
            next_save: now + interval,
            interval,
            note: RunNote::default(),
            note_revision: None,
            marks: Marks::new(mark_seed),
            confirmation: None,
        }
    }

    /// Notes under this name how far the peer has confirmed what is here.
    pub fn confirmed_as(mut self, name: Option<&str>) -> Checkpointer {
        self.confirmation = name.map(Confirmation::new);
        self
    }

    fn confirm(&mut self, store: &dyn ReplicaStore) -> Result<(), ReplicaStoreError> {
        match &mut self.confirmation {
            Some(confirmation) => confirmation.note(self.store_id, self.saved.local_sequence(), store),
            None => Ok(()),
        }
    }

    /// Takes the peer's copy (an empty object if it has none) and gives what both sides agree on.
    pub fn load(
        &mut self,
        peer: &Value,
        store: &dyn ReplicaStore,
        reset: bool,
    ) -> Result<Checkpoint, ReplicaStoreError> {
        let revision = peer.get("rev").or_else(|| peer.get("_rev")).and_then(Value::as_str);
        self.peer_revision = revision.unwrap_or_default().to_owned();
        let own = store.checkpoint(self.store_id, &self.own_name())?;
        let note = store.checkpoint(self.store_id, &self.note_name())?;
        let is_one_past = own.as_ref().is_none_or(|own| self.marks.load(&own.body, peer));
        if !is_one_past {
            tracing::info!(client = %self.client, "this database or the peer's was put back: everything is compared");
        }
        // What was sent in another past is offered before it is sent again, as after a reset.
        let reset = reset || !is_one_past;
        let agreed = match &own {
            Some(own) if !reset => Checkpoint::from_json(&own.body).agreed(&Checkpoint::from_value(peer)),
            _ => {
                self.marks.forget();
                Checkpoint::default()
            }
        };
        self.note = match &note {
            _ if reset => RunNote { sent: u64::MAX, received: u64::MAX },
            Some(note) => RunNote::from_json(&note.body),
            None => RunNote::default(),
        };
        self.own_revision = own.map(|own| own.revision);
        self.note_revision = note.map(|note| note.revision);
        self.saved = agreed.clone();
        self.confirm(store)?;
        Ok(agreed)
    }

    fn own_name(&self) -> String {
        own_checkpoint(&self.client)
    }

    fn note_name(&self) -> String {
        format!("{NOTE_PREFIX}{}", self.client)
    }

    /// What an interrupted run had begun.
    pub fn note(&self) -> RunNote {
        self.note
    }

    /// Notes that local revisions up to `sent` go out, and those of the peer up to `received` are here.
    pub fn take_note(
        &mut self,
        sent: u64,
        received: u64,
        store: &dyn ReplicaStore,
    ) -> Result<(), ReplicaStoreError> {
        let note = RunNote { sent: self.note.sent.max(sent), received: self.note.received.max(received) };
        if note == self.note {
            return Ok(());
        }
        self.note = note;
        let name = self.note_name();
        let body = bytes::Bytes::from(note.to_json());
        let revision =
            store.set_checkpoint(self.store_id, &name, self.note_revision.as_deref(), body.clone())?;
        self.note_revision = match revision {
            Some(revision) => Some(revision),
            // Another session with the same peer writes it too: take its revision for the next time.
            None => store.checkpoint(self.store_id, &name)?.map(|note| note.revision),
        };
        Ok(())
    }

    /// Whether the peer's copy lags behind.
    pub fn is_dirty(&self, current: &Checkpoint) -> bool {
        !self.given_up && *current != self.saved
    }

    /// Whether a save awaits its reply.
    pub fn is_saving(&self) -> bool {
        self.saving.is_some() || self.asking
    }

    /// When the next save is due.
    pub fn due_at(&self) -> Instant {
        self.next_save
    }

    /// Sends the checkpoint to the peer if it lags behind and no save is under way.
    pub fn save(&mut self, context: &mut SessionContext, current: &Checkpoint) -> Result<(), SessionError> {
        if self.is_saving() || !self.is_dirty(current) {
            return Ok(());
        }
        self.saving = Some(current.clone());
        self.next_save = context.now + self.interval;
        let body = self.marks.mark(current.to_object());
        let message = self.message(context, &body);
        context.request(message, Awaiting::CheckpointSaved { collection: self.collection, body })
    }

    /// Sends the checkpoint at the end of a run, as the last word to a gattway peer, and keeps ours without waiting for an
    /// answer: each copy says by itself what is true, and only what both say counts, so one that the peer has not taken
    /// only costs work.
    pub fn save_last(
        &mut self,
        context: &mut SessionContext,
        current: &Checkpoint,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        if self.is_saving() || !self.is_dirty(current) {
            return Ok(());
        }
        self.saving = Some(current.clone());
        let body = self.marks.mark(current.to_object());
        context.notify(self.message(context, &body))?;
        let revision = self.peer_revision.clone();
        Ok(self.saved(&revision, &body, store)?)
    }

    fn message(&self, context: &SessionContext, body: &str) -> OutgoingMessage {
        let message = context.message(profile::SET_CHECKPOINT, self.collection);
        let message = message.with("client", &self.client).with("rev", &self.peer_revision);
        OutgoingMessage {
            compressed: context.revs_format >= RevsFormat::Folded,
            ..message.with_body(body.to_owned())
        }
    }

    /// The peer has it: keep our copy.
    pub fn saved(
        &mut self,
        revision: &str,
        body: &str,
        store: &dyn ReplicaStore,
    ) -> Result<(), ReplicaStoreError> {
        self.peer_revision = revision.to_owned();
        let name = self.own_name();
        let copy = bytes::Bytes::from(self.marks.saved(body));
        let own = store.set_checkpoint(self.store_id, &name, self.own_revision.as_deref(), copy)?;
        self.own_revision = match own {
            Some(revision) => Some(revision),
            None => store.checkpoint(self.store_id, &name)?.map(|own| own.revision),
        };
        if let Some(saved) = self.saving.take() {
            self.saved = saved;
        }
        self.confirm(store)
    }

    /// The peer refused it: with 409 it holds another revision, which is asked for.
    pub fn refused(&mut self, context: &mut SessionContext, code: i32) -> Result<(), SessionError> {
        self.saving = None;
        self.conflicts += 1;
        if code != 409 || self.conflicts > CONFLICTS_MAX {
            self.given_up = true;
            return Ok(());
        }
        self.asking = true;
        let message = context.message(profile::GET_CHECKPOINT, self.collection).with("client", &self.client);
        context.request(message, Awaiting::Checkpoint { collection: self.collection, after_conflict: true })
    }

    /// The peer's revision after a refusal; `None` if it has no checkpoint. The next save uses it.
    pub fn learned(&mut self, revision: Option<&str>) {
        self.asking = false;
        self.peer_revision = revision.unwrap_or_default().to_owned();
    }
}
