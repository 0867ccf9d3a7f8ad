//! A log as an ordered map, read without sled and without a byte being written: for a medium that cannot be written to.
//!
//! Memory: some 100 bytes a page, and the newest pages read.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::super::ground::Pair;
use super::salvage::Salvage;

/// Pages of entries that are kept as they were read last.
const PAGES_KEPT: usize = 64;

/// A log that is only read: its pages as a map.
pub(in crate::database::store) struct Frozen {
    salvage: Salvage,
    /// In order of `start`; together they hold every key once.
    leaves: Vec<Leaf>,
    read: Mutex<VecDeque<(u64, Arc<Vec<Pair>>)>>,
}

struct Leaf {
    /// The first key that is this page's. What stands in it before that was merged into the page before.
    start: Box<[u8]>,
    page: u64,
}

impl Frozen {
    /// Of a log of which nothing is lost.
    pub(in crate::database::store) fn new(salvage: Salvage) -> Frozen {
        let mut leaves = Vec::new();
        let mut reached: Option<&[u8]> = Some(&[]);
        for (lo, hi, page) in salvage.leaves() {
            let Some(before) = reached else { break };
            let is_covered = !hi.is_empty() && *hi <= *before;
            if !is_covered {
                leaves.push(Leaf { start: before.max(lo).into(), page });
                reached = (!hi.is_empty()).then_some(hi);
            }
        }
        Frozen { salvage, leaves, read: Mutex::default() }
    }

    pub(in crate::database::store) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut next = key.to_vec();
        next.push(0);
        Ok(self.first(key, &next)?.map(|(_, value)| value))
    }

    /// The first entry at or after `from` and before `to`.
    pub(in crate::database::store) fn first(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Pair>> {
        let at = self.leaves.partition_point(|leaf| *leaf.start <= *from).saturating_sub(1);
        for leaf in self.leaves[at..].iter().take_while(|leaf| *leaf.start < *to) {
            let entries = self.entries(leaf.page)?;
            let at = entries.partition_point(|(key, _)| **key < *from.max(&leaf.start));
            if let Some(entry) = entries.get(at) {
                return Ok(Some(entry.clone()).filter(|(key, _)| **key < *to));
            }
        }
        Ok(None)
    }

    /// The last entry at or after `from` and before `to`.
    pub(in crate::database::store) fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Pair>> {
        let end = self.leaves.partition_point(|leaf| *leaf.start < *to);
        for leaf in self.leaves[..end].iter().rev() {
            let entries = self.entries(leaf.page)?;
            let at = entries.partition_point(|(key, _)| **key < *to);
            let found = at.checked_sub(1).map(|at| &entries[at]).filter(|(key, _)| **key >= *leaf.start);
            if let Some(entry) = found {
                return Ok(Some(entry.clone()).filter(|(key, _)| **key >= *from));
            }
            if *leaf.start <= *from {
                break;
            }
        }
        Ok(None)
    }

    /// The entries of a page, in order.
    fn entries(&self, page: u64) -> io::Result<Arc<Vec<Pair>>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, entries)) = read.iter().find(|(other, _)| *other == page) {
            return Ok(Arc::clone(entries));
        }
        let entries = self.salvage.entries(page)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("page {page} can no longer be read"))
        })?;
        let entries = Arc::new(entries);
        read.truncate(PAGES_KEPT - 1);
        read.push_front((page, Arc::clone(&entries)));
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::log::{Log, LogResult, Stored};
    use super::super::super::seal;

    fn pair(found: LogResult<Option<Stored>>) -> Option<(Vec<u8>, Vec<u8>)> {
        found.expect("readable").map(|(key, value)| (key.to_vec(), value.to_vec()))
    }

    /// Whatever was written over and removed: a log that is read alone has what sled has, from every side.
    #[test]
    fn a_log_that_is_read_alone_is_the_same_map() {
        for seed in 0..4 {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let mut random = fastrand::Rng::with_seed(seed);
            let mut model = BTreeMap::new();
            let log = Log::open(directory.path(), 1 << 20).expect("open");
            for _ in 0..random.usize(20..200) {
                let entry = |random: &mut fastrand::Rng| {
                    let key = random.u16(0..2_000).to_be_bytes()[..random.usize(1..3)].to_vec();
                    let value = (random.u8(0..3) > 0).then(|| vec![random.u8(..); random.usize(0..600)]);
                    (key, value)
                };
                let entries: Vec<_> = (0..random.usize(1..40)).map(|_| entry(&mut random)).collect();
                for (key, value) in &entries {
                    match value {
                        Some(value) => drop(model.insert(key.clone(), value.clone())),
                        None => drop(model.remove(key)),
                    }
                }
                log.apply(entries).expect("applied");
            }
            log.flush().expect("flushed");
            log.sync_data().expect("synced");
            let is_sealed = seed % 2 == 0;
            if is_sealed {
                seal::seal(directory.path()).expect("sealed");
            }
            let frozen = Log::open_to_read(directory.path()).expect("whole").expect("there");
            assert!(frozen.is_frozen() && !frozen.is_on_files() && log.is_on_files() && !log.is_frozen());
            for _ in 0..2_000 {
                let mut key = || random.u16(0..2_100).to_be_bytes()[..random.usize(0..3)].to_vec();
                let (from, to) = (key(), key());
                let expected = || {
                    let range = model.range(from.clone()..).take_while(|(key, _)| **key < to);
                    range.map(|(key, value)| (key.clone(), value.clone()))
                };
                assert_eq!(
                    frozen.get(&from).expect("readable").map(|value| value.to_vec()),
                    model.get(&from).cloned()
                );
                assert_eq!(pair(frozen.first(&from, &to)), expected().next(), "{from:?} to {to:?}");
                assert_eq!(pair(frozen.last(&from, &to)), expected().last(), "{from:?} to {to:?}");
                if from < to {
                    assert_eq!(pair(log.first(&from, &to)), expected().next(), "{from:?} to {to:?}");
                    assert_eq!(pair(log.last(&from, &to)), expected().last(), "{from:?} to {to:?}");
                }
            }
            let mut entries = frozen.range(&[], &[0xff]).expect("a range");
            let mut all = BTreeMap::new();
            while let Some((key, value)) = entries.next().expect("readable") {
                all.insert(key.to_vec(), value.to_vec());
            }
            assert_eq!(all, model, "seed {seed}");
            assert!(frozen.apply(vec![(b"k".to_vec(), None)]).is_err(), "nothing can be written");
        }
    }
}
