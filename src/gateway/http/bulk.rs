//! Many documents in one request: saved one by one or all together, and removed here alone.

use std::collections::{BTreeMap, HashSet};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::api::{Api, InKeyspace, InPath, Keyspace};
use super::body::{self, DOCUMENT_BYTES_MAX, Held};
use super::condition::Condition;
use super::documents::{Saved, id_of, missing, revision_of};
use super::error::{ApiError, ErrorBody, OfBody, OfChange};
use crate::database::{Collection, Database, DatabaseError, Document, check_document_id};
use crate::gateway::record::Meta;
use crate::replica::validate::check_body;

/// Documents of one request.
const DOCUMENTS_MAX: usize = 10_000;

/// Times that documents are looked at anew because somebody else has changed one meanwhile.
const ATTEMPTS_MAX: usize = 20;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkRequest {
    /// Documents with `_id`, `_rev` (of those that exist) and `_deleted` (of those to be deleted).
    #[schema(value_type = Vec<Object>)]
    docs: Vec<Map<String, Value>>,
    /// Whether all are saved, or none.
    #[serde(default)]
    atomic: bool,
}

/// What became of a document: it was saved, or why not.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum BulkResult {
    Saved(Saved),
    Refused {
        id: String,
        #[serde(flatten)]
        error: ErrorBody,
    },
}

/// Saves and deletes documents. Each has an answer of its own, in the order of the request; with `atomic`, all are saved or
/// none. They are on stable storage when this is answered.
#[utoipa::path(
    post, path = "/{keyspace}/_bulk_docs", tag = "documents",
    params(InKeyspace),
    request_body = BulkRequest,
    responses(
        (status = 201, description = "What became of each", body = [BulkResult]),
        (status = 400, description = "The request has another form; with `atomic`, or one cannot be a document", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
        (status = 409, description = "With `atomic`: one is not at its revision; nothing was saved", body = ErrorBody),
        (status = 413, description = "Too many or too large documents at one time", body = ErrorBody),
        OfBody,
        OfChange,
    )
)]
pub(super) async fn bulk_docs(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    body: Body,
) -> Result<Response, ApiError> {
    let Keyspace { open, collection } = api.keyspace(&keyspace)?;
    let Held { value, room: _room } = body::read_form::<BulkRequest>(&api, body, DOCUMENT_BYTES_MAX).await?;
    check_count(value.docs.len())?;
    let results = api.work(move || save_all(&open.db, &collection, value)).await?;
    Ok(body::json(StatusCode::CREATED, &results))
}

fn check_count(count: usize) -> Result<(), ApiError> {
    if count <= DOCUMENTS_MAX {
        return Ok(());
    }
    let reason = format!("{count} documents in one request, at most {DOCUMENTS_MAX} can be");
    Err(ApiError::too_large(reason).advice("send them in several requests"))
}

/// One document of a request.
struct Wanted {
    id: String,
    condition: Condition,
    /// `None` deletes it.
    body: Option<Map<String, Value>>,
}

impl Wanted {
    fn of(fields: Map<String, Value>, seen: &mut HashSet<String>) -> Result<Wanted, (String, ApiError)> {
        let named = fields.get("_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let read = || {
            let meta = Meta::take(fields).map_err(ApiError::bad_request)?;
            let id = id_of(meta.id.as_ref())?;
            if !seen.insert(id.clone()) {
                return Err(ApiError::bad_request("the ID occurs twice in this request"));
            }
            let condition = Condition::of(&HeaderMap::new(), None, meta.revision)?;
            if !meta.deleted {
                check_body(&meta.body).map_err(DatabaseError::from)?;
            }
            Ok(Wanted { id, condition, body: (!meta.deleted).then_some(meta.body) })
        };
        read().map_err(|error| (named, error))
    }

    /// The change that is to be made to what is stored.
    fn change(&mut self, collection: &Collection) -> Result<Change, ApiError> {
        let stored = collection.get(&self.id)?;
        self.condition.check(&self.id, stored.as_ref().map(revision_of).as_deref())?;
        match (&self.body, stored) {
            (None, None) => Err(missing(&self.id)),
            (None, Some(stored)) => Ok(Change::Delete(stored)),
            (Some(body), Some(mut stored)) => {
                stored.body_mut().clone_from(body);
                Ok(Change::Save(stored))
            }
            (Some(body), None) => Ok(Change::Save(Document::new(&*self.id, body.clone()))),
        }
    }
}

enum Change {
    Save(Document),
    Delete(Document),
}

