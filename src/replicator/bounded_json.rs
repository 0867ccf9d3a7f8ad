//! JSON of a peer that cannot unfold in memory: arrays are read item by item, no more of them than the caller takes, and
//! an item stays text until somebody asks for it. `[0,0,0,...]` as a tree of values takes sixteen times its text.

#![deny(clippy::disallowed_methods)]

use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

/// What an array beyond the limit is refused with, to be told from malformed text.
const TOO_LONG: &str = "more items than are accepted";

/// Why an array was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListError {
    /// It is not the JSON that belongs there.
    Malformed,
    /// It has more items than are accepted.
    TooLong,
}

impl From<serde_json::Error> for ListError {
    fn from(error: serde_json::Error) -> ListError {
        match error.to_string().starts_with(TOO_LONG) {
            true => ListError::TooLong,
            false => ListError::Malformed,
        }
    }
}

/// The items of an array as text, at most `max`.
pub(super) fn items(text: &[u8], max: usize) -> Result<Vec<&RawValue>, ListError> {
    read(text, Items { max, of: PhantomData })
}

/// An array of arrays, at most `max`, with the first `N` items of each; further ones are skipped.
pub(super) fn rows<const N: usize>(
    text: &[u8],
    max: usize,
) -> Result<Vec<[Option<&RawValue>; N]>, ListError> {
    let rows = read(text, Items::<Row<'_, N>> { max, of: PhantomData })?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// The value of `key` in an object, as text; of several the last.
pub(super) fn member<'de>(text: &'de [u8], key: &str) -> Result<Option<&'de RawValue>, ListError> {
    read(text, Member { key })
}

/// The first `max` items of an array, as text; what follows is skipped.
pub(super) fn first_items(text: &[u8], max: usize) -> Vec<&RawValue> {
    read(text, FirstItems { max }).unwrap_or_default()
}

/// A string; `None` if it is none.
pub(super) fn string(item: &RawValue) -> Option<String> {
    serde_json::from_str(item.get()).ok()
}

fn read<'de, S: DeserializeSeed<'de>>(text: &'de [u8], seed: S) -> Result<S::Value, ListError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// An array of no more than `max` items.
struct Items<T> {
    max: usize,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Items<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element()? {
            if items.len() >= self.max {
                return Err(A::Error::custom(TOO_LONG));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// The first items of an array.
struct Row<'de, const N: usize>([Option<&'de RawValue>; N]);

impl<'de, const N: usize> Deserialize<'de> for Row<'de, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Row<'de, N>, D::Error> {
        let mut row = [None; N];
        let items = deserializer.deserialize_seq(FirstItems { max: N })?;
        row.iter_mut().zip(items).for_each(|(place, item)| *place = Some(item));
        Ok(Row(row))
    }
}

/// The first items of an array; the rest is only checked for being JSON.
struct FirstItems {
    max: usize,
}

impl<'de> DeserializeSeed<'de> for FirstItems {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<&'de RawValue>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FirstItems {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<&'de RawValue>, A::Error> {
        let mut items = Vec::new();
        while items.len() < self.max {
            let Some(item) = array.next_element()? else { return Ok(items) };
            items.push(item);
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(items)
    }
}

/// One member of an object.
struct Member<'k> {
    key: &'k str,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = object.next_key_seed(IsKey(self.key))? {
            match is_wanted {
                true => found = Some(object.next_value()?),
                false => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Whether a key is this one; the key itself is not kept.
struct IsKey<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[&RawValue]) -> Vec<String> {
        items.iter().map(|item| item.get().to_owned()).collect()
    }

    #[test]
    fn arrays_are_read_up_to_their_limit() {
        assert_eq!(
            items(b" [1, \"a\" ,[2,3]] ", 3).map(|i| texts(&i)),
            Ok(vec!["1".into(), "\"a\"".into(), "[2,3]".into()])
        );
        assert_eq!(items(b"[1,2,3,4]", 3).err(), Some(ListError::TooLong));
        assert_eq!(items(b"[1,2", 3).err(), Some(ListError::Malformed));
        assert_eq!(items(b"[1] 2", 3).err(), Some(ListError::Malformed));
        assert_eq!(items(b"{}", 3).err(), Some(ListError::Malformed));
        let read = rows::<2>(b"[[1],[2,3,{\"x\":4}],[]]", 3).expect("rows");
        let read: Vec<Vec<String>> =
            read.iter().map(|row| texts(&row.iter().flatten().copied().collect::<Vec<_>>())).collect();
        assert_eq!(read, [vec!["1".to_owned()], vec!["2".into(), "3".into()], vec![]]);
        assert_eq!(rows::<2>(b"[[1],[2],3]", 3).err(), Some(ListError::Malformed));
        assert_eq!(texts(&first_items(b"[1,2,3,4]", 2)), ["1", "2"]);
        assert_eq!(texts(&first_items(b"{}", 2)), Vec::<String>::new());
    }

    #[test]
    fn members_are_found() {
        let text = br#"{"a":[1],"\u0062":2,"b":{"a":3},"n":1.50}"#;
        assert_eq!(member(text, "b").expect("an object").map(RawValue::get), Some(r#"{"a":3}"#));
        assert_eq!(member(text, "x").expect("an object").map(RawValue::get), None);
        assert_eq!(member(b"[]", "x").err(), Some(ListError::Malformed));
    }
}
