//! What a document may be: its ID, its keys, how deep it is nested, how large it is, which numbers it holds. One rule for
//! every way in (local saves, imports, revisions of peers in both protocols), so that whatever is stored can be sent to
//! every peer, a stock Couchbase Lite included. What an older release took stays readable; before it is sent
//! [`check_stored`] says why it cannot be.
//!
//! Source: `firmware-notes/store.md`, limits; observed behaviour of Couchbase Lite.

use std::fmt;
use std::io::{self, Write};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::clip;
use super::limits::{DOCUMENT_BODY_MAX, DOCUMENT_DEPTH_MAX, DOCUMENT_ID_MAX};

/// Bytes that one byte of JSON text may grow to when the store writes it anew: `1e15` becomes `1000000000000000.0`.
const GROWTH_MAX: usize = 8;

/// What Couchbase Lite keeps for itself begins so, IDs as well as top-level keys.
const RESERVED_START: char = '_';

/// Why something cannot be a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    /// The ID.
    #[error("it is empty; every document needs one")]
    IdEmpty,
    /// The ID.
    #[error("it has {actual} bytes, and peers take at most {DOCUMENT_ID_MAX}; choose a shorter one")]
    IdTooLong {
        /// Bytes of UTF-8.
        actual: usize,
    },
    /// The ID.
    #[error("it begins with `_`, which Couchbase Lite keeps for itself; begin it with something else")]
    IdReserved,
    /// The ID.
    #[error("it holds the control character U+{0:04X}, which peers refuse; take it out")]
    IdControl(u32),
    /// A member at the top level. Within values Couchbase Lite takes it.
    #[error("a key at the top level is empty; give it a name")]
    KeyEmpty,
    /// A member at the top level, shortened.
    #[error(
        "the key {0:?} begins with `_`, which Couchbase Lite keeps for itself at the top level; rename it"
    )]
    KeyReserved(String),
    /// A member at any depth, shortened.
    #[error("duplicate key {0:?}; only one of the two could stay")]
    KeyTwice(String),
    /// Objects and arrays.
    #[error("nested deeper than {DOCUMENT_DEPTH_MAX} levels; flatten it")]
    TooDeep,
    /// A whole number, shortened.
    #[error("the number {0} would change: it has more than 64 bits; put it in quotes to keep it as text")]
    Integer(String),
    /// The whole body.
    #[error("{actual} bytes, at most {DOCUMENT_BODY_MAX} can be synced; split it")]
    TooLarge {
        /// Bytes as JSON text.
        actual: usize,
    },
}

/// Checks a document's ID.
pub(crate) fn check_id(id: &str) -> Result<(), Invalid> {
    if id.is_empty() {
        return Err(Invalid::IdEmpty);
    }
    if id.len() > DOCUMENT_ID_MAX {
        return Err(Invalid::IdTooLong { actual: id.len() });
    }
    if id.starts_with(RESERVED_START) {
        return Err(Invalid::IdReserved);
    }
    // Couchbase Lite refuses these and no others: U+007F and what is above pass.
    match id.bytes().find(|byte| *byte < b' ') {
        Some(control) => Err(Invalid::IdControl(control.into())),
        None => Ok(()),
    }
}

/// Checks one key; `depth` counts from 1 for the members of the document itself.
pub(crate) fn check_key(key: &str, depth: usize) -> Result<(), Invalid> {
    match depth {
        1 if key.is_empty() => Err(Invalid::KeyEmpty),
        1 if key.starts_with(RESERVED_START) => Err(Invalid::KeyReserved(clip(key))),
        _ => Ok(()),
    }
}

/// Checks how deep an object or array stands.
pub(crate) fn check_depth(depth: usize) -> Result<(), Invalid> {
    if depth > DOCUMENT_DEPTH_MAX { Err(Invalid::TooDeep) } else { Ok(()) }
}

/// Checks the size of a body in the form that travels: as JSON text that the store writes.
pub(crate) fn check_size(actual: u64) -> Result<(), Invalid> {
    let actual = usize::try_from(actual).unwrap_or(usize::MAX);
    if actual > DOCUMENT_BODY_MAX { Err(Invalid::TooLarge { actual }) } else { Ok(()) }
}

/// Whether JSON text of so many bytes could be too large when the store writes it, so that it has to be measured.
pub(crate) fn may_be_too_large(text_len: usize) -> bool {
    text_len > DOCUMENT_BODY_MAX / GROWTH_MAX
}

