//! The database as replication sees it: [`ReplicaStore`] for [`Database`]. One file, because it is one trait, method by method.

use std::cmp::Ordering;
use std::sync::PoisonError;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::collection::unpack_body;
use super::edit::{pack_body, pack_checked, remote_ancestor, tree_edit};
use super::packed::{Unpacker, json_len};
use super::store::{
    CHECKPOINT_BODY_MAX, CheckpointOwner, CollectionKey, Memory, NewRevision, OwnVersions, Store,
    StoredRevision, Writer, checkpoint_content,
};
use super::{Database, DatabaseError};
use crate::replica::blobs::{BlobDigest, BlobState};
use crate::replica::clip;
use crate::replica::revision::{Causality, RevId, SourceId, VersionVector, Versioning, later};
use crate::replica::store::{
    Change, CollectionId, CommitOutcome, Conflict, ConflictOutcome, ConflictPolicy, ConflictResolver,
    IncomingRevision, Rejection, ReplicaStore, ReplicaStoreError, Resolution, StoredCheckpoint,
};
use crate::replica::validate::check_id;
use crate::replica::{CHECKPOINT_CLIENT_MAX, canonical_collection_name};

/// Times a conflict is resolved anew because the document changed while the resolver thought.
const RESOLVE_ATTEMPTS_MAX: usize = 8;

/// Bodies as they are stored, in bytes, that one page of the change feed reads at most, unless one alone has more.
const PAGE_BYTES_MAX: usize = 512 << 10;

/// Body of a tombstone without one, on the wire.
const EMPTY_BODY: &[u8] = b"{}";

impl From<DatabaseError> for ReplicaStoreError {
    fn from(error: DatabaseError) -> ReplicaStoreError {
        ReplicaStoreError { message: error.to_string(), recoverable: error.is_recoverable() }
    }
}

impl ReplicaStore for Database {
    fn source(&self) -> SourceId {
        self.store.source()
    }

    fn versioning(&self) -> Versioning {
        self.store.versioning
    }

    fn collection(&self, name: &str) -> Option<CollectionId> {
        let key = self.store.collection_key(&canonical_collection_name(name)?)?;
        Some(CollectionId(key.0.into()))
    }

    fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.store.watch()
    }

    fn collections(&self) -> Vec<(CollectionId, String)> {
        let collections = self.store.collections();
        collections.iter().map(|(key, state)| (CollectionId(key.0.into()), state.name.clone())).collect()
    }

    fn last_sequence(&self, collection: CollectionId) -> u64 {
        let state = key_of(collection).and_then(|key| self.store.collection(key));
        state.map_or(0, |state| state.durable())
    }

    fn make_durable(&self) -> Result<(), ReplicaStoreError> {
        Ok(self.store.sync(self.store.newest())?)
    }

    fn changes(
        &self,
        collection: CollectionId,
        since: u64,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Vec<Change>, ReplicaStoreError> {
        let key = key_of(collection)?;
        // What a peer is shown must be on stable storage: it would count on a sequence that a power cut takes back.
        let until = self.store.collection(key)?.durable();
        let found = self.store.changes_within(key, since, until, limit, PAGE_BYTES_MAX)?;
        found.into_iter().map(|revision| self.change(revision, with_bodies)).collect()
    }

    fn document(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError> {
        let found = self.store.revision(key_of(collection)?, id)?;
        found.map(|revision| self.change(revision, true)).transpose()
    }

    fn revision(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError> {
        let found = self.store.revision(key_of(collection)?, id)?;
        found.map(|revision| self.change(revision, false)).transpose()
    }

    fn body_at(
        &self,
        collection: CollectionId,
        id: &str,
        revision: RevId,
    ) -> Result<Option<Bytes>, ReplicaStoreError> {
        let key = key_of(collection)?;
        let Some(found) = self.store.revision(key, id)?.filter(|found| !found.deleted) else {
            return Ok(None);
        };
        if found.vector.id() == revision {
            return Ok(self.change(found, true)?.body);
        }
        let base = self.store.base_body(key, &found, revision)?;
        Ok(base.map(|body| Bytes::from(Value::Object(body).to_string())))
    }

    fn is_expired(&self, collection: CollectionId, id: &str) -> Result<bool, ReplicaStoreError> {
        Ok(self.store.is_due(key_of(collection)?, id)?)
    }

    fn is_removed(
        &self,
        collection: CollectionId,
        id: &str,
        vector: &VersionVector,
        is_whole: bool,
    ) -> Result<bool, ReplicaStoreError> {
        let is_removed = self.store.is_removed(key_of(collection)?, id, vector, is_whole)?;
        if is_removed {
            // A power cut that took the removal back could take back with it what was removed, and an older revision be there.
            self.store.sync(self.store.newest())?;
        }
        Ok(is_removed)
    }

    fn lose(&self, collection: CollectionId, id: &str) -> Result<bool, ReplicaStoreError> {
        let key = key_of(collection)?;
        let mut writer = self.store.writer();
        let Some(found) = writer.revision(key, id)? else { return Ok(false) };
        // What a peer is known to have of it is not what is here: it was changed since.
        if remote_ancestor(&writer, &self.store, key, Some(&found)) != Some(found.vector.id()) {
            return Ok(false);
        }
        writer.purge(key, &found, Memory::Nothing)?;
        writer.commit()?;
        self.store.sync_later();
        Ok(true)
    }

    fn commit(
        &self,
        revisions: &[IncomingRevision],
        policy: ConflictPolicy<'_>,
    ) -> Result<Vec<CommitOutcome>, ReplicaStoreError> {
        // It may be the sync of a blob's name that fails.
        Commit::new(&self.store, revisions)?.run(policy).map_err(|error| self.file_error(error))
    }

    fn blob(&self, digest: &BlobDigest) -> Result<BlobState, ReplicaStoreError> {
        self.store.blobs().state(digest).map_err(|error| self.file_error(error))
    }

    fn read_blob(
        &self,
        digest: &BlobDigest,
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, ReplicaStoreError> {
        let read = self.store.read_blob(digest, offset, limit).map_err(|error| self.file_error(error))?;
        Ok(read.map(Bytes::from))
    }

    fn append_blob(&self, digest: &BlobDigest, offset: u64, bytes: &[u8]) -> Result<u64, ReplicaStoreError> {
        self.store.append_blob(digest, offset, bytes).map_err(|error| self.file_error(error))
    }

    fn finish_blob(&self, digest: &BlobDigest) -> Result<bool, ReplicaStoreError> {
        self.store.finish_blob(digest).map_err(|error| self.file_error(error))
    }

    fn mark_pushed(&self, collection: CollectionId, sequence: u64) {
        if let Ok(key) = key_of(collection) {
            self.store.mark_pushed(key, sequence);
        }
    }

    fn checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
    ) -> Result<Option<StoredCheckpoint>, ReplicaStoreError> {
        let Some(bytes) = self.store.checkpoint(key_of(collection)?, client)? else { return Ok(None) };
        let damaged = || DatabaseError::Damaged { detail: "a checkpoint".into() };
        let content = checkpoint_content(&bytes).ok_or_else(damaged)?;
        let record: CheckpointRecord<'_> = postcard::from_bytes(content).map_err(|_| damaged())?;
        Ok(Some(StoredCheckpoint { revision: record.revision(), body: Bytes::copy_from_slice(record.body) }))
    }

    fn checkpoint_clients(
        &self,
        collection: CollectionId,
        prefix: &str,
    ) -> Result<Vec<String>, ReplicaStoreError> {
        Ok(self.store.checkpoint_names(key_of(collection)?, prefix)?)
    }

    fn wall_ns(&self) -> u64 {
        self.store.wall()
    }

    fn set_checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
        expected: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, ReplicaStoreError> {
        self.write_checkpoint(collection, client, CheckpointOwner::default(), expected, &body)
    }

    fn set_peer_checkpoint(
        &self,
        collection: CollectionId,
        peer: &str,
        client: &str,
        expected: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, ReplicaStoreError> {
        self.write_checkpoint(collection, client, CheckpointOwner::of_peer(peer), expected, &body)
    }
}

impl Database {
    /// What a session is told of a failure. One of a blob's file leaves the database as it is, and another attempt may succeed.
    fn file_error(&self, error: DatabaseError) -> ReplicaStoreError {
        let is_of_a_file = matches!(error, DatabaseError::Io { .. }) && self.store.failure().is_none();
        let told = ReplicaStoreError::from(error);
        ReplicaStoreError { recoverable: told.recoverable || is_of_a_file, ..told }
    }

    fn write_checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
        owner: CheckpointOwner,
        expected: Option<&str>,
        body: &[u8],
    ) -> Result<Option<String>, ReplicaStoreError> {
        let key = key_of(collection)?;
        let is_name =
            (1..=CHECKPOINT_CLIENT_MAX).contains(&client.len()) && !client.contains(char::is_control);
        if !is_name || body.len() > CHECKPOINT_BODY_MAX {
            let message = format!("a checkpoint of {} bytes for client {:?}", body.len(), clip(client));
            return Err(ReplicaStoreError { message, recoverable: false });
        }
        let mut writer = self.store.writer();
        let stored = self.checkpoint(collection, client)?;
        if stored.as_ref().map(|c| c.revision.as_str()) != expected {
            return Ok(None);
        }
        let generation = stored.and_then(|c| c.revision.strip_suffix(CHECKPOINT_SUFFIX)?.parse::<u64>().ok());
        let record = CheckpointRecord { generation: generation.unwrap_or(0) + 1, body };
        let bytes = postcard::to_stdvec(&record)
            .map_err(|e| ReplicaStoreError { message: e.to_string(), recoverable: false })?;
        if !writer.put_checkpoint(key, client, owner, &bytes)? {
            let message = "too many checkpoints in this collection".into();
            return Err(ReplicaStoreError { message, recoverable: false });
        }
        writer.commit()?;
        self.store.sync_later();
        Ok(Some(record.revision()))
    }
}

const CHECKPOINT_SUFFIX: &str = "-cc";

#[derive(Serialize, Deserialize)]
struct CheckpointRecord<'a> {
    generation: u64,
    body: &'a [u8],
}

impl CheckpointRecord<'_> {
    fn revision(&self) -> String {
        format!("{}{CHECKPOINT_SUFFIX}", self.generation)
    }
}

