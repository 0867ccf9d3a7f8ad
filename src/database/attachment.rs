//! Where in a document a blob stands, for those who attach and detach one by a path.

use serde_json::{Map, Value};

use super::blob::Blob;
use super::packed::Step;
use super::path::{Path, Place, look_up};
use crate::database::DatabaseError;

/// A path to a blob.
#[derive(Clone, Debug)]
pub(crate) struct AttachmentPath {
    text: String,
    steps: Vec<Step>,
}

impl AttachmentPath {
    /// Reads a path as queries have them.
    ///
    /// # Errors
    /// [`DatabaseError::BadQuery`]: it is none, or leads to no place in a body.
    pub(crate) fn parse(text: &str) -> Result<AttachmentPath, DatabaseError> {
        match Path::parse(text)?.place() {
            Place::Body(steps) => Ok(AttachmentPath { text: text.to_owned(), steps: steps.clone() }),
            _ => Err(DatabaseError::BadQuery { reason: format!("path {text:?}: no blob can be there") }),
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The blob there.
    pub(crate) fn find(&self, body: &Map<String, Value>) -> Option<Blob> {
        serde_json::from_value(look_up(body, &self.steps)?.clone()).ok()
    }

    /// Puts a blob there, in the place of anything else. Objects on the way are made; of an array the item behind the last
    /// may be named.
    ///
    /// # Errors
    /// [`DatabaseError::BadBody`]: on the way is something else.
    pub(crate) fn attach(&self, body: &mut Map<String, Value>, blob: &Blob) -> Result<(), DatabaseError> {
        let wrong = || DatabaseError::BadBody { reason: format!("there is no place {:?} in it", self.text) };
        let value = serde_json::to_value(blob).map_err(|_| wrong())?;
        let Some((Step::Member(first), rest)) = self.steps.split_first() else { return Err(wrong()) };
        let mut place = body.entry(&**first).or_insert(Value::Null);
        for step in rest {
            if place.is_null() {
                *place = match step {
                    Step::Member(_) => Value::Object(Map::new()),
                    Step::Item(_) => Value::Array(Vec::new()),
                };
            }
            place = match (step, place) {
                (Step::Member(name), Value::Object(object)) => object.entry(&**name).or_insert(Value::Null),
                (Step::Item(at), Value::Array(items)) => {
                    if *at == items.len() {
                        items.push(Value::Null);
                    }
                    items.get_mut(*at).ok_or_else(wrong)?
                }
                _ => return Err(wrong()),
            };
        }
        *place = value;
        Ok(())
    }

    /// Takes the blob there away; `None` if there is none. In an array `null` stays, so that the others keep their numbers.
    pub(crate) fn detach(&self, body: &mut Map<String, Value>) -> Option<Blob> {
        let blob = self.find(body)?;
        let (last, way) = self.steps.split_last()?;
        let Some((Step::Member(first), rest)) = way.split_first() else {
            let Step::Member(name) = last else { return None };
            body.remove(&**name);
            return Some(blob);
        };
        let place = rest.iter().try_fold(body.get_mut(&**first)?, |value, step| match step {
            Step::Member(name) => value.as_object_mut()?.get_mut(&**name),
            Step::Item(at) => value.as_array_mut()?.get_mut(*at),
        })?;
        match last {
            Step::Member(name) => drop(place.as_object_mut()?.remove(&**name)),
            Step::Item(at) => *place.as_array_mut()?.get_mut(*at)? = Value::Null,
        }
        Some(blob)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_blob_is_put_where_the_path_leads_and_taken_away() {
        let blob: Blob = serde_json::from_value(json!({
            "@type": "blob", "digest": "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "length": 3,
        }))
        .expect("a blob");
        let named = json!(blob);
        for (path, before, after, without) in [
            ("p", json!({}), json!({"p": named}), json!({})),
            ("p", json!({"p": 1}), json!({"p": named}), json!({})),
            ("a.b", json!({}), json!({"a": {"b": named}}), json!({"a": {}})),
            ("a[0]", json!({}), json!({"a": [named]}), json!({"a": [null]})),
            ("a[1].x", json!({"a": [1]}), json!({"a": [1, {"x": named}]}), json!({"a": [1, {}]})),
        ] {
            let parsed = AttachmentPath::parse(path).expect("a path");
            let mut body = before.as_object().cloned().expect("an object");
            parsed.attach(&mut body, &blob).expect("there is a place");
            assert_eq!(json!(body), after, "{path}");
            assert_eq!(parsed.find(&body).as_ref(), Some(&blob));
            assert_eq!(parsed.detach(&mut body).as_ref(), Some(&blob));
            assert_eq!(json!(body), without, "{path}");
            assert!(parsed.detach(&mut body).is_none());
        }
        for (path, body) in
            [("a.b", json!({"a": 1})), ("a[2]", json!({"a": [1]})), ("a[0]", json!({"a": {}}))]
        {
            let mut body = body.as_object().cloned().expect("an object");
            let refused = AttachmentPath::parse(path).expect("a path").attach(&mut body, &blob);
            assert!(matches!(refused, Err(DatabaseError::BadBody { .. })), "{path}");
        }
        for path in ["_id", "", "a..b", "_doc"] {
            assert!(AttachmentPath::parse(path).is_err(), "{path}");
        }
    }
}
