//! What a gateway that runs is asked over its socket: its status, and to sync now, pause or go on.
//!
//! The request is one line of JSON, and so is the answer. The loop that looks after everything answers: as long as it does, it
//! works.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Answer, Control, connect_to};
use crate::cli::support::error::{CliError, Exit};
use crate::gateway::status::GatewayStatus;
use crate::gateway::upstream::Order;

/// How long a client waits for its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest answer, in bytes: a thousand neighbours of some databases.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Request {
    Status,
    /// Syncs of this name, or all.
    Sync {
        order: OrderWord,
        #[serde(default)]
        name: Option<String>,
    },
}

/// What syncs are told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderWord {
    Now,
    Pause,
    Resume,
}

impl From<OrderWord> for Order {
    fn from(word: OrderWord) -> Order {
        match word {
            OrderWord::Now => Order::Now,
            OrderWord::Pause => Order::Pause,
            OrderWord::Resume => Order::Resume,
        }
    }
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Reply {
    Status(Box<GatewayStatus>),
    /// So many syncs were meant.
    Syncs {
        meant: usize,
    },
}

/// A request, and where its answer goes.
pub(crate) type Asked = (Request, oneshot::Sender<Reply>);

/// Hands requests to the loop.
struct Forward(mpsc::Sender<Asked>);

impl Answer for Forward {
    fn answer(&self, request: &str, mut stream: UnixStream, _: watch::Receiver<bool>) -> io::Result<()> {
        let request = serde_json::from_str(request)?;
        let (answer, answered) = oneshot::channel();
        let gone = |_| io::Error::other("the gateway ends");
        self.0.blocking_send((request, answer)).map_err(|_| io::Error::other("the gateway ends"))?;
        let mut line = serde_json::to_vec(&answered.blocking_recv().map_err(gone)?)?;
        line.push(b'\n');
        stream.write_all(&line)
    }
}

/// Opens the socket; its directory is made if there is none.
///
/// # Errors
/// Another gateway answers there, or the socket cannot be made.
pub(crate) fn open(socket: &Path, requests: mpsc::Sender<Asked>) -> Result<Control, CliError> {
    let (directory, name) = parts(socket)?;
    let failed = |error: io::Error| {
        CliError::new(Exit::Failure, format!("the socket {} cannot be made: {error}", socket.display()))
            .help("set gateway.socket to a place where this user may write; under systemd, RuntimeDirectory=gattway")
    };
    if !directory.exists() {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    if connect_to(directory, name).is_ok() {
        let message = format!("another gateway runs, and answers at {}", socket.display());
        return Err(CliError::new(Exit::Failure, message)
            .help("end it, or give this one a socket of its own (gateway.socket)"));
    }
    Control::open(directory, name, Arc::new(Forward(requests))).map_err(failed)
}

/// Asks the gateway that answers at `socket`.
pub(crate) fn ask(socket: &Path, request: &Request) -> Result<Reply, CliError> {
    let (directory, name) = parts(socket)?;
    let asked = || -> io::Result<Reply> {
        let mut stream = connect_to(directory, name)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        stream.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    asked().map_err(|error| {
        let message = format!("no gateway answers at {}: {error}", socket.display());
        let told = CliError::new(Exit::Peer, message);
        match error.kind() {
            io::ErrorKind::PermissionDenied => told.help("ask as the user that runs it, or as root"),
            _ => told.help(
                "is `gattway run` running? --socket names another socket, --config another configuration",
            ),
        }
    })
}

fn parts(socket: &Path) -> Result<(&Path, &str), CliError> {
    let name = socket.file_name().and_then(|name| name.to_str());
    let directory = socket.parent().map(|parent| match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    });
    directory
        .zip(name)
        .ok_or_else(|| CliError::new(Exit::Usage, format!("{} is no name of a socket", socket.display())))
}
