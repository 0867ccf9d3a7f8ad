//! Values that are stored in pieces, the blocks among them; and the blocks that were read last.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::block::{Codec, Opened, SourceNumbers, StoredRevision};
use super::engine::{Engine, Writes};
use super::ground::{VALUE_BYTES_MAX, damaged};
use super::keys::{self, CollectionKey};
use crate::database::DatabaseError;
use crate::database::packed::{Reader, put_varint};

/// Bytes of the records of blocks that are kept, as they are before they are deflated: those of some 64 blocks.
const CACHED_BYTES_MAX: usize = 256 * 1024;

/// Blocks with more bytes of records than this are not kept: a large document must not stay in memory.
const CACHED_BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Blocks of which all records are kept as they are used: those that were asked for more than one. They take some 200 KiB.
const DECODED_BLOCKS_MAX: usize = 16;

/// The newest blocks that were read, and the inflate state.
#[derive(Default)]
pub(super) struct BlockCache {
    blocks: VecDeque<CachedBlock>,
    bytes: usize,
    decoded: usize,
    pub(super) codec: Codec,
}

struct CachedBlock {
    collection: CollectionKey,
    /// Sequences that it has records of, dead or alive.
    sequences: RangeInclusive<u64>,
    bytes: usize,
    records: Kept,
}

/// The records of a block.
enum Kept {
    /// As bytes, not deflated, which have to be read from the first on. Most blocks are asked for one document alone.
    Packed(Box<[u8]>),
    /// The value of a block in columns, of which each record is read alone.
    Columns(Box<[u8]>),
    Decoded(Vec<StoredRevision>),
}

impl BlockCache {
    /// The record of a sequence, if a cached block has it. A block may be outdated as a whole, but what it has of a sequence is
    /// right: records do not change.
    pub(super) fn find(
        &mut self,
        collection: CollectionKey,
        sequence: u64,
        sources: &impl SourceNumbers,
    ) -> Option<StoredRevision> {
        let of_it =
            |block: &CachedBlock| block.collection == collection && block.sequences.contains(&sequence);
        let mut found = None;
        for block in self.blocks.iter_mut().filter(|block| of_it(block)) {
            match &block.records {
                Kept::Packed(records) => {
                    block.records = Kept::Decoded(Opened::Rows(Cow::Borrowed(records)).all(sources)?);
                    self.decoded += 1;
                }
                Kept::Columns(value) => {
                    let mut records = Opened::read(value, &mut self.codec)?.some(sources, &[sequence])?;
                    if let Some(record) = records.pop() {
                        found = Some(record);
                        break;
                    }
                }
                Kept::Decoded(_) => {}
            }
            if let Kept::Decoded(records) = &block.records
                && let Ok(at) = records.binary_search_by_key(&sequence, |record| record.sequence)
            {
                found = Some(records[at].clone());
                break;
            }
        }
        while self.decoded > DECODED_BLOCKS_MAX {
            let oldest = self.blocks.iter().rposition(|block| matches!(block.records, Kept::Decoded(_)));
            let Some(block) = oldest.and_then(|at| self.blocks.remove(at)) else { break };
            self.took_out(&block);
        }
        found
    }

    /// Keeps the records of the block that ends with `last`.
    pub(super) fn keep(&mut self, collection: CollectionKey, last: u64, value: &[u8], opened: &Opened<'_>) {
        let Some(first) = opened.first_sequence() else { return };
        let (bytes, records): (_, fn(_) -> _) = match opened {
            Opened::Rows(records) => (&**records, Kept::Packed),
            Opened::Columns(_) => (value, Kept::Columns),
        };
        if bytes.len() > CACHED_BLOCK_BYTES_MAX {
            return;
        }
        let (sequences, bytes, records) = (first..=last, bytes.len(), records(bytes.into()));
        self.bytes += bytes;
        self.blocks.push_front(CachedBlock { collection, sequences, bytes, records });
        while self.bytes > CACHED_BYTES_MAX {
            let Some(block) = self.blocks.pop_back() else { break };
            self.took_out(&block);
        }
    }

    fn took_out(&mut self, block: &CachedBlock) {
        self.bytes -= block.bytes;
        self.decoded -= usize::from(matches!(block.records, Kept::Decoded(_)));
    }

