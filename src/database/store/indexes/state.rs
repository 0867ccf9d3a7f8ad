//! What is known of a collection's indexes without asking stable storage.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::super::engine::Engine;
use super::super::keys::{self, CollectionKey, IndexKey};
use super::pages::Entry;
use crate::database::DatabaseError;
use crate::database::packed::{Names, Unpacker};
use crate::database::path::{Path, Place};
use crate::database::value::encode;

/// A built index has all documents.
const ALL: u64 = u64::MAX;

/// What stands in the store of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Definition {
    pub(in super::super) name: String,
    pub(in super::super) paths: Vec<String>,
    /// Up to which sequence documents are in it; `None`: all are.
    pub(in super::super) built: Option<u64>,
    /// It is gone but for its pages.
    pub(in super::super) is_dropped: bool,
}

impl Definition {
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Option<Definition> {
        postcard::from_bytes(bytes).ok()
    }

    pub(in super::super) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }
}

/// What the collection was at its last commit that knew of its indexes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Stamp<'n> {
    /// A number may be given out again.
    pub(in super::super) collection: &'n str,
    pub(in super::super) last_sequence: u64,
    pub(in super::super) documents: u64,
}

impl Stamp<'_> {
    pub(in super::super) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }
}

/// What becomes of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in super::super) enum Life {
    /// It is there, and commits keep it.
    Kept,
    /// It is dropped, and kept for those who still read it.
    Dropped,
    /// It is not what the documents are: it is to be built anew.
    Failed,
    /// Nobody reads it: its pages go.
    Leaving,
}

/// An index.
#[derive(Debug)]
pub(crate) struct Secondary {
    pub(in super::super) key: IndexKey,
    pub(in super::super) name: String,
    pub(in super::super) paths: Vec<Path>,
    built: AtomicU64,
    life: AtomicU8,
    users: AtomicUsize,
}

impl Secondary {
    /// `None` if the paths are none.
    pub(in super::super) fn new(key: IndexKey, definition: &Definition, life: Life) -> Option<Secondary> {
        let paths: Result<Vec<Path>, _> = definition.paths.iter().map(|path| Path::parse(path)).collect();
        Some(Secondary {
            key,
            name: definition.name.clone(),
            paths: paths.ok()?,
            built: AtomicU64::new(definition.built.unwrap_or(ALL)),
            life: AtomicU8::new(life as u8),
            users: AtomicUsize::new(0),
        })
    }

    pub(in super::super) fn definition(&self, built: Option<u64>, is_dropped: bool) -> Definition {
        let paths = self.paths.iter().map(|path| path.text().to_owned()).collect();
        Definition { name: self.name.clone(), paths, built, is_dropped }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// The sequence up to which documents are in it.
    pub(in super::super) fn built(&self) -> u64 {
        self.built.load(Ordering::Acquire)
    }

    pub(in super::super) fn is_built(&self) -> bool {
        self.built() == ALL
    }

    /// Under the writer's lock.
    pub(in super::super) fn set_built(&self, built: Option<u64>) {
        self.built.store(built.unwrap_or(ALL), Ordering::Release);
    }

    pub(in super::super) fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Kept,
            1 => Life::Dropped,
            2 => Life::Failed,
            _ => Life::Leaving,
        }
    }

    pub(in super::super) fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::Release);
    }

    /// Whether commits have to keep it.
    pub(in super::super) fn is_kept(&self) -> bool {
        matches!(self.life(), Life::Kept | Life::Dropped)
    }

    pub(in super::super) fn has_users(&self) -> bool {
        self.users.load(Ordering::Acquire) > 0
    }

    /// The entry of a document. What cannot be read counts as absent: whoever reads the document is told.
    pub(in super::super) fn entry(&self, names: &Names, id: &str, body: &[u8], sequence: u64) -> Entry {
        let mut values = Vec::with_capacity(48);
        let unpacker = Unpacker::new(names, id);
        for path in &self.paths {
            let found = match path.place() {
                Place::Body(steps) => unpacker.find(body, steps).flatten(),
                _ => None,
            };
            encode(found.as_ref(), &mut values);
        }
        Entry::new(&values, id, sequence)
    }
}

/// All of a collection, also those that are going. Changed under the writer's lock.
#[derive(Debug, Default)]
pub(in super::super) struct Indexes(RwLock<Arc<Vec<Arc<Secondary>>>>);

impl Indexes {
    pub(in super::super) fn new(indexes: Vec<Arc<Secondary>>) -> Indexes {
        Indexes(RwLock::new(Arc::new(indexes)))
    }

