//! When documents go by themselves.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::{Api, InPath, Keyspace};
use super::body::{self, Held};
use super::documents::{check_id, missing};
use super::error::{ApiError, ErrorBody};
use crate::database::{Collection, DatabaseError};

/// Longest body of such a request, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;

/// When a document goes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Expiration {
    id: String,
    /// The moment, as `2030-01-31T12:00:00Z`; null: never.
    expires: Option<String>,
}

/// When it is to go: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpirationRequest {
    /// A moment, as `2030-01-31T12:00:00Z`.
    at: Option<String>,
    /// A time from now on, as `90s`, `12h` or `30d`.
    #[serde(rename = "in")]
    after: Option<String>,
}

impl ExpirationRequest {
    fn time(&self) -> Result<SystemTime, ApiError> {
        let wrong = |reason: String| {
            ApiError::bad_request(reason)
                .advice("give {\"at\": \"2030-01-31T12:00:00Z\"} or {\"in\": \"30d\"}")
        };
        match (&self.at, &self.after) {
            (Some(at), None) => {
                humantime::parse_rfc3339_weak(at).map_err(|error| wrong(format!("`at`: {error}")))
            }
            (None, Some(after)) => {
                let after =
                    humantime::parse_duration(after).map_err(|error| wrong(format!("`in`: {error}")))?;
                SystemTime::now().checked_add(after).ok_or_else(|| wrong("`in` is too far away".into()))
            }
            _ => Err(wrong("one of `at` and `in` is needed".into())),
        }
    }
}

/// Tells when a document goes.
#[utoipa::path(
    get, path = "/{keyspace}/{id}/_expiration", tag = "documents",
    params(
        ("keyspace" = String, Path, description = "DATABASE, DATABASE.COLLECTION or DATABASE.SCOPE.COLLECTION"),
        ("id" = String, Path, description = "The document's ID, percent-encoded"),
    ),
    responses(
        (status = 200, description = "When it goes", body = Expiration),
        (status = 400, description = "No such ID can be", body = ErrorBody),
        (status = 404, description = "No such document, collection or database", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    InPath((keyspace, id)): InPath<(String, String)>,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let told = api.work(move || {
        if !collection.knows(&id)? {
            return Err(missing(&id));
        }
        let expires = collection.expiration(&id)?;
        Ok(told(id, expires))
    });
    Ok(body::json(StatusCode::OK, &told.await?))
}

/// Lets a document go at a time: it is purged here, and peers do not hear of it. Changing or deleting it leaves the time.
#[utoipa::path(
    put, path = "/{keyspace}/{id}/_expiration", tag = "documents",
    params(
        ("keyspace" = String, Path, description = "DATABASE, DATABASE.COLLECTION or DATABASE.SCOPE.COLLECTION"),
        ("id" = String, Path, description = "The document's ID, percent-encoded"),
    ),
    request_body = ExpirationRequest,
    responses(
        (status = 200, description = "When it goes", body = Expiration),
        (status = 400, description = "No such ID or time can be", body = ErrorBody),
        (status = 403, description = "The database can only be read, or the request came from another site", body = ErrorBody),
        (status = 404, description = "No such document, collection or database", body = ErrorBody),
        (status = 408, description = "The body came too slowly", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        (status = 429, description = "Too many large requests at one time", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    InPath((keyspace, id)): InPath<(String, String)>,
    body: Body,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let Held { value, room: _room } =
        body::read_form::<ExpirationRequest>(&api, body, BODY_BYTES_MAX).await?;
    let time = value.time()?;
    let told = api.work(move || set(&collection, id, Some(time))).await?;
    Ok(body::json(StatusCode::OK, &told))
}

/// Lets a document stay.
#[utoipa::path(
    delete, path = "/{keyspace}/{id}/_expiration", tag = "documents",
    params(
        ("keyspace" = String, Path, description = "DATABASE, DATABASE.COLLECTION or DATABASE.SCOPE.COLLECTION"),
        ("id" = String, Path, description = "The document's ID, percent-encoded"),
    ),
    responses(
        (status = 200, description = "It stays", body = Expiration),
        (status = 400, description = "No such ID can be", body = ErrorBody),
        (status = 403, description = "The database can only be read, or the request came from another site", body = ErrorBody),
        (status = 404, description = "No such document, collection or database", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    InPath((keyspace, id)): InPath<(String, String)>,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let told = api.work(move || set(&collection, id, None)).await?;
    Ok(body::json(StatusCode::OK, &told))
}

fn set(collection: &Collection, id: String, time: Option<SystemTime>) -> Result<Expiration, ApiError> {
    match collection.set_expiration(&id, time) {
        Err(DatabaseError::NotFound { .. }) => return Err(missing(&id)),
        result => result?,
    }
    // As it is stored; one that is over already is gone.
    let expires = collection.expiration(&id)?.or(time);
    Ok(told(id, expires))
}

fn told(id: String, expires: Option<SystemTime>) -> Expiration {
    Expiration { id, expires: expires.map(|time| humantime::format_rfc3339_seconds(time).to_string()) }
}
