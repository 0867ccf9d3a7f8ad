//! The pushing half of one collection: which local changes the peer lacks, and which of them it has confirmed. Longer than
//! most files: answers in both protocols stand side by side, for they say the same of the same sequences.

use std::collections::{HashMap, VecDeque};

use super::super::batched::sender::BatchSender;
use super::super::config::{CHANGES_BATCH, RESOLUTION_PUSH_DELAY, WANTED_REVS_MAX};
use super::super::context::{Phase, SessionContext};
use super::super::error::{SessionError, is_conflict};
use super::super::event::Direction;
use super::super::extension::answer::RevAnswer;
use super::super::feed::{Feed, Rows};
use super::super::in_flight::Awaiting;
use super::super::in_flight::SentRev;
use super::super::in_flight::{Sent, SentRevision};
use super::super::messages::{ListAnswer, profile, refuse, write_proposals};
use super::super::outgoing::{RevSender, Wanted};
use super::super::sequences::SequenceSet;
use super::super::unsynced::failure::{Failure, is_final};
use super::conflicts::{Conflicts, Refused};
use crate::blip::ErrorReply;
use crate::replica::revision::{RevId, TreeId};
use crate::replica::store::{Change, ReplicaStore};
use crate::time::Instant;

/// Most documents that may be tried again in one run.
const RETRIED_DOCUMENTS_MAX: usize = 10_000;

/// Times one revision may be proposed again because it descends from what the peer has. Each time the peer had got
/// another ancestor of it meanwhile, perhaps from here.
const DESCENT_RETRIES_MAX: u32 = 16;

/// What of one collection is still to be pushed, what is under way, and what the peer has.
pub(crate) struct Push {
    collection: usize,
    pub feed: Feed,
    /// Local sequences that need not be pushed any more: confirmed, superseded, filtered out, or the peer's own.
    pub done: SequenceSet,
    sender: Sender,
    conflicts: Conflicts,
    /// Whether the peer's conflicting revisions will come by the pull.
    pulls: bool,
    continuous: bool,
    /// Not before then: the resolution of a conflict waits.
    delayed_until: Option<Instant>,
    /// The peer takes nothing.
    refused: bool,
    /// Up to here `mark_pushed` was told.
    marked: u64,
}

enum Sender {
    Single(Box<Single>),
    Batches(BatchSender),
}

/// As Couchbase Lite does it.
#[derive(Default)]
struct Single {
    revs: RevSender,
    lists_in_flight: usize,
    retries: VecDeque<Retry>,
    retried: HashMap<u64, u32>,
    /// Whether anything was proposed in this session, or the empty list was sent.
    proposed: bool,
    told_end: bool,
}

/// A document to be proposed again.
struct Retry {
    id: String,
    sequence: u64,
    /// The peer's revision, which ours descends from.
    known: Option<RevId>,
}

impl Push {
    /// `batches`: the sender of the extension, if both speak it.
    pub fn new(
        collection: usize,
        feed: Feed,
        done: SequenceSet,
        batches: Option<BatchSender>,
        pulls: bool,
        continuous: bool,
    ) -> Push {
        let sender = batches.map_or_else(|| Sender::Single(Box::default()), Sender::Batches);
        Push {
            collection,
            feed,
            done,
            sender,
            conflicts: Conflicts::default(),
            pulls,
            continuous,
            delayed_until: None,
            refused: false,
            marked: 0,
        }
    }

    /// When a delayed push is due.
    pub fn due_at(&self) -> Option<Instant> {
        self.delayed_until
    }

    /// Ends a delay that is over: also while nothing can be sent, or its moment would stay due.
    pub fn end_delay(&mut self, now: Instant) {
        self.delayed_until = self.delayed_until.filter(|until| now < *until);
    }

    /// Whether everything that is to be pushed is confirmed.
    pub fn is_idle(&self, ceiling: u64) -> bool {
        let sent = match &self.sender {
            Sender::Single(single) => {
                single.revs.is_idle()
                    && single.lists_in_flight == 0
                    && single.retries.is_empty()
                    && (single.told_end || single.proposed)
            }
            Sender::Batches(batches) => batches.is_idle(),
        };
        self.refused || (sent && self.feed.is_exhausted(ceiling) && self.delayed_until.is_none())
    }

