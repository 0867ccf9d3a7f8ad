//! The active side: TCP, TLS, and the request that is upgraded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::tls::{self, TlsError, TlsIdentity, certificate_advice};
use super::trust::ServerTrust;
use super::{WebSocketConnection, WebSocketUrl, handshake};
use crate::endpoint::MessagingError;
use crate::transport::stream::StreamConnection;

/// Longest head of an answer, in bytes, and most of its body that is read for the reason of a refusal.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most of a refusal's body that is told, in characters.
const REASON_CHARS_MAX: usize = 200;

/// Time for the body of a refusal.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// The cookie of Couchbase's sessions.
const SESSION_COOKIE: &str = "SyncGatewaySession";

/// Who this side is to the server.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credentials {
    /// A user name and a password: HTTP Basic authentication.
    Basic {
        /// The user name; it holds no colon.
        user: String,
        /// The password.
        #[doc(hidden)]
        password: Zeroizing<String>,
    },
    /// A session that the server has given out, in the cookie `SyncGatewaySession` or another.
    Session {
        /// The cookie's name; `None` is `SyncGatewaySession`.
        cookie: Option<String>,
        /// The session's ID.
        #[doc(hidden)]
        id: Zeroizing<String>,
    },
}

impl Credentials {
    /// A user with a password. It is wiped from memory when it is no longer needed.
    pub fn basic(user: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials::Basic { user: user.into(), password: Zeroizing::new(password.into()) }
    }

    /// A session that the server has given out, in its usual cookie.
    pub fn session(id: impl Into<String>) -> Credentials {
        Credentials::Session { cookie: None, id: Zeroizing::new(id.into()) }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::Basic { .. } => "Basic(..)",
            Credentials::Session { .. } => "Session(..)",
        })
    }
}

/// How a server is asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WebSocketClientConfig {
    /// Who this side is; by default nobody.
    pub credentials: Option<Credentials>,
    /// Further headers of the request.
    pub headers: Vec<(String, String)>,
    /// Which servers are believed.
    pub trust: ServerTrust,
    /// The certificate that this side shows if it is asked for one.
    pub identity: Option<TlsIdentity>,
}

impl Default for WebSocketClientConfig {
    fn default() -> WebSocketClientConfig {
        let trust = ServerTrust::System { extra_roots: Vec::new() };
        WebSocketClientConfig { credentials: None, headers: Vec::new(), trust, identity: None }
    }
}

/// Connects to one database, as often as it is asked to.
#[derive(Clone)]
pub struct WebSocketClient {
    url: WebSocketUrl,
    headers: Vec<(HeaderName, HeaderValue)>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl WebSocketClient {
    /// Checks what every connection needs; nothing is connected yet.
    ///
    /// # Errors
    /// A header, a name or a certificate cannot be used.
    pub fn new(url: WebSocketUrl, config: &WebSocketClientConfig) -> Result<WebSocketClient, TlsError> {
        let unusable = |what: String| TlsError::Unusable(what);
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let header =
                HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
            headers.push(
                header.ok_or_else(|| unusable(format!("{name:?} cannot be a header with this value")))?,
            );
        }
        if let Some(credentials) = &config.credentials {
            headers.push(credential_header(credentials).map_err(unusable)?);
        }
        let tls = match url.is_tls() {
            false => None,
            true => {
                let name = ServerName::try_from(url.host().to_owned())
                    .map_err(|_| unusable(format!("{:?} is no host name or IP address", url.host())))?;
                Some((tls::client(&config.trust, config.identity.as_ref())?, name))
            }
        };
        Ok(WebSocketClient { url, headers, tls })
    }

    /// Where it connects to.
    pub(crate) fn url(&self) -> &WebSocketUrl {
        &self.url
    }

    /// A connection that is made when the replicator opens it.
    pub(crate) fn connection(&self, sub_protocol: &'static str) -> WebSocketConnection {
        let client = self.clone();
        let connecting =
            async move { Ok(tokio::io::split(TokioIo::new(client.connect(sub_protocol).await?))) };
        WebSocketConnection::new(StreamConnection::connect_by(connecting, self.url.to_string()), None, None)
    }

