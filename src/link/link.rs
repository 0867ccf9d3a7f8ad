//! The link itself: the calls of the driver.

use super::config::LinkConfig;
use super::error::LinkError;
use super::event::{CloseReason, LinkEvent, LinkRole, LinkState, LinkStats, SessionId};
use super::mtu::PacketSize;
use super::prover::{Nonces, ResumeProver};
use crate::time::Instant;

/// One end of a reliable byte stream. `TX` and `RX` are the bytes of its send and receive buffers
/// ([`SEND_BUFFER_BYTES`](super::SEND_BUFFER_BYTES) and [`RECEIVE_BUFFER_BYTES`](super::RECEIVE_BUFFER_BYTES) suit Linux);
/// they are inside of it, so a driver boxes it.
#[derive(Debug)]
pub struct Link<const TX: usize, const RX: usize> {
    role: LinkRole,
    config: LinkConfig,
    nonces: Nonces,
    prover: Option<ResumeProver>,
    stats: LinkStats,
}

impl<const TX: usize, const RX: usize> Link<TX, RX> {
    /// A link that was never connected. `seed` is random, from the driver: names and nonces come of it.
    pub fn new(role: LinkRole, config: LinkConfig, seed: u64) -> Self {
        Link { role, config, nonces: Nonces::new(seed), prover: None, stats: LinkStats::default() }
    }

    /// A transport carries packets of up to `size` bytes now. As central: after it has subscribed. Ends a connection that
    /// was there before.
    pub fn connected(&mut self, _now: Instant, _size: PacketSize) {}

    /// The transport is gone; the session stays until its time-out.
    pub fn disconnected(&mut self, _now: Instant) {}

    /// A packet has arrived.
    ///
    /// # Errors
    /// The peer broke the protocol: the connection is of no use any more. [`Link::state`] says whether the session is
    /// gone too (`Failed`) or waits for another connection (`Suspended`).
    pub fn handle_packet(&mut self, _now: Instant, _packet: &[u8]) -> Result<(), LinkError> {
        Ok(())
    }

    /// Writes the next packet to be sent into `out` and returns its length; `None` when there is none now. `out` has room
    /// for the packet size given to [`Link::connected`]. Call it only when the transport can take a packet, until `None`.
    pub fn poll_packet(&mut self, _now: Instant, _out: &mut [u8]) -> Option<usize> {
        None
    }

    /// When [`Link::handle_timeout`] is due, if nothing happens before.
    pub fn poll_at(&self) -> Option<Instant> {
        None
    }

    /// Does what is due at `now`; nothing if nothing is.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Takes bytes into the send buffer, in any state that is not closing or final, and returns how many.
    pub fn write(&mut self, _bytes: &[u8]) -> usize {
        0
    }

    /// Bytes that [`Link::write`] would take now.
    pub fn writable(&self) -> usize {
        0
    }

    /// Bytes that [`Link::read`] would give now.
    pub fn readable(&self) -> usize {
        0
    }

    /// Moves received bytes to `out`, which gives the peer new credit, and returns how many.
    pub fn read(&mut self, _out: &mut [u8]) -> usize {
        0
    }

    /// Whether all that was written has been acknowledged.
    pub fn is_flushed(&self) -> bool {
        true
    }

    /// Closes in order: flushes, then tells the peer. Reaches a final state within `close_timeout`.
    pub fn close(&mut self, _now: Instant, _reason: CloseReason) {}

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        None
    }

    /// Where the link is in its life.
    pub fn state(&self) -> LinkState {
        LinkState::Idle
    }

    /// The session, once there is one.
    pub fn session_id(&self) -> Option<SessionId> {
        None
    }

    /// Counters.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// From the next resume on, both sides prove themselves with this instead of the session's random token. Both sides
    /// set it at the same point of the stream, before they give the first bytes that need it to the layer above.
    pub fn set_resume_prover(&mut self, prover: ResumeProver) {
        self.prover = Some(prover);
    }
}

/// What the first packet of a central asks for: `Some(None)` a new session, `Some(Some(id))` to resume one, `None` that
/// it is not the first packet of a central of ours. A peripheral finds the link to give the connection to by it.
pub fn peek_session(_packet: &[u8]) -> Option<Option<SessionId>> {
    None
}
