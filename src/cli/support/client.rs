//! Asks the process behind a Unix socket over HTTP, for commands that wait for each answer.

use std::cell::RefCell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::cli::support::error::{CliError, Exit};
use crate::gateway::http::error::ErrorBody;
use crate::gateway::http::socket;

/// Longest word about a failure, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// A connection to the process that has a database open, or to a gateway.
pub(crate) struct Client {
    /// What drives the connection while something is waited for.
    runtime: Rc<Runtime>,
    sender: RefCell<SendRequest<Full<Bytes>>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The connection has failed.
    Io(io::Error),
    /// The request was refused.
    Refused(StatusCode, ErrorBody),
}

impl Client {
    /// Connects to the socket of this name in a directory.
    ///
    /// # Errors
    /// Nobody answers there, or not to this user.
    pub(crate) fn connect(directory: &Path, name: &str) -> io::Result<Client> {
        let stream = socket::connect(directory, name)?;
        stream.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let sender = runtime.block_on(async {
            let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream)?);
            let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
            // How it ends shows in the answer.
            crate::task::spawn(async move { drop(connection.await) });
            Ok::<_, io::Error>(sender)
        })?;
        Ok(Client { runtime: Rc::new(runtime), sender: RefCell::new(sender) })
    }

    /// Sends a request and waits for its answer, whose first piece and each other come within `wait`.
    ///
    /// # Errors
    /// The process is gone, or refuses it.
    pub(crate) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        wait: Option<Duration>,
    ) -> Result<Answer, Failed> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failed::Io(io::Error::other(error)))?;
        let mut sender = self.sender.borrow_mut();
        let sent = self.runtime.block_on(async {
            within(wait, async {
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request).await.map_err(io::Error::other)
            })
            .await
        });
        let response = sent.map_err(Failed::Io)?;
        let status = response.status();
        let mut answer = Answer {
            runtime: Rc::clone(&self.runtime),
            body: response.into_body(),
            piece: Bytes::new(),
            wait,
        };
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.all(ERROR_BYTES_MAX).map_err(Failed::Io)?;
        let body = serde_json::from_slice(&text).map_err(|error| Failed::Io(error.into()))?;
        Err(Failed::Refused(status, body))
    }
}

async fn within<T>(wait: Option<Duration>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match wait {
        None => work.await,
        Some(wait) => timeout(wait, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    }
}

/// The body of an answer, as it comes.
pub(crate) struct Answer {
    runtime: Rc<Runtime>,
    body: Incoming,
    piece: Bytes,
    wait: Option<Duration>,
}

impl Answer {
    /// Whether something has come that was not read.
    pub(crate) fn has_more(&self) -> bool {
        self.piece.has_remaining()
    }

    /// All of it, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// It has more, or breaks off.
    pub(crate) fn all(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::other(format!("the answer has more than {limit} bytes")));
        }
        Ok(bytes)
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.piece.has_remaining() {
            let Answer { runtime, body, wait, .. } = self;
            let frame = runtime
                .block_on(within(*wait, async { body.frame().await.transpose().map_err(io::Error::other) }));
            match frame? {
                None => return Ok(0),
                Some(frame) => self.piece = frame.into_data().unwrap_or_default(),
            }
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

impl Failed {
    /// As a command tells it.
    pub(crate) fn told(self) -> CliError {
        match self {
            Failed::Io(error) => {
                let message = format!("the process that has the database open gives no answer: {error}");
                CliError::new(Exit::Database, message).help("try again")
            }
            Failed::Refused(status, body) => {
                let exit = match status {
                    StatusCode::NOT_FOUND => Exit::NotFound,
                    status if status.is_client_error() => Exit::Input,
                    _ => Exit::Database,
                };
                let error = CliError::new(exit, body.reason);
                match body.advice {
                    Some(advice) => error.help(advice),
                    None => error,
                }
            }
        }
    }
}
