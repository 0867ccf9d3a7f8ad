//! Blocks under a commit: new records into blocks, small blocks joined, dead records removed.

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::block::{BlockBuilder, Opened, StoredRevision};
use super::super::engine::Writes;
use super::super::ground::{damaged, damaged_block};
use super::super::handle::Store;
use super::super::index;
use super::super::keys::{self, CollectionKey};
use super::super::meta::{FORMAT, Meta};
use super::super::pieces::{FoundBlock, Moved, find_block, write_pieces};
use super::super::state::{BLOCK_BYTES_TARGET, LiveCount, TAIL_BLOCKS_MAX, TailBlock};
use super::{Pass, Writer};
use crate::database::DatabaseError;

impl Store {
    /// Version of the stored format.
    pub(crate) fn format(&self) -> u32 {
        self.format.load(Ordering::Relaxed)
    }
}

impl Writer<'_> {
    /// If too many small blocks have gathered, takes their living records in front of the new ones.
    pub(super) fn join_tail(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        revisions: &mut Vec<StoredRevision>,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let tail_bytes: usize = pass.tail.iter().map(|block| block.bytes).sum();
        let new_bytes: usize = revisions.iter().map(|r| r.body.len() + r.id.len()).sum();
        let is_long = pass.tail.len() >= TAIL_BLOCKS_MAX || tail_bytes >= 2 * BLOCK_BYTES_TARGET;
        // What only removes takes no room for others: it may be all that there is room for.
        if revisions.is_empty() || !(is_long || new_bytes >= BLOCK_BYTES_TARGET / 2) {
            return Ok(());
        }
        let (mut joined, mut first) = (Vec::new(), u64::MAX);
        for block in std::mem::take(&mut pass.tail) {
            let Some(found) = self.block_at(key, block.sequence)? else { continue };
            let records = self.store.opened(&found.value)?;
            first = first.min(records.first_sequence().unwrap_or(u64::MAX));
            joined.extend(self.live(key, &records, pass)?);
            pass.remove(&found, writes);
        }
        // The tail is the end of the feed: what died at or after its first record died in it.
        pass.dead.retain(|&sequence| sequence < first);
        joined.append(revisions);
        *revisions = joined;
        Ok(())
    }

    /// The block that ends exactly at `sequence`.
    fn block_at(&self, key: CollectionKey, sequence: u64) -> Result<Option<FoundBlock>, DatabaseError> {
        let found = find_block(&self.store.engine(), key, sequence)?;
        let found = found.map_err(|Moved| damaged("a piece of a block is missing"))?;
        Ok(found.filter(|block| block.sequence == sequence))
    }

    /// The records of a block that are alive and will be after this commit.
    fn live(
        &self,
        key: CollectionKey,
        records: &Opened<'_>,
        pass: &Pass,
    ) -> Result<Vec<StoredRevision>, DatabaseError> {
        let records = self.store.with_sources(|sources, _| records.all(sources));
        let mut live = Vec::new();
        for record in records.ok_or_else(damaged_block)? {
            if self.is_alive(key, record.sequence, &record.id, pass)? {
                live.push(record);
            }
        }
        Ok(live)
    }

    /// How many records a block has, and how many of them will be alive after this commit.
    fn count_live(
        &self,
        key: CollectionKey,
        records: &Opened<'_>,
        pass: &Pass,
    ) -> Result<LiveCount, DatabaseError> {
        let mut found = Vec::new();
        let mut note = |sequence, id: &str| found.push((sequence, Box::<str>::from(id)));
        let visited = self.store.with_sources(|sources, _| records.visit(sources, &mut note));
        visited.ok_or_else(damaged_block)?;
        let mut live = 0;
        for (sequence, id) in &found {
            live += usize::from(self.is_alive(key, *sequence, id, pass)?);
        }
        Ok(LiveCount::counted(found.len(), live))
    }

    fn count_records(&self, records: &Opened<'_>) -> Result<usize, DatabaseError> {
        self.store.with_sources(|sources, _| records.count(sources)).ok_or_else(damaged_block)
    }

    /// Whether a record will be the newest of its document after this commit. What the commit says of documents is not yet in
    /// the index, so their former records are known by [`Pass::dead`].
    fn is_alive(
        &self,
        key: CollectionKey,
        sequence: u64,
        id: &str,
        pass: &Pass,
    ) -> Result<bool, DatabaseError> {
        if pass.dead.binary_search(&sequence).is_ok() {
            return Ok(false);
        }
        let entry = index::find(&self.store.engine(), key, id)?;
        Ok(entry.is_some_and(|e| e.sequence == sequence))
    }

    /// Removes or rewrites the blocks that lost records to this commit.
    pub(super) fn collect_garbage(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let mut at = 0;
        while let Some(&first) = pass.dead.get(at) {
            let found = find_block(&self.store.engine(), key, first)?;
            let found = found.map_err(|Moved| damaged("a piece of a block is missing"))?;
            let Some(block) = found else { return Err(damaged("a record is missing")) };
            let end = pass.dead.partition_point(|&sequence| sequence <= block.sequence);
            self.shrink(key, pass, &block, at..end, writes)?;
            at = end;
        }
        Ok(())
    }

    fn shrink(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        block: &FoundBlock,
        lost: Range<usize>,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let lost = &pass.dead[lost];
        let has_drawn = |records: u32| lost.iter().any(|&sequence| is_drawn(sequence, records));
        let is_wanted =
            |count: &LiveCount| count.is_to_be_counted() || (!count.is_counted && has_drawn(count.records));
        let known = self.state.live_counts.get(&(key, block.sequence));
        let known = known.map(|known| known.without(lost.len()));
        if let Some(count) = known.filter(|count| !count.is_garbage() && !is_wanted(count)) {
            pass.live_counts.insert(block.sequence, count);
            return Ok(());
        }
        let records = self.store.opened(&block.value)?;
        let mut count = match known {
            Some(count) => count,
            None => LiveCount::met(self.count_records(&records)?).without(lost.len()),
        };
        if is_wanted(&count) {
            count = self.count_live(key, &records, pass)?;
        }
        if !count.is_garbage() {
            pass.live_counts.insert(block.sequence, count);
            return Ok(());
        }
        let live = self.live(key, &records, pass)?;
        let small = pass.tail.iter().position(|b| b.sequence == block.sequence);
        if let Some(at) = small {
            pass.tail.remove(at);
        }
        pass.remove(block, writes);
        let mut builder = BlockBuilder::default();
        let sources = self.store.sources.read().unwrap_or_else(PoisonError::into_inner);
        live.iter().for_each(|record| builder.push(record, &*sources));
        if builder.count() > 0 {
            let (sequence, bytes) = (builder.last_sequence(), builder.len());
            write_pieces(writes, &keys::block(key, sequence), &builder.finish(&mut self.state.codec));
            pass.live_counts.insert(sequence, LiveCount::counted(live.len(), live.len()));
            if let Some(at) = small {
                pass.tail.insert(at, TailBlock { sequence, bytes });
            }
        }
        Ok(())
    }

    /// Lets the database say with a commit that it has blocks in columns, if it has not said so before. If the commit fails, nothing more is
    /// written.
    pub(super) fn raise_format(&self, writes: &mut Writes) {
        if self.state.codec.has_written_columns && self.store.format() < FORMAT {
            Meta::newest(self.store.source, self.store.versioning).write(writes);
            self.store.format.store(FORMAT, Ordering::Relaxed);
        }
    }

    /// Writes records as blocks; a small last one joins the tail.
    pub(super) fn write_blocks(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        revisions: &[StoredRevision],
        writes: &mut Writes,
    ) {
        let sources = self.store.sources.read().unwrap_or_else(PoisonError::into_inner);
        let mut builder = BlockBuilder::default();
        for (at, revision) in revisions.iter().enumerate() {
            builder.push(revision, &*sources);
            // A large document gets a block of its own, so that its neighbours stay cheap to read.
            let next_is_large = revisions.get(at + 1).is_none_or(|next| next.body.len() > BLOCK_BYTES_TARGET);
            if !builder.is_full(&self.state.codec) && !next_is_large {
                continue;
            }
            let (sequence, bytes, records) = (builder.last_sequence(), builder.len(), builder.count());
            write_pieces(writes, &keys::block(key, sequence), &builder.finish(&mut self.state.codec));
            pass.live_counts.insert(sequence, LiveCount::counted(records, records));
            if bytes < BLOCK_BYTES_TARGET / 2 {
                pass.tail.push(TailBlock { sequence, bytes });
            } else {
                // Joining is for neighbours only.
                pass.tail.clear();
            }
        }
    }
}

/// Whether the loss of this record is a reason to count its block: of one in sixteen, of a large block one in a quarter of its records, so that
/// what is lost by and by in many short runs of the program is noticed too. By its sequence, so that a run can be repeated.
fn is_drawn(sequence: u64, records: u32) -> bool {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let one_in = u64::from(records / 4).max(16);
    ((sequence.wrapping_mul(MIX) >> 32) * one_in) >> 32 == 0
}

impl Pass {
    /// Removes all pieces of a block.
    fn remove(&mut self, block: &FoundBlock, writes: &mut Writes) {
        writes.remove(block.key.as_slice());
        for piece in 1..block.pieces {
            writes.remove(keys::piece(&block.key, piece));
        }
        self.gone.push(block.sequence);
    }
}
