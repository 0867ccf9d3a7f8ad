//! Sending by the extension: the feed goes out in `revs` messages. Revisions whose author is this database go with their
//! body; others, which the peer may have from elsewhere, are offered first and sent when it wants them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::form::{Form, Formed};
use crate::blip::IncomingReply;
use crate::replica::revision::{SourceId, VersionVector};
use crate::replica::store::{Change, ReplicaStore};
use crate::replicator::context::SessionContext;
use crate::replicator::error::SessionError;
use crate::replicator::extension::REVS_ENTRIES;
use crate::replicator::extension::answer::{self, RevAnswer};
use crate::replicator::extension::codec::{Content, RevsEncoder};
use crate::replicator::feed::{Feed, Rows};
use crate::replicator::in_flight::{Awaiting, Sent, SentRevision, Wanted};
use crate::replicator::messages::profile;

/// Fewest rows read at a time, however large documents are.
const READ_MIN: usize = 8;

/// One collection on its way out in `revs` messages: what the peer wants of earlier offers, and what is under way.
pub(super) struct BatchSender {
    source: SourceId,
    /// Up to here revisions are offered even if they are our own: an interrupted run may have sent them.
    offer_until: u64,
    wanted: VecDeque<Wanted>,
    in_flight: usize,
    /// Mean bytes of a row so far, to read about as much as goes into a message.
    row_bytes: usize,
    /// The feed position that the peer knows of.
    announced: u64,
    /// Whether the peer was told once that the feed ends.
    told_end: bool,
    form: Form,
}

/// What one message gave away.
pub(super) struct Sending {
    /// The feed position before and after.
    pub from: u64,
    pub through: u64,
    /// The sequences in it, in order.
    pub sequences: Vec<u64>,
}

impl BatchSender {
    /// `position`: where the feed begins.
    pub fn new(source: SourceId, position: u64, offer_until: u64) -> BatchSender {
        BatchSender {
            source,
            offer_until,
            wanted: VecDeque::new(),
            in_flight: 0,
            row_bytes: 128,
            announced: position,
            told_end: false,
            form: Form::new(),
        }
    }