fn key_of(collection: CollectionId) -> Result<CollectionKey, DatabaseError> {
    let unknown = |_| DatabaseError::UnknownCollection { name: format!("#{}", collection.0) };
    u16::try_from(collection.0).map(CollectionKey).map_err(unknown)
}

impl Database {
    fn change(&self, revision: StoredRevision, with_body: bool) -> Result<Change, ReplicaStoreError> {
        let names = self.store.names().read().unwrap_or_else(PoisonError::into_inner);
        let unpacker = Unpacker::new(&names, &revision.id);
        let damaged = || DatabaseError::Damaged { detail: format!("the body of {:?}", revision.id) };
        let (body, body_size) = if revision.body.is_empty() {
            (Some(Bytes::from_static(EMPTY_BODY)), EMPTY_BODY.len() as u64)
        } else if with_body {
            let json = unpacker.json(&revision.body).ok_or_else(damaged)?;
            let len = json.len() as u64;
            (Some(Bytes::from(json)), len)
        } else {
            (None, json_len(&unpacker, &revision.body).ok_or_else(damaged)?)
        };
        Ok(Change {
            sequence: revision.sequence,
            id: revision.id.into_string(),
            vector: revision.vector,
            deleted: revision.deleted,
            body_size,
            remote_ancestor: revision.remote_ancestor,
            body: body.filter(|_| with_body),
        })
    }
}

/// An incoming revision whose form was checked.
struct Checked<'r> {
    incoming: &'r IncomingRevision,
    key: CollectionKey,
    /// Packed body; empty for a tombstone without one.
    body: Vec<u8>,
    /// Why it cannot be stored. What the store has already need not be.
    rejection: Option<Rejection>,
}

/// A conflict to be decided outside the writer's lock.
struct Open {
    index: usize,
    local: StoredRevision,
}

/// A decision, valid while the local revision is still the one it was made on.
struct Decided {
    index: usize,
    local: VersionVector,
    resolution: Resolved,
}

/// A resolution with its body packed.
enum Resolved {
    Local,
    Remote,
    Merge { deleted: bool, body: Vec<u8> },
}

impl Resolved {
    /// Keeps the later of two.
    fn later(local: &VersionVector, remote: &VersionVector) -> Resolved {
        match later(local.current, remote.current) {
            Ordering::Less => Resolved::Remote,
            Ordering::Equal | Ordering::Greater => Resolved::Local,
        }
    }

