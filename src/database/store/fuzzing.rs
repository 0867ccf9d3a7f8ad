//! The door to the store's values for the fuzz targets.

use super::block::{BlockBuilder, Codec, SourceNumbers, read_block, records_len};
use super::{index, keys};
use crate::replica::revision::SourceId;

/// Two authors that have a number.
struct Sources;

impl SourceNumbers for Sources {
    fn number(&self, source: SourceId) -> u32 {
        match source.0 {
            [1, ..] => 1,
            [2, ..] => 2,
            _ => 0,
        }
    }

    fn source(&self, number: u32) -> Option<SourceId> {
        let mut id = [7; 16];
        id[0] = u8::try_from(number).ok().filter(|number| (1..=2).contains(number))?;
        Some(SourceId(id))
    }
}

/// Reads a block; gives the number of its records, their IDs and bodies in bytes, and the block written again from them.
pub fn read_and_write_block(value: &[u8]) -> Option<(usize, usize, Vec<u8>)> {
    let mut codec = Codec::default();
    let _ = records_len(value);
    let revisions = read_block(value, &Sources, &mut codec)?;
    let mut builder = BlockBuilder::default();
    revisions.iter().for_each(|revision| builder.push(revision, &Sources));
    let bytes = revisions.iter().map(|revision| revision.id.len() + revision.body.len()).sum();
    Some((revisions.len(), bytes, builder.finish(&mut codec)))
}

/// Reads a page of the index; gives the number of its entries and the bytes of their IDs.
pub fn read_page(value: &[u8]) -> Option<(usize, usize)> {
    index::page_size(value)
}

/// Reads a key as that of a block.
pub fn read_keys(key: &[u8]) -> Option<u64> {
    keys::block_sequence(key)
}
