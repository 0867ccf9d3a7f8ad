//! One connection: BLIP and replication together, as seen by its driver. Sans-IO.
//!
//! The driver gives frames ([`Session::handle_frame`]), results of commits ([`Session::handle_commit`]), news of the
//! store ([`Session::handle_store_changed`]) and time ([`Session::handle_timeout`], due at [`Session::poll_at`]); after
//! each of them it takes what there is: frames ([`Session::poll_frame`], only while the transport takes them), a commit
//! ([`Session::poll_commit`]) and events ([`Session::poll_event`]). While [`Session::accepts_input`] says no, it leaves
//! frames in the transport. After [`SessionEvent::Finished`] it sends the frames that are left and closes.
//!
//! Nothing of a revision is acknowledged before `handle_commit` said that it is durable.
//! Source: `firmware-notes/replication.md`.

#![deny(clippy::disallowed_methods)]

mod attachments;
mod revisions;

use std::sync::Arc;

use super::active::Active;
use super::config::{ActiveConfig, PassiveConfig};
use super::context::{Phase, RequestError, Response, SessionContext};
use super::error::SessionError;
use super::event::{CommitId, CommitRequest, CommitResult, SessionEvent};
use super::held::HeldRequests;
use super::in_flight::Awaiting;
#[cfg(test)]
use super::limits::{InFlight, SessionLimits};
use super::messages::profile;
use super::passive::Passive;
use super::side::Side;
use crate::blip::{BlipStats, ErrorReply, Event, IncomingReply, IncomingRequest, MessageNumber};
use crate::endpoint::AccessRule;
use crate::replica::store::{ConflictPolicy, ConflictResolver, ReplicaStore};
use crate::time::Instant;

/// One side of a connection: BLIP below, the active or the passive side above.
pub struct Session {
    context: SessionContext,
    side: Box<dyn Side>,
}

impl Session {
    /// The active side of a connection on which nothing has been sent.
    pub fn active(config: ActiveConfig) -> Session {
        let mut context =
            SessionContext::new(config.blip.clone(), false, config.report_documents, config.reply_timeout);
        context.deltas.enabled = config.deltas;
        context.auto_purge = config.auto_purge;
        Session { context, side: Box::new(Active::new(config)) }
    }

    /// The passive side of a connection on which nothing has been sent.
    pub fn passive(config: PassiveConfig) -> Session {
        let mut context =
            SessionContext::new(config.blip.clone(), false, config.report_documents, config.reply_timeout);
        context.deltas.enabled = config.deltas;
        Session { context, side: Box::new(Passive::new(config)) }
    }

    /// Other limits than the usual ones, for tests. Before `start`.
    #[cfg(test)]
    pub(crate) fn with_limits(mut self, limits: SessionLimits) -> Session {
        self.context.limits = limits;
        self
    }

