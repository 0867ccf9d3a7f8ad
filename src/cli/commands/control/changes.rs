//! The change feed of a database that another process has open: the rows that are there, and on demand those that come.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Serialize;

use crate::cli::support::client::{Answer, Client, Failed};
use crate::cli::support::error::CliError;
use crate::database::{Change, canonical_collection_name};
use crate::gateway::http::changes::ChangeRow;

/// How long an answer that is not waited for by choice may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Milliseconds after which a process that has nothing to tell shows that it lives.
const HEARTBEAT_MS: u64 = 30_000;

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) collection: String,
    /// Rows after this sequence.
    pub(crate) since: u64,
    /// Whether those that come later are wanted too.
    pub(crate) follow: bool,
}

/// One change.
#[derive(Debug, Serialize)]
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

impl From<ChangeRow> for Row {
    fn from(row: ChangeRow) -> Row {
        let revision = row.changes.into_iter().next().map(|to| to.rev).unwrap_or_default();
        Row { sequence: row.seq, id: row.id, revision, deleted: row.deleted }
    }
}

/// The rows that another process gives, as they come.
pub(crate) struct Rows {
    lines: BufReader<Answer>,
    line: String,
}

impl Rows {
    /// Asks the process that has the database open. `None`: it is gone.
    ///
    /// # Errors
    /// There is no such collection.
    pub(crate) fn ask(client: &Client, request: &Request) -> Result<Option<Rows>, CliError> {
        let name = canonical_collection_name(&request.collection)
            .map_err(crate::cli::support::store::failed)?
            .replace('%', "%25");
        let end = if request.follow { format!("heartbeat={HEARTBEAT_MS}") } else { "timeout=0".to_owned() };
        let path = format!("/_db.{name}/_changes?feed=continuous&since={}&{end}", request.since);
        match client.ask(Method::GET, &path, Vec::new(), Some(ANSWER_TIME_MAX)) {
            Ok(answer) => Ok(Some(Rows { lines: BufReader::new(answer), line: String::new() })),
            Err(Failed::Refused(StatusCode::NOT_FOUND, body)) => {
                let help = "`gattway db collections --create NAME` creates one";
                Err(Failed::Refused(StatusCode::NOT_FOUND, body).told().help(help))
            }
            Err(Failed::Io(error)) => {
                tracing::debug!(%error, "the process that had the database open");
                Ok(None)
            }
            Err(failed) => Err(failed.told()),
        }
    }

    /// The next row; `None` when there are no more, or the other process has ended.
    pub(crate) fn next(&mut self) -> Option<Row> {
        loop {
            self.line.clear();
            match self.lines.read_line(&mut self.line) {
                // A heartbeat.
                Ok(1..) if self.line.trim().is_empty() => {}
                // The last line is none of a row.
                Ok(1..) => return serde_json::from_str::<ChangeRow>(&self.line).ok().map(Row::from),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Whether the next row has come already.
    pub(crate) fn has_more(&self) -> bool {
        !self.lines.buffer().is_empty() || self.lines.get_ref().has_more()
    }
}
