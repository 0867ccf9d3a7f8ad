//! How hosts reach their controllers: serial lines of guests (socket pairs that a command inherits) and Unix sockets for host
//! stacks that run beside (Bumble). Both carry H4.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};

use command_fds::{CommandFdExt, FdMapping};
use virtual_radio::hci::{FramingError, Splitter};

/// The file descriptor of the first serial line in the command; the others follow.
pub const FIRST_LINE: i32 = 10;
/// Bytes that may wait for a host that does not read; a host that far behind has hung.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// Where hosts come from.
enum Origin {
    /// One end of a socket pair; the other is a guest's serial line.
    Line,
    /// A socket at which one host at a time may connect.
    Listener(UnixListener),
}

/// The host side of one controller.
pub struct Port {
    origin: Origin,
    stream: Option<UnixStream>,
    splitter: Splitter,
    waiting: VecDeque<u8>,
}

/// What a port has to say.
#[derive(Debug)]
pub enum PortEvent {
    /// A whole packet of the host.
    Packet(Vec<u8>),
    /// The host has gone, or its stream makes no sense any more.
    Gone(Option<FramingError>),
}

impl Port {
    fn line(stream: UnixStream) -> io::Result<Port> {
        stream.set_nonblocking(true)?;
        Ok(Port {
            origin: Origin::Line,
            stream: Some(stream),
            splitter: Splitter::default(),
            waiting: VecDeque::new(),
        })
    }

    /// A port at which a host connects; a socket file that is left there is replaced.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(path: &Path) -> io::Result<Port> {
        let listener = listen(path)?;
        Ok(Port {
            origin: Origin::Listener(listener),
            stream: None,
            splitter: Splitter::default(),
            waiting: VecDeque::new(),
        })
    }

    /// What to wait on; nothing once a serial line has closed.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match (&self.stream, &self.origin) {
            (Some(stream), _) => Some(stream.as_fd()),
            (None, Origin::Listener(listener)) => Some(listener.as_fd()),
            (None, Origin::Line) => None,
        }
    }

    /// Whether bytes wait for the host to read.
    pub fn wants_to_write(&self) -> bool {
        self.stream.is_some() && !self.waiting.is_empty()
    }

    /// A serial line whose guest has gone.
    pub fn is_over(&self) -> bool {
        matches!(self.origin, Origin::Line) && self.stream.is_none()
    }

    /// Takes in what has arrived: a host that connects, packets, its end.
    pub fn read(&mut self, events: &mut Vec<PortEvent>) {
        let Some(stream) = &mut self.stream else {
            if let Origin::Listener(listener) = &self.origin
                && let Ok((stream, _)) = listener.accept()
                && stream.set_nonblocking(true).is_ok()
            {
                self.stream = Some(stream);
            }
            return;
        };
        let mut buffer = [0u8; READ_BYTES];
        let gone = match stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                self.splitter.push(&buffer[..count]);
                false
            }
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        loop {
            match self.splitter.next_packet() {
                Ok(Some(packet)) => events.push(PortEvent::Packet(packet)),
                Ok(None) => break,
                Err(error) => return self.hang_up(Some(error), events),
            }
        }
        if gone {
            self.hang_up(None, events);
        }
    }

    /// Sends bytes to the host, or keeps them until it reads.
    pub fn write(&mut self, bytes: &[u8], events: &mut Vec<PortEvent>) {
        if self.stream.is_none() {
            return;
        }
        self.waiting.extend(bytes);
        self.flush(events);
        if self.waiting.len() > WAITING_BYTES_MAX {
            self.hang_up(None, events);
        }
    }

    /// Sends what waits, as far as the host takes it.
    pub fn flush(&mut self, events: &mut Vec<PortEvent>) {
        while let Some(stream) = &mut self.stream
            && !self.waiting.is_empty()
        {
            match stream.write(self.waiting.make_contiguous()) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.hang_up(None, events),
            }
        }
    }

    fn hang_up(&mut self, error: Option<FramingError>, events: &mut Vec<PortEvent>) {
        self.stream = None;
        self.splitter = Splitter::default();
        self.waiting.clear();
        events.push(PortEvent::Gone(error));
    }
}

/// A listening Unix socket; a file that is left there is replaced.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Starts a command that inherits `count` serial lines as descriptors from [`FIRST_LINE`] on. In a guest's command line:
/// `ssl0=fd:10 ssl1=fd:11`; in the guest: `btattach -P h4 -B /dev/ttyS0`.
///
/// # Errors
/// No descriptors left, or the command cannot be started.
pub fn start(command: &[String], count: usize) -> io::Result<(Vec<Port>, Child)> {
    let [program, arguments @ ..] = command else { return Err(io::Error::other("the command is empty")) };
    let mut ports = Vec::new();
    let mut mappings = Vec::new();
    for line in 0..count {
        let (ours, theirs) = UnixStream::pair()?;
        ports.push(Port::line(ours)?);
        mappings.push(FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: FIRST_LINE + line as i32 });
    }
    let mut command = Command::new(program);
    command.args(arguments);
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    // the command is dropped here, and with it our copies of the guests' ends: else a guest's end would go unnoticed
    command.spawn().map(|child| (ports, child))
}
