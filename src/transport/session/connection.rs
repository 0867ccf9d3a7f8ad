//! A resumable connection as the message endpoint sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::config::{SessionConfig, SessionStats};
use super::driver::{Driver, Supply, Unobserved};
use super::shared::{Progress, Shared};
use crate::endpoint::{Message, MessageEndpointConnection, MessagingError, ReplicatorConnection};
use crate::link::{CloseReason, LinkRole, ResumeProver, SessionOrigin};
use crate::task;
use crate::transport::packet::Connector;

/// Time for the peer to learn of an error before the connection is dropped.
const ABORT_TIMEOUT: Duration = Duration::from_millis(500);
/// Time that an orderly close takes beyond the link's own limit, for the last packets and the disconnect.
const CLOSE_MARGIN: Duration = Duration::from_secs(2);

/// A connection over a radio that goes on where it was after the radio connection was lost. Dropping it closes it.
pub struct LinkConnection {
    shared: Arc<Shared>,
    stage: Mutex<Stage>,
}

enum Stage {
    /// A central that has not been opened.
    New(Arc<dyn Connector>),
    /// A peripheral with a session that the library does not know yet.
    Accepted,
    /// The task gives bytes to the library.
    Open(JoinHandle<()>),
    Closed,
}

impl LinkConnection {
    /// A connection to the peer that `connector` finds; it connects when it is opened, and again after each loss.
    pub fn central(connector: Arc<dyn Connector>, config: SessionConfig) -> Arc<LinkConnection> {
        let shared = Arc::new(Shared::new(LinkRole::Central, config));
        Arc::new(LinkConnection { shared, stage: Mutex::new(Stage::New(connector)) })
    }

    /// A connection whose driver runs already.
    pub(super) fn accepted(shared: Arc<Shared>) -> Arc<LinkConnection> {
        Arc::new(LinkConnection { shared, stage: Mutex::new(Stage::Accepted) })
    }

    /// Counters and state, at any time.
    pub fn stats(&self) -> SessionStats {
        self.shared.stats()
    }

    /// What the peripheral chose when the session began, once there is one; see
    /// [`Link::session_origin`](crate::link::Link::session_origin).
    pub fn session_origin(&self) -> Option<SessionOrigin> {
        self.shared.lock().link.session_origin()
    }

    /// Sets what both sides prove themselves with at the next resume; see
    /// [`Link::set_resume_prover`](crate::link::Link::set_resume_prover).
    pub fn set_resume_prover(&self, prover: ResumeProver) {
        self.shared.set_prover(prover);
    }

    /// The peer is known to have the newest prover too; see
    /// [`Link::confirm_resume_prover`](crate::link::Link::confirm_resume_prover).
    pub fn confirm_resume_prover(&self) {
        self.shared.lock().link.confirm_resume_prover();
    }

    /// No change under this lock can be left half done.
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection has come to `progress` or beyond.
    async fn reached(&self, progress: Progress) {
        let mut receiver = self.shared.progress.subscribe();
        // The sender is in `shared`, so it is there.
        let _ = receiver.wait_for(|current| *current >= progress).await;
    }

    /// As [`LinkConnection::reached`], for at most `limit`.
    async fn reached_within(&self, progress: Progress, limit: Duration) {
        tokio::select! {
            biased;
            () = self.reached(progress) => {}
            () = self.shared.config.clock.sleep(limit) => {}
        }
    }

    fn end_error(&self) -> MessagingError {
        match self.shared.lock().end.clone() {
            Some(Err(error)) => error,
            Some(Ok(())) | None => MessagingError::recoverable("the connection is closed"),
        }
    }
}

#[async_trait]
impl MessageEndpointConnection for LinkConnection {
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        {
            let mut stage = self.stage();
            if matches!(*stage, Stage::Open(_) | Stage::Closed) {
                return Err(MessagingError::permanent("a connection can be opened only once"));
            }
            let deliver = task::spawn(deliver(Arc::clone(&self.shared), connection));
            if let Stage::New(connector) = std::mem::replace(&mut *stage, Stage::Open(deliver)) {
                let (shared, supply) = (Arc::clone(&self.shared), Supply::Connector(connector));
                task::spawn(Driver::new(shared, supply, Box::new(Unobserved)).run());
            }
        }
        self.reached(Progress::Established).await;
        match *self.shared.progress.borrow() {
            Progress::Established => Ok(()),
            _ => Err(self.end_error()),
        }
    }

    async fn send(&self, message: Message) -> Result<(), MessagingError> {
        let mut rest = &message[..];
        loop {
            // Created before the write, so that room made in between is not missed.
            let writable = self.shared.writable.notified();
            let (written, over) = self.shared.write(rest);
            rest = &rest[written..];
            if rest.is_empty() {
                return Ok(());
            }
            if over {
                return Err(self.end_error());
            }
            writable.await;
        }
    }

    async fn close(&self, error: Option<MessagingError>) -> Result<(), MessagingError> {
        let stage = std::mem::replace(&mut *self.stage(), Stage::Closed);
        if matches!(stage, Stage::New(_) | Stage::Closed) {
            return Ok(());
        }
        let reason = match &error {
            None => CloseReason::Finished,
            Some(error) if error.is_recoverable() => CloseReason::Recoverable(0),
            Some(_) => CloseReason::Permanent(0),
        };
        let limit = if error.is_none() {
            self.shared.config.link.close_timeout + CLOSE_MARGIN
        } else {
            ABORT_TIMEOUT
        };
        let now = self.shared.now();
        let orderly = self.shared.act(|core| {
            core.link.close(now, reason);
            core.abandoned |= !core.established;
            !core.abandoned
        });
        if orderly {
            self.reached_within(Progress::Gone, limit).await;
        }
        self.shared.act(|core| core.abandoned = true);
        if let Stage::Open(deliver) = stage {
            deliver.abort();
        }
        Ok(())
    }

    fn close_is_answered(&self) -> bool {
        true
    }
}

impl Drop for LinkConnection {
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut *self.stage(), Stage::Closed);
        if let Stage::Open(deliver) = &stage {
            deliver.abort();
        }
        if matches!(stage, Stage::Open(_) | Stage::Accepted) {
            // The driver says so to the peer, within the link's time limit, and ends.
            let now = self.shared.now();
            self.shared.act(|core| {
                core.link.close(now, CloseReason::Finished);
                core.abandoned |= !core.established;
            });
        }
    }
}

/// Gives the library what has arrived, and the end when there is no more.
async fn deliver(shared: Arc<Shared>, connection: ReplicatorConnection) {
    loop {
        match shared.read() {
            Ok(bytes) => connection.receive(Message::from(bytes)).await,
            Err(None) => shared.readable.notified().await,
            Err(Some(end)) => return connection.close(end.err()),
        }
    }
}
