//! A store in memory, as simple as the contract of `ReplicaStore` allows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::replica::blobs::{BlobDigest, BlobName, BlobState, blobs_in};
use crate::replica::revision::{Causality, RevId, SourceId, Version, VersionVector};
use crate::replica::store::*;
use crate::replica::validate::{check_body, parse_json};
use crate::replicator::ConflictOutcome;
use crate::replicator::memory_blobs::MemoryBlobs;

#[derive(Clone)]
struct Doc {
    change: Change,
    /// Whether a peer is known to have this revision.
    shared: bool,
    /// What it was when a peer had it.
    base: Option<(RevId, Bytes)>,
}

#[derive(Clone, Default)]
struct Collection {
    docs: HashMap<String, Doc>,
    feed: BTreeMap<u64, String>,
    last: u64,
    pushed: u64,
    checkpoints: HashMap<String, StoredCheckpoint>,
}

/// What a store held at one time.
pub struct Backup(Vec<Collection>);

pub struct MemoryStore {
    source: SourceId,
    names: Vec<String>,
    collections: Mutex<Vec<Collection>>,
    clock: AtomicU64,
    /// Revisions with a body that came although they were here already.
    pub needless: AtomicU64,
    /// Revisions that came.
    pub received: AtomicU64,
    /// Documents whose IDs begin so are refused.
    refused: Mutex<Option<String>>,
    /// Whether it knows no body as the base of a delta.
    pub loses_bases: AtomicBool,
    /// A document that has expired and is still there.
    expired: Mutex<Option<String>>,
    pub blobs: MemoryBlobs,
}

impl MemoryStore {
    pub fn new(name: u8) -> MemoryStore {
        MemoryStore::with_collections(name, &["_default"])
    }

    pub fn with_collections(name: u8, names: &[&str]) -> MemoryStore {
        let collections = names.iter().map(|_| Collection::default()).collect();
        MemoryStore {
            source: SourceId([name; 16]),
            names: names.iter().map(|n| n.to_string()).collect(),
            collections: Mutex::new(collections),
            clock: AtomicU64::new(0x18ea_7b9b_f01b_0000),
            needless: AtomicU64::new(0),
            received: AtomicU64::new(0),
            refused: Mutex::new(None),
            loses_bases: AtomicBool::new(false),
            expired: Mutex::new(None),
            blobs: MemoryBlobs::default(),
        }
    }

    fn tick(&self) -> Version {
        // Steps like those of a hybrid clock under load: mostly its counter, sometimes time itself.
        let n = self.clock.load(Ordering::Relaxed);
        let next = if n.is_multiple_of(7) { (n | 0xffff) + 1 } else { n + 1 };
        self.clock.store(next, Ordering::Relaxed);
        Version { time: next, source: self.source }
    }

    /// All that it holds, checkpoints too.
    pub fn backup(&self) -> Backup {
        Backup(self.collections.lock().unwrap().clone())
    }

    /// Puts it back to what it was. Its clock goes on: time does.
    pub fn restore(&self, backup: &Backup) {
        self.collections.lock().unwrap().clone_from(&backup.0);
    }

    /// Forgets all checkpoints.
    pub fn forget_checkpoints(&self) {
        self.collections.lock().unwrap().iter_mut().for_each(|c| c.checkpoints.clear());
    }

    /// Refuses documents whose IDs begin so.
    pub fn refuse(&self, prefix: &str) {
        *self.refused.lock().unwrap() = Some(prefix.to_owned());
    }

    pub fn expire(&self, id: &str) {
        *self.expired.lock().unwrap() = Some(id.to_owned());
    }

    pub fn refuse_nothing(&self) {
        *self.refused.lock().unwrap() = None;
    }

    /// The name of the first checkpoint that begins so.
    pub fn own_checkpoint(&self, prefix: &str) -> String {
        self.checkpoint_names().into_iter().find(|name| name.starts_with(prefix)).unwrap()
    }

    /// Moves the clock ahead, so that this side's edits are later than the other's.
    pub fn advance_clock(&self, by: u64) {
        self.clock.fetch_add(by << 16, Ordering::Relaxed);
    }

