//! The change feed: what there is, and on demand what comes, as fast as the client takes it.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, InKeyspace, InPath, Keyspace, Params};
use super::body::{self, Gone, PIECE_BYTES, Sink};
use super::error::{ApiError, ErrorBody};
use super::list::write;
use crate::database::{Change, Collection};
use crate::task;

/// Changes of one piece of the answer at most.
const PIECE_ROWS: usize = 500;

/// How long a feed that waits goes on without a change, unless a heartbeat is wanted.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time that can be asked for, and the shortest heartbeat.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3_600);
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// The field by which a client of server-sent events says what it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// How a feed is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Feed {
    /// What there is.
    #[default]
    Normal,
    /// What there is, or, if there is nothing, the next that comes.
    Longpoll,
    /// A line for each, also of those that come.
    Continuous,
    /// The same as server-sent events.
    Eventsource,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesQuery {
    /// Only changes after this sequence; `now`: only those to come.
    since: Option<String>,
    /// Changes at most.
    #[param(minimum = 0)]
    limit: Option<u64>,
    /// Whether each row has its document.
    #[serde(default)]
    include_docs: bool,
    /// `normal`, `longpoll`, `continuous` or `eventsource`.
    #[serde(default)]
    #[param(inline)]
    feed: Feed,
    /// Milliseconds after which a feed that waits sends something to show that it lives; `true`: a minute. It goes on then.
    heartbeat: Option<String>,
    /// Milliseconds without a change after which a feed that waits ends; a minute unless said.
    timeout: Option<u64>,
}

/// A row of the feed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChangeRow {
    /// Its place in the feed.
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) changes: Vec<ChangedTo>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleted: bool,
    #[schema(value_type = Option<Object>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) doc: Option<Value>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChangedTo {
    pub(crate) rev: String,
}

/// The whole answer of `normal` and `longpoll`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changes {
    results: Vec<ChangeRow>,
    /// What to give as `since` next time.
    last_seq: u64,
}

impl ChangeRow {
    fn of(change: Change, body: Option<Map<String, Value>>) -> ChangeRow {
        let rev = change.revision.id().to_string();
        let doc = body.map(|body| {
            let mut fields = Map::new();
            fields.insert("_id".into(), change.id.clone().into());
            fields.insert("_rev".into(), rev.clone().into());
            if change.deleted {
                fields.insert("_deleted".into(), true.into());
            }
            fields.extend(body);
            Value::Object(fields)
        });
        ChangeRow {
            seq: change.sequence,
            id: change.id,
            changes: vec![ChangedTo { rev }],
            deleted: change.deleted,
            doc,
        }
    }
}

/// What changed, in order: each document once, at its newest change.
#[utoipa::path(
    get, path = "/{keyspace}/_changes", tag = "documents",
    params(
        InKeyspace,
        ("Last-Event-ID" = Option<String>, Header, description = "With `eventsource`: the sequence that was seen last"),
        ChangesQuery,
    ),
    responses(
        (status = 200, description = "The changes; with `continuous` a line, with `eventsource` an event for each", content(
            (Changes = "application/json"), (ChangeRow = "application/x-ndjson"), (String = "text/event-stream")
        )),
        (status = 400, description = "There is no such argument", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
    )
)]
pub(super) async fn changes(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    Params(query): Params<ChangesQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let keyspace = api.keyspace(&keyspace)?;
    let follower = Follower::of(api, keyspace, &query, &headers)?;
    let content_type = match query.feed {
        Feed::Normal | Feed::Longpoll => "application/json",
        Feed::Continuous => "application/x-ndjson",
        Feed::Eventsource => "text/event-stream",
    };
    if follower.left == 0 && query.feed == Feed::Eventsource {
        return Ok(body::answer(StatusCode::OK, content_type, Body::empty()));
    }
    Ok(body::piped(content_type, move |sink| async move {
        // Without a word about it: the client has gone.
        let Err(Gone) = follower.run(&sink).await else { return };
    }))
}

/// A feed under way.
struct Follower {
    api: Api,
    keyspace: Keyspace,
    feed: Feed,
    since: u64,
    /// What comes later is not wanted.
    until: u64,
    left: u64,
    include_docs: bool,
    heartbeat: Option<Duration>,
    timeout: Option<Duration>,
    is_first: bool,
}

