//! The door to the store's values for the fuzz targets.

use super::block::{BlockBuilder, Codec, SourceNumbers, StoredRevision, read_block, records_len};
use super::{index, keys};
use crate::replica::revision::{RevId, SourceId, Version, VersionVector};

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

/// Writes a block of documents as IDs and packed bodies, deleted where there is none, and reads it again.
///
/// # Panics
/// When it gives something else than what went in, in the form that the store takes or in columns.
pub(in crate::database) fn write_and_read_block(documents: Vec<(String, Vec<u8>)>, step: u64) {
    let (mut codec, mut builder, mut stored) = (Codec::default(), BlockBuilder::default(), Vec::new());
    for (n, (id, body)) in (0u64..).zip(documents) {
        let mut source = SourceId([7; 16]);
        source.0[0] = 1 + (n % if step & 32 == 0 { 2 } else { 3 }) as u8;
        let version = |n: u64| Version { time: 0x18ea_7b9b_f01b_0000 + n * (step << 13), source };
        let revision = StoredRevision {
            sequence: 41 + n * (1 + step % 3),
            id: id.into(),
            vector: VersionVector::new(version(n)),
            deleted: body.is_empty(),
            remote_ancestor: (step & 64 != 0 && n > 0).then(|| RevId::Version(version(n - 1))),
            body,
        };
        builder.push(&revision, &Sources);
        stored.push(revision);
    }
    if let Some(value) = builder.in_columns() {
        assert!(
            read_block(&value, &Sources, &mut codec).as_ref() == Some(&stored),
            "columns are what they stand for"
        );
    }
    let value = builder.finish(&mut codec);
    assert!(read_block(&value, &Sources, &mut codec) == Some(stored), "a block is what it stands for");
}

/// Reads a page of the index; gives the number of its entries and the bytes of their IDs.
pub fn read_page(value: &[u8]) -> Option<(usize, usize)> {
    index::page_size(value)
}

/// Reads a key as that of a block.
pub fn read_keys(key: &[u8]) -> Option<u64> {
    keys::block_sequence(key)
}
