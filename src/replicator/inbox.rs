//! Revisions of the peer on their way to the store: they wait while commits are under way, then go as one.

#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::sync::Arc;

use super::config::{COMMIT_BYTES_MAX, COMMIT_REVISIONS_MAX};
use super::event::{CommitId, CommitRequest};
use super::in_flight::RevsReceived;
use super::in_flight::Ticket;
use super::limits::SessionLimits;
use super::sequences::RemoteSequence;
use crate::blip::MessageNumber;
use crate::replica::COMMITS_IN_FLIGHT_MAX;
use crate::replica::store::IncomingRevision;

/// Memory of one revision beside its body, ID and history, in bytes, roughly.
const REVISION_OVERHEAD: usize = 160;

/// What revisions that wait together came with.
#[derive(Debug)]
pub(super) enum Origin {
    /// One `rev`.
    Rev {
        /// To be answered.
        request: MessageNumber,
        /// Or not.
        no_reply: bool,
        /// Index of the collection.
        collection: usize,
        /// The place in the pull that it was asked for.
        ticket: Option<Ticket>,
        /// Its place in the peer's feed, as the peer says.
        sequence: RemoteSequence,
    },
    /// One `revs`.
    Revs(Box<RevsReceived>),
}

/// Revisions of one message.
#[derive(Debug)]
pub(super) struct Batch {
    pub origin: Origin,
    pub revisions: Vec<IncomingRevision>,
}

/// A commit that is over: which messages it held, and all their revisions in order.
pub(super) struct Committed {
    pub origins: Vec<(Origin, usize)>,
    pub revisions: Arc<Vec<IncomingRevision>>,
}

/// A commit under way.
struct Running {
    id: CommitId,
    committed: Committed,
    /// Sequences of each collection that were there before it began, at least.
    floors: Vec<u64>,
}

/// Revisions that wait for the store, and the commits under way.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: VecDeque<Batch>,
    waiting_revisions: usize,
    waiting_bytes: usize,
    running: Vec<Running>,
    next_id: u64,
    /// The newest sequence of each collection when it was last looked at.
    observed: Vec<u64>,
}

impl Inbox {
    /// Adds the revisions of one message; at least one.
    pub fn push(&mut self, batch: Batch) {
        self.waiting_revisions += batch.revisions.len();
        self.waiting_bytes += batch.revisions.iter().map(size).sum::<usize>();
        self.waiting.push_back(batch);
    }

    /// Whether the peer must wait.
    pub fn is_full(&self, limits: &SessionLimits) -> bool {
        self.waiting_bytes >= limits.commit_queue_bytes_max
            || self.waiting_revisions >= limits.commit_queue_revisions_max
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Whether commits are under way.
    pub fn is_committing(&self) -> bool {
        !self.running.is_empty()
    }

    /// What waits, as one commit; nothing while enough are under way.
    pub fn poll_commit(&mut self) -> Option<CommitRequest> {
        if self.running.len() >= COMMITS_IN_FLIGHT_MAX || self.waiting.is_empty() {
            return None;
        }
        let mut origins = Vec::new();
        let mut revisions = Vec::with_capacity(self.waiting_revisions.min(COMMIT_REVISIONS_MAX));
        let mut bytes = 0;
        while let Some(batch) = self.waiting.front() {
            let batch_bytes: usize = batch.revisions.iter().map(size).sum();
            let too_much = revisions.len() + batch.revisions.len() > COMMIT_REVISIONS_MAX
                || bytes + batch_bytes > COMMIT_BYTES_MAX;
            if too_much && !revisions.is_empty() {
                break;
            }
            let Some(batch) = self.waiting.pop_front() else { break };
            bytes += batch_bytes;
            origins.push((batch.origin, batch.revisions.len()));
            revisions.extend(batch.revisions);
        }
        self.waiting_revisions -= revisions.len();
        self.waiting_bytes -= bytes;
        self.next_id += 1;
        let id = CommitId(self.next_id);
        let revisions = Arc::new(revisions);
        let committed = Committed { origins, revisions: revisions.clone() };
        self.running.push(Running { id, committed, floors: self.observed.clone() });
        Some(CommitRequest { id, revisions })
    }

    /// A commit under way, which is over now; `None` if there is no such one.
    pub fn take_running(&mut self, id: CommitId) -> Option<Committed> {
        let at = self.running.iter().position(|running| running.id == id)?;
        Some(self.running.remove(at).committed)
    }

    /// Forgets what waits; commits under way go on without anybody who waits for them.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.waiting_revisions = 0;
        self.running.clear();
    }

    /// See [`SessionContext::feed_ceiling`](super::context::SessionContext::feed_ceiling).
    pub fn feed_ceiling(&mut self, collection: usize, last_sequence: impl FnOnce() -> u64) -> u64 {
        if self.observed.len() <= collection {
            self.observed.resize(collection + 1, 0);
        }
        let last = last_sequence();
        self.observed[collection] = last;
        let floors = self.running.iter().map(|running| running.floors.get(collection).copied().unwrap_or(0));
        floors.min().map_or(last, |floor| floor.min(last))
    }
}

/// Roughly the memory of a revision, in bytes.
fn size(revision: &IncomingRevision) -> usize {
    let versions = revision.vector.merged.len() + revision.vector.history.len();
    REVISION_OVERHEAD + revision.id.len() + revision.body.len() + 24 * versions
}
