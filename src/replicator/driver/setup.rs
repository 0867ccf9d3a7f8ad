//! What a connection is made of, and what concerns a transport alone.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;

use super::error::ReplicatorError;
use super::limits::ConnectionLimits;
use super::traffic::Traffic;
use crate::endpoint::framing::FramingRole;
use crate::endpoint::{Inbound, MessageEndpointConnection, MessagingError, ProtocolType};
use crate::replica::blobs::BlobDigest;
use crate::replica::store::{CommitOutcome, IncomingRevision, ReplicaStore, ReplicaStoreError};
use crate::replicator::event::SessionEvent;
use crate::replicator::session::Session;
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
    /// Counts what it carries.
    pub traffic: Traffic,
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

    /// Blobs of this peer have come, those among them that are stored.
    fn used_for_blobs(&self, peer: &str, blobs: &[BlobDigest]);
}

/// News for the owner of a connection.
pub(crate) enum DriverEvent {
    /// The transport is open.
    Opened,
    /// From the session. [`SessionEvent::Finished`] does not come; it is what [`run`](super::run) returns.
    Session(SessionEvent),
}

/// Asks a connection to end: it does when the watched number is no longer `run`.
#[derive(Clone)]
pub(crate) struct StopSignal {
    wanted: watch::Receiver<u64>,
    run: u64,
    /// Ends it as well while it is true.
    suspended: Option<watch::Receiver<bool>>,
}

impl StopSignal {
    pub(crate) fn new(wanted: watch::Receiver<u64>, run: u64) -> StopSignal {
        StopSignal { wanted, run, suspended: None }
    }

    /// Asks for the end also while this is true.
    pub(crate) fn or_suspended(self, suspended: watch::Receiver<bool>) -> StopSignal {
        StopSignal { suspended: Some(suspended), ..self }
    }

    /// Whether the end was asked for.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.wanted.borrow() != self.run
            || self.suspended.as_ref().is_some_and(|suspended| *suspended.borrow())
    }

    /// Completes when the end is asked for, or nobody is left who could ask.
    pub(crate) async fn stopped(&mut self) {
        let run = self.run;
        // An error means that the owner is gone, which is a reason to end as well.
        let ended = self.wanted.wait_for(|wanted| *wanted != run);
        match &mut self.suspended {
            None => drop(ended.await),
            Some(suspended) => tokio::select! {
                _ = ended => {}
                _ = suspended.wait_for(|suspended| *suspended) => {}
            },
        }
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

/// What a transport that has closed has said about it.
pub(super) fn closed_error(inbound: &Inbound) -> ReplicatorError {
    match inbound.closed() {
        Some(Some(error)) => ReplicatorError::Messaging(error),
        Some(None) | None => ReplicatorError::Lost,
    }
}

/// Runs a future that holds foreign code: `None` if it panicked.
pub(super) async fn guard<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// The error of a transport whose `send` panicked.
pub(super) fn panicked_send() -> MessagingError {
    MessagingError::permanent("the transport's `send` panicked")
}
