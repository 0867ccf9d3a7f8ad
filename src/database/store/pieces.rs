//! Values that are stored in pieces, the blocks among them; and the blocks that were read last.

use std::collections::VecDeque;
use std::sync::Arc;

use super::block::{Codec, StoredRevision};
use super::engine::{Engine, Writes};
use super::ground::{VALUE_BYTES_MAX, damaged};
use super::keys::{self, CollectionKey};
use crate::database::DatabaseError;
use crate::database::packed::{Reader, put_varint};

/// Decoded blocks kept; a block is some 4 KiB of records, so this is some 100 KiB.
const CACHED_BLOCKS_MAX: usize = 16;

/// Blocks with more bytes of bodies than this are not kept: a large document must not stay in memory.
const CACHED_BLOCK_BYTES_MAX: usize = 64 * 1024;

/// The newest blocks that were read, and the inflate state.
#[derive(Default)]
pub(super) struct BlockCache {
    blocks: VecDeque<(CollectionKey, Arc<Vec<StoredRevision>>)>,
    pub(super) codec: Codec,
}

impl BlockCache {
    /// A cached block that has the sequence. A block may be outdated as a whole, but what it has of a sequence is
    /// right: records do not change.
    pub(super) fn find(&mut self, collection: CollectionKey, sequence: u64) -> Option<StoredRevision> {
        self.blocks.iter().find_map(|(key, records)| {
            let at = records.binary_search_by_key(&sequence, |r| r.sequence).ok()?;
            (*key == collection).then(|| records[at].clone())
        })
    }

    pub(super) fn keep(&mut self, collection: CollectionKey, records: &Arc<Vec<StoredRevision>>) {
        if records.iter().map(|r| r.body.len()).sum::<usize>() > CACHED_BLOCK_BYTES_MAX {
            return;
        }
        if self.blocks.len() >= CACHED_BLOCKS_MAX {
            self.blocks.pop_back();
        }
        self.blocks.push_front((collection, Arc::clone(records)));
    }

    /// Forgets everything of a collection (its sequences may start again).
    pub(super) fn forget(&mut self, collection: CollectionKey) {
        self.blocks.retain(|(key, _)| *key != collection);
    }
}

/// A block as found: its last sequence, its first key, its value.
pub(super) struct FoundBlock {
    pub(super) sequence: u64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// Values that it is stored in.
    pub(super) pieces: u16,
}

/// The first block that ends at or after `sequence`. `Ok(Err(Moved))` if it was taken away while it was read.
pub(super) fn find_block(
    engine: &Engine,
    collection: CollectionKey,
    sequence: u64,
) -> Result<Result<Option<FoundBlock>, Moved>, DatabaseError> {
    let (from, to) = (keys::block(collection, sequence), keys::block_end(collection));
    let Some((key, value)) = engine.first(&from, &to)? else { return Ok(Ok(None)) };
    let Some(last) = keys::block_sequence(&key) else { return Ok(Err(Moved)) };
    let Some((value, pieces)) = read_pieces(engine, &key, &value)? else { return Ok(Err(Moved)) };
    Ok(Ok(Some(FoundBlock { sequence: last, key: key.to_vec(), value, pieces })))
}

/// A reader met a writer: look again.
pub(super) struct Moved;

/// Joins a value that may be stored in pieces; `None` if a piece is missing.
pub(super) fn read_pieces(
    engine: &Engine,
    key: &[u8],
    first: &[u8],
) -> Result<Option<(Vec<u8>, u16)>, DatabaseError> {
    let Some((start, total)) = join_pieces(first) else { return Err(damaged("the length of a block")) };
    let mut value = start.to_vec();
    let mut pieces = 1;
    while value.len() < total {
        let Some(piece) = engine.get(&keys::piece(key, pieces))? else { return Ok(None) };
        value.extend_from_slice(&piece);
        pieces += 1;
    }
    Ok((value.len() == total).then_some((value, pieces)))
}

/// The first piece of a value, and the length of the whole.
pub(super) fn join_pieces(first: &[u8]) -> Option<(&[u8], usize)> {
    let mut reader = Reader::new(first);
    let total = reader.length()?;
    Some((reader.take(reader.remaining())?, total))
}

/// Adds a value to a commit, in pieces that sled keeps within its log; returns how many.
pub(super) fn write_pieces(writes: &mut Writes, key: &[u8], value: &[u8]) -> u16 {
    let mut head = Vec::with_capacity(value.len().min(VALUE_BYTES_MAX) + 5);
    put_varint(&mut head, value.len() as u64);
    let (first, rest) = value.split_at(value.len().min(VALUE_BYTES_MAX - head.len()));
    head.extend_from_slice(first);
    writes.insert(key, head);
    let mut pieces = 1;
    for chunk in rest.chunks(VALUE_BYTES_MAX) {
        writes.insert(keys::piece(key, pieces), chunk);
        pieces += 1;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::revision::{SourceId, Version, VersionVector};

    const ONE: CollectionKey = CollectionKey(1);

    fn block(sequences: std::ops::Range<u64>, body_bytes: usize) -> Arc<Vec<StoredRevision>> {
        let record = |sequence| StoredRevision {
            sequence,
            id: format!("d{sequence}").into(),
            vector: VersionVector::new(Version { time: sequence, source: SourceId([1; 16]) }),
            deleted: false,
            remote_ancestor: None,
            body: vec![7; body_bytes],
        };
        Arc::new(sequences.map(record).collect())
    }

    #[test]
    fn the_newest_blocks_are_kept_and_large_ones_are_not() {
        let mut cache = BlockCache::default();
        let last = CACHED_BLOCKS_MAX as u64 + 3;
        for n in 0..=last {
            cache.keep(ONE, &block(10 * n..10 * n + 5, 10));
        }
        for n in 0..=last {
            let found =
                [10 * n, 10 * n + 4].map(|sequence| cache.find(ONE, sequence).map(|record| record.sequence));
            let is_kept = n + CACHED_BLOCKS_MAX as u64 > last;
            assert_eq!(
                found,
                [10 * n, 10 * n + 4].map(|sequence| is_kept.then_some(sequence)),
                "{n} of {last}"
            );
        }
        assert_eq!((cache.find(ONE, 10 * last + 5), cache.find(CollectionKey(2), 10 * last)), (None, None));
        cache.keep(ONE, &block(1000..1002, CACHED_BLOCK_BYTES_MAX / 2));
        cache.keep(ONE, &block(2000..2002, CACHED_BLOCK_BYTES_MAX / 2 + 1));
        assert_eq!([1000, 2000].map(|sequence| cache.find(ONE, sequence).is_some()), [true, false]);
        cache.keep(CollectionKey(2), &block(1..2, 1));
        cache.forget(ONE);
        assert!(cache.find(ONE, 1000).is_none() && cache.find(CollectionKey(2), 1).is_some());
    }
}
