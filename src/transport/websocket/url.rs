//! Where a database is served over WebSocket: `ws://HOST:PORT/DATABASE` or `wss://...`.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

use crate::transport::stream::{AddressError, Form};

/// The last part of the path at which a database is synced.
pub(super) const SYNC_PATH: &str = "_blipsync";

/// The address of a database that is synced over WebSocket.
///
/// The path is that of the database; `/_blipsync` is added if it does not end so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebSocketUrl {
    is_tls: bool,
    host: String,
    port: u16,
    /// Begins with `/`, without `/_blipsync`, maybe empty.
    path: String,
}

impl WebSocketUrl {
    /// Whether it is `wss`: encrypted, with a server that proves its name.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Host name or IP address, an IPv6 address without brackets.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port: 80 or 443 if the text names none.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The database's name, as the path has it.
    pub(crate) fn database(&self) -> &str {
        self.path.trim_start_matches('/')
    }

    /// What stands in the header `Host`.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What is asked for.
    pub(super) fn request_path(&self) -> String {
        format!("{}/{SYNC_PATH}", self.path)
    }
}

impl FromStr for WebSocketUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<WebSocketUrl, AddressError> {
        let wrong = |reason| Err(AddressError::new(without_secret(text), Form::Url, reason));
        let Ok(uri) = text.parse::<Uri>() else { return wrong("it cannot be read as a URL") };
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return wrong("it begins with neither ws:// nor wss://"),
        };
        let Some(authority) = uri.authority() else { return wrong("the host is missing") };
        if authority.as_str().contains('@') {
            return wrong("a password in a URL ends up in logs; give it apart");
        }
        if authority.host().is_empty() {
            return wrong("the host is missing");
        }
        if uri.query().is_some() {
            return wrong("it has a query");
        }
        let port = match (authority.port_u16(), authority.as_str().len() > authority.host().len()) {
            (Some(port), _) => port,
            (None, true) => return wrong("the port must be a number up to 65535"),
            (None, false) => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
        };
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix(SYNC_PATH).map_or(path, |path| path.trim_end_matches('/'));
        if path.is_empty() {
            return wrong("the database's name is missing");
        }
        Ok(WebSocketUrl { is_tls, host: authority.host().to_owned(), port, path: path.to_owned() })
    }
}

/// The database's name in the path of a request, if it is one for a sync.
pub(super) fn database_of(path: &PathAndQuery) -> Option<&str> {
    let database = path.path().strip_suffix(SYNC_PATH)?.strip_suffix('/')?.strip_prefix('/')?;
    (!database.is_empty() && !database.contains('/')).then_some(database)
}

/// The text as errors may show it.
fn without_secret(text: &str) -> String {
    match (text.find("://"), text.find('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://...{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}

impl fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_printed_with_its_port() {
        for (text, printed, path) in [
            ("ws://gateway.local:4984/plant", "ws://gateway.local:4984/plant", "/plant/_blipsync"),
            ("wss://sync.example/plant/", "wss://sync.example:443/plant", "/plant/_blipsync"),
            ("ws://[::1]/a/b/_blipsync", "ws://[::1]:80/a/b", "/a/b/_blipsync"),
        ] {
            let url: WebSocketUrl = text.parse().expect(text);
            assert_eq!((url.to_string().as_str(), url.request_path().as_str()), (printed, path));
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        assert_eq!("ws://[::1]/db".parse::<WebSocketUrl>().expect("IPv6").host(), "::1");
    }

    #[test]
    fn what_is_no_url_says_why_and_shows_no_secret() {
        for (text, reason) in [
            ("http://a/b", "neither"),
            ("ws:///b", "URL"),
            ("ws://a", "name is missing"),
            ("ws://a/_blipsync", "name is missing"),
            ("ws://a:70000/b", "port"),
            ("ws://a/b?c", "query"),
            ("a/b", "URL"),
            ("", "URL"),
        ] {
            let error = text.parse::<WebSocketUrl>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains("ws://HOST"), "{text}: {error}");
        }
        let error = "wss://user:hush@host/db".parse::<WebSocketUrl>().expect_err("a secret").to_string();
        assert!(error.contains("password") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn the_path_of_a_request_names_one_database() {
        let of = |path: &'static str| database_of(&PathAndQuery::from_static(path)).map(str::to_owned);
        assert_eq!(of("/plant/_blipsync"), Some("plant".into()));
        for path in
            ["/_blipsync", "//_blipsync", "/a/b/_blipsync", "/plant", "/plant_blipsync", "/plant/_blipsync/"]
        {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
