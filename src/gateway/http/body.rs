//! Bodies: those of requests are read up to a limit, in bounded time, within the memory that all may take together; those of
//! answers that are long are made as fast as they are taken.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::api::Api;
use super::error::ApiError;
use crate::replica::validate::parse_json;
use crate::task;

/// Largest body of a request for one document: the document with its meta-data, spelled as it may be.
pub(super) const DOCUMENT_BYTES_MAX: usize = 24 << 20;

/// Time for a piece of a body to come, and for all of it.
pub(super) const PIECE_TIME_MAX: Duration = Duration::from_secs(15);
const BODY_TIME_MAX: Duration = Duration::from_secs(120);

/// Bytes that one piece of a long answer aims at.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Pieces of an answer that are made ahead of the client.
const PIECES_AHEAD: usize = 1;

/// Room that is taken at once at least.
const FIRST_BYTES: usize = 16 << 10;

/// A body of a request, and the room that it takes until it is dealt with.
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) room: Vec<OwnedSemaphorePermit>,
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// It is longer, comes too slowly, breaks off, or there is no memory for it now.
pub(crate) async fn read(api: &Api, body: Body, limit: usize) -> Result<Held<Vec<u8>>, ApiError> {
    let reading = read_all(api, body, limit);
    timeout(BODY_TIME_MAX, reading).await.unwrap_or_else(|_| Err(too_slow()))
}

async fn read_all(api: &Api, mut body: Body, limit: usize) -> Result<Held<Vec<u8>>, ApiError> {
    use hyper::body::Body as _;
    let too_long = || {
        ApiError::too_large(format!("the body has more than {limit} bytes"))
            .advice("send fewer or smaller documents at one time")
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let (mut bytes, mut rooms, mut room_bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(frame) = timeout(PIECE_TIME_MAX, body.frame()).await.map_err(|_| too_slow())? {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        let len = bytes.len() + piece.len();
        if len > limit {
            return Err(too_long());
        }
        if len > room_bytes {
            // As much again as there is, so that a long body takes few steps; in the whole KiB in which room is given, so that steps take no more.
            let wanted =
                len.max(2 * bytes.len()).max(bytes.len() + FIRST_BYTES).next_multiple_of(1024).min(limit);
            rooms.push(api.room(wanted - room_bytes)?);
            bytes.reserve_exact(wanted - bytes.len());
            room_bytes = wanted;
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Held { value: bytes, room: rooms })
}

pub(super) fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body came too slowly")
}

/// Reads a body that is a JSON object.
///
/// # Errors
/// As of [`read`]; it is none.
pub(super) async fn read_object(
    api: &Api,
    body: Body,
    limit: usize,
) -> Result<Held<Map<String, Value>>, ApiError> {
    let Held { value, room } = read(api, body, limit).await?;
    let wrong = |reason: String| {
        ApiError::bad_request(format!("the body is no JSON object: {reason}"))
            .advice("send one, such as {\"open\": true}")
    };
    match parse_json(&value) {
        Ok(Value::Object(value)) => Ok(Held { value, room }),
        Ok(_) => Err(wrong("it is another value".into())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Reads a body that is JSON of a known form.
///
/// # Errors
/// As of [`read`]; it has another form.
pub(super) async fn read_form<T: serde::de::DeserializeOwned>(
    api: &Api,
    body: Body,
    limit: usize,
) -> Result<Held<T>, ApiError> {
    let Held { value, room } = read_object(api, body, limit).await?;
    let value = serde_json::from_value(Value::Object(value)).map_err(|error| {
        ApiError::bad_request(format!("the body has another form: {error}"))
            .advice("`GET /_openapi.json` describes it")
    })?;
    Ok(Held { value, room })
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).unwrap_or_default();
    answer(status, "application/json", Body::from(text))
}

pub(super) fn answer(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A document may change at any time, and what is here is for nobody in between.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Takes the pieces of a long answer.
#[derive(Clone)]
pub(crate) struct Sink(mpsc::Sender<io::Result<Bytes>>);

/// The client has gone.
pub(crate) struct Gone;

impl Sink {
    /// Hands on a piece, when the client has taken those before.
    pub(crate) async fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.0.send(Ok(bytes.into())).await.map_err(|_| Gone)
    }

    /// The same for a thread that may block.
    pub(crate) fn blocking_send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.0.blocking_send(Ok(bytes.into())).map_err(|_| Gone)
    }

    /// Breaks the answer off, so that nobody takes it for a whole one.
    pub(crate) async fn fail(&self, reason: String) {
        let _ = self.0.send(Err(io::Error::other(reason))).await;
    }

    /// Waits until the client has gone.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

/// An answer whose pieces a task makes.
pub(super) fn piped<F>(content_type: &'static str, produce: impl FnOnce(Sink) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sink, body) = pipe();
    task::spawn(produce(sink));
    answer(StatusCode::OK, content_type, body)
}

/// A body, and where its pieces go.
pub(crate) fn pipe() -> (Sink, Body) {
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    (Sink(sender), Body::from_stream(ReceiverStream::new(pieces)))
}
