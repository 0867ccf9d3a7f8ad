//! The documents of a collection in the order of their IDs.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, InKeyspace, InPath, Keyspace, Params};
use super::body::{self, DOCUMENT_BYTES_MAX, Held, PIECE_BYTES};
use super::documents::{revision_of, with_meta};
use super::error::{ApiError, ErrorBody, OfBody};
use crate::database::{Collection, Document};

/// Rows that one piece of the answer has at most.
const PIECE_ROWS: usize = 1_000;

/// IDs in one request.
const KEYS_MAX: usize = 10_000;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AllDocsQuery {
    /// Rows at most.
    #[param(minimum = 0)]
    limit: Option<u64>,
    /// The first ID, as text or as a JSON string.
    #[serde(alias = "startkey")]
    start_key: Option<String>,
    /// The last ID, likewise.
    #[serde(alias = "endkey")]
    end_key: Option<String>,
    /// Whether the last ID belongs to it; it does unless said.
    inclusive_end: Option<bool>,
    /// One ID alone.
    key: Option<String>,
    /// Only IDs that begin with this.
    prefix: Option<String>,
    /// Whether each row has its document.
    #[serde(default)]
    include_docs: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysRequest {
    /// IDs; each has its row, in this order.
    keys: Vec<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeysQuery {
    /// Whether each row has its document.
    #[serde(default)]
    include_docs: bool,
}

/// The answer, row by row.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AllDocs {
    /// Documents of the collection.
    total_rows: u64,
    rows: Vec<ListedRow>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListedRow {
    id: String,
    key: String,
    value: ListedValue,
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    doc: Option<Value>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListedValue {
    rev: String,
}

impl ListedRow {
    fn of(document: Document, include_docs: bool) -> ListedRow {
        let (id, rev) = (document.id().to_owned(), revision_of(&document));
        let doc = include_docs.then(|| with_meta(document));
        ListedRow { key: id.clone(), id, value: ListedValue { rev }, doc }
    }
}

/// The answer to a list of IDs, in its order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SomeDocs {
    /// Documents of the collection.
    total_rows: u64,
    rows: Vec<AskedRow>,
}

/// A document that was asked for, or why there is none.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum AskedRow {
    Found(ListedRow),
    Missing(MissingRow),
}

#[derive(Debug, Serialize, ToSchema)]
struct MissingRow {
    key: String,
    /// `not_found`.
    error: &'static str,
    /// `missing` or `deleted`.
    reason: &'static str,
}

/// Lists documents in the order of the bytes of their IDs.
#[utoipa::path(
    get, path = "/{keyspace}/_all_docs", tag = "documents",
    params(
        InKeyspace,
        AllDocsQuery,
    ),
    responses(
        (status = 200, description = "The rows", body = AllDocs),
        (status = 400, description = "There is no such argument", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
    )
)]
pub(super) async fn all_docs(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    Params(query): Params<AllDocsQuery>,
) -> Result<Response, ApiError> {
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let range = Range::of(&query)?;
    let include_docs = query.include_docs;
    let counted = collection.clone();
    let total = api.work(move || Ok(counted.count())).await?;
    Ok(body::piped("application/json", move |sink| async move {
        let head = format!("{{\"total_rows\":{total},\"rows\":[").into_bytes();
        let mut listing =
            Listing { collection, next: Next::From(range.start), is_first: true, left: range.limit };
        let mut piece = head;
        loop {
            if sink.send(piece).await.is_err() {
                return;
            }
            let end = range.end.clone();
            let read = api.work(move || listing.piece(&end, include_docs)).await;
            match read {
                Ok((_, None)) => break,
                Ok((back, Some(bytes))) => (listing, piece) = (back, bytes),
                Err(error) => return sink.fail(error.to_string()).await,
            }
        }
        let _ = sink.send(b"\n]}\n".to_vec()).await;
    }))
}

/// Lists the documents of some IDs.
#[utoipa::path(
    post, path = "/{keyspace}/_all_docs", tag = "documents",
    params(
        InKeyspace,
        KeysQuery,
    ),
    request_body = KeysRequest,
    responses(
        (status = 200, description = "The rows; one without a document has `error` instead of a value", body = SomeDocs),
        (status = 400, description = "The request has another form", body = ErrorBody),
        (status = 403, description = "The request came from another site", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
        (status = 413, description = "Too many IDs at one time", body = ErrorBody),
        OfBody,
    )
)]
pub(super) async fn some_docs(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    Params(query): Params<KeysQuery>,
    body: Body,
) -> Result<Response, ApiError> {
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let Held { value: KeysRequest { keys }, room: _room } =
        body::read_form(&api, body, DOCUMENT_BYTES_MAX).await?;
    if keys.len() > KEYS_MAX {
        let reason = format!("{} IDs in one request, at most {KEYS_MAX} can be", keys.len());
        return Err(ApiError::too_large(reason).advice("ask in several requests"));
    }
    let counted = collection.clone();
    let total = api.work(move || Ok(counted.count())).await?;
    Ok(body::piped("application/json", move |sink| async move {
        let _room = _room;
        let mut piece = format!("{{\"total_rows\":{total},\"rows\":[").into_bytes();
        let (mut keys, mut is_first) = (VecDeque::from(keys), true);
        while !keys.is_empty() {
            if sink.send(piece).await.is_err() {
                return;
            }
            let collection = collection.clone();
            let read = api.work(move || {
                let piece = rows_of(&collection, &mut keys, query.include_docs, &mut is_first)?;
                Ok((keys, is_first, piece))
            });
            match read.await {
                Ok(read) => (keys, is_first, piece) = read,
                Err(error) => return sink.fail(error.to_string()).await,
            }
        }
        piece.extend_from_slice(b"\n]}\n");
        let _ = sink.send(piece).await;
    }))
}

