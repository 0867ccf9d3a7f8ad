//! The passive side: accepts TCP, TLS and the request, and says who may.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL,
    SERVER, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;
use zeroize::Zeroizing;

use super::handshake::{self, BadRequest, SUB_PROTOCOL};
use super::trust::{Admission, NotAdmitted};
use super::{TlsError, TlsIdentity, WebSocketConnection, url};
use crate::endpoint::AccessRule;
use crate::transport::stream::{Address, StreamConnection, StreamListener};

/// Connections that are not yet upgraded; the oldest gives way to another, so that nobody can hold all places.
const HANDSHAKES_MAX: usize = 64;

/// Time for TLS and the request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Upgraded connections that wait to be accepted; others wait behind them in their handshake.
const READY_MAX: usize = 8;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Wait before a refusal for a wrong password, so that guessing is slow.
const GUESS_PAUSE: Duration = Duration::from_secs(1);

/// Longest `Authorization` that is looked at, in bytes.
const AUTHORIZATION_BYTES_MAX: usize = 4 * 1024;

/// What a listener needs beside its address.
#[derive(Clone)]
#[non_exhaustive]
pub struct WebSocketListenerConfig {
    /// The database's name in URLs: `ws://HOST:PORT/DATABASE`.
    pub database: String,
    /// Certificate and key; without it the listener speaks `ws`, not `wss`.
    pub identity: Option<TlsIdentity>,
    /// Who may sync.
    pub admission: Admission,
}

impl WebSocketListenerConfig {
    /// Everybody may sync `database`, and nothing is encrypted; set the fields for more.
    pub fn new(database: impl Into<String>) -> WebSocketListenerConfig {
        WebSocketListenerConfig { database: database.into(), identity: None, admission: Admission::Everybody }
    }
}

/// Listens for WebSocket connections on a TCP address. Dropping it ends listening; what was accepted goes on.
pub struct WebSocketListener {
    local: SocketAddr,
    url: String,
    ready: tokio::sync::Mutex<mpsc::Receiver<io::Result<WebSocketConnection>>>,
    accepting: JoinHandle<()>,
}

/// What a request is answered with.
type Answer = Response<Full<Bytes>>;

/// What every handshake needs.
struct Gate {
    database: String,
    sub_protocol: &'static str,
    tls: Option<TlsAcceptor>,
    admission: Admission,
    ready: mpsc::Sender<io::Result<WebSocketConnection>>,
}

impl WebSocketListener {
    /// Starts to listen on `HOST:PORT`; port 0 is any that is free.
    ///
    /// # Errors
    /// The address is in use, not permitted or not local, or the certificates cannot be used (`InvalidInput`).
    pub async fn bind(host_and_port: &str, config: WebSocketListenerConfig) -> io::Result<WebSocketListener> {
        WebSocketListener::bind_to_speak(host_and_port, config, SUB_PROTOCOL).await
    }

    /// The same for peers that ask for this sub-protocol.
    ///
    /// # Errors
    /// See [`bind`](WebSocketListener::bind).
    pub(crate) async fn bind_to_speak(
        host_and_port: &str,
        config: WebSocketListenerConfig,
        sub_protocol: &'static str,
    ) -> io::Result<WebSocketListener> {
        let invalid = |error: TlsError| io::Error::new(io::ErrorKind::InvalidInput, error);
        if config.identity.is_none() && matches!(config.admission, Admission::Certificates(_)) {
            return Err(invalid(TlsError::Unusable(
                "certificates of clients need TLS, and there is no identity".into(),
            )));
        }
        let tls = match &config.identity {
            Some(identity) => Some(TlsAcceptor::from(identity.server(&config.admission).map_err(invalid)?)),
            None => None,
        };
        let listener = StreamListener::bind(Address::Tcp(host_and_port.to_owned())).await?;
        let local = listener.local_tcp()?;
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let url = format!("{scheme}://{local}/{}", config.database);
        let (sender, ready) = mpsc::channel(READY_MAX);
        let WebSocketListenerConfig { database, admission, .. } = config;
        let gate = Gate { database, sub_protocol, tls, admission, ready: sender };
        let accepting = crate::task::spawn(accept_all(listener, Arc::new(gate)));
        Ok(WebSocketListener { local, url, ready: tokio::sync::Mutex::new(ready), accepting })
    }

