//! The properties of a message: an ordered list of pairs of text, kept in the form they have on the wire.

use std::borrow::Cow;
use std::fmt;

/// Ordered pairs of text, encoded as `key NUL value NUL ...`.
///
/// Lookups scan; a message has about ten properties. A NUL cannot be expressed: [`Properties::set`] writes U+FFFD in its
/// place, so that no value can pose as another property.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    text: String,
}

impl Properties {
    /// No properties.
    pub fn new() -> Properties {
        Properties::default()
    }

    /// The properties of a request of this profile.
    pub fn of_profile(profile: &str) -> Properties {
        Properties::new().with("Profile", profile)
    }

    /// Adds a pair or replaces the value of the first pair with this key; for building in one expression.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Properties {
        self.set(key, value);
        self
    }

    /// Adds a pair or replaces the value of the first pair with this key.
    pub fn set(&mut self, key: &str, value: &str) {
        let (key, value) = (without_nul(key), without_nul(value));
        if let Some((start, end)) = self.find(&key) {
            self.text.replace_range(start..end, &value);
            return;
        }
        self.text.reserve(key.len() + value.len() + 2);
        self.text.push_str(&key);
        self.text.push('\0');
        self.text.push_str(&value);
        self.text.push('\0');
    }

    /// The first value of this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Whether the key's value is `true` or `1`.
    pub fn get_bool(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1"))
    }

    /// The `Profile` property, which names the type of a request; empty if there is none.
    pub fn profile(&self) -> &str {
        self.get("Profile").unwrap_or_default()
    }

    /// All pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.text.split_terminator('\0');
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    /// The encoded form, without its length.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Reads the encoded form; `None` unless it is UTF-8 and made of whole pairs.
    pub fn parse(bytes: &[u8]) -> Option<Properties> {
        let text = std::str::from_utf8(bytes).ok()?;
        let terminators = bytes.iter().filter(|b| **b == 0).count();
        let whole = terminators % 2 == 0 && (bytes.is_empty() || bytes.ends_with(&[0]));
        whole.then(|| Properties { text: text.to_owned() })
    }

    /// Where the first value of `key` stands.
    fn find(&self, key: &str) -> Option<(usize, usize)> {
        let mut at = 0;
        for (k, value) in self.iter() {
            let start = at + k.len() + 1;
            let end = start + value.len();
            if k == key {
                return Some((start, end));
            }
            at = end + 1;
        }
        None
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Properties {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(pairs: T) -> Properties {
        let mut properties = Properties::new();
        for (key, value) in pairs {
            properties.set(key, value);
        }
        properties
    }
}

fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_list(pairs: Vec<(String, String)>) {
            let mut model: Vec<(String, String)> = Vec::new();
            let mut properties = Properties::new();
            for (key, value) in &pairs {
                properties.set(key, value);
                let (key, value) = (key.replace('\0', "\u{fffd}"), value.replace('\0', "\u{fffd}"));
                match model.iter_mut().find(|(k, _)| *k == key) {
                    Some(pair) => pair.1 = value,
                    None => model.push((key, value)),
                }
            }
            let seen: Vec<_> = properties.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(&seen, &model);
            for (key, value) in &model {
                prop_assert_eq!(properties.get(key), Some(value.as_str()));
            }
            let collected: Properties = pairs.iter().map(|(key, value)| (&**key, &**value)).collect();
            prop_assert_eq!(&collected, &properties);
            prop_assert_eq!(Properties::parse(properties.as_bytes()), Some(properties));
        }

        #[test]
        fn parse_is_the_inverse_or_refuses(bytes: Vec<u8>) {
            if let Some(properties) = Properties::parse(&bytes) {
                prop_assert_eq!(properties.as_bytes(), &bytes[..]);
                prop_assert_eq!(properties.iter().count() * 2, bytes.iter().filter(|b| **b == 0).count());
            }
        }
    }

    #[test]
    fn refuses_half_pairs() {
        for bad in [&b"key"[..], b"key\0", b"key\0value", b"k\0v\0k\0", b"\xff\0v\0"] {
            assert_eq!(Properties::parse(bad), None, "{bad:?}");
        }
        let empty_names = Properties::parse(b"\0\0").expect("a pair of empty strings");
        assert_eq!(empty_names.get(""), Some(""));
    }
}
