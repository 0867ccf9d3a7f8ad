//! The headers of the upgrade (RFC 6455 section 4), both sides.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use sha1::{Digest as _, Sha1};

/// The sub-protocol: BLIP 3, Couchbase Mobile replication with version vectors.
pub const SUB_PROTOCOL: &str = "BLIP_3+CBMobile_4";

/// The sub-protocol of databases with revision trees.
pub const SUB_PROTOCOL_OF_TREES: &str = "BLIP_3+CBMobile_3";

/// What every sub-protocol of this family begins with.
const FAMILY: &str = "BLIP_3+CBMobile_";

/// Appended to the key before it is hashed (RFC 6455 section 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The version of RFC 6455.
const VERSION: &str = "13";

/// A key for one request: 16 random bytes.
pub(super) fn new_key() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64.encode(bytes))
}

/// What proves that the other side has read the key.
pub(super) fn accept_of(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(KEY_SUFFIX);
    BASE64.encode(hash.finalize())
}

/// What the active side asks with.
pub(super) fn request_headers(key: &str, sub_protocol: &str) -> [(HeaderName, String); 5] {
    [
        (CONNECTION, "Upgrade".into()),
        (UPGRADE, "websocket".into()),
        (SEC_WEBSOCKET_VERSION, VERSION.into()),
        (SEC_WEBSOCKET_KEY, key.into()),
        (SEC_WEBSOCKET_PROTOCOL, sub_protocol.into()),
    ]
}

/// Checks the answer to a request with `key`; its status is 101.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn check_response(headers: &HeaderMap, key: &str, sub_protocol: &str) -> Result<(), String> {
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err("it does not agree to WebSocket".into());
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes)
        != Some(accept_of(key.as_bytes()).as_bytes())
    {
        return Err("its answer is to another request (Sec-WebSocket-Accept)".into());
    }
    match headers.get(SEC_WEBSOCKET_PROTOCOL).map(HeaderValue::as_bytes) {
        Some(protocol) if protocol == sub_protocol.as_bytes() => Ok(()),
        Some(other) => {
            Err(format!("it speaks {}, not {sub_protocol}", String::from_utf8_lossy(other).escape_debug()))
        }
        None => {
            Err(format!("it does not speak {sub_protocol}: it is no sync server, or has other revisions"))
        }
    }
}

/// Why a request is not one for a sync.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// No WebSocket request, or a malformed one.
    NotWebSocket(&'static str),
    /// It asks for no sub-protocol of ours.
    SubProtocol(String),
}

/// Checks a request, and gives what is to be said in `Sec-WebSocket-Accept`.
///
/// # Errors
/// See [`BadRequest`].
pub(super) fn check_request(headers: &HeaderMap, sub_protocol: &str) -> Result<String, BadRequest> {
    use BadRequest::NotWebSocket;
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(NotWebSocket("this is the address of a sync over WebSocket"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(VERSION.as_bytes()) {
        return Err(NotWebSocket("Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if BASE64.decode(key).map(|key| key.len()) != Ok(16) {
        return Err(NotWebSocket("Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, sub_protocol) {
        let offered = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).collect::<Vec<_>>().join(", ");
        let advice = match offered.contains(FAMILY) {
            true => format!("it offers {offered}, which has other revision IDs; {sub_protocol} is needed"),
            false => format!("{sub_protocol} must be among Sec-WebSocket-Protocol"),
        };
        return Err(BadRequest::SubProtocol(advice));
    }
    Ok(accept_of(key))
}

/// The comma-separated values of a header that may come more than once.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|value| value.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn the_key_of_the_specification_is_answered_as_it_says() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn asked(with: &[(HeaderName, &'static str)]) -> Result<String, BadRequest> {
        let mut headers = HeaderMap::new();
        for (name, value) in request_headers("dGhlIHNhbXBsZSBub25jZQ==", SUB_PROTOCOL) {
            headers.insert(name, HeaderValue::from_str(&value).expect("a value"));
        }
        for (name, value) in with {
            headers.insert(name, HeaderValue::from_static(value));
        }
        check_request(&headers, SUB_PROTOCOL)
    }

    #[test]
    fn what_one_side_asks_the_other_takes() {
        assert_eq!(asked(&[]).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let several = asked(&[
            (CONNECTION, "keep-alive, UPGRADE"),
            (SEC_WEBSOCKET_PROTOCOL, "BLIP_3+CBMobile_3, BLIP_3+CBMobile_4"),
        ]);
        assert!(several.is_ok());
    }

    #[test]
    fn what_is_no_request_for_a_sync_is_refused() {
        for wrong in [
            (UPGRADE, "h2c"),
            (CONNECTION, "keep-alive"),
            (SEC_WEBSOCKET_VERSION, "8"),
            (SEC_WEBSOCKET_KEY, "c2hvcnQ="),
            (SEC_WEBSOCKET_KEY, "?"),
        ] {
            assert!(
                matches!(asked(std::slice::from_ref(&wrong)), Err(BadRequest::NotWebSocket(_))),
                "{wrong:?}"
            );
        }
        for (offered, said) in [("BLIP_3+CBMobile_3", "other revision IDs"), ("chat", "must be among")] {
            let refused = asked(&[(SEC_WEBSOCKET_PROTOCOL, offered)]);
            assert!(
                matches!(&refused, Err(BadRequest::SubProtocol(why)) if why.contains(said)),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn an_answer_to_another_request_is_refused() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let answered = |accept: &str, protocol: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(accept).expect("a value"));
            if let Some(protocol) = protocol {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
            }
            check_response(&headers, key, SUB_PROTOCOL)
        };
        assert_eq!(answered(&accept_of(key.as_bytes()), Some(SUB_PROTOCOL)), Ok(()));
        assert!(
            answered("s3pPLMBiTxaQ9kYGzzhZRbK+xO0=", Some(SUB_PROTOCOL))
                .is_err_and(|e| e.contains("another"))
        );
        assert!(answered(&accept_of(key.as_bytes()), Some("chat")).is_err_and(|e| e.contains("chat")));
        assert!(answered(&accept_of(key.as_bytes()), None).is_err_and(|e| e.contains("does not speak")));
    }
}
