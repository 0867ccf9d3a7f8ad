//! What both sides of a session share: the BLIP connection, requests that await their reply, revisions on their way to
//! the store, events and deadlines.
//!
//! One file, because all of it is one state, which the methods keep together.

#![deny(clippy::disallowed_methods)]

mod reports;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::blobs::FINDS_BLOBS;
use super::blobs::asked::BlobsAsked;
use super::blobs::given::BlobsGiven;
use super::config::{EVENTS_MAX, REPLY_TIMEOUT_FACTOR, ReplicationFilter, STOP_TIMEOUT};
use super::conflicts::OpenConflicts;
use super::deltas::Deltas;
use super::error::SessionError;
use super::event::{Activity, Progress, SessionEvent};
use super::extension::RevsFormat;
use super::held::HeldRequests;
use super::in_flight::Awaiting;
use super::inbox::Inbox;
use super::limits::{InFlight, SessionLimits};
use super::request_rate::RequestRate;
use super::unsynced::Unsynced;
use super::unsynced::list::UnsyncedList;
use crate::blip::{
    BlipConfig, Connection, ErrorReply, IncomingReply, IncomingRequest, MESSAGE_SIZE_MAX, MessageNumber,
    OutgoingMessage,
};
use crate::replica::blobs::BlobDigest;
use crate::replica::revision::{VersionVector, Versioning};
use crate::replica::store::{Change, CollectionId, ReplicaStore, ReplicaStoreError};
use crate::replica::{DOCUMENT_BODY_MAX, DOCUMENT_OVERHEAD_MAX};
use crate::time::Instant;

// What a database takes fits into a message.
const _: () = assert!(DOCUMENT_BODY_MAX + DOCUMENT_OVERHEAD_MAX <= MESSAGE_SIZE_MAX);

/// One collection of the session, in the order of `getCollections`.
#[derive(Clone)]
pub(super) struct SessionCollection {
    /// Canonical full name.
    pub name: String,
    /// In this store.
    pub id: CollectionId,
    /// Its index as a property value; `None` while the peer knows only the default collection.
    pub index: Option<String>,
    /// Revisions it refuses are not stored.
    pub incoming_filter: Option<ReplicationFilter>,
    /// Revisions it refuses are not offered, nor their blobs given.
    pub outgoing_filter: Option<ReplicationFilter>,
}

/// How a request of the peer ends at once.
pub(super) enum RequestError {
    /// It is answered with an error; the session goes on.
    Reply(ErrorReply),
    /// The session is over.
    Fatal(SessionError),
}

impl From<ErrorReply> for RequestError {
    fn from(error: ErrorReply) -> RequestError {
        RequestError::Reply(error)
    }
}

impl From<SessionError> for RequestError {
    fn from(error: SessionError) -> RequestError {
        RequestError::Fatal(error)
    }
}

impl From<ReplicaStoreError> for RequestError {
    fn from(error: ReplicaStoreError) -> RequestError {
        RequestError::Fatal(error.into())
    }
}

/// How a request of the peer is answered.
pub(super) enum Response {
    /// With this.
    Now(OutgoingMessage),
    /// Later, or never.
    Later,
}

impl Response {
    /// An empty reply.
    pub fn empty() -> Response {
        Response::Now(OutgoingMessage::default())
    }
}

/// Where the session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// At work.
    Running,
    /// Finishes what is in flight, until the deadline at the latest.
    Stopping { deadline: Instant },
    /// Over.
    Finished,
}

