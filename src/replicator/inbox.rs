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
use crate::replica::blobs::BlobDigest;
use crate::replica::store::IncomingRevision;

/// Memory of one revision beside its body, ID and history, in bytes, roughly.
const REVISION_OVERHEAD: usize = 160;

/// Bytes of revisions that may wait for blobs, one more may go above it. A peer that keeps the limits of this side has no more on its
/// way.
const PARKED_BYTES_MAX: usize = 8 << 20;

/// Messages whose revisions may wait for blobs.
const PARKED_MAX: usize = 1_000;

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
    /// Blobs that they name, of which something else came.
    pub corrupt: Vec<BlobDigest>,
}

/// Revisions that wait for blobs.
struct Parked {
    batch: Batch,
    missing: Vec<BlobDigest>,
    bytes: usize,
}

/// A commit that is over: which messages it held, and all their revisions in order.
pub(super) struct Committed {
    pub origins: Vec<(Origin, usize)>,
    pub revisions: Arc<Vec<IncomingRevision>>,
    /// Or blobs alone.
    pub blobs: Vec<BlobDigest>,
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
    parked: Vec<Parked>,
    parked_bytes: usize,
    /// Blobs whose content has come and is not durable yet.
    came: Vec<BlobDigest>,
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

    /// Whether more revisions may wait for blobs. They do not stop the peer's input, by which the blobs come, so a peer that keeps no
    /// measure has them refused for want of their blobs.
    pub fn may_park(&self) -> bool {
        self.parked_bytes < PARKED_BYTES_MAX && self.parked.len() < PARKED_MAX
    }

    /// Adds revisions that wait for these blobs, at least one.
    pub fn park(&mut self, batch: Batch, missing: Vec<BlobDigest>) {
        let bytes = batch.revisions.iter().map(size).sum();
        self.parked_bytes += bytes;
        self.parked.push(Parked { batch, missing, bytes });
    }

    /// The content of a blob has come: it is to be made durable, before those who wait for it and for others.
    pub fn blob_came(&mut self, digest: BlobDigest) {
        self.came.push(digest);
    }

    /// Blobs whose content has come and is not durable yet.
    pub fn blobs_undurable(&self) -> usize {
        self.came.len() + self.running.iter().map(|running| running.committed.blobs.len()).sum::<usize>()
    }

    /// A blob is here now, or will not come, or something else came: without it the store refuses who names it.
    pub fn blob_over(&mut self, digest: &BlobDigest, is_corrupt: bool) {
        for parked in &mut self.parked {
            let before = parked.missing.len();
            parked.missing.retain(|missing| missing != digest);
            if parked.missing.len() < before && is_corrupt {
                parked.batch.corrupt.push(*digest);
            }
        }
        for at in (0..self.parked.len()).rev() {
            if self.parked[at].missing.is_empty() {
                let Parked { batch, bytes, .. } = self.parked.remove(at);
                self.parked_bytes -= bytes;
                self.push(batch);
            }
        }
    }

    /// Whether the peer must wait.
    pub fn is_full(&self, limits: &SessionLimits) -> bool {
        self.waiting_bytes >= limits.commit_queue_bytes_max
            || self.waiting_revisions >= limits.commit_queue_revisions_max
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        !self.is_at_store() && self.parked.is_empty()
    }

    /// Whether something waits for the store, or is under way there.
    pub fn is_at_store(&self) -> bool {
        !self.waiting.is_empty() || !self.running.is_empty() || !self.came.is_empty()
    }

    /// Whether commits are under way.
    pub fn is_committing(&self) -> bool {
        !self.running.is_empty()
    }

