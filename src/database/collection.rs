//! A collection of documents: reading, saving, the change feed.

use std::ops::Bound;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::to_object;
use super::edit::{Edit, EditKind, Edited, Expects, expiration_ms, pack_body, pack_text};
use super::name::check_document_id;
use super::packed::Unpacker;
use super::pages::{Ahead, Pages};
use super::store::{CollectionKey, IndexInfo, Store, StoredRevision, Work};
use super::{DatabaseError, Document};
use crate::replica::revision::VersionVector;

/// One collection of an open database. Clones are handles to the same one.
/// ```
/// use gattway::{Database, DatabaseConfig};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Reading {
///     celsius: f64,
/// }
///
/// # let directory = tempfile::tempdir()?;
/// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// let readings = db.create_collection("plant.readings")?;
/// readings.put("boiler", &Reading { celsius: 71.5 })?;
/// let boiler: Option<Reading> = readings.get_as("boiler")?;
/// assert!(boiler.is_some_and(|boiler| boiler.celsius == 71.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Collection {
    pub(super) store: Arc<Store>,
    key: CollectionKey,
    name: String,
}

/// One row of the change feed: the newest revision of a document.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// Place in the feed, growing with each change.
    pub sequence: u64,
    /// The document.
    pub id: String,
    /// Its newest revision.
    pub revision: VersionVector,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// A change with the body that it has made.
pub(crate) type ChangedDocument = (Change, Map<String, Value>);

impl Collection {
    pub(super) fn new(store: Arc<Store>, key: CollectionKey, name: String) -> Collection {
        Collection { store, key, name }
    }

    /// Its number, as long as it exists.
    pub(super) fn key(&self) -> Result<CollectionKey, DatabaseError> {
        let unknown = |_| DatabaseError::UnknownCollection { name: self.name.clone() };
        self.store.collection(self.key).map(|_| self.key).map_err(unknown)
    }

    /// Full name: `scope.name`, or `_default`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many documents it has, tombstones not counted; 0 if it was deleted.
    pub fn count(&self) -> u64 {
        self.store.count_documents(self.key).unwrap_or_default()
    }

    /// The newest sequence of its change feed, 0 if nothing was ever saved.
    pub fn last_sequence(&self) -> u64 {
        self.store.collection(self.key).map_or(0, |state| state.applied())
    }

    /// A document; `None` if there is none or it is deleted.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] or of the store.
    pub fn get(&self, id: &str) -> Result<Option<Document>, DatabaseError> {
        let found = self.store.revision(self.key()?, id)?.filter(|r| !r.deleted);
        found.map(|revision| self.document(revision)).transpose()
    }

    /// A document's body as any type; `None` if there is none or it is deleted.
    ///
    /// # Errors
    /// [`DatabaseError::BadBody`] if the body does not fit; of the store.
    pub fn get_as<T: for<'de> Deserialize<'de>>(&self, id: &str) -> Result<Option<T>, DatabaseError> {
        self.get(id)?.map(|document| document.parse()).transpose()
    }

    fn document(&self, revision: StoredRevision) -> Result<Document, DatabaseError> {
        Ok(Document {
            body: unpack_body(&self.store, &revision)?,
            id: revision.id.into_string(),
            revision: Some(revision.vector),
            sequence: revision.sequence,
        })
    }

    /// Makes one change as a commit of its own.
    fn edit(&self, id: &str, kind: EditKind, expects: Expects) -> Result<Option<Edited>, DatabaseError> {
        let edit = Edit { collection: self.key()?, id: id.to_owned(), kind, expects };
        let mut writer = self.store.writer();
        let edited = edit.stage(&self.store, &mut writer)?;
        let ticket = writer.commit()?;
        self.store.finish(ticket)?;
        Ok(edited)
    }

    /// Saves a document if the stored one is still at the revision this one was read at, and takes over the new
    /// revision.
    ///
    /// # Errors
    /// [`DatabaseError::Conflict`] if it was changed since; of ID, body or store. The document in hand stays as it was.
    pub fn save(&self, document: &mut Document) -> Result<(), DatabaseError> {
        check_document_id(document.id())?;
        let body = pack_body(&self.store, &document.id, &document.body)?;
        let expects = document.revision.as_ref().map_or(Expects::Absent, |r| Expects::At(r.current));
        if let Some(edited) = self.edit(&document.id, EditKind::Save(body), expects)? {
            document.revision = Some(edited.vector);
            document.sequence = edited.sequence;
        }
        Ok(())
    }

    /// Stores a body whatever is there (the last write wins): a map, a [`Value`] or any type that serialises to a JSON
    /// object. Returns its sequence.
    ///
    /// # Errors
    /// Of ID, body or store.
    pub fn put(&self, id: &str, body: &impl Serialize) -> Result<u64, DatabaseError> {
        check_document_id(id)?;
        let body = pack_body(&self.store, id, &to_object(body)?)?;
        Ok(self.edit(id, EditKind::Save(body), Expects::Anything)?.map_or(0, |e| e.sequence))
    }