    /// Local changes that are not read yet.
    pub fn unread(&self, ceiling: u64) -> u64 {
        if self.refused { 0 } else { self.feed.unread(ceiling) }
    }

    /// Whether a one-shot push is over.
    pub fn is_complete(&self, ceiling: u64) -> bool {
        self.refused || (self.is_idle(ceiling) && self.feed.is_complete())
    }

    /// The peer takes nothing: ends this half.
    pub fn refuse(&mut self) {
        self.refused = true;
        match &mut self.sender {
            Sender::Single(single) => single.revs.clear(),
            Sender::Batches(batches) => batches.clear(),
        }
    }

    /// Whether the peer takes nothing.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// The peer has what is now this local sequence: it came from there.
    pub fn peer_has(&mut self, sequence: u64) {
        self.feed.skip(sequence);
        self.done.insert(sequence);
    }

    /// The document has a new revision here that came from the peer or of a conflict with it, or cannot have one, or the
    /// peer has ours: a conflict is over.
    pub fn conflict_settled(&mut self, id: &str) {
        self.conflicts.settle(id, &mut self.done);
    }

    /// Whether the peer has refused a revision of this document.
    pub fn is_conflicted(&self, id: &str) -> bool {
        self.conflicts.contains(id)
    }

    /// The peer's feed shows a version that ours is or descends from. If the peer has refused ours because of another one,
    /// it has taken a new revision meanwhile, and nothing but ours is news.
    pub fn peer_is_behind(&mut self, id: &str, known: RevId) {
        let Some(Refused { sequence, revision, .. }) = self.conflicts.take(id) else { return };
        match &mut self.sender {
            Sender::Single(single) => {
                if single.may_retry(sequence, DESCENT_RETRIES_MAX) {
                    single.retries.push_back(Retry { id: id.to_owned(), sequence, known: Some(known) });
                }
            }
            Sender::Batches(batches) => {
                if let Some(revision) = revision {
                    batches.want(Wanted { id: id.to_owned(), sequence, revision, known: Some(known) });
                }
            }
        }
    }

    /// A conflict was resolved so that the peer lacks the result.
    pub fn resolution_made(&mut self, context: &SessionContext, sequence: u64) {
        match &mut self.sender {
            // gattway peers get it within the same run.
            Sender::Batches(_) => {
                if let Some(target) = &mut self.feed.target {
                    *target = sequence.max(*target);
                }
            }
            Sender::Single(_) if self.continuous => {
                self.delayed_until = Some(context.now + RESOLUTION_PUSH_DELAY)
            }
            // Couchbase Lite leaves it to the next run.
            Sender::Single(_) => {}
        }
    }

    /// Tells the store what the peer has by now.
    pub fn mark_pushed(&mut self, store: &dyn ReplicaStore) {
        let prefix = self.done.prefix();
        if prefix > self.marked {
            self.marked = prefix;
            store.mark_pushed(self.feed.id, prefix);
        }
    }

