//! What a listener has refused its peers: counters for whoever watches a gateway.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::blip::BlipError;
use crate::endpoint::framing::FramingError;
use crate::replicator::ReplicatorError;
use crate::replicator::error::SessionError;

/// What a [`MessageEndpointListener`](super::MessageEndpointListener) has refused, or ended, because of its peers since it
/// was made. A peer that is merely gone, or that this side had no answer for, is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Refusals {
    /// Connections beyond the limit.
    pub connections: u64,
    /// Connections on which replication was not begun in time.
    pub handshakes: u64,
    /// Peers that did not read, answer or say anything for too long.
    pub stalled: u64,
    /// Peers that sent what is not of the protocol.
    pub violations: u64,
    /// Peers that sent more of something than is accepted: too long, too many, too much at once.
    pub limits: u64,
    /// Documents that were refused for what they are, by this side or by a peer. No peer is ended for it.
    pub documents: u64,
}

impl Refusals {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.connections + self.handshakes + self.stalled + self.violations + self.limits + self.documents
    }
}

/// The counters while they grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    handshakes: AtomicU64,
    stalled: AtomicU64,
    violations: AtomicU64,
    limits: AtomicU64,
    documents: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Refusals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Refusals {
            connections: read(&self.connections),
            handshakes: read(&self.handshakes),
            stalled: read(&self.stalled),
            violations: read(&self.violations),
            limits: read(&self.limits),
            documents: read(&self.documents),
        }
    }

    /// A connection was not accepted.
    pub(super) fn refused_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A document was refused.
    pub(super) fn refused_document(&self) {
        self.documents.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended for this.
    pub(super) fn ended(&self, error: &ReplicatorError) {
        if let Some(counter) = self.counter(error) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counter(&self, error: &ReplicatorError) -> Option<&AtomicU64> {
        match error {
            ReplicatorError::HandshakeTimeout { .. } => Some(&self.handshakes),
            ReplicatorError::TransportTimeout { .. }
            | ReplicatorError::PeerSilent { .. }
            | ReplicatorError::IdleTimeout { .. }
            | ReplicatorError::Session(SessionError::TimedOut { .. }) => Some(&self.stalled),
            ReplicatorError::Framing(
                FramingError::MessageTooLarge { .. } | FramingError::BadControl { .. },
            )
            | ReplicatorError::Session(SessionError::TooMany { .. }) => Some(&self.limits),
            ReplicatorError::Session(SessionError::Blip(error)) if is_limit(error) => Some(&self.limits),
            ReplicatorError::Framing(_)
            | ReplicatorError::Session(SessionError::Blip(_) | SessionError::Malformed { .. }) => {
                Some(&self.violations)
            }
            _ => None,
        }
    }
}

fn is_limit(error: &BlipError) -> bool {
    matches!(
        error,
        BlipError::FrameTooLarge { .. }
            | BlipError::MessageTooLarge { .. }
            | BlipError::PropertiesTooLarge { .. }
            | BlipError::TooManyOpenMessages { .. }
            | BlipError::TooManyOpenBytes { .. }
            | BlipError::SharedBytesUsedUp { .. }
            | BlipError::TooManyUnanswered { .. }
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_end_of_a_connection_counts_for_what_the_peer_did() {
        let waited = Duration::from_secs(1);
        let blip = |error| ReplicatorError::Session(SessionError::Blip(error));
        let none = Refusals::default();
        let violation = Refusals { violations: 1, ..none };
        let limit = Refusals { limits: 1, ..none };
        let too_many = SessionError::TooMany { what: "lists", max: 1, actual: 2 };
        for (error, counts) in [
            (ReplicatorError::Session(SessionError::Malformed { what: "changes" }), violation),
            (blip(BlipError::MessageTooLarge { number: 1, max: 1 }), limit),
            (blip(BlipError::FrameTooLarge { max: 1, actual: 2 }), limit),
            (blip(BlipError::PropertiesTooLarge { number: 1, max: 1, actual: 2 }), limit),
            (blip(BlipError::BadDeflate { number: 1 }), violation),
            (blip(BlipError::OutOfOrder { expected: 1, actual: 2 }), violation),
            (ReplicatorError::Session(too_many), limit),
            (ReplicatorError::Session(SessionError::TimedOut { waited }), Refusals { stalled: 1, ..none }),
            (ReplicatorError::HandshakeTimeout { limit: waited }, Refusals { handshakes: 1, ..none }),
            (ReplicatorError::PeerSilent { limit: waited }, Refusals { stalled: 1, ..none }),
            (ReplicatorError::Session(SessionError::Versioning), none),
        ] {
            let counters = Counters::default();
            counters.ended(&error);
            assert_eq!(counters.read(), counts, "{error}");
            assert_eq!(counters.read().total(), u64::from(counts != none), "{error}");
        }
    }
}
