//! Entries of an index in pages: what a document has at the paths, its ID, and the sequence of the revision that has it.
//!
//! The key of an entry is the encodings of the values, cut after [`VALUES_BYTES_MAX`], and the ID. A page is responsible for the
//! keys up to its *fence*, which is its key in the store, and after the fence of the page before, as in [`super::super::index`].
//!
//! | field of an entry | how |
//! |---|---|
//! | values | bytes shared with the entry before, length of the rest, the rest |
//! | ID | the same |
//! | sequence | varint |

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::super::engine::{Engine, Writes};
use super::super::ground::{Pair, damaged};
use super::super::keys::{self, IndexKey};
use crate::database::DatabaseError;
use crate::database::packed::{Reader, put_varint};

/// Bytes of a page above which it is split. A page and its fence fit among those that sled keeps within its log.
const PAGE_BYTES_MAX: usize = 900;

/// Bytes of the values of an entry. Of longer ones the beginning stands for the whole, and order among equals is looked up.
pub(crate) const VALUES_BYTES_MAX: usize = 200;

/// One document in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    key: Box<[u8]>,
    values_len: usize,
    pub(crate) sequence: u64,
}

impl Entry {
    pub(in super::super) fn new(values: &[u8], id: &str, sequence: u64) -> Entry {
        let values = &values[..values.len().min(VALUES_BYTES_MAX)];
        Entry { key: [values, id.as_bytes()].concat().into(), values_len: values.len(), sequence }
    }

    /// What the document has at the paths, encoded one behind the other.
    pub(crate) fn values(&self) -> &[u8] {
        &self.key[..self.values_len]
    }

    /// Whether that may be the beginning alone.
    pub(crate) fn is_cut(&self) -> bool {
        self.values_len == VALUES_BYTES_MAX
    }

    /// The document's ID; what is no text is the ID of none.
    pub(crate) fn id(&self) -> &str {
        std::str::from_utf8(&self.key[self.values_len..]).unwrap_or_default()
    }

    pub(in super::super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// About the bytes that it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + 64
    }
}

/// The fence of a page, and its entries.
pub(in super::super) type Page = (Vec<u8>, Vec<Entry>);

/// The entries of a page's value.
pub(super) fn read_page(value: &[u8]) -> Result<Vec<Entry>, DatabaseError> {
    read_entries(value).ok_or_else(|| damaged("a page of an index on paths"))
}

fn read_entries(value: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = Reader::new(value);
    let (mut values, mut id) = (Vec::new(), Vec::new());
    let mut entries = Vec::new();
    while reader.remaining() > 0 {
        for part in [&mut values, &mut id] {
            let shared = reader.length().filter(|shared| *shared <= part.len())?;
            part.truncate(shared);
            let rest = reader.length()?;
            part.extend_from_slice(reader.take(rest)?);
        }
        if values.len() > VALUES_BYTES_MAX {
            return None;
        }
        std::str::from_utf8(&id).ok()?;
        let key = [&values[..], &id[..]].concat().into();
        entries.push(Entry { key, values_len: values.len(), sequence: reader.varint()? });
    }
    Some(entries)
}

/// Builds the value of a page.
#[derive(Default)]
struct Builder<'e> {
    value: Vec<u8>,
    last: Option<&'e Entry>,
}

impl<'e> Builder<'e> {
    /// Adds an entry unless the page would have more bytes than that; an empty one takes any.
    fn push(&mut self, entry: &'e Entry, bytes_max: usize) -> bool {
        let before = self.value.len();
        let (values, id) = self.last.map_or((&[][..], &[][..]), |last| last.key.split_at(last.values_len));
        for (part, last) in [(entry.values(), values), (&entry.key[entry.values_len..], id)] {
            let shared = part.iter().zip(last).take_while(|(a, b)| a == b).count();
            put_varint(&mut self.value, shared as u64);
            put_varint(&mut self.value, (part.len() - shared) as u64);
            self.value.extend_from_slice(&part[shared..]);
        }
        put_varint(&mut self.value, entry.sequence);
        if before > 0 && self.value.len() > bytes_max {
            self.value.truncate(before);
            return false;
        }
        self.last = Some(entry);
        true
    }
}

/// A page with these entries.
fn page_of(entries: &[Entry]) -> Vec<u8> {
    let mut builder = Builder::default();
    for entry in entries {
        builder.push(entry, usize::MAX);
    }
    builder.value
}

