//! How another process asks the one that has a database open: a Unix socket in the database's directory, its owner's alone.
//!
//! The request is one line; the answer is what the request is for. There is one request so far: `backup`, answered with
//! the bytes of a backup ([`Database::backup`]). The socket's place belongs to whoever holds the database's lock, so one
//! that is left from a killed process is replaced.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::database::Database;

const SOCKET: &str = "control";

const BACKUP: &str = "backup";

/// Longest request, bytes.
const REQUEST_BYTES_MAX: u64 = 64;

/// How long a client may take to say what it wants, and to take a piece of the answer.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(30);

/// Pause after an accept that failed, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The socket of a running process, until dropped.
pub(super) struct Control {
    directory: File,
    ended: Arc<AtomicBool>,
}

impl Control {
    /// Opens the socket. That it cannot be is told, and no reason not to run: a file system may have no sockets.
    pub(super) fn start(db: &Database) -> Option<Control> {
        match Control::try_start(db) {
            Ok(control) => Some(control),
            Err(error) => {
                tracing::warn!(%error, "no control socket: `gattway db backup` has to wait until this process ends");
                None
            }
        }
    }

    fn try_start(db: &Database) -> io::Result<Control> {
        let directory = File::open(db.path())?;
        let path = socket_path(&directory);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The directory is its owner's alone, so nobody else gets in before the mode is set.
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (db, told) = (db.clone(), Arc::clone(&ended));
        thread::Builder::new().name("gattway-control".into()).spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::Acquire) {
                    return;
                }
                let served = stream.and_then(|stream| serve(&db, &stream));
                if let Err(error) = served {
                    tracing::debug!(%error, "a request on the control socket");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        })?;
        Ok(Control { directory, ended })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let path = socket_path(&self.directory);
        // Wakes the thread; without it the process ends it.
        let _ = UnixStream::connect(&path);
        let _ = fs::remove_file(path);
    }
}

/// The socket by way of the directory's descriptor: a socket's name has at most 107 bytes, a directory's may have more.
fn socket_path(directory: &File) -> String {
    format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())
}

fn serve(db: &Database, stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIME_MAX))?;
    stream.set_write_timeout(Some(CLIENT_TIME_MAX))?;
    let mut request = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut request)?;
    match request.trim_end() {
        BACKUP => {
            let mut out = BufWriter::with_capacity(64 * 1024, stream);
            db.backup(&mut out, |_, _| ()).map_err(|error| io::Error::other(error.to_string()))?;
            out.flush()
        }
        _ => Ok(()),
    }
}

/// Asks the process that has the database open for a backup; gives the stream of its bytes.
pub(super) fn request_backup(path: &Path) -> io::Result<impl Read> {
    let directory = File::open(path)?;
    let mut stream = UnixStream::connect(socket_path(&directory))?;
    // A large document, or a writer that is slow to let the backup in, takes its time.
    stream.set_read_timeout(Some(4 * CLIENT_TIME_MAX))?;
    stream.write_all(format!("{BACKUP}\n").as_bytes())?;
    Ok(BufReader::with_capacity(64 * 1024, stream))
}
