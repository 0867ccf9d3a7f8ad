//! The change feed of a database that another process has open: the rows that are there, and on demand those that come.
//!
//! The answer is lines of JSON: first whether there is such a collection, then a [`Row`] for each change.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::{CHANGES, connect};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::store;
use crate::database::{Change, Collection, Database};

/// Rows that are read at once.
const PAGE: usize = 500;

/// How long an answer that is not waited for by choice may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) collection: String,
    /// Rows after this sequence.
    pub(crate) since: u64,
    /// Whether those that come later are wanted too.
    pub(crate) follow: bool,
}

/// One change.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) sequence: u64,
    #[serde(rename = "_id")]
    pub(crate) id: String,
    #[serde(rename = "_rev")]
    pub(crate) revision: String,
    pub(crate) deleted: bool,
}

impl From<Change> for Row {
    fn from(change: Change) -> Row {
        let revision = change.revision.id().to_string();
        Row { sequence: change.sequence, id: change.id, revision, deleted: change.deleted }
    }
}

/// Whether rows follow.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// Why not: there is no such collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Answers a client, until it leaves or the process ends.
pub(super) fn answer(
    db: &Database,
    stream: UnixStream,
    request: Request,
    mut ended: watch::Receiver<bool>,
) -> io::Result<()> {
    let collection = match store::collection(db, &request.collection) {
        Ok(collection) => collection,
        Err(error) => return send_line(&stream, &Head { error: Some(error.to_string()) }),
    };
    send_line(&stream, &Head { error: None })?;
    stream.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        tokio::select! {
            sent = follow(db, &collection, &request, &mut stream) => sent,
            _ = ended.wait_for(|ended| *ended) => Ok(()),
        }
    })
}

async fn follow(
    db: &Database,
    collection: &Collection,
    request: &Request,
    stream: &mut tokio::net::UnixStream,
) -> io::Result<()> {
    let mut changes = db.watch();
    let mut since = request.since;
    let (mut reader, mut writer) = stream.split();
    let mut unasked = [0; 16];
    loop {
        changes.mark_unchanged();
        let page =
            collection.changes_since(since, PAGE).map_err(|error| io::Error::other(error.to_string()))?;
        if let Some(last) = page.last() {
            since = last.sequence;
            let mut lines = Vec::new();
            for change in page {
                serde_json::to_writer(&mut lines, &Row::from(change))?;
                lines.push(b'\n');
            }
            writer.write_all(&lines).await?;
            continue;
        }
        if !request.follow {
            return Ok(());
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            // It says nothing more: it has left.
            _ = reader.read(&mut unasked) => return Ok(()),
        }
    }
}

fn send_line(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// The rows that another process gives, as they come.
pub(crate) struct Rows {
    lines: BufReader<UnixStream>,
    line: String,
}

impl Rows {
    /// Asks the process that has the database open. `None`: nobody answers there.
    ///
    /// # Errors
    /// There is no such collection.
    pub(crate) fn ask(path: &Path, request: &Request) -> Result<Option<Rows>, CliError> {
        let asked = || -> io::Result<(Rows, Head)> {
            let mut stream = connect(path)?;
            stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
            stream.write_all(format!("{CHANGES}{}\n", serde_json::to_string(request)?).as_bytes())?;
            let mut rows = Rows { lines: BufReader::new(stream), line: String::new() };
            rows.lines.read_line(&mut rows.line)?;
            let head = serde_json::from_str(&rows.line)?;
            if request.follow {
                rows.lines.get_ref().set_read_timeout(None)?;
            }
            Ok((rows, head))
        };
        match asked() {
            Ok((_, Head { error: Some(error) })) => Err(CliError::new(Exit::NotFound, error)
                .help("`gattway db collections --create NAME` creates one")),
            Ok((rows, _)) => Ok(Some(rows)),
            Err(error) => {
                tracing::debug!(%error, "the control socket");
                Ok(None)
            }
        }
    }

    /// The next row; `None` when there are no more, or the other process has ended.
    pub(crate) fn next(&mut self) -> Option<Row> {
        self.line.clear();
        match self.lines.read_line(&mut self.line) {
            Ok(1..) => serde_json::from_str(&self.line).ok(),
            Ok(0) | Err(_) => None,
        }
    }

    /// Whether the next row has come already.
    pub(crate) fn has_more(&self) -> bool {
        !self.lines.buffer().is_empty()
    }
}
