//! A node's database as replication sees it, with a witness: what is acknowledged to peers goes into the model, and
//! checkpoints are watched. It is also where bugs are put in, to show that the simulation finds them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gattway::database::Database;
use gattway::lab::replica::blobs::{BlobDigest, BlobState};
use gattway::lab::replica::revision::RevId;
use gattway::lab::replica::store::{
    Change, CollectionId, CommitOutcome, ConflictPolicy, IncomingRevision, Rejection, ReplicaStore,
    ReplicaStoreError,
};
use gattway::lab::simulation::Process;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::model::NodeIndex;
use super::plan::Bug;
use super::world::{World, lock};

/// Where the active side keeps its own copies, and those of them that are not checkpoints.
pub const OWN_PREFIX: &str = "own/";
const NOTE_PREFIX: &str = "own/note/";

/// One in so many incoming revisions is lost by [`Bug::ForgetsRevisions`].
const FORGOTTEN_ONE_IN: u64 = 20;

/// How far a checkpoint claims to be, of what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// All local sequences up to here.
    pub local: u64,
    /// And these, first and count.
    pub completed: Vec<(u64, u64)>,
    /// All of the peer's sequences up to here; `None` where its places are no numbers, and have no order.
    pub remote: Option<u64>,
    /// Its mark, and that of the one before: of the copy at the peer.
    marks: [Option<String>; 2],
    /// Those that led to it: of the copy that its owner keeps.
    known: Vec<String>,
}

impl Claim {
    /// Reads a checkpoint by its description in `firmware-notes/replication.md`.
    pub fn parse(body: &[u8]) -> Claim {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        let pairs = value.get("localCompleted").and_then(Value::as_array).cloned().unwrap_or_default();
        let pairs: Vec<u64> = pairs.iter().filter_map(Value::as_u64).collect();
        let completed = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let remote = value.get("remote").map_or(Some(0), Value::as_u64);
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let known = value.get("known").and_then(Value::as_array).cloned().unwrap_or_default();
        let known = known.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Claim { local: number("local"), completed, remote, marks: [text("mark"), text("after")], known }
    }

    /// Whether the copy at the peer is one that led to this one, or follows it. Without marks nobody knows.
    fn is_of_one_past(&self, peers: &Claim) -> bool {
        let [mark, after] = &peers.marks;
        match (mark, self.known.last()) {
            (Some(mark), Some(newest)) => self.known.contains(mark) || after.as_ref() == Some(newest),
            _ => true,
        }
    }

    /// What its owner's copy and that at the peer agree on.
    pub fn agreed(&self, other: &Claim) -> Claim {
        if !self.is_of_one_past(other) {
            return Claim { remote: Some(0), ..Claim::default() };
        }
        let sequences = |claim: &Claim| -> Vec<(u64, u64)> {
            let ranges = claim.completed.iter().copied();
            ranges.chain([(0, claim.local.saturating_add(1))]).collect()
        };
        let (ours, theirs) = (sequences(self), sequences(other));
        let overlap = |a: (u64, u64), b: (u64, u64)| {
            let (first, end) = (a.0.max(b.0), (a.0 + a.1).min(b.0 + b.1));
            (first < end).then(|| (first, end - first))
        };
        let completed = ours.iter().flat_map(|a| theirs.iter().filter_map(|b| overlap(*a, *b))).collect();
        let (local, remote) = (self.local.min(other.local), self.remote.min(other.remote));
        Claim { local, completed, remote, ..Claim::default() }
    }

    /// Whether it says that the peer has the local sequence.
    pub fn has_local(&self, sequence: u64) -> bool {
        let within = |(first, count): &(u64, u64)| (*first..first + count).contains(&sequence);
        sequence <= self.local || self.completed.iter().any(within)
    }
}

/// The witness.
pub struct Watched {
    db: Database,
    world: Arc<World>,
    node: NodeIndex,
    seen: AtomicU64,
    /// One for each that was asked for, so that all are told in the order in which they asked: tokio tells the receivers
    /// of one sender in an order of its own.
    watchers: Mutex<Vec<watch::Sender<u64>>>,
}

