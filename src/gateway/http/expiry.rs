//! When documents go by themselves.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::{Api, InPath, Keyspace, OfDocument};
use super::body::{self, Held};
use super::documents::{check_id, missing};
use super::error::{ApiError, ErrorBody, OfBody, OfChange};
use crate::database::{Collection, DatabaseError};

/// Longest body of such a request, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;

/// What can be given.
const ADVICE: &str = "give {\"at\": \"2030-01-31T12:00:00Z\"} or {\"in\": \"30d\"}";

/// When a document goes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Expiration {
    id: String,
    /// The moment, as `2030-01-31T12:00:00Z`; null: never.
    expires: Option<String>,
}

/// When it is to go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExpirationRequest {
    /// A moment, as `2030-01-31T12:00:00Z`.
    At(String),
    /// A time from now on, as `90s`, `12h` or `30d`.
    In(String),
}

impl ExpirationRequest {
    fn time(&self) -> Result<SystemTime, ApiError> {
        let wrong = |reason: String| ApiError::bad_request(reason).advice(ADVICE);
        match self {
            ExpirationRequest::At(at) => {
                humantime::parse_rfc3339_weak(at).map_err(|error| wrong(format!("`at`: {error}")))
            }
            ExpirationRequest::In(after) => {
                let after =
                    humantime::parse_duration(after).map_err(|error| wrong(format!("`in`: {error}")))?;
                SystemTime::now().checked_add(after).ok_or_else(|| wrong("`in` is too far away".into()))
            }
        }
    }
}

/// Tells when a document goes.
#[utoipa::path(
    get, path = "/{keyspace}/{id}/_expiration", tag = "documents",
    params(
        OfDocument,
    ),
    responses(
        (status = 200, description = "When it goes", body = Expiration),
        (status = 400, description = "No such ID can be", body = ErrorBody),
        (status = 404, description = "No such document, collection or database", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    InPath(OfDocument { keyspace, id }): InPath<OfDocument>,
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
        OfDocument,
    ),
    request_body = ExpirationRequest,
    responses(
        (status = 200, description = "When it goes", body = Expiration),
        (status = 400, description = "No such ID or time can be", body = ErrorBody),
        (status = 404, description = "No such document, collection or database", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        OfBody,
        OfChange,
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    InPath(OfDocument { keyspace, id }): InPath<OfDocument>,
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
        OfDocument,
    ),
    responses(
        (status = 200, description = "It stays", body = Expiration),
        (status = 400, description = "No such ID can be", body = ErrorBody),
        (status = 404, description = "No such document, collection or database", body = ErrorBody),
        OfChange,
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    InPath(OfDocument { keyspace, id }): InPath<OfDocument>,
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
