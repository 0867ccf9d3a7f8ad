//! Keys of the one sled tree. A single tree, because one sled batch on it is one atomic commit.
//!
//! | first byte | then | value |
//! |---|---|---|
//! | `m` | – | format, versioning, source (`layout.rs`) |
//! | `h` | – | newest time that the hybrid clock gave out |
//! | `A` | – | there if the table `a` is complete |
//! | `a` | time, 8 bytes, collection, sequence, 8 bytes | a version whose time was far ahead when it was stored ([`super::ahead`]) |
//! | `p` | collection, ID | a purged document: its time of ours, which was far ahead ([`super::purged`]) |
//! | `d` | collection, ID | when the document expires, milliseconds since 1970, 8 bytes ([`super::expiry`]) |
//! | `e` | that time, collection, ID | – |
//! | `g` | collection, hash of an ID, 8 bytes | a document that was removed here ([`super::removed`]) |
//! | `q` | minute in which that was, 4 bytes, collection, hash | – |
//! | `G` | – | how many of those there are, 8 bytes |
//! | `H` | collection | time up to which revisions were removed by age, 8 bytes ([`super::removed`]) |
//! | `T` | collection, source, 16 bytes | the newest time of this author in a tombstone that was removed, 8 bytes ([`super::removed`]) |
//! | `w` | – | what showed that another device has the same source ID ([`super::twin`]) |
//! | `f` | – | source IDs that this database had before it was repaired or restored, 16 bytes each |
//! | `n` | name number, 2 bytes | field name |
//! | `s` | source number, 2 bytes | 16 bytes |
//! | `c` | collection, 2 bytes | canonical name |
//! | `t` | collection | counters |
//! | `R` | – | length and checksum of a complete redo list ([`super::redo`]) |
//! | `r` | number of a piece, 4 bytes | piece of a redo list |
//! | `k` | collection, client ID | checkpoint |
//! | `i` | collection, fence | page of document IDs ([`super::index`]) |
//! | `x` | collection, index, 2 bytes | definition of an index on paths ([`super::indexes`]) |
//! | `X` | collection | what it was when its indexes were last kept |
//! | `y` | collection, index, fence | page of entries of an index on paths |
//! | `b` | collection, sequence, piece | block of records ([`super::block`]) |
//! | `B` | digest, 20 bytes, collection, ID | a document that names this blob ([`super::blobs`]) |
//! | `B` | – | there if all documents are in this table |
//! | `D` | collection, ID | what the document was when a peer had it ([`super::base`]) |
//!
//! Numbers are big-endian, so that keys sort as the numbers do.

use crate::replica::blobs::BlobDigest;
use crate::replica::revision::SourceId;

/// A collection's number within the database; the default collection is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CollectionKey(pub(crate) u16);

/// An index of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IndexKey {
    pub(super) collection: CollectionKey,
    pub(super) number: u16,
}

/// Fence of the last page of an index on paths: no encoding of a value begins so.
pub(super) const LAST_FENCE: &[u8] = &[0xff];

pub(super) const META: &[u8] = b"m";
pub(super) const CLOCK: &[u8] = b"h";
pub(super) const FORMER: &[u8] = b"f";
pub(super) const AHEAD_COMPLETE: &[u8] = b"A";
pub(super) const AHEAD: u8 = b'a';
pub(super) const PURGED: u8 = b'p';
pub(super) const EXPIRATION: u8 = b'd';
pub(super) const DUE: u8 = b'e';
pub(super) const MARK: u8 = b'g';
pub(super) const MARKED: u8 = b'q';
pub(super) const MARKS: &[u8] = b"G";
pub(super) const HORIZON: u8 = b'H';
pub(super) const AUTHOR_HORIZON: u8 = b'T';
pub(super) const TWIN: &[u8] = b"w";
pub(super) const REDO_COMPLETE: &[u8] = b"R";
pub(super) const REDO: u8 = b'r';
pub(super) const NAME: u8 = b'n';
pub(super) const SOURCE: u8 = b's';
pub(super) const COLLECTION: u8 = b'c';
pub(super) const COUNTERS: u8 = b't';
pub(super) const DEFINITION: u8 = b'x';
pub(super) const STAMP: u8 = b'X';
pub(super) const BLOB: u8 = b'B';
pub(super) const BASE: u8 = b'D';
pub(super) const BLOBS_RECORDED: &[u8] = b"B";
const ENTRIES: u8 = b'y';
const CHECKPOINT: u8 = b'k';
const INDEX: u8 = b'i';
const BLOCK: u8 = b'b';