    /// Stores a body given as JSON text whatever is there. Returns its sequence.
    ///
    /// # Errors
    /// Of ID, body or store.
    pub fn put_json(&self, id: &str, text: &[u8]) -> Result<u64, DatabaseError> {
        check_document_id(id)?;
        let body = pack_text(&self.store, id, text)?;
        Ok(self.edit(id, EditKind::Save(body), Expects::Anything)?.map_or(0, |e| e.sequence))
    }

    /// Deletes a document, leaving a tombstone that replicates. `false` if there was none.
    ///
    /// # Errors
    /// Of the store.
    pub fn delete(&self, id: &str) -> Result<bool, DatabaseError> {
        Ok(self.edit(id, EditKind::Delete, Expects::Anything)?.is_some())
    }

    /// Deletes a document if it is still at the revision it was read at.
    ///
    /// # Errors
    /// [`DatabaseError::Conflict`] if it was changed since; of the store.
    pub fn delete_document(&self, document: &Document) -> Result<(), DatabaseError> {
        let id = document.id();
        let revision = document.revision().ok_or_else(|| DatabaseError::NotFound { id: id.to_owned() })?;
        self.edit(id, EditKind::Delete, Expects::At(revision.current)).map(drop)
    }

    /// As [`Collection::delete_document`]; gives the revision that the deletion is, and its sequence.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the gateway
    pub(crate) fn bury(&self, document: &Document) -> Result<Option<(VersionVector, u64)>, DatabaseError> {
        let id = document.id();
        let revision = document.revision().ok_or_else(|| DatabaseError::NotFound { id: id.to_owned() })?;
        let edited = self.edit(id, EditKind::Delete, Expects::At(revision.current))?;
        Ok(edited.map(|edited| (edited.vector, edited.sequence)))
    }

    /// Removes a document or its tombstone from this database alone: peers do not hear of it. What was removed does not come
    /// back from a peer that still has it, until it is changed there. `false` if there was none.
    ///
    /// # Errors
    /// Of the store.
    pub fn purge(&self, id: &str) -> Result<bool, DatabaseError> {
        Ok(self.edit(id, EditKind::Purge, Expects::Anything)?.is_some())
    }

    /// Lets a document, or the tombstone of one, be [purged](Collection::purge) at a time; `None`: never. From that moment on
    /// it is not read, listed or sent any more. Peers do not hear of the time, and it stays when the document is changed or
    /// deleted.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # use gattway::{Database, DatabaseConfig};
    /// # let directory = tempfile::tempdir()?;
    /// # let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
    /// # let readings = db.default_collection()?;
    /// readings.put("boiler", &serde_json::json!({ "celsius": 71.5 }))?;
    /// readings.set_expiration("boiler", Some(SystemTime::now() + Duration::from_secs(7 * 24 * 3600)))?;
    /// assert!(readings.expiration("boiler")?.is_some());
    /// readings.set_expiration("boiler", Some(SystemTime::now()))?;
    /// # std::thread::sleep(Duration::from_millis(2));
    /// assert!(readings.get("boiler")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] if there is no such document; of the store.
    pub fn set_expiration(&self, id: &str, time: Option<SystemTime>) -> Result<(), DatabaseError> {
        self.edit(id, EditKind::Expire(time.map(expiration_ms)), Expects::Anything).map(drop)
    }

    /// When a document is to be purged; `None` if it is not, or is not there.
    ///
    /// # Errors
    /// Of the store.
    pub fn expiration(&self, id: &str) -> Result<Option<SystemTime>, DatabaseError> {
        let key = self.key()?;
        let time = if self.store.is_due(key, id)? { None } else { self.store.expiration(key, id)? };
        Ok(time.map(|time_ms| SystemTime::UNIX_EPOCH + Duration::from_millis(time_ms)))
    }

    /// Declares an index: queries that ask for these paths, or sort by them, read it instead of all documents. It is built in the
    /// background; commits keep it from then on, so each costs them a little. The same one may be there already.
    ///
    /// ```
    /// use gattway::database::{Query, Test};
    ///
    /// # use gattway::{Database, DatabaseConfig};
    /// # let directory = tempfile::tempdir()?;
    /// # let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
    /// # let readings = db.default_collection()?;
    /// readings.create_index("by-time", ["sensor", "time"])?;
    /// let newest = Query::new().filter(("sensor", Test::Equal("boiler".into()))).sort("time", true).limit(20);
    /// # while !readings.indexes()?[0].is_ready { std::thread::sleep(std::time::Duration::from_millis(5)); }
    /// assert_eq!(readings.explain(&newest)?["index"], "by-time");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`DatabaseError::BadIndex`]; [`DatabaseError::IndexExists`] if there is another one of this name; of the store.
    pub fn create_index<P: Into<String>>(
        &self,
        name: &str,
        paths: impl IntoIterator<Item = P>,
    ) -> Result<(), DatabaseError> {
        let paths: Vec<String> = paths.into_iter().map(Into::into).collect();
        self.store.create_index(self.key()?, name, &paths)
    }