    /// What this side has asked and not heard of, for tests.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> InFlight {
        self.context.in_flight()
    }

    /// Blobs on their way to the peer, for tests.
    #[cfg(test)]
    pub(crate) fn blobs_given(&self) -> usize {
        self.context.given.count()
    }

    /// Bytes of answers that are not sent whole, for tests.
    #[cfg(test)]
    pub(crate) fn held_reply_bytes(&self) -> usize {
        self.context.blip.held_reply_bytes()
    }

    /// The peer has proven who it is: what was synced, and what could not be, is remembered under this name. Before `start`.
    pub fn set_peer_uid(&mut self, uid: String) {
        self.side.set_peer_uid(uid);
    }

    /// What the peer may do with collections here. Before `start`; the passive side is told in its configuration.
    pub fn set_access(&mut self, access: AccessRule) {
        self.side.set_access(access);
    }

    /// The connection is over, whatever ended it: keeps what could not be synced, and may have last events.
    pub fn close(&mut self, store: &dyn ReplicaStore) {
        self.side.close(&mut self.context, store);
        if let Err(error) = self.context.save_lists(store) {
            tracing::warn!(%error, "cannot keep the list of what could not be synced");
        }
    }

    /// The connection is open. The active side speaks first; the passive side waits.
    pub fn start(&mut self, now: Instant, store: &dyn ReplicaStore) {
        self.context.now = now;
        self.context.versioning = store.versioning();
        self.context.note_moved();
        let result = self.side.start(&mut self.context, store);
        self.end_on_error(result);
    }

    /// Takes one whole BLIP frame of the peer.
    ///
    /// # Errors
    /// Why the session ended; [`SessionEvent::Finished`] says the same. Frames after the end are ignored.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        frame: &[u8],
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        if self.context.is_finished() {
            return Ok(());
        }
        self.context.now = now;
        self.context.note_moved();
        self.context.progress.bytes_received += frame.len() as u64;
        let result = self.take_frame(frame, store);
        self.end_on_error(result.clone());
        self.update(store);
        result
    }

    fn take_frame(&mut self, frame: &[u8], store: &dyn ReplicaStore) -> Result<(), SessionError> {
        let result = self.context.blip.handle_frame(frame);
        while let Some(event) = self.context.blip.poll_event() {
            match event {
                Event::Request(request) => self.handle_request(request, store)?,
                Event::Reply { number, result } => self.handle_reply(number, result, store)?,
                Event::ReplyPart { number, properties, body } => {
                    if let Some(digest) = self.context.part_came(number) {
                        self.context.asked.came(&digest, properties.as_ref(), &body, store)?;
                    }
                }
            }
        }
        Ok(result?)
    }

    fn handle_request(
        &mut self,
        request: IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let waits = !self.context.held.is_empty() || self.context.replies_are_many();
        if waits && HeldRequests::may_hold(&request) {
            self.context.held.push(request);
            return Ok(());
        }
        self.answer_request(&request, store)
    }

    /// Answers requests that wait, as far as there is room for the answers.
    fn answer_held(&mut self, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        while !self.context.replies_are_many()
            && let Some(request) = self.context.held.pop()
        {
            self.answer_request(&request, store)?;
        }
        Ok(())
    }

    fn answer_request(
        &mut self,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let answer = match request.profile() {
            profile::REV => self.handle_rev(request, store),
            profile::NOREV => self.handle_norev(request, store),
            profile::REVS if self.context.extension => self.handle_revs(request, store),
            profile::GET_ATTACHMENT => self.handle_get_attachment(request, store),
            profile::PROVE_ATTACHMENT => self.handle_prove_attachment(request, store),
            _ => self.side.handle_request(&mut self.context, request, store),
        };
        let is_answered = !matches!(answer, Ok(Response::Later));
        self.context.requests.handled(self.context.now, is_answered, &self.context.limits);
        match answer {
            Ok(Response::Now(reply)) => self.context.reply(request.number, request.no_reply, reply),
            Ok(Response::Later) => {}
            Err(RequestError::Reply(error)) => {
                self.context.reply_error(request.number, request.no_reply, error)
            }
            Err(RequestError::Fatal(error)) => return Err(error),
        }
        Ok(())
    }

    fn handle_reply(
        &mut self,
        number: MessageNumber,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Some(awaiting) = self.context.take_awaiting(number) else { return Ok(()) };
        if let Awaiting::Blob { digest } = awaiting {
            return self.handle_blob(&digest, result, store);
        }
        self.side.handle_reply(&mut self.context, awaiting, result, store)
    }

    /// Takes the result of a commit that [`Session::poll_commit`] gave: what it made durable is acknowledged now. A
    /// result for another commit is ignored.
    pub fn handle_commit(
        &mut self,
        now: Instant,
        id: CommitId,
        result: CommitResult,
        store: &dyn ReplicaStore,
    ) {
        if self.context.is_finished() {
            return;
        }
        self.context.now = now;
        // While the store works, the peer can do nothing.
        self.context.note_moved();
        let result = self.take_commit(id, result, store);
        self.end_on_error(result);
        for collection in 0..self.context.collections.len() {
            self.context.feed_ceiling(collection, store);
        }
        self.update(store);
    }

    /// The store has new changes: call [`Session::poll_frame`] after it.
    pub fn handle_store_changed(&mut self, now: Instant, store: &dyn ReplicaStore) {
        if !self.context.is_finished() {
            self.context.now = now;
            self.update(store);
        }
    }

    /// Something is due.
    pub fn handle_timeout(&mut self, now: Instant, store: &dyn ReplicaStore) {
        if self.context.is_finished() {
            return;
        }
        self.context.now = now;
        if let Phase::Stopping { deadline } = self.context.phase
            && now >= deadline
        {
            self.context.finish(Ok(()));
            return;
        }
        if self.context.reply_deadline(self.side.is_owed()).is_some_and(|deadline| now >= deadline) {
            let error = self.context.timed_out();
            self.context.finish(Err(error));
            return;
        }
        self.side.handle_timeout(now);
        self.update(store);
    }

    /// When [`Session::handle_timeout`] is to be called.
    pub fn poll_at(&self) -> Option<Instant> {
        let stop = match self.context.phase {
            Phase::Finished => return None,
            Phase::Stopping { deadline } => Some(deadline),
            Phase::Running => None,
        };
        let reply = self.context.reply_deadline(self.side.is_owed());
        let room = self.context.requests.room_at(self.context.now, &self.context.limits);
        [stop, self.side.poll_at(), reply, room].into_iter().flatten().min()
    }

    /// Ends the session in good order: the active side finishes what is in flight and saves its checkpoints, within
    /// [`STOP_TIMEOUT`](super::config::STOP_TIMEOUT); the passive side ends at once.
    pub fn stop(&mut self, now: Instant) {
        if self.context.is_finished() {
            return;
        }
        self.context.now = now;
        self.side.stop(&mut self.context);
    }

    /// The next frame to send; `None` when there is none for now. Call it only while the transport takes frames: more
    /// is read from the store as frames leave.
    pub fn poll_frame(&mut self, now: Instant, store: &dyn ReplicaStore) -> Option<Vec<u8>> {
        self.context.now = now;
        if !self.context.held.is_empty() {
            let result = self.answer_held(store);
            self.end_on_error(result);
            self.update(store);
        }
        if !self.context.is_finished() && self.context.may_send() {
            let result = self.side.pump(&mut self.context, store);
            self.end_on_error(result);
            self.update(store);
        }
        if !self.context.is_finished() {
            let result = self.context.given.feed(&mut self.context.blip, store);
            self.end_on_error(result.map_err(SessionError::from));
        }
        self.context.poll_frame()
    }

    /// Revisions to be committed; `None` while none wait or enough commits are under way.
    pub fn poll_commit(&mut self) -> Option<CommitRequest> {
        self.context.inbox.poll_commit()
    }

    /// What commits do with conflicts.
    pub fn conflict_policy(&self) -> ConflictPolicy<'_> {
        self.side.resolver().map_or(ConflictPolicy::Refuse, |resolver| ConflictPolicy::Resolve(&**resolver))
    }

    /// The resolver of the active side, for a driver that commits on another thread; `None`: conflicts are refused.
    pub fn resolver(&self) -> Option<Arc<dyn ConflictResolver>> {
        self.side.resolver().cloned()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.context.poll_event()
    }

    /// Whether the driver may give another frame. While it may not, it leaves bytes in the transport.
    pub fn accepts_input(&self) -> bool {
        self.context.accepts_input()
    }

    /// Whether the session is over.
    pub fn is_finished(&self) -> bool {
        self.context.is_finished()
    }

    /// Whether both sides speak the extension; known after the first round trip.
    pub fn uses_extension(&self) -> bool {
        self.context.extension
    }

    /// Counters of the connection below.
    pub fn blip_stats(&self) -> BlipStats {
        self.context.blip.stats()
    }

    fn update(&mut self, store: &dyn ReplicaStore) {
        if self.context.is_finished() {
            return;
        }
        let result = self.side.update(&mut self.context, store);
        self.end_on_error(result);
    }

    fn end_on_error(&mut self, result: Result<(), SessionError>) {
        if let Err(error) = result {
            self.context.finish(Err(error));
        }
    }
}
