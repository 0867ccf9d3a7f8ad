//! Packed bodies of one shape: what all have stands once, and what differs in columns.
//!
//! | what | how |
//! |---|---|
//! | beginning | length, the bytes with which all begin |
//! | leaves | count; each a column of values, then length and bytes that all have behind it |

use super::super::packed::{Reader, put_varint, skip, tag};
use super::values::{self, Values};

/// Columns that a body is divided into at most, and items of an array that is divided.
const LEAVES_MAX: usize = 128;
const ITEMS_MAX: usize = 32;

/// Bodies of one shape that are read.
#[derive(Debug)]
pub(super) struct Bodies<'a> {
    beginning: &'a [u8],
    leaves: Vec<(Values<'a>, &'a [u8])>,
}

impl<'a> Bodies<'a> {
    /// Reads `count` bodies.
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Option<Bodies<'a>> {
        let beginning = take(reader)?;
        let len = reader.length().filter(|len| *len <= LEAVES_MAX)?;
        let leaf = |_| Some((Values::read(reader, count)?, take(reader)?));
        Some(Bodies { beginning, leaves: (0..len).map(leaf).collect::<Option<_>>()? })
    }

    /// Appends body `at`, of at most so many bytes. It may be none where the columns are damaged.
    pub(super) fn push(&self, at: usize, bytes_max: usize, out: &mut Vec<u8>) -> Option<()> {
        let from = out.len();
        out.extend_from_slice(self.beginning);
        for (values, behind) in &self.leaves {
            values.push(at, out)?;
            out.extend_from_slice(behind);
            if out.len() - from > bytes_max {
                return None;
            }
        }
        Some(())
    }
}

fn take<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = reader.length()?;
    reader.take(len)
}

/// Writes into `keys` what bodies of one shape have in common: their keys. `None` if it is no body.
pub(super) fn keys_of(body: &[u8], keys: &mut Vec<u8>) -> Option<()> {
    keys.clear();
    if body.is_empty() {
        return Some(());
    }
    let mut reader = Reader::new(body);
    if reader.byte()? != tag::OBJECT {
        return None;
    }
    for _ in 0..reader.length()? {
        keys.extend_from_slice(key(body, &mut reader)?);
        skip(&mut reader, 1)?;
    }
    // An empty object is not nothing.
    keys.push(tag::OBJECT);
    (reader.remaining() == 0).then_some(())
}

/// The next key as it is packed.
fn key<'a>(all: &'a [u8], reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let from = all.len() - reader.remaining();
    if reader.number()? == 0 {
        reader.text()?;
    }
    all.get(from..all.len() - reader.remaining())
}

/// Appends bodies, which are sound; `None` if they are divided into too many columns.
pub(super) fn write(bodies: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut divided = Divided::default();
    if !bodies.iter().all(|body| body.is_empty()) {
        divided.divide(bodies);
    }
    if divided.count > LEAVES_MAX {
        return None;
    }
    let (beginning, rest) = match divided.first {
        None => (divided.common, Vec::new()),
        Some(first) => (first, [&divided.columns[..], &with_len(&divided.common)].concat()),
    };
    out.extend(with_len(&beginning));
    put_varint(out, divided.count as u64);
    out.extend(rest);
    Some(())
}

fn with_len(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    put_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

#[derive(Default)]
struct Divided {
    /// Before the first column.
    first: Option<Vec<u8>>,
    /// The columns, and what stands between them.
    columns: Vec<u8>,
    count: usize,
    /// What all have behind the last column.
    common: Vec<u8>,
}

impl Divided {
    /// Takes the values that all have in one place.
    fn divide(&mut self, values: &[&[u8]]) {
        let first = values[0];
        if values.iter().all(|value| *value == first) {
            return self.common.extend_from_slice(first);
        }
        if self.count > LEAVES_MAX {
            return;
        }
        let Some((head, items)) = items_of(values) else { return self.leaf(values) };
        self.common.extend_from_slice(head);
        for (key, of_all) in items {
            self.common.extend_from_slice(key);
            self.divide(&of_all);
        }
    }

    fn leaf(&mut self, values: &[&[u8]]) {
        let common = std::mem::take(&mut self.common);
        if self.first.is_none() {
            self.first = Some(common);
        } else {
            self.columns.extend(with_len(&common));
        }
        values::write(values, &mut self.columns);
        self.count += 1;
    }
}

/// A key, of an item none, and what each value has there.
type Item<'v> = (&'v [u8], Vec<&'v [u8]>);

/// How values begin and their members or items, if all are objects of the same keys or arrays of one length.
fn items_of<'v>(values: &[&'v [u8]]) -> Option<(&'v [u8], Vec<Item<'v>>)> {
    let first = values[0];
    let kind = first[0];
    let mut reader = Reader::new(first);
    reader.byte().filter(|kind| matches!(*kind, tag::OBJECT | tag::ARRAY))?;
    let count = reader.length().filter(|count| kind == tag::OBJECT || *count <= ITEMS_MAX)?;
    let head = &first[..first.len() - reader.remaining()];
    let mut items: Vec<Item<'v>> = Vec::with_capacity(count.min(LEAVES_MAX));
    for (at, &value) in values.iter().enumerate() {
        let mut reader = Reader::new(value.strip_prefix(head)?);
        for item in 0..count {
            let key = if kind == tag::OBJECT { key(value, &mut reader)? } else { &[] };
            let from = value.len() - reader.remaining();
            skip(&mut reader, 1)?;
            let of_it = &value[from..value.len() - reader.remaining()];
            if at == 0 {
                items.push((key, Vec::with_capacity(values.len())));
            }
            let (of_all, its) = &mut items[item];
            if *of_all != key {
                return None;
            }
            its.push(of_it);
        }
    }
    Some((head, items))
}
