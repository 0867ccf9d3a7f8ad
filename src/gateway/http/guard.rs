//! Who may ask: on a Unix socket whoever its mode lets in, on TCP whoever has the token; never a page of another site.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use blake2::{Blake2s256, Digest as _};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use hyper::http::uri::Authority;
use subtle::ConstantTimeEq as _;

use super::error::ApiError;
use super::page;

/// Wait before a refusal for a wrong token, so that guessing is slow.
const GUESS_PAUSE: Duration = Duration::from_secs(1);

/// The one path that needs no token, beside that of the page.
const OPEN_PATH: &str = "/healthz";

/// Where the page is: it has nothing of the gateway in it, and asks for the token.
const PAGE_PATH: &str = "/";

/// Who may ask.
#[derive(Clone)]
pub(crate) struct Guard(Option<Arc<Checks>>);

struct Checks {
    /// Of the token: two of them are compared in a time that tells nothing.
    digest: [u8; 32],
    /// Names by which this machine may be asked.
    hosts: Vec<String>,
}

impl Guard {
    /// Whoever can connect.
    pub(crate) fn open() -> Guard {
        Guard(None)
    }

    /// Whoever has the token, and asks for this machine by its address, `localhost` or one of these names.
    pub(crate) fn token(token: &str, hosts: impl IntoIterator<Item = String>) -> Guard {
        let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        Guard(Some(Arc::new(Checks { digest: digest(token.as_bytes()), hosts })))
    }

    /// Refuses whom it does not let in.
    pub(super) async fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = single(headers, HOST.as_str())?;
        let is_page = path == PAGE_PATH && page::is_wanted(headers);
        same_site(headers, host, is_page)?;
        let Some(checks) = &self.0 else { return Ok(()) };
        checks.check_host(host)?;
        if path == OPEN_PATH || is_page || checks.has_token(headers) {
            return Ok(());
        }
        tokio::time::sleep(GUESS_PAUSE).await;
        Err(ApiError::unauthorized())
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Blake2s256::digest(token).into()
}

/// The one value of a header.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    match (first.map(|value| value.to_str()), second) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(ApiError::bad_request(format!("`{name}` is there twice, or no text"))),
    }
}

/// Refuses what a browser sends for a page of another site; `is_page`: a link there may lead to this one.
fn same_site(headers: &HeaderMap, host: Option<&str>, is_page: bool) -> Result<(), ApiError> {
    let site = single(headers, "sec-fetch-site")?;
    let is_link = is_page
        && single(headers, "sec-fetch-mode")? == Some("navigate")
        && single(headers, "sec-fetch-dest")? == Some("document");
    let is_other_site = !is_link && site.is_some_and(|site| site != "same-origin" && site != "none");
    let is_other_origin = single(headers, ORIGIN.as_str())?.is_some_and(|origin| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        !authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
    });
    if is_other_site || is_other_origin {
        return Err(ApiError::forbidden("a page of another site has sent this request")
            .advice("pages of other sites are never answered; let their server ask"));
    }
    Ok(())
}

impl Checks {
    /// Refuses a name that somebody else may have pointed at this machine.
    fn check_host(&self, host: Option<&str>) -> Result<(), ApiError> {
        let authority = host.and_then(|host| host.parse::<Authority>().ok());
        let Some(authority) = authority else {
            return Err(ApiError::bad_request("`host` is missing, or no name"));
        };
        let name = authority.host().to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() || name == "localhost" || self.hosts.contains(&name) {
            return Ok(());
        }
        Err(ApiError::forbidden(format!("this machine is not known as {:?}", crate::replica::clip(&name)))
            .advice("ask by its address, or add the name to `hosts` in [http]"))
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let Ok(Some(value)) = single(headers, AUTHORIZATION.as_str()) else { return false };
        let Some((scheme, token)) = value.split_once(' ') else { return false };
        scheme.eq_ignore_ascii_case("bearer") && digest(token.trim().as_bytes()).ct_eq(&self.digest).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    #[tokio::test(start_paused = true)]
    async fn who_has_the_token_is_let_in_and_no_page_of_another_site() {
        let guard = Guard::token("the right token!", ["gate.local".to_owned()]);
        let status = async |guard: &Guard, path: &str, headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            guard.check(path, &map).await.err().map(|error| error.status().as_u16())
        };
        let (right, wrong) =
            (("authorization", "Bearer the right token!"), ("authorization", "Bearer the right token"));
        let host = ("host", "127.0.0.1:4986");
        let (html, other) = (("accept", "text/html,*/*;q=0.8"), ("sec-fetch-site", "cross-site"));
        for (path, headers, expected) in [
            ("/_status", &[host, right][..], None),
            ("/_status", &[("host", "LOCALHOST"), ("authorization", "bearer  the right token! ")], None),
            ("/_status", &[("host", "[::1]:80"), right], None),
            ("/_status", &[("host", "Gate.local:80"), right], None),
            ("/_status", &[("host", "evil.example"), right], Some(403)),
            ("/_status", &[("host", "evil@127.0.0.1"), right, ("origin", "http://127.0.0.1")], Some(403)),
            ("/_status", &[right], Some(400)),
            ("/_status", &[host, host, right], Some(400)),
            ("/_status", &[host, wrong], Some(401)),
            ("/_status", &[host, right, right], Some(401)),
            ("/_status", &[host, ("authorization", "Basic the right token!")], Some(401)),
            ("/_status", &[host], Some(401)),
            ("/healthz", &[host], None),
            ("/healthz/", &[host], Some(401)),
            ("/healthz", &[("host", "evil.example")], Some(403)),
            ("/_status", &[host, right, ("origin", "http://127.0.0.1:4986")], None),
            ("/_status", &[host, right, ("origin", "http://127.0.0.1:80")], Some(403)),
            ("/_status", &[host, right, ("origin", "null")], Some(403)),
            ("/_status", &[host, right, ("sec-fetch-site", "cross-site")], Some(403)),
            ("/_status", &[host, right, ("sec-fetch-site", "same-site")], Some(403)),
            ("/_status", &[host, right, ("sec-fetch-site", "same-origin")], None),
            ("/", &[host], Some(401)),
            ("/", &[host, html], None),
            ("/_status", &[host, html], Some(401)),
            ("/", &[("host", "evil.example"), html], Some(403)),
            ("/", &[host, html, other, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], None),
            (
                "/",
                &[host, html, other, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
                Some(403),
            ),
            ("/", &[host, html, other, ("sec-fetch-mode", "no-cors")], Some(403)),
            (
                "/_status",
                &[host, right, html, other, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
                Some(403),
            ),
        ] {
            assert_eq!(status(&guard, path, headers).await, expected, "{path} {headers:?}");
        }
        let open = Guard::open();
        assert_eq!(status(&open, "/_status", &[]).await, None);
        assert_eq!(status(&open, "/_status", &[("origin", "http://evil.example")]).await, Some(403));
        let began = tokio::time::Instant::now();
        status(&guard, "/_status", &[host, wrong]).await;
        assert!(began.elapsed() >= GUESS_PAUSE, "guessing is slow");
    }
}
