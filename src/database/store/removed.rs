//! What was removed here, so that it does not come back from a peer that still has it.
//!
//! A *mark* stands for one document that was purged or has expired: a hash of its ID and the versions that it had. A revision
//! that is one of them, or that they descend from, is as good as known; one that was made on top of them, or beside them, is
//! news. Marks go after a year, or when there are too many, the oldest first.
//!
//! A *horizon* stands for all documents of a collection that were removed for their age: whatever has a time up to it is as good
//! as known. Times that no right clock gives are not compared with it.
//!
//! The *horizon of an author* stands for all tombstones of a collection that were removed, and for documents where what comes late
//! is wanted: the newest of the author's versions that was in one. What the author wrote up to then has been here, so what is not
//! here was removed; what it wrote later, and had no chance to hand on, is news however old it is.

use std::sync::atomic::Ordering;

use sha1::{Digest, Sha1};

use super::block::{BlockBuilder, Codec, SourceNumbers, StoredRevision, read_block};
use super::ground::damaged;
use super::handle::Store;
use super::keys::{self, CollectionKey, IdHash};
use crate::database::{DatabaseError, clock};
use crate::replica::revision::{Causality, VersionVector, later};

/// Most marks of a database.
#[cfg(not(test))]
pub(super) const MARKS_MAX: u64 = 100_000;
/// Few enough for a test to reach them.
#[cfg(test)]
pub(crate) const MARKS_MAX: u64 = 500;

/// How long a mark is kept.
pub(super) const MARK_MINUTES: u32 = 366 * 24 * 60;

/// Most versions of a mark, so that it stays one small value; of more the newest stay.
const VERSIONS_MAX: usize = 32;

/// Most authors of a collection that have a horizon. Tombstones that further ones had a hand in leave marks.
#[cfg(not(test))]
pub(super) const AUTHORS_MAX: usize = 4_096;
/// Few enough for a test to reach them.
#[cfg(test)]
pub(crate) const AUTHORS_MAX: usize = 60;

/// Nanoseconds of a minute.
const NS_PER_MINUTE: u64 = 60_000_000_000;

/// A document that was removed.
#[derive(Debug, PartialEq)]
pub(super) struct Mark {
    /// When, in minutes since 1970.
    pub(super) minute: u32,
    /// What it was.
    pub(super) vector: VersionVector,
}

impl Mark {
    pub(super) fn to_bytes(&self, sources: &impl SourceNumbers, codec: &mut Codec) -> Vec<u8> {
        let mut bytes = self.minute.to_be_bytes().to_vec();
        let mut builder = BlockBuilder::default();
        let vector = self.vector.clone();
        let nothing = StoredRevision {
            sequence: 0,
            id: "".into(),
            vector,
            deleted: false,
            remote_ancestor: None,
            body: Vec::new(),
        };
        builder.push(&nothing, sources);
        bytes.extend(builder.finish_rows(codec));
        bytes
    }

    /// `None` means damage.
    pub(super) fn from_bytes(bytes: &[u8], sources: &impl SourceNumbers, codec: &mut Codec) -> Option<Mark> {
        let (minute, block) = bytes.split_first_chunk::<4>()?;
        let mut records = read_block(block, sources, codec)?;
        let record = records.pop().filter(|_| records.is_empty())?;
        Some(Mark { minute: u32::from_be_bytes(*minute), vector: record.vector })
    }

    /// This one, with what an earlier removal of the same document says.
    pub(super) fn joined(mut self, earlier: Option<Mark>) -> Mark {
        if let Some(earlier) = earlier {
            self.vector = self.vector.with_history_of(&earlier.vector);
        }
        let others = &mut self.vector;
        let mut versions: Vec<_> = others.merged.drain(..).chain(others.history.drain(..)).collect();
        versions.sort_by(|a, b| later(*b, *a));
        versions.truncate(VERSIONS_MAX - 1);
        others.history = versions;
        self
    }
}

/// What stands for an ID.
pub(super) fn hash_of(id: &str) -> IdHash {
    let digest = Sha1::digest(id.as_bytes());
    let mut hash = IdHash::default();
    hash.iter_mut().zip(digest).for_each(|(byte, of_digest)| *byte = of_digest);
    hash
}

/// A wall clock in minutes.
pub(super) fn minute_of(wall: u64) -> u32 {
    u32::try_from(wall / NS_PER_MINUTE).unwrap_or(u32::MAX)
}

/// Whether a revision is one that was removed, or an ancestor of it. `is_whole`: the vector is all of it, and not the name in a list.
pub(super) fn is_covered(vector: &VersionVector, removed: &VersionVector, is_whole: bool) -> bool {
    match vector.compare(removed) {
        Causality::Same => true,
        Causality::Older => is_whole || removed.has_ancestor(vector.id()) == Some(true),
        Causality::Newer | Causality::Conflict => false,
    }
}

/// Whether a time can be compared with a horizon: a clock that can be right gave it.
pub(crate) fn has_an_age(time: u64, wall: u64) -> bool {
    clock::is_plausible(time) && !clock::is_ahead(time, wall)
}

