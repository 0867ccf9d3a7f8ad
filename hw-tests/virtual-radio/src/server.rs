//! The control socket: several clients, each sends lines and gets one line back for each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use virtual_radio::control::{LINE_MAX, handle_line};
use virtual_radio::world::World;

/// Clients at the same time; more are turned away.
const CLIENTS_MAX: usize = 16;
/// How long a client may take to read its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);

struct Client {
    stream: UnixStream,
    line: Vec<u8>,
}

/// The control socket with its clients. The socket file goes with it.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn new(path: &Path) -> io::Result<Server> {
        Ok(Server { listener: crate::ports::listen(path)?, path: path.to_owned(), clients: Vec::new() })
    }

    /// What to wait on.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let clients = self.clients.iter().map(|client| client.stream.as_fd());
        [self.listener.as_fd()].into_iter().chain(clients).collect()
    }

    /// Takes new clients and carries out what has arrived.
    pub fn serve(&mut self, world: &mut World) {
        while let Ok((stream, _)) = self.listener.accept() {
            let ready =
                stream.set_nonblocking(true).and_then(|()| stream.set_write_timeout(Some(ANSWER_TIMEOUT)));
            if ready.is_ok() && self.clients.len() < CLIENTS_MAX {
                self.clients.push(Client { stream, line: Vec::new() });
            }
        }
        self.clients.retain_mut(|client| client.serve(world));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // somebody else may have removed it
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    /// False: the client has gone, or sends nonsense.
    fn serve(&mut self, world: &mut World) -> bool {
        let mut buffer = [0u8; 1024];
        let open = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => self.line.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(_) => return false,
            }
            if self.line.len() > LINE_MAX {
                return false;
            }
        };
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let answer = handle_line(world, String::from_utf8_lossy(&line).trim()) + "\n";
            if self.stream.write_all(answer.as_bytes()).is_err() {
                return false;
            }
        }
        open
    }
}

/// Sends lines to a running radio and prints its answers.
///
/// # Errors
/// Nobody listens there, or the radio ended meanwhile.
pub fn ask(socket: &Path, lines: &[String]) -> io::Result<ExitCode> {
    let stream = UnixStream::connect(socket)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut refused = false;
    for line in lines {
        (&stream).write_all(format!("{}\n", line.replace('\n', " ")).as_bytes())?;
        let mut answer = String::new();
        if answers.read_line(&mut answer)? == 0 {
            return Err(io::Error::other("the radio has ended"));
        }
        print!("{answer}");
        refused |= serde_json::from_str(&answer).map_or(true, |v: serde_json::Value| v["ok"] != true);
    }
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