/// Key of an index's definition.
pub(super) fn definition(index: IndexKey) -> Vec<u8> {
    with_tail(DEFINITION, index.collection, &index.number.to_be_bytes())
}

/// The range of all definitions of a collection: from, to (excluded).
pub(super) fn definitions(collection: CollectionKey) -> (Vec<u8>, Vec<u8>) {
    (with_tail(DEFINITION, collection, &[]), with_tail(DEFINITION, collection, &[0xff; 3]))
}

/// The index of such a key.
pub(super) fn definition_index(key: &[u8]) -> Option<IndexKey> {
    let (collection, number) = key.strip_prefix(&[DEFINITION])?.split_first_chunk::<2>()?;
    let collection = CollectionKey(u16::from_be_bytes(*collection));
    Some(IndexKey { collection, number: u16::from_be_bytes(number.try_into().ok()?) })
}

/// Bytes before the fence in a key of a page of entries.
const ENTRIES_HEAD: usize = 5;

/// Key of the page of entries with this fence; empty for the first of an index.
pub(super) fn entries(index: IndexKey, fence: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(ENTRIES_HEAD + fence.len());
    key.extend_from_slice(&numbered(ENTRIES, index.collection.0));
    key.extend_from_slice(&index.number.to_be_bytes());
    key.extend_from_slice(fence);
    key
}

/// The key after all pages of an index.
pub(super) fn entries_end(index: IndexKey) -> Vec<u8> {
    entries(index, &[0xff, 0])
}

/// The range of all entries of all indexes of a collection: from, to (excluded).
pub(super) fn entries_of(collection: CollectionKey) -> (Vec<u8>, Vec<u8>) {
    (with_tail(ENTRIES, collection, &[]), with_tail(ENTRIES, collection, &[0xff; 5]))
}

/// The fence in such a key.
pub(super) fn entries_fence(key: &[u8]) -> &[u8] {
    key.get(ENTRIES_HEAD..).unwrap_or_default()
}

/// Key of a purged document; empty for the first of a collection.
pub(super) fn purged(collection: CollectionKey, id: &str) -> Vec<u8> {
    let [high, low] = collection.0.to_be_bytes();
    [&[PURGED, high, low], id.as_bytes()].concat()
}