impl Store {
    /// How many removed documents are remembered one by one.
    #[cfg(test)]
    pub(crate) fn marks(&self) -> u64 {
        self.marks.load(Ordering::Acquire)
    }

    /// The mark of a document.
    fn mark(&self, key: CollectionKey, id: &str) -> Result<Option<Mark>, DatabaseError> {
        if self.marks.load(Ordering::Acquire) == 0 {
            return Ok(None);
        }
        self.mark_at(key, hash_of(id))
    }

    /// The mark of a hash.
    pub(super) fn mark_at(&self, key: CollectionKey, hash: IdHash) -> Result<Option<Mark>, DatabaseError> {
        let Some(value) = self.engine().get(&keys::mark(key, Some(hash)))? else { return Ok(None) };
        let mark = self.with_sources(|sources, codec| Mark::from_bytes(&value, sources, codec));
        mark.map(Some).ok_or_else(|| damaged("the mark of a removed document"))
    }

    /// Whether a revision of a document that is not here was removed here, or would be at once. See [`is_covered`].
    pub(crate) fn is_removed(
        &self,
        key: CollectionKey,
        id: &str,
        vector: &VersionVector,
        is_whole: bool,
    ) -> Result<bool, DatabaseError> {
        let (collection, time) = (self.collection(key)?, vector.current.time);
        let is_behind =
            time <= collection.horizon() || time <= collection.author_horizon(vector.current.source);
        if is_behind && clock::is_plausible(time) {
            return Ok(true);
        }
        if let Some(mark) = self.mark(key, id)?
            && is_covered(vector, &mark.vector, is_whole)
        {
            return Ok(true);
        }
        // It has expired, and is still to be removed.
        if !self.is_due(key, id)? {
            return Ok(false);
        }
        let stored = self.stored_revision(key, id)?;
        Ok(stored.is_some_and(|stored| is_covered(vector, &stored.vector, is_whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::revision::{SourceId, Version};

    struct Unnumbered;

    impl SourceNumbers for Unnumbered {
        fn number(&self, _: SourceId) -> u32 {
            0
        }

        fn source(&self, _: u32) -> Option<SourceId> {
            None
        }
    }

    fn version(source: u8, time: u64) -> Version {
        Version { time, source: SourceId([source; 16]) }
    }

    #[test]
    fn a_mark_stays_one_small_value_and_covers_what_is_newest() {
        let mut vector = VersionVector::new(version(0, 1_000));
        vector.history = (1..200).map(|n| version(n, 1_000 - u64::from(n))).collect();
        vector.trees = (1..=20)
            .map(|n| crate::replica::revision::TreeId::new(n, &[n as u8; 20]).expect("a tree ID"))
            .collect();
        let mark = Mark { minute: 7, vector }.joined(None);
        let mut codec = Codec::default();
        let bytes = mark.to_bytes(&Unnumbered, &mut codec);
        assert!(bytes.len() <= super::super::engine::VALUE_BYTES_MAX, "{}", bytes.len());
        assert_eq!(Mark::from_bytes(&bytes, &Unnumbered, &mut codec), Some(mark));
        assert_eq!(Mark::from_bytes(&bytes[..9], &Unnumbered, &mut codec), None);
    }

    /// The name in a list stands for a revision that was removed if what was removed has it.
    #[test]
    fn a_name_in_a_list_is_covered_as_the_whole_is() {
        let removed = VersionVector::new(version(1, 5)).edited(version(2, 9));
        for (name, covered) in
            [((2, 9), true), ((1, 5), true), ((1, 4), true), ((1, 6), false), ((3, 1), false)]
        {
            let vector = VersionVector::new(version(name.0, name.1));
            let found = [true, false].map(|is_whole| is_covered(&vector, &removed, is_whole));
            assert_eq!(found, [covered; 2], "{name:?}");
        }
    }

    #[test]
    fn what_was_removed_twice_covers_both() {
        let first = Mark { minute: 1, vector: VersionVector::new(version(1, 5)) };
        let second = Mark { minute: 2, vector: VersionVector::new(version(2, 9)) }.joined(Some(first));
        for (covered, vector) in [
            (true, VersionVector::new(version(1, 5))),
            (true, VersionVector::new(version(1, 4))),
            (true, VersionVector::new(version(2, 9))),
            (false, VersionVector::new(version(1, 6))),
            (false, VersionVector::new(version(3, 1))),
            (false, VersionVector::new(version(1, 5)).edited(version(3, 12))),
        ] {
            assert_eq!(is_covered(&vector, &second.vector, true), covered, "{vector:?}");
        }
    }

    /// What a clock gave that was not set, or is far ahead, says nothing of when it was.
    #[test]
    fn only_what_a_right_clock_gave_has_an_age() {
        const DAY: u64 = 24 * 3_600 * 1_000_000_000;
        let wall = clock::wall_now();
        let found = [0, wall, wall + 300 * DAY].map(|time| has_an_age(time, wall));
        assert_eq!(found, [false, true, false]);
    }
}
