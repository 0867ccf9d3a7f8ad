//! Accepts streams.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};
use tokio::sync::{Mutex, oneshot};
use tracing::warn;

use super::connection::{StreamConnection, tcp, unix};
use super::{Address, stdio};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;
/// Only the owner may connect: whoever reaches the socket reads and writes the database.
const SOCKET_MODE: u32 = 0o600;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Listens on an [`Address`]. Dropping it ends listening and removes its Unix socket.
pub struct StreamListener {
    kind: Kind,
    address: Address,
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
        match &address {
            Address::Tcp(host_and_port) => {
                let listener = TcpListener::bind(host_and_port).await?;
                let address = Address::Tcp(listener.local_addr()?.to_string());
                Ok(StreamListener { kind: Kind::Tcp(listener), address })
            }
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path).await?;
                Ok(StreamListener { kind: Kind::Unix { listener, _file: file }, address })
            }
            Address::Stdio => Ok(StreamListener { kind: Kind::Stdio(Mutex::new(Some(None))), address }),
        }
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
        loop {
            let accepted = match &self.kind {
                Kind::Tcp(listener) => listener.accept().await.and_then(|(stream, peer)| {
                    Ok(StreamConnection::from_halves(tcp(stream)?, format!("tcp:{peer}")))
                }),
                Kind::Unix { listener, .. } => (listener.accept().await)
                    .map(|(stream, _)| StreamConnection::from_halves(unix(stream), self.address.to_string())),
                Kind::Stdio(once) => return accept_stdio(once).await,
            };
            match accepted {
                Ok(connection) => return Ok(Some(connection)),
                Err(error) if is_transient(&error) => {
                    warn!(address = %self.address, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
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

/// Errors of one connection, or of a moment: the listener is still good.
fn is_transient(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS: no `ErrorKind` is theirs.
    const OUT_OF_RESOURCES: [i32; 3] = [24, 23, 105];
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected, OutOfMemory,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected | OutOfMemory
    ) || error.raw_os_error().is_some_and(|code| OUT_OF_RESOURCES.contains(&code))
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