    fn save(&self, collection: usize, id: &str, deleted: bool, body: Bytes) {
        let version = self.tick();
        let mut collections = self.collections.lock().unwrap();
        let c = &mut collections[collection];
        let old = c.docs.get(id).cloned();
        let mut base = None;
        let (vector, ancestor) = match &old {
            None => (VersionVector::new(version), None),
            Some(old) => {
                let shared = old.shared || old.change.sequence <= c.pushed;
                let ancestor = if shared { Some(old.change.vector.id()) } else { old.change.remote_ancestor };
                base = match shared {
                    true => old.change.body.clone().map(|body| (old.change.vector.id(), body)),
                    false => old.base.clone(),
                };
                (old.change.vector.edited(version), ancestor)
            }
        };
        insert(c, id, vector, deleted, body, ancestor, false);
        c.docs.get_mut(id).unwrap().base = base.filter(|_| !deleted);
    }

    pub fn put(&self, id: &str, body: &str) {
        self.put_in(0, id, body);
    }

    pub fn put_in(&self, collection: usize, id: &str, body: &str) {
        self.save(collection, id, false, Bytes::copy_from_slice(body.as_bytes()));
    }

    pub fn delete(&self, id: &str) {
        self.save(0, id, true, Bytes::from_static(b"{}"));
    }

    pub fn purge(&self, id: &str) {
        let c = &mut self.collections.lock().unwrap()[0];
        if let Some(doc) = c.docs.remove(id) {
            c.feed.remove(&doc.change.sequence);
        }
    }

    /// All documents: ID to (deleted, body, all versions).
    pub fn dump(&self, collection: usize) -> BTreeMap<String, (bool, Value, String)> {
        let collections = self.collections.lock().unwrap();
        let docs = collections[collection].docs.values();
        docs.map(|doc| {
            let change = &doc.change;
            let body = serde_json::from_slice(change.body.as_ref().unwrap()).unwrap();
            (change.id.clone(), (change.deleted, body, change.vector.current.to_string()))
        })
        .collect()
    }

    pub fn body(&self, id: &str) -> Option<String> {
        let collections = self.collections.lock().unwrap();
        let doc = collections[0].docs.get(id).filter(|doc| !doc.change.deleted)?;
        Some(String::from_utf8(doc.change.body.as_ref().unwrap().to_vec()).unwrap())
    }

    pub fn vector(&self, id: &str) -> Option<VersionVector> {
        self.collections.lock().unwrap()[0].docs.get(id).map(|doc| doc.change.vector.clone())
    }

    pub fn count(&self) -> usize {
        self.collections.lock().unwrap()[0].docs.len()
    }

