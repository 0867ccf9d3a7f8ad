//! The one async driver of a connection, for both sides: a transport below, a [`Session`] above.
//!
//! [`run`] opens the transport, lets bytes flow in [`exchange`], ends the byte stream in order and closes the transport.
//! It owns every time limit of the connection and promises: `close` is called exactly once when `open` was called, no
//! call of the transport is waited for beyond its limit, and nothing is called with a lock held.
//! When to connect again is the matter of [`crate::replicator::service`].

mod ending;
pub mod error;
mod exchange;
mod limits;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::limits::ConnectionLimits;

use self::error::{ReplicatorError, TransportCall};
use self::exchange::Exchange;
use super::error::SessionError;
use super::event::SessionEvent;
use super::session::Session;
use crate::endpoint::framing::FramingRole;
use crate::endpoint::{
    Inbound, MessageEndpointConnection, MessagingError, ProtocolType, ReplicatorConnection,
};
use crate::replica::store::{CommitOutcome, IncomingRevision, ReplicaStore, ReplicaStoreError};
use crate::task;
use crate::time::Instant;

/// Everything one connection needs.
pub(crate) struct Setup {
    /// The transport's connection, not yet open.
    pub connection: Arc<dyn MessageEndpointConnection>,
    /// Replication, not yet started.
    pub session: Session,
    /// The database.
    pub store: Arc<dyn ReplicaStore>,
    /// Which side of the framing this is.
    pub role: FramingRole,
    /// What the transport keeps of the bytes.
    pub protocol_type: ProtocolType,
    /// Time and size limits.
    pub limits: ConnectionLimits,
    /// Asks for the end.
    pub stop: StopSignal,
    /// What a peer that proves who it is may have stored; `None`: anything.
    pub allowance: Option<Arc<dyn Allowance>>,
}

/// Limits what peers have stored here.
pub(crate) trait Allowance: Send + Sync {
    /// Whether more of this peer may be stored now.
    ///
    /// # Errors
    /// Not now: ends the session, which is tried again later.
    fn check(&self, peer: &str) -> Result<(), ReplicaStoreError>;

    /// What became of revisions of this peer.
    fn used(&self, peer: &str, revisions: &[IncomingRevision], outcomes: &[CommitOutcome]);
}

/// News for the owner of a connection.
pub(crate) enum DriverEvent {
    /// The transport is open.
    Opened,
    /// From the session. [`SessionEvent::Finished`] does not come; it is what [`run`] returns.
    Session(SessionEvent),
}

/// Asks a connection to end: it does when the watched number is no longer `run`.
#[derive(Clone)]
pub(crate) struct StopSignal {
    wanted: watch::Receiver<u64>,
    run: u64,
}

impl StopSignal {
    pub(crate) fn new(wanted: watch::Receiver<u64>, run: u64) -> StopSignal {
        StopSignal { wanted, run }
    }

    /// Whether the end was asked for.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.wanted.borrow() != self.run
    }

    /// Completes when the end is asked for, or nobody is left who could ask.
    pub(crate) async fn stopped(&mut self) {
        let run = self.run;
        // An error means that the owner is gone, which is a reason to end as well.
        let _ = self.wanted.wait_for(|wanted| *wanted != run).await;
    }
}

/// A monotonic clock for the sans-IO cores; stands still with tokio's.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { origin: tokio::time::Instant::now() }
    }

    pub(crate) fn now(&self) -> Instant {
        let micros = self.origin.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    pub(crate) fn to_tokio(self, at: Instant) -> tokio::time::Instant {
        self.origin + at.since(Instant::ZERO)
    }
}

