//! One document: read, saved against the revision that the client knows, deleted.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, InKeyspace, InPath, Keyspace, OfDocument, Params};
use super::body::{self, DOCUMENT_BYTES_MAX, Held};
use super::condition::{Condition, tags};
use super::error::{ApiError, ErrorBody, OfBody, OfChange};
use crate::database::{Collection, DatabaseError, Document, VersionVector, check_document_id};
use crate::gateway::record::{Meta, id_text};
use crate::replica::clip;

/// A document that was saved or deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Saved {
    pub(super) ok: bool,
    pub(super) id: String,
    /// The new revision.
    pub(super) rev: String,
    /// Its place in the change feed.
    pub(super) sequence: u64,
}

impl Saved {
    pub(super) fn new(id: &str, vector: &VersionVector, sequence: u64) -> Saved {
        Saved { ok: true, id: id.to_owned(), rev: vector.id().to_string(), sequence }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RevisionQuery {
    /// The revision that the client knows.
    #[serde(default, deserialize_with = "with_plus")]
    pub(super) rev: Option<String>,
}

/// Takes a revision as it stands in an answer: many have a `+`, which an URL's query turns into a space, and none has a
/// space.
fn with_plus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let rev = Option::<String>::deserialize(deserializer)?;
    Ok(rev.map(|rev| rev.replace(' ', "+")))
}

/// Reads a document, with its `_id` and `_rev`.
#[utoipa::path(
    get, path = "/{keyspace}/{id}", tag = "documents",
    params(
        OfDocument,
        ("If-None-Match" = Option<String>, Header, description = "An ETag that the client has"),
        RevisionQuery,
    ),
    responses(
        (status = 200, description = "The document; its revision is the ETag too", body = Object),
        (status = 304, description = "It is still at this revision"),
        (status = 400, description = "No such ID can be", body = ErrorBody),
        (status = 404, description = "No such document, collection or database, or not at this revision", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    InPath(OfDocument { keyspace, id }): InPath<OfDocument>,
    Params(query): Params<RevisionQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let document = api.work(move || read(&collection, &id)).await?;
    let revision = revision_of(&document);
    if query.rev.is_some_and(|wanted| wanted != revision) {
        let reason = format!("document {:?} is at another revision, {revision}", document.id());
        return Err(ApiError::not_found(reason).advice("older revisions are not kept: leave `rev` away"));
    }
    let known = tags(&headers, &IF_NONE_MATCH)?;
    let mut response = match known.is_some_and(|known| known.are(&revision)) {
        true => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        false => body::json(StatusCode::OK, &with_meta(document)),
    };
    tag(&mut response, &revision);
    Ok(response)
}

/// Saves a document. Without a revision it must be new: else give the one that was read, as `_rev` in the body, `rev` or
/// `If-Match`. `If-Match: *` replaces whatever is there. It is on stable storage when this is answered.
#[utoipa::path(
    put, path = "/{keyspace}/{id}", tag = "documents",
    params(
        OfDocument,
        ("If-Match" = Option<String>, Header, description = "The ETag that the document must have; `*`: any"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there must be no such document"),
        RevisionQuery,
    ),
    request_body(content = Object, description = "The document, a JSON object; `\"_deleted\": true` deletes it"),
    responses(
        (status = 200, description = "Deleted", body = Saved),
        (status = 201, description = "Saved", body = Saved),
        (status = 400, description = "It cannot be a document", body = ErrorBody),
        (status = 404, description = "No such collection or database, or no document to delete", body = ErrorBody),
        (status = 409, description = "It is not at the revision in `_rev` or `rev`, or none was given and it exists", body = ErrorBody),
        (status = 412, description = "`If-Match` or `If-None-Match` does not hold", body = ErrorBody),
        (status = 413, description = "It is too large to be synced", body = ErrorBody),
        OfBody,
        OfChange,
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    InPath(OfDocument { keyspace, id }): InPath<OfDocument>,
    Params(query): Params<RevisionQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let Held { value, room: _room } = body::read_object(&api, body, DOCUMENT_BYTES_MAX).await?;
    let about = |reason: String| ApiError::bad_request(format!("document {id:?}: {reason}"));
    let meta = Meta::take(value).map_err(about)?;
    meta.check_id(&id).map_err(about)?;
    let condition = Condition::of(&headers, query.rev, meta.revision)?;
    if meta.deleted {
        return Ok(body::json(StatusCode::OK, &delete_when(&api, collection, id, condition).await?));
    }
    let saved = api.work(move || save(&collection, &id, meta.body, &condition)).await?;
    Ok(created(&saved))
}

/// Saves a document under a new ID, or the one in its `_id`, where there must be none yet.
#[utoipa::path(
    post, path = "/{keyspace}", tag = "documents",
    params(InKeyspace),
    request_body(content = Object, description = "The document, a JSON object"),
    responses(
        (status = 201, description = "Saved", body = Saved),
        (status = 400, description = "It cannot be a document", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
        (status = 409, description = "There is such a document, and not at the revision in `_rev`", body = ErrorBody),
        (status = 413, description = "It is too large to be synced", body = ErrorBody),
        OfBody,
        OfChange,
    )
)]
pub(super) async fn post(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    body: Body,
) -> Result<Response, ApiError> {
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let Held { value, room: _room } = body::read_object(&api, body, DOCUMENT_BYTES_MAX).await?;
    let meta = Meta::take(value).map_err(ApiError::bad_request)?;
    if meta.deleted {
        return Err(ApiError::bad_request("`_deleted` is true").advice("delete it with DELETE"));
    }
    let id = id_of(meta.id.as_ref())?;
    let condition = Condition::of(&HeaderMap::new(), None, meta.revision)?;
    let saved = api.work(move || save(&collection, &id, meta.body, &condition)).await?;
    Ok(created(&saved))
}

/// Deletes a document at the revision in `rev` or `If-Match` (`*`: any). The deletion is a revision, which peers learn of.
#[utoipa::path(
    delete, path = "/{keyspace}/{id}", tag = "documents",
    params(
        OfDocument,
        ("If-Match" = Option<String>, Header, description = "The ETag that the document must have; `*`: any"),
        RevisionQuery,
    ),
    responses(
        (status = 200, description = "Deleted", body = Saved),
        (status = 400, description = "No such ID can be", body = ErrorBody),
        (status = 404, description = "No such document, collection or database", body = ErrorBody),
        (status = 409, description = "It is not at the revision in `rev`, or none was given", body = ErrorBody),
        (status = 412, description = "`If-Match` does not hold", body = ErrorBody),
        OfChange,
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    InPath(OfDocument { keyspace, id }): InPath<OfDocument>,
    Params(query): Params<RevisionQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let Keyspace { collection, .. } = api.keyspace(&keyspace)?;
    let condition = Condition::of(&headers, query.rev, None)?;
    let saved = delete_when(&api, collection, id, condition).await?;
    let mut response = body::json(StatusCode::OK, &saved);
    tag(&mut response, &saved.rev);
    Ok(response)
}

async fn delete_when(
    api: &Api,
    collection: Collection,
    id: String,
    condition: Condition,
) -> Result<Saved, ApiError> {
    api.work(move || {
        loop {
            let document = read(&collection, &id)?;
            condition.check(&id, Some(&revision_of(&document)))?;
            match collection.bury(&document) {
                Ok(Some((vector, sequence))) => return Ok(Saved::new(&id, &vector, sequence)),
                Ok(None) => return Err(missing(&id)),
                // Somebody was faster; what is there now is looked at anew.
                Err(DatabaseError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
    .await
}

/// Saves a document if the condition holds for what is there.
fn save(
    collection: &Collection,
    id: &str,
    body: Map<String, Value>,
    condition: &Condition,
) -> Result<Saved, ApiError> {
    let mut document = Document::new(id, body);
    loop {
        let stored = collection.get(id)?;
        condition.check(id, stored.as_ref().map(revision_of).as_deref())?;
        let body = std::mem::take(document.body_mut());
        document = match stored {
            Some(mut stored) => {
                *stored.body_mut() = body;
                stored
            }
            None => Document::new(id, body),
        };
        match collection.save(&mut document) {
            Ok(()) => {}
            // Somebody was faster; what is there now is looked at anew.
            Err(DatabaseError::Conflict { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        let sequence = document.sequence();
        return match document.revision() {
            Some(vector) => Ok(Saved::new(id, vector, sequence)),
            None => Err(ApiError::internal("the document has no revision")),
        };
    }
}

fn created(saved: &Saved) -> Response {
    let mut response = body::json(StatusCode::CREATED, saved);
    tag(&mut response, &saved.rev);
    response
}

/// A document that is there.
pub(super) fn read(collection: &Collection, id: &str) -> Result<Document, ApiError> {
    if let Some(document) = collection.get(id)? {
        return Ok(document);
    }
    let is_deleted = collection.knows(id)?;
    Err(if is_deleted { ApiError::not_found(format!("document {id:?} is deleted")) } else { missing(id) })
}

pub(super) fn missing(id: &str) -> ApiError {
    ApiError::not_found(format!("no document {id:?}")).advice("`_all_docs` lists what is there")
}

/// Checks an ID in a path.
///
/// # Errors
/// No document can have it.
pub(super) fn check_id(id: &str) -> Result<(), ApiError> {
    if id.starts_with('_') {
        let reason = format!("no document and no request {:?} can be: IDs do not begin with `_`", clip(id));
        return Err(ApiError::not_found(reason).advice("`GET /_openapi.json` describes what can be asked"));
    }
    Ok(check_document_id(id)?)
}

/// The ID in a document, or a new one: in the order of time, and unlike any other.
///
/// # Errors
/// It is neither text nor a whole number, or no document can have it; there is no randomness.
pub(super) fn id_of(id: Option<&Value>) -> Result<String, ApiError> {
    let Some(id) = id else { return new_id() };
    let text =
        id_text(id).ok_or_else(|| ApiError::bad_request("`_id` is neither text nor a whole number"))?;
    check_document_id(&text)?;
    Ok(text)
}

/// Version 7 of RFC 9562.
fn new_id() -> Result<String, ApiError> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| ApiError::internal(format!("no randomness: {error}")))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(uuid::Builder::from_unix_timestamp_millis(now.as_millis() as u64, &random).into_uuid().to_string())
}

/// What names a revision: it stands in `_rev`, `rev` and ETag.
pub(super) fn revision_of(document: &Document) -> String {
    document.revision().map(|vector| vector.id().to_string()).unwrap_or_default()
}

/// A document as it is answered: `_id` first, `_rev`, then the body.
pub(super) fn with_meta(document: Document) -> Value {
    let mut fields = Map::new();
    fields.insert("_id".to_owned(), document.id().into());
    fields.insert("_rev".to_owned(), revision_of(&document).into());
    fields.extend(document.into_body());
    Value::Object(fields)
}

fn tag(response: &mut Response, revision: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::FromRequestParts;
    use hyper::Request;

    #[tokio::test]
    async fn a_revision_with_a_plus_is_taken_as_it_was_given() {
        for (query, expected) in [
            ("", None),
            ("?rev=18a5c1@C+8/v5OHTAmSl0vqqQDkPQ", Some("18a5c1@C+8/v5OHTAmSl0vqqQDkPQ")),
            ("?rev=18a5c1@C%2B8%2Fv5OHTAmSl0vqqQDkPQ", Some("18a5c1@C+8/v5OHTAmSl0vqqQDkPQ")),
        ] {
            let request = Request::get(format!("/plant/valve-7{query}")).body(()).expect("a request");
            let (mut parts, ()) = request.into_parts();
            let Params(taken) =
                Params::<RevisionQuery>::from_request_parts(&mut parts, &()).await.expect("a query");
            assert_eq!(taken.rev.as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn new_ids_are_in_the_order_of_time() {
        let ids: Vec<String> = (0..3)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                new_id().expect("an ID")
            })
            .collect();
        assert!(ids.is_sorted() && ids.iter().all(|id| id.len() == 36 && &id[14..15] == "7"), "{ids:?}");
    }
}
