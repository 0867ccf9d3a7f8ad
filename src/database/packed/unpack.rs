//! Stored bytes into JSON text or a JSON map. Every byte may be damaged: `None` says so.

use std::io::Write;

use serde_json::{Map, Number, Value};

use super::format::{Names, Reader, tag};
use super::pack::POWERS_OF_TEN;
use crate::replica::DOCUMENT_DEPTH_MAX;
use crate::replica::validate::Count;

/// Items reserved for at most before they were seen: a damaged count must not allocate.
const RESERVE_MAX: usize = 256;

/// Turns packed bodies of one document back.
pub(crate) struct Unpacker<'a> {
    pub(super) names: &'a Names,
    id: &'a str,
}

impl<'a> Unpacker<'a> {
    /// For bodies of the document `id`, packed with `names`.
    pub(crate) fn new(names: &'a Names, id: &'a str) -> Unpacker<'a> {
        Unpacker { names, id }
    }

    /// The body as a map.
    pub(crate) fn map(&self, packed: &[u8]) -> Option<Map<String, Value>> {
        let mut reader = Reader::new(packed);
        match self.value(&mut reader, 1)? {
            Value::Object(map) if reader.remaining() == 0 => Some(map),
            _ => None,
        }
    }

    /// The body as JSON text.
    pub(crate) fn json(&self, packed: &[u8]) -> Option<Vec<u8>> {
        // JSON of sensor records is about three times their packed size.
        let mut out = Vec::with_capacity(packed.len().saturating_mul(3));
        self.write_json(packed, &mut out)?;
        Some(out)
    }

    /// Writes the body as JSON text.
    fn write_json(&self, packed: &[u8], out: &mut impl Write) -> Option<()> {
        let mut reader = Reader::new(packed);
        if packed.first() != Some(&tag::OBJECT) {
            return None;
        }
        self.value_json(&mut reader, 1, out)?;
        (reader.remaining() == 0).then_some(())
    }

    fn key<'k, 'r: 'k>(&'k self, reader: &mut Reader<'r>) -> Option<&'k str> {
        match reader.number()? {
            0 => reader.text(),
            number => self.names.name(number),
        }
    }

    pub(super) fn value(&self, reader: &mut Reader<'_>, depth: usize) -> Option<Value> {
        Some(match reader.byte()? {
            tag::NULL => Value::Null,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::INTEGER => Value::from(reader.zigzag()?),
            tag::UNSIGNED => Value::from(reader.varint()?),
            tag @ tag::WHOLE..=tag::DOUBLE => Value::Number(Number::from_f64(read_float(tag, reader)?)?),
            tag::TEXT => Value::from(reader.text()?),
            tag::DOCUMENT_ID => Value::from(self.id),
            tag::ARRAY if depth <= DOCUMENT_DEPTH_MAX => {
                let count = reader.length()?;
                let mut items = Vec::with_capacity(count.min(RESERVE_MAX));
                for _ in 0..count {
                    items.push(self.value(reader, depth + 1)?);
                }
                Value::Array(items)
            }
            tag::OBJECT if depth <= DOCUMENT_DEPTH_MAX => {
                let mut map = Map::new();
                for _ in 0..reader.length()? {
                    let key = self.key(reader)?.to_owned();
                    map.insert(key, self.value(reader, depth + 1)?);
                }
                Value::Object(map)
            }
            _ => return None,
        })
    }

    fn value_json(&self, reader: &mut Reader<'_>, depth: usize, out: &mut impl Write) -> Option<()> {
        match reader.byte()? {
            tag::NULL => out.write_all(b"null").ok(),
            tag::FALSE => out.write_all(b"false").ok(),
            tag::TRUE => out.write_all(b"true").ok(),
            tag::INTEGER => write_number(out, Number::from(reader.zigzag()?)),
            tag::UNSIGNED => write_number(out, Number::from(reader.varint()?)),
            tag @ tag::WHOLE..=tag::DOUBLE => write_number(out, Number::from_f64(read_float(tag, reader)?)?),
            tag::TEXT => write_text(out, reader.text()?),
            tag::DOCUMENT_ID => write_text(out, self.id),
            tag::ARRAY if depth <= DOCUMENT_DEPTH_MAX => {
                out.write_all(b"[").ok()?;
                for index in 0..reader.length()? {
                    if index > 0 {
                        out.write_all(b",").ok()?;
                    }
                    self.value_json(reader, depth + 1, out)?;
                }
                out.write_all(b"]").ok()
            }
            tag::OBJECT if depth <= DOCUMENT_DEPTH_MAX => {
                out.write_all(b"{").ok()?;
                for index in 0..reader.length()? {
                    if index > 0 {
                        out.write_all(b",").ok()?;
                    }
                    write_text(out, self.key(reader)?)?;
                    out.write_all(b":").ok()?;
                    self.value_json(reader, depth + 1, out)?;
                }
                out.write_all(b"}").ok()
            }
            _ => None,
        }
    }
}

/// Reads a float behind its tag.
pub(crate) fn read_float(tag: u8, reader: &mut Reader<'_>) -> Option<f64> {
    let places = match tag {
        tag::WHOLE => 0,
        tag::TENTHS => 1,
        tag::HUNDREDTHS => 2,
        tag::THOUSANDTHS => 3,
        tag::DECIMAL => usize::from(reader.byte()?),
        _ => return Some(f64::from_le_bytes(reader.take(8)?.try_into().ok()?)),
    };
    Some(reader.zigzag()? as f64 / POWERS_OF_TEN.get(places)?)
}

fn write_number(out: &mut impl Write, number: Number) -> Option<()> {
    serde_json::to_writer(out, &number).ok()
}

fn write_text(out: &mut impl Write, text: &str) -> Option<()> {
    serde_json::to_writer(out, text).ok()
}

/// Length in bytes of the body as JSON text.
pub(crate) fn json_len(unpacker: &Unpacker<'_>, packed: &[u8]) -> Option<u64> {
    let mut count = Count(0);
    unpacker.write_json(packed, &mut count)?;
    Some(count.0)
}