    /// What is told of it, whatever version it gets.
    fn outcome(&self) -> ConflictOutcome {
        match self {
            Resolved::Local => ConflictOutcome::Local,
            Resolved::Remote => ConflictOutcome::Remote,
            Resolved::Merge { deleted: false, .. } => ConflictOutcome::Merged,
            Resolved::Merge { deleted: true, .. } => ConflictOutcome::Deleted,
        }
    }

    /// Of revisions that cross the winner cannot keep its version, nor can a tree ID where the other is none: what the
    /// resolver has kept becomes a merge of both.
    fn with_a_version_of_its_own(self, local: &StoredRevision, checked: &mut Checked<'_>) -> Resolved {
        let (ours, theirs) = (&local.vector, &checked.incoming.vector);
        let mutually_contains = ours.mutually_contains(theirs);
        // Of two that devices with one source ID made, the later counts as a successor of the other everywhere.
        let is_twins = ours.current.source == theirs.current.source && !ours.is_tree();
        match self {
            Resolved::Local if mutually_contains || is_twins || ours.needs_version_to_win(theirs) => {
                Resolved::Merge { deleted: local.deleted, body: local.body.clone() }
            }
            Resolved::Remote if mutually_contains || theirs.needs_version_to_win(ours) => {
                Resolved::Merge { deleted: checked.incoming.deleted, body: std::mem::take(&mut checked.body) }
            }
            other => other,
        }
    }
}

/// One call of [`ReplicaStore::commit`].
struct Commit<'s, 'r> {
    store: &'s std::sync::Arc<Store>,
    checked: Vec<Checked<'r>>,
    outcomes: Vec<Option<CommitOutcome>>,
    /// Whether conflicts are resolved here.
    resolves: bool,
}

impl<'s, 'r> Commit<'s, 'r> {
    /// Checks the form of all revisions; needs no lock.
    fn new(
        store: &'s std::sync::Arc<Store>,
        revisions: &'r [IncomingRevision],
    ) -> Result<Commit<'s, 'r>, DatabaseError> {
        let mut commit = Commit {
            store,
            checked: Vec::with_capacity(revisions.len()),
            outcomes: Vec::with_capacity(revisions.len()),
            resolves: false,
        };
        let mut known = None;
        for incoming in revisions {
            let key = key_of(incoming.collection)?;
            if known.replace(key) != Some(key) {
                store.collection(key)?;
            }
            let (body, rejection) =
                match check_versioning(store, incoming).and_then(|()| check(store, incoming)) {
                    Ok(body) => (body, None),
                    Err(rejection) => (Vec::new(), Some(rejection)),
                };
            commit.checked.push(Checked { incoming, key, body, rejection });
            commit.outcomes.push(None);
        }
        Ok(commit)
    }

    fn run(mut self, policy: ConflictPolicy<'_>) -> Result<Vec<CommitOutcome>, DatabaseError> {
        self.resolves = matches!(policy, ConflictPolicy::Resolve(_));
        let mut open = self.apply((0..self.checked.len()).collect(), Vec::new())?;
        for _ in 0..RESOLVE_ATTEMPTS_MAX {
            let ConflictPolicy::Resolve(resolver) = policy else { break };
            if open.is_empty() {
                break;
            }
            let decided = self.decide(std::mem::take(&mut open), resolver)?;
            open = self.apply(Vec::new(), decided)?;
        }
        self.refuse(open)?;
        // Whatever the database's durability: the peer will be told that stable storage has it, and never send it again. Also
        // for what was known already: another writer may still be waiting for stable storage.
        self.store.sync_together(self.store.newest())?;
        let missing = || DatabaseError::Damaged { detail: "a revision without an outcome".into() };
        self.outcomes.into_iter().map(|outcome| outcome.ok_or_else(missing)).collect()
    }

    /// Leaves conflicts open. Where revisions cross, each side has seen the other's before and would not ask for it
    /// again: the local one becomes a change anew, so that the peer pulls it and can resolve.
    fn refuse(&mut self, open: Vec<Open>) -> Result<(), DatabaseError> {
        if open.is_empty() {
            return Ok(());
        }
        let mut writer = self.store.writer();
        for Open { index, local } in open {
            let checked = &self.checked[index];
            if let Some(local) = writer.revision(checked.key, &checked.incoming.id)?
                && local.vector.mutually_contains(&checked.incoming.vector)
            {
                let again = NewRevision {
                    id: local.id.clone(),
                    vector: local.vector.clone(),
                    deleted: local.deleted,
                    remote_ancestor: local.remote_ancestor,
                    body: local.body.clone(),
                };
                writer.put(checked.key, again, Some(&local))?;
            }
            self.outcomes[index] = Some(CommitOutcome::Conflict { local: local.vector });
        }
        writer.commit()?;
        Ok(())
    }

