//! JSON text or a JSON map into stored bytes.

use std::collections::HashSet;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::format::{Names, put_text, put_varint, put_zigzag, tag};
use crate::replica::clip;
use crate::replica::validate::{Invalid, check_depth, check_key};

/// Members up to which duplicates are found by comparing each with each; above, by a set.
const COMPARE_EACH_MAX: usize = 24;

/// Digits after the point up to which a float is tried as a decimal; sensors seldom give more.
const DECIMAL_PLACES_MAX: u8 = 9;

/// Powers of ten that are exact doubles, so that mantissa / power is correctly rounded in both directions.
pub(super) const POWERS_OF_TEN: [f64; DECIMAL_PLACES_MAX as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Largest magnitude of a mantissa: whole numbers up to here are exact doubles.
const MANTISSA_MAX: f64 = 9_007_199_254_740_992.0;

/// Appends the packed form of a JSON object in text. On error `out` holds a meaningless part.
///
/// # Errors
/// What is wrong, for people: bad JSON, not an object, a key that none may have or that occurs twice, nested too deep.
pub(crate) fn pack_json(
    text: &[u8],
    id: &str,
    names: &RwLock<Names>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut packer = Packer { out, id, names };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let object = ObjectSeed { packer: &mut packer };
    object.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(|e| e.to_string())
}

/// Appends the packed form of a JSON map, like [`pack_json`].
///
/// # Errors
/// A key that none may have, nested too deep.
pub(crate) fn pack_map(
    map: &Map<String, Value>,
    id: &str,
    names: &RwLock<Names>,
    out: &mut Vec<u8>,
) -> Result<(), Invalid> {
    Packer { out, id, names }.map(map, 1)
}

struct Packer<'a> {
    out: &'a mut Vec<u8>,
    id: &'a str,
    names: &'a RwLock<Names>,
}

impl Packer<'_> {
    fn text(&mut self, text: &str) {
        if text == self.id {
            self.out.push(tag::DOCUMENT_ID);
        } else {
            self.out.push(tag::TEXT);
            put_text(self.out, text);
        }
    }

    fn signed(&mut self, value: i64) {
        self.out.push(tag::INTEGER);
        put_zigzag(self.out, value);
    }

    fn unsigned(&mut self, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.signed(value),
            Err(_) => {
                self.out.push(tag::UNSIGNED);
                put_varint(self.out, value);
            }
        }
    }

    fn float(&mut self, value: f64) {
        put_float(self.out, value);
    }

    /// Writes a member's name; returns its number, 0 if it was written out.
    fn key(&mut self, name: &str) -> u32 {
        let known = {
            let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
            names.number(name).or_else(|| (!names.admits(name)).then_some(0))
        };
        let number =
            known.unwrap_or_else(|| self.names.write().unwrap_or_else(PoisonError::into_inner).intern(name));
        put_varint(self.out, u64::from(number));
        if number == 0 {
            put_text(self.out, name);
        }
        number
    }

    /// Starts an array or object whose count is not known yet; [`Packer::close`] fills it in.
    fn open(&mut self, tag: u8) -> usize {
        self.out.extend([tag, 0]);
        self.out.len() - 1
    }

    fn close(&mut self, count_at: usize, count: usize) {
        if count < 0x80 {
            self.out[count_at] = count as u8;
            return;
        }
        let mut varint = Vec::new();
        put_varint(&mut varint, count as u64);
        self.out.splice(count_at..=count_at, varint);
    }

    fn map(&mut self, map: &Map<String, Value>, depth: usize) -> Result<(), Invalid> {
        check_depth(depth)?;
        self.out.push(tag::OBJECT);
        put_varint(self.out, map.len() as u64);
        for (name, value) in map {
            check_key(name, depth)?;
            self.key(name);
            self.value(value, depth + 1)?;
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Invalid> {
        match value {
            Value::Null => self.out.push(tag::NULL),
            Value::Bool(false) => self.out.push(tag::FALSE),
            Value::Bool(true) => self.out.push(tag::TRUE),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), _, _) => self.signed(value),
                (None, Some(value), _) => self.unsigned(value),
                (None, None, value) => self.float(value.unwrap_or(0.0)),
            },
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                check_depth(depth)?;
                self.out.push(tag::ARRAY);
                put_varint(self.out, items.len() as u64);
                for item in items {
                    self.value(item, depth + 1)?;
                }
            }
            Value::Object(map) => self.map(map, depth)?,
        }
        Ok(())
    }
}

