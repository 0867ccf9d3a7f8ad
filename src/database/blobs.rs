//! Blobs that a document names. Their content is not kept by this release, so a document that comes with one is not whole.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeSeed};

/// What the digest of a blob begins with.
const DIGEST_PREFIX: &str = "sha1-";

/// Bytes of a SHA-1 digest.
const DIGEST_BYTES: usize = 20;

/// Longest text that has to be looked at: a digest, and some more.
const TEXT_BYTES_MAX: usize = 64;

/// The digest of the first blob that a body in JSON names, at any depth: an object with `"@type": "blob"` and a digest.
/// `None` also if the text is no JSON, which others refuse.
pub(super) fn first_blob(body: &[u8]) -> Option<String> {
    // Most documents name none, and this is cheaper than reading them.
    let has = |part: &[u8]| memchr::memmem::find(body, part).is_some();
    if !has(DIGEST_PREFIX.as_bytes()) && !has(b"\\u") {
        return None;
    }
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let _ = Seek { found: &mut found }.deserialize(&mut deserializer);
    found
}

fn is_digest(text: &str) -> bool {
    let digest = text.strip_prefix(DIGEST_PREFIX).and_then(|base64| STANDARD.decode(base64).ok());
    digest.is_some_and(|digest| digest.len() == DIGEST_BYTES)
}

/// Reads any value and gives short texts back.
struct Seek<'f> {
    found: &'f mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Option<String>, A::Error> {
        let (mut is_blob, mut digest) = (false, None);
        while let Some(Key(key)) = object.next_key()? {
            if self.found.is_some() {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let text = object.next_value_seed(Seek { found: self.found })?;
            match &*key {
                "@type" => is_blob = text.as_deref() == Some("blob"),
                "digest" => digest = text.filter(|text| is_digest(text)),
                _ => {}
            }
        }
        if is_blob && self.found.is_none() {
            *self.found = digest;
        }
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Option<String>, A::Error> {
        while array.next_element_seed(Seek { found: self.found })?.is_some() {}
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<String>, E> {
        Ok((text.len() <= TEXT_BYTES_MAX).then(|| text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<String>, E> {
        Ok(None)
    }
}

/// A key, borrowed where the text allows.
#[derive(Deserialize)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha1-ngzb/4/InltE+Pwc9BBKtyi1sCU=";

    #[test]
    fn finds_a_blob_wherever_it_stands_and_nothing_else() {
        let blob = format!(r#"{{"digest":"{DIGEST}","length":40,"@type":"blob"}}"#);
        for body in [
            format!(r#"{{"pic":{blob}}}"#),
            blob.clone(),
            format!(r#"{{"a":[1,[{blob},{{}}]],"b":null}}"#),
            format!(r#"{{"a":{{"more":{blob},"@type":"x"}},"z":1.5}}"#),
            blob.replace("@type", "\\u0040type").replace("sha1", "\\u0073ha1"),
        ] {
            assert_eq!(first_blob(body.as_bytes()).as_deref(), Some(DIGEST), "{body}");
        }
        for body in [
            "{}".to_owned(),
            format!(r#"{{"digest":"{DIGEST}"}}"#),
            format!(r#"{{"@type":"blob","other":{{"digest":"{DIGEST}"}}}}"#),
            format!(r#"{{"@type":"Blob","digest":"{DIGEST}"}}"#),
            r#"{"@type":"blob","digest":"sha1-short"}"#.to_owned(),
            r#"{"@type":"blob","digest":["sha1-"]}"#.to_owned(),
            format!("[{DIGEST}"),
            format!(r#"{{"a":{}"{DIGEST}"{}}}"#, "[".repeat(5_000), "]".repeat(5_000)),
        ] {
            assert_eq!(first_blob(body.as_bytes()), None, "{body}");
        }
    }
}
