//! Connections: accepted on a socket, bounded in number and in time, each with requests one after the other.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Sleep, sleep, timeout};
use tracing::debug;

use super::answered::Answered;
use super::api::Api;
use super::guard::Guard;
use super::places::{Place, Places};
use super::routes;
use crate::task;

/// Connections of one server at one time.
const CONNECTIONS_MAX: usize = 256;

/// Time for the head of a request, and for a connection without one.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Fields of a head.
const HEADERS_MAX: usize = 64;

/// How long a client of TCP may take no byte of its answer.
const STALL_MAX: Duration = Duration::from_secs(60);

/// The same on a Unix socket: a person may read it page by page.
const OWNER_STALL_MAX: Duration = Duration::from_secs(600);

/// Pause after an accept that failed, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long requests that are being answered may go on when the server ends.
const ENDING_MAX: Duration = Duration::from_secs(2);

/// What a client hears for whom there is no place.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 88\r\n\r\n{\"error\":\"unavailable\",\"reason\":\"too many connections\",\"advice\":\"try again in a second\"}";

/// What a server listens on.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    #[cfg(feature = "websocket")]
    Tls(TcpListener, tokio_rustls::TlsAcceptor),
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
    #[cfg(feature = "websocket")]
    Tls(TcpStream, tokio_rustls::TlsAcceptor),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
            Listener::Tcp(listener) => Ok(Accepted::Tcp(listener.accept().await?.0)),
            #[cfg(feature = "websocket")]
            Listener::Tls(listener, tls) => Ok(Accepted::Tls(listener.accept().await?.0, tls.clone())),
        }
    }
}

/// A server that runs, until it is dropped or stopped.
pub(crate) struct Server {
    ended: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Begins to answer; `more`: what is answered beside the table of routes.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn start(listener: Listener, api: Api, more: Router<Api>, guard: Guard) -> Server {
        let (ended, told) = watch::channel(false);
        let answered = api.answered().clone();
        let answerer = Arc::new(Answerer { router: routes::router(api, more), guard, answered });
        let accepting = task::spawn(accept(listener, answerer, told));
        Server { ended, accepting }
    }

    /// Ends in order: what is being answered has a moment.
    pub(crate) async fn stop(self) {
        self.ended.send_replace(true);
        let Server { accepting, .. } = self;
        let _ = accepting.await;
    }
}

struct Answerer {
    router: Router,
    guard: Guard,
    answered: Answered,
}

async fn accept(listener: Listener, answerer: Arc<Answerer>, ended: watch::Receiver<bool>) {
    let places = Places::new(CONNECTIONS_MAX);
    let mut connections = JoinSet::new();
    let mut told = ended.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = told.wait_for(|ended| *ended) => break,
            Some(_) = connections.join_next() => continue,
        };
        match (accepted, places.take()) {
            (Ok(accepted), Some(place)) => {
                let (answerer, ended) = (Arc::clone(&answerer), ended.clone());
                connections.spawn(connection(accepted, answerer, place, ended));
            }
            (Ok(accepted), None) => refuse(accepted).await,
            (Err(error), _) => {
                debug!(%error, "a client of HTTP");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Nobody comes any more; what is left has a moment.
    drop(listener);
    let _ = timeout(ENDING_MAX, async { while connections.join_next().await.is_some() {} }).await;
}

/// Sends a client away. What it takes at once it hears.
async fn refuse(accepted: Accepted) {
    let now = Duration::ZERO;
    let _ = match accepted {
        Accepted::Unix(mut stream) => timeout(now, stream.write_all(NO_PLACE)).await,
        Accepted::Tcp(mut stream) => timeout(now, stream.write_all(NO_PLACE)).await,
        #[cfg(feature = "websocket")]
        Accepted::Tls(..) => return,
    };
}

async fn connection(accepted: Accepted, answerer: Arc<Answerer>, place: Place, ended: watch::Receiver<bool>) {
    match accepted {
        Accepted::Unix(stream) => serve(stream, OWNER_STALL_MAX, answerer, place, ended).await,
        Accepted::Tcp(stream) => serve(stream, STALL_MAX, answerer, place, ended).await,
        #[cfg(feature = "websocket")]
        Accepted::Tls(stream, tls) => {
            let stream = tokio::select! {
                stream = timeout(HEAD_TIME_MAX, tls.accept(stream)) => stream,
                () = place.give_way() => return,
            };
            match stream {
                Ok(Ok(stream)) => serve(stream, STALL_MAX, answerer, place, ended).await,
                Ok(Err(error)) => debug!(%error, "no TLS"),
                Err(_) => debug!("no TLS in time"),
            }
        }
    }
}

async fn serve<S>(
    stream: S,
    stall: Duration,
    answerer: Arc<Answerer>,
    place: Place,
    mut ended: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    let of_requests = Arc::clone(&place);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answerer, place) = (Arc::clone(&answerer), Arc::clone(&of_requests));
        async move { Ok::<_, Infallible>(answerer.answer(request, &place).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Stalling { stream, limit: stall, stalled: None }), service);
    let mut connection = pin!(connection);
    let mut is_ending = false;
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            () = place.give_way() => return,
            _ = ended.wait_for(|ended| *ended), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection of HTTP");
    }
}

impl Answerer {
    async fn answer(&self, request: Request<Incoming>, place: &Place) -> Response {
        // Who is not let in may still have to give way.
        if let Err(error) = self.guard.check(request.uri().path(), request.headers()).await {
            return error.into_response();
        }
        let (answering, began) = (place.answering(), Instant::now());
        let Ok(response) = TowerToHyperService::new(self.router.clone()).call(request).await;
        let (head, body) = response.into_parts();
        self.answered.note(head.status, began.elapsed());
        let body = body.map_frame(move |frame| {
            let _until_the_last = &answering;
            frame
        });
        Response::from_parts(head, Body::new(body))
    }
}

/// A stream whose other side must take what is written, in time.
struct Stalling<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    /// Passes on what a write gave; an error if it has been waiting for too long.
    fn within<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.within(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.within(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.within(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