/// The state of a session that its role does not change.
pub(super) struct SessionContext {
    pub blip: Connection,
    pub now: Instant,
    pub limits: SessionLimits,
    pub inbox: Inbox,
    /// What it asks for without bringing anything.
    pub requests: RequestRate,
    /// Lists of the peer whose answer waits.
    pub held: HeldRequests,
    /// Blobs that the peer is asked for.
    pub asked: BlobsAsked,
    /// Blobs on their way to the peer.
    pub given: BlobsGiven,
    pub collections: Vec<SessionCollection>,
    /// How the database here identifies revisions.
    pub versioning: Versioning,
    /// Whether both sides speak the extension.
    pub extension: bool,
    /// What both sides have said of deltas.
    pub deltas: Deltas,
    /// Whether the peer finds blobs in documents by itself, as it says in replies to lists; else it gets stubs of them.
    pub peer_finds_blobs: bool,
    /// What both sides read of it.
    pub revs_format: RevsFormat,
    pub phase: Phase,
    pub progress: Progress,
    /// Changes that are known to be there and are not read yet; part of the total.
    pub unread: u64,
    pub report_documents: bool,
    /// Whether documents go that a server says are no longer for us.
    pub auto_purge: bool,
    /// Of the passive side.
    pub open_conflicts: OpenConflicts,
    /// Largest body that fits into a message, in bytes.
    pub body_size_max: usize,
    /// What could not be synced of each collection, once it is known which there are.
    pub lists: Vec<UnsyncedList>,
    /// What is told of collections beside that.
    left_out: Unsynced,
    unsynced_told: Unsynced,
    /// Whether it may have changed since.
    pub unsynced_changed: bool,
    events: VecDeque<SessionEvent>,
    /// With the moment at which each was sent whole, or asked for until then.
    awaiting: BTreeMap<MessageNumber, (Instant, Awaiting)>,
    /// Those that were not sent whole when it was last looked at, in order.
    unsent: VecDeque<MessageNumber>,
    in_flight: InFlight,
    activity: Activity,
    progress_told: Progress,
    reply_timeout: Duration,
    /// When a frame last went in either direction.
    moved: Instant,
    /// When a frame of a request last went out.
    requests_moved: Instant,
}

impl SessionContext {
    pub fn new(
        blip: BlipConfig,
        extension: bool,
        report_documents: bool,
        reply_timeout: Duration,
    ) -> SessionContext {
        SessionContext {
            body_size_max: blip.message_size_max.saturating_sub(DOCUMENT_OVERHEAD_MAX),
            blip: Connection::new(blip),
            now: Instant::ZERO,
            limits: SessionLimits::default(),
            inbox: Inbox::default(),
            requests: RequestRate::default(),
            held: HeldRequests::default(),
            asked: BlobsAsked::default(),
            given: BlobsGiven::default(),
            collections: Vec::new(),
            versioning: Versioning::default(),
            extension,
            deltas: Deltas::default(),
            peer_finds_blobs: false,
            revs_format: RevsFormat::default(),
            phase: Phase::Running,
            progress: Progress::default(),
            unread: 0,
            report_documents,
            auto_purge: false,
            open_conflicts: OpenConflicts::default(),
            lists: Vec::new(),
            left_out: Unsynced::default(),
            unsynced_told: Unsynced::default(),
            unsynced_changed: false,
            events: VecDeque::new(),
            awaiting: BTreeMap::new(),
            unsent: VecDeque::new(),
            in_flight: InFlight::default(),
            activity: Activity::Busy,
            progress_told: Progress::default(),
            reply_timeout,
            moved: Instant::ZERO,
            requests_moved: Instant::ZERO,
        }
    }

    /// Sends a request and remembers what its reply means.
    pub fn request(&mut self, message: OutgoingMessage, awaiting: Awaiting) -> Result<(), SessionError> {
        if self.awaiting.is_empty() && self.blip.queued_bytes() == 0 {
            // The peer owes nothing until now: its time begins here.
            self.moved = self.now;
        }
        let number = match &awaiting {
            Awaiting::Blob { .. } => self.blip.send_request_for_parts(message)?,
            _ => self.blip.send_request(message)?,
        };
        self.in_flight.add(&awaiting);
        self.unsent.push_back(number);
        self.awaiting.insert(number, (self.now, awaiting));
        Ok(())
    }

    /// Sends a request that wants no reply.
    pub fn notify(&mut self, mut message: OutgoingMessage) -> Result<(), SessionError> {
        message.no_reply = true;
        self.blip.send_request(message)?;
        Ok(())
    }

    /// What the reply of this number means.
    pub fn take_awaiting(&mut self, number: MessageNumber) -> Option<Awaiting> {
        let (_, awaiting) = self.awaiting.remove(&number)?;
        self.in_flight.remove(&awaiting);
        Some(awaiting)
    }

    /// The blob of whose content a part has come. Its time counts from there: a slow radio needs hours for a long one.
    pub fn part_came(&mut self, number: MessageNumber) -> Option<BlobDigest> {
        match self.awaiting.get_mut(&number) {
            Some((since, Awaiting::Blob { digest })) => {
                *since = self.now;
                Some(*digest)
            }
            _ => None,
        }
    }

    /// Takes what the peer says of itself in a reply to a list.
    pub fn hear_of_list(&mut self, reply: &IncomingReply) {
        self.deltas.hear(reply);
        self.peer_finds_blobs |= reply.properties.get_bool(FINDS_BLOBS);
    }

    /// Requests of ours without a reply.
    pub fn awaiting_count(&self) -> usize {
        self.awaiting.len()
    }

