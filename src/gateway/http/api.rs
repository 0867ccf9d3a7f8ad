//! What all requests share: the databases, who answers for the gateway, and the limits of memory and of work.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use hyper::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use utoipa::IntoParams;

use super::answered::Answered;
use super::databases::{Databases, OpenDatabase};
use super::error::ApiError;
use crate::database::{Collection, canonical_collection_name};
use crate::gateway::history::DatabaseHistory;
use crate::gateway::pairing::Pairings;
use crate::gateway::status::{CollectionStatus, DatabaseStatus, GatewayStatus, now_s};
use crate::gateway::upstream::Order;
use crate::task;

/// Requests that read or write a database at one time; others wait. Each may take a thread.
const WORK_MAX: usize = 32;

/// KiB of bodies of requests that are held at one time; a request beyond it is sent away.
const BODY_KIB_MAX: usize = 48 << 10;

/// Who looks at what changes at one time.
const WATCHING_MAX: usize = 16;

/// How long the loop that looks after a gateway may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The name by which each database is known on the socket in its directory.
const OWN_NAME: &str = "_db";

/// What a gateway is asked.
#[derive(Debug)]
pub(crate) enum Question {
    Status(oneshot::Sender<Box<GatewayStatus>>),
    History(oneshot::Sender<Vec<DatabaseHistory>>),
    /// Syncs of this name, or all; the answer is how many are meant.
    Sync(Order, Option<String>, oneshot::Sender<usize>),
}

/// Limits of a process, for all its servers together.
#[derive(Clone)]
pub(crate) struct Limits {
    work: Arc<Semaphore>,
    body_kib: Arc<Semaphore>,
    watching: Arc<Semaphore>,
    /// Two devices are paired at a time, whichever socket it was asked for by.
    pairings: Pairings,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            work: Arc::new(Semaphore::new(WORK_MAX)),
            body_kib: Arc::new(Semaphore::new(BODY_KIB_MAX)),
            watching: Arc::new(Semaphore::new(WATCHING_MAX)),
            pairings: Pairings::default(),
        }
    }
}

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Api {
    databases: Databases,
    gateway: Option<mpsc::Sender<Question>>,
    limits: Limits,
    since_s: u64,
    asks_token: bool,
    answered: Answered,
}

impl Api {
    /// `gateway`: who answers for it, if the process is one.
    pub(crate) fn new(databases: Databases, gateway: Option<mpsc::Sender<Question>>, limits: Limits) -> Api {
        let answered = Answered::default();
        Api { databases, gateway, limits, since_s: now_s(), asks_token: false, answered }
    }

    /// The same behind a token.
    pub(super) fn asking_token(self) -> Api {
        Api { asks_token: true, ..self }
    }

    /// Whether who asks needs a token.
    pub(super) fn asks_token(&self) -> bool {
        self.asks_token
    }

    /// How long requests waited.
    pub(super) fn answered(&self) -> &Answered {
        &self.answered
    }

    pub(super) fn databases(&self) -> &Databases {
        &self.databases
    }

    /// The database of a name.
    ///
    /// # Errors
    /// There is none, or it is not open now.
    pub(super) fn database(&self, name: &str) -> Result<OpenDatabase, ApiError> {
        let all = || self.databases.all();
        let found = match name {
            // Where there are several, none is meant.
            OWN_NAME => all().pop().filter(|_| all().len() == 1),
            name => self.databases.get(name),
        };
        found.ok_or_else(|| {
            let names: Vec<String> = all().into_iter().map(|open| open.name).collect();
            let open = if names.is_empty() {
                "none is".to_owned()
            } else {
                format!("open are {}", names.join(", "))
            };
            ApiError::not_found(format!("no database {:?} is open here", crate::replica::clip(name)))
                .advice(format!("{open}; `GET /_all_dbs` lists them"))
        })
    }

    /// The database of a name; without one, the one that alone is open.
    ///
    /// # Errors
    /// There is none, or several are meant.
    pub(super) fn database_or_only(&self, name: Option<&str>) -> Result<OpenDatabase, ApiError> {
        if let Some(name) = name {
            return self.database(name);
        }
        let mut all = self.databases.all();
        match (all.pop(), all.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(ApiError::not_found("no database is open")),
            (Some(_), false) => {
                Err(ApiError::bad_request("several databases are open, and `database` names none")
                    .advice("`GET /_all_dbs` lists them"))
            }
        }
    }