    /// Builds what is to be built of indexes here and now, and removes what is to go of them but for what is still read.
    ///
    /// # Errors
    /// Of the store.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the command
    pub(crate) fn build_indexes(&self) -> Result<(), DatabaseError> {
        while self.store.work_on_indexes()? == Work::More {}
        self.store.sync(self.store.newest())
    }

    /// Drops an index; `false` if there is none of this name. A query that reads it goes on.
    ///
    /// # Errors
    /// Of the store.
    pub fn drop_index(&self, name: &str) -> Result<bool, DatabaseError> {
        self.store.drop_index(self.key()?, name)
    }

    /// The indexes by their names, and how far they are built. All their pages are read.
    ///
    /// # Errors
    /// Of the store.
    pub fn indexes(&self) -> Result<Vec<IndexInfo>, DatabaseError> {
        self.store.indexes(self.key()?)
    }

    /// Those of [`iter`](Self::iter) whose IDs come after this one.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the gateway
    pub(crate) fn iter_after(&self, id: &str) -> Documents {
        self.documents(Bound::Excluded(id.into()))
    }

    /// All documents in order of their IDs' bytes. What is saved meanwhile may or may not be seen.
    pub fn iter(&self) -> Documents {
        self.documents(Bound::Unbounded)
    }

    fn documents(&self, from: Bound<Box<str>>) -> Documents {
        Documents { collection: self.clone(), pages: Pages::new(from, Ahead::GIVEN) }
    }

    /// Whether a document of this ID is there, or was: a deleted one leaves its tombstone.
    ///
    /// # Errors
    /// Of the store.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for imports of the command
    pub(crate) fn knows(&self, id: &str) -> Result<bool, DatabaseError> {
        self.store.knows(self.key()?, id)
    }

    /// IDs after `after` in order, those of deleted documents too; at least `limit` unless there are fewer.
    ///
    /// # Errors
    /// Of the store.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for imports of the command
    pub(crate) fn known_ids(&self, after: &str, limit: usize) -> Result<Vec<Box<str>>, DatabaseError> {
        self.store.known_ids(self.key()?, after, limit)
    }

    /// Changes after sequence `since` in order, at most `limit`; a document appears once, at its newest change.
    ///
    /// # Errors
    /// Of the store.
    pub fn changes_since(&self, since: u64, limit: usize) -> Result<Vec<Change>, DatabaseError> {
        let found = self.store.changes(self.key()?, since, u64::MAX, limit)?;
        Ok(found.into_iter().map(change_of).collect())
    }

    /// The newest change of a document.
    pub(super) fn change_of(&self, id: &str) -> Result<Option<Change>, DatabaseError> {
        Ok(self.store.revision(self.key()?, id)?.map(change_of))
    }

    /// As [`changes_since`](Self::changes_since) up to sequence `until`, each with its body; no more once about `bytes_max` of
    /// bodies are together.
    ///
    /// # Errors
    /// Of the store.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the gateway
    pub(crate) fn changes_with_bodies(
        &self,
        (since, until): (u64, u64),
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<ChangedDocument>, DatabaseError> {
        let found = self.store.changes_within(self.key()?, since, until, limit, bytes_max)?;
        let with_body = |r: StoredRevision| Ok((unpack_body(&self.store, &r)?, change_of(r)));
        found.into_iter().map(|r| with_body(r).map(|(body, change)| (change, body))).collect()
    }
}

fn change_of(r: StoredRevision) -> Change {
    Change { sequence: r.sequence, id: r.id.into_string(), revision: r.vector, deleted: r.deleted }
}

/// The body of a stored revision; empty for a tombstone without one.
pub(super) fn unpack_body(
    store: &Store,
    revision: &StoredRevision,
) -> Result<Map<String, Value>, DatabaseError> {
    if revision.body.is_empty() {
        return Ok(Map::new());
    }
    let names = store.names().read().unwrap_or_else(PoisonError::into_inner);
    let damaged = || DatabaseError::Damaged { detail: format!("the body of {:?}", revision.id) };
    Unpacker::new(&names, &revision.id).map(&revision.body).ok_or_else(damaged)
}

/// Documents of a collection in ID order, see [`Collection::iter`].
pub struct Documents {
    collection: Collection,
    pages: Pages,
}

impl Iterator for Documents {
    type Item = Result<Document, DatabaseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Documents { collection, pages } = self;
        let next = pages.next(&collection.store, || collection.key(), |_| false).transpose()?;
        Some(next.and_then(|revision| collection.document(revision)))
    }
}
