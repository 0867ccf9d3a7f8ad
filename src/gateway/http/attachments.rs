//! Attachments: the content of a blob that stands at a path of a document, in and out, piece by piece.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, InPath, Keyspace, Params};
use super::body::{self, PIECE_BYTES, PIECE_TIME_MAX, too_slow};
use super::condition::{Condition, tags};
use super::documents::{RevisionQuery, check_id, read, revision_of};
use super::error::{ApiError, ErrorBody, OfBody, OfChange};
use crate::database::blob::{BlobWriter, TYPE_UNKNOWN};
use crate::database::{
    AttachmentPath, BLOB_BYTES_MAX, Blob, BlobReader, Collection, DatabaseError, Document,
};
use crate::task;

/// What a client has to send on the average, after the first of this time.
const BYTES_PER_SECOND_MIN: u64 = 4 << 10;
const BEGINNING: Duration = Duration::from_secs(60);

/// How long the rest of a body that is refused is taken and thrown away.
const REFUSED_MAX: Duration = Duration::from_secs(5);

/// A browser that opens an attachment runs nothing of it as a page of ours.
const SANDBOX: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

/// Which attachment is meant.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfAttachment {
    /// DATABASE, DATABASE.COLLECTION (of the default scope) or DATABASE.SCOPE.COLLECTION
    #[param(example = "plant")]
    keyspace: String,
    /// The document's ID, percent-encoded; at most 240 bytes of UTF-8
    #[param(example = "valve-7", pattern = r"^[^_\x00-\x1f][^\x00-\x1f]{0,239}$")]
    id: String,
    /// Where in the document, as in queries: `picture`, `pictures[0]`, `report.scan`
    #[param(example = "picture", pattern = r"^[^_.\[\]]")]
    path: String,
}

/// An attachment that was saved or taken away.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Attached {
    ok: bool,
    id: String,
    /// The document's new revision.
    rev: String,
    /// Its place in the change feed.
    sequence: u64,
    /// The blob's digest.
    digest: String,
    /// Bytes of its content.
    length: u64,
}

