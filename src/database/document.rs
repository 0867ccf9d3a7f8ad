//! A document in hand: ID, body and the revision it was read at.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::DatabaseError;
use crate::replica::revision::VersionVector;

/// A JSON object with an ID, and the revision it was read at. Changing it changes nothing stored until it is saved.
/// ```
/// use gattway::database::DatabaseError;
/// use gattway::{Database, DatabaseConfig, Document};
///
/// # let directory = tempfile::tempdir()?;
/// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// let readings = db.default_collection()?;
/// let mut boiler = Document::from_value("boiler", &serde_json::json!({ "celsius": 71.5 }))?;
/// readings.save(&mut boiler)?;
///
/// let mut old = boiler.clone();
/// boiler.body_mut().insert("checked".into(), true.into());
/// readings.save(&mut boiler)?;
/// // Somebody has changed it since.
/// assert!(matches!(readings.save(&mut old), Err(DatabaseError::Conflict { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub(super) id: String,
    pub(super) body: Map<String, Value>,
    pub(super) revision: Option<VersionVector>,
    pub(super) sequence: u64,
}

impl Document {
    /// A document that is not stored yet.
    pub fn new(id: impl Into<String>, body: Map<String, Value>) -> Document {
        Document { id: id.into(), body, revision: None, sequence: 0 }
    }

    /// A document that is not stored yet, from any type that serialises to a JSON object.
    ///
    /// # Errors
    /// [`DatabaseError::BadBody`] if it does not.
    pub fn from_value(id: impl Into<String>, value: &impl Serialize) -> Result<Document, DatabaseError> {
        Ok(Document::new(id, to_object(value)?))
    }

    /// Its ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its body.
    pub fn body(&self) -> &Map<String, Value> {
        &self.body
    }

    /// Its body, to be changed.
    pub fn body_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.body
    }

    /// Its body, owned.
    pub fn into_body(self) -> Map<String, Value> {
        self.body
    }

    /// Its body as any type.
    ///
    /// # Errors
    /// [`DatabaseError::BadBody`] if it does not fit.
    pub fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, DatabaseError> {
        T::deserialize(&self.body).map_err(|e| DatabaseError::BadBody { reason: e.to_string() })
    }

    /// The revision it was read at or saved as; `None` before the first save.
    pub fn revision(&self) -> Option<&VersionVector> {
        self.revision.as_ref()
    }

    /// When it was saved, by the clock of the device that did; `None` before the first save, and for a revision that tells no time (one of
    /// a Couchbase Lite database with revision trees).
    pub fn timestamp(&self) -> Option<SystemTime> {
        let vector = self.revision.as_ref().filter(|vector| !vector.is_tree())?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(vector.current.time))
    }

    /// Its place in the change feed when it was read or saved; 0 before the first save.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// A value that has to be a JSON object.
pub(super) fn to_object(value: &impl Serialize) -> Result<Map<String, Value>, DatabaseError> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(DatabaseError::BadBody { reason: "not a JSON object".into() }),
        Err(error) => Err(DatabaseError::BadBody { reason: error.to_string() }),
    }
}
