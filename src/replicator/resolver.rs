//! The resolver that is used when the application brings none.

use std::cmp::Ordering;

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
