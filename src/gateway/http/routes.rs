//! Every request that is answered, and their description in OpenAPI.

use axum::Router;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use hyper::{Method, StatusCode};
use utoipa::OpenApi;

use super::api::Api;
use super::body;
use super::error::ApiError;
use super::{
    attachments, bulk, changes, documents, events, expiry, index, list, metrics, pair, query, server, trust,
};
use crate::replica::clip;

/// The description of the interface.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "gattway",
        description = "Documents, their changes and the gateway itself, for every program on the device. \
                       `firmware-notes/http.md` tells what holds beside it.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        server::welcome, server::health, server::all_dbs, server::status, server::peers, server::sync,
        events::events, events::history, trust::list, trust::change, pair::status, pair::begin, pair::cancel, metrics::metrics, description,
        server::keyspace, server::create, documents::post,
        documents::get, documents::put, documents::delete,
        attachments::get, attachments::put, attachments::delete,
        list::all_docs, list::some_docs, bulk::bulk_docs, bulk::purge, changes::changes,
        expiry::get, expiry::put, expiry::delete, query::query, query::explain,
        index::list, index::create, index::drop,
    ),
    tags(
        (name = "documents", description = "Documents of a collection"),
        (name = "attachments", description = "Content that documents name, of any kind and size"),
        (name = "databases", description = "Databases and collections"),
        (name = "gateway", description = "The process"),
    )
)]
struct Described;

/// The description as JSON that is laid out for reading.
pub(crate) fn openapi() -> String {
    let mut text = Described::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// This description.
#[utoipa::path(get, path = "/_openapi.json", tag = "gateway", responses((status = 200, description = "OpenAPI", body = Object)))]
async fn description() -> Response {
    body::answer(StatusCode::OK, "application/json", openapi().into())
}

/// Each path with the methods that it takes.
fn table() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/", get(server::welcome)),
        ("/healthz", get(server::health)),
        ("/metrics", get(metrics::metrics)),
        ("/_openapi.json", get(description)),
        ("/_all_dbs", get(server::all_dbs)),
        ("/_status", get(server::status)),
        ("/_peers", get(server::peers)),
        ("/_sync", post(server::sync)),
        ("/_events", get(events::events)),
        ("/_history", get(events::history)),
        ("/_trust", get(trust::list).post(trust::change)),
        ("/_pair", get(pair::status).post(pair::begin).delete(pair::cancel)),
        ("/{keyspace}", get(server::keyspace).put(server::create).post(documents::post)),
        ("/{keyspace}/_all_docs", get(list::all_docs).post(list::some_docs)),
        ("/{keyspace}/_bulk_docs", post(bulk::bulk_docs)),
        ("/{keyspace}/_changes", get(changes::changes)),
        ("/{keyspace}/_explain", post(query::explain)),
        ("/{keyspace}/_index", get(index::list).post(index::create)),
        ("/{keyspace}/_index/{name}", delete(index::drop)),
        ("/{keyspace}/_purge", post(bulk::purge)),
        ("/{keyspace}/_query", post(query::query)),
        ("/{keyspace}/{id}", get(documents::get).put(documents::put).delete(documents::delete)),
        ("/{keyspace}/{id}/{path}", get(attachments::get).put(attachments::put).delete(attachments::delete)),
        ("/{keyspace}/{id}/_expiration", get(expiry::get).put(expiry::put).delete(expiry::delete)),
    ]
}

/// The paths of the table.
#[cfg(test)]
pub(super) fn paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

/// Answers what stands in the table; `more`: what is for the owner's own commands.
pub(super) fn router(api: Api, more: Router<Api>) -> Router {
    let router = table().into_iter().fold(more, |router, (path, methods)| router.route(path, methods));
    router.fallback(unknown).method_not_allowed_fallback(not_so).with_state(api)
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::not_found(format!("nothing is at {:?}", clip(uri.path())))
        .advice("`GET /_openapi.json` describes what is; an ID with a slash is written with %2F")
}

async fn not_so(method: Method, uri: Uri) -> ApiError {
    let reason = format!("{method} is nothing that {:?} takes", clip(uri.path()));
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", reason)
        .advice("`GET /_openapi.json` describes what it takes")
}
