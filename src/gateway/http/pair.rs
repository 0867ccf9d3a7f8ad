//! Pairing with another device by a code, as `gattway pair` does it, while the process goes on.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::api::Api;
use super::body::{self, Held};
use super::error::{ApiError, ErrorBody, OfBody};
use crate::gateway::address::PlaceAddress;
use crate::gateway::pairing::{PairStatus, PairWay};
use crate::gateway::peer_row::Role;
use crate::replica::clip;
use crate::secure::pairing::PairingCode;
use crate::transport::stream::Address;

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;

/// How the pairing stands, or how the last one has ended.
#[utoipa::path(
    get, path = "/_pair", tag = "gateway",
    responses((status = 200, description = "How it stands", body = PairStatus))
)]
pub(super) async fn status(State(api): State<Api>) -> Response {
    body::json(StatusCode::OK, &api.pairings().status())
}

/// With what, and which side shows the code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PairRequest {
    /// The database; may be left out where one alone is open.
    #[serde(default)]
    database: Option<String>,
    /// Show a code, and wait for the other device there: `tcp:HOST:PORT`, `ble` or `ble:ADAPTER`.
    #[serde(default)]
    listen: Option<String>,
    /// Connect to the device that shows the code: `tcp:HOST:PORT`, `ble:ADDRESS`, `ble:NAME` or `ble:any`.
    #[serde(default)]
    connect: Option<String>,
    /// The code that it shows.
    #[serde(default)]
    code: Option<String>,
    /// What the other device may do; as the list says of those that nothing else is said about, unless given.
    #[serde(default)]
    role: Option<Role>,
}

/// Begins a pairing: shows a code, or answers one. One goes on at a time, for two minutes at most.
#[utoipa::path(
    post, path = "/_pair", tag = "gateway",
    request_body = PairRequest,
    responses(
        (status = 202, description = "It has begun; `GET /_pair` tells how it stands", body = PairStatus),
        (status = 400, description = "The request has another form, an address cannot be used, or no code was given", body = ErrorBody),
        (status = 403, description = "The request came from another site", body = ErrorBody),
        (status = 404, description = "There is no such database", body = ErrorBody),
        (status = 409, description = "Another one goes on", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        OfBody,
    )
)]
pub(super) async fn begin(State(api): State<Api>, body: Body) -> Result<Response, ApiError> {
    let Held { value, room: _room } = body::read_form::<PairRequest>(&api, body, BODY_BYTES_MAX).await?;
    let way = match (&value.listen, &value.connect, &value.code) {
        (Some(listen), None, None) => PairWay::Show(address(listen)?),
        (None, Some(connect), Some(code)) => {
            let code = PairingCode::parse(code).map_err(|error| ApiError::bad_request(error.to_string()))?;
            PairWay::Answer(address(connect)?, code)
        }
        _ => {
            return Err(ApiError::bad_request("it is not said which side shows the code")
                .advice("give `listen`, or `connect` and `code`"));
        }
    };
    let open = api.database_or_only(value.database.as_deref())?;
    let role = value.role.map(Into::into);
    match api.pairings().begin((&open.name, &open.db), open.ended, way, role) {
        Some(status) => Ok(body::json(StatusCode::ACCEPTED, &status)),
        None => Err(ApiError::new(StatusCode::CONFLICT, "conflict", "another pairing goes on")
            .advice("wait for its end, or give it up by `DELETE /_pair`")),
    }
}

/// Gives up the pairing that goes on, or forgets the one that has ended.
#[utoipa::path(
    delete, path = "/_pair", tag = "gateway",
    responses(
        (status = 200, description = "How it stands now", body = PairStatus),
        (status = 403, description = "The request came from another site", body = ErrorBody),
    )
)]
pub(super) async fn cancel(State(api): State<Api>) -> Response {
    body::json(StatusCode::OK, &api.pairings().cancel())
}

/// Two devices that are paired are near each other, and no file of this machine is made for it.
fn address(text: &str) -> Result<PlaceAddress, ApiError> {
    let refused = |reason: String| {
        ApiError::bad_request(format!("{:?} cannot be paired at: {reason}", clip(text)))
            .advice("write tcp:HOST:PORT, ble, or ble: with an adapter, an address or a name")
    };
    match text.parse::<PlaceAddress>().map_err(refused)? {
        address @ (PlaceAddress::Stream(Address::Tcp(_)) | PlaceAddress::Ble(_)) => Ok(address),
        _ => Err(refused("devices are paired over Bluetooth or TCP".into())),
    }
}
