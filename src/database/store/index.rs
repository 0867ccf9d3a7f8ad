//! The index from document ID to sequence: pages of IDs, so that neighbours share their prefixes and an import pays for
//! a page, not for each document.
//!
//! A page is responsible for the IDs up to its *fence*, which is its key, and after the fence of the page before. The
//! last page's fence is above all IDs. A page that outgrows its limit is split; one that empties goes, and its
//! range falls to the next.
//!
//! | field of an entry | how |
//! |---|---|
//! | ID | bytes shared with the entry before, length of the rest, the rest |
//! | place | varint: sequence x 2, + 1 for a tombstone |
//!
//! One file, because a page's bytes, how it is changed and how it is split are one rule.

use std::collections::BTreeMap;

use super::engine::{Engine, Writes};
use super::ground::damaged;
use super::keys::{self, CollectionKey};
use crate::database::DatabaseError;
use crate::database::packed::{Reader, put_text, put_varint};

/// Bytes of a page above which it is split. A save writes a page, and sled, after ten of those, all sixteen of a leaf. So it is a
/// compromise between what that costs and how often a prefix is stored: with 400 bytes, a commit of 500 readings of 50 sensors became larger than one batch
/// of the log may be and went through a redo list, five bytes written for one of JSON where there are two now.
const PAGE_BYTES_MAX: usize = 130;

/// The same for the last page, and for one that gets no new IDs: where IDs only grow, all come into the last page, and few pages are written.
const LONG_PAGE_BYTES_MAX: usize = 400;

/// What the index says of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) sequence: u64,
    pub(super) deleted: bool,
}

pub(super) type Entries = Vec<(Box<str>, IndexEntry)>;

/// What the index says of a document, tombstones included.
pub(super) fn find(
    engine: &Engine,
    collection: CollectionKey,
    id: &str,
) -> Result<Option<IndexEntry>, DatabaseError> {
    let (from, to) = (keys::index(collection, id), keys::index_end(collection));
    let Some((_, value)) = engine.first(&from, &to)? else { return Ok(None) };
    let mut page = PageReader::new(&value);
    while let Some(entry) = page.next()? {
        if *page.id >= *id.as_bytes() {
            return Ok((*page.id == *id.as_bytes()).then_some(entry));
        }
    }
    Ok(None)
}

/// The entries of the page that is responsible for the IDs from `id` on, with its fence; `None` at the end.
pub(super) fn page_from(
    engine: &Engine,
    collection: CollectionKey,
    id: &str,
) -> Result<Option<(Vec<u8>, Entries)>, DatabaseError> {
    let from = keys::index(collection, id);
    let found = engine.first(&from, &keys::index_end(collection))?;
    found.map(|(fence, value)| Ok((fence.to_vec(), read_page(&value)?))).transpose()
}

/// The entries of the page after the one with this fence, with its fence; `None` at the end.
pub(super) fn page_after(
    engine: &Engine,
    collection: CollectionKey,
    fence: &[u8],
) -> Result<Option<(Vec<u8>, Entries)>, DatabaseError> {
    let mut from = fence.to_vec();
    from.push(0);
    let found = engine.first(&from, &keys::index_end(collection))?;
    found.map(|(fence, value)| Ok((fence.to_vec(), read_page(&value)?))).transpose()
}

/// The entries of a page's value.
pub(super) fn read_page(value: &[u8]) -> Result<Entries, DatabaseError> {
    let mut page = PageReader::new(value);
    let mut entries = Vec::new();
    while let Some(entry) = page.next()? {
        let id = std::str::from_utf8(&page.id).map_err(|_| damaged("an ID in the index"))?;
        entries.push((id.into(), entry));
    }
    Ok(entries)
}

/// How many entries a page has, and the bytes of their IDs; `None` means damage.
#[cfg(feature = "fuzzing")]
pub(super) fn page_size(value: &[u8]) -> Option<(usize, usize)> {
    let entries = read_page(value).ok()?;
    Some((entries.len(), entries.iter().map(|(id, _)| id.len()).sum()))
}

/// Reads the entries of a page one after the other; `id` is that of the entry last read.
struct PageReader<'a> {
    reader: Reader<'a>,
    id: Vec<u8>,
}