/// Key of a version that is far ahead.
pub(super) fn ahead(time: u64, collection: CollectionKey, sequence: u64) -> Vec<u8> {
    let mut key = vec![AHEAD];
    key.extend_from_slice(&time.to_be_bytes());
    key.extend_from_slice(&collection.0.to_be_bytes());
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// Time, collection and sequence of such a key.
pub(super) fn ahead_parts(key: &[u8]) -> Option<(u64, CollectionKey, u64)> {
    let (time, rest) = key.strip_prefix(&[AHEAD])?.split_first_chunk::<8>()?;
    let (collection, sequence) = rest.split_first_chunk::<2>()?;
    let collection = CollectionKey(u16::from_be_bytes(*collection));
    Some((u64::from_be_bytes(*time), collection, u64::from_be_bytes(sequence.try_into().ok()?)))
}

/// Key of what a document was when a peer had it; empty ID for the first of a collection.
pub(super) fn base(collection: CollectionKey, id: &str) -> Vec<u8> {
    with_tail(BASE, collection, id.as_bytes())
}

/// Key of a document's expiration; empty ID for the first of a collection.
pub(super) fn expiration(collection: CollectionKey, id: &str) -> Vec<u8> {
    with_tail(EXPIRATION, collection, id.as_bytes())
}

/// Collection and ID of such a key.
pub(super) fn expiration_parts(key: &[u8]) -> Option<(CollectionKey, &str)> {
    let (collection, id) = key.strip_prefix(&[EXPIRATION])?.split_first_chunk::<2>()?;
    Some((CollectionKey(u16::from_be_bytes(*collection)), std::str::from_utf8(id).ok()?))
}

/// Key of an expiration in the order of time.
pub(super) fn due(time_ms: u64, collection: CollectionKey, id: &str) -> Vec<u8> {
    [&[DUE][..], &time_ms.to_be_bytes(), &collection.0.to_be_bytes(), id.as_bytes()].concat()
}

/// Time, collection and ID of such a key.
pub(super) fn due_parts(key: &[u8]) -> Option<(u64, CollectionKey, &str)> {
    let (time, rest) = key.strip_prefix(&[DUE])?.split_first_chunk::<8>()?;
    let (collection, id) = rest.split_first_chunk::<2>()?;
    let collection = CollectionKey(u16::from_be_bytes(*collection));
    Some((u64::from_be_bytes(*time), collection, std::str::from_utf8(id).ok()?))
}

/// What stands for an ID where it was removed.
pub(super) type IdHash = [u8; 8];

/// Key of the mark of a removed document; `None` for the first of a collection.
pub(super) fn mark(collection: CollectionKey, hash: Option<IdHash>) -> Vec<u8> {
    with_tail(MARK, collection, hash.as_ref().map_or(&[], |hash| &hash[..]))
}

/// Collection and hash of such a key.
pub(super) fn mark_parts(key: &[u8]) -> Option<(CollectionKey, IdHash)> {
    let (collection, hash) = key.strip_prefix(&[MARK])?.split_first_chunk::<2>()?;
    Some((CollectionKey(u16::from_be_bytes(*collection)), hash.try_into().ok()?))
}

/// Key of a mark in the order of time.
pub(super) fn marked(minute: u32, collection: CollectionKey, hash: IdHash) -> Vec<u8> {
    [&[MARKED][..], &minute.to_be_bytes(), &collection.0.to_be_bytes(), &hash].concat()
}

/// Minute, collection and hash of such a key.
pub(super) fn marked_parts(key: &[u8]) -> Option<(u32, CollectionKey, IdHash)> {
    let (minute, rest) = key.strip_prefix(&[MARKED])?.split_first_chunk::<4>()?;
    let (collection, hash) = rest.split_first_chunk::<2>()?;
    let collection = CollectionKey(u16::from_be_bytes(*collection));
    Some((u32::from_be_bytes(*minute), collection, hash.try_into().ok()?))
}

/// Key of the horizon of an author; `None` for the first of a collection.
pub(super) fn author_horizon(collection: CollectionKey, author: Option<SourceId>) -> Vec<u8> {
    with_tail(AUTHOR_HORIZON, collection, author.as_ref().map_or(&[], |author| &author.0[..]))
}

/// Collection and author of such a key.
pub(super) fn author_horizon_parts(key: &[u8]) -> Option<(CollectionKey, SourceId)> {
    let (collection, author) = key.strip_prefix(&[AUTHOR_HORIZON])?.split_first_chunk::<2>()?;
    Some((CollectionKey(u16::from_be_bytes(*collection)), SourceId(author.try_into().ok()?)))
}

/// Key of a document that names a blob.
pub(super) fn blob_name(digest: &BlobDigest, collection: CollectionKey, id: &str) -> Vec<u8> {
    [&[BLOB][..], &digest.0, &collection.0.to_be_bytes(), id.as_bytes()].concat()
}

/// The range of all documents that name a blob: from, to (excluded).
pub(super) fn blob_names(digest: &BlobDigest) -> (Vec<u8>, Vec<u8>) {
    let from = [&[BLOB][..], &digest.0].concat();
    let to = [&from[..], &[0xff; 3]].concat();
    (from, to)
}

/// Blob, collection and ID of such a key.
pub(super) fn blob_name_parts(key: &[u8]) -> Option<(BlobDigest, CollectionKey, &str)> {
    let (digest, rest) = key.strip_prefix(&[BLOB])?.split_first_chunk::<20>()?;
    let (collection, id) = rest.split_first_chunk::<2>()?;
    let collection = CollectionKey(u16::from_be_bytes(*collection));
    Some((BlobDigest(*digest), collection, std::str::from_utf8(id).ok()?))
}

/// Key of an entry with a 2-byte number.
pub(super) fn numbered(kind: u8, number: u16) -> [u8; 3] {
    let [high, low] = number.to_be_bytes();
    [kind, high, low]
}

/// The range of all keys of a kind: from, to (excluded).
pub(super) fn kind_range(kind: u8) -> ([u8; 1], [u8; 1]) {
    ([kind], [kind + 1])
}

/// Key of a piece of a redo list.
pub(super) fn redo(piece: u32) -> [u8; 5] {
    let [a, b, c, d] = piece.to_be_bytes();
    [REDO, a, b, c, d]
}

fn with_tail(kind: u8, collection: CollectionKey, tail: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + tail.len());
    key.extend_from_slice(&numbered(kind, collection.0));
    key.extend_from_slice(tail);
    key
}

