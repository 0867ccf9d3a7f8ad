//! The bytes of sled 0.34's files, read with every length checked: segment headers, messages, nodes, links, the snapshot.
//!
//! The release of sled is pinned, so its format is as well. Nothing here writes.
//!
//! Source: sled 0.34.7, `pagecache/` and `serialization.rs`.

use super::super::super::ground::SEGMENT_BYTES;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 20;

/// Longest header of a message; sled begins none closer than this to the end of a segment.
pub(super) const MESSAGE_HEADER_BYTES_MAX: usize = 32;

/// Bytes of a segment as a log sequence number has them.
pub(super) const SEGMENT: u64 = SEGMENT_BYTES as u64;

/// Mask that sled lays over the numbers in a segment's header.
const HEADER_MASK: u64 = 0x7fff_ffff_ffff_ffff;

/// Deepest chain of changes to a page that a snapshot can name.
const PLACES_MAX: usize = 256;

/// Reads what sled serialises.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// sled's variable-length number.
    pub(super) fn number(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            small @ 0..=240 => u64::from(small),
            high @ 241..=248 => 240 + 256 * (u64::from(high) - 241) + u64::from(self.byte()?),
            249 => 2288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?),
            long => {
                let mut bytes = [0; 8];
                let len = usize::from(long) - 247;
                bytes[..len].copy_from_slice(self.take(len)?);
                u64::from_le_bytes(bytes)
            }
        })
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.length()?;
        self.take(len)
    }

    /// As many items as were announced; each takes a byte at least, so the announcement cannot allocate beyond the input.
    fn list<T>(&mut self, len: usize, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::with_capacity(len.min(self.0.len()));
        for _ in 0..len {
            items.push(item(self)?);
        }
        Some(items)
    }
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentHeader {
    /// Log sequence number of its first byte.
    pub(super) lsn: u64,
    /// Newest number that sled knew to be stable when the segment was begun.
    pub(super) stable: i64,
}

/// `None` if the checksum does not fit or the number cannot be one of a segment.
pub(super) fn segment_header(bytes: &[u8]) -> Option<SegmentHeader> {
    let mut reader = Bytes(bytes.get(..SEGMENT_HEADER_BYTES)?);
    let crc = reader.u32()? ^ u32::MAX;
    if crc32fast::hash(reader.0) != crc {
        return None;
    }
    let lsn = reader.i64()? as u64 ^ HEADER_MASK;
    let stable = (reader.i64()? as u64 ^ HEADER_MASK) as i64;
    (lsn.is_multiple_of(SEGMENT) && lsn < u64::MAX / 4).then_some(SegmentHeader { lsn, stable })
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Canceled,
    Cap,
    Batch,
    Free,
    Counter,
    Meta,
    Node,
    Link,
}

/// One message of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    /// Whether the body only names a file that holds it.
    pub(super) is_blob: bool,
    pub(super) page: u64,
    /// Number of the segment it was written for: its log sequence number by the segment's size.
    pub(super) segment: u64,
    pub(super) body: &'a [u8],
    /// Bytes of header and body.
    pub(super) len: usize,
}

/// The message at a place of a segment; `None` if there is none whose checksum fits.
pub(super) fn message(segment: &[u8], at: usize) -> Option<Message<'_>> {
    let bytes = segment.get(at..)?;
    // The cheap test first: this is also asked at each byte of what is damaged.
    let kind = *bytes.get(4)?;
    if kind == 0 || kind > 11 {
        return None;
    }
    let mut reader = Bytes(bytes);
    let crc = reader.u32()? ^ u32::MAX;
    reader.take(1)?;
    let len = reader.length()?;
    let number = reader.number()?;
    let page = reader.number()?;
    let header = bytes.len() - reader.0.len();
    let body = reader.take(len)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(&bytes[4..header]);
    if hasher.finalize() != crc {
        return None;
    }
    let (kind, is_blob) = kind_of(kind)?;
    Some(Message { kind, is_blob, page, segment: number, body, len: header + len })
}

/// Whether bytes in which there is no message could be the beginning of one that goes on behind them.
pub(super) fn may_be_cut(bytes: &[u8]) -> bool {
    bytes.get(4).is_none_or(|kind| (1..=11).contains(kind))
}

/// The first message at or after a place of a segment, with its place.
pub(super) fn next_message(segment: &[u8], mut at: usize) -> Option<(usize, Message<'_>)> {
    const ZEROS: [u8; 256] = [0; 256];
    loop {
        // Where nothing was written there are zeros, and zero is no kind of message.
        let kinds = segment.get(at.checked_add(4)?..)?;
        if *kinds.first()? == 0 {
            at += if kinds.starts_with(&ZEROS) { ZEROS.len() } else { 1 };
            continue;
        }
        if let Some(found) = message(segment, at) {
            return Some((at, found));
        }
        at += 1;
    }
}

fn kind_of(byte: u8) -> Option<(Kind, bool)> {
    Some(match byte {
        1 => (Kind::Canceled, false),
        2 => (Kind::Cap, false),
        3 => (Kind::Batch, false),
        4 => (Kind::Free, false),
        5 => (Kind::Counter, false),
        6 | 7 => (Kind::Meta, byte == 7),
        8 | 9 => (Kind::Node, byte == 9),
        10 | 11 => (Kind::Link, byte == 11),
        _ => return None,
    })
}

/// The content of a file that holds a body, if it is whole and of this kind.
pub(super) fn blob(file: &[u8], kind: Kind) -> Option<&[u8]> {
    let mut reader = Bytes(file);
    let crc = reader.u32()?;
    if crc32fast::hash(reader.0) != crc {
        return None;
    }
    let found = kind_of(reader.byte()?)?;
    (found == (kind, true)).then_some(reader.0)
}