impl<'a> PageReader<'a> {
    fn new(value: &'a [u8]) -> PageReader<'a> {
        PageReader { reader: Reader::new(value), id: Vec::with_capacity(64) }
    }

    fn next(&mut self) -> Result<Option<IndexEntry>, DatabaseError> {
        if self.reader.remaining() == 0 {
            return Ok(None);
        }
        self.entry().map(Some).ok_or_else(|| damaged("a page of the index"))
    }

    fn entry(&mut self) -> Option<IndexEntry> {
        let shared = self.reader.length().filter(|&shared| shared <= self.id.len())?;
        let rest = self.reader.length()?;
        self.id.truncate(shared);
        self.id.extend_from_slice(self.reader.take(rest)?);
        let place = self.reader.varint()?;
        Some(IndexEntry { sequence: place >> 1, deleted: place & 1 == 1 })
    }
}

/// Builds the value of a page.
#[derive(Default)]
struct PageBuilder {
    value: Vec<u8>,
    last: String,
}

impl PageBuilder {
    fn push(&mut self, id: &str, entry: IndexEntry) {
        let mut shared = self.last.bytes().zip(id.bytes()).take_while(|(a, b)| a == b).count();
        while !id.is_char_boundary(shared) {
            shared -= 1;
        }
        put_varint(&mut self.value, shared as u64);
        put_text(&mut self.value, &id[shared..]);
        put_varint(&mut self.value, entry.sequence << 1 | u64::from(entry.deleted));
        self.last.clear();
        self.last.push_str(id);
    }
}

/// The pages that one commit looks at and changes.
#[derive(Default)]
pub(super) struct IndexEdit {
    pages: BTreeMap<Vec<u8>, EditedPage>,
}

#[derive(Default)]
struct EditedPage {
    entries: Entries,
    changed: bool,
    /// Whether IDs came.
    grew: bool,
}

impl IndexEdit {
    /// The page responsible for `id`; an empty last one if there is none at all.
    fn page(
        &mut self,
        engine: &Engine,
        collection: CollectionKey,
        id: &str,
    ) -> Result<&mut EditedPage, DatabaseError> {
        let key = keys::index(collection, id);
        // A page read before is the right one if the ID is not below its first: nothing can lie between.
        let fence = self.pages.range(key.clone()..).next().and_then(|(fence, page)| {
            let reaches = page.entries.first().is_some_and(|(first, _)| **first <= *id);
            (reaches || *fence == key).then(|| fence.clone())
        });
        let fence = match fence {
            Some(fence) => fence,
            None => {
                let found = page_from(engine, collection, id)?;
                let (fence, entries) = found.unwrap_or_else(|| (keys::index_last(collection), Vec::new()));
                self.pages.entry(fence.clone()).or_insert(EditedPage { entries, ..EditedPage::default() });
                fence
            }
        };
        Ok(self.pages.entry(fence).or_default())
    }

    /// What the index says of a document before this commit.
    pub(super) fn find(
        &mut self,
        engine: &Engine,
        collection: CollectionKey,
        id: &str,
    ) -> Result<Option<IndexEntry>, DatabaseError> {
        let page = self.page(engine, collection, id)?;
        let at = page.entries.binary_search_by(|(other, _)| (**other).cmp(id));
        Ok(at.ok().map(|at| page.entries[at].1))
    }

    /// Sets or removes an entry.
    pub(super) fn set(
        &mut self,
        engine: &Engine,
        collection: CollectionKey,
        id: &str,
        entry: Option<IndexEntry>,
    ) -> Result<(), DatabaseError> {
        let page = self.page(engine, collection, id)?;
        page.changed = true;
        match (page.entries.binary_search_by(|(other, _)| (**other).cmp(id)), entry) {
            (Ok(at), Some(entry)) => page.entries[at].1 = entry,
            (Ok(at), None) => drop(page.entries.remove(at)),
            (Err(at), Some(entry)) => {
                page.grew = true;
                page.entries.insert(at, (id.into(), entry));
            }
            (Err(_), None) => {}
        }
        Ok(())
    }

    /// Adds the changed pages to a commit.
    pub(super) fn write(self, collection: CollectionKey, writes: &mut Writes) {
        for (fence, page) in self.pages.into_iter().filter(|(_, page)| page.changed) {
            if page.entries.is_empty() {
                writes.remove(fence);
            } else {
                page.write(collection, fence, writes);
            }
        }
    }
}

/// Writes the index of a collection anew: full pages, in order. The last page has to be finished.
pub(super) struct IndexWriter {
    collection: CollectionKey,
    builder: PageBuilder,
}

impl IndexWriter {
    pub(super) fn new(collection: CollectionKey) -> IndexWriter {
        IndexWriter { collection, builder: PageBuilder::default() }
    }

