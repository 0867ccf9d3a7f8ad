//! One stream as a connection of the message endpoint.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use super::address::Address;
use super::halves::Halves;
use super::outbox::Outbox;
use super::stdio;
use crate::endpoint::{Message, MessageEndpointConnection, MessagingError, ReplicatorConnection};

/// Time to connect, name resolution included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for what was sent to leave when closing in order.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the peer to end its direction after we have ended ours. Without it the kernel would answer what still
/// arrives with a reset, which can destroy what the peer has not read yet.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Room offered to each read: many small messages in one system call.
const READ_BYTES: usize = 64 * 1024;

/// A connection over TCP, a Unix socket, stdio or any pair of a reader and a writer.
pub struct StreamConnection {
    peer: String,
    state: Mutex<State>,
    /// Ends a connect that is under way.
    closed: Notify,
    /// Dropped when the connection has closed, which a listener may wait for.
    done: Mutex<Option<oneshot::Sender<()>>>,
}

/// What connects when it is first polled.
type Connecting = Pin<Box<dyn Future<Output = Result<Halves, MessagingError>> + Send>>;

enum State {
    /// Connects when opened.
    Active(Connecting),
    /// Connected before.
    Accepted(Halves),
    Connecting,
    Open(Open),
    Closed,
}

struct Open {
    outbox: Arc<Outbox>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    full_close: bool,
}

impl StreamConnection {
    /// A connection that connects to `address` when it is opened.
    pub fn connect(address: Address) -> StreamConnection {
        let peer = address.to_string();
        let connecting = async move {
            connect(&address).await.map_err(|error| connect_error(&address.to_string(), error))
        };
        StreamConnection::with_state(peer, State::Active(Box::pin(connecting)))
    }

    /// A stream that `connecting` makes when the connection is opened, within 15 s; `peer` names the other side in logs and
    /// errors.
    pub fn connect_by<R, W>(
        connecting: impl Future<Output = Result<(R, W), MessagingError>> + Send + 'static,
        peer: impl Into<String>,
    ) -> StreamConnection
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let connecting = async move {
            let (reader, writer) = connecting.await?;
            Ok(Halves { reader: Box::new(reader), writer: Box::new(writer), full_close: true })
        };
        StreamConnection::with_state(peer.into(), State::Active(Box::pin(connecting)))
    }

    /// A stream that is connected already; `peer` names the other side in logs and errors.
    pub fn accepted(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        peer: impl Into<String>,
    ) -> StreamConnection {
        let halves = Halves { reader: Box::new(reader), writer: Box::new(writer), full_close: true };
        StreamConnection::with_state(peer.into(), State::Accepted(halves))
    }

    pub(super) fn from_halves(halves: Halves, peer: String) -> StreamConnection {
        StreamConnection::with_state(peer, State::Accepted(halves))
    }

    fn with_state(peer: String, state: State) -> StreamConnection {
        StreamConnection { peer, state: Mutex::new(state), closed: Notify::new(), done: Mutex::new(None) }
    }

    /// The other side, for logs and errors.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Resolves (with an error of the channel) when this connection has closed or was dropped.
    pub(super) fn when_closed(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// No change under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect_to(&self, connecting: Connecting) -> Result<Halves, MessagingError> {
        let closed = self.closed.notified();
        tokio::select! {
            connected = timeout(CONNECT_TIMEOUT, connecting) => connected.unwrap_or_else(|_| {
                Err(MessagingError::recoverable(format!(
                    "{} does not answer for {} s: check the address and that the peer runs",
                    self.peer,
                    CONNECT_TIMEOUT.as_secs(),
                )))
            }),
            () = closed => Err(MessagingError::recoverable("closed while connecting")),
        }
    }

    fn start(&self, halves: Halves, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        let mut state = self.lock();
        if !matches!(*state, State::Connecting) {
            return Err(MessagingError::recoverable("closed while connecting"));
        }
        let outbox = Arc::new(Outbox::default());
        let writer = tokio::spawn(Arc::clone(&outbox).write_to(halves.writer));
        let reader = tokio::spawn(read(halves.reader, connection, Arc::clone(&outbox), self.peer.clone()));
        *state = State::Open(Open { outbox, reader, writer, full_close: halves.full_close });
        Ok(())
    }
}

#[async_trait]
impl MessageEndpointConnection for StreamConnection {
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        let state = std::mem::replace(&mut *self.lock(), State::Connecting);
        let halves = match state {
            State::Active(connecting) => self.connect_to(connecting).await?,
            State::Accepted(halves) => halves,
            other => {
                *self.lock() = other;
                return Err(MessagingError::permanent("a connection can be opened only once"));
            }
        };
        self.start(halves, connection)
    }

    async fn send(&self, message: Message) -> Result<(), MessagingError> {
        let outbox = match &*self.lock() {
            State::Open(open) => Arc::clone(&open.outbox),
            _ => return Err(MessagingError::recoverable("the connection is not open")),
        };
        outbox.push(&message).await
    }

    async fn close(&self, error: Option<MessagingError>) -> Result<(), MessagingError> {
        let state = std::mem::replace(&mut *self.lock(), State::Closed);
        self.closed.notify_waiters();
        if let State::Open(mut open) = state
            && error.is_none()
        {
            open.outbox.close();
            let flushed = timeout(FLUSH_TIMEOUT, &mut open.writer).await.is_ok();
            if flushed && open.full_close {
                // At the latest now the reader's bytes are ignored by the library; it only waits for the end.
                let _ = timeout(LINGER_TIMEOUT, &mut open.reader).await;
            }
        }
        // The rest of an open connection ended with its drop.
        self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

fn connect_error(peer: &str, error: io::Error) -> MessagingError {
    let message = format!("cannot connect to {peer}: {error}");
    let converted = MessagingError::from(io::Error::from(error.kind()));
    let described = if converted.is_recoverable() {
        MessagingError::recoverable(message)
    } else {
        MessagingError::permanent(message)
    };
    described.with_source(error)
}

async fn connect(address: &Address) -> io::Result<Halves> {
    match address {
        Address::Tcp(host_and_port) => {
            let stream = TcpStream::connect(host_and_port).await?;
            tcp(stream)
        }
        Address::Unix(path) => Ok(unix(UnixStream::connect(path).await?)),
        Address::Stdio => stdio::open(),
    }
}

pub(super) fn tcp(stream: TcpStream) -> io::Result<Halves> {
    // Messages are joined here already; waiting for acknowledgements would only add a round trip.
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok(Halves { reader: Box::new(reader), writer: Box::new(writer), full_close: true })
}

pub(super) fn unix(stream: UnixStream) -> Halves {
    let (reader, writer) = stream.into_split();
    Halves { reader: Box::new(reader), writer: Box::new(writer), full_close: true }
}

/// Gives the library what arrives, until the end or an error.
async fn read(
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    connection: ReplicatorConnection,
    outbox: Arc<Outbox>,
    peer: String,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => {
                debug!(peer, "the peer has closed the stream");
                return connection.close(None);
            }
            Ok(_) => connection.receive(Message::from(buffer.split().freeze())).await,
            Err(error) => {
                let message = format!("the stream from {peer} broke: {error}");
                let error = MessagingError::recoverable(message).with_source(error);
                outbox.fail(error.clone());
                return connection.close(Some(error));
            }
        }
    }
}
