//! The state as it changes, for whoever looks at it: server-sent events, each when its part has changed, at most one a second. Where
//! nobody looks nothing is done.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::api::Api;
use super::body::{self, Gone, Sink};
use super::error::{ApiError, ErrorBody};
use super::trust;
use crate::gateway::history::DatabaseHistory;
use crate::gateway::pairing::PairStatus;
use crate::gateway::status::{GatewayStatus, MediumStatus};
use crate::trust::files::FileStamp;
use crate::trust::list::TrustList;

/// How often it is looked what has changed.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the history is told, if it has changed.
const HISTORY_INTERVAL: Duration = Duration::from_secs(10);

/// Silence after which something is sent, so that both sides notice one that has gone.
const BEAT: Duration = Duration::from_secs(15);

/// Free space of a disk changes with whatever else writes there; a step of so many bytes is told.
const FREE_STEP_BYTES: u64 = 16 << 20;

/// What was measured of all databases.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Histories {
    databases: Vec<DatabaseHistory>,
}

/// How the databases did over the last hour and the last day, in slots.
#[utoipa::path(
    get, path = "/_history", tag = "gateway",
    responses(
        (status = 200, description = "What was measured since the start", body = Histories),
        (status = 503, description = "The gateway does not answer", body = ErrorBody),
    )
)]
pub(super) async fn history(State(api): State<Api>) -> Result<Response, ApiError> {
    Ok(body::json(StatusCode::OK, &Histories { databases: api.history().await? }))
}

/// The state as server-sent events, from now on: `status` (as of `/_status`), `history`, `trust` and `pairing` (as of `/_pair`), each
/// at the beginning and when it has changed, at most one a second. It goes on until the client goes.
#[utoipa::path(
    get, path = "/_events", tag = "gateway",
    responses(
        (status = 200, description = "Events without end", body = String, content_type = "text/event-stream"),
        (status = 429, description = "Too many look at it", body = ErrorBody),
        (status = 503, description = "The gateway does not answer", body = ErrorBody),
    )
)]
pub(super) async fn events(State(api): State<Api>) -> Result<Response, ApiError> {
    let place = api.watching()?;
    api.status().await?;
    Ok(body::piped("text/event-stream", move |sink| async move {
        let _place = place;
        // Without a word about it: the client has gone, or the gateway ends.
        let _ = Watcher::new(api).run(&sink).await;
    }))
}

/// What one client was told.
struct Watcher {
    api: Api,
    hashes: RandomState,
    status: Option<u64>,
    history: Option<(Instant, u64)>,
    /// Of each database's list.
    trust: Option<Vec<(String, Option<FileStamp>)>>,
    pairing: Option<PairStatus>,
}

impl Watcher {
    fn new(api: Api) -> Watcher {
        let hashes = RandomState::new();
        Watcher { api, hashes, status: None, history: None, trust: None, pairing: None }
    }

    async fn run(mut self, sink: &Sink) -> Result<(), Gone> {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_since = Instant::now();
        let api = self.api.clone();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = sink.gone() => return Err(Gone),
                () = api.ended() => return Ok(()),
            }
            let mut told = String::new();
            self.tell_lists(&mut told).await;
            self.tell_history(&mut told).await;
            let Ok(status) = self.api.status().await else { return Ok(()) };
            self.tell_status(status, &mut told);
            if told.is_empty() && silent_since.elapsed() >= BEAT {
                told.push_str(":\n\n");
            }
            if !told.is_empty() {
                sink.send(told.into_bytes()).await?;
                silent_since = Instant::now();
            }
        }
    }

    fn tell_status(&mut self, status: GatewayStatus, told: &mut String) {
        let hash = self.hashes.hash_one(text(&without_time(status.clone())));
        if self.status != Some(hash) {
            self.status = Some(hash);
            tell(told, "status", &status);
        }
    }

    async fn tell_history(&mut self, told: &mut String) {
        if self.history.is_some_and(|(at, _)| at.elapsed() < HISTORY_INTERVAL) {
            return;
        }
        let Ok(databases) = self.api.history().await else { return };
        let histories = Histories { databases };
        let hash = self.hashes.hash_one(text(&histories));
        if self.history.is_none_or(|(_, before)| before != hash) {
            tell(told, "history", &histories);
        }
        self.history = Some((Instant::now(), hash));
    }

    /// Who may come in, and the pairing that goes on.
    async fn tell_lists(&mut self, told: &mut String) {
        let open = self.api.databases().all();
        let stamps: Vec<_> =
            open.into_iter().map(|open| (open.name, TrustList::stamp(open.db.path()))).collect();
        if self.trust.as_ref() != Some(&stamps) {
            // One that cannot be read is tried again when it has changed.
            self.trust = Some(stamps);
            if let Ok(lists) = trust::read(&self.api).await {
                tell(told, "trust", &trust::rows(&lists));
            }
        }
        let pairing = self.api.pairings().status();
        if self.pairing.as_ref() != Some(&pairing) {
            tell(told, "pairing", &pairing);
            self.pairing = Some(pairing);
        }
    }
}

/// What changes by itself as time goes on is no change.
fn without_time(mut status: GatewayStatus) -> GatewayStatus {
    status.now_s = 0;
    status.medium = status.medium.map(|medium| MediumStatus {
        device: medium.device,
        cycles: medium.cycles,
        written_bytes: medium.written_bytes / FREE_STEP_BYTES,
        ..MediumStatus::default()
    });
    for database in &mut status.databases {
        database.free_bytes = database.free_bytes.map(|bytes| bytes / FREE_STEP_BYTES);
    }
    status
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn tell(told: &mut String, event: &str, value: &impl Serialize) {
    // JSON has no end of line within.
    told.push_str(&format!("event: {event}\ndata: {}\n\n", text(value)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::http::api::Limits;
    use crate::gateway::http::databases::Databases;
    use crate::gateway::status::DatabaseStatus;

    #[tokio::test]
    async fn what_has_not_changed_is_not_told_again() {
        let api = Api::new(Databases::default(), None, Limits::default());
        let mut watcher = Watcher::new(api.clone());
        let mut status = api.status().await.expect("a status");
        status.medium = Some(MediumStatus::default());
        status.databases = vec![DatabaseStatus { free_bytes: Some(5 << 30), ..DatabaseStatus::default() }];
        let mut said = |status: &GatewayStatus| {
            let mut told = String::new();
            watcher.tell_status(status.clone(), &mut told);
            told
        };
        assert!(said(&status).starts_with("event: status\ndata: {\"version\":"));
        // Time, what is measured by it, and what others write.
        status.now_s += 7;
        status.medium = Some(MediumStatus { measured_s: 9, written_bytes: 77, ..MediumStatus::default() });
        status.databases[0].free_bytes = Some((5 << 30) + 4096);
        assert_eq!(said(&status), "");
        status.databases[0].commits += 1;
        assert!(said(&status).contains(&format!("\"now_s\":{}", status.now_s)));
        assert_eq!(said(&status), "");
    }
}