    /// Where it listens, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The URL of the database, by its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next connection that has been let in, not yet opened.
    ///
    /// # Errors
    /// The listener is of no more use.
    pub async fn accept(&self) -> io::Result<WebSocketConnection> {
        let ended = || Err(io::Error::other("the listener has ended"));
        self.ready.lock().await.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for WebSocketListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Handshakes side by side, each bounded in time, all bounded in number.
async fn accept_all(listener: StreamListener, gate: Arc<Gate>) {
    let mut under_way = UnderWay::default();
    loop {
        match listener.accept_tcp().await {
            Ok((stream, peer)) => {
                let gate = Arc::clone(&gate);
                under_way.add(crate::task::spawn(async move {
                    if timeout(HANDSHAKE_TIMEOUT, gate.handshake(stream, peer)).await.is_err() {
                        debug!(%peer, "no request for a sync came within {} s", HANDSHAKE_TIMEOUT.as_secs());
                    }
                }));
            }
            Err(error) => {
                let _ = gate.ready.send(Err(error)).await;
                return;
            }
        }
    }
}

/// Handshakes that have not ended, oldest first. Dropping it ends them.
#[derive(Default)]
struct UnderWay(VecDeque<AbortHandle>);

impl UnderWay {
    fn add(&mut self, handshake: JoinHandle<()>) {
        if self.0.len() >= HANDSHAKES_MAX {
            self.0.retain(|handshake| !handshake.is_finished());
        }
        if self.0.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            debug!("{HANDSHAKES_MAX} connections have not asked for a sync yet; the oldest gives way");
            oldest.abort();
        }
        self.0.push_back(handshake.abort_handle());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Gate {
    async fn handshake(self: Arc<Gate>, stream: TcpStream, peer: SocketAddr) {
        match self.tls.clone() {
            None => self.serve(stream, peer).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.serve(stream, peer).await,
                Err(error) => debug!(%peer, %error, "no TLS"),
            },
        }
    }

    /// Answers one request. What is upgraded goes to [`WebSocketListener::accept`].
    async fn serve(
        self: Arc<Gate>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: SocketAddr,
    ) {
        let (upgraded, mut admitted) = mpsc::channel(1);
        let gate = Arc::clone(&self);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let answer = gate.answer(request.method(), request.uri().path_and_query(), request.headers());
            let (response, visitor) = match answer {
                Ok((response, visitor)) => (response, Some(visitor)),
                Err(refusal) => (*refusal, None),
            };
            if let Some(visitor) = visitor {
                let _ = upgraded.try_send((hyper::upgrade::on(&mut request), visitor));
            }
            async move {
                if response.status() == StatusCode::UNAUTHORIZED {
                    tokio::time::sleep(GUESS_PAUSE).await;
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            return debug!(%peer, %error, "no request in HTTP");
        }
        let Ok((upgraded, Visitor { user, access })) = admitted.try_recv() else { return };
        let Ok(upgraded) = upgraded.await else { return };
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        let label = match &user {
            Some(user) => format!("ws:{peer} ({})", user.escape_debug()),
            None => format!("ws:{peer}"),
        };
        let stream = StreamConnection::accepted(reader, writer, label);
        let _ = self.ready.send(Ok(WebSocketConnection::new(stream, user, access))).await;
    }

    /// # Errors
    /// The refusal to send; `Box` because it is far larger than what is usual.
    fn answer(
        &self,
        method: &Method,
        path: Option<&hyper::http::uri::PathAndQuery>,
        headers: &HeaderMap,
    ) -> Result<(Answer, Visitor), Box<Answer>> {
        // Who may not come in learns nothing of what is here.
        let visitor = self.admit(headers)?;
        if path.and_then(url::database_of) != Some(self.database.as_str()) {
            return Err(refuse(StatusCode::NOT_FOUND, "there is no such database", &[]));
        }
        if *method != Method::GET {
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "a sync begins with GET", &[]));
        }
        let accept = handshake::check_request(headers, self.sub_protocol).map_err(|bad| match bad {
            BadRequest::NotWebSocket(why) => {
                refuse(StatusCode::UPGRADE_REQUIRED, why, &[(UPGRADE, "websocket")])
            }
            BadRequest::SubProtocol(why) => refuse(StatusCode::BAD_REQUEST, &why, &[]),
        })?;
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, accept)
            .header(SEC_WEBSOCKET_PROTOCOL, self.sub_protocol)
            .body(Full::default());
        match response {
            Ok(response) => Ok((response, visitor)),
            Err(_) => Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be built", &[])),
        }
    }

    fn admit(&self, headers: &HeaderMap) -> Result<Visitor, Box<Answer>> {
        let Admission::Passwords(check) = &self.admission else {
            return Ok(Visitor { user: None, access: None });
        };
        let (user, password) = basic(headers).unwrap_or_default();
        match check(&user, &password) {
            Ok(access) => Ok(Visitor { user: Some(user), access }),
            Err(NotAdmitted) => {
                let ask = [(WWW_AUTHENTICATE, "Basic realm=\"gattway\", charset=\"UTF-8\"")];
                Err(refuse(StatusCode::UNAUTHORIZED, "user name and password are needed", &ask))
            }
        }
    }
}

/// Who was let in.
struct Visitor {
    user: Option<String>,
    access: Option<AccessRule>,
}

/// The user and the password of HTTP Basic (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<(String, Zeroizing<String>)> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(6).filter(|_| value.len() <= AUTHORIZATION_BYTES_MAX)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = Zeroizing::new(String::from_utf8(BASE64.decode(encoded.trim_ascii()).ok()?).ok()?);
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), Zeroizing::new(password.to_owned())))
}

fn refuse(status: StatusCode, reason: &str, headers: &[(HeaderName, &str)]) -> Box<Answer> {
    let error = status.canonical_reason().unwrap_or("Refused");
    let body = serde_json::json!({ "error": error, "reason": reason }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let fixed = [(CONTENT_TYPE, "application/json"), (SERVER, "gattway"), (CONNECTION, "close")];
    for (name, value) in fixed.into_iter().chain(headers.iter().map(|(name, value)| (name.clone(), *value))) {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Box::new(response)
}
