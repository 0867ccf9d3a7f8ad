//! Reading the local change feed for a peer: where it stands, where it ends, what is left out.

#![deny(clippy::disallowed_methods)]

use std::collections::HashSet;

use bytes::Bytes;

use super::config::{FilterInput, ReplicationFilter};
use super::context::SessionContext;
use super::messages::unsendable;
use super::sequences::SequenceSet;
use crate::blip::ErrorReply;
use crate::replica::store::{Change, CollectionId, ReplicaStore, ReplicaStoreError};

/// Most rows one call looks at, so that a call stays short when few of them pass.
const SCANNED_MAX: usize = 2_000;

/// Bytes of bodies after which one call reads no further page.
const BODY_BYTES_READ: usize = 256 << 10;

/// Ranges of sequences that came from the peer itself; beyond that the oldest are forgotten and sent back once.
const SKIP_RANGES_MAX: usize = 4_096;

/// Bytes of a list's entry beside the ID and the versions: numbers, brackets, quotes.
const ENTRY_OVERHEAD: usize = 64;

/// Longest text of a version, with what parts it from the next.
const VERSION_TEXT_MAX: usize = 41;

/// A place in the change feed of one collection, with what is read from there on and what is left out.
pub(super) struct Feed {
    pub id: CollectionId,
    /// Full name, for the filter.
    pub name: String,
    /// All changes up to here have been read.
    pub cursor: u64,
    /// Where a one-shot feed ends; `None` for one that goes on.
    pub target: Option<u64>,
    /// Only these documents.
    pub ids: Option<HashSet<String>>,
    /// Only what it passes.
    pub filter: Option<ReplicationFilter>,
    /// No tombstones.
    pub active_only: bool,
    /// Sequences that the peer has.
    skip: SequenceSet,
    /// Sequences that the peer pushed in earlier runs.
    pub left_out: SequenceSet,
}

/// What one read gave.
pub(super) struct Rows {
    /// Where the feed stood before.
    pub from: u64,
    /// Where it stands now.
    pub through: u64,
    /// What passes, in order.
    pub changes: Vec<Change>,
    /// What would pass and cannot be sent to anybody, with the reason.
    pub unsendable: Vec<(Change, ErrorReply)>,
}

impl Feed {
    pub fn new(id: CollectionId, name: &str, cursor: u64, target: Option<u64>) -> Feed {
        Feed {
            id,
            name: name.to_owned(),
            cursor,
            target,
            ids: None,
            filter: None,
            active_only: false,
            skip: SequenceSet::new(),
            left_out: SequenceSet::new(),
        }
    }

    /// Notes that the peer has this sequence.
    pub fn skip(&mut self, sequence: u64) {
        if sequence > self.cursor {
            self.skip.insert(sequence);
            self.skip.keep_newest(SKIP_RANGES_MAX);
        }
    }

    /// Notes sequences that the peer has from an earlier run.
    pub fn skip_all(&mut self, sequences: &SequenceSet) {
        sequences.ranges().for_each(|range| self.skip.insert_range(range));
        self.skip.keep_newest(SKIP_RANGES_MAX);
    }

    /// The last sequence to read now, given the newest one that may be read.
    fn end(&self, ceiling: u64) -> u64 {
        self.target.map_or(ceiling, |target| target.min(ceiling))
    }

    /// Sequences up to the last that may be read now.
    pub fn unread(&self, ceiling: u64) -> u64 {
        self.end(ceiling).saturating_sub(self.cursor)
    }

    /// Whether there is nothing to read now.
    pub fn is_exhausted(&self, ceiling: u64) -> bool {
        self.cursor >= self.end(ceiling)
    }

    /// Whether a one-shot feed has reached its end.
    pub fn is_complete(&self) -> bool {
        self.target.is_some_and(|target| self.cursor >= target)
    }

    /// Reads on, until `limit` changes pass or much was looked at or nothing is left, with bodies also until they are many
    /// bytes. Bodies above `body_size_max` bytes cannot be sent.
    pub fn read(
        &mut self,
        store: &dyn ReplicaStore,
        ceiling: u64,
        limit: usize,
        bodies: bool,
        body_size_max: usize,
    ) -> Result<Rows, ReplicaStoreError> {
        let end = self.end(ceiling);
        let mut rows =
            Rows { from: self.cursor, through: self.cursor, changes: Vec::new(), unsendable: Vec::new() };
        let (mut scanned, mut bytes) = (0, 0);
        while rows.changes.len() < limit
            && self.cursor < end
            && scanned < SCANNED_MAX
            && bytes < BODY_BYTES_READ
        {
            if let Some(range) = self.left_out.range_of(self.cursor + 1) {
                self.cursor = end.min(*range.end());
                continue;
            }
            let wanted = limit - rows.changes.len();
            let changes = store.changes(self.id, self.cursor, wanted, bodies || self.filter.is_some())?;
            let exhausted = changes.is_empty();
            scanned += changes.len();
            for mut change in changes {
                if change.sequence > end {
                    self.cursor = end;
                    break;
                }
                self.cursor = self.cursor.max(change.sequence);
                if !self.passes(&change) {
                    continue;
                }
                match unsendable(&change, body_size_max) {
                    None => {
                        change.body = change.body.filter(|_| bodies);
                        bytes += change.body.as_ref().map_or(0, Bytes::len);
                        rows.changes.push(change);
                    }
                    Some(error) => rows.unsendable.push((Change { body: None, ..change }, error)),
                }
            }
            if exhausted {
                self.cursor = end;
            }
        }
        rows.through = self.cursor;
        Ok(rows)
    }

    /// Reads on for a list, whose bytes are limited, unless its first entry alone has more.
    pub fn read_list(
        &mut self,
        store: &dyn ReplicaStore,
        ceiling: u64,
        limit: usize,
        context: &SessionContext,
    ) -> Result<Rows, ReplicaStoreError> {
        let mut rows = self.read(store, ceiling, limit, false, context.body_size_max)?;
        let mut size = 0;
        let mut fits = |change: &Change| {
            size += entry_size(change);
            size <= context.limits.list_bytes
        };
        let count = rows.changes.iter().take_while(|change| fits(change)).count().max(1);
        if count < rows.changes.len() {
            rows.changes.truncate(count);
            let through = rows.changes.last().map_or(rows.through, |change| change.sequence);
            rows.unsendable.retain(|(change, _)| change.sequence <= through);
            rows.through = through;
            self.unread_after(through);
        }
        Ok(rows)
    }

    /// Steps back: only what is up to `sequence` counts as read.
    pub fn unread_after(&mut self, sequence: u64) {
        self.cursor = self.cursor.min(sequence);
    }

    fn passes(&self, change: &Change) -> bool {
        let empty = Bytes::new();
        let is_left_out = self.skip.contains(change.sequence)
            || self.left_out.contains(change.sequence)
            || self.active_only && change.deleted;
        !is_left_out
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&change.id))
            && self.filter.as_ref().is_none_or(|filter| {
                let body = change.body.as_ref().unwrap_or(&empty);
                filter(&FilterInput { collection: &self.name, id: &change.id, deleted: change.deleted, body })
            })
    }
}

/// Roughly the bytes of an entry in a list: its revision may be named by the whole vector.
fn entry_size(change: &Change) -> usize {
    let is_short = change.vector.merged.len() + change.vector.history.len() < 16;
    let versions = if is_short { VERSION_TEXT_MAX } else { change.vector.list_text(None).len() };
    ENTRY_OVERHEAD + change.id.len() + versions + VERSION_TEXT_MAX
}
