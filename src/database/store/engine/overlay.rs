//! What a commit of several steps writes, while it is being written: readers see all of it from the moment at which it is
//! declared, and never a part.
//!
//! Without it a reader could come between two steps: a block that was taken away and not yet written anew would be missing in
//! the feed, and a peer would be told that the feed ends. Over a log that is opened to be read alone lies what a crash left of
//! such a commit, for good.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::database::store::ground::Entry;
use crate::database::store::sled::log::{Log, LogResult, Stored, Value};

/// Keys that a commit changes, each with its value; `None`: removed.
type Changes = BTreeMap<Vec<u8>, Option<Value>>;

/// The changes that lie over the log, if there are any.
#[derive(Default)]
pub(super) struct Overlay(RwLock<Option<Changes>>);

/// Holds off the beginning and the end of such a commit for one look.
pub(super) struct View<'a>(RwLockReadGuard<'a, Option<Changes>>);

impl Overlay {
    /// Lays the writes over the log, of two to one key the later. No reader is between two looks then.
    pub(super) fn lay(&self, entries: &[Entry]) {
        let changes = entries.iter().map(|(key, value)| (key.clone(), value.as_deref().map(Value::from)));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(changes.collect());
    }

    /// All of them are in the log.
    pub(super) fn take_off(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn view(&self) -> View<'_> {
        View(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl View<'_> {
    /// Whether nothing lies over the log.
    pub(super) fn is_clear(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn get(&self, log: &Log, key: &[u8]) -> LogResult<Option<Value>> {
        match self.0.as_ref().and_then(|changes| changes.get(key)) {
            Some(value) => Ok(value.clone()),
            None => log.get(key),
        }
    }

    /// The first entry at or after `from` and before `to`.
    pub(super) fn first(&self, log: &Log, from: &[u8], to: &[u8]) -> LogResult<Option<Stored>> {
        let Some(changes) = &*self.0 else { return log.first(from, to) };
        if from >= to {
            return Ok(None);
        }
        let mut start = from.to_vec();
        let below = loop {
            match log.first(&start, to)? {
                Some((key, _)) if changes.contains_key(&*key) => {
                    start = key.to_vec();
                    start.push(0);
                }
                entry => break entry,
            }
        };
        let above = changes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let above = above.filter_map(present).next();
        Ok(match (above, below) {
            (Some(above), Some(below)) => Some(if above.0 < below.0 { above } else { below }),
            (above, below) => above.or(below),
        })
    }

    /// The last entry at or after `from` and before `to`.
    pub(super) fn last(&self, log: &Log, from: &[u8], to: &[u8]) -> LogResult<Option<Stored>> {
        let Some(changes) = &*self.0 else { return log.last(from, to) };
        if from >= to {
            return Ok(None);
        }
        let mut end = to.to_vec();
        let below = loop {
            match log.last(from, &end)? {
                Some((key, _)) if changes.contains_key(&*key) => end = key.to_vec(),
                entry => break entry,
            }
        };
        let above = changes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let above = above.rev().filter_map(present).next();
        Ok(match (above, below) {
            (Some(above), Some(below)) => Some(if above.0 > below.0 { above } else { below }),
            (above, below) => above.or(below),
        })
    }
}

fn present((key, value): (&Vec<u8>, &Option<Value>)) -> Option<Stored> {
    value.as_ref().map(|value| (Value::from(key.as_slice()), value.clone()))
}
