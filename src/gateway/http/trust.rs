//! Who may come in, and what each may do: the trust lists of the databases that are open, as `gattway peers` has them.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::Api;
use super::body::{self, Held};
use super::databases::OpenDatabase;
use super::error::{ApiError, ErrorBody, OfBody};
use crate::gateway::peer_row::{EVERYBODY, PeerRow, Role};
use crate::secure::{PeerId, Permissions};
use crate::trust::group::Group;
use crate::trust::list::{Origin, TrustError, TrustList};

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;

/// The list of one database.
#[derive(Serialize, ToSchema)]
struct TrustRows<'a> {
    database: &'a str,
    /// What those may do that nothing else is said about.
    default: PeerRow<'a>,
    peers: Vec<PeerRow<'a>>,
}

/// Who is known, of all databases.
#[utoipa::path(
    get, path = "/_trust", tag = "gateway",
    responses(
        (status = 200, description = "Who may come in, and what each may do", body = [TrustRows]),
        (status = 500, description = "A list is damaged", body = ErrorBody),
    )
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Response, ApiError> {
    let lists = read(&api).await?;
    Ok(body::json(StatusCode::OK, &rows(&lists)))
}

/// The lists of all databases that are open.
pub(super) async fn read(api: &Api) -> Result<Vec<(String, TrustList)>, ApiError> {
    let open = api.databases().all();
    api.work(move || {
        open.into_iter()
            .map(|open| Ok((open.name, TrustList::load(open.db.path()).map_err(failed)?)))
            .collect()
    })
    .await
}

/// The same as it is answered.
pub(super) fn rows(lists: &[(String, TrustList)]) -> impl Serialize + use<'_> {
    let of = |(database, list): &'_ (String, TrustList)| -> serde_json::Value {
        let rows = TrustRows {
            database,
            default: PeerRow::new(EVERYBODY.into(), None, &list.default),
            peers: list.peers().map(|(id, _)| PeerRow::of(list, id)).collect(),
        };
        serde_json::to_value(rows).unwrap_or_default()
    };
    lists.iter().map(of).collect::<Vec<_>>()
}

/// What is to be said of a peer from now on. What is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustRequest {
    /// The database; may be left out where one alone is open.
    #[serde(default)]
    database: Option<String>,
    /// Its name, its ID or the beginning of its ID; `default` for all that nothing else is said about.
    peer: String,
    /// False: it is kept out, whatever it proves. A whole ID may be kept out before it is met.
    #[serde(default)]
    allowed: Option<bool>,
    /// What it may do with collections that have no role of their own.
    #[serde(default)]
    role: Option<Role>,
}

/// What is said of it now.
#[derive(Serialize, ToSchema)]
struct TrustChanged<'a> {
    database: &'a str,
    peer: PeerRow<'a>,
    /// What else there is to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

/// Changes what a peer may do, keeps it out, or lets it in again. Open connections hear of it within seconds.
#[utoipa::path(
    post, path = "/_trust", tag = "gateway",
    request_body = TrustRequest,
    responses(
        (status = 200, description = "What is said of it now", body = TrustChanged),
        (status = 400, description = "The request has another form, or names no database where several are open", body = ErrorBody),
        (status = 403, description = "The request came from another site", body = ErrorBody),
        (status = 404, description = "There is no such peer or database", body = ErrorBody),
        (status = 409, description = "Several peers fit, or the list is full", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        OfBody,
        (status = 500, description = "The list is damaged", body = ErrorBody),
    )
)]
pub(super) async fn change(State(api): State<Api>, body: Body) -> Result<Response, ApiError> {
    let Held { value, room: _room } = body::read_form::<TrustRequest>(&api, body, BODY_BYTES_MAX).await?;
    let open = api.database_or_only(value.database.as_deref())?;
    api.work(move || changed(&open, &value)).await
}

fn changed(open: &OpenDatabase, wanted: &TrustRequest) -> Result<Response, ApiError> {
    let directory = open.db.path();
    let updated = TrustList::update(directory, |list| {
        let id = apply(list, wanted)?;
        Ok((id, list.clone()))
    });
    let (id, list) = updated.map_err(failed)?;
    let (peer, advice) = match &id {
        None => (PeerRow::new(EVERYBODY.into(), None, &list.default), None),
        Some(id) => {
            let may_return = wanted.allowed == Some(false)
                && list.get(id).is_some_and(|peer| peer.origin == Origin::Group)
                && Group::load(directory).is_ok_and(|group| group.is_some());
            let advice = "it may know the group's secret, and could come back as somebody else: \
                          `gattway group rotate` changes it for all others";
            (PeerRow::of(&list, id), may_return.then_some(advice))
        }
    };
    Ok(body::json(StatusCode::OK, &TrustChanged { database: &open.name, peer, advice }))
}

/// Changes the list; `None`: what holds for all others.
fn apply(list: &mut TrustList, wanted: &TrustRequest) -> Result<Option<PeerId>, TrustError> {
    let with = |before: &Permissions, role: Role| Permissions { others: role.into(), ..before.clone() };
    if wanted.peer == EVERYBODY {
        if let Some(role) = wanted.role {
            list.default = with(&list.default, role);
        }
        return Ok(None);
    }
    let id = match (list.find(&wanted.peer), wanted.peer.parse::<PeerId>()) {
        // A stranger can be kept out before it is met.
        (Err(TrustError::Unknown { .. }), Ok(id)) if wanted.allowed == Some(false) => id,
        (found, _) => found?,
    };
    let permissions = wanted.role.map(|role| with(list.permissions(&id), role));
    let peer = list.enter(id, Origin::Group)?;
    peer.denied = wanted.allowed.map_or(peer.denied, |allowed| !allowed);
    peer.permissions = permissions.or(peer.permissions.take());
    Ok(Some(id))
}

fn failed(error: TrustError) -> ApiError {
    let reason = error.to_string();
    match error {
        TrustError::Unknown { text } => {
            ApiError::not_found(format!("no peer {:?} in the list", crate::replica::clip(&text)))
                .advice("`GET /_trust` lists them")
        }
        TrustError::Ambiguous { .. } => ApiError::new(StatusCode::CONFLICT, "ambiguous", reason)
            .advice("give more of its ID, or its name"),
        TrustError::Full => {
            ApiError::new(StatusCode::CONFLICT, "full", reason).advice("`gattway peers forget` makes room")
        }
        TrustError::File(file) => ApiError::internal(reason).advice(file.advice()),
        _ => ApiError::bad_request(reason),
    }
}