    /// A place for one more who looks at what changes, until it is dropped.
    ///
    /// # Errors
    /// All are taken.
    pub(super) fn watching(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.limits.watching)
            .try_acquire_owned()
            .map_err(|_| ApiError::too_many("too many look at the state at one time"))
    }

    /// Waits until nobody answers for the gateway, or for the databases where the process is none.
    pub(super) async fn ended(&self) {
        match &self.gateway {
            Some(gateway) => gateway.closed().await,
            None if self.databases.all().is_empty() => {}
            None => std::future::pending().await,
        }
    }

    /// The pairing of this process.
    pub(crate) fn pairings(&self) -> &Pairings {
        &self.limits.pairings
    }

    /// The database and the collection that `DATABASE`, `DATABASE.COLLECTION` or `DATABASE.SCOPE.COLLECTION` names.
    ///
    /// # Errors
    /// There is no such thing.
    pub(super) fn keyspace(&self, keyspace: &str) -> Result<Keyspace, ApiError> {
        let (open, name) = self.named(keyspace)?;
        let Some(collection) = open.db.collection(&name) else {
            let known = open.db.collections().join(", ");
            return Err(ApiError::not_found(format!("no collection {name:?} in database {}", open.name))
                .advice(format!("it has {known}; `PUT /{}.{name}` makes one", open.name)));
        };
        Ok(Keyspace { open, collection })
    }

    /// As [`keyspace`](Self::keyspace), also of a collection that there is not.
    ///
    /// # Errors
    /// There is no such database; the name is none of a collection.
    pub(super) fn named(&self, keyspace: &str) -> Result<(OpenDatabase, String), ApiError> {
        let (database, collection) = keyspace.split_once('.').unwrap_or((keyspace, "_default"));
        let open = self.database(database)?;
        // What the default collection is called in full.
        let collection = if collection == "_default._default" { "_default" } else { collection };
        Ok((open, canonical_collection_name(collection)?))
    }

    /// Does something with a database on a thread that may block.
    ///
    /// # Errors
    /// What `work` returns.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let _turn = self.limits.work.acquire().await;
        task::blocking(work).await.unwrap_or_else(|| Err(ApiError::internal("the work was given up")))
    }

    /// Takes room for so many bytes of a body.
    ///
    /// # Errors
    /// There is none now.
    pub(super) fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Arc::clone(&self.limits.body_kib)
            .try_acquire_many_owned(kib)
            .map_err(|_| ApiError::too_many("too many large requests at one time"))
    }

    /// The state of the gateway, or of the databases where the process is none.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(super) async fn status(&self) -> Result<GatewayStatus, ApiError> {
        let Some(gateway) = &self.gateway else { return self.own_status().await };
        let (answer, answered) = oneshot::channel();
        asked(gateway, Question::Status(answer), answered).await.map(|status| *status)
    }

    /// How the databases did over the last hour and day; of a process that is no gateway nothing is measured.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(super) async fn history(&self) -> Result<Vec<DatabaseHistory>, ApiError> {
        let Some(gateway) = &self.gateway else { return Ok(Vec::new()) };
        let (answer, answered) = oneshot::channel();
        asked(gateway, Question::History(answer), answered).await
    }

    /// Tells syncs something; gives how many are meant.
    ///
    /// # Errors
    /// The process is no gateway, or does not answer.
    pub(super) async fn order(&self, order: Order, name: Option<String>) -> Result<usize, ApiError> {
        let Some(gateway) = &self.gateway else {
            return Err(ApiError::not_found(
                "this process is no gateway, and has no syncs that could be told something",
            )
            .advice("`gattway run` has"));
        };
        let (answer, answered) = oneshot::channel();
        asked(gateway, Question::Sync(order, name, answer), answered).await
    }

    async fn own_status(&self) -> Result<GatewayStatus, ApiError> {
        let databases = self.databases.all();
        let read = move || {
            let of = |open: OpenDatabase| {
                let collection = |name: String| CollectionStatus::of(&open.db, name);
                DatabaseStatus {
                    path: open.db.path().display().to_string(),
                    open: true,
                    error: open.db.failure(),
                    collections: open.db.collections().into_iter().map(collection).collect(),
                    name: open.name,
                    ..DatabaseStatus::default()
                }
            };
            Ok(databases.into_iter().map(of).collect())
        };
        Ok(GatewayStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            since_s: self.since_s,
            now_s: now_s(),
            config: String::new(),
            databases: self.work(read).await?,
            http: None,
            medium: None,
        })
    }
}

async fn asked<T>(
    gateway: &mpsc::Sender<Question>,
    question: Question,
    answered: oneshot::Receiver<T>,
) -> Result<T, ApiError> {
    let ask = async {
        gateway.send(question).await.ok()?;
        answered.await.ok()
    };
    let answer = tokio::time::timeout(ANSWER_LIMIT, ask).await.ok().flatten();
    answer.ok_or_else(|| {
        ApiError::unavailable("the gateway does not answer: it is ending, or does not work any more")
    })
}

/// What a request is for.
#[derive(Clone)]
pub(super) struct Keyspace {
    pub(super) open: OpenDatabase,
    pub(super) collection: Collection,
}

/// The arguments after the question mark; what is not known is refused, since an answer without it would be another one.
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejection) => Err(ApiError::bad_request(rejection.body_text())
                .advice("`GET /_openapi.json` describes what can be given")),
        }
    }
}

/// Where documents are.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct InKeyspace {
    /// DATABASE, DATABASE.COLLECTION (of the default scope) or DATABASE.SCOPE.COLLECTION
    #[param(example = "plant")]
    pub(super) keyspace: String,
}

/// Which document is meant.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfDocument {
    /// DATABASE, DATABASE.COLLECTION (of the default scope) or DATABASE.SCOPE.COLLECTION
    #[param(example = "plant")]
    pub(super) keyspace: String,
    /// The document's ID, percent-encoded; at most 240 bytes of UTF-8
    #[param(example = "valve-7", pattern = r"^[^_\x00-\x1f][^\x00-\x1f]{0,239}$")]
    pub(super) id: String,
}

/// What stands in the path.
pub(super) struct InPath<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(path)) => Ok(InPath(path)),
            Err(rejection) => Err(ApiError::bad_request(rejection.body_text())
                .advice("an ID stands in the path in UTF-8, percent-encoded")),
        }
    }
}