    /// Forgets everything of a collection (its sequences may start again).
    pub(super) fn forget(&mut self, collection: CollectionKey) {
        let (gone, kept) =
            std::mem::take(&mut self.blocks).into_iter().partition(|b| b.collection == collection);
        self.blocks = kept;
        let gone: VecDeque<CachedBlock> = gone;
        gone.iter().for_each(|block| self.took_out(block));
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
    use super::super::block::{BlockBuilder, records_len};
    use super::super::tables::Sources;
    use super::*;
    use crate::replica::revision::{SourceId, Version, VersionVector};

    const ONE: CollectionKey = CollectionKey(1);

    /// A block of records.
    fn block(sequences: std::ops::Range<u64>, body_bytes: usize) -> Vec<u8> {
        let (sources, mut builder) = (Sources::default(), BlockBuilder::default());
        for sequence in sequences {
            let revision = StoredRevision {
                sequence,
                id: format!("d{sequence}").into(),
                vector: VersionVector::new(Version { time: sequence, source: SourceId([1; 16]) }),
                deleted: false,
                remote_ancestor: None,
                body: vec![7; body_bytes],
            };
            builder.push(&revision, &sources);
        }
        builder.finish(&mut Codec::default())
    }

    fn keep(cache: &mut BlockCache, collection: CollectionKey, last: u64, value: &[u8]) {
        let opened = Opened::read(value, &mut Codec::default()).expect("records");
        cache.keep(collection, last, value, &opened);
    }

    /// Of a block in columns these are kept, and each of its records is found in them; another sequence is not.
    #[test]
    fn columns_are_kept_as_they_are() {
        let (mut sources, mut builder) = (Sources::default(), BlockBuilder::default());
        sources.intern(SourceId([1; 16]));
        let record = |sequence: u64| StoredRevision {
            sequence,
            id: format!("d{sequence}").into(),
            vector: VersionVector::new(Version { time: sequence, source: SourceId([1; 16]) }),
            deleted: false,
            remote_ancestor: None,
            body: vec![14, 1, 1, 3, (sequence % 100) as u8],
        };
        (100..200).for_each(|at| builder.push(&record(2 * at), &sources));
        let value = builder.finish(&mut Codec::default());
        let mut cache = BlockCache::default();
        keep(&mut cache, ONE, 398, &value);
        assert!(cache.bytes == value.len() && value.len() < 200, "{} of {} bytes", cache.bytes, value.len());
        for at in 100..200 {
            assert_eq!(cache.find(ONE, 2 * at, &sources), Some(record(2 * at)));
            assert_eq!(cache.find(ONE, 2 * at + 1, &sources), None);
        }
        assert_eq!(cache.decoded, 0);
    }

    #[test]
    fn the_newest_blocks_are_kept_and_large_ones_are_not() {
        let (mut cache, sources) = (BlockCache::default(), Sources::default());
        let kept = |cache: &mut BlockCache, collection, sequence| {
            cache.find(collection, sequence, &sources).map(|record| record.sequence)
        };
        let bytes = records_len(&block(10..15, 1000)).expect("a block");
        let (last, kept_len) = (80, (CACHED_BYTES_MAX / bytes) as u64);
        assert!((10..last - 10).contains(&kept_len), "{kept_len} blocks of {bytes} bytes");
        for n in 1..=last {
            keep(&mut cache, ONE, 10 * n + 4, &block(10 * n..10 * n + 5, 1000));
        }
        for n in 1..=last {
            let found = [10 * n, 10 * n + 4].map(|sequence| kept(&mut cache, ONE, sequence));
            let is_kept = n + kept_len - 1 > last;
            // The IDs of lower numbers are shorter, so one more may have room.
            if n + kept_len != last + 1 {
                let expected = [10 * n, 10 * n + 4].map(|sequence| is_kept.then_some(sequence));
                assert_eq!(found, expected, "{n} of {last}");
            }
        }
        assert_eq!(
            (kept(&mut cache, ONE, 10 * last + 5), kept(&mut cache, CollectionKey(2), 10 * last)),
            (None, None)
        );
        keep(&mut cache, ONE, 1001, &block(1000..1002, CACHED_BLOCK_BYTES_MAX / 2 - 100));
        keep(&mut cache, ONE, 2001, &block(2000..2002, CACHED_BLOCK_BYTES_MAX / 2 + 1));
        assert_eq!([1000, 2000].map(|sequence| kept(&mut cache, ONE, sequence)), [Some(1000), None]);
        keep(&mut cache, CollectionKey(2), 1, &block(1..2, 1));
        cache.forget(ONE);
        assert_eq!((kept(&mut cache, ONE, 1000), kept(&mut cache, CollectionKey(2), 1)), (None, Some(1)));
        // What was forgotten takes no room of others.
        for n in 1..=kept_len {
            keep(&mut cache, ONE, 10 * n + 4, &block(10 * n..10 * n + 5, 1000));
        }
        assert_eq!(kept(&mut cache, ONE, 10), Some(10));
    }
}