/// The page that is responsible for a key, with its fence; `None` behind the last.
pub(in super::super) fn page_from(
    engine: &Engine,
    index: IndexKey,
    key: &[u8],
) -> Result<Option<Page>, DatabaseError> {
    let found = engine.first(&keys::entries(index, key), &keys::entries_end(index))?;
    found.map(|(fence, value)| Ok((keys::entries_fence(&fence).to_vec(), read_page(&value)?))).transpose()
}

/// The last page whose fence is below a key.
pub(in super::super) fn page_below(
    engine: &Engine,
    index: IndexKey,
    key: &[u8],
) -> Result<Option<Vec<Entry>>, DatabaseError> {
    let found = engine.last(&keys::entries(index, &[]), &keys::entries(index, key))?;
    found.map(|(_, value)| read_page(&value)).transpose()
}

/// The sequence that an index has for these values and this ID.
pub(in super::super) fn find(
    engine: &Engine,
    index: IndexKey,
    values: &[u8],
    id: &str,
) -> Result<Option<u64>, DatabaseError> {
    let wanted = Entry::new(values, id, 0);
    let Some((_, entries)) = page_from(engine, index, &wanted.key)? else { return Ok(None) };
    let at = entries.binary_search_by(|entry| entry.key.cmp(&wanted.key));
    Ok(at.ok().map(|at| entries[at].sequence))
}

