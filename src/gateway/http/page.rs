//! The page for a browser: one file, which asks for everything that it shows as any program does.
//!
//! Source: `firmware-notes/http.md`, the page.

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use super::body;
use super::error::ApiError;

const PAGE: &str = include_str!("page.html");

/// Stands in the page where the nonce of its style and its script is to be.
const NONCE: &str = "@NONCE@";

/// Stands where it is said whether a token is needed.
const TOKEN: &str = "@TOKEN@";

/// Whether a browser asks for something to show.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// The page. Its own style and script are run, known by a number that nobody can guess, and no others; it asks nobody but who has
/// sent it, stands in no other page, and makes no markup of text.
///
/// # Errors
/// The system gives no random numbers.
pub(super) fn answer(asks_token: bool) -> Result<Response, ApiError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| ApiError::internal(format!("no random numbers: {error}")))?;
    let nonce = STANDARD.encode(random);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let page = PAGE.replace(NONCE, &nonce).replacen(TOKEN, if asks_token { "needed" } else { "none" }, 1);
    let mut response = body::answer(StatusCode::OK, "text/html; charset=utf-8", Body::from(page));
    let headers = response.headers_mut();
    let policy = HeaderValue::from_str(&policy).map_err(|_| ApiError::internal("the policy is no header"))?;
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most of what has to hold is shown in a browser, by `hw-tests/foreign/page`.
    #[test]
    fn the_page_is_one_small_file_that_makes_no_markup_of_text() {
        assert!(PAGE.len() < 150_000, "{} bytes", PAGE.len());
        assert_eq!(PAGE.matches(NONCE).count(), 2);
        assert_eq!(PAGE.matches(TOKEN).count(), 1);
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " onclick",
            "style=\"",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
        for word in ["src=\"http", "href=\"http", "url(", "@import"] {
            assert!(!PAGE.contains(word), "{word}: a file from elsewhere");
        }
    }
}