impl Follower {
    fn of(
        api: Api,
        keyspace: Keyspace,
        query: &ChangesQuery,
        headers: &HeaderMap,
    ) -> Result<Follower, ApiError> {
        let wrong = |what: &str, right: &str| {
            Err(ApiError::bad_request(format!("`{what}` cannot be used")).advice(right))
        };
        let newest = keyspace.collection.last_sequence();
        let seen = headers.get(LAST_EVENT_ID).and_then(|seen| seen.to_str().ok());
        let seen = seen.filter(|_| query.feed == Feed::Eventsource);
        let since = match seen.or(query.since.as_deref()) {
            None => 0,
            Some("now") => newest,
            Some(since) => match since.parse() {
                Ok(since) => since,
                Err(_) => return wrong("since", "a sequence, as `last_seq` or `seq` had it, or `now`"),
            },
        };
        let heartbeat = match query.heartbeat.as_deref() {
            None | Some("false") => None,
            Some("true") => Some(TIMEOUT),
            Some(text) => match text.parse() {
                Ok(ms) => Some(Duration::from_millis(ms).clamp(HEARTBEAT_MIN, TIMEOUT_MAX)),
                Err(_) => return wrong("heartbeat", "milliseconds, or `true`"),
            },
        };
        let asked = query.timeout.map(|ms| Duration::from_millis(ms).min(TIMEOUT_MAX));
        Ok(Follower {
            api,
            keyspace,
            feed: query.feed,
            since,
            until: if query.feed == Feed::Normal { newest } else { u64::MAX },
            left: query.limit.unwrap_or(u64::MAX),
            include_docs: query.include_docs,
            heartbeat,
            timeout: asked.or(heartbeat.is_none().then_some(TIMEOUT)),
            is_first: true,
        })
    }

    async fn run(mut self, sink: &Sink) -> Result<(), Gone> {
        let mut changed = self.keyspace.open.db.watch();
        if self.is_whole() {
            sink.send(b"{\"results\":[".to_vec()).await?;
        }
        let mut quiet_since = Instant::now();
        while self.left > 0 {
            changed.mark_unchanged();
            match self.piece().await {
                Ok(Some(piece)) => {
                    sink.send(piece).await?;
                    quiet_since = Instant::now();
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    sink.fail(error.to_string()).await;
                    return Ok(());
                }
            }
            let has_enough = self.feed == Feed::Normal || (self.feed == Feed::Longpoll && !self.is_first);
            if has_enough || !self.wait(&mut changed, quiet_since, sink).await? {
                break;
            }
        }
        let last = match self.feed {
            Feed::Normal | Feed::Longpoll => format!("\n],\"last_seq\":{}}}\n", self.since),
            Feed::Continuous => format!("{{\"last_seq\":{}}}\n", self.since),
            Feed::Eventsource => return Ok(()),
        };
        sink.send(last.into_bytes()).await
    }

    fn is_whole(&self) -> bool {
        matches!(self.feed, Feed::Normal | Feed::Longpoll)
    }

    /// The rows that are there now.
    async fn piece(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        let collection = self.keyspace.collection.clone();
        let (range, include_docs) = ((self.since, self.until), self.include_docs);
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE_ROWS);
        let rows = self.api.work(move || read(&collection, range, limit, include_docs)).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.since = last.seq;
        self.left -= rows.len() as u64;
        let mut bytes = Vec::new();
        for row in &rows {
            self.write(row, &mut bytes);
        }
        Ok(Some(bytes))
    }

    fn write(&mut self, row: &ChangeRow, bytes: &mut Vec<u8>) {
        let is_first = std::mem::take(&mut self.is_first);
        match self.feed {
            Feed::Normal | Feed::Longpoll => {
                bytes.extend_from_slice(if is_first { b"\n" } else { b",\n" });
                write(bytes, row);
            }
            Feed::Continuous => {
                write(bytes, row);
                bytes.push(b'\n');
            }
            Feed::Eventsource => {
                bytes.extend_from_slice(format!("id: {}\ndata: ", row.seq).as_bytes());
                write(bytes, row);
                bytes.extend_from_slice(b"\n\n");
            }
        }
    }

    /// Waits for a change; false: it is time to end.
    async fn wait(
        &mut self,
        changed: &mut tokio::sync::watch::Receiver<u64>,
        quiet_since: Instant,
        sink: &Sink,
    ) -> Result<bool, Gone> {
        let ends_at = self.timeout.map(|timeout| quiet_since + timeout);
        let mut ended = self.keyspace.open.ended.clone();
        loop {
            let beats_at = self.heartbeat.map(|heartbeat| Instant::now() + heartbeat);
            tokio::select! {
                changed = changed.changed() => return Ok(changed.is_ok()),
                () = async { drop(ended.wait_for(|ended| *ended).await) } => return Ok(false),
                () = sink.gone() => return Err(Gone),
                () = task::sleep_until(ends_at) => return Ok(false),
                () = task::sleep_until(beats_at) => sink.send(self.beat().to_vec()).await?,
            }
        }
    }

    fn beat(&self) -> &'static [u8] {
        match self.feed {
            Feed::Eventsource => b"event: heartbeat\ndata:\n\n",
            _ => b"\n",
        }
    }
}

fn read(
    collection: &Collection,
    (since, until): (u64, u64),
    limit: usize,
    include_docs: bool,
) -> Result<Vec<ChangeRow>, ApiError> {
    if include_docs {
        let found = collection.changes_with_bodies((since, until), limit, PIECE_BYTES)?;
        return Ok(found.into_iter().map(|(change, body)| ChangeRow::of(change, Some(body))).collect());
    }
    let found = collection.changes_since(since, limit)?.into_iter().filter(|change| change.sequence <= until);
    Ok(found.map(|change| ChangeRow::of(change, None)).collect())
}