    /// Answers a request, unless it wants no answer.
    pub fn reply(&mut self, request: MessageNumber, no_reply: bool, message: OutgoingMessage) {
        if !no_reply && let Err(error) = self.blip.reply(request, message) {
            self.finish(Err(error.into()));
        }
    }

    /// Answers a request with an error, unless it wants no answer.
    pub fn reply_error(&mut self, request: MessageNumber, no_reply: bool, error: ErrorReply) {
        if !no_reply && let Err(error) = self.blip.reply_error(request, &error) {
            self.finish(Err(error.into()));
        }
    }

    /// The collection a request is about.
    pub fn collection_of(&self, request: &IncomingRequest) -> Result<usize, ErrorReply> {
        use super::messages::refuse;
        match request.properties.get("collection") {
            None if self.collections.len() == 1 && self.collections[0].index.is_none() => Ok(0),
            Some(index) if self.collections.iter().any(|c| c.index.is_some()) => {
                let index: usize = index.parse().map_err(|_| refuse::collection_index())?;
                if index < self.collections.len() { Ok(index) } else { Err(refuse::collection_index()) }
            }
            _ => Err(refuse::collection_property()),
        }
    }

    /// A request of this profile about a collection.
    pub fn message(&self, profile: &str, collection: usize) -> OutgoingMessage {
        self.of_collection(OutgoingMessage::request(profile), collection)
    }

    /// A message with the property that names its collection.
    pub fn of_collection(&self, message: OutgoingMessage, collection: usize) -> OutgoingMessage {
        match self.collections.get(collection).and_then(|c| c.index.as_deref()) {
            Some(index) => message.with("collection", index),
            None => message,
        }
    }

    /// Whether more may be queued for sending now.
    pub fn may_send(&self) -> bool {
        self.blip.queued_bytes() < self.limits.send_queue_low
    }

    /// Whether another list may go, of a collection that has so many under way.
    pub fn may_list(&self, of_collection: usize) -> bool {
        let (each, all) = self.limits.lists_in_flight;
        self.may_send() && of_collection < each && self.in_flight.lists < all
    }

    /// Whether another single revision may go, of a collection that has so many under way.
    pub fn may_send_rev(&self, of_collection: usize) -> bool {
        let (each, all) = self.limits.revs_in_flight;
        self.may_send()
            && of_collection < each
            && self.in_flight.revs < all
            && self.in_flight.rev_bytes < self.limits.rev_bytes_in_flight
    }

    /// Whether another `revs` message may go, of a collection that has so many under way.
    pub fn may_send_batch(&self, of_collection: usize) -> bool {
        let (each, all) = self.limits.batches_in_flight;
        self.may_send()
            && of_collection < each
            && self.in_flight.batches < all
            && self.in_flight.batch_bytes < self.limits.batch_bytes_in_flight
    }

    /// Whether so much is under way that collections have to take turns.
    pub fn is_at_session_limit(&self) -> bool {
        let (limits, in_flight) = (&self.limits, &self.in_flight);
        in_flight.lists >= limits.lists_in_flight.1
            || in_flight.revs >= limits.revs_in_flight.1
            || in_flight.batches >= limits.batches_in_flight.1
            || in_flight.rev_bytes >= limits.rev_bytes_in_flight
            || in_flight.batch_bytes >= limits.batch_bytes_in_flight
            || !self.may_send()
    }

    /// Whether requests with long answers have to wait for them. Replies that the peer does not acknowledge count here, and here
    /// alone.
    pub fn replies_are_many(&self) -> bool {
        self.blip.held_reply_bytes() >= self.limits.reply_bytes_high
    }

    /// Whether the peer's input may go on: nothing that the peer causes has grown too long. Nothing here may depend on
    /// what this side itself asks or sends: a message that waits for an acknowledgement waits for input.
    pub fn accepts_input(&self) -> bool {
        self.phase == Phase::Finished
            || (!self.inbox.is_full(&self.limits)
                && self.held.bytes() < self.limits.held_requests_bytes_max
                && self.blip.sendable_reply_bytes() < self.limits.reply_bytes_max
                && self.blip.queued_reply_messages() < self.limits.replies_max
                && self.requests.room_at(self.now, &self.limits).is_none()
                && self.events.len() < EVENTS_MAX)
    }