pub(super) fn index(collection: CollectionKey, id: &str) -> Vec<u8> {
    with_tail(INDEX, collection, id.as_bytes())
}

/// Fence of a collection's last index page, above all IDs: no UTF-8 text contains 0xff.
pub(super) fn index_last(collection: CollectionKey) -> Vec<u8> {
    with_tail(INDEX, collection, &[0xff])
}

/// The key after all index keys of a collection.
pub(super) fn index_end(collection: CollectionKey) -> Vec<u8> {
    with_tail(INDEX, collection, &[0xff, 0])
}

pub(super) fn checkpoint(collection: CollectionKey, client: &str) -> Vec<u8> {
    with_tail(CHECKPOINT, collection, client.as_bytes())
}

pub(super) fn checkpoint_end(collection: CollectionKey) -> Vec<u8> {
    with_tail(CHECKPOINT, collection, &[0xff])
}

/// Key of the first piece of the block whose last sequence is `sequence`: its length in bytes, then the bytes.
pub(super) fn block(collection: CollectionKey, sequence: u64) -> Vec<u8> {
    let bytes = sequence.to_be_bytes();
    let skipped = (sequence.leading_zeros() / 8) as usize;
    let mut key = Vec::with_capacity(3 + 1 + bytes.len());
    key.extend_from_slice(&numbered(BLOCK, collection.0));
    key.push((bytes.len() - skipped) as u8);
    key.extend_from_slice(&bytes[skipped..]);
    key
}

/// The key after all blocks of a collection.
pub(super) fn block_end(collection: CollectionKey) -> Vec<u8> {
    with_tail(BLOCK, collection, &[0xff])
}

/// Key of a further piece of the value at `first`, from 1.
pub(super) fn piece(first: &[u8], piece: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(first.len() + 2);
    key.extend_from_slice(first);
    key.extend_from_slice(&piece.to_be_bytes());
    key
}

/// The last sequence of the block whose first piece has this key; `None` for a further piece or damage.
pub(super) fn block_sequence(key: &[u8]) -> Option<u64> {
    let (&len, number) = key.get(3..)?.split_first()?;
    if number.len() != usize::from(len) || number.len() > 8 {
        return None;
    }
    Some(number.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// Whether a key is one of the pieces of a long value, which lie beside others of that size.
pub(super) fn is_piece(key: &[u8]) -> bool {
    match key.first() {
        Some(&REDO) => true,
        Some(&BLOCK) => block_sequence(key).is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whose neighbours in the log are as large as it is.
    #[test]
    fn pieces_are_told_from_other_entries() {
        let first = block(CollectionKey(1), 300);
        for (key, is) in [
            (piece(&first, 1), true),
            (redo(0).to_vec(), true),
            (first, false),
            (index(CollectionKey(1), "d"), false),
            (checkpoint(CollectionKey(1), "c"), false),
            (META.to_vec(), false),
            (vec![], false),
        ] {
            assert_eq!(is_piece(&key), is, "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn block_keys_sort_as_their_numbers(a in any::<u64>(), b in any::<u64>(), shift in 0u32..64) {
            let (a, b) = (a >> shift, b >> shift);
            let (key_a, key_b) = (block(CollectionKey(1), a), block(CollectionKey(1), b));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(block_sequence(&key_a), Some(a));
            // The pieces of a block lie between it and the next one.
            let piece = piece(&key_a, 1);
            prop_assert_eq!(block_sequence(&piece), None);
            prop_assert!(piece > key_a);
            if a < b {
                prop_assert!(piece < key_b);
            }
        }
    }
}