    /// Connects and asks; gives the bytes that are the frames from then on.
    ///
    /// # Errors
    /// What failed, and what to do. Recoverable unless the answer would be the same again.
    async fn connect(&self, sub_protocol: &str) -> Result<Upgraded, MessagingError> {
        let url = &self.url;
        let failed = |error: io::Error| {
            let at = MessagingError::from(io::Error::from(error.kind()));
            described(at.is_recoverable(), format!("cannot connect to {url}: {error}")).with_source(error)
        };
        let stream = TcpStream::connect((url.host(), url.port())).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some((config, name)) = &self.tls else { return self.ask(stream, sub_protocol).await };
        match TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await {
            Ok(stream) => self.ask(stream, sub_protocol).await,
            Err(error) => Err(match certificate_advice(&error) {
                Some(advice) => MessagingError::permanent(format!("{url}: {advice}")).with_source(error),
                None => MessagingError::recoverable(format!("{url}: no TLS: {error}")).with_source(error),
            }),
        }
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        sub_protocol: &str,
    ) -> Result<Upgraded, MessagingError> {
        let url = &self.url;
        let broken = |error: hyper::Error| {
            let message = format!("{url}: no answer in HTTP: {error}");
            described(!error.is_parse(), message).with_source(error)
        };
        let key = handshake::new_key().map_err(|error| {
            MessagingError::recoverable(format!("the system has no random bytes: {error}"))
        })?;
        let mut request = Request::get(url.request_path()).header(HOST, url.authority());
        request = request.header(USER_AGENT, concat!("gattway/", env!("CARGO_PKG_VERSION")));
        for (name, value) in handshake::request_headers(&key, sub_protocol) {
            request = request.header(name, value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| {
            MessagingError::permanent(format!("{url}: this cannot be asked")).with_source(error)
        })?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the upgrade, with the answer, or when this is given up and `sender` is dropped.
        crate::task::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(url, response).await);
        }
        handshake::check_response(response.headers(), &key, sub_protocol)
            .map_err(|why| MessagingError::permanent(format!("{url}: {why}")))?;
        hyper::upgrade::on(response).await.map_err(broken)
    }
}

fn described(is_recoverable: bool, message: String) -> MessagingError {
    match is_recoverable {
        true => MessagingError::recoverable(message),
        false => MessagingError::permanent(message),
    }
}

fn credential_header(credentials: &Credentials) -> Result<(HeaderName, HeaderValue), String> {
    let (name, text) = match credentials {
        Credentials::Basic { user, .. } if user.contains(':') => {
            return Err(format!("the user name {user:?} holds a colon, which HTTP cannot carry"));
        }
        Credentials::Basic { user, password } => {
            let both = Zeroizing::new(format!("{user}:{}", password.as_str()));
            (AUTHORIZATION, Zeroizing::new(format!("Basic {}", BASE64.encode(both.as_bytes()))))
        }
        Credentials::Session { cookie, id } => {
            let cookie = cookie.as_deref().unwrap_or(SESSION_COOKIE);
            (COOKIE, Zeroizing::new(format!("{cookie}={}", id.as_str())))
        }
    };
    let mut value = HeaderValue::try_from(text.as_str())
        .map_err(|_| "the session cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// What a server that does not upgrade means, and whether it may do so later.
async fn refusal(url: &WebSocketUrl, response: Response<Incoming>) -> MessagingError {
    let status = response.status();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), HEAD_BYTES_MAX).collect();
    let body = match tokio::time::timeout(REASON_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    let said = reason_in(&body).map(|reason| format!(" (\"{reason}\")")).unwrap_or_default();
    let database = url.database();
    let what = match status {
        StatusCode::UNAUTHORIZED => "it wants another user name, password or session".to_owned(),
        StatusCode::FORBIDDEN => "this user may not sync there".to_owned(),
        StatusCode::NOT_FOUND => format!("it has no database {database:?}"),
        StatusCode::OK => "something else than a sync answers there".to_owned(),
        StatusCode::UPGRADE_REQUIRED | StatusCode::BAD_REQUEST => "it did not take the request".to_owned(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "it has no room now".to_owned(),
        _ if status.is_redirection() => {
            format!("it sends on to {}", location.as_deref().unwrap_or("nowhere").escape_debug())
        }
        _ => "it failed".to_owned(),
    };
    let is_passing = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    described(is_passing, format!("{url}: HTTP {}: {what}{said}", status.as_u16()))
}

/// What a body says for people: the reason of a JSON object, or a short text. It comes from the network.
fn reason_in(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => ["reason", "error", "message"]
            .iter()
            .find_map(|key| value.get(key)?.as_str().map(str::to_owned))?,
        Err(_) => std::str::from_utf8(body)
            .ok()
            .filter(|text| !text.trim_start().starts_with('<'))?
            .trim()
            .to_owned(),
    };
    let visible: String = text.chars().take(REASON_CHARS_MAX).flat_map(char::escape_debug).collect();
    (!visible.is_empty()).then_some(visible)
}
