//! What a session tells: its progress, the fate of each document, and what could not be synced.

#![deny(clippy::disallowed_methods)]

use super::super::error::SessionError;
use super::super::event::{Direction, DocumentReplication, Progress, SessionEvent};
use super::super::limits::InFlight;
use super::super::messages::write_norev;
use super::super::unsynced::failure::Failure;
use super::super::unsynced::{Lack, UnsyncedCollection};
use super::SessionContext;
use crate::blip::ErrorReply;
use crate::replica::store::{Change, ConflictOutcome, IncomingRevision, ReplicaStore, ReplicaStoreError};

impl SessionContext {
    /// A conflict has come to `outcome`.
    pub fn tell_conflict(&mut self, collection: usize, id: &str, outcome: ConflictOutcome) {
        let Some(name) = self.collections.get(collection).map(|target| target.name.clone()) else { return };
        self.push_event(SessionEvent::Conflict { collection: name, id: id.to_owned(), outcome });
    }

    /// This side leaves it to the peer to resolve a conflict.
    pub fn conflict_refused(&mut self, collection: usize, id: &str) {
        if self.open_conflicts.refused(collection, id) {
            self.tell_conflict(collection, id, ConflictOutcome::Open);
        }
    }

    /// A revision of the peer took the place of ours, from which it descends.
    pub fn conflict_ended(&mut self, collection: usize, revision: &IncomingRevision) {
        if self.open_conflicts.ended(collection, &revision.id) {
            let outcome = match (revision.vector.merged.is_empty(), revision.deleted) {
                (true, _) => ConflictOutcome::Remote,
                (false, false) => ConflictOutcome::Merged,
                (false, true) => ConflictOutcome::Deleted,
            };
            self.tell_conflict(collection, &revision.id, outcome);
        }
    }

    /// Gives the progress as an event if it changed.
    pub(super) fn tell_progress(&mut self) {
        let total = self.progress.total.saturating_add(self.unread);
        let progress = Progress { total, under_way: self.under_way(), ..self.progress };
        // Bytes alone are no news: each frame would be.
        let Progress { bytes_sent, bytes_received, .. } = progress;
        if progress != (Progress { bytes_sent, bytes_received, ..self.progress_told }) {
            self.progress_told = progress;
            self.events.push_back(SessionEvent::Progress(progress));
        }
    }

    /// How many revisions have gone to the transport and are not confirmed, by the bytes of their messages.
    fn under_way(&self) -> u64 {
        let InFlight { rev_bytes, batch_bytes, revisions, .. } = self.in_flight;
        let bytes = (rev_bytes + batch_bytes) as u64;
        let queued = self.blip.queued_bytes().saturating_sub(self.blip.queued_reply_bytes()) as u64;
        let gone = bytes.saturating_sub(queued);
        // In the wider type: both may be large.
        u64::try_from(u128::from(revisions) * u128::from(gone) / u128::from(bytes.max(1)))
            .unwrap_or(revisions)
    }

    /// What was asked and not heard of, for tests.
    #[cfg(test)]
    pub(in super::super) fn in_flight(&self) -> InFlight {
        self.in_flight
    }

    /// The next event. Progress comes once for all changes since the last.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        if self.events.is_empty() && !self.is_finished() {
            self.tell_progress();
        }
        self.events.pop_front()
    }

    /// A document was not synced: it goes on the list, and is reported.
    pub fn failed(&mut self, collection: usize, failure: Failure) {
        let Failure { direction, ref id, deleted, ref error, .. } = failure;
        self.report(direction, collection, id, deleted, Some(error.clone()));
        if let Some(list) = self.lists.get_mut(collection) {
            list.note(failure);
            self.unsynced_changed = true;
        }
    }

    /// A document went over.
    pub fn succeeded(&mut self, direction: Direction, collection: usize, id: &str, deleted: bool) {
        self.settled(direction, collection, id);
        if direction == Direction::Sent {
            // What was refused here of it is not the peer's newest any more.
            self.settled(Direction::Received, collection, id);
        }
        self.report(direction, collection, id, deleted, None);
    }

    /// The other side has the document, wherever it has it from.
    pub fn settled(&mut self, direction: Direction, collection: usize, id: &str) {
        if let Some(list) = self.lists.get_mut(collection) {
            self.unsynced_changed |= list.settle(direction, id);
        }
    }

    /// A collection is not synced, or not in both directions.
    pub fn left_out(&mut self, name: &str, lack: Lack) {
        let collection = UnsyncedCollection { name: name.to_owned(), lack };
        if !self.left_out.collections.contains(&collection) {
            self.left_out.collections.push(collection);
            self.unsynced_changed = true;
        }
    }

    /// The peer has collections that were not asked for.
    pub fn only_at_peer(&mut self, names: Vec<String>) {
        self.left_out.only_at_peer = names;
        self.unsynced_changed = true;
    }

    /// Keeps the lists of what could not be synced.
    pub fn save_lists(&mut self, store: &dyn ReplicaStore) -> Result<(), ReplicaStoreError> {
        self.lists.iter_mut().try_for_each(|list| list.save(store))
    }

    /// Gives what could not be synced as an event if it changed.
    pub(super) fn tell_unsynced(&mut self) {
        if !std::mem::take(&mut self.unsynced_changed) {
            return;
        }
        let mut unsynced = self.left_out.clone();
        for (list, collection) in self.lists.iter().zip(&self.collections) {
            list.tell(&collection.name, &mut unsynced);
        }
        if unsynced != self.unsynced_told {
            self.unsynced_told = unsynced.clone();
            self.events.push_back(SessionEvent::Unsynced(Box::new(unsynced)));
        }
    }

    /// Tells the driver something.
    pub fn push_event(&mut self, event: SessionEvent) {
        self.events.push_back(event);
    }

    /// Reports a document.
    pub fn report(
        &mut self,
        direction: Direction,
        collection: usize,
        id: &str,
        deleted: bool,
        error: Option<ErrorReply>,
    ) {
        self.report_fate(direction, collection, id, [deleted, false], error);
    }

    /// Reports a document that is no longer for us.
    pub fn report_lost_access(&mut self, collection: usize, id: &str, error: Option<ErrorReply>) {
        self.report_fate(Direction::Received, collection, id, [false, true], error);
    }

    fn report_fate(
        &mut self,
        direction: Direction,
        collection: usize,
        id: &str,
        [deleted, access_removed]: [bool; 2],
        error: Option<ErrorReply>,
    ) {
        if error.is_none() && !self.report_documents {
            return;
        }
        let Some(name) = self.collections.get(collection).map(|c| c.name.clone()) else { return };
        let (collection, id) = (name, id.to_owned());
        let document = DocumentReplication { direction, collection, id, deleted, access_removed, error };
        self.push_event(SessionEvent::DocumentReplicated(document));
    }

    /// Documents that no peer can be sent go on the list. A gattway peer hears of them; Couchbase Lite takes no word of
    /// what it has not asked for.
    pub fn report_unsendable(
        &mut self,
        collection: usize,
        unsendable: Vec<(Change, ErrorReply)>,
    ) -> Result<(), SessionError> {
        for (change, error) in unsendable {
            let (id, revision) = (&change.id, change.vector.id());
            if self.extension {
                let index = self.collections.get(collection).and_then(|target| target.index.as_deref());
                self.notify(write_norev(index, id, &revision.to_string(), change.sequence, &error))?;
            }
            let failure = Failure::sent(id, revision, change.sequence, change.deleted, error);
            self.failed(collection, failure);
        }
        Ok(())
    }
}
