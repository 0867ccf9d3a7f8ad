//! Reading: by ID, by sequence, in ID order, the change feed.
//!
//! Readers take no lock of the writer. A record is found in two steps (ID to sequence, sequence to block), and a writer
//! may move it in between; a reader that finds nothing looks again, and at last with the writer held off.

use std::ops::Bound;
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::block::{Codec, Opened, StoredRevision, read_block};
use super::ground::{damaged, damaged_block};
use super::handle::Store;
use super::index::{self, IndexEntry};
use super::indexes::Entry;
use super::keys::CollectionKey;
use super::pieces::{Moved, find_block};
use super::tables::Sources;
use crate::database::DatabaseError;

/// Times a reader looks again without holding off the writer.
const RETRIES_MAX: usize = 8;

/// Bytes of packed bodies that a page of several documents has at most.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// How long it then waits for the writer, and between two tries.
const WRITER_WAIT_MAX: Duration = Duration::from_secs(2);
const WRITER_POLL: Duration = Duration::from_millis(1);

impl Store {
    /// Looks until what is found holds together.
    fn settled<T>(
        &self,
        look: impl Fn() -> Result<Result<T, Moved>, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        for _ in 0..RETRIES_MAX {
            if let Ok(found) = look()? {
                return Ok(found);
            }
        }
        // With the writer held off. It may be this thread's own (a compaction, a backup): then nothing moves anyway.
        let give_up = Instant::now() + WRITER_WAIT_MAX;
        let mut writer = self.writer.try_lock();
        while matches!(writer, Err(TryLockError::WouldBlock)) && Instant::now() < give_up {
            std::thread::sleep(WRITER_POLL);
            writer = self.writer.try_lock();
        }
        look()?.map_err(|Moved| damaged("an index entry leads to no record"))
    }

    /// The newest revision of a document, tombstones included, unless it has expired.
    pub(crate) fn revision(
        &self,
        collection: CollectionKey,
        id: &str,
    ) -> Result<Option<StoredRevision>, DatabaseError> {
        if self.is_due(collection, id)? { Ok(None) } else { self.stored_revision(collection, id) }
    }

    /// The newest revision of a document as it is stored, expired or not.
    pub(super) fn stored_revision(
        &self,
        collection: CollectionKey,
        id: &str,
    ) -> Result<Option<StoredRevision>, DatabaseError> {
        self.settled(|| self.look_up(collection, id))
    }

    /// One attempt of [`Store::revision`].
    fn look_up(
        &self,
        collection: CollectionKey,
        id: &str,
    ) -> Result<Result<Option<StoredRevision>, Moved>, DatabaseError> {
        let Some(entry) = index::find(&self.engine(), collection, id)? else { return Ok(Ok(None)) };
        Ok(self.record(collection, entry.sequence)?.filter(|r| *r.id == *id).map(Some).ok_or(Moved))
    }

