//! Accepts streams.

use std::fs;
use std::future::Future;
use std::io;
#[cfg(feature = "websocket")]
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

#[cfg(feature = "websocket")]
use tokio::net::TcpStream;
use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::connection::{StreamConnection, tcp, unix};
use super::{Address, stdio};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;
/// Only the owner may connect: whoever reaches the socket reads and writes the database.
const SOCKET_MODE: u32 = 0o600;
/// Pause after an accept that failed for want of descriptors or memory; doubles up to [`ACCEPT_RETRY_MAX`].
const ACCEPT_RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest such pause. Connections wait in the kernel meanwhile.
const ACCEPT_RETRY_MAX: Duration = Duration::from_secs(2);
/// How often such a want is told at most.
const SHORTAGE_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Listens on an [`Address`]. Dropping it ends listening and removes its Unix socket.
pub struct StreamListener {
    kind: Kind,
    address: Address,
    shortage: std::sync::Mutex<Shortage>,
}

enum Kind {
    Tcp(TcpListener),
    /// The file is kept for its drop.
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
    /// The one connection there is: not made yet, or when it ends.
    Stdio(Mutex<Option<Option<oneshot::Receiver<()>>>>),
}

impl StreamListener {
    /// Starts to listen. A Unix socket that nobody listens on any more is replaced; it gets mode 0600.
    ///
    /// # Errors
    /// The address is in use, not permitted or not local.
    pub async fn bind(address: Address) -> io::Result<StreamListener> {
        let (kind, address) = match address {
            Address::Tcp(host_and_port) => {
                let listener = TcpListener::bind(host_and_port).await?;
                let address = Address::Tcp(listener.local_addr()?.to_string());
                (Kind::Tcp(listener), address)
            }
            Address::Unix(path) => {
                let (listener, file) = bind_unix(&path).await?;
                (Kind::Unix { listener, _file: file }, Address::Unix(path))
            }
            Address::Stdio => (Kind::Stdio(Mutex::new(Some(None))), Address::Stdio),
        };
        Ok(StreamListener { kind, address, shortage: std::sync::Mutex::default() })
    }

    /// Where it listens; for TCP with the port that was chosen.
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    /// The next connection, not yet opened. `None`: there will be no other (stdio has one; it is waited for).
    ///
    /// # Errors
    /// The listener is of no more use.
    pub async fn accept(&self) -> io::Result<Option<StreamConnection>> {
        match &self.kind {
            Kind::Tcp(listener) => loop {
                let (stream, peer) = self.wait_for(|| listener.accept()).await?;
                match tcp(stream) {
                    Ok(halves) => {
                        return Ok(Some(StreamConnection::from_halves(halves, format!("tcp:{peer}"))));
                    }
                    Err(error) => {
                        debug!(address = %self.address, %error, "a connection was gone before it was accepted")
                    }
                }
            },
            Kind::Unix { listener, .. } => {
                let (stream, _) = self.wait_for(|| listener.accept()).await?;
                Ok(Some(StreamConnection::from_halves(unix(stream), self.address.to_string())))
            }
            Kind::Stdio(once) => accept_stdio(once).await,
        }
    }

    /// The next connection of a TCP listener, as it is.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    #[cfg(feature = "websocket")]
    pub(in crate::transport) async fn accept_tcp(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let Kind::Tcp(listener) = &self.kind else { return Err(io::ErrorKind::Unsupported.into()) };
        self.wait_for(|| listener.accept()).await
    }

    /// Where a TCP listener listens.
    #[cfg(feature = "websocket")]
    pub(in crate::transport) fn local_tcp(&self) -> io::Result<SocketAddr> {
        let Kind::Tcp(listener) = &self.kind else { return Err(io::ErrorKind::Unsupported.into()) };
        listener.local_addr()
    }

