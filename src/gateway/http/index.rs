//! Indexes of a collection.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, InKeyspace, InPath, Keyspace};
use super::body::{self, Held};
use super::error::{ApiError, ErrorBody, OfBody, OfChange};
use crate::database::{Collection, DatabaseError, IndexInfo};
use crate::replica::clip;

/// Longest body of such a request, in bytes.
const BODY_BYTES_MAX: usize = 16 << 10;

/// An index that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexRequest {
    /// What it goes by; the paths with commas between them unless given.
    name: Option<String>,
    /// The paths, in order.
    on: Vec<String>,
}

/// An index.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Index {
    name: String,
    /// The paths, in order.
    on: Vec<String>,
    /// `ready`, or `building`: queries do not use it yet.
    state: &'static str,
    /// Documents in it.
    entries: u64,
    /// Documents that are to be in it.
    documents: u64,
    /// Bytes of its pages.
    bytes: u64,
}

/// The indexes of a collection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Indexes {
    indexes: Vec<Index>,
}

/// That it was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Dropped {
    ok: bool,
}

/// Which index is meant.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfIndex {
    /// DATABASE, DATABASE.COLLECTION (of the default scope) or DATABASE.SCOPE.COLLECTION
    #[param(example = "plant")]
    keyspace: String,
    /// What the index goes by
    #[param(example = "by-time", pattern = r"^[A-Za-z0-9._,\[\]-]{1,100}$")]
    name: String,
}

impl Index {
    fn of(info: IndexInfo) -> Index {
        let state = if info.is_ready { "ready" } else { "building" };
        let IndexInfo { name, paths: on, entries, documents, bytes, .. } = info;
        Index { name, on, state, entries, documents, bytes }
    }
}

fn indexes(collection: &Collection) -> Result<Vec<Index>, DatabaseError> {
    Ok(collection.indexes()?.into_iter().map(Index::of).collect())
}

/// Lists the indexes, and how far they are built.
#[utoipa::path(
    get, path = "/{keyspace}/_index", tag = "documents",
    params(InKeyspace),
    responses(
        (status = 200, description = "The indexes by their names", body = Indexes),
        (status = 404, description = "No such collection or database", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
) -> Result<Response, ApiError> {
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let indexes = api.work(move || Ok(indexes(&collection)?)).await?;
    Ok(body::json(StatusCode::OK, &Indexes { indexes }))
}

/// Declares an index; it is built in the background. The same one may be there already.
#[utoipa::path(
    post, path = "/{keyspace}/_index", tag = "documents",
    params(InKeyspace),
    request_body = IndexRequest,
    responses(
        (status = 200, description = "It is there", body = Index),
        (status = 400, description = "No such index can be", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
        (status = 409, description = "There is another one of this name", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        OfBody,
        OfChange,
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    body: Body,
) -> Result<Response, ApiError> {
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let Held { value, room: _room } = body::read_form::<IndexRequest>(&api, body, BODY_BYTES_MAX).await?;
    let IndexRequest { name, on } = value;
    let name = name.unwrap_or_else(|| on.join(","));
    let made = api.work(move || {
        collection.create_index(&name, on)?;
        let made = indexes(&collection)?.into_iter().find(|index| index.name == name);
        made.ok_or_else(|| unknown(&name))
    });
    Ok(body::json(StatusCode::OK, &made.await?))
}

/// Drops an index. Queries that read it go on.
#[utoipa::path(
    delete, path = "/{keyspace}/_index/{name}", tag = "documents",
    params(OfIndex),
    responses(
        (status = 200, description = "It is gone", body = Dropped),
        (status = 404, description = "No such index, collection or database", body = ErrorBody),
        OfChange,
    )
)]
pub(super) async fn drop(
    State(api): State<Api>,
    InPath(OfIndex { keyspace, name }): InPath<OfIndex>,
) -> Result<Response, ApiError> {
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let dropped = api.work(move || {
        let was_there = collection.drop_index(&name)?;
        if was_there { Ok(Dropped { ok: true }) } else { Err(unknown(&name)) }
    });
    Ok(body::json(StatusCode::OK, &dropped.await?))
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("no index {:?}", clip(name)))
}