    /// One pass under the writer's lock: new revisions and decisions; returns the conflicts that are open after it.
    fn apply(&mut self, new: Vec<usize>, decided: Vec<Decided>) -> Result<Vec<Open>, DatabaseError> {
        let mut open = Vec::new();
        let mut writer = self.store.writer();
        for index in new {
            open.extend(self.insert(&mut writer, index)?);
        }
        for decision in decided {
            open.extend(self.settle(&mut writer, decision)?);
        }
        writer.commit()?;
        Ok(open)
    }

    /// Stages a revision unless it is known or conflicts.
    fn insert(&mut self, writer: &mut Writer<'_>, index: usize) -> Result<Option<Open>, DatabaseError> {
        let has_trees = self.has_trees();
        let checked = &mut self.checked[index];
        let incoming = checked.incoming;
        let local = writer.revision(checked.key, &incoming.id)?;
        let known = local.as_ref().map(|local| &local.vector);
        // Before its form is looked at: what is not needed need not be right.
        if known.is_none() && writer.is_removed(checked.key, &incoming.id, &incoming.vector)? {
            self.outcomes[index] = Some(CommitOutcome::AlreadyKnown { sequence: 0 });
            return Ok(None);
        }
        let rejection = match checked.rejection.take() {
            None => check_blobs(writer, incoming, &checked.body)?,
            rejection => rejection,
        };
        if let Some(rejection) = rejection {
            let (outcome, open) = match (known.map(|known| incoming.vector.compare(known)), local) {
                (Some(Causality::Same | Causality::Older), Some(local)) => {
                    (Some(CommitOutcome::AlreadyKnown { sequence: local.sequence }), None)
                }
                // The active side settles it, and may not need this one at all.
                (Some(Causality::Conflict), Some(local)) if !self.resolves => {
                    (None, Some(Open { index, local }))
                }
                _ => (Some(CommitOutcome::Rejected(rejection)), None),
            };
            self.outcomes[index] = outcome;
            return Ok(open);
        }
        let own = writer.observe(&incoming.vector, known);
        if own == OwnVersions::Impossible {
            let reason =
                format!("{}: a time of this database's own that lies in its future", incoming.vector.current);
            self.outcomes[index] = Some(CommitOutcome::Rejected(Rejection::BadRevision(reason)));
            return Ok(None);
        }
        let mut causality = known.map(|known| incoming.vector.compare(known));
        if own == OwnVersions::OfATwin {
            writer.note_twin(checked.key, &incoming.id, incoming.vector.current);
            // That it descends from an edit of ours is an assumption, for both have the same author. Where conflicts are
            // only refused the later one stays, as it does by default, or the two would never meet.
            let is_ours = known.is_some_and(|known| known.current.source == self.store.source());
            if self.resolves && is_ours && causality == Some(Causality::Newer) {
                causality = Some(Causality::Conflict);
            }
        }
        match causality {
            None | Some(Causality::Newer) => {
                let body = std::mem::take(&mut checked.body);
                let vector = match &local {
                    Some(local) if has_trees => incoming.vector.tree_over(&local.vector),
                    Some(local) => incoming.vector.taken_after(&local.vector),
                    None => incoming.vector.clone(),
                };
                let new = from_peer(incoming, vector, body, has_trees);
                let sequence = writer.put(checked.key, new, local.as_ref())?;
                self.outcomes[index] = Some(CommitOutcome::Inserted { sequence });
                Ok(None)
            }
            Some(Causality::Same | Causality::Older) => {
                let sequence = local.map_or(0, |local| local.sequence);
                self.outcomes[index] = Some(CommitOutcome::AlreadyKnown { sequence });
                Ok(None)
            }
            Some(Causality::Conflict) => Ok(local.map(|local| Open { index, local })),
        }
    }

    fn has_trees(&self) -> bool {
        self.store.versioning == Versioning::RevisionTrees
    }

