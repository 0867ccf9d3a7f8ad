//! Asks the process behind a Unix socket over HTTP, for commands that wait for each answer.

use std::cell::RefCell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
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

/// A process that has too much to do (429) is asked again after this, so often: it has done nothing of what it was asked.
const BUSY_WAIT: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(1) };
const BUSY_TRIES: u32 = 30;

/// Bytes that are read at a time of what is sent as it is read.
const PIECE_BYTES: usize = 64 * 1024;

/// The body of a request.
type Sent = UnsyncBoxBody<Bytes, io::Error>;

/// What is read while it is sent. Nobody else waits in this thread.
struct Reading(Box<dyn Read + Send>);

impl Body for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut piece = vec![0; PIECE_BYTES];
        Poll::Ready(match self.0.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some(Ok(Frame::data(piece.into())))
            }
            Err(error) => Some(Err(error)),
        })
    }
}

/// A connection to the process that has a database open, or to a gateway.
pub(crate) struct Client {
    directory: PathBuf,
    name: String,
    /// What drives the connection while something is waited for.
    runtime: Rc<Runtime>,
    sender: RefCell<SendRequest<Sent>>,
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
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let sender = RefCell::new(open(&runtime, directory, name)?);
        Ok(Client {
            directory: directory.to_owned(),
            name: name.to_owned(),
            runtime: Rc::new(runtime),
            sender,
        })
    }

    /// Sends a request and waits for its answer, whose first piece and each other come within `wait`. A process that has too much
    /// to do is asked again for half a minute.
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
        let body = Bytes::from(body);
        let mut tries = 0;
        loop {
            match self.ask_once(method.clone(), path, body.clone(), wait) {
                Err(Failed::Refused(StatusCode::TOO_MANY_REQUESTS, _)) if tries < BUSY_TRIES => tries += 1,
                answered => return answered,
            }
            std::thread::sleep(BUSY_WAIT);
            // The one before may end, since not all was read that it has brought.
            *self.sender.borrow_mut() =
                open(&self.runtime, &self.directory, &self.name).map_err(Failed::Io)?;
        }
    }

    fn ask_once(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Option<Duration>,
    ) -> Result<Answer, Failed> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body).map_err(|never| match never {}).boxed_unsync())
            .map_err(|error| Failed::Io(io::Error::other(error)))?;
        self.exchange(request, wait)
    }

    /// Sends what is read from `content` as it is read, and waits for the answer, however long that takes.
    ///
    /// # Errors
    /// The process is gone, or refuses it; `content` cannot be read.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        content: Box<dyn Read + Send>,
    ) -> Result<Answer, Failed> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Reading(content).boxed_unsync());
        self.exchange(request.map_err(|error| Failed::Io(io::Error::other(error)))?, None)
    }

    fn exchange(&self, request: Request<Sent>, wait: Option<Duration>) -> Result<Answer, Failed> {
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

/// Connects to a socket.
fn open(runtime: &Runtime, directory: &Path, name: &str) -> io::Result<SendRequest<Sent>> {
    let stream = socket::connect(directory, name)?;
    stream.set_nonblocking(true)?;
    runtime.block_on(async {
        let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream)?);
        let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        // How it ends shows in the answer.
        crate::task::spawn(async move { drop(connection.await) });
        Ok(sender)
    })
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Answers so many requests, each on a connection of its own, that there is too much to do, then so many that it is well.
    fn busy(listener: UnixListener, refused: u32, taken: u32) -> std::thread::JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            let mut heard = Vec::new();
            for n in 0..refused + taken {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut lines = BufReader::new(stream.try_clone().expect("the same")).lines();
                heard.push(lines.next().expect("a request").expect("read"));
                let answer = match n < refused {
                    true => {
                        "429 Too Many Requests\r\ncontent-length: 31\r\n\r\n{\"error\":\"many\",\"reason\":\"now\"}"
                    }
                    false => "200 OK\r\ncontent-length: 2\r\n\r\n{}",
                };
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).expect("written");
            }
            heard
        })
    }

    #[test]
    fn who_has_too_much_to_do_is_asked_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("http")).expect("bound");
        let answering = busy(listener, 3, 1);
        let client = Client::connect(directory.path(), "http").expect("connected");
        let mut answer = client.ask(Method::POST, "/_save", b"[1]".to_vec(), None).expect("answered");
        assert_eq!(answer.all(2).expect("whole"), b"{}");
        assert_eq!(answering.join().expect("ended"), vec!["POST /_save HTTP/1.1"; 4]);
    }

    #[test]
    fn who_always_has_too_much_to_do_is_told_of() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("http")).expect("bound");
        let answering = busy(listener, BUSY_TRIES + 1, 0);
        let client = Client::connect(directory.path(), "http").expect("connected");
        let refused = client.ask(Method::GET, "/_backup", Vec::new(), None).err();
        assert!(matches!(refused, Some(Failed::Refused(StatusCode::TOO_MANY_REQUESTS, _))), "{refused:?}");
        assert_eq!(answering.join().expect("ended").len(), 31);
    }
}
