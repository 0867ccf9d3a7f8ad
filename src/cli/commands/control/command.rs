//! `POST /_command`: what a command prints of a database that another process has open, or changes in it. That one is given the
//! command's arguments and does it.
//!
//! The request is a line of JSON ([`Request`]), and after it what the command has read on its standard input. The answer is
//! pieces, each with a sign and its length (`u32`, big endian) before it: `o` of the output, `n` a line for standard error, and
//! at last `e`, how it ended, as a JSON object ([`End`]).

use std::io::{self, Read, Write};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hyper::Method;
use serde::{Deserialize, Serialize};

use super::holder::{Holder, PIECE_BYTES};
use crate::cli::support::client::Client;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, note};
use crate::gateway::http::api::Api;
use crate::gateway::http::body::{self, Held, Sink};
use crate::gateway::http::error::ApiError;

/// How long the command waits for a piece of the answer: what is read may be long, and a person may read it page by page.
const PIECE_TIME_MAX: Duration = Duration::from_secs(600);

/// Longest request: a document, with the arguments of its command.
const REQUEST_BYTES_MAX: usize = 24 << 20;

/// Longest piece that is taken.
const PIECE_BYTES_MAX: usize = 1 << 20;

const OUTPUT: u8 = b'o';
const NOTE: u8 = b'n';
const END: u8 = b'e';

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    /// The arguments of the command, without the name of the program.
    args: Vec<String>,
    /// Whether it prints on a terminal.
    people: bool,
    /// Whether it has read something, which follows.
    input: bool,
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
pub(super) async fn answer(holder: Holder, api: Api, body: Body) -> Result<Response, ApiError> {
    let Held { value: mut bytes, room } = body::read(&api, body, REQUEST_BYTES_MAX).await?;
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let request: Request = serde_json::from_slice(&bytes[..line])
        .map_err(|error| ApiError::bad_request(format!("the request cannot be read: {error}")))?;
    let input = request.input.then(|| {
        bytes.drain(..bytes.len().min(line + 1));
        bytes
    });
    holder.piped(move |holder, sink| {
        let _until_it_is_done = room;
        run(holder, request, input, sink)
    })
}

fn run(holder: &Holder, request: Request, input: Option<Vec<u8>>, sink: &Sink) -> io::Result<()> {
    let notes = sink.clone();
    let mut out = Output::to(Box::new(Pieces(sink.clone())), request.people)
        .noting(move |line| drop(send(&notes, NOTE, line.as_bytes())));
    let printed = (holder.print)(&holder.db, request.args, input, &mut out);
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
    send(sink, END, &serde_json::to_vec(&end)?)
}

fn send(sink: &Sink, sign: u8, piece: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(5 + piece.len());
    bytes.push(sign);
    bytes.extend_from_slice(&(piece.len() as u32).to_be_bytes());
    bytes.extend_from_slice(piece);
    sink.blocking_send(bytes).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// Sends output in pieces.
struct Pieces(Sink);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        if !piece.is_empty() {
            send(&self.0, OUTPUT, piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets the process that has the database open do what this command is to do, with what this one has read.
pub(crate) fn ask(client: &Client, input: Option<&[u8]>, out: &mut Output) -> Result<(), CliError> {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let request = Request { args, people: out.is_for_people(), input: input.is_some() };
    let mut body = serde_json::to_vec(&request).map_err(|error| cut(error.into()))?;
    body.push(b'\n');
    body.extend_from_slice(input.unwrap_or_default());
    let answer = client.ask(Method::POST, "/_command", body, Some(PIECE_TIME_MAX));
    pass_on(answer.map_err(|failed| failed.told())?, out)
}

fn cut(error: io::Error) -> CliError {
    let message = format!("the process that has the database open ended its answer in the middle: {error}");
    CliError::new(Exit::Database, message).help("try again")
}

/// Prints the pieces, and gives how the other process has ended.
fn pass_on(mut answer: impl Read, out: &mut Output) -> Result<(), CliError> {
    loop {
        let mut head = [0; 5];
        answer.read_exact(&mut head).map_err(cut)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > PIECE_BYTES_MAX {
            return Err(cut(io::Error::other("a piece is too long")));
        }
        let mut piece = vec![0; length];
        answer.read_exact(&mut piece).map_err(cut)?;
        match head[0] {
            OUTPUT => out.raw(&piece)?,
            NOTE => note(&String::from_utf8_lossy(&piece)),
            END => {
                out.flush()?;
                return ended(&piece);
            }
            _ => return Err(cut(io::Error::other("a piece of another version"))),
        }
    }
}

fn ended(end: &[u8]) -> Result<(), CliError> {
    let End { exit, message, help } = serde_json::from_slice(end).map_err(|error| cut(error.into()))?;
    if exit == Exit::Success as u8 {
        return Ok(());
    }
    let error = CliError::new(Exit::of_code(exit), message);
    Err(match help {
        Some(help) => error.help(help),
        None => error,
    })
}
