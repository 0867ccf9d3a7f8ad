//! What is asked of the process as a whole: what is open, what goes on, syncs that are told something.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::{Api, InKeyspace, InPath};
use super::body::{self, Held};
use super::error::{ApiError, ErrorBody, OfBody, OfChange};
use super::page;
use crate::gateway::status::NeighbourStatus;
use crate::gateway::upstream::Order;

/// Longest body of a request to syncs, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Welcome {
    /// `Welcome`.
    gattway: &'static str,
    version: &'static str,
}

/// Says who answers; to a browser, by the status page, which needs no token itself.
#[utoipa::path(
    get, path = "/", tag = "gateway",
    responses((status = 200, description = "Who answers; the page where `Accept` has `text/html`", content(
        (Welcome = "application/json"), (String = "text/html")
    )))
)]
pub(super) async fn welcome(State(api): State<Api>, headers: HeaderMap) -> Result<Response, ApiError> {
    if page::is_wanted(&headers) {
        return page::answer(api.asks_token());
    }
    Ok(body::json(StatusCode::OK, &Welcome { gattway: "Welcome", version: env!("CARGO_PKG_VERSION") }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    ok: bool,
}

/// Whether it works: it answers as long as the loop that looks after everything does. Needs no token.
#[utoipa::path(
    get, path = "/healthz", tag = "gateway",
    responses(
        (status = 200, description = "It works", body = Health),
        (status = 503, description = "It does not", body = ErrorBody),
    )
)]
pub(super) async fn health(State(api): State<Api>) -> Result<Response, ApiError> {
    api.status().await?;
    Ok(body::json(StatusCode::OK, &Health { ok: true }))
}

/// The names of the databases that are open.
#[utoipa::path(get, path = "/_all_dbs", tag = "gateway", responses((status = 200, description = "Names", body = [String])))]
pub(super) async fn all_dbs(State(api): State<Api>) -> Response {
    let names: Vec<String> = api.databases().all().into_iter().map(|open| open.name).collect();
    body::json(StatusCode::OK, &names)
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyspaceInfo {
    /// The database.
    db_name: String,
    /// The author ID of the database.
    db_uuid: String,
    /// Its collections by their names; of a collection, that one alone.
    collections: BTreeMap<String, CollectionInfo>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CollectionInfo {
    /// Documents, without deleted ones.
    doc_count: u64,
    /// The newest sequence of its change feed.
    update_seq: u64,
}

/// What a database or a collection holds.
#[utoipa::path(
    get, path = "/{keyspace}", tag = "databases",
    params(InKeyspace),
    responses(
        (status = 200, description = "What it holds", body = KeyspaceInfo),
        (status = 400, description = "No collection can have this name", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
    )
)]
pub(super) async fn keyspace(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
) -> Result<Response, ApiError> {
    let is_database = !keyspace.contains('.');
    let (open, collections) = match is_database {
        true => {
            let open = api.database(&keyspace)?;
            let names = open.db.collections();
            (open, names)
        }
        false => {
            let found = api.keyspace(&keyspace)?;
            (found.open, vec![found.collection.name().to_owned()])
        }
    };
    let info = api.work(move || {
        let of = |name: String| {
            let collection = open.db.collection(&name)?;
            Some((
                name,
                CollectionInfo { doc_count: collection.count(), update_seq: collection.last_sequence() },
            ))
        };
        let collections = collections.into_iter().filter_map(of).collect();
        Ok(KeyspaceInfo { db_name: open.name, db_uuid: open.db.source().to_string(), collections })
    });
    Ok(body::json(StatusCode::OK, &info.await?))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    ok: bool,
}

/// Makes a collection.
#[utoipa::path(
    put, path = "/{keyspace}", tag = "databases",
    params(InKeyspace),
    responses(
        (status = 201, description = "Made", body = Done),
        (status = 400, description = "No collection can have this name, or there are too many", body = ErrorBody),
        (status = 404, description = "No such database", body = ErrorBody),
        (status = 412, description = "It exists", body = ErrorBody),
        OfChange,
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
) -> Result<Response, ApiError> {
    let (open, name) = api.named(&keyspace)?;
    if open.db.collection(&name).is_some() {
        let reason = format!("collection {name} of {} exists", open.name);
        return Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "file_exists", reason));
    }
    api.work(move || Ok(open.db.create_collection(&name).map(drop)?)).await?;
    Ok(body::json(StatusCode::CREATED, &Done { ok: true }))
}

/// The state of everything, as `gattway status --json` prints it.
#[utoipa::path(
    get, path = "/_status", tag = "gateway",
    responses(
        (status = 200, description = "The state", body = Object),
        (status = 503, description = "The gateway does not answer", body = ErrorBody),
    )
)]
pub(super) async fn status(State(api): State<Api>) -> Result<Response, ApiError> {
    Ok(body::json(StatusCode::OK, &api.status().await?))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PeerRow {
    database: String,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    peer: NeighbourStatus,
}

/// The peers that came or were visited, of all databases.
#[utoipa::path(
    get, path = "/_peers", tag = "gateway",
    responses(
        (status = 200, description = "Who they are, and when they were in sync", body = [PeerRow]),
        (status = 503, description = "The gateway does not answer", body = ErrorBody),
    )
)]
pub(super) async fn peers(State(api): State<Api>) -> Result<Response, ApiError> {
    let databases = api.status().await?.databases;
    let rows = databases.into_iter().flat_map(|database| {
        let name = database.name;
        database.neighbours.into_iter().map(move |peer| PeerRow { database: name.clone(), peer })
    });
    Ok(body::json(StatusCode::OK, &rows.collect::<Vec<_>>()))
}

/// What syncs are told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderWord {
    /// Begin now.
    Now,
    /// Make no connection until `resume`.
    Pause,
    /// Go on.
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

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyncRequest {
    pub(crate) order: OrderWord,
    /// The name of an upstream, or `bluetooth.NAME`; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SyncsTold {
    /// How many syncs were told.
    pub(crate) syncs: usize,
}

/// Tells syncs to begin now, to pause, or to go on.
#[utoipa::path(
    post, path = "/_sync", tag = "gateway",
    request_body = SyncRequest,
    responses(
        (status = 200, description = "How many were told", body = SyncsTold),
        (status = 400, description = "The request has another form", body = ErrorBody),
        (status = 403, description = "The request came from another site", body = ErrorBody),
        (status = 404, description = "There is no such sync, or this process is no gateway", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        OfBody,
        (status = 503, description = "The gateway does not answer", body = ErrorBody),
    )
)]
pub(super) async fn sync(State(api): State<Api>, body: Body) -> Result<Response, ApiError> {
    let Held { value, room: _room } = body::read_form::<SyncRequest>(&api, body, BODY_BYTES_MAX).await?;
    let syncs = api.order(value.order.into(), value.name.clone()).await?;
    match (syncs, value.name) {
        (0, Some(name)) => Err(ApiError::not_found(format!("the gateway has no sync {name:?}"))
            .advice("`GET /_status` lists them")),
        _ => Ok(body::json(StatusCode::OK, &SyncsTold { syncs })),
    }
}