/// Saves what can be saved in one commit.
fn save_all(
    db: &Database,
    collection: &Collection,
    request: BulkRequest,
) -> Result<Vec<BulkResult>, ApiError> {
    let BulkRequest { docs, atomic } = request;
    let mut seen = HashSet::new();
    let mut wanted: Vec<Result<Wanted, (String, ApiError)>> =
        docs.into_iter().map(|fields| Wanted::of(fields, &mut seen)).collect();
    drop(seen);
    for _ in 0..ATTEMPTS_MAX {
        let mut results = Vec::with_capacity(wanted.len());
        let mut changes = Vec::new();
        for wanted in &mut wanted {
            let change = match wanted {
                Ok(wanted) => wanted.change(collection).map_err(|error| refused(&wanted.id, &error, atomic)),
                Err((id, error)) => Err(refused(id, error, atomic)),
            };
            results.push(match change {
                Ok(change) => {
                    changes.push(change);
                    None
                }
                Err(result) => Some(result?),
            });
        }
        let staged = db.batch_told(|batch| {
            changes.iter().try_for_each(|change| match change {
                Change::Save(document) => batch.save(collection, document),
                Change::Delete(document) => batch.delete_document(collection, document),
            })
        });
        let made = match staged {
            // Somebody was faster; what is there now is looked at anew.
            Err(DatabaseError::Conflict { .. }) => continue,
            made => made?,
        };
        let saved = changes.iter().zip(made).map(|(change, made)| {
            let (Change::Save(document) | Change::Delete(document)) = change;
            match made {
                Some((vector, sequence)) => BulkResult::Saved(Saved::new(document.id(), &vector, sequence)),
                None => BulkResult::Refused {
                    id: document.id().to_owned(),
                    error: missing(document.id()).body().clone(),
                },
            }
        });
        let mut saved = saved.collect::<Vec<_>>().into_iter();
        return Ok(results.into_iter().filter_map(|result| result.or_else(|| saved.next())).collect());
    }
    Err(ApiError::unavailable("the documents are changed by others all the time").advice("try again"))
}

/// What stands for one that cannot be saved; an error if that keeps the others from being saved.
fn refused(id: &str, error: &ApiError, atomic: bool) -> Result<BulkResult, ApiError> {
    let ErrorBody { error: word, reason, advice } = error.body().clone();
    if !atomic {
        return Ok(BulkResult::Refused {
            id: id.to_owned(),
            error: ErrorBody { error: word, reason, advice },
        });
    }
    let told = ApiError::new(error.status(), &word, format!("document {id:?}: {reason}; nothing was saved"));
    Err(match advice {
        Some(advice) => told.advice(advice),
        None => told,
    })
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PurgeResult {
    /// Those that were removed, with the revisions that they had, or `*`.
    purged: BTreeMap<String, Vec<String>>,
}

/// Removes documents here alone: peers do not hear of it, and what was removed does not come back until it is changed there. The
/// revision has to be the stored one; `*`: any, also of a deleted document.
#[utoipa::path(
    post, path = "/{keyspace}/_purge", tag = "documents",
    params(InKeyspace),
    request_body(content = BTreeMap<String, Vec<String>>, description = "IDs with revisions, or with [\"*\"]"),
    responses(
        (status = 200, description = "What was removed", body = PurgeResult),
        (status = 400, description = "The request has another form", body = ErrorBody),
        (status = 404, description = "No such collection or database", body = ErrorBody),
        (status = 413, description = "Too many at one time", body = ErrorBody),
        OfBody,
        OfChange,
    )
)]
pub(super) async fn purge(
    State(api): State<Api>,
    InPath(InKeyspace { keyspace }): InPath<InKeyspace>,
    body: Body,
) -> Result<Response, ApiError> {
    let Keyspace { open, collection } = api.keyspace(&keyspace)?;
    let Held { value, room: _room } =
        body::read_form::<BTreeMap<String, Vec<String>>>(&api, body, DOCUMENT_BYTES_MAX).await?;
    check_count(value.len())?;
    value.keys().try_for_each(|id| check_document_id(id))?;
    let purged = api.work(move || purge_all(&open.db, &collection, value)).await?;
    Ok(body::json(StatusCode::OK, &PurgeResult { purged }))
}

fn purge_all(
    db: &Database,
    collection: &Collection,
    wanted: BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
    let mut meant = Vec::new();
    for (id, revisions) in wanted {
        if revisions.iter().any(|revision| revision == "*") {
            meant.push((id, "*".to_owned()));
            continue;
        }
        let stored = collection.get(&id)?.as_ref().map(revision_of);
        if let Some(stored) = stored.filter(|stored| revisions.contains(stored)) {
            meant.push((id, stored));
        }
    }
    let made = db.batch_told(|batch| meant.iter().try_for_each(|(id, _)| batch.purge(collection, id)))?;
    let purged = meant.into_iter().zip(made).filter(|(_, made)| made.is_some());
    Ok(purged.map(|((id, revision), _)| (id, vec![revision])).collect())
}
