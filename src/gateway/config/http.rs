//! The section `[http]` as it is read.

use std::net::IpAddr;

use super::section::Section;
use super::types::HttpConfig;
use crate::gateway::secret::Secret;
use crate::gateway::web::WebServer;

/// Reads the section; `None`: nothing listens, or something is wrong, which is noted.
pub(super) fn http(section: &Section<'_>, token: Option<Secret>) -> Option<HttpConfig> {
    let web = WebServer {
        users: None,
        tls_cert: section.path("tls-cert"),
        tls_key: section.path("tls-key"),
        tls_self_signed: section.flag("tls-self-signed"),
        client_roots: None,
    };
    let hosts = section.texts("hosts");
    let listen = section.parsed("listen", "HOST:PORT, as \"127.0.0.1:4986\"", |text| {
        host_of(text).map(|_| text.to_owned()).ok_or_else(|| format!("{text:?} is no address"))
    })?;
    if web.tls_key.is_some() && web.tls_cert.is_none() {
        section.wrong("tls-key", "a key alone is of no use", "tls-cert = \"FILE\" with it");
    }
    if web.tls_self_signed && web.tls_cert.is_some() {
        section.wrong("tls-self-signed", "there is tls-cert too", "one of the two");
    }
    let is_tls = web.tls_cert.is_some() || web.tls_self_signed;
    if is_tls && cfg!(not(feature = "websocket")) {
        section.wrong(
            "listen",
            "this gattway was built without TLS",
            "build it with the feature `websocket`",
        );
    }
    if !is_tls && !host_of(&listen).is_some_and(is_loopback) {
        let what = "who is in between could read the token";
        section.wrong("listen", what, "tls-self-signed = true, or tls-cert = \"FILE\", or 127.0.0.1");
    }
    let Some(token) = token else {
        section.wrong("listen", "there is no token that clients must have", "token-file or token-credential");
        return None;
    };
    let mut stamps = web.stamps();
    stamps.push(token.stamp());
    Some(HttpConfig { listen, token, hosts, web, stamps })
}

/// The host of `HOST:PORT`.
fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    (!host.is_empty()).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
