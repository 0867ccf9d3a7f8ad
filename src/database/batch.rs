//! Several changes as one atomic commit.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::document::to_object;
use super::edit::{Edit, EditKind, Edited, Expects, expiration_ms, pack_body, pack_text};
use super::name::check_document_id;
use super::store::{CollectionKey, Store};
use super::{Collection, DatabaseError, Document};

/// Changes to any documents of one database, applied together by [`Database::batch`](super::Database::batch). It only
/// collects: nothing is read or locked until it is applied.
pub struct Batch {
    store: Arc<Store>,
    edits: Vec<Edit>,
}

impl Batch {
    pub(super) fn new(store: Arc<Store>) -> Batch {
        Batch { store, edits: Vec::new() }
    }

    fn add(&mut self, collection: CollectionKey, id: &str, kind: EditKind, expects: Expects) {
        self.edits.push(Edit { collection, id: id.to_owned(), kind, expects });
    }

    /// Stores a body, whatever is there: the last write wins.
    ///
    /// # Errors
    /// Of the ID or the body; the batch stays as it was.
    pub fn put(
        &mut self,
        collection: &Collection,
        id: &str,
        body: &impl Serialize,
    ) -> Result<(), DatabaseError> {
        check_document_id(id)?;
        let body = pack_body(&self.store, id, &to_object(body)?)?;
        self.add(collection.key()?, id, EditKind::Save(body), Expects::Anything);
        Ok(())
    }

    /// Stores a body given as JSON text, whatever is there. The fastest way in.
    ///
    /// # Errors
    /// Of the ID or the body; the batch stays as it was.
    pub fn put_json(&mut self, collection: &Collection, id: &str, text: &[u8]) -> Result<(), DatabaseError> {
        check_document_id(id)?;
        let body = pack_text(&self.store, id, text)?;
        self.add(collection.key()?, id, EditKind::Save(body), Expects::Anything);
        Ok(())
    }

    /// Saves a document against the revision it was read at; the batch fails as a whole if it was changed since. The
    /// document in hand keeps its old revision: read it again before saving it again.
    ///
    /// # Errors
    /// Of the ID or the body; the batch stays as it was.
    pub fn save(&mut self, collection: &Collection, document: &Document) -> Result<(), DatabaseError> {
        check_document_id(document.id())?;
        let body = pack_body(&self.store, document.id(), document.body())?;
        let expects = document.revision().map_or(Expects::Absent, |r| Expects::At(r.current));
        self.add(collection.key()?, document.id(), EditKind::Save(body), expects);
        Ok(())
    }

    /// Deletes a document, leaving a tombstone; nothing if there is none.
    ///
    /// # Errors
    /// If the collection is gone.
    pub fn delete(&mut self, collection: &Collection, id: &str) -> Result<(), DatabaseError> {
        self.add(collection.key()?, id, EditKind::Delete, Expects::Anything);
        Ok(())
    }

    /// Deletes a document if it is still at the revision it was read at; else the batch fails as a whole.
    ///
    /// # Errors
    /// If it was never saved, or the collection is gone.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the gateway
    pub(crate) fn delete_document(
        &mut self,
        collection: &Collection,
        document: &Document,
    ) -> Result<(), DatabaseError> {
        let id = document.id();
        let revision = document.revision().ok_or_else(|| DatabaseError::NotFound { id: id.to_owned() })?;
        self.add(collection.key()?, id, EditKind::Delete, Expects::At(revision.current));
        Ok(())
    }

    /// Removes a document from this database alone, see [`Collection::purge`].
    ///
    /// # Errors
    /// If the collection is gone.
    pub fn purge(&mut self, collection: &Collection, id: &str) -> Result<(), DatabaseError> {
        self.add(collection.key()?, id, EditKind::Purge, Expects::Anything);
        Ok(())
    }

    /// Lets a document be purged at a time, see [`Collection::set_expiration`]; also one that the batch itself stores before.
    /// The batch fails as a whole if there is none.
    ///
    /// # Errors
    /// If the collection is gone.
    pub fn set_expiration(
        &mut self,
        collection: &Collection,
        id: &str,
        time: Option<SystemTime>,
    ) -> Result<(), DatabaseError> {
        let kind = EditKind::Expire(time.map(expiration_ms));
        self.add(collection.key()?, id, kind, Expects::Anything);
        Ok(())
    }

    /// Applies all; gives what each has made.
    pub(super) fn commit(self) -> Result<Vec<Option<Edited>>, DatabaseError> {
        let mut writer = self.store.writer();
        let mut edited = Vec::with_capacity(self.edits.len());
        for edit in self.edits {
            edited.push(edit.stage(&self.store, &mut writer)?);
        }
        let ticket = writer.commit()?;
        self.store.finish(ticket)?;
        Ok(edited)
    }
}