fn rows_of(
    collection: &Collection,
    keys: &mut VecDeque<String>,
    include_docs: bool,
    is_first: &mut bool,
) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while bytes.len() < PIECE_BYTES {
        let Some(key) = keys.pop_front() else { break };
        bytes.extend_from_slice(if std::mem::take(is_first) { b"\n" } else { b",\n" });
        let row = match collection.get(&key)? {
            Some(document) => AskedRow::Found(ListedRow::of(document, include_docs)),
            None => {
                let reason = if collection.knows(&key)? { "deleted" } else { "missing" };
                AskedRow::Missing(MissingRow { key, error: "not_found", reason })
            }
        };
        write(&mut bytes, &row);
    }
    Ok(bytes)
}

pub(super) fn write(bytes: &mut Vec<u8>, value: &impl Serialize) {
    // Maps with text as keys are always JSON, and memory takes all.
    let _ = serde_json::to_writer(bytes, value);
}

/// Which IDs are meant.
#[derive(Debug)]
struct Range {
    start: String,
    end: End,
    limit: u64,
}

#[derive(Clone, Debug)]
enum End {
    Open,
    Until(String),
    Before(String),
    Prefix(String),
}

impl End {
    fn has(&self, id: &str) -> bool {
        match self {
            End::Open => true,
            End::Until(end) => id <= end.as_str(),
            End::Before(end) => id < end.as_str(),
            End::Prefix(prefix) => id.starts_with(prefix.as_str()),
        }
    }
}

impl Range {
    fn of(query: &AllDocsQuery) -> Result<Range, ApiError> {
        let limit = query.limit.unwrap_or(u64::MAX);
        let text = |key: &Option<String>| key.as_deref().map(key_text).transpose();
        let (key, start, end) = (text(&query.key)?, text(&query.start_key)?, text(&query.end_key)?);
        let is_ranged = start.is_some() || end.is_some();
        if (key.is_some() || query.prefix.is_some()) && is_ranged || key.is_some() && query.prefix.is_some() {
            return Err(ApiError::bad_request(
                "`key`, `prefix` and `start_key` with `end_key` are three ways to say it",
            )
            .advice("give one of them"));
        }
        if let Some(key) = key {
            return Ok(Range { start: key.clone(), end: End::Until(key), limit });
        }
        if let Some(prefix) = query.prefix.clone() {
            return Ok(Range { start: prefix.clone(), end: End::Prefix(prefix), limit });
        }
        let end = match end {
            None => End::Open,
            Some(end) if query.inclusive_end == Some(false) => End::Before(end),
            Some(end) => End::Until(end),
        };
        Ok(Range { start: start.unwrap_or_default(), end, limit })
    }
}

/// An ID as it is given: as it is, or as a JSON string.
fn key_text(key: &str) -> Result<String, ApiError> {
    if !key.starts_with('"') {
        return Ok(key.to_owned());
    }
    serde_json::from_str(key).map_err(|error| {
        ApiError::bad_request(format!(
            "{:?} begins as a JSON string and is none: {error}",
            crate::replica::clip(key)
        ))
        .advice("give the ID without quotes")
    })
}

/// A listing that is under way.
struct Listing {
    collection: Collection,
    next: Next,
    is_first: bool,
    left: u64,
}

enum Next {
    From(String),
    After(String),
    End,
}

impl Listing {
    /// The next piece; `None`: there are no more.
    fn piece(mut self, end: &End, include_docs: bool) -> Result<(Listing, Option<Vec<u8>>), ApiError> {
        let mut bytes = Vec::new();
        let (first, after) = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok((self, None)),
            Next::From(id) if id.is_empty() => (None, self.collection.iter()),
            Next::From(id) => (self.collection.get(&id)?, self.collection.iter_after(&id)),
            Next::After(id) => (None, self.collection.iter_after(&id)),
        };
        for (row, document) in first.map(Ok).into_iter().chain(after).enumerate() {
            let document = document?;
            if self.left == 0 || !end.has(document.id()) {
                break;
            }
            self.left -= 1;
            bytes.extend_from_slice(if std::mem::take(&mut self.is_first) { b"\n" } else { b",\n" });
            let id = document.id().to_owned();
            write(&mut bytes, &ListedRow::of(document, include_docs));
            if bytes.len() >= PIECE_BYTES || row + 1 >= PIECE_ROWS {
                self.next = Next::After(id);
                break;
            }
        }
        let piece = (!bytes.is_empty()).then_some(bytes);
        Ok((self, piece))
    }
}
