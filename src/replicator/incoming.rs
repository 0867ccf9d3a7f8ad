//! Receiving single revisions: from a `rev` request to what the store takes.

#![deny(clippy::disallowed_methods)]

use bytes::Bytes;

use super::bounded_json;
use super::config::FilterInput;
use super::core::Core;
use super::messages::{is_valid_id, refuse, rejection_error};
use super::store::{IncomingRevision, Rejection};
use crate::blip::{ErrorReply, IncomingRequest};
use crate::database::revision::{RevId, VersionVector};

/// Keys that belong into properties, not into a body.
const META_KEYS: [&str; 4] = ["_id", "_rev", "_deleted", "_revisions"];

/// Reads a `rev` request.
///
/// # Errors
/// The error reply that is due; the revision is not stored.
pub(super) fn parse_rev(
    core: &Core,
    collection: usize,
    request: &IncomingRequest,
) -> Result<IncomingRevision, ErrorReply> {
    let property = |name| request.properties.get(name).unwrap_or_default();
    let id = property("id");
    if id.is_empty() {
        return Err(ErrorReply::http(400, "no document ID"));
    }
    let vector = parse_vector(property("rev"), property("history"))?;
    if request.properties.get("deltaSrc").is_some() {
        return Err(refuse::delta());
    }
    if !is_valid_id(id) {
        return Err(rejection_error(&Rejection::BadId(id.chars().take(80).collect())));
    }
    if request.body.is_empty() {
        return Err(rejection_error(&Rejection::BadBody("empty".into())));
    }
    let deleted = request.properties.get_bool("deleted");
    let body = without_meta(&request.body)?;
    let target = &core.collections[collection];
    if let Some(filter) = &target.incoming_filter
        && !filter(&FilterInput { collection: &target.name, id, deleted, body: &body })
    {
        return Err(refuse::filtered());
    }
    Ok(IncomingRevision { collection: target.id, id: id.to_owned(), vector, deleted, body })
}

fn parse_vector(rev: &str, history: &str) -> Result<VersionVector, ErrorReply> {
    // A malformed revision and a malformed history are two errors.
    let front = rev.split([',', ';']).next().unwrap_or_default();
    front.trim().parse::<RevId>().map_err(|_| ErrorReply::http(400, "malformed revision ID"))?;
    VersionVector::from_rev_and_history(rev, history)
        .map_err(|error| ErrorReply::new("LiteCore", 4, error.to_string()))
}

/// The body without the keys that peers of other kinds may put there.
fn without_meta(body: &Bytes) -> Result<Bytes, ErrorReply> {
    if !META_KEYS.iter().any(|key| contains_key(body, key)) {
        return Ok(body.clone());
    }
    bounded_json::without_members(body, &META_KEYS)
        .map(Bytes::from)
        .map_err(|error| rejection_error(&Rejection::BadBody(error.to_string())))
}

/// Whether the text of a key stands anywhere in the body. A false alarm only costs time.
fn contains_key(body: &[u8], key: &str) -> bool {
    let quoted = key.as_bytes();
    body.windows(quoted.len() + 2)
        .any(|w| w[0] == b'"' && w[quoted.len() + 1] == b'"' && &w[1..=quoted.len()] == quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_meta_keys_out_of_bodies() {
        let plain = Bytes::from_static(br#"{"a":1,"_foo":2}"#);
        assert_eq!(without_meta(&plain).expect("valid"), plain);
        let with = Bytes::from_static(br#"{"_id":"n","q":{"_id":1},"_rev":"x"}"#);
        assert_eq!(without_meta(&with).expect("valid"), &br#"{"q":{"_id":1}}"#[..]);
        assert!(without_meta(&Bytes::from_static(br#"{"_id":"#)).is_err());
    }

    #[test]
    fn tells_a_bad_revision_from_a_bad_history() {
        let good = "18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ";
        assert_eq!(parse_vector("zzz", "").expect_err("bad").code, 400);
        assert_eq!(parse_vector("", "").expect_err("bad").code, 400);
        assert_eq!(parse_vector(good, "garbage").expect_err("bad").code, 4);
        assert_eq!(parse_vector(good, "").expect("good").to_string(), good);
    }
}
