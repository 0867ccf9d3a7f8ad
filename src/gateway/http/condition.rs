//! What a document must be for a change to be made: as `_rev`, `rev`, `If-Match` and `If-None-Match` say.

use hyper::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use serde_json::Value;

use super::error::ApiError;

/// What the document must be for a change to be made.
#[derive(Debug, PartialEq)]
pub(super) enum Condition {
    /// At this revision, or absent if none was given.
    Revision(Option<String>),
    /// As `If-Match` says.
    Match(Tags),
    /// Absent: `If-None-Match: *`.
    Absent,
}

impl Condition {
    /// What headers, the argument `rev` and `_rev` say together.
    ///
    /// # Errors
    /// They say different things.
    pub(super) fn of(
        headers: &HeaderMap,
        rev: Option<String>,
        own: Option<Value>,
    ) -> Result<Condition, ApiError> {
        let own = match own {
            None | Some(Value::Null) => None,
            Some(Value::String(own)) => Some(own),
            Some(_) => return Err(ApiError::bad_request("`_rev` is no text")),
        };
        let differ = || {
            ApiError::bad_request("`_rev`, `rev` and `If-Match` give different revisions").advice("give one")
        };
        let revision = match (rev, own) {
            (Some(rev), Some(own)) if rev != own => return Err(differ()),
            (rev, own) => rev.or(own),
        };
        let none_match = tags(headers, &IF_NONE_MATCH)?;
        let expected = tags(headers, &IF_MATCH)?;
        match (expected, none_match) {
            (None, None) => Ok(Condition::Revision(revision)),
            (Some(tags), None) if revision.as_ref().is_none_or(|revision| tags.are(revision)) => {
                // The narrower of the two.
                let narrow = |revision| Condition::Match(Tags::These(vec![revision]));
                Ok(revision.map_or(Condition::Match(tags), narrow))
            }
            (None, Some(Tags::Any)) if revision.is_none() => Ok(Condition::Absent),
            (None, Some(Tags::These(_))) => {
                Err(ApiError::bad_request("`If-None-Match` of a change can only be `*`"))
            }
            _ => Err(differ()),
        }
    }

    /// Whether it holds for a document at this revision, or for one that is not there.
    pub(super) fn check(&self, id: &str, stored: Option<&str>) -> Result<(), ApiError> {
        match (self, stored) {
            (Condition::Revision(Some(revision)), Some(stored)) if revision == stored => Ok(()),
            (Condition::Revision(None), None) | (Condition::Absent, None) => Ok(()),
            (Condition::Revision(None), Some(_)) => {
                let error = ApiError::conflict(id);
                Err(error.advice(
                    "it exists: read it, apply the change, and give its `_rev`; `If-Match: *` replaces it",
                ))
            }
            (Condition::Revision(Some(_)), _) => Err(ApiError::conflict(id)),
            (Condition::Match(tags), Some(stored)) if tags.are(stored) => Ok(()),
            (Condition::Match(_), _) => {
                Err(ApiError::precondition(id, "is not at the revision in `If-Match`"))
            }
            (Condition::Absent, Some(_)) => Err(ApiError::precondition(id, "exists")),
        }
    }
}

/// Revisions in a header.
#[derive(Debug, PartialEq)]
pub(super) enum Tags {
    /// `*`.
    Any,
    /// One of these.
    These(Vec<String>),
}

impl Tags {
    pub(super) fn are(&self, revision: &str) -> bool {
        match self {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|tag| tag == revision),
        }
    }
}

/// The revisions in a header, also without quotes, as CouchDB takes them.
pub(super) fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| ApiError::bad_request(format!("`{name}` is no text")))?;
        for tag in text.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(Some(Tags::Any));
            }
            let unquoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            tags.push(unquoted.unwrap_or(tag).to_owned());
        }
    }
    Ok((!tags.is_empty()).then_some(Tags::These(tags)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use serde_json::json;

    #[test]
    fn a_condition_is_one_thing() {
        let of = |headers: &[(HeaderName, &'static str)], rev: Option<&str>, own: Option<Value>| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name.clone(), HeaderValue::from_static(value));
            }
            Condition::of(&map, rev.map(str::to_owned), own).map_err(|error| error.status().as_u16())
        };
        let these =
            |tags: &[&str]| Condition::Match(Tags::These(tags.iter().map(|&tag| tag.into()).collect()));
        let revision = |text: &str| Condition::Revision(Some(text.into()));
        assert_eq!(of(&[], None, None), Ok(Condition::Revision(None)));
        assert_eq!(of(&[], None, Some(json!(null))), Ok(Condition::Revision(None)));
        assert_eq!(of(&[], Some("1@a"), Some(json!("1@a"))), Ok(revision("1@a")));
        assert_eq!(of(&[(IF_MATCH, "\"1@a\", 2@b")], None, None), Ok(these(&["1@a", "2@b"])));
        assert_eq!(of(&[(IF_MATCH, "\"1@a\""), (IF_MATCH, "2@b")], Some("2@b"), None), Ok(these(&["2@b"])));
        assert_eq!(of(&[(IF_MATCH, "*")], None, Some(json!("1@a"))), Ok(these(&["1@a"])));
        assert_eq!(of(&[(IF_MATCH, "*")], None, None), Ok(Condition::Match(Tags::Any)));
        assert_eq!(of(&[(IF_NONE_MATCH, "*")], None, None), Ok(Condition::Absent));
        assert_eq!(of(&[], Some("1@a"), Some(json!("2@a"))), Err(400));
        assert_eq!(of(&[], None, Some(json!(1))), Err(400));
        assert_eq!(of(&[(IF_MATCH, "\"1@a\"")], Some("2@a"), None), Err(400));
        assert_eq!(of(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")], None, None), Err(400));
        assert_eq!(of(&[(IF_NONE_MATCH, "*")], Some("1@a"), None), Err(400));
        assert_eq!(of(&[(IF_NONE_MATCH, "\"1@a\"")], None, None), Err(400));
        let status = |condition: Condition, stored: Option<&str>| {
            condition.check("id", stored).err().map(|error| error.status().as_u16())
        };
        assert_eq!(status(Condition::Revision(None), None), None);
        assert_eq!(status(Condition::Revision(None), Some("1@a")), Some(409));
        assert_eq!(status(revision("1@a"), Some("1@a")), None);
        assert_eq!(status(revision("1@a"), Some("2@a")), Some(409));
        assert_eq!(status(revision("1@a"), None), Some(409));
        assert_eq!(status(these(&["2@a"]), Some("1@a")), Some(412));
        assert_eq!(status(Condition::Match(Tags::Any), None), Some(412));
        assert_eq!(status(Condition::Match(Tags::Any), Some("1@a")), None);
        assert_eq!(status(Condition::Absent, Some("1@a")), Some(412));
    }
}