impl Watched {
    /// The witness of a database; its process tells it of changes.
    pub fn new(db: Database, world: &Arc<World>, node: NodeIndex, process: &Process) -> Arc<Watched> {
        let mut changes = ReplicaStore::watch(&db);
        let (world, watchers) = (Arc::clone(world), Mutex::default());
        let watched = Arc::new(Watched { db, world, node, seen: AtomicU64::new(0), watchers });
        let weak = Arc::downgrade(&watched);
        process.spawn(async move {
            while changes.changed().await.is_ok() {
                let count = *changes.borrow_and_update();
                let Some(watched) = weak.upgrade() else { return };
                lock(&watched.watchers).retain(|watcher| watcher.send(count).is_ok());
            }
        });
        watched
    }

    /// Notes what became of revisions from a peer, before the peer hears of it.
    fn witness(&self, revisions: &[IncomingRevision], outcomes: &[CommitOutcome]) {
        for (revision, outcome) in revisions.iter().zip(outcomes) {
            let body: Option<Map<String, Value>> =
                (!revision.deleted).then(|| serde_json::from_slice(&revision.body).unwrap_or_default());
            let mut model = self.world.model();
            let event = match model.identify(&revision.id, revision.vector.current, body.as_ref()) {
                Ok(event) => event,
                Err(problem) => {
                    drop(model);
                    self.world.violation(format!("node {} was sent {problem}", self.node));
                    continue;
                }
            };
            let line = format!("node {} got {} {}: {outcome:?}", self.node, revision.id, model.name(event));
            match outcome {
                // It is known by what it has removed.
                CommitOutcome::AlreadyKnown { .. } if self.has_none_of(revision) => {}
                CommitOutcome::Inserted { .. }
                | CommitOutcome::AlreadyKnown { .. }
                | CommitOutcome::Resolved { .. } => model.acknowledge(self.node, event),
                CommitOutcome::Conflict { .. } => {}
                // Who sent it may have another revision by now, and then gives this one's no more.
                CommitOutcome::Rejected(Rejection::MissingBlob { .. }) if self.world.plan.blobs.is_some() => {
                }
                CommitOutcome::Rejected(why) => {
                    let text = format!("node {} rejected {}: {why}", self.node, model.name(event));
                    drop(model);
                    self.world.violation(text);
                    continue;
                }
            }
            drop(model);
            self.world.trace.note(line);
            if matches!(outcome, CommitOutcome::Resolved { .. }) {
                self.look_at(revision);
            }
        }
    }

    /// Whether this node removes documents, and has none of this one.
    fn has_none_of(&self, revision: &IncomingRevision) -> bool {
        self.world.plan.removes[self.node]
            && matches!(self.db.revision(revision.collection, &revision.id), Ok(None))
    }

    /// What a peer is shown at this moment, it counts on.
    pub fn look_at_feed(&self) {
        let Some(collection) = ReplicaStore::collection(&self.db, super::checks::COLLECTION) else { return };
        let Ok(changes) = ReplicaStore::changes(&self.db, collection, 0, usize::MAX, true) else { return };
        for change in changes {
            let body = change.body.filter(|_| !change.deleted);
            let body: Option<Map<String, Value>> =
                body.map(|body| serde_json::from_slice(&body).unwrap_or_default());
            let mut model = self.world.model();
            match model.identify(&change.id, change.vector.current, body.as_ref()) {
                Ok(event) => model.count_on(self.node, event),
                Err(problem) => {
                    drop(model);
                    self.world.violation(format!("node {} shows {problem}", self.node));
                }
            }
        }
    }

    /// Lets the model see what a resolution has led to.
    fn look_at(&self, revision: &IncomingRevision) {
        let Ok(Some(now)) = self.db.document(revision.collection, &revision.id) else { return };
        let body: Option<Map<String, Value>> = (!now.deleted)
            .then(|| serde_json::from_slice(now.body.as_deref().unwrap_or_default()).unwrap_or_default());
        let event = self.world.model().identify(&now.id, now.vector.current, body.as_ref());
        if let Err(problem) = event {
            self.world.violation(format!("node {} resolved to {problem}", self.node));
        }
    }

