//! A stored document as a query sees it: values are taken out of the packed body, one by one.

use std::sync::PoisonError;

use serde_json::{Map, Value};

use super::filter::Values;
use crate::database::DatabaseError;
use crate::database::collection::unpack_body;
use crate::database::packed::Unpacker;
use crate::database::path::{Path, Place};
use crate::database::store::{Store, StoredRevision};

pub(super) struct Record<'a> {
    pub(super) store: &'a Store,
    pub(super) revision: &'a StoredRevision,
}

impl Record<'_> {
    /// ID, revision and body.
    pub(super) fn whole(&self) -> Result<Map<String, Value>, DatabaseError> {
        let mut whole = unpack_body(self.store, self.revision)?;
        whole.insert("_id".into(), (*self.revision.id).into());
        whole.insert("_rev".into(), self.revision.vector.id().to_string().into());
        Ok(whole)
    }

    /// The values at these paths by their names, those that are there.
    pub(super) fn fields(&self, paths: &[Path]) -> Result<Map<String, Value>, DatabaseError> {
        let mut fields = Map::new();
        for path in paths {
            if let Some(value) = self.value(path)? {
                fields.insert(path.text().to_owned(), value);
            }
        }
        Ok(fields)
    }
}

impl Values for Record<'_> {
    fn value(&self, path: &Path) -> Result<Option<Value>, DatabaseError> {
        let steps = match path.place() {
            Place::Id => return Ok(Some((*self.revision.id).into())),
            Place::Revision => return Ok(Some(self.revision.vector.id().to_string().into())),
            Place::Document => return self.whole().map(|whole| Some(Value::Object(whole))),
            Place::Body(steps) => steps,
        };
        if self.revision.body.is_empty() {
            return Ok(None);
        }
        let names = self.store.names().read().unwrap_or_else(PoisonError::into_inner);
        let found = Unpacker::new(&names, &self.revision.id).find(&self.revision.body, steps);
        found.ok_or_else(|| DatabaseError::Damaged { detail: format!("the body of {:?}", self.revision.id) })
    }
}