/// Appends a float in the one form that it has.
pub(crate) fn put_float(out: &mut Vec<u8>, value: f64) {
    for (places, power) in (0u8..).zip(POWERS_OF_TEN) {
        let mantissa = (value * power).round();
        if mantissa.abs() > MANTISSA_MAX {
            break;
        }
        // Bits, not values: -0.0 has to stay what it is.
        if (mantissa as i64 as f64 / power).to_bits() == value.to_bits() {
            match places {
                0 => out.push(tag::WHOLE),
                1 => out.push(tag::TENTHS),
                2 => out.push(tag::HUNDREDTHS),
                3 => out.push(tag::THOUSANDTHS),
                _ => out.extend([tag::DECIMAL, places]),
            }
            return put_zigzag(out, mantissa as i64);
        }
    }
    out.push(tag::DOUBLE);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Finds a member name that occurred before, without keeping names when there are few.
#[derive(Default)]
struct Members {
    numbers: Vec<u32>,
    numbered: HashSet<u32>,
    inline: HashSet<Box<str>>,
    count: usize,
}

impl Members {
    /// Whether the member is the first of its name.
    fn add(&mut self, number: u32, name: &str) -> bool {
        self.count += 1;
        if number == 0 {
            return self.inline.insert(name.into());
        }
        if !self.numbered.is_empty() {
            return self.numbered.insert(number);
        }
        if self.numbers.contains(&number) {
            return false;
        }
        self.numbers.push(number);
        if self.numbers.len() > COMPARE_EACH_MAX {
            self.numbered.extend(self.numbers.drain(..));
        }
        true
    }
}

/// The document itself: must be an object.
struct ObjectSeed<'p, 'a> {
    packer: &'p mut Packer<'a>,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(ValueSeed { packer: self.packer, depth: 1, only_object: true })
    }
}

/// Any value at a depth.
struct ValueSeed<'p, 'a> {
    packer: &'p mut Packer<'a>,
    depth: usize,
    only_object: bool,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.only_object { "a JSON object" } else { "a JSON value" })
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.packer.out.push(tag::NULL);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.packer.out.push(if value { tag::TRUE } else { tag::FALSE });
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.packer.signed(value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.packer.unsigned(value);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.packer.float(value);
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.packer.text(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        check_depth(self.depth).map_err(A::Error::custom)?;
        let count_at = self.packer.open(tag::ARRAY);
        let mut count = 0;
        let depth = self.depth + 1;
        while items
            .next_element_seed(ValueSeed { packer: &mut *self.packer, depth, only_object: false })?
            .is_some()
        {
            count += 1;
        }
        self.packer.close(count_at, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        check_depth(self.depth).map_err(A::Error::custom)?;
        let count_at = self.packer.open(tag::OBJECT);
        let mut seen = Members::default();
        let depth = self.depth + 1;
        loop {
            let key = KeySeed { packer: &mut *self.packer, seen: &mut seen, depth: self.depth };
            let Some(()) = members.next_key_seed(key)? else { break };
            members.next_value_seed(ValueSeed { packer: &mut *self.packer, depth, only_object: false })?;
        }
        self.packer.close(count_at, seen.count);
        Ok(())
    }
}

/// A member's name.
struct KeySeed<'p, 'a> {
    packer: &'p mut Packer<'a>,
    seen: &'p mut Members,
    /// Of the object it belongs to.
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        check_key(name, self.depth).map_err(E::custom)?;
        let number = self.packer.key(name);
        if !self.seen.add(number, name) {
            return Err(E::custom(Invalid::KeyTwice(clip(name))));
        }
        Ok(())
    }
}
