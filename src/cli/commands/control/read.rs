//! What a command that only reads prints of a database that another process has open: that one is given the command's
//! arguments and prints.
//!
//! The answer is pieces of the output, each with its length (`u32`, big endian) before it, and after a piece of length 0 how
//! it ended, as one JSON object ([`End`]).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Print, READ, connect};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::Output;
use crate::database::Database;

/// How long either side waits for a piece of the answer to be made or taken: a person may read it page by page.
const PIECE_TIME_MAX: Duration = Duration::from_secs(600);

/// Bytes of output that are passed on at a time.
const PASSED_BYTES: usize = 64 * 1024;

/// Longest word about the end, bytes.
const END_BYTES_MAX: u64 = 64 * 1024;

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// The arguments of the command, without the name of the program.
    args: Vec<String>,
    /// Whether it prints on a terminal.
    people: bool,
}

/// How the command ended.
#[derive(Debug, Default, Serialize, Deserialize)]
struct End {
    /// The exit code.
    exit: u8,
    #[serde(default)]
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// Answers a client.
pub(super) fn answer(
    db: &Database,
    mut stream: UnixStream,
    request: Request,
    print: Print,
) -> io::Result<()> {
    stream.set_write_timeout(Some(PIECE_TIME_MAX))?;
    let pieces = Pieces(stream.try_clone()?);
    let mut out = Output::to(Box::new(pieces), request.people);
    let printed = print(db, request.args, &mut out);
    let end = match printed.and_then(|()| out.flush()) {
        Ok(()) => End::default(),
        Err(error) => End {
            exit: error.exit() as u8,
            message: error.to_string(),
            help: error.advice().map(str::to_owned),
        },
    };
    // What was printed before an error comes before it.
    out.flush().map_err(|error| io::Error::other(error.to_string()))?;
    stream.write_all(&0u32.to_be_bytes())?;
    stream.write_all(&serde_json::to_vec(&end)?)?;
    stream.shutdown(Shutdown::Both)
}

/// Sends output in pieces.
struct Pieces(UnixStream);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PASSED_BYTES)];
        if !piece.is_empty() {
            self.0.write_all(&(piece.len() as u32).to_be_bytes())?;
            self.0.write_all(piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets the process that has the database open print what this command is to print. `None`: nobody answers there.
pub(crate) fn ask(path: &Path, out: &mut Output) -> Option<Result<(), CliError>> {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let request = Request { args, people: out.is_for_people() };
    let asked = || -> io::Result<(UnixStream, u32)> {
        let mut stream = connect(path)?;
        stream.set_read_timeout(Some(PIECE_TIME_MAX))?;
        stream.write_all(format!("{READ}{}\n", serde_json::to_string(&request)?).as_bytes())?;
        let first = next_length(&mut stream)?;
        Ok((stream, first))
    };
    match asked() {
        Ok((stream, first)) => Some(pass_on(stream, first, out)),
        Err(error) => {
            tracing::debug!(%error, "the control socket");
            None
        }
    }
}

fn next_length(stream: &mut impl Read) -> io::Result<u32> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    Ok(u32::from_be_bytes(length))
}

/// Prints the pieces, and gives how the other process has ended.
fn pass_on(mut stream: UnixStream, first: u32, out: &mut Output) -> Result<(), CliError> {
    let cut = |error: io::Error| {
        let message =
            format!("the process that has the database open ended its answer in the middle: {error}");
        CliError::new(Exit::Database, message).help("try again")
    };
    let mut length = first;
    while length > 0 {
        let mut left = length as usize;
        let mut bytes = vec![0; left.min(PASSED_BYTES)];
        while left > 0 {
            let part = &mut bytes[..left.min(PASSED_BYTES)];
            stream.read_exact(part).map_err(cut)?;
            left -= part.len();
            out.raw(part)?;
        }
        length = next_length(&mut stream).map_err(cut)?;
    }
    let mut end = Vec::new();
    stream.take(END_BYTES_MAX).read_to_end(&mut end).map_err(cut)?;
    let End { exit, message, help } = serde_json::from_slice(&end).map_err(|error| cut(error.into()))?;
    out.flush()?;
    if exit == Exit::Success as u8 {
        return Ok(());
    }
    let error = CliError::new(Exit::of_code(exit), message);
    Err(match help {
        Some(help) => error.help(help),
        None => error,
    })
}
