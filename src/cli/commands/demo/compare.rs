//! The proof that two databases are equal: the same collections, the same documents, the same revisions, the same
//! tombstones.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::support::error::CliError;
use crate::cli::support::store;
use crate::database::{Collection, Database};
use crate::replica::revision::{Causality, VersionVector};

/// Changes that are read at once.
const PAGE: usize = 1000;

/// What a comparison found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    /// Documents that both have, deleted ones not counted.
    pub(super) documents: u64,
    /// Deletions that both know of.
    pub(super) tombstones: u64,
    /// The first difference, if there is any.
    pub(super) difference: Option<String>,
}

/// A document's newest revision, and whether it is a tombstone.
type Revisions = BTreeMap<String, (VersionVector, bool)>;

/// Compares everything that is stored.
pub(super) fn compare(a: &Database, b: &Database) -> Result<Comparison, CliError> {
    let mut comparison = Comparison { documents: 0, tombstones: 0, difference: None };
    if a.collections() != b.collections() {
        comparison.difference = Some(format!("collections {:?} and {:?}", a.collections(), b.collections()));
        return Ok(comparison);
    }
    for name in a.collections() {
        let (a, b) = (store::collection(a, &name)?, store::collection(b, &name)?);
        comparison.add(&a, &b)?;
    }
    Ok(comparison)
}

impl Comparison {
    fn add(&mut self, a: &Collection, b: &Collection) -> Result<(), CliError> {
        let (in_a, in_b) = (revisions(a)?, revisions(b)?);
        for id in in_b.keys().filter(|id| !in_a.contains_key(*id)) {
            self.found(format!("{id:?} is missing in the first"));
        }
        for (id, (vector, deleted)) in &in_a {
            match in_b.get(id) {
                None => self.found(format!("{id:?} is missing in the second")),
                Some((other, other_deleted)) => {
                    if deleted != other_deleted {
                        self.found(format!("{id:?} is deleted in only one"));
                    }
                    if vector.compare(other) != Causality::Same {
                        self.found(format!("{id:?} has revision {vector} and {other}"));
                    }
                }
            }
            if *deleted {
                self.tombstones += 1;
            } else {
                self.documents += 1;
                let (a, b) = (a.get(id).map_err(store::failed)?, b.get(id).map_err(store::failed)?);
                if a.as_ref().map(|document| document.body()) != b.as_ref().map(|document| document.body()) {
                    self.found(format!("{id:?} has different content"));
                }
            }
        }
        Ok(())
    }

    fn found(&mut self, difference: String) {
        self.difference.get_or_insert(difference);
    }
}

fn revisions(collection: &Collection) -> Result<Revisions, CliError> {
    let mut revisions = Revisions::new();
    let mut since = 0;
    loop {
        let page = collection.changes_since(since, PAGE).map_err(store::failed)?;
        let Some(last) = page.last() else { return Ok(revisions) };
        since = last.sequence;
        revisions.extend(page.into_iter().map(|change| (change.id, (change.revision, change.deleted))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DatabaseConfig;
    use serde_json::json;

    #[test]
    fn every_kind_of_difference_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let open =
            |name: &str| Database::open(directory.path().join(name), DatabaseConfig::default()).expect(name);
        let (a, b) = (open("a"), open("b"));
        let difference = |a: &Database, b: &Database| compare(a, b).expect("readable").difference;
        assert_eq!(difference(&a, &b), None);
        let in_a = a.default_collection().expect("there");
        in_a.put("x", &json!({"n": 1})).expect("saved");
        assert_eq!(difference(&a, &b), Some("\"x\" is missing in the second".into()));
        assert_eq!(difference(&b, &a), Some("\"x\" is missing in the first".into()));
        // The same content by two authors is not the same revision.
        b.default_collection().expect("there").put("x", &json!({"n": 1})).expect("saved");
        assert!(difference(&a, &b).is_some_and(|text| text.contains("has revision")));
        in_a.delete("x").expect("deleted");
        assert_eq!(difference(&a, &b), Some("\"x\" is deleted in only one".into()));
        b.create_collection("more").expect("created");
        assert!(difference(&a, &b).is_some_and(|text| text.starts_with("collections")));
    }
}