/// Checks a body in hand: keys, depth, size. Gives its size as JSON text in bytes.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check_body(body: &Map<String, Value>) -> Result<usize, Invalid> {
    body.keys().try_for_each(|key| check_key(key, 1))?;
    body.values().try_for_each(|value| check_nesting(value, 2))?;
    let mut size = Count(0);
    // Maps with text as keys are always JSON, and counting cannot fail.
    let _ = serde_json::to_writer(&mut size, body);
    check_size(size.0)?;
    Ok(usize::try_from(size.0).unwrap_or(usize::MAX))
}

fn check_nesting(value: &Value, depth: usize) -> Result<(), Invalid> {
    match value {
        Value::Array(items) => {
            check_depth(depth)?;
            items.iter().try_for_each(|item| check_nesting(item, depth + 1))
        }
        Value::Object(members) => {
            check_depth(depth)?;
            members.values().try_for_each(|member| check_nesting(member, depth + 1))
        }
        _ => Ok(()),
    }
}

/// Counts what is written.
pub(crate) struct Count(pub(crate) u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks a stored document before it is sent: a release that took more may have stored it. `body` is the store's own
/// JSON text, if it is at hand; `size` its length.
pub(crate) fn check_stored(id: &str, size: u64, body: Option<&[u8]>) -> Result<(), Invalid> {
    check_id(id)?;
    check_size(size)?;
    body.map_or(Ok(()), check_own_keys)
}

/// Checks the top-level keys of JSON text that the store has written, in which `_` is never escaped.
fn check_own_keys(text: &[u8]) -> Result<(), Invalid> {
    let is_suspect = |pair: &[u8]| pair == b"\"_" || pair == b"\"\"";
    if !text.windows(2).any(is_suspect) {
        return Ok(());
    }
    let mut wrong = None;
    let keys = TopKeys { wrong: &mut wrong };
    // What is no JSON is not this check's business: the store has written it.
    let _ = serde_json::Deserializer::from_slice(text).deserialize_map(keys);
    wrong.map_or(Ok(()), Err)
}

/// Looks at the keys of an object and skips the values.
struct TopKeys<'w> {
    wrong: &'w mut Option<Invalid>,
}

impl<'de> Visitor<'de> for TopKeys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key::<String>()? {
            if let Err(invalid) = check_key(&key, 1) {
                self.wrong.get_or_insert(invalid);
            }
            members.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// The first whole number in JSON text that no 64 bits hold and no double equals: it would be stored as another one.
/// Whatever is not well-formed gives none.
///
/// # Errors
/// [`Invalid::Integer`].
pub(crate) fn check_numbers(text: &[u8]) -> Result<(), Invalid> {
    /// All whole numbers with fewer digits fit.
    const DIGITS_MIN: usize = 19;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = end_of_string(text, at + 1),
            b'-' | b'0'..=b'9' => {
                let number = text[at..].iter().take_while(|b| b"+-.0123456789eE".contains(b)).count();
                let token = &text[at..at + number];
                if number >= DIGITS_MIN && changes(token) {
                    return Err(Invalid::Integer(clip(&String::from_utf8_lossy(token))));
                }
                at += number;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// Where a string ends whose first byte is at `at`: behind its closing quote.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn changes(token: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(token) else { return false };
    let is_whole = !token.contains(['.', 'e', 'E']);
    if !is_whole || token.parse::<i64>().is_ok() || token.parse::<u64>().is_ok() {
        return false;
    }
    // The exact decimal value of the nearest double.
    token.parse::<f64>().is_ok_and(|double| format!("{double:.0}") != token)
}

/// Reads JSON of a person or a program: no key twice, no number that would change, not nested too deep. Which top-level keys
/// an object may have is for [`check_body`], when those that are not the document's are out.
///
/// # Errors
/// With line and column; what is wrong with a document is said as [`Invalid`] says it.
pub(crate) fn parse_json(text: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = ValueSeed { depth: 1 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    check_numbers(text).map_err(serde_json::Error::custom)?;
    Ok(value)
}

/// Any value at a depth.
struct ValueSeed {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        check_depth(self.depth).map_err(A::Error::custom)?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(ValueSeed { depth: self.depth + 1 })? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        check_depth(self.depth).map_err(A::Error::custom)?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(Invalid::KeyTwice(clip(&key))));
            }
            let value = members.next_value_seed(ValueSeed { depth: self.depth + 1 })?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests;
