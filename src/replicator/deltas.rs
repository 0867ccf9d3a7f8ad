//! Whether and how changed documents travel as deltas.

use std::collections::BTreeSet;

use crate::blip::{ErrorReply, IncomingReply, OutgoingMessage};
use crate::replica::delta;
use crate::replica::revision::RevId;
use crate::replica::store::{Change, CollectionId, ReplicaStore, ReplicaStoreError};

/// The property by which a reply to a list says that deltas are taken.
const ANNOUNCED: &str = "deltas";

/// The property that names the revision that a delta is applied to.
pub(super) const DELTA_SOURCE: &str = "deltaSrc";

/// What the two sides of a session have said of deltas.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    /// Whether this side takes and makes them.
    pub enabled: bool,
    /// Collections of which the peer has been told: the first reply to a list of each says it, as Couchbase Lite does.
    announced: BTreeSet<usize>,
    /// Whether the peer takes them.
    peer_takes: bool,
}

impl Deltas {
    /// Tells the peer, once for each collection, in a reply to a list.
    pub(super) fn announce(&mut self, collection: usize, reply: OutgoingMessage) -> OutgoingMessage {
        let is_new = self.enabled && self.announced.insert(collection);
        if is_new { reply.with(ANNOUNCED, "true") } else { reply }
    }

    /// Takes what the peer says of them in a reply to a list.
    pub(super) fn hear(&mut self, reply: &IncomingReply) {
        self.peer_takes |= reply.properties.get_bool(ANNOUNCED);
    }

    /// A revision as the delta on one that the peer has, if that saves bytes.
    pub(super) fn of(
        &self,
        collection: CollectionId,
        change: &Change,
        bases: &[RevId],
        store: &dyn ReplicaStore,
    ) -> Result<Option<(RevId, Vec<u8>)>, ReplicaStoreError> {
        let Some(body) = change.body.as_ref().filter(|body| body.len() >= delta::DELTA_BODY_MIN) else {
            return Ok(None);
        };
        if !self.enabled || !self.peer_takes || change.deleted {
            return Ok(None);
        }
        for base in bases.iter().filter(|base| **base != change.vector.id()) {
            if let Some(before) = store.body_at(collection, &change.id, *base)? {
                return Ok(delta::between(&before, body).map(|delta| (*base, delta)));
            }
        }
        Ok(None)
    }
}

/// Whether a peer has refused a delta as such, so that it may take the whole body: it lacks the base, or the two do not fit.
pub(super) fn is_delta_refused(error: &ErrorReply) -> bool {
    match error.domain.as_str() {
        "HTTP" => error.code == 422,
        "LiteCore" => matches!(error.code, 31 | 32),
        _ => false,
    }
}