    /// Adds to what is to be sent. Gives the newest local sequence that went out with its body, if any did.
    pub fn pump(
        &mut self,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<Option<u64>, SessionError> {
        if self.refused {
            return Ok(None);
        }
        let stopping = context.phase != Phase::Running;
        self.end_delay(context.now);
        match &mut self.sender {
            Sender::Single(single) => {
                if stopping {
                    single.revs.clear();
                    single.retries.clear();
                    return Ok(None);
                }
                single.revs.pump(context, self.collection, store, true)?;
                single.revs.gone.drain(..).for_each(|sequence| self.done.insert(sequence));
                if self.delayed_until.is_none() {
                    self.pump_lists(context, store)?;
                }
                Ok(None)
            }
            Sender::Batches(batches) => {
                if stopping {
                    batches.clear();
                    return Ok(None);
                }
                let mut newest = None;
                batches.pump_wanted(context, self.collection, store)?;
                while let Some(sending) =
                    batches.pump_feed(context, self.collection, store, &mut self.feed, false)?
                {
                    mark_gaps(
                        &mut self.done,
                        sending.from,
                        sending.through,
                        sending.sequences.iter().copied(),
                    );
                    context.progress.total += sending.sequences.len() as u64;
                    newest = Some(sending.through);
                }
                Ok(newest)
            }
        }
    }

    fn pump_lists(
        &mut self,
        context: &mut SessionContext,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        loop {
            let Sender::Single(single) = &mut self.sender else { return Ok(()) };
            if !context.may_list(single.lists_in_flight) || single.revs.queued() >= WANTED_REVS_MAX {
                return Ok(());
            }
            let ceiling = context.feed_ceiling(self.collection, store);
            if !self.feed.is_exhausted(ceiling) {
                let rows = self.feed.read_list(store, ceiling, CHANGES_BATCH, context)?;
                let Rows { from, through, changes, unsendable } = rows;
                mark_gaps(&mut self.done, from, through, changes.iter().map(|change| change.sequence));
                context.report_unsendable(self.collection, unsendable)?;
                changes.iter().for_each(|change| self.conflicts.settle(&change.id, &mut self.done));
                if !changes.is_empty() {
                    context.progress.total += changes.len() as u64;
                    let proposals = changes.into_iter().map(|change| (known_of(&change), change)).collect();
                    propose(context, self.collection, single, proposals)?;
                }
                continue;
            }
            let again = take_retries(single, &mut self.done, context, self.collection, store)?;
            if !again.is_empty() {
                propose(context, self.collection, single, again)?;
                continue;
            }
            if !single.told_end && (self.continuous || !single.proposed) {
                single.told_end = true;
                let mut message = context.message(profile::PROPOSE_CHANGES, self.collection);
                message = message.with("conflictIncludesRev", "true").with_body("[]");
                message.urgent = true;
                context.notify(message)?;
            }
            return Ok(());
        }
    }

    /// The peer said which proposals it wants.
    pub fn proposals_answered(
        &mut self,
        context: &mut SessionContext,
        changes: Vec<Change>,
        answers: Vec<ListAnswer>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Sender::Single(single) = &mut self.sender else { return Ok(()) };
        single.lists_in_flight = single.lists_in_flight.saturating_sub(1);
        for (change, answer) in changes.into_iter().zip(answers) {
            match answer {
                ListAnswer::Wanted { .. } => {
                    single.revs.want(Wanted::of(change));
                    continue;
                }
                ListAnswer::Unwanted => {
                    self.done.insert(change.sequence);
                    context.settled(Direction::Sent, self.collection, &change.id);
                }
                ListAnswer::Conflict { rev: Some(rev) }
                    if change.vector.contains(rev.current) && !change.vector.mutually_contains(&rev) =>
                {
                    // Ours descends from what the peer has: it only did not see that. No conflict, so no pull will
                    // bring it; what cannot be tried again stays open for the next run.
                    if single.may_retry(change.sequence, DESCENT_RETRIES_MAX) {
                        let (id, sequence, known) = (change.id, change.sequence, Some(rev.id()));
                        single.retries.push_back(Retry { id, sequence, known });
                        continue;
                    }
                }
                ListAnswer::Conflict { rev } if self.pulls => {
                    let mutually_contains = rev.is_some_and(|rev| rev.contains(change.vector.current));
                    let refused = Refused { mutually_contains, ..Refused::new(change.sequence, None) };
                    self.conflicts.note(&change.id, refused, &mut self.done);
                }
                ListAnswer::Conflict { .. } => {
                    not_wanted(context, self.collection, &mut self.done, &change, refuse::conflict(), store)?;
                }
                ListAnswer::Refused(status) => {
                    let error = ErrorReply::http(status, "refused when it was proposed");
                    not_wanted(context, self.collection, &mut self.done, &change, error, store)?;
                }
            }
            context.progress.completed += 1;
        }
        Ok(())
    }

    /// A single revision was answered.
    pub fn rev_answered(
        &mut self,
        context: &mut SessionContext,
        rev: SentRev,
        result: Result<(), ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let Sender::Single(single) = &mut self.sender else { return Ok(()) };
        single.revs.replied();
        match result {
            Ok(()) => {
                self.done.insert(rev.sequence);
                context.progress.documents += 1;
                context.succeeded(Direction::Sent, self.collection, &rev.id, rev.deleted);
            }
            Err(error) => {
                if is_refusal(&error) && single.may_retry(rev.sequence, 1) {
                    single.retries.push_back(Retry { id: rev.id, sequence: rev.sequence, known: None });
                    return Ok(());
                }
                // A peer with a tombstone asks for everything without a word of what it has. To a proposal that names
                // something it says that.
                if is_conflict(&error)
                    && rev.guesses_tree
                    && let Some(known) = newest_tree(context, self.collection, &rev, store)?
                    && single.may_retry(rev.sequence, DESCENT_RETRIES_MAX)
                {
                    let known = Some(RevId::Tree(known));
                    single.retries.push_back(Retry { id: rev.id, sequence: rev.sequence, known });
                    return Ok(());
                }
                let refused = Refused::new(rev.sequence, None);
                let failure = Failure::sent(&rev.id, rev.revision, rev.sequence, rev.deleted, error);
                self.failed(context, refused, failure, store)?;
            }
        }
        context.progress.completed += 1;
        Ok(())
    }

    /// A revision of a `revs` message was answered. Gives the peer's sequence if it has exactly this revision now.
    pub fn revision_answered(
        &mut self,
        context: &mut SessionContext,
        revision: SentRevision,
        answer: RevAnswer,
        store: &dyn ReplicaStore,
    ) -> Result<Option<u64>, SessionError> {
        let SentRevision { id, sequence, deleted, sent, revision } = revision;
        let mut at_peer = None;
        match answer {
            RevAnswer::Wanted if sent == Sent::Offer => {
                if let Sender::Batches(batches) = &mut self.sender {
                    batches.want(Wanted { id, sequence, revision, known: None });
                }
                return Ok(None);
            }
            RevAnswer::Stored(peer_sequence) => {
                self.done.insert(sequence);
                if sent == Sent::Body {
                    context.progress.documents += 1;
                    context.succeeded(Direction::Sent, self.collection, &id, deleted);
                } else {
                    context.settled(Direction::Sent, self.collection, &id);
                }
                at_peer = Some(peer_sequence);
            }
            RevAnswer::Known => {
                self.done.insert(sequence);
                if sent != Sent::Gone {
                    context.settled(Direction::Sent, self.collection, &id);
                }
            }
            // It had the body already and knows nothing to do with it: the next run tries again.
            RevAnswer::Wanted => {}
            RevAnswer::Conflict(theirs) => {
                let mutually_contains = theirs.contains(revision.version());
                let refused = Refused { mutually_contains, ..Refused::new(sequence, Some(revision)) };
                let failure = Failure::sent(&id, revision, sequence, deleted, refuse::conflict());
                self.failed(context, refused, failure, store)?;
            }
            RevAnswer::Failed(error) => {
                let refused = Refused::new(sequence, Some(revision));
                self.failed(context, refused, Failure::sent(&id, revision, sequence, deleted, error), store)?;
            }
        }
        context.progress.completed += 1;
        Ok(at_peer)
    }

    /// The answer to a `revs` message has come.
    pub fn revs_answered(&mut self) {
        if let Sender::Batches(batches) = &mut self.sender {
            batches.answered();
        }
    }

    /// A revision was not taken. Conflicts come back by the pull; what the peer refuses for what it is goes on the list and
    /// counts as done; the rest is for the next run.
    fn failed(
        &mut self,
        context: &mut SessionContext,
        refused: Refused,
        failure: Failure,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let is_conflict = is_conflict(&failure.error);
        if is_conflict && self.pulls {
            self.conflicts.note(&failure.id, refused, &mut self.done);
            return Ok(());
        }
        let is_newest = is_newest(context, self.collection, &failure.id, refused.sequence, store)?;
        if !is_newest || is_final(&failure.error) || is_conflict {
            self.done.insert(refused.sequence);
        }
        if is_newest {
            context.failed(self.collection, failure);
        }
        Ok(())
    }

    /// Everything has come that the peer had: conflicts of which nothing came stay for the next run. `ending`: nothing will.
    pub fn tell_conflicts(
        &mut self,
        context: &mut SessionContext,
        ending: bool,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        for (id, sequence) in self.conflicts.tell(ending) {
            // The refusal may come after the pull has settled it: then there is another revision here.
            match store.revision(self.feed.id, &id)?.filter(|change| change.sequence == sequence) {
                Some(change) => {
                    let error = refuse::conflict();
                    let failure = Failure::sent(&id, change.vector.id(), sequence, change.deleted, error);
                    context.failed(self.collection, Failure { is_open: true, ..failure });
                }
                None => self.conflicts.settle(&id, &mut self.done),
            }
        }
        Ok(())
    }
}

impl Single {
    /// Whether the document of this sequence may be proposed once more; `max` times for each.
    fn may_retry(&mut self, sequence: u64, max: u32) -> bool {
        if self.retried.len() >= RETRIED_DOCUMENTS_MAX && !self.retried.contains_key(&sequence) {
            return false;
        }
        let times = self.retried.entry(sequence).or_default();
        *times += 1;
        *times <= max
    }
}

/// The peer does not want a revision that was proposed to it.
fn not_wanted(
    context: &mut SessionContext,
    collection: usize,
    done: &mut SequenceSet,
    change: &Change,
    error: ErrorReply,
    store: &dyn ReplicaStore,
) -> Result<(), SessionError> {
    let Change { id, sequence, deleted, .. } = change;
    let is_newest = is_newest(context, collection, id, *sequence, store)?;
    if !is_newest || is_final(&error) {
        done.insert(*sequence);
    }
    if is_newest {
        context.failed(collection, Failure::sent(id, change.vector.id(), *sequence, *deleted, error));
    }
    Ok(())
}

/// Whether a refused revision is still the one that there is. If the pull has brought another meanwhile, nothing is missing.
fn is_newest(
    context: &SessionContext,
    collection: usize,
    id: &str,
    sequence: u64,
    store: &dyn ReplicaStore,
) -> Result<bool, SessionError> {
    let newest = store.revision(context.collections[collection].id, id)?;
    Ok(newest.is_some_and(|change| change.sequence == sequence))
}

/// The tree ID that a revision in flight has named, if it is still the newest of its document.
fn newest_tree(
    context: &SessionContext,
    collection: usize,
    rev: &SentRev,
    store: &dyn ReplicaStore,
) -> Result<Option<TreeId>, SessionError> {
    let newest = store.revision(context.collections[collection].id, &rev.id)?;
    let newest = newest.filter(|change| change.sequence == rev.sequence);
    Ok(newest.and_then(|change| change.vector.trees.first().copied()))
}

/// The revision that the peer is known to have had.
fn known_of(change: &Change) -> Option<RevId> {
    change.remote_ancestor.filter(|ancestor| *ancestor != change.vector.id())
}

fn propose(
    context: &mut SessionContext,
    collection: usize,
    single: &mut Single,
    proposals: Vec<(Option<RevId>, Change)>,
) -> Result<(), SessionError> {
    let body = write_proposals(proposals.iter().map(|(known, change)| (change, *known)));
    let mut message = context
        .message(profile::PROPOSE_CHANGES, collection)
        .with("conflictIncludesRev", "true")
        .with_body(body);
    message.urgent = true;
    message.compressed = true;
    single.proposed = true;
    single.lists_in_flight += 1;
    let known = |(known, change): (Option<RevId>, Change)| Change { remote_ancestor: known, ..change };
    let changes = proposals.into_iter().map(known).collect();
    context.request(message, Awaiting::Proposals { collection, changes })
}

/// Documents to be proposed again, as they are now; those that changed meanwhile are further on in the feed.
fn take_retries(
    single: &mut Single,
    done: &mut SequenceSet,
    context: &mut SessionContext,
    collection: usize,
    store: &dyn ReplicaStore,
) -> Result<Vec<(Option<RevId>, Change)>, SessionError> {
    let id = context.collections[collection].id;
    let count = single.retries.len().min(CHANGES_BATCH);
    let mut again = Vec::with_capacity(count);
    for retry in single.retries.drain(..count) {
        match store.revision(id, &retry.id)?.filter(|change| change.sequence == retry.sequence) {
            Some(change) => again.push((retry.known.or_else(|| known_of(&change)), change)),
            None => {
                done.insert(retry.sequence);
                context.progress.completed += 1;
            }
        }
    }
    Ok(again)
}

/// Everything of the range that is not to be sent is done.
fn mark_gaps(done: &mut SequenceSet, from: u64, through: u64, sent: impl Iterator<Item = u64>) {
    let mut next = from.saturating_add(1);
    for sequence in sent {
        if sequence > next {
            done.insert_range(next..=sequence - 1);
        }
        next = sequence.saturating_add(1);
    }
    if next <= through {
        done.insert_range(next..=through);
    }
}

/// The peer does not want the document, now or later.
fn is_refusal(error: &ErrorReply) -> bool {
    error.domain == "HTTP" && error.code == 403
}
