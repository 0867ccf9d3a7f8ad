//! What peers that do not find blobs in a document by themselves, such as Sync Gateway, read of them: a property `_attachments` beside the
//! others, with an entry for each place where a blob stands. A peer asks for the content as ever.

use std::fmt::Write;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::replica::blobs::{BLOBS_MAX, blobs_in};

/// The property, and what the name of a blob that stands elsewhere begins with; a JSON pointer to it follows.
const PROPERTY: &str = "_attachments";
const NAME_PREFIX: &str = "blob_";

/// The body with stubs of its blobs as its last property; `None` if it names none. `generation` is that of the revision; peers take none
/// that is 0.
pub(in crate::replicator) fn with_stubs(body: &[u8], generation: u32) -> Option<Bytes> {
    if blobs_in(body).is_empty() {
        return None;
    }
    let mut stubs = Map::new();
    add_stubs(&serde_json::from_slice(body).ok()?, &mut String::new(), generation.max(1), &mut stubs);
    let before = body.trim_ascii_end().strip_suffix(b"}")?;
    // A body that names a blob has a property.
    let mut whole = before.to_vec();
    whole.extend_from_slice(format!(",\"{PROPERTY}\":{}}}", Value::Object(stubs)).as_bytes());
    Some(whole.into())
}

/// Adds the blobs of a value that stands at `path`, which comes back as it was.
fn add_stubs(value: &Value, path: &mut String, generation: u32, stubs: &mut Map<String, Value>) {
    let len = path.len();
    match value {
        Value::Object(object) => {
            if object.get("@type").is_some_and(|kind| kind == "blob") && object.contains_key("digest") {
                let mut stub = json!({"revpos": generation, "stub": true});
                for key in ["content_type", "digest", "length"] {
                    object.get(key).into_iter().for_each(|value| stub[key] = value.clone());
                }
                if stubs.len() < BLOBS_MAX {
                    stubs.insert(format!("{NAME_PREFIX}{path}"), stub);
                }
                return;
            }
            for (key, value) in object {
                let _ = write!(path, "/{}", key.replace('~', "~0").replace('/', "~1"));
                add_stubs(value, path, generation, stubs);
                path.truncate(len);
            }
        }
        Value::Array(array) => {
            for (at, value) in array.iter().enumerate() {
                let _ = write!(path, "/{at}");
                add_stubs(value, path, generation, stubs);
                path.truncate(len);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha1-ngzb/4/InltE+Pwc9BBKtyi1sCU=";

    #[test]
    fn each_place_of_a_blob_has_a_stub_under_its_pointer() {
        let blob = json!({"@type": "blob", "content_type": "image/png", "digest": DIGEST, "length": 40});
        let body = json!({"n": 1, "image": blob, "list": [0, {"a/b~c": blob}]}).to_string();
        let whole = with_stubs(format!("{body} \n").as_bytes(), 3).expect("stubs");
        assert!(whole.starts_with(&body.as_bytes()[..body.len() - 1]), "what is there stays as it stands");
        let stub =
            json!({"content_type": "image/png", "digest": DIGEST, "length": 40, "revpos": 3, "stub": true});
        let whole: Value = serde_json::from_slice(&whole).expect("JSON");
        assert_eq!(whole[PROPERTY], json!({"blob_/image": stub, "blob_/list/1/a~1b~0c": stub}));
        let bare = with_stubs(json!({"x": {"@type": "blob", "digest": DIGEST}}).to_string().as_bytes(), 0);
        let bare: Value = serde_json::from_slice(&bare.expect("stubs")).expect("JSON");
        assert_eq!(bare[PROPERTY], json!({"blob_/x": {"digest": DIGEST, "revpos": 1, "stub": true}}));
    }

    #[test]
    fn a_body_without_blobs_goes_as_it_is() {
        for body in ["{}", r#"{"@type":"blob"}"#, r#"{"digest":"sha1-x","@type":"blob"}"#, ""] {
            assert_eq!(with_stubs(body.as_bytes(), 1), None, "{body}");
        }
    }
}
