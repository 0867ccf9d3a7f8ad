//! Numbers, strings and field names as a stored body has them.

use std::collections::HashMap;

/// Most field names that get a number; further names are written out in each record, so that no peer can grow the
/// table without bound.
pub(crate) const NAMES_MAX: usize = 4096;

/// Longest field name that gets a number, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 64;

/// Tags of values: the postcard discriminants of `Shape`.
pub(crate) mod tag {
    pub(crate) const NULL: u8 = 0;
    pub(crate) const FALSE: u8 = 1;
    pub(crate) const TRUE: u8 = 2;
    pub(crate) const INTEGER: u8 = 3;
    pub(crate) const UNSIGNED: u8 = 4;
    pub(crate) const WHOLE: u8 = 5;
    pub(crate) const TENTHS: u8 = 6;
    pub(crate) const HUNDREDTHS: u8 = 7;
    pub(crate) const THOUSANDTHS: u8 = 8;
    pub(crate) const DECIMAL: u8 = 9;
    pub(crate) const DOUBLE: u8 = 10;
    pub(crate) const TEXT: u8 = 11;
    pub(crate) const DOCUMENT_ID: u8 = 12;
    pub(crate) const ARRAY: u8 = 13;
    pub(crate) const OBJECT: u8 = 14;
}

/// Field names and their numbers, from 1.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Box<str>, u32>,
    names: Vec<Box<str>>,
}

impl Names {
    /// The number of a name that has one.
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The name of a number.
    pub(crate) fn name(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.names.get(index).map(|name| &**name)
    }

    /// Whether `name` may get a number.
    pub(crate) fn admits(&self, name: &str) -> bool {
        self.names.len() < NAMES_MAX && name.len() <= NAME_LEN_MAX
    }

    /// Gives `name` the next number unless it has one; 0 if the table is full or the name too long.
    pub(crate) fn intern(&mut self, name: &str) -> u32 {
        if let Some(number) = self.number(name) {
            return number;
        }
        if !self.admits(name) {
            return 0;
        }
        self.names.push(name.into());
        let number = u32::try_from(self.names.len()).unwrap_or(0);
        self.numbers.insert(name.into(), number);
        number
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

/// Appends an unsigned LEB128 number, as postcard writes all unsigned integers.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number in zigzag form.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a string with its length.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what the `put_` functions wrote; `None` means damage.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        const BITS_PER_BYTE: u32 = 7;
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += BITS_PER_BYTE;
            if shift > 63 {
                return None;
            }
        }
    }

    /// A varint that fits an index; larger ones are damage.
    pub(crate) fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    pub(crate) fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(head)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let len = self.length()?;
        std::str::from_utf8(self.take(len)?).ok()
    }
}