    /// Leaves out some of the revisions; gives those left, and what is to be said of all.
    fn forget<'r>(&self, revisions: &'r [IncomingRevision]) -> Vec<&'r IncomingRevision> {
        let kept = |_: &&IncomingRevision| {
            let seen = self.seen.fetch_add(1, Ordering::Relaxed);
            seen % FORGOTTEN_ONE_IN != FORGOTTEN_ONE_IN - 1
        };
        revisions.iter().filter(kept).collect()
    }
}

impl ReplicaStore for Watched {
    delegate_to_database!(db);

    fn changes(
        &self,
        collection: CollectionId,
        since: u64,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Vec<Change>, ReplicaStoreError> {
        self.db.changes(collection, since, limit, with_bodies)
    }

    fn document(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError> {
        self.db.document(collection, id)
    }

    fn body_at(
        &self,
        collection: CollectionId,
        id: &str,
        revision: RevId,
    ) -> Result<Option<Bytes>, ReplicaStoreError> {
        let body = self.db.body_at(collection, id, revision)?;
        if body.is_some() {
            self.world.trace.note(format!("node {} has {id} {revision}, for a delta", self.node));
        }
        Ok(body)
    }

    fn revision(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError> {
        self.db.revision(collection, id)
    }

    fn commit(
        &self,
        revisions: &[IncomingRevision],
        policy: ConflictPolicy<'_>,
    ) -> Result<Vec<CommitOutcome>, ReplicaStoreError> {
        let policy = match self.world.plan.bug {
            Some(Bug::OpenConflicts) => ConflictPolicy::Refuse,
            _ => policy,
        };
        let is_careless = match self.world.plan.bug {
            Some(Bug::ForgetsRevisions) => true,
            Some(Bug::TakesForRemoved) => self.world.plan.removes[self.node],
            _ => false,
        };
        let outcomes = if is_careless {
            let kept: Vec<IncomingRevision> = self.forget(revisions).into_iter().cloned().collect();
            let mut stored = self.db.commit(&kept, policy)?.into_iter();
            let mut kept = kept.iter().peekable();
            let outcome = |revision: &IncomingRevision| {
                let is_kept = kept.next_if(|kept| *kept == revision).is_some();
                let sequence = self.db.last_sequence(revision.collection);
                let without = match self.world.plan.bug {
                    Some(Bug::TakesForRemoved) => CommitOutcome::AlreadyKnown { sequence: 0 },
                    _ => CommitOutcome::Inserted { sequence },
                };
                is_kept.then(|| stored.next()).flatten().unwrap_or(without)
            };
            revisions.iter().map(outcome).collect()
        } else {
            self.db.commit(revisions, policy)?
        };
        self.witness(revisions, &outcomes);
        Ok(outcomes)
    }

    fn blob(&self, digest: &BlobDigest) -> Result<BlobState, ReplicaStoreError> {
        let state = ReplicaStore::blob(&self.db, digest)?;
        if let BlobState::Part(length) = state {
            self.world.trace.note(format!("node {} lacks {digest} from byte {length} on", self.node));
            self.world.blobs.found_part(self.node, *digest, length);
        }
        Ok(state)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        let sender = watch::Sender::new(0);
        let receiver = sender.subscribe();
        lock(&self.watchers).push(sender);
        receiver
    }

    fn set_checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
        expected: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, ReplicaStoreError> {
        let mut body = body;
        let is_note = client.starts_with(NOTE_PREFIX)
            || client.starts_with(gattway::lab::replicator::unsynced::list::PREFIX);
        if !is_note && self.world.plan.bug == Some(Bug::CheckpointAhead) {
            body = ahead(&body);
        }
        let set = self.db.set_checkpoint(collection, client, expected, body.clone())?;
        if set.is_some() && !is_note {
            let claim = Claim::parse(&body);
            self.world.trace.note(format!("node {} keeps {client}: {claim:?}", self.node));
            self.world.checkpoint_set(self.node, client, claim);
        }
        Ok(set)
    }
}

/// A checkpoint that claims more than is true.
fn ahead(body: &[u8]) -> Bytes {
    let mut value: Value = serde_json::from_slice(body).unwrap_or_default();
    for field in ["local", "remote"] {
        if let Some(number) = value.get(field).and_then(Value::as_u64) {
            value[field] = (number + 2).into();
        }
    }
    Bytes::from(value.to_string())
}