    /// Waits until one is accepted, whatever becomes of others and however long the machine is short of something.
    async fn wait_for<T, F: Future<Output = io::Result<T>>>(&self, accept: impl Fn() -> F) -> io::Result<T> {
        loop {
            match accept().await {
                Ok(accepted) => {
                    self.shortage().pause = None;
                    return Ok(accepted);
                }
                Err(error) if is_short(&error) => {
                    let (pause, told) = self.shortage().failed(Instant::now());
                    if let Some(attempts) = told {
                        warn!(address = %self.address, %error, attempts, "no connection can be accepted; those that come \
                            wait (ulimit -n, LimitNOFILE= of systemd)");
                    }
                    sleep(pause).await;
                }
                Err(error) if is_transient(&error) => {
                    debug!(address = %self.address, %error, "a connection was gone before it was accepted");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl StreamListener {
    /// Nothing under this lock can be left half done.
    fn shortage(&self) -> std::sync::MutexGuard<'_, Shortage> {
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept_stdio(
    once: &Mutex<Option<Option<oneshot::Receiver<()>>>>,
) -> io::Result<Option<StreamConnection>> {
    let mut once = once.lock().await;
    match &mut *once {
        Some(None) => {
            let connection = StreamConnection::from_halves(stdio::open()?, Address::Stdio.to_string());
            *once = Some(Some(connection.when_closed()));
            Ok(Some(connection))
        }
        Some(Some(closed)) => {
            // An error of the channel is the news: its sender went with the connection.
            let _ = closed.await;
            *once = None;
            Ok(None)
        }
        None => Ok(None),
    }
}

/// Errors of one connection: the listener is still good.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected)
}

/// Errors of a moment: the process or the machine has no more to give.
fn is_short(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS: no `ErrorKind` is theirs.
    const OUT_OF_RESOURCES: [i32; 3] = [24, 23, 105];
    error.kind() == io::ErrorKind::OutOfMemory
        || error.raw_os_error().is_some_and(|code| OUT_OF_RESOURCES.contains(&code))
}

/// Times without descriptors or memory for another connection.
#[derive(Default)]
struct Shortage {
    /// Attempts since it was told last.
    attempts: u32,
    told: Option<Instant>,
    /// The last pause, while it lasts.
    pause: Option<Duration>,
}

impl Shortage {
    /// Gives the pause before the next attempt, and how many failed if that is to be told now.
    fn failed(&mut self, now: Instant) -> (Duration, Option<u32>) {
        let pause = self.pause.map_or(ACCEPT_RETRY_MIN, |pause| (pause * 2).min(ACCEPT_RETRY_MAX));
        self.pause = Some(pause);
        self.attempts += 1;
        let is_due = self.told.is_none_or(|told| now.duration_since(told) >= SHORTAGE_TOLD_EVERY);
        let told = is_due.then(|| {
            self.told = Some(now);
            std::mem::take(&mut self.attempts)
        });
        (pause, told)
    }
}

/// The file of a bound Unix socket, removed at the end unless it is another's by then.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale_socket(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Nobody can connect before `listen`, so the mode is right for the first who can.
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() };
    Ok((socket.listen(BACKLOG)?, file))
}

/// Removes what a listener that was killed has left. Never removes a file that is no socket, or a socket in use.
async fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        let message = format!("{} exists and is not a socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            let message = format!("another process listens on {}", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_waited_out_with_a_line_a_minute() {
        let (mut shortage, began) = (Shortage::default(), Instant::now());
        let (mut now, mut lines, mut attempts, mut told) = (began, 0, 0, 0);
        while now < began + Duration::from_secs(600) {
            // Now and then one gets through.
            if attempts % 50 == 49 {
                shortage.pause = None;
            }
            let (pause, line) = shortage.failed(now);
            assert!((ACCEPT_RETRY_MIN..=ACCEPT_RETRY_MAX).contains(&pause));
            attempts += 1;
            lines += u32::from(line.is_some());
            told += line.unwrap_or(0);
            now += pause;
        }
        assert!(lines <= 10 && attempts < 400, "{lines} lines, {attempts} attempts");
        assert_eq!(told + shortage.attempts, attempts);
    }
}
