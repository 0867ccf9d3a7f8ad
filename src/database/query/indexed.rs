//! The documents that an index leads to, read ahead in the order of its entries.

use std::collections::VecDeque;

use super::access::{Access, Order};
use super::bookmark::Position;
use crate::database::DatabaseError;
use crate::database::store::{CollectionKey, Cursor, Entry, Store, StoredRevision};
use crate::database::value::encoding_len;

/// Entries whose documents are read together at first, and at most: a block is read once for all of them.
const AHEAD_FIRST: usize = 64;
const AHEAD_MAX: usize = 4_096;

/// Bytes that entries may take while their IDs are sorted.
const IDS_BYTES_MAX: usize = 16 << 20;

/// Where a document stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Behind those before it, and before those that come.
    Alone,
    /// Behind those before it.
    Begins,
    /// Together with the one before it.
    GoesOn,
}

pub(super) struct Indexed {
    cursor: Cursor,
    order: Order,
    /// Entries that are read, and not yet their documents.
    entries: VecDeque<Entry>,
    documents: VecDeque<(StoredRevision, Mark)>,
    /// The values that the run has together.
    run: Option<Box<[u8]>>,
    /// A run has begun, of which no document was found yet.
    begins: bool,
    ahead: usize,
    /// Its IDs are gathered and sorted.
    is_gathered: bool,
}

/// There are too many IDs to sort.
pub(super) struct TooMany;

impl Indexed {
    /// `limit`: the rows that are wanted, at most.
    pub(super) fn new(access: Access, limit: u64) -> Indexed {
        let ahead = if access.order == Order::AsRead {
            usize::try_from(limit).unwrap_or(AHEAD_FIRST).clamp(1, AHEAD_FIRST)
        } else {
            AHEAD_MAX
        };
        Indexed {
            cursor: Cursor::new(access.index, access.ranges, access.is_backwards),
            order: access.order,
            entries: VecDeque::new(),
            documents: VecDeque::new(),
            run: None,
            begins: true,
            ahead,
            is_gathered: false,
        }
    }

    /// Gathers the entries and sorts them by their IDs, those behind a position.
    pub(super) fn gather_ids(
        &mut self,
        store: &Store,
        position: Option<&Position>,
    ) -> Result<Result<(), TooMany>, DatabaseError> {
        if self.order != Order::Ids || std::mem::replace(&mut self.is_gathered, true) {
            return Ok(Ok(()));
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = self.cursor.next(store)? {
            if position.is_some_and(|position| entry.id() <= position.id.as_str()) {
                continue;
            }
            bytes += entry.bytes();
            if bytes > IDS_BYTES_MAX {
                return Ok(Err(TooMany));
            }
            found.push(entry);
        }
        // One that was changed meanwhile may be there twice.
        found.sort_unstable_by(|a, b| a.id().cmp(b.id()).then(b.sequence.cmp(&a.sequence)));
        found.dedup_by(|a, b| a.id() == b.id());
        self.entries = found.into();
        Ok(Ok(()))
    }

    /// The next document. It need not be one that is wanted.
    pub(super) fn next(
        &mut self,
        store: &Store,
        key: CollectionKey,
    ) -> Result<Option<(StoredRevision, Mark)>, DatabaseError> {
        while self.documents.is_empty() {
            store.collection(key)?;
            while self.entries.len() < self.ahead && !self.is_gathered {
                let Some(entry) = self.cursor.next(store)? else { break };
                self.entries.push_back(entry);
            }
            if self.entries.is_empty() {
                return Ok(None);
            }
            self.read(store, key)?;
        }
        Ok(self.documents.pop_front())
    }

    /// Reads the documents of the next entries.
    fn read(&mut self, store: &Store, key: CollectionKey) -> Result<(), DatabaseError> {
        let mut len = self.entries.len().min(self.ahead);
        let entries = self.entries.make_contiguous();
        let found = loop {
            match self.cursor.revisions(store, &entries[..len])? {
                Some(found) => break found,
                None => len /= 2,
            }
        };
        self.ahead = (self.ahead * 2).min(AHEAD_MAX);
        for (revision, entry) in found.into_iter().zip(self.entries.drain(..len).collect::<Vec<_>>()) {
            let is_alone = self.begin(&entry);
            let revision = match revision {
                // Its place does not depend on what it has.
                None if self.order == Order::Ids => store.revision(key, entry.id())?,
                revision => revision,
            };
            let Some(revision) = revision.filter(|revision| !revision.deleted) else { continue };
            let begins = std::mem::take(&mut self.begins);
            let mark = match (is_alone, begins) {
                (true, _) => Mark::Alone,
                (false, true) => Mark::Begins,
                (false, false) => Mark::GoesOn,
            };
            self.documents.push_back((revision, mark));
        }
        Ok(())
    }

    /// Notes whether a run begins with an entry; whether that is one of its own.
    fn begin(&mut self, entry: &Entry) -> bool {
        let values = entry.values();
        let together = match self.order {
            Order::Ids | Order::Nothing => return false,
            Order::AsRead if !entry.is_cut() => {
                (self.run, self.begins) = (None, true);
                return true;
            }
            Order::AsRead => values,
            Order::Runs(paths) => {
                let len = (0..paths).try_fold(0, |at, _| Some(at + encoding_len(&values[at..])?));
                &values[..len.unwrap_or(values.len())]
            }
        };
        if self.run.as_deref() != Some(together) {
            (self.run, self.begins) = (Some(together.into()), true);
        }
        false
    }
}