    pub fn checkpoint_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.collections.lock().unwrap()[0].checkpoints.keys().cloned().collect();
        names.sort();
        names
    }

    fn commit_one(
        &self,
        c: &mut Collection,
        revision: &IncomingRevision,
        policy: ConflictPolicy<'_>,
        name: &str,
    ) -> CommitOutcome {
        self.received.fetch_add(1, Ordering::Relaxed);
        let newest = revision.vector.versions().map(|v| v.time).max().unwrap_or(0);
        self.clock.fetch_max(newest, Ordering::Relaxed);
        if self.refused.lock().unwrap().as_ref().is_some_and(|prefix| revision.id.starts_with(prefix)) {
            return CommitOutcome::Rejected(Rejection::MissingBlob { digest: "sha1-".into() });
        }
        let is_lost = |blob: &BlobName| !matches!(self.blobs.state(&blob.digest), BlobState::Whole(_));
        if !revision.deleted
            && let Some(blob) = blobs_in(&revision.body).into_iter().find(is_lost)
        {
            return CommitOutcome::Rejected(Rejection::MissingBlob { digest: blob.digest.to_string() });
        }
        let body = match parse_json(&revision.body) {
            Ok(Value::Object(body)) => body,
            Ok(_) => return CommitOutcome::Rejected(Rejection::BadBody("not an object".into())),
            Err(error) => return CommitOutcome::Rejected(Rejection::BadBody(error.to_string())),
        };
        if let Err(invalid) = check_body(&body) {
            return CommitOutcome::Rejected(Rejection::of_stored(&revision.id, invalid));
        }
        let (id, body_text) = (&revision.id, revision.body.clone());
        let current = revision.vector.id();
        let Some(local) = c.docs.get(id).cloned() else {
            let sequence = insert(c, id, revision.vector.clone(), revision.deleted, body_text, None, true);
            return CommitOutcome::Inserted { sequence };
        };
        match local.change.vector.compare(&revision.vector) {
            Causality::Same | Causality::Newer => {
                self.needless.fetch_add(1, Ordering::Relaxed);
                return CommitOutcome::AlreadyKnown { sequence: local.change.sequence };
            }
            Causality::Older => {
                let vector = revision.vector.taken_after(&local.change.vector);
                let sequence = insert(c, id, vector, revision.deleted, body_text, None, true);
                return CommitOutcome::Inserted { sequence };
            }
            Causality::Conflict => {}
        }
        let mutually_contains = local.change.vector.mutually_contains(&revision.vector);
        let ConflictPolicy::Resolve(resolver) = policy else {
            if mutually_contains {
                // The peer takes it for known: it has to be told once more.
                let Change { vector, deleted, remote_ancestor, body, .. } = local.change.clone();
                insert(c, id, vector, deleted, body.unwrap(), remote_ancestor, local.shared);
            }
            return CommitOutcome::Conflict { local: local.change.vector };
        };
        let local_body: Map<String, Value> =
            serde_json::from_slice(local.change.body.as_ref().unwrap()).unwrap();
        let conflict = Conflict {
            collection: name,
            id,
            local: &local.change.vector,
            local_body: (!local.change.deleted).then_some(&local_body),
            remote: &revision.vector,
            remote_body: (!revision.deleted).then_some(&body),
        };
        let text = |map: &Map<String, Value>| Bytes::from(Value::Object(map.clone()).to_string());
        let both = (local.change.vector.clone(), revision.vector.clone());
        let own_version = || match both.0.current.source == both.1.current.source {
            true => both.0.edited(self.tick()).with_history_of(&both.1),
            false => both.0.merged_with(&both.1, self.tick()),
        };
        let (vector, deleted, body, push, outcome) = match resolver.resolve(&conflict) {
            Err(error) => return CommitOutcome::Rejected(Rejection::Resolver(error)),
            Ok(Resolution::Local) if mutually_contains => (
                own_version(),
                local.change.deleted,
                local.change.body.clone().unwrap(),
                true,
                ConflictOutcome::Local,
            ),
            Ok(Resolution::Remote) if mutually_contains => {
                (own_version(), revision.deleted, body_text, true, ConflictOutcome::Remote)
            }
            Ok(Resolution::Local) => (
                both.0.with_ancestors_of(&both.1),
                local.change.deleted,
                local.change.body.clone().unwrap(),
                true,
                ConflictOutcome::Local,
            ),
            Ok(Resolution::Remote) => {
                (both.1.taken_against(&both.0), revision.deleted, body_text, false, ConflictOutcome::Remote)
            }
            Ok(Resolution::Merge(merged)) => {
                (own_version(), false, text(&merged), true, ConflictOutcome::Merged)
            }
            Ok(Resolution::Delete) => {
                (own_version(), true, Bytes::from_static(b"{}"), true, ConflictOutcome::Deleted)
            }
        };
        let sequence = insert(c, id, vector, deleted, body, Some(current), !push);
        CommitOutcome::Resolved { sequence, push, outcome }
    }
}

fn insert(
    c: &mut Collection,
    id: &str,
    vector: VersionVector,
    deleted: bool,
    body: Bytes,
    remote_ancestor: Option<RevId>,
    shared: bool,
) -> u64 {
    if let Some(old) = c.docs.get(id) {
        c.feed.remove(&old.change.sequence);
    }
    c.last += 1;
    let change = Change {
        sequence: c.last,
        id: id.to_owned(),
        vector,
        deleted,
        body_size: body.len() as u64,
        remote_ancestor,
        body: Some(body),
    };
    c.feed.insert(c.last, id.to_owned());
    c.docs.insert(id.to_owned(), Doc { change, shared, base: None });
    c.last
}

impl ReplicaStore for MemoryStore {
    fn body_at(
        &self,
        collection: CollectionId,
        id: &str,
        revision: RevId,
    ) -> Result<Option<Bytes>, ReplicaStoreError> {
        let collections = self.collections.lock().unwrap();
        let Some(doc) = collections[collection.0 as usize].docs.get(id).filter(|doc| !doc.change.deleted)
        else {
            return Ok(None);
        };
        if self.loses_bases.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if doc.change.vector.id() == revision {
            return Ok(doc.change.body.clone());
        }
        Ok(doc.base.clone().filter(|(base, _)| *base == revision).map(|(_, body)| body))
    }

    fn lose(&self, collection: CollectionId, id: &str) -> Result<bool, ReplicaStoreError> {
        let c = &mut self.collections.lock().unwrap()[collection.0 as usize];
        let is_theirs = |doc: &&Doc| doc.shared || doc.change.sequence <= c.pushed;
        if c.docs.get(id).filter(is_theirs).is_none() {
            return Ok(false);
        }
        let doc = c.docs.remove(id).unwrap();
        c.feed.remove(&doc.change.sequence);
        Ok(true)
    }

