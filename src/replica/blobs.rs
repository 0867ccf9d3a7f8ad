//! Blobs: content that a document names by its digest, and that is stored and sent beside it.
//!
//! A document names one by an object `{"@type": "blob", "digest": "sha1-...", "length": N, "content_type": "..."}` at any
//! depth, as Couchbase Lite does.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeSeed};

/// What the digest of a blob begins with.
const DIGEST_PREFIX: &str = "sha1-";

/// Bytes of a SHA-1 digest.
const DIGEST_BYTES: usize = 20;

/// Longest text that has to be looked at: a digest or a content type.
const TEXT_BYTES_MAX: usize = 200;

/// Most blobs that one document may name.
pub const BLOBS_MAX: usize = 1_000;

/// The SHA-1 of a blob's content: its name, written as `sha1-` and 28 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobDigest(pub [u8; DIGEST_BYTES]);

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DIGEST_PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no digest of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no digest of a blob: that is `sha1-` and 28 characters of base64")]
pub struct BadDigest;

impl FromStr for BlobDigest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<BlobDigest, BadDigest> {
        let bytes = text.strip_prefix(DIGEST_PREFIX).and_then(|base64| STANDARD.decode(base64).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map(BlobDigest).ok_or(BadDigest)
    }
}

/// A blob as a document names it. Only the digest is sure: the rest is what the document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobName {
    /// Of its content.
    pub digest: BlobDigest,
    /// Bytes of its content.
    pub length: Option<u64>,
    /// Its MIME type.
    pub content_type: Option<String>,
}

/// What a store has of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// All of it, so many bytes.
    Whole(u64),
    /// Its first bytes, so many, on stable storage or not; 0 if nothing.
    Part(u64),
}

/// The blobs that a body in JSON names, each once, in the order of the text; at most [`BLOBS_MAX`] and one more, so that too
/// many are seen. None also if the text is no JSON, which others refuse.
pub fn blobs_in(body: &[u8]) -> Vec<BlobName> {
    // Most documents name none, and this is cheaper than reading them.
    let has = |part: &[u8]| memchr::memmem::find(body, part).is_some();
    let mut found = Vec::new();
    if has(DIGEST_PREFIX.as_bytes()) || has(b"\\u") {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let _ = Seek { found: &mut found }.deserialize(&mut deserializer);
    }
    found
}

/// What a blob's description needs of a value.
enum Seen {
    Text(String),
    Number(u64),
    Other,
}

/// Reads any value and notes the blobs in it; gives short texts and whole numbers back.
struct Seek<'f> {
    found: &'f mut Vec<BlobName>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Seen, A::Error> {
        let (mut is_blob, mut digest, mut length, mut content_type) = (false, None, None, None);
        while let Some(Key(key)) = object.next_key()? {
            if self.found.len() > BLOBS_MAX {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let seen = object.next_value_seed(Seek { found: self.found })?;
            match (&*key, seen) {
                ("@type", Seen::Text(text)) => is_blob = text == "blob",
                ("@type", _) => is_blob = false,
                ("digest", Seen::Text(text)) => digest = text.parse::<BlobDigest>().ok(),
                ("digest", _) => digest = None,
                ("length", Seen::Number(number)) => length = Some(number),
                ("content_type", Seen::Text(text)) => content_type = Some(text),
                _ => {}
            }
        }
        if let Some(digest) = digest.filter(|_| is_blob)
            && self.found.iter().all(|blob| blob.digest != digest)
        {
            self.found.push(BlobName { digest, length, content_type });
        }
        Ok(Seen::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Seen, A::Error> {
        while array.next_element_seed(Seek { found: self.found })?.is_some() {}
        Ok(Seen::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Seen, E> {
        Ok(if text.len() <= TEXT_BYTES_MAX { Seen::Text(text.to_owned()) } else { Seen::Other })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Seen, E> {
        Ok(Seen::Number(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Other)
    }
}

/// A key, borrowed where the text allows.
#[derive(Deserialize)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha1-ngzb/4/InltE+Pwc9BBKtyi1sCU=";
    const OTHER: &str = "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=";

    #[test]
    fn finds_a_blob_wherever_it_stands_and_nothing_else() {
        let blob = format!(r#"{{"digest":"{DIGEST}","length":40,"@type":"blob"}}"#);
        for body in [
            format!(r#"{{"pic":{blob}}}"#),
            blob.clone(),
            format!(r#"{{"a":[1,[{blob},{{}}]],"b":null}}"#),
            format!(r#"{{"a":{{"more":{blob},"@type":"x"}},"z":[1.5,-1,true,{blob}]}}"#),
            blob.replace("@type", "\\u0040type").replace("sha1", "\\u0073ha1"),
        ] {
            let digest = DIGEST.parse().expect("a digest");
            let name = BlobName { digest, length: Some(40), content_type: None };
            assert_eq!(blobs_in(body.as_bytes()), [name], "{body}");
        }
        for body in [
            "{}".to_owned(),
            format!(r#"{{"digest":"{DIGEST}"}}"#),
            format!(r#"{{"@type":"blob","other":{{"digest":"{DIGEST}"}}}}"#),
            format!(r#"{{"@type":"Blob","digest":"{DIGEST}"}}"#),
            format!(r#"{{"@type":"blob","digest":"{DIGEST}","@type":1}}"#),
            r#"{"@type":"blob","digest":"sha1-short"}"#.to_owned(),
            r#"{"@type":"blob","digest":["sha1-"]}"#.to_owned(),
            format!("[{DIGEST}"),
            format!(r#"{{"a":{}"{DIGEST}"{}}}"#, "[".repeat(5_000), "]".repeat(5_000)),
        ] {
            assert_eq!(blobs_in(body.as_bytes()), [], "{body}");
        }
    }

    #[test]
    fn all_that_a_document_names_are_found_once_each_and_a_bounded_number() {
        let blob = |digest: &str| {
            format!(r#"{{"content_type":"text/plain","digest":"{digest}","length":-1,"@type":"blob"}}"#)
        };
        let body = format!(r#"{{"a":{},"b":[{},{}]}}"#, blob(DIGEST), blob(OTHER), blob(DIGEST));
        let found = blobs_in(body.as_bytes());
        let digests: Vec<String> = found.iter().map(|blob| blob.digest.to_string()).collect();
        assert_eq!(digests, [DIGEST, OTHER]);
        assert_eq!(found[0].content_type.as_deref(), Some("text/plain"));
        assert_eq!(found[0].length, None, "no length is below 0");
        let many = (0..BLOBS_MAX + 9).map(|n| {
            let mut digest = [0; DIGEST_BYTES];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            blob(&BlobDigest(digest).to_string())
        });
        let body = format!("[{}]", many.collect::<Vec<_>>().join(","));
        assert_eq!(blobs_in(body.as_bytes()).len(), BLOBS_MAX + 1);
    }
}