    /// Adds the next ID.
    pub(super) fn push(&mut self, id: &str, entry: IndexEntry, writes: &mut Writes) {
        if self.builder.value.len() >= LONG_PAGE_BYTES_MAX {
            let full = std::mem::take(&mut self.builder);
            writes.insert(keys::index(self.collection, &full.last), full.value);
        }
        self.builder.push(id, entry);
    }

    /// Writes what is left as the last page.
    pub(super) fn finish(self, writes: &mut Writes) {
        if !self.builder.value.is_empty() {
            writes.insert(keys::index_last(self.collection), self.builder.value);
        }
    }
}

impl EditedPage {
    /// Writes a page, split where it outgrew the limit. The last page is split so that the left parts are full, since IDs often grow; any other
    /// one in halves.
    fn write(&self, collection: CollectionKey, fence: Vec<u8>, writes: &mut Writes) {
        let is_last = fence == keys::index_last(collection);
        let limit = if is_last || !self.grew { LONG_PAGE_BYTES_MAX } else { PAGE_BYTES_MAX };
        let whole = build(&self.entries).value;
        if whole.len() <= limit {
            writes.insert(fence, whole);
            return;
        }
        let parts = whole.len().div_ceil(limit);
        let target = if is_last { limit } else { whole.len().div_ceil(parts) };
        let mut builder = PageBuilder::default();
        let mut rest = self.entries.iter().peekable();
        while let Some((id, entry)) = rest.next() {
            builder.push(id, *entry);
            if rest.peek().is_some() && builder.value.len() >= target {
                writes.insert(keys::index(collection, id), std::mem::take(&mut builder).value);
            }
        }
        writes.insert(fence, builder.value);
    }
}

fn build(entries: &[(Box<str>, IndexEntry)]) -> PageBuilder {
    let mut builder = PageBuilder::default();
    entries.iter().for_each(|(id, entry)| builder.push(id, *entry));
    builder
}

#[cfg(test)]
mod tests {
    use super::super::engine::Ticket;
    use super::*;

    const COLLECTION: CollectionKey = CollectionKey(3);

    fn engine() -> (tempfile::TempDir, Engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let engine = Engine::open(directory.path(), 1 << 20, Ticket::default()).expect("open");
        (directory, engine)
    }

    /// All entries in order, and the bytes of each page.
    fn all(engine: &Engine) -> (Entries, Vec<usize>) {
        let (mut entries, mut sizes) = (Vec::new(), Vec::new());
        let mut page = page_from(engine, COLLECTION, "").expect("readable");
        while let Some((fence, mut found)) = page {
            assert!(
                found.iter().all(|(id, _)| keys::index(COLLECTION, id) <= fence),
                "{found:?} up to {fence:?}"
            );
            sizes.push(build(&found).value.len());
            entries.append(&mut found);
            page = page_after(engine, COLLECTION, &fence).expect("readable");
        }
        (entries, sizes)
    }

    /// The index is a map, whatever is done to it, in commits of any size; and no page outgrows its limit or is cut to pieces.
    #[test]
    fn pages_are_a_map_and_have_their_size() {
        for seed in 0..20 {
            let (_directory, engine) = engine();
            let mut random = fastrand::Rng::with_seed(seed);
            let mut model = BTreeMap::new();
            for round in 0..60 {
                let mut edit = IndexEdit::default();
                for _ in 0..random.usize(1..40) {
                    let id =
                        format!("{}{:x}", ["", "plant.", "\u{e4}"][random.usize(0..3)], random.u16(0..700));
                    let entry = IndexEntry { sequence: random.u64(1..1 << 40), deleted: random.bool() };
                    let entry = (random.u8(0..4) > 0).then_some(entry);
                    assert_eq!(
                        edit.find(&engine, COLLECTION, &id).expect("readable"),
                        model.get(&id).copied(),
                        "{id}"
                    );
                    edit.set(&engine, COLLECTION, &id, entry).expect("set");
                    match entry {
                        Some(entry) => drop(model.insert(id, entry)),
                        None => drop(model.remove(&id)),
                    }
                }
                let mut writes = Writes::default();
                edit.write(COLLECTION, &mut writes);
                engine.apply_part(writes).expect("applied");
                let (entries, sizes) = all(&engine);
                let expected: Entries =
                    model.iter().map(|(id, entry)| (id.as_str().into(), *entry)).collect();
                assert_eq!(entries, expected, "seed {seed}, round {round}");
                let (longest, bytes) =
                    (sizes.iter().max().copied().unwrap_or(0), sizes.iter().sum::<usize>());
                assert!(longest < LONG_PAGE_BYTES_MAX + 40, "{longest} bytes in a page");
                // Halves at worst, but for what removals left.
                assert!(
                    sizes.len() <= 4 + 5 * bytes / PAGE_BYTES_MAX,
                    "{bytes} bytes in {} pages",
                    sizes.len()
                );
            }
            for id in ["", "plant.", "zzz", "0"] {
                assert_eq!(find(&engine, COLLECTION, id).expect("readable"), model.get(id).copied());
            }
        }
    }