    fn source(&self) -> SourceId {
        self.source
    }

    fn collection(&self, name: &str) -> Option<CollectionId> {
        let name = crate::replicator::messages::canonical_name(name);
        self.names.iter().position(|n| *n == name).map(|n| CollectionId(n as u32))
    }

    fn last_sequence(&self, collection: CollectionId) -> u64 {
        self.collections.lock().unwrap()[collection.0 as usize].last
    }

    fn make_durable(&self) -> Result<(), ReplicaStoreError> {
        Ok(())
    }

    fn changes(
        &self,
        collection: CollectionId,
        since: u64,
        limit: usize,
        bodies: bool,
    ) -> Result<Vec<Change>, ReplicaStoreError> {
        let collections = self.collections.lock().unwrap();
        let c = &collections[collection.0 as usize];
        let rows = c.feed.range(since.saturating_add(1)..).take(limit).map(|(_, id)| {
            let mut change = c.docs[id].change.clone();
            if !bodies {
                change.body = None;
            }
            change
        });
        Ok(rows.collect())
    }

    fn document(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError> {
        Ok(self.collections.lock().unwrap()[collection.0 as usize].docs.get(id).map(|doc| doc.change.clone()))
    }

    fn is_expired(&self, _: CollectionId, id: &str) -> Result<bool, ReplicaStoreError> {
        Ok(self.expired.lock().unwrap().as_deref() == Some(id))
    }

    fn revision(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError> {
        Ok(self.document(collection, id)?.map(|change| Change { body: None, ..change }))
    }

    fn commit(
        &self,
        revisions: &[IncomingRevision],
        policy: ConflictPolicy<'_>,
    ) -> Result<Vec<CommitOutcome>, ReplicaStoreError> {
        let mut collections = self.collections.lock().unwrap();
        let one = |revision: &IncomingRevision| {
            let n = revision.collection.0 as usize;
            self.commit_one(&mut collections[n], revision, policy, &self.names[n])
        };
        Ok(revisions.iter().map(one).collect())
    }

    fn blob(&self, digest: &BlobDigest) -> Result<BlobState, ReplicaStoreError> {
        Ok(self.blobs.state(digest))
    }

    fn read_blob(
        &self,
        digest: &BlobDigest,
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, ReplicaStoreError> {
        Ok(self.blobs.read(digest, offset, limit))
    }

    fn append_blob(&self, digest: &BlobDigest, offset: u64, bytes: &[u8]) -> Result<u64, ReplicaStoreError> {
        Ok(self.blobs.append(digest, offset, bytes))
    }

    fn finish_blob(&self, digest: &BlobDigest) -> Result<bool, ReplicaStoreError> {
        Ok(self.blobs.finish(digest))
    }

    fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }

    fn mark_pushed(&self, collection: CollectionId, sequence: u64) {
        self.collections.lock().unwrap()[collection.0 as usize].pushed = sequence;
    }

    fn collections(&self) -> Vec<(CollectionId, String)> {
        self.names.iter().enumerate().map(|(n, name)| (CollectionId(n as u32), name.clone())).collect()
    }

    fn checkpoint_clients(
        &self,
        collection: CollectionId,
        prefix: &str,
    ) -> Result<Vec<String>, ReplicaStoreError> {
        let collections = self.collections.lock().unwrap();
        let clients = collections[collection.0 as usize].checkpoints.keys();
        Ok(clients.filter(|client| client.starts_with(prefix)).cloned().collect())
    }

    fn checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
    ) -> Result<Option<StoredCheckpoint>, ReplicaStoreError> {
        Ok(self.collections.lock().unwrap()[collection.0 as usize].checkpoints.get(client).cloned())
    }

    fn set_checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
        expected: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, ReplicaStoreError> {
        let checkpoints = &mut self.collections.lock().unwrap()[collection.0 as usize].checkpoints;
        let held = checkpoints.get(client).map(|c| c.revision.as_str());
        if held != expected {
            return Ok(None);
        }
        let n: u64 = held.and_then(|r| r.split('-').next()?.parse().ok()).unwrap_or(0);
        let revision = format!("{}-cc", n + 1);
        checkpoints.insert(client.to_owned(), StoredCheckpoint { revision: revision.clone(), body });
        Ok(Some(revision))
    }
}