    /// The record of a sequence, dead or alive, if its block is where it belongs.
    pub(super) fn record(
        &self,
        collection: CollectionKey,
        sequence: u64,
    ) -> Result<Option<StoredRevision>, DatabaseError> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = cache.find(collection, sequence, &*sources) {
            return Ok(Some(record));
        }
        drop((cache, sources));
        let Ok(Some(found)) = find_block(&self.engine(), collection, sequence)? else { return Ok(None) };
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = Opened::read(&found.value, &mut cache.codec).ok_or_else(damaged_block)?;
        cache.keep(collection, found.sequence, &found.value, &opened);
        let mut records = opened.some(&*sources, &[sequence]).ok_or_else(damaged_block)?;
        Ok(records.pop())
    }

    /// A block to read from.
    pub(super) fn opened<'v>(&self, value: &'v [u8]) -> Result<Opened<'v>, DatabaseError> {
        self.with_sources(|_, codec| Opened::read(value, codec)).ok_or_else(damaged_block)
    }

    /// The records of a block.
    pub(super) fn decode(&self, value: &[u8]) -> Result<Vec<StoredRevision>, DatabaseError> {
        let records = self.with_sources(|sources, codec| read_block(value, sources, codec));
        records.ok_or_else(damaged_block)
    }

    /// Calls with what blocks are written and read by.
    pub(super) fn with_sources<T>(&self, call: impl FnOnce(&Sources, &mut Codec) -> T) -> T {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        call(&sources, &mut cache.codec)
    }

    /// The newest revisions with sequences after `since` up to `until`, in order, at most `limit`.
    pub(crate) fn changes(
        &self,
        collection: CollectionKey,
        since: u64,
        until: u64,
        limit: usize,
    ) -> Result<Vec<StoredRevision>, DatabaseError> {
        self.changes_within(collection, since, until, limit, usize::MAX)
    }

    /// As [`changes`](Self::changes), but no more once bodies of `bytes_max` as they are stored are together: a page of
    /// large documents is short.
    pub(crate) fn changes_within(
        &self,
        collection: CollectionKey,
        since: u64,
        until: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredRevision>, DatabaseError> {
        let is_due = |id: &str| self.is_due(collection, id);
        self.records_within(collection, (since, until), limit, bytes_max, is_due)
    }

    /// As [`changes_within`](Self::changes_within), with what has expired.
    pub(super) fn stored_within(
        &self,
        collection: CollectionKey,
        since: u64,
        until: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredRevision>, DatabaseError> {
        self.records_within(collection, (since, until), limit, bytes_max, |_| Ok(false))
    }

    fn records_within(
        &self,
        collection: CollectionKey,
        (since, until): (u64, u64),
        limit: usize,
        bytes_max: usize,
        is_left_out: impl Fn(&str) -> Result<bool, DatabaseError>,
    ) -> Result<Vec<StoredRevision>, DatabaseError> {
        let (mut found, mut after, mut bytes) = (Vec::new(), since, 0);
        while found.len() < limit && bytes < bytes_max && after < until {
            let block = self.settled(|| find_block(&self.engine(), collection, after + 1))?;
            let Some(block) = block else { break };
            for record in self.decode(&block.value)? {
                let is_full = found.len() >= limit || bytes >= bytes_max;
                if record.sequence <= after || record.sequence > until || is_full {
                    continue;
                }
                if is_left_out(&record.id)? {
                    continue;
                }
                // Asked last: what has expired may have been removed a moment ago, and is not due any more then.
                let entry = index::find(&self.engine(), collection, &record.id)?;
                if entry.is_some_and(|e| e.sequence == record.sequence) {
                    bytes += record.body.len();
                    found.push(record);
                }
            }
            after = block.sequence;
        }
        Ok(found)
    }

    /// IDs from `from` on in order, at least `limit` unless there are fewer, with what the index says of them.
    fn ids(
        &self,
        collection: CollectionKey,
        from: Bound<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, IndexEntry)>, DatabaseError> {
        let mut found = Vec::new();
        let (first, is_wanted): (&str, fn(&str, &str) -> bool) = match from {
            Bound::Included(first) => (first, |id, first| id >= first),
            Bound::Excluded(first) => (first, |id, first| id > first),
            Bound::Unbounded => ("", |_, _| true),
        };
        let mut has_due = self.has_due();
        let mut page = index::page_from(&self.engine(), collection, first)?;
        while let Some((fence, entries)) = page {
            for (id, mut entry) in entries.into_iter().filter(|(id, _)| is_wanted(id, first)) {
                if has_due {
                    let Some(now) = self.undue_entry(collection, &id)? else { continue };
                    entry = now;
                }
                found.push((id, entry));
            }
            if found.len() >= limit {
                break;
            }
            has_due = self.has_due();
            page = index::page_after(&self.engine(), collection, &fence)?;
        }
        Ok(found)
    }

    /// IDs after `after` in order, tombstones included, at least `limit` unless there are fewer.
    pub(crate) fn known_ids(
        &self,
        collection: CollectionKey,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Box<str>>, DatabaseError> {
        Ok(self.ids(collection, Bound::Excluded(after), limit)?.into_iter().map(|(id, _)| id).collect())
    }

    /// Whether there is an ID, tombstones included.
    pub(crate) fn knows(&self, collection: CollectionKey, id: &str) -> Result<bool, DatabaseError> {
        Ok(self.undue_entry(collection, id)?.is_some())
    }

    /// What the index says of an ID whose document has not expired. The index is asked last: what has expired may have been
    /// removed a moment ago, and is not due any more then.
    pub(super) fn undue_entry(
        &self,
        collection: CollectionKey,
        id: &str,
    ) -> Result<Option<IndexEntry>, DatabaseError> {
        if self.is_due(collection, id)? { Ok(None) } else { index::find(&self.engine(), collection, id) }
    }

    /// The newest revisions of the documents from `from` on in ID order, tombstones left out; about `limit` IDs are
    /// looked at. With them the last ID that was, `None` at the end.
    pub(crate) fn page(
        &self,
        collection: CollectionKey,
        from: Bound<&str>,
        limit: usize,
    ) -> Result<(Vec<StoredRevision>, Option<Box<str>>), DatabaseError> {
        let mut ids = self.ids(collection, from, limit)?;
        let mut last = if ids.len() < limit { None } else { ids.last().map(|(id, _)| id.clone()) };
        let mut found = self.records_of(collection, &ids)?;
        while found.is_none() {
            // Those of the second half are for the next page.
            ids.truncate(ids.len() / 2);
            last = ids.last().map(|(id, _)| id.clone());
            found = self.records_of(collection, &ids)?;
        }
        Ok((found.unwrap_or_default(), last))
    }

    /// The newest revisions of documents, tombstones left out; `None` if several have bodies of more than [`PAGE_BYTES_MAX`].
    fn records_of(
        &self,
        collection: CollectionKey,
        ids: &[(Box<str>, IndexEntry)],
    ) -> Result<Option<Vec<StoredRevision>>, DatabaseError> {
        // Each block is inflated once if they are visited in order of sequence.
        let mut order: Vec<usize> = (0..ids.len()).filter(|&i| !ids[i].1.deleted).collect();
        order.sort_unstable_by_key(|&i| ids[i].1.sequence);
        let wanted: Vec<(u64, &str)> = order.iter().map(|&i| (ids[i].1.sequence, &*ids[i].0)).collect();
        let Some(records) = self.records_at(collection, &wanted)? else { return Ok(None) };
        let mut found = Vec::with_capacity(order.len());
        for (index, record) in order.into_iter().zip(records) {
            let record = record.map_or_else(|| self.revision(collection, &ids[index].0), |r| Ok(Some(r)))?;
            found.extend(record.filter(|r| !r.deleted).map(|record| (index, record)));
        }
        found.sort_unstable_by_key(|(index, _)| *index);
        Ok(Some(found.into_iter().map(|(_, record)| record).collect()))
    }

    /// The records of these sequences, which are in order, each if it is this document's; `None` for one that has been moved or
    /// is gone. Nothing if several have bodies of more than [`PAGE_BYTES_MAX`].
    fn records_at(
        &self,
        collection: CollectionKey,
        wanted: &[(u64, &str)],
    ) -> Result<Option<Vec<Option<StoredRevision>>>, DatabaseError> {
        let sequences: Vec<u64> = wanted.iter().map(|(sequence, _)| *sequence).collect();
        let (mut found, mut bytes) = (Vec::with_capacity(wanted.len()), 0);
        while let Some(&first) = sequences.get(found.len()) {
            let block = self.settled(|| find_block(&self.engine(), collection, first))?;
            let end = block.as_ref().map_or(first, |block| block.sequence);
            let of_block = found.len()..sequences.partition_point(|sequence| *sequence <= end);
            let records = block.map_or_else(
                || Ok(Vec::new()),
                |block| {
                    let read = |sources: &Sources, codec: &mut Codec| {
                        Opened::read(&block.value, codec)?.some(sources, &sequences[of_block.clone()])
                    };
                    self.with_sources(read).ok_or_else(damaged_block)
                },
            )?;
            bytes += records.iter().map(|record| record.body.len()).sum::<usize>();
            let mut records = records.into_iter().peekable();
            for (sequence, id) in &wanted[of_block] {
                let record = records.next_if(|record| record.sequence == *sequence);
                found.push(record.filter(|record| *record.id == **id));
            }
            if bytes > PAGE_BYTES_MAX && wanted.len() > 1 {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// The revisions of which entries of an index were made; `None` where the document was changed or removed since, or has
    /// expired. Nothing if several have bodies of more than [`PAGE_BYTES_MAX`].
    pub(super) fn revisions_at(
        &self,
        collection: CollectionKey,
        entries: &[Entry],
    ) -> Result<Option<Vec<Option<StoredRevision>>>, DatabaseError> {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_unstable_by_key(|&at| entries[at].sequence);
        let wanted: Vec<(u64, &str)> =
            order.iter().map(|&at| (entries[at].sequence, entries[at].id())).collect();
        let Some(records) = self.records_at(collection, &wanted)? else { return Ok(None) };
        let mut found: Vec<Option<StoredRevision>> = Vec::new();
        found.resize_with(entries.len(), || None);
        for (at, record) in order.into_iter().zip(records) {
            found[at] = record;
        }
        let has_due = self.has_due();
        for (entry, revision) in entries.iter().zip(&mut found) {
            if revision.is_none() {
                let newest = index::find(&self.engine(), collection, entry.id())?;
                if newest.is_some_and(|newest| newest.sequence == entry.sequence) {
                    return Err(damaged("an index entry leads to no record"));
                }
            } else if has_due && self.is_due(collection, entry.id())? {
                *revision = None;
            }
        }
        Ok(Some(found))
    }
}
