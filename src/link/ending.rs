//! How a connection or a link ends: lost, broken off, closed in order.

use super::config::{VERSION_EARLY_CLOSE, VERSION_MAX, VERSION_MIN};
use super::control::{Close, Kind, Message};
use super::error::LinkError;
use super::event::{LinkEvent, SuspendCause};
use super::machine::{Closing, Confirmation, Link, Phase};
use super::reason::{CloseReason, RefuseReason};
use super::timers::Timer;
use crate::time::Instant;

/// Connections in a row without any acknowledgement that a session survives.
const ATTEMPTS_WITHOUT_ACK_MAX: u32 = 4;

impl<const TX: usize, const RX: usize> Link<TX, RX> {
    /// The connection is of no use any more; the session waits for another, if there is one to wait for.
    pub(super) fn suspend(&mut self, now: Instant, cause: SuspendCause) {
        if let Some(Closing { reason, said: true }) = self.closing
            && self.is_flushed()
        {
            // All has arrived: only the answer to CLOSE is missing.
            return self.finish(reason, false);
        }
        if matches!(self.phase, Phase::Listening) && self.session.is_none() {
            return self.fail(match cause {
                SuspendCause::Handshake(error) => error,
                _ => LinkError::ConnectionLost,
            });
        }
        if matches!(cause, SuspendCause::Unacknowledged(_)) {
            self.attempts_without_ack += 1;
            if self.attempts_without_ack >= ATTEMPTS_WITHOUT_ACK_MAX {
                return self.fail(LinkError::NoProgress { attempts: self.attempts_without_ack });
            }
        }
        self.timers.stop_connection();
        if !self.timers.is_set(Timer::Session) {
            self.timers.set(Timer::Session, now + self.config.session_timeout);
        }
        self.phase = Phase::Suspended;
        self.push_event(LinkEvent::Suspended(cause));
    }

    /// The peer broke the protocol, or broke off: the end of the session if it is proven that this peer is a part of it,
    /// else of this connection only. Nothing in a final state: what still arrives does not bring a link back.
    pub(super) fn break_off(&mut self, now: Instant, error: LinkError) {
        if self.state().is_final() {
            return;
        }
        if let Some(reason) = refusal(&error) {
            self.say(&Message::Refuse(reason));
        } else {
            self.outbox.clear();
        }
        let proven = match (&self.phase, error) {
            (Phase::Established { confirmation: Confirmation::Awaited { resumed: Some(_) }, .. }, error) => {
                !matches!(error, LinkError::Refused(_))
            }
            (Phase::Established { .. }, _) => true,
            _ => false,
        };
        if proven || self.session.is_none() {
            self.fail(error)
        } else {
            self.suspend(now, SuspendCause::Handshake(error))
        }
    }

    /// Final: broken.
    pub(super) fn fail(&mut self, error: LinkError) {
        if self.state().is_final() {
            return;
        }
        self.timers.stop_all();
        self.phase = Phase::Failed;
        self.push_event(LinkEvent::Failed(error));
    }

    /// Final: closed in order.
    pub(super) fn finish(&mut self, reason: CloseReason, by_peer: bool) {
        if self.state().is_final() {
            return;
        }
        self.timers.stop_all();
        self.inbox.clear();
        self.phase = Phase::Closed;
        self.push_event(LinkEvent::Closed { reason, by_peer });
    }

    /// Says CLOSE when a close was asked for and all was sent: in the connection event of the last data, if there is room. A peer
    /// of the first version hears it once all is acknowledged.
    pub(super) fn say_close_when_due(&mut self) {
        let confirmed = matches!(self.phase, Phase::Established { confirmation: Confirmation::Done, .. });
        if let Some(Closing { reason, said: false }) = self.closing
            && confirmed
            && (self.is_flushed() || self.version >= VERSION_EARLY_CLOSE && self.send.is_all_sent())
        {
            self.say(&Message::Close(Close { reason, offset: self.send.written() }));
            self.closing = Some(Closing { reason, said: true });
        }
    }

    /// A CLOSE has come.
    pub(super) fn on_close(&mut self, close: Close) -> Result<(), LinkError> {
        match self.phase {
            Phase::Established { .. } | Phase::Closed => {}
            _ => return Err(LinkError::UnexpectedControl { kind: Kind::Close as u8 }),
        }
        let arrived = self.receive.arrived();
        if close.offset == arrived {
            self.say(&Message::CloseAck);
            self.finish(close.reason, true);
            return Ok(());
        }
        let early = self.version >= VERSION_EARLY_CLOSE && matches!(self.phase, Phase::Established { .. });
        if !early || close.offset < arrived || close.offset > self.receive.credit() {
            return Err(LinkError::CloseOffset { said: close.offset, arrived });
        }
        self.peer_close = Some(close);
        Ok(())
    }

    /// More has arrived: all of it, if CLOSE came before the last.
    pub(super) fn close_when_arrived(&mut self) -> Result<(), LinkError> {
        match self.peer_close {
            Some(close) if close.offset <= self.receive.arrived() => self.on_close(close),
            _ => Ok(()),
        }
    }

    /// The answer to a CLOSE has come.
    pub(super) fn on_close_ack(&mut self) -> Result<(), LinkError> {
        match (&self.phase, self.closing) {
            (Phase::Established { .. }, Some(Closing { reason, said: true })) => {
                // It is said of all that CLOSE told of.
                let rest = self.send.acknowledge_all();
                self.note_acknowledged(rest);
                self.finish(reason, false);
            }
            // Both have said CLOSE at once: that the peer has ended as well is the last that there is to know.
            (Phase::Closed, _) => self.peer_has_ended = true,
            _ => return Err(LinkError::UnexpectedControl { kind: Kind::CloseAck as u8 }),
        }
        Ok(())
    }

    /// Whether the peer is known to have ended where both sides closed at once: it has answered a CLOSE of ours after this side had
    /// ended by its own. Nothing is left to be said or heard then.
    pub fn peer_has_ended(&self) -> bool {
        self.peer_has_ended
    }

    /// Closing has taken too long.
    pub(super) fn force_close(&mut self) {
        let Some(Closing { reason, .. }) = self.closing else { return };
        match self.send.unacknowledged() {
            0 => self.finish(reason, false),
            unacknowledged => self.fail(LinkError::CloseTimeout {
                limit_ms: self.config.close_timeout.as_millis() as u64,
                unacknowledged,
            }),
        }
    }
}

/// What to tell a peer about an error, if it can make use of it.
fn refusal(error: &LinkError) -> Option<RefuseReason> {
    Some(match error {
        LinkError::NotOurs { .. } | LinkError::Refused(_) | LinkError::PeerRestarted => return None,
        LinkError::Version { .. } => RefuseReason::Version { min: VERSION_MIN, max: VERSION_MAX },
        LinkError::SessionMismatch { .. } => RefuseReason::SessionUnknown,
        LinkError::ResumeProof => RefuseReason::ResumeProof,
        LinkError::PacketSize { .. }
        | LinkError::Window { .. }
        | LinkError::ResumeOffset { .. }
        | LinkError::CreditWithdrawn { .. } => RefuseReason::Parameters,
        _ => RefuseReason::Violation,
    })
}
