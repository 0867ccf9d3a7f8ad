//! How another process asks the one that has a database open: a Unix socket in the database's directory, its owner's alone.
//!
//! The request is one line; the answer is what the request is for. `backup` is answered with the bytes of a backup
//! ([`Database::backup`]), `changes` and a JSON object with the rows of a change feed ([`changes`]), `read` and one with what a
//! command prints ([`read`]). The socket's place belongs to whoever holds the database's lock, so one that is left from a killed process is replaced.

pub(crate) mod changes;
pub(crate) mod gateway;
pub(crate) mod read;

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::cli::support::error::CliError;
use crate::cli::support::output::Output;
use crate::database::Database;

const SOCKET: &str = "control";

const BACKUP: &str = "backup";

const CHANGES: &str = "changes ";

const READ: &str = "read ";

/// Longest request, bytes: the arguments of a command have the path of its database.
const REQUEST_BYTES_MAX: u64 = 16 * 1024;

/// Clients at one time; the next is sent away.
const CLIENTS_MAX: usize = 16;

/// How long a client may take to say what it wants, and to take a piece of the answer.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(30);

/// Pause after an accept that failed, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Prints what a command line, without the name of the program, reads of a database.
pub(crate) type Print = fn(&Database, Vec<String>, &mut Output) -> Result<(), CliError>;

/// Answers what is asked over a socket.
pub(crate) trait Answer: Send + Sync + 'static {
    /// Answers one request, which is one line; the socket tells `ended` that the process is about to end.
    fn answer(&self, request: &str, stream: UnixStream, ended: watch::Receiver<bool>) -> io::Result<()>;
}

/// The socket of a running process, until dropped.
pub(crate) struct Control {
    directory: File,
    name: String,
    ended: watch::Sender<bool>,
}

impl Control {
    /// Opens the socket. That it cannot be is told, and no reason not to run: a file system may have no sockets.
    /// `print` is how a command prints what it reads of the database.
    pub(crate) fn start(db: &Database, print: Print) -> Option<Control> {
        match Control::try_start(db, print) {
            Ok(control) => Some(control),
            Err(error) => {
                tracing::warn!(%error, "no control socket: `gattway db backup` has to wait until this process ends");
                None
            }
        }
    }

    fn try_start(db: &Database, print: Print) -> io::Result<Control> {
        // Its place belongs to whoever holds the database's lock, so one that is there is of a process that was killed.
        Control::open(db.path(), SOCKET, Arc::new(Holder { db: db.clone(), print }))
    }

    /// Opens a socket of this name in a directory that is its owner's alone, in the place of one that is there.
    pub(crate) fn open(directory: &Path, name: &str, answer: Arc<dyn Answer>) -> io::Result<Control> {
        let directory = File::open(directory)?;
        let path = socket_path(&directory, name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The directory is its owner's alone, so nobody else gets in before the mode is set.
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let (ended, told) = watch::channel(false);
        let run = move || accept(&listener, &answer, &told);
        thread::Builder::new().name("gattway-control".into()).spawn(run)?;
        Ok(Control { directory, name: name.to_owned(), ended })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.ended.send_replace(true);
        let path = socket_path(&self.directory, &self.name);
        // Wakes the thread; without it the process ends it.
        let _ = UnixStream::connect(&path);
        let _ = fs::remove_file(path);
    }
}

/// The socket by way of the directory's descriptor: a socket's name has at most 107 bytes, a directory's may have more.
fn socket_path(directory: &File, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())
}

/// Gives each client a thread of its own, so that one that reads slowly holds up no other.
fn accept(listener: &UnixListener, answer: &Arc<dyn Answer>, ended: &watch::Receiver<bool>) {
    let clients = Arc::new(());
    for stream in listener.incoming() {
        if *ended.borrow() {
            return;
        }
        let client = Arc::clone(&clients);
        let (answer, told) = (Arc::clone(answer), ended.clone());
        let served = stream.and_then(|stream| {
            if Arc::strong_count(&client) > CLIENTS_MAX + 1 {
                return Err(io::Error::other("too many clients"));
            }
            let run = move || {
                if let Err(error) = serve(&*answer, stream, told) {
                    tracing::debug!(%error, "a request on the control socket");
                }
                drop(client);
            };
            thread::Builder::new().name("gattway-client".into()).spawn(run)
        });
        if let Err(error) = served {
            tracing::debug!(%error, "a client of the control socket");
            thread::sleep(ACCEPT_PAUSE);
        }
    }
}

fn serve(answer: &dyn Answer, stream: UnixStream, ended: watch::Receiver<bool>) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIME_MAX))?;
    stream.set_write_timeout(Some(CLIENT_TIME_MAX))?;
    let mut request = String::new();
    BufReader::new((&stream).take(REQUEST_BYTES_MAX)).read_line(&mut request)?;
    answer.answer(request.trim_end(), stream, ended)
}

/// Answers what is asked of the database that this process has open.
struct Holder {
    db: Database,
    print: Print,
}

impl Answer for Holder {
    fn answer(&self, request: &str, stream: UnixStream, ended: watch::Receiver<bool>) -> io::Result<()> {
        if request == BACKUP {
            let mut out = BufWriter::with_capacity(64 * 1024, &stream);
            self.db.backup(&mut out, |_, _| ()).map_err(|error| io::Error::other(error.to_string()))?;
            return out.flush();
        }
        if let Some(wanted) = request.strip_prefix(READ) {
            return read::answer(&self.db, stream, serde_json::from_str(wanted)?, self.print);
        }
        match request.strip_prefix(CHANGES) {
            Some(wanted) => changes::answer(&self.db, stream, serde_json::from_str(wanted)?, ended),
            None => Ok(()),
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    connect_to(path, SOCKET)
}

/// Connects to the socket of this name in a directory.
pub(crate) fn connect_to(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let directory = File::open(directory)?;
    UnixStream::connect(socket_path(&directory, name))
}

/// Asks the process that has the database open for a backup; gives the stream of its bytes.
pub(crate) fn request_backup(path: &Path) -> io::Result<impl Read> {
    let mut stream = connect(path)?;
    // A large document, or a writer that is slow to let the backup in, takes its time.
    stream.set_read_timeout(Some(4 * CLIENT_TIME_MAX))?;
    stream.write_all(format!("{BACKUP}\n").as_bytes())?;
    Ok(BufReader::with_capacity(64 * 1024, stream))
}
