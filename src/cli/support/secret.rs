//! Secrets that people give to a command: typed without echo, or read from a file or a pipe. Never an argument, which
//! every process of the machine can read.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::cli::support::error::{CliError, Exit};

/// Longest secret in bytes; a code with blanks between all its signs is shorter.
const SECRET_MAX: usize = 512;

/// Ctrl-C, Ctrl-D, backspace in both encodings.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACE: [u8; 2] = [8, 127];

/// Takes a secret: from `file` if one is named (`-`: standard input), else from whoever sits at the terminal, else from
/// standard input. One line; what follows is left alone.
pub(crate) fn read(what: &str, file: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    let stdin = io::stdin();
    match file {
        Some(path) if path != Path::new("-") => {
            let failed = |e: io::Error| {
                CliError::new(Exit::Input, format!("{what} cannot be read from {}: {e}", path.display()))
            };
            first_line(what, std::fs::File::open(path).map_err(failed)?)
        }
        None if stdin.is_terminal() => prompt(what),
        _ => first_line(what, stdin.lock()),
    }
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, CliError> {
    let mut bytes = Zeroizing::new([0; N]);
    let failed = |error| CliError::new(Exit::Failure, format!("the system gives no random numbers: {error}"));
    getrandom::fill(&mut bytes[..]).map_err(failed)?;
    Ok(bytes)
}

fn first_line(what: &str, mut from: impl Read) -> Result<Zeroizing<String>, CliError> {
    let mut line = Line::new();
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(what, byte[0])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CliError::new(Exit::Input, format!("{what} cannot be read: {error}"))),
        }
    }
    line.finish(what)
}

/// Reads key by key, so that the terminal is as it was before even when Ctrl-C ends it.
fn prompt(what: &str) -> Result<Zeroizing<String>, CliError> {
    let failed = |e: io::Error| CliError::new(Exit::Input, format!("the terminal cannot be read: {e}"));
    let mut stderr = io::stderr();
    write!(stderr, "{what} (not shown): ").and_then(|()| stderr.flush()).map_err(failed)?;
    let quiet = Quiet::begin().map_err(failed)?;
    let mut line = Line::new();
    let mut stdin = io::stdin().lock();
    let mut byte = [0];
    let result = loop {
        match stdin.read(&mut byte).map_err(failed)? {
            0 => break Ok(()),
            _ => match byte[0] {
                b'\r' | b'\n' | END => break Ok(()),
                INTERRUPT => break Err(CliError::new(Exit::Interrupted, "interrupted")),
                key if BACKSPACE.contains(&key) => line.pop(),
                key => {
                    if let Err(error) = line.push(what, key) {
                        break Err(error);
                    }
                }
            },
        }
    };
    drop(quiet);
    let _ = writeln!(stderr);
    result.and_then(|()| line.finish(what))
}

/// A line that does not leave copies behind.
struct Line {
    bytes: Zeroizing<Vec<u8>>,
}

impl Line {
    fn new() -> Line {
        Line { bytes: Zeroizing::new(Vec::with_capacity(SECRET_MAX)) }
    }

    fn push(&mut self, what: &str, byte: u8) -> Result<(), CliError> {
        if self.bytes.len() == SECRET_MAX {
            return Err(CliError::new(Exit::Input, format!("{what} has no more than {SECRET_MAX} bytes")));
        }
        self.bytes.push(byte);
        Ok(())
    }

    fn pop(&mut self) {
        self.bytes.pop();
    }

    fn finish(self, what: &str) -> Result<Zeroizing<String>, CliError> {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) if !text.trim().is_empty() => Ok(Zeroizing::new(text.trim().to_owned())),
            Ok(_) => Err(CliError::new(Exit::Input, format!("nothing was given for {what}"))
                .help("type it, pipe it into standard input, or name a file that holds it")),
            Err(_) => Err(CliError::new(Exit::Input, format!("{what} is not text"))),
        }
    }
}

/// The terminal without echo and line editing, until dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn begin() -> io::Result<Quiet> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Quiet { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}