    /// Asks the resolver, without a lock.
    fn decide(
        &mut self,
        open: Vec<Open>,
        resolver: &dyn ConflictResolver,
    ) -> Result<Vec<Decided>, DatabaseError> {
        let mut decided = Vec::new();
        for Open { index, local } in open {
            let checked = &self.checked[index];
            match resolve(self.store, checked, &local, resolver)? {
                Ok(resolution) => decided.push(Decided { index, local: local.vector, resolution }),
                Err(rejection) => self.outcomes[index] = Some(CommitOutcome::Rejected(rejection)),
            }
        }
        Ok(decided)
    }

    /// Stages what was decided, if the local revision is still the one it was decided on.
    fn settle(&mut self, writer: &mut Writer<'_>, decision: Decided) -> Result<Option<Open>, DatabaseError> {
        let (index, has_trees) = (decision.index, self.has_trees());
        let checked = &mut self.checked[index];
        let local = writer.revision(checked.key, &checked.incoming.id)?;
        let Some(local) = local.filter(|local| local.vector == decision.local) else {
            return self.insert(writer, index);
        };
        let incoming = checked.incoming;
        // What was here when it was decided may have gone since, and a merge may name what never was.
        let rejection = match &decision.resolution {
            Resolved::Local | Resolved::Merge { deleted: true, .. } => None,
            Resolved::Remote => check_blobs(writer, incoming, &checked.body)?,
            Resolved::Merge { body, .. } => rejection_of(writer.missing_blob(&local.id, body, Some(&local)))?,
        };
        if let Some(rejection) = rejection {
            self.outcomes[index] = Some(CommitOutcome::Rejected(rejection));
            return Ok(None);
        }
        let outcome = decision.resolution.outcome();
        let (new, push) = match decision.resolution.with_a_version_of_its_own(&local, checked) {
            Resolved::Local => {
                let vector = match has_trees {
                    true => local.vector.tree_over(&incoming.vector),
                    false => local.vector.with_ancestors_of(&incoming.vector),
                };
                let new = NewRevision {
                    id: local.id.clone(),
                    vector,
                    deleted: local.deleted,
                    remote_ancestor: Some(incoming.vector.id()),
                    body: local.body.clone(),
                };
                (new, true)
            }
            Resolved::Remote => {
                let vector = match has_trees {
                    true => incoming.vector.tree_over(&local.vector),
                    false => incoming.vector.taken_against(&local.vector),
                };
                let body = std::mem::take(&mut checked.body);
                (from_peer(incoming, vector, body, has_trees), false)
            }
            Resolved::Merge { deleted, body } if has_trees => {
                let Ok(vector) = tree_edit(self.store, &local.id, Some(&incoming.vector), deleted, &body)
                else {
                    let rejection = Rejection::Resolver("no revision can follow this one".into());
                    self.outcomes[index] = Some(CommitOutcome::Rejected(rejection));
                    return Ok(None);
                };
                let vector = vector.tree_over(&local.vector);
                let remote_ancestor = Some(incoming.vector.id());
                (NewRevision { id: local.id.clone(), vector, deleted, remote_ancestor, body }, true)
            }
            Resolved::Merge { deleted, body } => {
                let version = writer.next_version(&[&local.vector, &incoming.vector]);
                let vector = if local.vector.current.source == incoming.vector.current.source {
                    // A list of merged versions names no author twice.
                    local.vector.edited(version).with_history_of(&incoming.vector)
                } else {
                    local.vector.merged_with(&incoming.vector, version)
                };
                let remote_ancestor = Some(incoming.vector.id());
                (NewRevision { id: local.id.clone(), vector, deleted, remote_ancestor, body }, true)
            }
        };
        let sequence = writer.put(checked.key, new, Some(&local))?;
        self.outcomes[index] = Some(CommitOutcome::Resolved { sequence, push, outcome });
        Ok(None)
    }
}

/// A version tells by its author that it came from a peer. Of a tree ID that is noted, as what a peer has.
fn from_peer(
    incoming: &IncomingRevision,
    vector: VersionVector,
    body: Vec<u8>,
    has_trees: bool,
) -> NewRevision {
    let remote_ancestor: Option<RevId> = has_trees.then(|| vector.id());
    NewRevision { id: incoming.id.as_str().into(), vector, deleted: incoming.deleted, remote_ancestor, body }
}

/// A database with revision trees takes nothing else. One with version vectors takes tree IDs, of peers that were upgraded.
fn check_versioning(store: &Store, incoming: &IncomingRevision) -> Result<(), Rejection> {
    if store.versioning == Versioning::RevisionTrees && !incoming.vector.is_tree() {
        let reason = format!("{}: this database has {}", incoming.vector.id(), store.versioning);
        return Err(Rejection::BadRevision(reason));
    }
    Ok(())
}