/// A page of sled's tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) next: Option<u64>,
    merging_child: Option<u64>,
    prefix_len: usize,
    pub(super) lo: Vec<u8>,
    /// Empty for the last page of a level.
    pub(super) hi: Vec<u8>,
    keys: Vec<Vec<u8>>,
    pub(super) data: Data,
}

#[derive(Debug)]
pub(super) enum Data {
    Leaf(Vec<Vec<u8>>),
    Index(Vec<u64>),
}

pub(super) fn node(body: &[u8]) -> Option<Node> {
    let mut reader = Bytes(body);
    let page = |number: u64| (number > 0).then_some(number);
    let next = page(reader.number()?);
    let merging_child = page(reader.number()?);
    // Whether it is being merged into its neighbour, of which it tells nothing more.
    reader.byte()?;
    let prefix_len = usize::from(reader.byte()?);
    let lo = reader.text()?.to_vec();
    let hi = reader.text()?.to_vec();
    let is_leaf = match reader.byte()? {
        0 => true,
        1 => false,
        _ => return None,
    };
    let len = reader.length()?;
    let keys = reader.list(len, |r| r.text().map(<[u8]>::to_vec))?;
    let data = if is_leaf {
        Data::Leaf(reader.list(len, |r| r.text().map(<[u8]>::to_vec))?)
    } else {
        Data::Index(reader.list(len, Bytes::number)?)
    };
    (prefix_len <= lo.len()).then_some(Node { next, merging_child, prefix_len, lo, hi, keys, data })
}

impl Node {
    /// Makes the change that a link describes; `None` if it does not fit.
    pub(super) fn apply(&mut self, link: &[u8]) -> Option<()> {
        let mut reader = Bytes(link);
        match reader.byte()? {
            0 => {
                let (key, value) = (reader.text()?, reader.text()?);
                let Data::Leaf(values) = &mut self.data else { return None };
                match self.keys.binary_search_by(|k| k.as_slice().cmp(key)) {
                    Ok(at) => values[at] = value.to_vec(),
                    Err(at) => {
                        self.keys.insert(at, key.to_vec());
                        values.insert(at, value.to_vec());
                    }
                }
            }
            1 => {
                let key = reader.text()?;
                let Data::Leaf(values) = &mut self.data else { return None };
                if let Ok(at) = self.keys.binary_search_by(|k| k.as_slice().cmp(key)) {
                    self.keys.remove(at);
                    values.remove(at);
                }
            }
            2 => self.merging_child = Some(reader.number()?),
            3 => {
                let child = self.merging_child.take()?;
                let Data::Index(pages) = &mut self.data else { return None };
                let at = pages.iter().position(|page| *page == child)?;
                pages.remove(at);
                self.keys.remove(at);
            }
            // It is being merged into its neighbour.
            4 => {}
            _ => return None,
        }
        Some(())
    }

    /// Whole keys and values of a leaf, in order; nothing of an index.
    pub(super) fn into_entries(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Node { lo, prefix_len, keys, data, .. } = self;
        let Data::Leaf(values) = data else { return Vec::new() };
        let whole = |key: Vec<u8>| {
            let mut whole = lo[..prefix_len].to_vec();
            whole.extend_from_slice(&key);
            whole
        };
        keys.into_iter().map(whole).zip(values).collect()
    }

    /// Pages that an index points to.
    pub(super) fn children(&self) -> &[u64] {
        match &self.data {
            Data::Leaf(_) => &[],
            Data::Index(pages) => pages,
        }
    }
}

/// Where a change to a page stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its log sequence number.
    pub(super) lsn: u64,
    /// Its byte in the log.
    pub(super) offset: u64,
}

/// What is known of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Page {
    /// No message of the log tells of it.
    #[default]
    Unknown,
    Free(Place),
    /// The whole page first, then changes to it.
    Present(Vec<Place>),
}

/// The table of pages that sled wrote when it opened the log.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Everything before it is in `pages`.
    pub(super) stable: Option<u64>,
    pub(super) pages: Vec<Page>,
}

/// `None` if the checksum does not fit.
pub(super) fn snapshot(file: &[u8]) -> Option<Snapshot> {
    /// Length and checksum at the end.
    const TRAILER_BYTES: usize = 12;
    let (bytes, mut trailer) =
        file.split_at_checked(file.len().checked_sub(TRAILER_BYTES)?).map(|(b, t)| (b, Bytes(t)))?;
    let len = trailer.i64()?;
    if usize::try_from(len).ok()? != bytes.len() || crc32fast::hash(bytes) != trailer.u32()? {
        return None;
    }
    let mut reader = Bytes(bytes);
    let stable = match reader.i64()? {
        0 => None,
        shifted => Some(u64::try_from(shifted).ok()? - 1),
    };
    reader.number()?;
    let mut pages = Vec::new();
    while !reader.0.is_empty() {
        pages.push(page_state(&mut reader)?);
    }
    Some(Snapshot { stable, pages })
}

fn page_state(reader: &mut Bytes<'_>) -> Option<Page> {
    match usize::from(reader.byte()?) {
        0 => Some(Page::Free(place(reader)?)),
        len => {
            debug_assert!(len < PLACES_MAX);
            let places = reader.list(len, |r| {
                let place = place(r)?;
                r.number().map(|_size| place)
            })?;
            Some(Page::Present(places))
        }
    }
}

fn place(reader: &mut Bytes<'_>) -> Option<Place> {
    let lsn = u64::try_from(reader.i64()?).ok()?;
    let is_blob = match reader.byte()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let offset = reader.number()?;
    if is_blob {
        reader.i64()?;
    }
    Some(Place { lsn, offset })
}

#[cfg(test)]
pub(super) mod tests;
