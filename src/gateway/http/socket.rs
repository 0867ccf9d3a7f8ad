//! Unix sockets by their directory and name: made closed to others, found again, removed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::Mode;
use tokio::net::{UnixListener, UnixSocket};

/// The name of the socket in the directory of a database that is open.
pub(crate) const SOCKET: &str = "http";

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// A name that a socket was given; it is removed when this is dropped.
pub(crate) struct SocketName {
    directory: File,
    name: String,
    /// The file, by its number: another that has taken the name stays.
    inode: u64,
}

impl Drop for SocketName {
    fn drop(&mut self) {
        let path = path_of(&self.directory, &self.name);
        if fs::symlink_metadata(&path).is_ok_and(|now| now.ino() == self.inode) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Listens on a socket of this name in a directory, in the place of one that is there: whether nobody listens on that is for the
/// caller to know.
///
/// # Errors
/// Of the file system, which may know no sockets.
///
/// # Panics
/// Outside of a Tokio runtime.
pub(crate) fn listen(directory: &Path, name: &str) -> io::Result<(UnixListener, SocketName)> {
    let directory = File::open(directory)?;
    let path = path_of(&directory, name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    // The file gets the mode of the socket, so there is no moment in which others could connect (unix(7)).
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&path)?;
    let inode = fs::symlink_metadata(&path)?.ino();
    let listener = socket.listen(BACKLOG)?;
    Ok((listener, SocketName { directory, name: name.to_owned(), inode }))
}

/// Connects to the socket of this name in a directory.
///
/// # Errors
/// There is none, nobody listens on it, or its mode says no.
pub(crate) fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let directory = File::open(directory)?;
    UnixStream::connect(path_of(&directory, name))
}

/// The socket by way of the directory's descriptor: a socket's name has at most 107 bytes, a directory's may have more.
fn path_of(directory: &File, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())
}
