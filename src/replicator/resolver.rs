//! The resolver that is used when the application brings none, and one for each collection.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use crate::replica::revision::later;
use crate::replica::store::{Conflict, ConflictResolver, Resolution};

/// A deletion on either side wins over an edit; otherwise the later clock wins. Both sides of a conflict decide the
/// same way, whoever resolves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultResolver;

impl ConflictResolver for DefaultResolver {
    fn resolve(&self, conflict: &Conflict<'_>) -> Result<Resolution, String> {
        let local_deleted = conflict.local_body.is_none();
        let remote_deleted = conflict.remote_body.is_none();
        Ok(match (local_deleted, remote_deleted) {
            (true, false) => Resolution::Local,
            (false, true) => Resolution::Remote,
            _ => match later(conflict.local.current, conflict.remote.current) {
                Ordering::Less => Resolution::Remote,
                Ordering::Equal | Ordering::Greater => Resolution::Local,
            },
        })
    }
}

/// Asks the resolver of the conflict's collection, or the one for the others.
pub(super) struct ByCollection {
    pub(super) own: HashMap<String, Arc<dyn ConflictResolver>>,
    pub(super) others: Arc<dyn ConflictResolver>,
}

impl ConflictResolver for ByCollection {
    fn resolve(&self, conflict: &Conflict<'_>) -> Result<Resolution, String> {
        self.own.get(conflict.collection).unwrap_or(&self.others).resolve(conflict)
    }
}
