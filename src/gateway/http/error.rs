//! What a request is refused with: a status, a word for programs, a reason, and what to do.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, ToSchema};

use crate::database::DatabaseError;

/// The body of every answer that is no success.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// A word for programs, as `conflict`.
    pub(crate) error: String,
    /// What happened, and to what.
    pub(crate) reason: String,
    /// What to do now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Told>);

#[derive(Debug)]
struct Told {
    status: StatusCode,
    body: ErrorBody,
    header: Option<(HeaderName, &'static str)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, error: &str, reason: impl Into<String>) -> ApiError {
        let body = ErrorBody { error: error.to_owned(), reason: reason.into(), advice: None };
        ApiError(Box::new(Told { status, body, header: None }))
    }

    /// Adds what to do now.
    #[must_use]
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> ApiError {
        self.0.body.advice = Some(advice.into());
        self
    }

    /// Adds a field to the head of the answer.
    fn header(mut self, name: HeaderName, value: &'static str) -> ApiError {
        self.0.header = Some((name, value));
        self
    }

    pub(crate) fn bad_request(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    pub(crate) fn not_found(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    pub(super) fn conflict(id: &str) -> ApiError {
        let reason = format!("document {id:?} is not at the revision that was given");
        ApiError::new(StatusCode::CONFLICT, "conflict", reason)
            .advice("read it, apply the change, and give its `_rev`")
    }

    pub(super) fn precondition(id: &str, reason: &str) -> ApiError {
        let reason = format!("document {id:?} {reason}");
        ApiError::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", reason)
            .advice("read it, apply the change, and give its ETag")
    }

    pub(super) fn too_large(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", reason)
    }

    pub(super) fn too_many(reason: impl Into<String>) -> ApiError {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", reason);
        error.advice("try again in a second").header(RETRY_AFTER, "1")
    }

    pub(super) fn unauthorized() -> ApiError {
        let error =
            ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "a token is needed, and the right one");
        let error = error.advice("send it as `Authorization: Bearer TOKEN`");
        error.header(WWW_AUTHENTICATE, "Bearer realm=\"gattway\"")
    }

    pub(super) fn forbidden(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "forbidden", reason)
    }

    pub(super) fn unavailable(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason)
    }

    pub(super) fn internal(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", reason)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What stands in the answer.
    pub(super) fn body(&self) -> &ErrorBody {
        &self.0.body
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.body.reason)
    }
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> ApiError {
        let reason = error.to_string();
        match error {
            DatabaseError::Conflict { id } => ApiError::conflict(&id),
            DatabaseError::NotFound { .. } | DatabaseError::UnknownCollection { .. } => {
                ApiError::not_found(reason)
            }
            DatabaseError::InvalidId { .. }
            | DatabaseError::InvalidCollectionName { .. }
            | DatabaseError::BadBody { .. }
            | DatabaseError::TooManyCollections { .. } => ApiError::bad_request(reason),
            DatabaseError::MissingBlob { .. } => ApiError::bad_request(reason)
                .advice("`PUT` its content at `/{keyspace}/{id}/{path}`; that names it too"),
            DatabaseError::BadQuery { .. } => {
                ApiError::bad_request(reason).advice("`firmware-notes/query.md` tells what a query is")
            }
            DatabaseError::BadIndex { .. } => ApiError::bad_request(reason)
                .advice("give {\"name\": \"by-time\", \"on\": [\"sensor\", \"time\"]}"),
            DatabaseError::IndexExists { .. } => ApiError::new(StatusCode::CONFLICT, "conflict", reason),
            DatabaseError::TooLarge { .. }
            | DatabaseError::BlobTooLarge { .. }
            | DatabaseError::QueryTooLarge { .. } => ApiError::too_large(reason),
            DatabaseError::ReadOnly { .. } => ApiError::forbidden(reason),
            DatabaseError::Full { .. } => ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "full", reason)
                .advice("free some space; what was acknowledged is there, and reading works meanwhile"),
            DatabaseError::Damaged { .. } => ApiError::internal(reason)
                .advice("`gattway db verify` says what is damaged, `gattway db repair` saves what is whole"),
            DatabaseError::Closed | DatabaseError::Failed { .. } => {
                ApiError::unavailable(reason).advice("it is opened again by itself: try again")
            }
            _ => ApiError::internal(reason),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Told { status, body, header } = *self.0;
        let text = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
/// What any change may be answered.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the description alone")]
pub(super) enum OfChange {
    /// The database can only be read, or the request came from another site
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The disk is full
    #[response(status = 507)]
    Full(ErrorBody),
}

/// What any request with a large body may be answered.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the description alone")]
pub(super) enum OfBody {
    /// The body came too slowly
    #[response(status = 408)]
    Slow(ErrorBody),
    /// Too many large requests at one time
    #[response(status = 429)]
    Busy(ErrorBody),
}
