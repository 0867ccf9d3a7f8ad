//! How a connection ends: limits that pass, what the peer's closing means, and the closing frames of a byte stream.

use std::time::Duration;

use tokio::time::timeout;

use super::exchange::{Exchange, new_mask};
use super::setup::guard;
use crate::endpoint::framing::FramingRole;
use crate::endpoint::{Message, ProtocolType};
use crate::replicator::driver::error::{ReplicatorError, TransportCall, close_code};
use crate::time::Instant;

/// How long a peer that is closed for an error is still listened to: a transport that closes with bytes unread may
/// take back what it has sent, and with it the reason.
const LINGER: Duration = Duration::from_secs(1);

impl Exchange {
    /// The connection's result, if the peer has closed it or the transport is broken.
    pub(super) fn ended_by_peer(&mut self) -> Option<Result<(), ReplicatorError>> {
        if self.peer_close.is_none() && self.broken.is_none() {
            return None;
        }
        if let Some((result, _)) = &self.finished {
            return Some(result.clone());
        }
        if self.stopping.is_some() {
            return Some(Ok(()));
        }
        let orderly = || match self.setup.role {
            FramingRole::Active => Err(ReplicatorError::GoingAway),
            FramingRole::Passive => Ok(()),
        };
        Some(match (&self.peer_close, self.broken.take()) {
            (Some((close_code::NORMAL | close_code::GOING_AWAY, _)), _) => orderly(),
            (Some((code, reason)), _) => {
                Err(ReplicatorError::ClosedByPeer { code: *code, reason: reason.clone() })
            }
            // Without framing the transport's word is all there is.
            (None, Some(ReplicatorError::Lost))
                if self.setup.protocol_type == ProtocolType::MessageStream =>
            {
                orderly()
            }
            (None, broken) => Err(broken.unwrap_or(ReplicatorError::Lost)),
        })
    }

    /// Whether a limit ends the connection now although it has done nothing wrong; sends a PING when one is due.
    ///
    /// # Errors
    /// A limit has passed that is an error.
    pub(super) fn check_limits(&mut self) -> Result<bool, ReplicatorError> {
        let (now, limits) = (self.now, &self.setup.limits);
        if let Some((result, at)) = &self.finished
            && now >= *at + limits.close
        {
            tracing::debug!("the last frames could not be sent in time");
            return result.clone().map(|()| true);
        }
        if self.stopping.is_some_and(|at| now >= at + limits.stop) {
            tracing::debug!("replication did not end in time after stop");
            return Ok(true);
        }
        if self.sending.as_ref().is_some_and(|sending| now >= sending.began + limits.send) {
            return Err(ReplicatorError::TransportTimeout { call: TransportCall::Send, limit: limits.send });
        }
        if self.handshake_at().is_some_and(|at| now >= at) {
            return Err(ReplicatorError::HandshakeTimeout { limit: limits.handshake });
        }
        if self.idle_at().is_some_and(|at| now >= at) {
            return Err(ReplicatorError::IdleTimeout { limit: limits.idle.unwrap_or_default() });
        }
        if self.heartbeat_at().is_some_and(|at| now >= at) {
            self.heartbeat()?;
        }
        Ok(false)
    }

    /// When something is due, if ever.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let limits = &self.setup.limits;
        [
            self.setup.session.poll_at(),
            self.sending.as_ref().map(|sending| sending.began + limits.send),
            self.finished.as_ref().map(|(_, at)| *at + limits.close),
            self.stopping.map(|at| at + limits.stop),
            self.handshake_at(),
            self.idle_at(),
            self.heartbeat_at(),
            self.progress_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handshake_at(&self) -> Option<Instant> {
        let waiting = self.setup.role == FramingRole::Passive && !self.handshaken;
        waiting.then(|| self.opened + self.setup.limits.handshake)
    }

    fn idle_at(&self) -> Option<Instant> {
        let limit = self.setup.limits.idle.filter(|_| self.setup.role == FramingRole::Passive)?;
        Some(self.last_received + limit)
    }

    fn heartbeat_at(&self) -> Option<Instant> {
        if self.setup.protocol_type != ProtocolType::ByteStream || self.finished.is_some() {
            return None;
        }
        let limits = &self.setup.limits;
        Some(match self.pinged {
            Some(at) => at + limits.heartbeat_timeout,
            None => self.last_received + limits.heartbeat,
        })
    }

    fn heartbeat(&mut self) -> Result<(), ReplicatorError> {
        if self.pinged.is_some() {
            return Err(ReplicatorError::PeerSilent { limit: self.setup.limits.heartbeat_timeout });
        }
        self.pinged = Some(self.now);
        self.out.extend(self.framing.encode_ping(&[], new_mask()).unwrap_or_default());
        self.send_out();
        Ok(())
    }

    /// Tells the peer that this is the end and waits for its answer, within the limit for closing.
    pub(super) async fn end_stream(&mut self, result: &Result<(), ReplicatorError>) {
        if self.setup.protocol_type == ProtocolType::MessageStream || self.inbound.closed().is_some() {
            return;
        }
        let (code, reason) = match (&self.peer_close, result) {
            (Some((code, _)), _) => (answer_to(*code), String::new()),
            (None, Ok(())) => (close_code::NORMAL, String::new()),
            (None, Err(error)) => match error.close_code() {
                Some(code) => (code, error.to_string()),
                None => return,
            },
        };
        self.out.extend(self.framing.encode_close(code, &reason, new_mask()).unwrap_or_default());
        let wait = if result.is_ok() { self.setup.limits.close } else { self.setup.limits.close.min(LINGER) };
        let is_last_word = result.is_ok() && self.peer_owes_nothing();
        if timeout(wait, self.exchange_close(is_last_word)).await.is_err() {
            tracing::debug!("peer did not answer the closing frame in time");
        }
    }

    /// Whether the peer's closing frame can say nothing: it is a gattway peer, which takes a transport that closes after our
    /// frame for the orderly end, it has answered all that counts, and the transport itself hears that all has arrived.
    fn peer_owes_nothing(&self) -> bool {
        self.setup.role == FramingRole::Active
            && self.finished.is_some()
            && self.setup.session.uses_extension()
            && self.setup.connection.close_is_answered()
    }

    async fn exchange_close(&mut self, is_last_word: bool) {
        if let Some(sending) = self.sending.take()
            && !matches!(sending.future.await, Some(Ok(())))
        {
            return;
        }
        let message = Message::from_bytes(std::mem::take(&mut self.out));
        if !matches!(guard(self.setup.connection.send(message)).await, Some(Ok(()))) || is_last_word {
            return;
        }
        while self.peer_close.is_none()
            && let Some(message) = self.inbound.next().await
        {
            // Garbage cannot become anything else, but it must be read all the same.
            let _ = self.handle_bytes(&message);
        }
    }

    /// Lets commits that have begun come to their end, so that nothing is written after the connection has ended.
    pub(super) async fn settle_commits(&mut self) {
        let settled = async { while self.commits.join_next().await.is_some() {} };
        if timeout(self.setup.limits.close, settled).await.is_err() {
            tracing::warn!("a commit still runs after its connection has ended");
        }
    }
}

/// The code that answers a peer's: the same, unless it is one of those that never stand in a frame.
fn answer_to(code: u16) -> u16 {
    match code {
        close_code::NONE | close_code::ABNORMAL => close_code::NORMAL,
        code => code,
    }
}
