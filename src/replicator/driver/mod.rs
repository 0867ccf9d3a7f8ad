//! The one async driver of a connection, for both sides: a transport below, a [`Session`](super::session::Session) above.
//!
//! [`run`] opens the transport, lets bytes flow in [`exchange`], ends the byte stream in order and closes the transport.
//! It owns every time limit of the connection and promises: `close` is called exactly once when `open` was called, no
//! call of the transport is waited for beyond its limit, and nothing is called with a lock held.
//! When to connect again is the matter of [`crate::replicator::service`].

mod ending;
pub mod error;
mod exchange;
mod limits;
mod setup;
mod traffic;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::limits::ConnectionLimits;
pub(crate) use self::setup::{Allowance, DriverEvent, Setup, StopSignal};
pub(crate) use self::traffic::Traffic;

use self::error::{ReplicatorError, TransportCall};
use self::exchange::Exchange;
use self::setup::{closed_error, guard};
use super::error::SessionError;
use crate::endpoint::{Inbound, MessageEndpointConnection, ReplicatorConnection};
use crate::replica::store::{ReplicaStore, ReplicaStoreError};
use crate::task;

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