/// How many entries an index has, and the bytes of its pages.
///
/// # Errors
/// [`DatabaseError::Damaged`], also if they are out of order.
pub(in super::super) fn count(engine: &Engine, index: IndexKey) -> Result<(u64, u64), DatabaseError> {
    let (mut entries, mut bytes, mut last) = (0, 0, Vec::new());
    engine.scan(&keys::entries(index, &[]), &keys::entries_end(index), |key, value| {
        bytes += (key.len() + value.len()) as u64;
        for entry in read_page(value)? {
            // No key is empty.
            if *entry.key <= *last || *entry.key > *keys::entries_fence(key) {
                return Err(damaged("entries of an index on paths are out of order"));
            }
            entries += 1;
            last = entry.key.into_vec();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((entries, bytes))
}

/// Gives all entries of an index anew, in full pages, with the keys of the store.
pub(in super::super) fn copy(
    engine: &Engine,
    index: IndexKey,
    mut give: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), DatabaseError>,
) -> Result<(), DatabaseError> {
    let mut held: Vec<Entry> = Vec::new();
    engine.scan(&keys::entries(index, &[]), &keys::entries_end(index), |_, value| {
        held.extend(read_page(value)?);
        let (pages, rest) = full_pages(&held, PAGE_BYTES_MAX);
        let rest = held.len() - rest;
        for (fence, value) in pages {
            give(keys::entries(index, &fence), value)?;
        }
        held.drain(..rest);
        Ok(ControlFlow::Continue(()))
    })?;
    if !held.is_empty() {
        give(keys::entries(index, keys::LAST_FENCE), page_of(&held))?;
    }
    Ok(())
}

/// Pages of at most so many bytes, with their fences, and how many entries are left for a last one.
fn full_pages(entries: &[Entry], bytes_max: usize) -> (Vec<Pair>, usize) {
    let (mut pages, mut builder, mut len) = (Vec::new(), Builder::default(), 0);
    for entry in entries {
        if builder.push(entry, bytes_max) {
            len += 1;
            continue;
        }
        let full = std::mem::take(&mut builder);
        let last = full.last.map_or(&[][..], |last| &last.key);
        pages.push((fence_between(last, &entry.key), full.value));
        builder.push(entry, bytes_max);
        len = 1;
    }
    (pages, len)
}

/// A fence at or above the first key and below the second; as high as is easily said, so that what grows behind the first
/// comes into its page.
fn fence_between(last: &[u8], next: &[u8]) -> Vec<u8> {
    let high = &next[..next.len().saturating_sub(1)];
    if high >= last { high } else { last }.to_vec()
}

/// The pages of one index that one commit looks at and changes.
#[derive(Default)]
pub(in super::super) struct Edit {
    pages: BTreeMap<Vec<u8>, EditedPage>,
}

#[derive(Default)]
struct EditedPage {
    entries: Vec<Entry>,
    changed: bool,
    /// The highest key that was added.
    added: Option<Box<[u8]>>,
}

impl Edit {
    /// The page responsible for a key; an empty last one if there is none at all.
    fn page(
        &mut self,
        engine: &Engine,
        index: IndexKey,
        key: &[u8],
    ) -> Result<&mut EditedPage, DatabaseError> {
        // A page read before is the right one if the key is not below its first: nothing can lie between.
        let fence = self.pages.range(key.to_vec()..).next().and_then(|(fence, page)| {
            let reaches = page.entries.first().is_some_and(|first| *first.key <= *key);
            (reaches || fence == key).then(|| fence.clone())
        });
        let fence = match fence {
            Some(fence) => fence,
            None => {
                let found = page_from(engine, index, key)?;
                let (fence, entries) = found.unwrap_or_else(|| (keys::LAST_FENCE.to_vec(), Vec::new()));
                self.pages
                    .entry(fence.clone())
                    .or_insert_with(|| EditedPage { entries, ..EditedPage::default() });
                fence
            }
        };
        Ok(self.pages.entry(fence).or_default())
    }

    /// Adds an entry, or gives the one with this key another sequence.
    pub(in super::super) fn add(
        &mut self,
        engine: &Engine,
        index: IndexKey,
        entry: Entry,
    ) -> Result<(), DatabaseError> {
        let page = self.page(engine, index, &entry.key)?;
        page.changed = true;
        match page.entries.binary_search_by(|other| other.key.cmp(&entry.key)) {
            Ok(at) => page.entries[at].sequence = entry.sequence,
            Err(at) => {
                if page.added.as_ref().is_none_or(|added| *added < entry.key) {
                    page.added = Some(entry.key.clone());
                }
                page.entries.insert(at, entry);
            }
        }
        Ok(())
    }

    /// Takes out the entry with the key of this one.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] if there is none: the index is not what the documents are.
    pub(in super::super) fn take(
        &mut self,
        engine: &Engine,
        index: IndexKey,
        entry: &Entry,
    ) -> Result<(), DatabaseError> {
        let page = self.page(engine, index, &entry.key)?;
        let at = page.entries.binary_search_by(|other| other.key.cmp(&entry.key));
        let at = at.map_err(|_| damaged("a document is missing in an index on paths"))?;
        page.entries.remove(at);
        page.changed = true;
        Ok(())
    }

    /// Adds the changed pages to a commit.
    pub(in super::super) fn write(self, index: IndexKey, writes: &mut Writes) {
        for (fence, page) in self.pages.into_iter().filter(|(_, page)| page.changed) {
            if page.entries.is_empty() {
                writes.remove(keys::entries(index, &fence));
            } else {
                page.write(index, &fence, writes);
            }
        }
    }
}

impl EditedPage {
    /// Writes it, split where it outgrew the limit: behind what was added, if that is not too early, since values often grow;
    /// else in halves.
    fn write(&self, index: IndexKey, fence: &[u8], writes: &mut Writes) {
        let whole = page_of(&self.entries).len();
        let mut parts = vec![(&self.entries[..], PAGE_BYTES_MAX)];
        if whole > PAGE_BYTES_MAX {
            let added = self.added.as_ref();
            let behind = added.map_or(0, |added| self.entries.partition_point(|entry| entry.key <= *added));
            let (before, rest) = self.entries.split_at(behind);
            if page_of(before).len() >= PAGE_BYTES_MAX / 2 {
                parts = vec![(before, PAGE_BYTES_MAX), (rest, PAGE_BYTES_MAX)];
            } else {
                parts[0].1 = whole.div_ceil(whole.div_ceil(PAGE_BYTES_MAX));
            }
        }
        parts.retain(|(entries, _)| !entries.is_empty());
        for at in 0..parts.len() {
            let (entries, bytes_max) = parts[at];
            let (pages, left) = full_pages(entries, bytes_max);
            for (fence, value) in pages {
                writes.insert(keys::entries(index, &fence), value);
            }
            let last = &entries[entries.len() - left..];
            let next = parts.get(at + 1).and_then(|(entries, _)| entries.first());
            let fence = match (last.last(), next) {
                (Some(last), Some(next)) => fence_between(&last.key, &next.key),
                _ => fence.to_vec(),
            };
            writes.insert(keys::entries(index, &fence), page_of(last));
        }
    }
}

#[cfg(test)]
mod tests;
