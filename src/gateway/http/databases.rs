//! The databases that are open now, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::database::Database;

/// The databases that requests are for. Clones are handles to the same list.
#[derive(Clone, Default)]
pub(crate) struct Databases(Arc<RwLock<BTreeMap<String, Open>>>);

struct Open {
    db: Database,
    ended: watch::Sender<bool>,
}

/// One that is open, for the time of a request.
#[derive(Clone)]
pub(crate) struct OpenDatabase {
    pub(crate) name: String,
    pub(crate) db: Database,
    /// Whether it is about to be closed.
    pub(crate) ended: watch::Receiver<bool>,
}

impl Databases {
    /// A list of one.
    pub(crate) fn of(name: &str, db: &Database) -> Databases {
        let databases = Databases::default();
        databases.add(name, db);
        databases
    }

    pub(crate) fn add(&self, name: &str, db: &Database) {
        let open = Open { db: db.clone(), ended: watch::Sender::new(false) };
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), open);
    }

    /// Lets go of one, and ends what follows its changes.
    pub(crate) fn remove(&self, name: &str) {
        let open = self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(open) = open {
            open.ended.send_replace(true);
        }
    }

    /// Lets go of all.
    pub(crate) fn clear(&self) {
        self.all().into_iter().for_each(|open| self.remove(&open.name));
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> Vec<OpenDatabase> {
        let open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|(name, open)| Self::handle(name, open)).collect()
    }

    /// The one of this name.
    pub(super) fn get(&self, name: &str) -> Option<OpenDatabase> {
        let open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        open.get(name).map(|open| Self::handle(name, open))
    }

    fn handle(name: &str, open: &Open) -> OpenDatabase {
        OpenDatabase { name: name.to_owned(), db: open.db.clone(), ended: open.ended.subscribe() }
    }
}

/// The name of a database that has no section of a configuration: its directory's, without what follows the first dot, and with
/// letters, digits, `-` and `_` alone.
pub(crate) fn name_of(db: &Database) -> String {
    let path = db.path();
    let directory = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').find(|part| !part.is_empty()).unwrap_or_default();
    let sign = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = stem.chars().map(sign).collect();
    if name.starts_with('_') || name.is_empty() { format!("db{name}") } else { name }
}
