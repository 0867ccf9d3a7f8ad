//! A database in the state that a recording begins with.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use gattway::database::{Database, DatabaseConfig};
use gattway::lab::replica::blobs::{BlobDigest, BlobState};
use gattway::lab::replica::revision::{RevId, SourceId, Version, Versioning};
use gattway::lab::replica::store::{
    Change, CollectionId, CommitOutcome, ConflictPolicy, IncomingRevision, ReplicaStore, ReplicaStoreError,
};

use crate::scenario::RecordedDocument;

/// Document that takes the sequences the recorded database had used up already.
const FILLER: &str = "filler";

/// No document is taken whose blob is not here, yet a recorded database may begin with one: it is stored under another type
/// of the same length. So is one whose blob was there and whose content is in no recording.
fn hide_blobs(body: &str) -> String {
    body.replace(r#""@type":"blob""#, r#""@type":"b10b""#)
}

fn show_blobs(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace(r#""@type":"b10b""#, r#""@type":"blob""#)
}

/// A real database that also knows what the recorded one remembered of its peer: which version of a document the peer
/// had. That cannot be put in from outside, only arise by replicating and editing.
pub struct Replica {
    database: Database,
    ancestors: HashMap<(String, String), String>,
    /// What documents were when the peer had them, by ID and revision.
    bases: HashMap<(String, String), String>,
    filler_versions: u64,
    /// Blobs that count as stored although nobody knows their content, and their lengths.
    pretended: HashMap<BlobDigest, u64>,
    /// Blobs that are lost.
    lost: HashSet<BlobDigest>,
    _directory: tempfile::TempDir,
}

impl Replica {
    pub fn new(
        collections: &[String],
        ancestors: HashMap<(String, String), String>,
        versioning: Versioning,
    ) -> Replica {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut config = DatabaseConfig::default();
        config.versioning = Some(versioning);
        let database = Database::open(directory.path().join("db"), config).expect("database");
        for name in collections {
            database.create_collection(name).expect("collection");
        }
        let (pretended, lost, bases) = (HashMap::new(), HashSet::new(), HashMap::new());
        Replica { database, ancestors, bases, filler_versions: 0, pretended, lost, _directory: directory }
    }

    /// Has the blobs that the recorded database had: digest, length, and content as far as a recording has it. Without a length it
    /// was lost.
    pub fn load_blobs(
        &mut self,
        blobs: &[(BlobDigest, Option<u64>)],
        contents: &HashMap<BlobDigest, Vec<u8>>,
    ) {
        for (digest, length) in blobs {
            match (length, contents.get(digest)) {
                (Some(_), Some(content)) => {
                    let blob = self.database.save_blob(&content[..], "").expect("saved");
                    assert_eq!(blob.digest().to_string(), digest.to_string());
                }
                (Some(length), None) => {
                    self.pretended.insert(*digest, *length);
                }
                (None, _) => {
                    self.lost.insert(*digest);
                }
            }
        }
    }

    /// Remembers what the peer has, as the recorded database did.
    pub fn load_bases(&mut self, documents: &[RecordedDocument]) {
        for document in documents.iter().filter(|document| !document.deleted) {
            let key = (document.id.clone(), document.vector.clone());
            self.bases.insert(key, document.body.to_string());
        }
    }

    /// A body as it is stored.
    fn body(&self, body: &str) -> String {
        let is_hidden = |digest: &BlobDigest| body.contains(&digest.to_string());
        if self.pretended.keys().chain(&self.lost).any(is_hidden) {
            hide_blobs(body)
        } else {
            body.to_owned()
        }
    }

    /// Puts documents in, each at its recorded sequence; they come in the order of their sequences.
    pub fn load(&mut self, documents: &[RecordedDocument]) {
        for document in documents {
            self.database.create_collection(&document.collection).expect("collection");
            let collection = self.id_of(&document.collection);
            while self.database.last_sequence(collection) + 1 < document.sequence {
                self.filler_versions += 1;
                let vector = self.filler_vector();
                let filler = RecordedDocument { id: FILLER.into(), vector, ..document.clone() };
                self.insert(&RecordedDocument { deleted: false, body: serde_json::json!({}), ..filler });
            }
            assert_eq!(self.insert(document), document.sequence, "{document:?}");
        }
        for name in self.database.collections() {
            if let Some(collection) = self.database.collection(&name) {
                collection.purge(FILLER).expect("purged");
            }
        }
    }

    fn filler_vector(&self) -> String {
        let number = self.filler_versions;
        let tree = |number: u64| format!("{number}-{}", "fe".repeat(20));
        match (self.database.versioning(), number) {
            (Versioning::RevisionTrees, 1) => tree(1),
            (Versioning::RevisionTrees, _) => format!("{}, {}", tree(number), tree(number - 1)),
            _ => Version { time: number, source: SourceId([0xfe; 16]) }.to_string(),
        }
    }

    /// Saves a revision with the vector it had and gives its sequence.
    pub fn insert(&self, document: &RecordedDocument) -> u64 {
        let revision = IncomingRevision {
            collection: self.id_of(&document.collection),
            id: document.id.clone(),
            vector: document.vector.parse().expect("a vector"),
            deleted: document.deleted,
            body: self.body(&document.body.to_string()).into(),
        };
        let outcomes = self.database.commit(&[revision], ConflictPolicy::Refuse).expect("committed");
        match outcomes.as_slice() {
            [CommitOutcome::Inserted { sequence }] => *sequence,
            other => panic!("{document:?}: {other:?}"),
        }
    }

    /// Writes a checkpoint so often that it has the revision it had, `N-cc`.
    pub fn load_checkpoint(&self, collection: &str, client: &str, revision: &str, body: &str) {
        let collection = self.id_of(collection);
        let mut current = None;
        while current.as_deref() != Some(revision) {
            let next =
                self.database.set_checkpoint(collection, client, current.as_deref(), body.to_owned().into());
            current = next.expect("written");
            assert!(current.is_some(), "{client} at {revision}");
        }
    }

    /// Full names of all collections, asked for or not.
    pub fn collections(&self) -> Vec<String> {
        self.database.collections()
    }

    pub fn id_of(&self, collection: &str) -> CollectionId {
        ReplicaStore::collection(&self.database, collection).expect("collection")
    }

    fn remember(&self, mut change: Change) -> Change {
        change.body = change.body.map(|body| show_blobs(&body).into());
        let key = (change.id.clone(), change.vector.id().to_string());
        if let Some(ancestor) = self.ancestors.get(&key) {
            let ancestor: RevId = ancestor.parse().expect("a version");
            change.remote_ancestor = Some(ancestor);
            // What the peer had and what is no ancestor has lost a conflict here.
            let lost = ancestor.tree().filter(|id| !change.vector.trees.contains(id));
            if let Some(lost) = lost.filter(|_| self.versioning() == Versioning::RevisionTrees) {
                change.vector = change.vector.with_closed(vec![lost]);
            }
        }
        change
    }
}

impl ReplicaStore for Replica {
    delegate_to_database!(database);

    fn changes(
        &self,
        collection: CollectionId,
        since: u64,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Vec<Change>, ReplicaStoreError> {
        let changes = self.database.changes(collection, since, limit, with_bodies)?;
        Ok(changes.into_iter().map(|change| self.remember(change)).collect())
    }

    fn document(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError> {
        Ok(self.database.document(collection, id)?.map(|change| self.remember(change)))
    }

    fn revision(&self, collection: CollectionId, id: &str) -> Result<Option<Change>, ReplicaStoreError> {
        Ok(self.database.revision(collection, id)?.map(|change| self.remember(change)))
    }

    fn body_at(
        &self,
        collection: CollectionId,
        id: &str,
        revision: RevId,
    ) -> Result<Option<Bytes>, ReplicaStoreError> {
        let base = self.bases.get(&(id.to_owned(), revision.to_string()));
        match ReplicaStore::body_at(&self.database, collection, id, revision)? {
            None => Ok(base.cloned().map(Bytes::from)),
            found => Ok(found),
        }
    }

    fn commit(
        &self,
        revisions: &[IncomingRevision],
        policy: ConflictPolicy<'_>,
    ) -> Result<Vec<CommitOutcome>, ReplicaStoreError> {
        // Who has lost a blob does not take it for one that is here when it comes with another document.
        let is_here = |body: &str| self.pretended.keys().any(|digest| body.contains(&digest.to_string()));
        let revisions: Vec<IncomingRevision> = revisions
            .iter()
            .map(|revision| match std::str::from_utf8(&revision.body) {
                Ok(body) if is_here(body) => {
                    IncomingRevision { body: hide_blobs(body).into(), ..revision.clone() }
                }
                _ => revision.clone(),
            })
            .collect();
        self.database.commit(&revisions, policy)
    }

    fn blob(&self, digest: &BlobDigest) -> Result<BlobState, ReplicaStoreError> {
        match self.pretended.get(digest) {
            Some(length) => Ok(BlobState::Whole(*length)),
            None => ReplicaStore::blob(&self.database, digest),
        }
    }

    fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.database.watch()
    }

    fn set_checkpoint(
        &self,
        collection: CollectionId,
        client: &str,
        expected: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, ReplicaStoreError> {
        self.database.set_checkpoint(collection, client, expected, body)
    }
}
