//! Columns of any bytes: one value behind the other with where each ends, or a few different ones and which stands where.

use super::super::packed::{Reader, put_varint};
use super::numbers::{self, Numbers};

/// Bytes one behind the other.
#[derive(Debug)]
pub(super) struct Any<'a> {
    count: usize,
    ends: Numbers<'a>,
    bytes: &'a [u8],
}

impl<'a> Any<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Option<Any<'a>> {
        let ends = Numbers::read(reader, count)?;
        Some(Any { count, ends, bytes: take(reader)? })
    }

    /// What stands at a place, which may be any: it may come out of another column.
    pub(super) fn get(&self, at: usize) -> Option<&'a [u8]> {
        if at >= self.count {
            return None;
        }
        let from = match at.checked_sub(1) {
            None => 0,
            Some(before) => self.ends.index(before)?,
        };
        self.bytes.get(from..self.ends.index(at)?)
    }
}

/// A few different ones, and which of them stands at each place.
#[derive(Debug)]
pub(super) struct Few<'a> {
    different: Any<'a>,
    which: Numbers<'a>,
}

impl<'a> Few<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Option<Few<'a>> {
        let few = reader.length().filter(|few| *few <= count)?;
        Some(Few { different: Any::read(reader, few)?, which: Numbers::read(reader, count)? })
    }

    pub(super) fn get(&self, at: usize) -> Option<&'a [u8]> {
        self.different.get(self.which.index(at)?)
    }
}

/// Appends a column of a few different ones.
pub(super) fn write_few(different: &[&[u8]], which: &[u64], out: &mut Vec<u8>) {
    put_varint(out, different.len() as u64);
    write_any(different.iter().copied(), out);
    numbers::write(which, out);
}

/// Appends a column of any bytes.
pub(super) fn write_any<'v>(values: impl Iterator<Item = &'v [u8]> + Clone, out: &mut Vec<u8>) {
    let mut end = 0;
    let ends: Vec<u64> = values
        .clone()
        .map(|value| {
            end += value.len() as u64;
            end
        })
        .collect();
    numbers::write(&ends, out);
    put_varint(out, end);
    values.for_each(|value| out.extend_from_slice(value));
}

/// Bytes behind their length.
pub(super) fn take<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = reader.length()?;
    reader.take(len)
}