    /// Notes an offer that the peer wants.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    /// Whether nothing is queued or in flight.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.in_flight == 0
    }

    /// Forgets what is not sent yet.
    pub fn clear(&mut self) {
        self.wanted.clear();
    }

    /// Whether another message may go.
    fn has_room(&self, context: &SessionContext) -> bool {
        context.may_send_batch(self.in_flight)
    }

    /// Sends what the peer wants, as far as the limits allow.
    pub fn pump_wanted(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        store: &dyn ReplicaStore,
    ) -> Result<bool, SessionError> {
        let mut sent = false;
        while !self.wanted.is_empty() && self.has_room(context) {
            let Some(target) = context.collections.get(collection).map(|c| c.id) else { break };
            let mut encoder = RevsEncoder::new(self.form.format(context.revs_format), true, 0);
            let mut revisions = Vec::new();
            let (entries, bytes) = self.form.limits();
            while let Some(wanted) = self.wanted.pop_front() {
                let newest = store
                    .document(target, &wanted.id)?
                    .filter(|c| c.vector.current == wanted.revision.version());
                let size = newest.as_ref().map_or(0, |change| body_of(change).len());
                if !revisions.is_empty() && encoder.size() + size > context.body_size_max {
                    // It fits into a message of its own.
                    self.wanted.push_front(wanted);
                    break;
                }
                let (change, content) = match newest {
                    Some(change) => {
                        let content = Content::Body(body_of(&change));
                        (Change { sequence: wanted.sequence, ..change }, content)
                    }
                    None => (gone(&wanted), Content::Gone),
                };
                encoder.push(&change, &content);
                revisions.push(sent_revision(change, &content));
                if encoder.size() >= bytes || encoder.count() >= entries || encoder.is_full() {
                    break;
                }
            }
            let formed = self.form.finish(encoder, 0, false);
            self.send(context, collection, formed, revisions)?;
            sent = true;
        }
        Ok(sent)
    }

    /// Sends one message of the feed, if the limits allow and there is anything. `tell_end`: the peer must hear where
    /// the feed ends.
    pub fn pump_feed(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        store: &dyn ReplicaStore,
        feed: &mut Feed,
        tell_end: bool,
    ) -> Result<Option<Sending>, SessionError> {
        if !self.has_room(context) {
            return Ok(None);
        }
        let ceiling = context.feed_ceiling(collection, store);
        if feed.is_exhausted(ceiling) && (!tell_end || self.told_end) {
            return Ok(None);
        }
        let (entries, bytes) = self.form.limits();
        let limit = (bytes / self.row_bytes.max(1)).clamp(READ_MIN, entries);
        let rows = feed.read(store, ceiling, limit, true, context.body_size_max)?;
        let mut sequences: Vec<u64> = rows.changes.iter().map(|change| change.sequence).collect();
        let Rows { from, mut through, changes, mut unsendable } = rows;
        let mut encoder = RevsEncoder::new(self.form.format(context.revs_format), false, self.announced);
        let mut revisions = Vec::with_capacity(changes.len());
        for change in changes {
            let ours = change.vector.current.source == self.source && change.sequence > self.offer_until;
            let content = if ours { Content::Body(body_of(&change)) } else { Content::Offer };
            let size = if let Content::Body(body) = &content { body.len() } else { 0 };
            // More offers than that might all be wanted.
            let is_full =
                encoder.size() >= bytes || encoder.is_full() || !ours && encoder.count() >= REVS_ENTRIES;
            // A document that is large alone goes alone.
            if !revisions.is_empty() && (is_full || encoder.size() + size > context.body_size_max) {
                through = change.sequence - 1;
                feed.unread_after(through);
                break;
            }
            encoder.push(&change, &content);
            revisions.push(sent_revision(change, &content));
        }
        sequences.retain(|sequence| *sequence <= through);
        unsendable.retain(|(change, _)| change.sequence <= through);
        context.report_unsendable(collection, unsendable)?;
        if !revisions.is_empty() {
            self.row_bytes = (self.row_bytes + encoder.size() / revisions.len()) / 2;
        }
        let last = tell_end && feed.is_exhausted(ceiling);
        // What is only left out needs no message of its own: the next one covers it.
        if !revisions.is_empty() || (last && !self.told_end) {
            self.told_end |= last;
            self.announced = through;
            let formed = self.form.finish(encoder, through, last);
            self.send(context, collection, formed, revisions)?;
        }
        Ok(Some(Sending { from, through, sequences }))
    }

    fn send(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        Formed { body, plain, bytes }: Formed,
        revisions: Vec<SentRevision>,
    ) -> Result<(), SessionError> {
        let mut message = context.message(profile::REVS, collection).with_body(body);
        message.compressed = plain;
        if revisions.is_empty() {
            return context.notify(message);
        }
        self.in_flight += 1;
        context.request(message, Awaiting::Revs { collection, revisions, bytes })
    }

    /// An answer has come, or the word that there is none.
    pub fn answered(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

/// The body to send, which was asked for.
fn body_of(change: &Change) -> Bytes {
    change.body.clone().unwrap_or(Bytes::from_static(b"{}"))
}

fn sent_revision(change: Change, content: &Content) -> SentRevision {
    let sent = match content {
        Content::Body(_) => Sent::Body,
        Content::Offer => Sent::Offer,
        Content::Gone => Sent::Gone,
    };
    SentRevision {
        id: change.id,
        sequence: change.sequence,
        deleted: change.deleted,
        sent,
        revision: change.vector.id(),
    }
}

/// What stands for a revision that is not here any more.
fn gone(wanted: &Wanted) -> Change {
    let vector = VersionVector::new(wanted.revision.version());
    Change::known_as(wanted.sequence, wanted.id.clone(), vector)
}

/// What the reply to a message says of each of its revisions.
pub(super) fn answers(
    reply: &IncomingReply,
    revisions: Vec<SentRevision>,
) -> Result<impl Iterator<Item = (SentRevision, RevAnswer)>, SessionError> {
    let answers = answer::decode(&reply.body, revisions.len())
        .map_err(|_| SessionError::Malformed { what: "answer to revs" })?;
    Ok(revisions.into_iter().zip(answers))
}