    /// IDs that grow leave full pages behind them, whether they come one by one or together, or are written anew.
    #[test]
    fn what_grows_fills_its_pages() {
        let entry = |sequence| IndexEntry { sequence, deleted: false };
        let ids: Vec<String> = (0..500).map(|n| format!("reading-{n:06}")).collect();
        for at_once in [1, 3, 500] {
            let (_directory, engine) = engine();
            for (ids, first) in ids.chunks(at_once).zip((1..).step_by(at_once)) {
                let mut edit = IndexEdit::default();
                for (id, sequence) in ids.iter().zip(first..) {
                    edit.set(&engine, COLLECTION, id, Some(entry(sequence))).expect("set");
                }
                let mut writes = Writes::default();
                edit.write(COLLECTION, &mut writes);
                engine.apply_part(writes).expect("applied");
            }
            let (entries, sizes) = all(&engine);
            assert_eq!(entries.len(), ids.len());
            let full = |size: &usize| (LONG_PAGE_BYTES_MAX..LONG_PAGE_BYTES_MAX + 40).contains(size);
            assert!(sizes[..sizes.len() - 1].iter().all(full), "{at_once} at once: {sizes:?}");
        }
        let (_directory, engine) = engine();
        let (mut writer, mut writes) = (IndexWriter::new(COLLECTION), Writes::default());
        ids.iter().zip(1..).for_each(|(id, sequence)| writer.push(id, entry(sequence), &mut writes));
        writer.finish(&mut writes);
        engine.apply_part(writes).expect("applied");
        let (entries, sizes) = all(&engine);
        assert_eq!(entries.last(), Some(&("reading-000499".into(), entry(500))));
        assert!(sizes[..sizes.len() - 1].iter().all(|size| *size >= LONG_PAGE_BYTES_MAX), "{sizes:?}");
    }

    /// IDs that grow in several places, as those of sensors do, leave short pages behind them; an entry that is changed splits no page.
    #[test]
    fn what_grows_in_several_places_leaves_short_pages() {
        let (_directory, engine) = engine();
        let id = |sensor: u64, n: u64| format!("s{sensor:02}-{n:06}");
        let save = |ids: &mut dyn Iterator<Item = (String, u64)>| {
            let mut edit = IndexEdit::default();
            for (id, sequence) in ids {
                edit.set(&engine, COLLECTION, &id, Some(IndexEntry { sequence, deleted: false }))
                    .expect("set");
            }
            let mut writes = Writes::default();
            edit.write(COLLECTION, &mut writes);
            engine.apply_part(writes).expect("applied");
        };
        for round in 0..60 {
            save(&mut (0..80).map(|n| (id(n % 8, 10 * round + n / 8), 80 * round + n)));
        }
        let (entries, sizes) = all(&engine);
        assert_eq!(entries.len(), 80 * 60);
        let of_others = &sizes[..sizes.len() * 7 / 8];
        let mean = of_others.iter().sum::<usize>() / of_others.len();
        let longest = of_others.iter().max().copied().unwrap_or(0);
        assert!((PAGE_BYTES_MAX / 2..PAGE_BYTES_MAX).contains(&mean), "{mean} bytes: {sizes:?}");
        assert!(longest < PAGE_BYTES_MAX + 40, "{sizes:?}");
        // Later sequences are longer.
        save(&mut (0..600).map(|n| (id(3, n), (1 << 40) + n)));
        let (_, after) = all(&engine);
        assert_eq!(after.len(), sizes.len(), "{after:?}");
    }
}
