//! Blocks under a commit: new records into blocks, small blocks joined, dead records removed.

use std::sync::PoisonError;

use super::super::block::{BlockBuilder, StoredRevision};
use super::super::engine::Writes;
use super::super::ground::damaged;
use super::super::keys::{self, CollectionKey};
use super::super::pieces::{FoundBlock, Moved, find_block, write_pieces};
use super::super::state::{BLOCK_BYTES_TARGET, LiveCount, TAIL_BLOCKS_MAX, TailBlock};
use super::{Pass, Writer};
use crate::database::DatabaseError;

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
            first = first.min(self.store.decode(&found.value)?.first().map_or(u64::MAX, |r| r.sequence));
            joined.extend(self.live(key, &found, pass)?);
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
        block: &FoundBlock,
        pass: &mut Pass,
    ) -> Result<Vec<StoredRevision>, DatabaseError> {
        let mut live = Vec::new();
        for record in self.store.decode(&block.value)? {
            let entry = pass.index.find(&self.store.engine(), key, &record.id)?;
            let is_newest = entry.is_some_and(|e| e.sequence == record.sequence);
            if is_newest && pass.dead.binary_search(&record.sequence).is_err() {
                live.push(record);
            }
        }
        Ok(live)
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
            self.shrink(key, pass, &block, end - at, writes)?;
            at = end;
        }
        Ok(())
    }

    fn shrink(
        &mut self,
        key: CollectionKey,
        pass: &mut Pass,
        block: &FoundBlock,
        lost: usize,
        writes: &mut Writes,
    ) -> Result<(), DatabaseError> {
        let known = self.state.live_counts.get(&(key, block.sequence)).copied();
        if let Some(live_counts) = known.map(|c| LiveCount { live: c.live.saturating_sub(lost), ..c })
            && live_counts.live * 2 > live_counts.records
        {
            pass.live_counts.insert(block.sequence, live_counts);
            return Ok(());
        }
        let live = self.live(key, block, pass)?;
        if known.is_none() {
            let records = self.store.decode(&block.value)?.len();
            if live.len() * 2 > records {
                pass.live_counts.insert(block.sequence, LiveCount { records, live: live.len() });
                return Ok(());
            }
        }
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
            pass.live_counts.insert(sequence, LiveCount { records: live.len(), live: live.len() });
            if let Some(at) = small {
                pass.tail.insert(at, TailBlock { sequence, bytes });
            }
        }
        Ok(())
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
            if builder.len() < BLOCK_BYTES_TARGET && !next_is_large {
                continue;
            }
            let (sequence, bytes, records) = (builder.last_sequence(), builder.len(), builder.count());
            write_pieces(writes, &keys::block(key, sequence), &builder.finish(&mut self.state.codec));
            pass.live_counts.insert(sequence, LiveCount { records, live: records });
            if bytes < BLOCK_BYTES_TARGET / 2 {
                pass.tail.push(TailBlock { sequence, bytes });
            } else {
                // Joining is for neighbours only.
                pass.tail.clear();
            }
        }
    }
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