/// Runs one connection from `open` to `close`.
///
/// # Errors
/// Why replication did not come to its end. `Ok` also when it was asked to stop. The connection is closed either way.
pub(crate) async fn run(
    mut setup: Setup,
    observer: &mut (dyn FnMut(DriverEvent) + Send),
) -> Result<(), ReplicatorError> {
    let connection = Arc::clone(&setup.connection);
    let close_limit = setup.limits.close;
    let (handle, inbound) = ReplicatorConnection::detached(setup.limits.inbound_bytes);
    let durable = make_durable(&setup.store);
    let result = match open(&mut setup, handle, &inbound).await {
        Ok(true) => {
            observer(DriverEvent::Opened);
            replicate(setup, inbound, durable, observer).await
        }
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    close(&*connection, result.as_ref().err(), close_limit).await;
    result
}

/// Lets the store bring to stable storage what was saved before this run, while the transport opens: the feed shows no more
/// than stable storage has, and a run that ends when the feed does would leave out the rest without a word.
fn make_durable(store: &Arc<dyn ReplicaStore>) -> JoinSet<Result<(), ReplicaStoreError>> {
    let (store, mut working) = (Arc::clone(store), JoinSet::new());
    task::spawn_blocking(&mut working, move || store.make_durable());
    working
}

/// Runs replication over an open transport, once the store is ready.
async fn replicate(
    mut setup: Setup,
    inbound: Inbound,
    mut durable: JoinSet<Result<(), ReplicaStoreError>>,
    observer: &mut (dyn FnMut(DriverEvent) + Send),
) -> Result<(), ReplicatorError> {
    tokio::select! {
        biased;
        ready = durable.join_next() => match ready {
            Some(Ok(ready)) => ready.map_err(SessionError::from)?,
            Some(Err(_)) | None => return Err(ReplicatorError::Panicked { what: "the store" }),
        },
        // The exchange ends in order at once, and tells the peer.
        () = setup.stop.stopped() => {}
    }
    if let Some(uid) = setup.connection.peer_uid() {
        setup.session.set_peer_uid(uid);
    }
    if let Some(access) = setup.connection.access() {
        setup.session.set_access(access);
    }
    let exchange = Exchange::new(setup, inbound).run(observer);
    guard(exchange).await.unwrap_or(Err(ReplicatorError::Panicked { what: "replication" }))
}

/// `Ok(false)` if it was asked to stop meanwhile.
async fn open(
    setup: &mut Setup,
    handle: ReplicatorConnection,
    inbound: &Inbound,
) -> Result<bool, ReplicatorError> {
    let limit = setup.limits.open;
    let opening = timeout(limit, guard(setup.connection.open(handle)));
    let opened = tokio::select! {
        biased;
        // First, so that `open` has been called whenever `close` is.
        opened = opening => opened,
        () = setup.stop.stopped() => return Ok(false),
        // What came before is of no use while the transport is not open.
        () = inbound.wait_closed() => return Err(closed_error(inbound)),
    };
    match opened {
        Ok(Some(Ok(()))) => Ok(true),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Err(ReplicatorError::Panicked { what: "the transport's `open`" }),
        Err(_) => Err(ReplicatorError::TransportTimeout { call: TransportCall::Open, limit }),
    }
}

/// Closes the transport. Always completes.
async fn close(
    connection: &dyn MessageEndpointConnection,
    error: Option<&ReplicatorError>,
    limit: std::time::Duration,
) {
    // A peer that went in order needs no error; the transport may deliver what it still has.
    let error =
        error.filter(|error| !matches!(error, ReplicatorError::GoingAway)).map(ReplicatorError::to_messaging);
    match timeout(limit, guard(connection.close(error))).await {
        Ok(Some(Ok(()))) => {}
        Ok(Some(Err(error))) => {
            tracing::debug!(%error, "transport failed to close; the connection counts as closed")
        }
        Ok(None) => tracing::error!("the transport's `close` panicked; the connection counts as closed"),
        Err(_) => {
            tracing::warn!(?limit, "transport did not complete `close`; the connection counts as closed")
        }
    }
}

/// What a transport that has closed has said about it.
fn closed_error(inbound: &Inbound) -> ReplicatorError {
    match inbound.closed() {
        Some(Some(error)) => ReplicatorError::Messaging(error),
        Some(None) | None => ReplicatorError::Lost,
    }
}

/// Runs a future that holds foreign code: `None` if it panicked.
async fn guard<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// The error of a transport whose `send` panicked.
fn panicked_send() -> MessagingError {
    MessagingError::permanent("the transport's `send` panicked")
}
