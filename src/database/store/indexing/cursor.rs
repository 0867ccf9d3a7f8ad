//! Reading the entries of ranges in order, page by page, while commits change the index.
//!
//! An entry names the sequence of the revision that it was made of, so what is read at that sequence has the values of the
//! entry, whatever becomes of the document meanwhile; where the revision is gone, the document was changed, and is passed over.

use std::collections::VecDeque;

use super::super::block::StoredRevision;
use super::super::handle::Store;
use super::super::indexes::pages;
use super::super::indexes::{Entry, IndexUse, Life};
use super::super::keys;
use crate::database::DatabaseError;

/// Ranges of keys that do not overlap, in order: from, up to (excluded; `None`: to the end).
pub(crate) type Ranges = VecDeque<(Vec<u8>, Option<Vec<u8>>)>;

/// Where reading an index stands.
pub(crate) struct Cursor {
    index: IndexUse,
    /// Those still to be read, the one that is begun in front.
    ranges: Ranges,
    backwards: bool,
    page: VecDeque<Entry>,
    /// Where the page ends that was read last: in the range in front keys above it are left, or below it.
    at: Option<Vec<u8>>,
}

impl Cursor {
    /// Reads forwards from the first key of the first range, or backwards from the last one of the last.
    pub(crate) fn new(index: IndexUse, ranges: Ranges, backwards: bool) -> Cursor {
        let ranges = if backwards { ranges.into_iter().rev().collect() } else { ranges };
        Cursor { index, ranges, backwards, page: VecDeque::new(), at: None }
    }

    /// The next entry, `None` at the end.
    ///
    /// # Errors
    /// The index is damaged: it is built anew, and the query can be run again.
    pub(crate) fn next(&mut self, store: &Store) -> Result<Option<Entry>, DatabaseError> {
        loop {
            let next = if self.backwards { self.page.pop_back() } else { self.page.pop_front() };
            if next.is_some() || self.ranges.is_empty() {
                return Ok(next);
            }
            if self.index.life() == Life::Failed {
                return Err(self.failed());
            }
            let has_due = store.has_due();
            let read = if self.backwards { self.read_below(store) } else { self.read_above(store) };
            if let Err(error @ DatabaseError::Damaged { .. }) = read {
                tracing::warn!(index = self.index.name(), %error, "an index is damaged: it is built anew");
                self.index.set_life(Life::Failed);
                store.note_index_work();
                return Err(self.failed());
            }
            read?;
            if has_due {
                self.leave_out_due(store)?;
            }
        }
    }

    /// Leaves out what has expired, of the page that was read: it may be removed before its revision is read, and is not due any
    /// more then.
    fn leave_out_due(&mut self, store: &Store) -> Result<(), DatabaseError> {
        let key = self.index.key.collection;
        for entry in std::mem::take(&mut self.page) {
            if store.undue_entry(key, entry.id())?.is_some() {
                self.page.push_back(entry);
            }
        }
        Ok(())
    }

    fn failed(&self) -> DatabaseError {
        let name = self.index.name();
        DatabaseError::Damaged {
            detail: format!("index {name:?} was, and is built anew: run the query again"),
        }
    }

    /// Reads the next page of the range in front, forwards; takes the range away behind its last one.
    fn read_above(&mut self, store: &Store) -> Result<(), DatabaseError> {
        let Some((from, to)) = self.ranges.front() else { return Ok(()) };
        // The first key that may come.
        let from = match &self.at {
            Some(at) => [at, &[0][..]].concat(),
            None => from.clone(),
        };
        let found = pages::page_from(&store.engine(), self.index.key, &from)?;
        let is_behind = |key: &[u8]| to.as_ref().is_some_and(|to| *to.as_slice() <= *key);
        let fence = match found {
            None => None,
            Some((fence, entries)) => {
                let wanted =
                    entries.into_iter().filter(|entry| *entry.key() >= *from && !is_behind(entry.key()));
                self.page.extend(wanted);
                Some(fence).filter(|fence| !is_behind(fence) && *fence != keys::LAST_FENCE)
            }
        };
        if fence.is_none() {
            self.ranges.pop_front();
        }
        self.at = fence;
        Ok(())
    }

    fn read_below(&mut self, store: &Store) -> Result<(), DatabaseError> {
        let Some((from, to)) = self.ranges.front() else { return Ok(()) };
        let engine = store.engine();
        let found = match (&self.at, to) {
            // The page with the first keys at or above the end has those below it, too.
            (None, Some(to)) => match pages::page_from(&engine, self.index.key, to)? {
                Some((_, entries)) => Some(entries),
                None => pages::page_below(&engine, self.index.key, &[0xff, 0])?,
            },
            (None, None) => pages::page_below(&engine, self.index.key, &[0xff, 0])?,
            (Some(at), _) => pages::page_below(&engine, self.index.key, at)?,
        };
        let first = found.as_ref().and_then(|entries| entries.first()).map(|first| first.key().to_vec());
        let is_wanted = |entry: &Entry| {
            let key = entry.key();
            *key >= **from
                && to.as_ref().is_none_or(|to| *key < **to)
                && self.at.as_ref().is_none_or(|at| *key < **at)
        };
        let wanted: Vec<Entry> = found.into_iter().flatten().filter(is_wanted).collect();
        let is_left = first.as_ref().is_some_and(|first| *first > *from);
        self.page.extend(wanted);
        self.at = first.filter(|_| is_left);
        if self.at.is_none() {
            self.ranges.pop_front();
        }
        Ok(())
    }

    /// The revisions that entries were made of, `None` where the document was changed or removed since, or has expired; nothing
    /// if several have bodies of more than a page may have.
    pub(crate) fn revisions(
        &self,
        store: &Store,
        entries: &[Entry],
    ) -> Result<Option<Vec<Option<StoredRevision>>>, DatabaseError> {
        store.revisions_at(self.index.key.collection, entries)
    }
}