    /// The next frame to send.
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        let requests = |blip: &Connection| blip.queued_bytes() - blip.queued_reply_bytes();
        let before = requests(&self.blip);
        let frame = self.blip.poll_frame()?;
        self.progress.bytes_sent += frame.len() as u64;
        self.note_moved();
        if requests(&self.blip) < before {
            self.requests_moved = self.now;
            while let Some(number) = self.unsent.front().copied().filter(|n| self.blip.is_sent(*n)) {
                self.unsent.pop_front();
                if let Some((since, _)) = self.awaiting.get_mut(&number) {
                    *since = self.now;
                }
            }
        }
        Some(frame)
    }

    /// Frames move: the peer is alive.
    pub fn note_moved(&mut self) {
        self.moved = self.now;
    }

    /// When the peer's time is up, if it owes something: a reply, the rest of a message, reading (`owes`: or something
    /// that is not known here).
    pub fn reply_deadline(&self, owes: bool) -> Option<Instant> {
        if self.phase == Phase::Finished || self.inbox.is_at_store() {
            return None;
        }
        // A long message on its way counts from its last frame: a slow radio needs many minutes for one.
        let oldest = self.awaiting.first_key_value().map(|(number, (since, _))| {
            if self.blip.is_sent(*number) { *since } else { self.requests_moved.max(*since) }
        });
        let unsent = self.blip.queued_bytes() > 0;
        // The rest of a message that the peer has begun: its memory is held as long.
        let unfinished = self.blip.unfinished_messages() > 0;
        if oldest.is_none() && !owes && !unsent && !unfinished {
            return None;
        }
        let still = self.moved + self.reply_timeout;
        let eldest = oldest.map(|since| since + self.reply_timeout * REPLY_TIMEOUT_FACTOR);
        Some(eldest.map_or(still, |eldest| still.min(eldest)))
    }

    /// The error when the deadline is over.
    pub fn timed_out(&self) -> SessionError {
        SessionError::TimedOut { waited: self.now.since(self.moved).max(self.reply_timeout) }
    }

    /// Begins to stop; what is in flight may still end.
    pub fn begin_stop(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping { deadline: self.now + STOP_TIMEOUT };
        }
    }

    /// Ends the session.
    pub fn finish(&mut self, result: Result<(), SessionError>) {
        if self.phase == Phase::Finished {
            return;
        }
        self.tell_progress();
        self.tell_unsynced();
        self.phase = Phase::Finished;
        self.awaiting.clear();
        self.unsent.clear();
        self.in_flight = InFlight::default();
        self.inbox.clear();
        self.held.clear();
        self.asked.clear();
        self.given.clear();
        self.events.push_back(SessionEvent::Finished(result));
    }

    /// Whether the session is over.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Whether there is work.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// Notes busy or idle.
    pub fn set_activity(&mut self, activity: Activity) {
        if activity == Activity::Idle && !self.is_finished() {
            self.tell_unsynced();
        }
        if self.activity != activity && !self.is_finished() {
            self.activity = activity;
            self.tell_progress();
            self.events.push_back(SessionEvent::Activity(activity));
        }
    }

    /// The newest revision of a document, if it is on stable storage: only such a one may be called known to the peer. One
    /// that another writer is just saving counts as not there; the commit of the peer's revision then waits for it.
    pub fn durable_revision(
        &self,
        collection: usize,
        id: &str,
        store: &dyn ReplicaStore,
    ) -> Result<Option<Change>, ReplicaStoreError> {
        let Some(target) = self.collections.get(collection).map(|c| c.id) else { return Ok(None) };
        let newest = store.revision(target, id)?;
        Ok(newest.filter(|change| change.sequence <= store.last_sequence(target)))
    }

    /// Whether a revision of a document that is not here was removed here for good: then it is known to the peer's ears.
    /// `is_whole`: the vector is all of it, and not the name in a list.
    pub fn is_removed(
        &self,
        collection: usize,
        id: &str,
        vector: &VersionVector,
        is_whole: bool,
        store: &dyn ReplicaStore,
    ) -> Result<bool, ReplicaStoreError> {
        let Some(target) = self.collections.get(collection).map(|c| c.id) else { return Ok(false) };
        store.is_removed(target, id, vector, is_whole)
    }

    /// The newest sequence a feed may read now: while a commit of what the peer sent is under way, what it adds to the
    /// feed is not known yet and must not be sent back.
    pub fn feed_ceiling(&mut self, collection: usize, store: &dyn ReplicaStore) -> u64 {
        let Some(id) = self.collections.get(collection).map(|c| c.id) else { return 0 };
        self.inbox.feed_ceiling(collection, || store.last_sequence(id))
    }
}