/// Checks the form of a revision from a peer; gives the packed body.
fn check(store: &Store, incoming: &IncomingRevision) -> Result<Vec<u8>, Rejection> {
    check_id(&incoming.id).map_err(|reason| Rejection::bad_id(&incoming.id, &reason))?;
    if incoming.deleted && (incoming.body.is_empty() || &*incoming.body == EMPTY_BODY) {
        return Ok(Vec::new());
    }
    let body = pack_checked(store, &incoming.id, &incoming.body).map_err(|error| match error {
        DatabaseError::TooLarge { max, actual } => Rejection::TooLarge { max, actual },
        DatabaseError::BadBody { reason } => Rejection::BadBody(reason),
        other => Rejection::BadBody(other.to_string()),
    })?;
    Ok(body)
}

/// Why a revision from a peer cannot be stored for the blobs that it names. Whole or not at all: who gives it would count on
/// them being here.
fn check_blobs(
    writer: &Writer<'_>,
    incoming: &IncomingRevision,
    body: &[u8],
) -> Result<Option<Rejection>, DatabaseError> {
    if incoming.deleted {
        return Ok(None);
    }
    rejection_of(writer.missing_blob(&incoming.id, body, None))
}

fn rejection_of(
    missing: Result<Option<BlobDigest>, DatabaseError>,
) -> Result<Option<Rejection>, DatabaseError> {
    match missing {
        Ok(missing) => Ok(missing.map(|digest| Rejection::MissingBlob { digest: digest.to_string() })),
        Err(DatabaseError::BadBody { reason }) => Ok(Some(Rejection::BadBody(reason))),
        Err(error) => Err(error),
    }
}

/// Calls the resolver and packs what it decides.
fn resolve(
    store: &Store,
    checked: &Checked<'_>,
    local: &StoredRevision,
    resolver: &dyn ConflictResolver,
) -> Result<Result<Resolved, Rejection>, DatabaseError> {
    let incoming = checked.incoming;
    let state = store.collection(checked.key)?;
    let local_body = living_body(store, local.deleted, local)?;
    let remote = StoredRevision {
        sequence: 0,
        id: local.id.clone(),
        vector: incoming.vector.clone(),
        deleted: incoming.deleted,
        remote_ancestor: None,
        body: checked.body.clone(),
    };
    let remote_body = living_body(store, incoming.deleted, &remote)?;
    let conflict = Conflict {
        collection: &state.name,
        id: &incoming.id,
        local: &local.vector,
        local_body: local_body.as_ref(),
        remote: &incoming.vector,
        remote_body: remote_body.as_ref(),
    };
    let is_same = local.deleted == incoming.deleted && local.body == checked.body;
    Ok(match resolver.resolve(&conflict) {
        // Two devices may have resolved the same in the same way. A version of its own for that would meet one of the
        // other's again, without end: of two revisions that say the same the later one stays.
        Ok(Resolution::Merge(body)) if is_same && Some(&body) == local_body.as_ref() => {
            Ok(Resolved::later(&local.vector, &incoming.vector))
        }
        Ok(Resolution::Local | Resolution::Remote) if is_same => {
            Ok(Resolved::later(&local.vector, &incoming.vector))
        }
        Ok(Resolution::Delete) if is_same && local.deleted => {
            Ok(Resolved::later(&local.vector, &incoming.vector))
        }
        Ok(Resolution::Local) => Ok(Resolved::Local),
        Ok(Resolution::Remote) => Ok(Resolved::Remote),
        Ok(Resolution::Delete) => Ok(Resolved::Merge { deleted: true, body: Vec::new() }),
        Ok(Resolution::Merge(body)) => {
            let packed = pack_body(store, &incoming.id, &body);
            let merged = packed.map(|body| Resolved::Merge { deleted: false, body });
            merged.map_err(|error| Rejection::Resolver(error.to_string()))
        }
        Err(reason) => Err(Rejection::Resolver(reason)),
    })
}

fn living_body(
    store: &Store,
    deleted: bool,
    revision: &StoredRevision,
) -> Result<Option<Map<String, Value>>, DatabaseError> {
    if deleted { Ok(None) } else { unpack_body(store, revision).map(Some) }
}
