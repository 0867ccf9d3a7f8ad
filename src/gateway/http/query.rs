//! Queries of a collection.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use serde_json::Value;

use super::api::{Api, InKeyspace, InPath, Keyspace};
use super::body::{self, Held, PIECE_BYTES};
use super::error::{ApiError, ErrorBody, OfBody};
use super::list::write;
use crate::database::{Query, QueryStep, Rows};

/// Longest query, bytes.
const QUERY_BYTES_MAX: usize = 2 << 20;

/// Documents that are looked at for one piece of the answer: so often it is seen whether the client is still there, and others
/// have their turn.
const PIECE_DOCUMENTS: usize = 4_096;

/// The answer to a query, row by row.
#[derive(utoipa::ToSchema)]
#[allow(dead_code)] // it is written in pieces
pub(super) struct Found {
    /// Documents, their fields, or groups.
    rows: Vec<Value>,
    /// Goes on where this answer ends; null unless its limit has ended it.
    bookmark: Option<String>,
}

/// A query that is under way.
struct Running {
    rows: Rows,
    is_first: bool,
}

impl Running {
    /// The next piece; whether it is the last one.
    fn piece(&mut self) -> Result<(Vec<u8>, bool), ApiError> {
        let (mut bytes, mut left) = (Vec::new(), PIECE_DOCUMENTS);
        while bytes.len() < PIECE_BYTES && left > 0 {
            match self.rows.step(left)? {
                QueryStep::Row(row) => {
                    bytes.extend_from_slice(if std::mem::take(&mut self.is_first) { b"\n" } else { b",\n" });
                    write(&mut bytes, &row);
                    left -= 1;
                }
                QueryStep::Working => break,
                QueryStep::End => {
                    bytes.extend_from_slice(b"\n],\"bookmark\":");
                    write(&mut bytes, &self.rows.bookmark()?);
                    bytes.extend_from_slice(b"}\n");
                    return Ok((bytes, true));
                }
            }
        }
        Ok((bytes, false))
    }
}

async fn go_on(api: &Api, mut running: Running) -> Result<(Running, Vec<u8>, bool), ApiError> {
    let next = api.work(move || running.piece().map(|(bytes, is_last)| (running, bytes, is_last)));
    next.await
}

/// Finds documents, or tells of them in groups: `firmware-notes/query.md`.
#[utoipa::path(
    post, path = "/{keyspace}/_query", tag = "documents",
    params(InKeyspace),
    request_body = Object,
    responses(
        (status = 200, description = "The rows", body = Found),
        (status = 400, description = "It is no query", body = ErrorBody),
        (status = 403, description = "The request came from another site", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
        (status = 413, description = "The query is too long, or would take too much memory", body = ErrorBody),
        OfBody,
    )
)]
pub(super) async fn query(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    body: Body,
) -> Result<Response, ApiError> {
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let Held { value, room } = body::read_object(&api, body, QUERY_BYTES_MAX).await?;
    let query = Query::from_json(&Value::Object(value))?;
    drop(room);
    let mut running =
        api.work(move || Ok(Running { rows: collection.query(&query)?, is_first: true })).await?;
    // What is gathered in memory is told, or is too much, before the answer begins. The client may go at any time.
    let (mut bytes, mut is_last);
    loop {
        (running, bytes, is_last) = go_on(&api, running).await?;
        if is_last || !bytes.is_empty() {
            break;
        }
    }
    Ok(body::piped("application/json", move |sink| async move {
        let mut piece = b"{\"rows\":[".to_vec();
        piece.append(&mut bytes);
        loop {
            if sink.send(piece).await.is_err() || is_last {
                return;
            }
            let next = tokio::select! {
                () = sink.gone() => return,
                next = go_on(&api, running) => next,
            };
            match next {
                Ok(next) => (running, piece, is_last) = next,
                Err(error) => return sink.fail(error.to_string()).await,
            }
        }
    }))
}

/// Tells how a query would be run.
#[utoipa::path(
    post, path = "/{keyspace}/_explain", tag = "documents",
    params(InKeyspace),
    request_body = Object,
    responses(
        (status = 200, description = "Which index or documents are read, and where rows are ordered", body = Object),
        (status = 400, description = "It is no query", body = ErrorBody),
        (status = 403, description = "The request came from another site", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
        (status = 413, description = "The query is too long", body = ErrorBody),
        OfBody,
    )
)]
pub(super) async fn explain(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    body: Body,
) -> Result<Response, ApiError> {
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let Held { value, .. } = body::read_object(&api, body, QUERY_BYTES_MAX).await?;
    let query = Query::from_json(&Value::Object(value))?;
    let told = api.work(move || Ok(collection.explain(&query)?)).await?;
    Ok(body::json(StatusCode::OK, &told))
}