    pub(in super::super) fn all(&self) -> Arc<Vec<Arc<Secondary>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(in super::super) fn add(&self, index: Arc<Secondary>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut all).push(index);
    }

    pub(in super::super) fn remove(&self, number: u16) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut all).retain(|index| index.key.number != number);
    }

    /// The one that goes by a name.
    pub(in super::super) fn named(&self, name: &str) -> Option<Arc<Secondary>> {
        let is_it =
            |index: &&Arc<Secondary>| index.name == name && matches!(index.life(), Life::Kept | Life::Failed);
        self.all().iter().find(is_it).cloned()
    }

    /// Those that a query may use: built, and kept as long as it does.
    pub(in super::super) fn usable(&self) -> Vec<IndexUse> {
        // With the lock, so that none begins to leave in between.
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let usable = all.iter().filter(|index| index.life() == Life::Kept && index.is_built());
        let taken = usable.map(|index| {
            index.users.fetch_add(1, Ordering::AcqRel);
            IndexUse(Arc::clone(index))
        });
        taken.collect()
    }

    /// Lets those go that are dropped and that nobody reads; commits do not keep them from then on.
    pub(in super::super) fn let_go(&self) {
        let all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for index in all.iter().filter(|index| index.life() == Life::Dropped && !index.has_users()) {
            index.set_life(Life::Leaving);
        }
    }

    /// A number that none has.
    pub(in super::super) fn free_number(&self) -> Option<u16> {
        let all = self.all();
        (0..=u16::MAX).find(|number| all.iter().all(|index| index.key.number != *number))
    }
}

/// An index that is being read, and stays until it is no more.
#[derive(Debug)]
pub(crate) struct IndexUse(Arc<Secondary>);

impl std::ops::Deref for IndexUse {
    type Target = Secondary;

    fn deref(&self) -> &Secondary {
        &self.0
    }
}

impl Drop for IndexUse {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The indexes of a collection as they stand in the store. Where they do not fit the collection they have failed; where the
/// collection is another one, they go.
pub(in super::super) fn load(
    engine: &Engine,
    collection: CollectionKey,
    now: &Stamp<'_>,
) -> Result<Indexes, DatabaseError> {
    let (from, to) = keys::definitions(collection);
    let mut found = Vec::new();
    engine.scan(&from, &to, |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Ok(ControlFlow::Continue(()))
    })?;
    if found.is_empty() {
        return Ok(Indexes::default());
    }
    let stamp = engine.get(&keys::numbered(keys::STAMP, collection.0))?;
    let stamp = stamp.as_deref().and_then(|bytes| postcard::from_bytes::<Stamp<'_>>(bytes).ok());
    let is_other = stamp.as_ref().is_some_and(|stamp| stamp.collection != now.collection);
    let fits = stamp.is_some_and(|stamp| stamp == *now);
    let mut indexes = Vec::new();
    for (key, value) in found {
        let parts = keys::definition_index(&key).zip(Definition::from_bytes(&value));
        let index = parts.and_then(|(key, definition)| {
            let life = match (definition.is_dropped || is_other, fits) {
                (true, _) => Life::Leaving,
                (false, true) => Life::Kept,
                (false, false) => Life::Failed,
            };
            Secondary::new(key, &definition, life)
        });
        match index {
            Some(index) => indexes.push(Arc::new(index)),
            // Documents are whole without it.
            None => tracing::warn!(
                collection = now.collection,
                "the definition of an index is damaged: it is left out"
            ),
        }
    }
    Ok(Indexes::new(indexes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(number: u16, built: Option<u64>, life: Life) -> Arc<Secondary> {
        let key = IndexKey { collection: CollectionKey(0), number };
        let definition =
            Definition { name: format!("i{number}"), paths: vec!["a".into()], built, is_dropped: false };
        Arc::new(Secondary::new(key, &definition, life).expect("a path"))
    }

    /// A query sees an index that has all documents, and keeps it while it reads.
    #[test]
    fn an_index_is_used_when_it_is_whole_and_goes_when_nobody_reads_it() {
        let lives = [Life::Kept, Life::Dropped, Life::Failed, Life::Leaving];
        let built =
            lives.iter().map(|life| (None, *life)).chain([(Some(7), Life::Kept), (Some(0), Life::Kept)]);
        let indexes =
            Indexes::new((0..).zip(built).map(|(n, (built, life))| index(n, built, life)).collect());
        for (index, life) in indexes.all().iter().zip(lives) {
            assert_eq!(index.life(), life);
            assert_eq!(index.is_kept(), matches!(life, Life::Kept | Life::Dropped));
        }
        let names = |uses: &[IndexUse]| uses.iter().map(|it| it.name().to_owned()).collect::<Vec<_>>();
        let uses = [indexes.usable(), indexes.usable()];
        assert_eq!(names(&uses[0]), ["i0"]);
        let used = Arc::clone(&indexes.all()[0]);
        used.set_life(Life::Dropped);
        for (read_by, uses) in [(1, Some(uses)), (0, None)] {
            indexes.let_go();
            let expected = if read_by > 0 { Life::Dropped } else { Life::Leaving };
            assert_eq!((used.life(), used.has_users()), (expected, read_by > 0));
            assert!(indexes.usable().iter().all(|other| other.name() != "i0"));
            drop(uses);
        }
        assert_eq!(indexes.all()[1].life(), Life::Leaving, "nobody has read it");
    }
}