/// Reads an attachment. `HEAD` is answered too.
#[utoipa::path(
    get, path = "/{keyspace}/{id}/{path}", tag = "attachments",
    params(
        OfAttachment,
        ("If-None-Match" = Option<String>, Header, description = "An ETag that the client has"),
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LAST`"),
        ("If-Range" = Option<String>, Header, description = "The ETag for which the range is meant"),
    ),
    responses(
        (status = 200, description = "Its content; the digest is the ETag", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "The range of it", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304, description = "It is still this"),
        (status = 400, description = "No such ID or path can be", body = ErrorBody),
        (status = 404, description = "No such document, collection or database, no blob there, or its content is not here", body = ErrorBody),
        (status = 416, description = "It has no such range", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    InPath(OfAttachment { keyspace, id, path }): InPath<OfAttachment>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let path = parse(&path)?;
    let Keyspace { open, collection } = api.keyspace(&keyspace)?;
    let found = api.work(move || {
        let document = read(&collection, &id)?;
        let blob = path.find(document.body()).ok_or_else(|| nothing_there(&id, &path))?;
        let reader = open.db.blob(blob.digest())?.ok_or_else(|| {
            let reason = format!("blob {} of document {id:?} is not here", blob.digest());
            ApiError::not_found(reason).advice("it comes with a sync from a peer that has it")
        })?;
        Ok((blob, reader))
    });
    let (blob, reader) = found.await?;
    let length = reader.length();
    let tag = format!("\"{}\"", blob.digest());
    if tags(&headers, &IF_NONE_MATCH)?.is_some_and(|known| known.are(blob.digest())) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        set(&mut response, ETAG, &tag);
        return Ok(response);
    }
    let is_meant = headers.get(IF_RANGE).is_none_or(|value| value.as_bytes() == tag.as_bytes());
    let wanted = headers.get(RANGE).filter(|_| is_meant).and_then(|value| value.to_str().ok());
    let (first, last, status) = match wanted.and_then(|text| range(text, length)) {
        None => (0, length, StatusCode::OK),
        Some(Some((first, last))) => (first, last, StatusCode::PARTIAL_CONTENT),
        Some(None) => {
            let reason = format!("the attachment has {length} bytes");
            return Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad_range", reason));
        }
    };
    let mut response = body::answer(status, TYPE_UNKNOWN, stream(api, reader, first, last));
    set(&mut response, CONTENT_TYPE, blob.content_type());
    set(&mut response, CONTENT_LENGTH, &(last - first).to_string());
    set(&mut response, ETAG, &tag);
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut response, CONTENT_SECURITY_POLICY, SANDBOX);
    set(&mut response, CONTENT_DISPOSITION, "attachment");
    if status == StatusCode::PARTIAL_CONTENT {
        set(&mut response, CONTENT_RANGE, &format!("bytes {first}-{}/{length}", last - 1));
    }
    Ok(response)
}

/// What cannot stand in a header is left as it is.
fn set(response: &mut Response, name: hyper::header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The bytes that a range names, to the end that is excluded; inner `None`: there are none. Outer `None`: it is of another kind, or
/// several, and all is answered, as RFC 9110 allows.
fn range(text: &str, length: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(length)),
        (Some(first), None) if last.is_empty() => (first, length),
        (None, Some(last)) if first.is_empty() => (length.saturating_sub(last), length),
        _ => return None,
    };
    Some((first < end).then_some((first, end)))
}

/// Content as fast as it is taken.
fn stream(api: Api, mut reader: BlobReader, first: u64, last: u64) -> Body {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let (sink, body) = body::pipe();
    task::spawn(async move {
        let (mut at, mut is_begun) = (first, false);
        while at < last {
            let piece = api.work(move || {
                let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(last - at).unwrap_or(PIECE_BYTES))];
                let read = if is_begun { Ok(at) } else { reader.seek(SeekFrom::Start(at)) };
                let read = read.and_then(|_| reader.read(&mut piece));
                piece.truncate(read.map_err(|error| ApiError::internal(error.to_string()))?);
                Ok((reader, piece))
            });
            let piece = match piece.await {
                Ok((same, piece)) => {
                    reader = same;
                    piece
                }
                Err(error) => return sink.fail(error.to_string()).await,
            };
            is_begun = true;
            at += piece.len() as u64;
            if piece.is_empty() || sink.send(piece).await.is_err() {
                return;
            }
        }
    });
    body
}

/// Saves an attachment at a path of a document, whose revision is given as for the document itself; without one a document is
/// made that has nothing else. The body is its content, and may be long.
#[utoipa::path(
    put, path = "/{keyspace}/{id}/{path}", tag = "attachments",
    params(
        OfAttachment,
        ("Content-Type" = Option<String>, Header, description = "What it is; `application/octet-stream` unless given"),
        ("If-Match" = Option<String>, Header, description = "The ETag that the document must have; `*`: any"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there must be no such document"),
        RevisionQuery,
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "At most 1 GiB"),
    responses(
        (status = 201, description = "Saved", body = Attached),
        (status = 400, description = "No such ID or path can be, or there is something else on the way", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
        (status = 409, description = "The document is not at the revision in `rev`, or none was given and it exists", body = ErrorBody),
        (status = 412, description = "`If-Match` or `If-None-Match` does not hold", body = ErrorBody),
        (status = 413, description = "It is too large", body = ErrorBody),
        OfBody,
        OfChange,
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    InPath(OfAttachment { keyspace, id, path }): InPath<OfAttachment>,
    Params(query): Params<RevisionQuery>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let path = parse(&path)?;
    let Keyspace { open, collection } = api.keyspace(&keyspace)?;
    let condition = Condition::of(&headers, query.rev, None)?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or(TYPE_UNKNOWN).to_owned();
    // Before all of the body is taken.
    let (first, of) = (collection.clone(), id.clone());
    let begun = api.work(move || {
        let stored = first.get(&of)?;
        condition.check(&of, stored.as_ref().map(revision_of).as_deref())?;
        Ok((condition, open.db.blob_writer()?))
    });
    let received = match begun.await {
        Ok((condition, writer)) => receive(&api, &mut body, writer).await.map(|writer| (condition, writer)),
        Err(error) => Err(error),
    };
    let (condition, writer) = match received {
        Ok(received) => received,
        Err(error) => {
            // Whoever is still sending would not hear why it is refused.
            let _ = timeout(REFUSED_MAX, async { while let Some(Ok(_)) = body.frame().await {} }).await;
            return Err(error);
        }
    };
    let saved = api.work(move || {
        let blob = writer.finish(&content_type)?;
        change(&collection, &id, &condition, |body| Ok(path.attach(body, &blob).map(|()| blob.clone())?))
    });
    let saved = saved.await?;
    let mut response = body::json(StatusCode::CREATED, &saved);
    set(&mut response, ETAG, &format!("\"{}\"", saved.digest));
    Ok(response)
}

/// Takes an attachment away from a document, whose revision is given as for the document itself. In an array `null` stays.
#[utoipa::path(
    delete, path = "/{keyspace}/{id}/{path}", tag = "attachments",
    params(
        OfAttachment,
        ("If-Match" = Option<String>, Header, description = "The ETag that the document must have; `*`: any"),
        RevisionQuery,
    ),
    responses(
        (status = 200, description = "Taken away", body = Attached),
        (status = 400, description = "No such ID or path can be", body = ErrorBody),
        (status = 404, description = "No such document, collection or database, or no blob there", body = ErrorBody),
        (status = 409, description = "The document is not at the revision in `rev`, or none was given", body = ErrorBody),
        (status = 412, description = "`If-Match` does not hold", body = ErrorBody),
        OfChange,
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    InPath(OfAttachment { keyspace, id, path }): InPath<OfAttachment>,
    Params(query): Params<RevisionQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let path = parse(&path)?;
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let condition = Condition::of(&headers, query.rev, None)?;
    let gone = api.work(move || {
        read(&collection, &id)?;
        change(&collection, &id, &condition, |body| {
            path.detach(body).ok_or_else(|| nothing_there(&id, &path))
        })
    });
    Ok(body::json(StatusCode::OK, &gone.await?))
}

fn parse(path: &str) -> Result<AttachmentPath, ApiError> {
    AttachmentPath::parse(path).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn nothing_there(id: &str, path: &AttachmentPath) -> ApiError {
    ApiError::not_found(format!("document {id:?} has no attachment {:?}", path.text()))
}

/// Changes a document for which the condition holds.
fn change(
    collection: &Collection,
    id: &str,
    condition: &Condition,
    mut edit: impl FnMut(&mut serde_json::Map<String, serde_json::Value>) -> Result<Blob, ApiError>,
) -> Result<Attached, ApiError> {
    loop {
        let stored = collection.get(id)?;
        condition.check(id, stored.as_ref().map(revision_of).as_deref())?;
        let mut document = stored.unwrap_or_else(|| Document::new(id, serde_json::Map::new()));
        let blob = edit(document.body_mut())?;
        match collection.save(&mut document) {
            Ok(()) => {}
            // Somebody was faster; what is there now is looked at anew.
            Err(DatabaseError::Conflict { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        let (rev, sequence) = (revision_of(&document), document.sequence());
        let (digest, length) = (blob.digest().to_owned(), blob.length());
        return Ok(Attached { ok: true, id: id.to_owned(), rev, sequence, digest, length });
    }
}

/// Takes a body to stable storage as it comes.
async fn receive(api: &Api, body: &mut Body, mut writer: BlobWriter) -> Result<BlobWriter, ApiError> {
    use hyper::body::Body as _;
    let too_long = || ApiError::too_large(format!("an attachment has at most {BLOB_BYTES_MAX} bytes"));
    if body.size_hint().lower() > BLOB_BYTES_MAX {
        return Err(too_long());
    }
    let _room = api.room(2 * PIECE_BYTES)?;
    let (began, mut all, mut piece) = (Instant::now(), 0u64, Vec::new());
    loop {
        let frame = timeout(PIECE_TIME_MAX, body.frame()).await.map_err(|_| too_slow())?;
        let is_end = frame.is_none();
        if let Some(frame) = frame {
            let frame =
                frame.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
            let data = frame.into_data().unwrap_or_default();
            all += data.len() as u64;
            piece.extend_from_slice(&data);
        }
        if all > BLOB_BYTES_MAX {
            return Err(too_long());
        }
        let time_max = BEGINNING + Duration::from_secs(all / BYTES_PER_SECOND_MIN);
        if !is_end && began.elapsed() > time_max {
            return Err(too_slow());
        }
        if piece.len() >= PIECE_BYTES || is_end && !piece.is_empty() {
            let full = std::mem::take(&mut piece);
            writer = api.work(move || Ok(writer.append(&full).map(|()| writer)?)).await?;
        }
        if is_end {
            return Ok(writer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (text, length, expected) in [
            ("bytes=0-0", 10, Some(Some((0, 1)))),
            ("bytes=3-", 10, Some(Some((3, 10)))),
            ("bytes=-3", 10, Some(Some((7, 10)))),
            ("bytes=-30", 10, Some(Some((0, 10)))),
            ("bytes=5-99999999999999999999999", 10, Some(Some((5, 10)))),
            ("bytes=10-", 10, Some(None)),
            ("bytes=99999999999999999999999-", 10, Some(None)),
            ("bytes=-0", 10, Some(None)),
            ("bytes=0-", 0, Some(None)),
            ("bytes=5-3", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("bytes=a-", 10, None),
            ("bytes=-", 10, None),
            ("lines=0-1", 10, None),
        ] {
            assert_eq!(range(text, length), expected, "{text} of {length}");
        }
    }
}
