//! `POST /_save`: what an import saves into a database that another process has open, some records at a time. They are on stable
//! storage when they are answered.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::cli::support::client::{Client, Failed};
use crate::cli::support::documents::{Entry, EntryArgs};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::saving::{Done, Numbers, Refused, SavedKind, Saver};
use crate::cli::support::store;
use crate::database::Database;
use crate::gateway::http::api::Api;
use crate::gateway::http::body::{self, Held};
use crate::gateway::http::error::ApiError;

/// Longest request: the records of one commit, of which one alone may be as large as a document can be. Less than all requests
/// may have together.
const REQUEST_BYTES_MAX: usize = 40 << 20;

/// How long an answer may take: other writers, and a medium that is slow.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What is to be saved.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    collection: String,
    create: bool,
    replace: bool,
    id_prefix: Option<String>,
    short_ids: bool,
    /// Where the numbers of IDs go on, as the answer before said.
    numbers: Option<Numbers>,
    entries: Vec<Entry>,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    done: Vec<DoneRow>,
    numbers: Option<Numbers>,
    error: Option<ErrorRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DoneRow {
    line: u64,
    id: String,
    result: ResultRow,
}

#[derive(Debug, Serialize, Deserialize)]
enum ResultRow {
    Done(SavedKind),
    Kept(ErrorRow),
    Invalid(ErrorRow),
}

#[derive(Debug, Serialize, Deserialize)]
struct ErrorRow {
    exit: u8,
    message: String,
    help: Option<String>,
}

impl From<&CliError> for ErrorRow {
    fn from(error: &CliError) -> ErrorRow {
        let help = error.advice().map(str::to_owned);
        ErrorRow { exit: error.exit() as u8, message: error.to_string(), help }
    }
}

impl From<ErrorRow> for CliError {
    fn from(row: ErrorRow) -> CliError {
        let error = CliError::new(Exit::of_code(row.exit), row.message);
        match row.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

impl From<Done> for DoneRow {
    fn from(done: Done) -> DoneRow {
        let result = match &done.result {
            Ok(kind) => ResultRow::Done(*kind),
            Err(Refused::Kept(error)) => ResultRow::Kept(error.into()),
            Err(Refused::Invalid(error)) => ResultRow::Invalid(error.into()),
        };
        DoneRow { line: done.line, id: done.id, result }
    }
}

impl From<DoneRow> for Done {
    fn from(row: DoneRow) -> Done {
        let result = match row.result {
            ResultRow::Done(kind) => Ok(kind),
            ResultRow::Kept(error) => Err(Refused::Kept(error.into())),
            ResultRow::Invalid(error) => Err(Refused::Invalid(error.into())),
        };
        Done { line: row.line, id: row.id, result }
    }
}

/// Answers a client.
pub(super) async fn answer(db: Database, api: Api, body: Body) -> Result<Response, ApiError> {
    let Held { value: bytes, room } = body::read(&api, body, REQUEST_BYTES_MAX).await?;
    let request: Request = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("the request cannot be read: {error}")))?;
    drop(bytes);
    let reply = api.work(move || {
        let reply = save(&db, request);
        drop(room);
        serde_json::to_vec(&reply).map_err(|error| ApiError::bad_request(error.to_string()))
    });
    Ok(Response::new(Body::from(reply.await?)))
}

fn save(db: &Database, request: Request) -> Reply {
    let saved = || {
        let collection = match request.create {
            true => store::create_collection(db, &request.collection)?,
            false => store::collection(db, &request.collection)?,
        };
        let args = EntryArgs {
            id_prefix: request.id_prefix,
            short_ids: request.short_ids,
            replace: request.replace,
            ..EntryArgs::default()
        };
        let mut saver = match request.numbers {
            Some(numbers) => Saver::going_on(db, collection, &args, numbers)?,
            None => Saver::new(db, collection, &args)?,
        };
        let done = saver.save(&request.entries)?;
        Ok((done, saver.into_numbers()))
    };
    match saved() {
        Ok((done, numbers)) => {
            Reply { done: done.into_iter().map(DoneRow::from).collect(), numbers, error: None }
        }
        Err(error) => Reply { done: Vec::new(), numbers: None, error: Some(ErrorRow::from(&error)) },
    }
}

/// Saves by way of the process that has the database open.
pub(crate) struct RemoteSaver {
    client: Client,
    request: Request,
}

impl RemoteSaver {
    /// For records that `args` describes. What is wrong with it shows at once.
    ///
    /// # Errors
    /// There is no such collection; a prefix that no ID may have; the process is gone.
    pub(crate) fn new(
        client: Client,
        collection: &str,
        create: bool,
        args: &EntryArgs,
    ) -> Result<RemoteSaver, CliError> {
        args.check()?;
        let request = Request {
            collection: collection.to_owned(),
            create,
            replace: args.replace,
            id_prefix: args.id_prefix.clone(),
            short_ids: args.short_ids,
            numbers: None,
            entries: Vec::new(),
        };
        let mut saver = RemoteSaver { client, request };
        saver.save(Vec::new())?;
        Ok(saver)
    }

    /// Makes records durable, those that can be saved together or none.
    ///
    /// # Errors
    /// Of the storage device, or the process is gone: nothing of them is known to be saved.
    pub(crate) fn save(&mut self, entries: Vec<Entry>) -> Result<Vec<Done>, CliError> {
        self.request.entries = entries;
        let broken = |error: io::Error| Failed::Io(error).told();
        let text = serde_json::to_vec(&self.request).map_err(|error| broken(error.into()))?;
        self.request.entries = Vec::new();
        let answer = self.client.ask(Method::POST, "/_save", text, Some(ANSWER_TIME_MAX));
        let text = answer.map_err(Failed::told)?.all(ANSWER_BYTES_MAX).map_err(broken)?;
        let reply: Reply = serde_json::from_slice(&text).map_err(|error| broken(error.into()))?;
        if let Some(error) = reply.error {
            return Err(error.into());
        }
        self.request.numbers = reply.numbers;
        Ok(reply.done.into_iter().map(Done::from).collect())
    }
}