    /// What waits, as one commit; nothing while enough are under way.
    pub fn poll_commit(&mut self) -> Option<CommitRequest> {
        if self.running.len() >= COMMITS_IN_FLIGHT_MAX {
            return None;
        }
        // One of the two at most is of blobs, so that they hold up nobody who needs none.
        let is_of_blobs = |running: &Running| !running.committed.blobs.is_empty();
        if !self.came.is_empty() && !self.running.iter().any(is_of_blobs) {
            let blobs = std::mem::take(&mut self.came);
            return Some(self.commit(Vec::new(), Vec::new(), blobs, Vec::new()));
        }
        if self.waiting.is_empty() {
            return None;
        }
        let (mut origins, mut corrupt) = (Vec::new(), Vec::new());
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
            corrupt.extend(batch.corrupt);
        }
        self.waiting_revisions -= revisions.len();
        self.waiting_bytes -= bytes;
        Some(self.commit(origins, revisions, Vec::new(), corrupt))
    }

    fn commit(
        &mut self,
        origins: Vec<(Origin, usize)>,
        revisions: Vec<IncomingRevision>,
        blobs: Vec<BlobDigest>,
        corrupt: Vec<BlobDigest>,
    ) -> CommitRequest {
        self.next_id += 1;
        let id = CommitId(self.next_id);
        let revisions = Arc::new(revisions);
        let committed = Committed { origins, revisions: revisions.clone(), blobs: blobs.clone() };
        self.running.push(Running { id, committed, floors: self.observed.clone() });
        CommitRequest { id, blobs, corrupt, revisions }
    }

    /// A commit under way, which is over now; `None` if there is no such one.
    pub fn take_running(&mut self, id: CommitId) -> Option<Committed> {
        let at = self.running.iter().position(|running| running.id == id)?;
        Some(self.running.remove(at).committed)
    }

    /// Forgets what waits; commits under way go on without anybody who waits for them.
    pub fn clear(&mut self) {
        self.parked.clear();
        self.came.clear();
        self.parked_bytes = 0;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::replica::revision::{SourceId, Version, VersionVector};
    use crate::replica::store::CollectionId;

    fn batch(count: usize, body: usize) -> Batch {
        let revision = IncomingRevision {
            collection: CollectionId(0),
            id: "d".into(),
            vector: VersionVector::new(Version { time: 1, source: SourceId([1; 16]) }),
            deleted: false,
            body: Bytes::from(vec![0; body]),
        };
        let (request, sequence) = (MessageNumber(1), RemoteSequence::START);
        let origin = Origin::Rev { request, no_reply: false, collection: 0, ticket: None, sequence };
        Batch { origin, revisions: vec![revision; count], corrupt: Vec::new() }
    }

    /// The sizes of the commits in which these messages go.
    fn commits(batches: impl IntoIterator<Item = (usize, usize)>) -> Vec<usize> {
        let mut inbox = Inbox::default();
        batches.into_iter().for_each(|(count, body)| inbox.push(batch(count, body)));
        let mut sizes = Vec::new();
        while let Some(commit) = inbox.poll_commit() {
            sizes.push(commit.revisions.len());
            assert!(!inbox.is_empty(), "one is under way");
            let done = inbox.take_running(commit.id).expect("under way");
            assert_eq!(done.origins.iter().map(|(_, count)| count).sum::<usize>(), commit.revisions.len());
            assert!(inbox.take_running(commit.id).is_none(), "once");
        }
        assert!(inbox.is_empty() && !inbox.is_full(&SessionLimits::default()));
        sizes
    }

    #[test]
    fn commits_are_as_large_as_they_may_be_and_a_message_is_never_divided() {
        const MAX: usize = COMMIT_REVISIONS_MAX;
        assert_eq!(commits([(1, 10), (2, 10), (3, 10)]), [6]);
        assert_eq!(commits([(MAX - 1, 0), (1, 0), (1, 0)]), [MAX, 1]);
        assert_eq!(commits([(1, 0), (MAX, 0), (MAX + 5, 0), (1, 0)]), [1, MAX, MAX + 5, 1]);
        let half = COMMIT_BYTES_MAX / 2;
        assert_eq!(commits([(1, half - 1000), (1, half - 1000), (1, 10_000)]), [2, 1]);
        assert_eq!(commits([(1, COMMIT_BYTES_MAX), (1, 0)]), [1, 1]);
    }

    #[test]
    fn what_waits_fills_it_by_bytes_and_by_number() {
        let limits = SessionLimits {
            commit_queue_bytes_max: 100_000,
            commit_queue_revisions_max: 10,
            ..SessionLimits::default()
        };
        for (message, most) in [((1, 0), 10), ((1, 60_000), 2)] {
            let mut inbox = Inbox::default();
            for _ in 0..most {
                assert!(!inbox.is_full(&limits));
                inbox.push(batch(message.0, message.1));
            }
            assert!(inbox.is_full(&limits));
            assert!(inbox.poll_commit().is_some() && !inbox.is_full(&limits), "it went to the store");
        }
    }
}
