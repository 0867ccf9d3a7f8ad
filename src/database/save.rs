//! Saving a document that others may be changing.

use super::{Collection, DatabaseError, Document};

/// Times the handler is asked for one save.
const ATTEMPTS_MAX: usize = 100;

impl Collection {
    /// Saves a document, and asks `handler` where the stored one was changed since this one was read: it is given the document in
    /// hand, to be changed, and what is stored now (`None` if that was deleted), and says whether to save what it has made. It may be
    /// asked more than once. `false`: it did not want to; nothing is saved.
    ///
    /// ```
    /// # use gattway::{Database, DatabaseConfig, Document};
    /// # let directory = tempfile::tempdir()?;
    /// # let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
    /// let readings = db.default_collection()?;
    /// readings.put("boiler", &serde_json::json!({ "starts": 7 }))?;
    /// let mut mine = readings.get("boiler")?.ok_or("it is there")?;
    /// mine.body_mut().insert("checked".into(), true.into());
    /// readings.put("boiler", &serde_json::json!({ "starts": 8 }))?;
    /// let is_saved = readings.save_with(&mut mine, |mine, stored| {
    ///     let starts = stored.and_then(|stored| stored.body().get("starts").cloned());
    ///     mine.body_mut().insert("starts".into(), starts.unwrap_or_default());
    ///     true
    /// })?;
    /// assert!(is_saved);
    /// assert_eq!(readings.get("boiler")?.ok_or("it is there")?.body()["starts"], 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`DatabaseError::Conflict`] if it was changed again each time that the handler was asked; of ID, body or store. What is stored
    /// stays as it was.
    pub fn save_with(
        &self,
        document: &mut Document,
        mut handler: impl FnMut(&mut Document, Option<&Document>) -> bool,
    ) -> Result<bool, DatabaseError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.save(document) {
                Err(DatabaseError::Conflict { .. }) => {}
                saved => return saved.map(|()| true),
            }
            let stored = self.get(document.id())?;
            if !handler(document, stored.as_ref()) {
                return Ok(false);
            }
            document.revision = stored.and_then(|stored| stored.revision);
        }
        self.save(document).map(|()| true)
    }
}
