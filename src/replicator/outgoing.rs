//! Sending single revisions that the peer asked for, as the original does: a few in flight, each with its own reply.

#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use super::core::{Awaiting, Core};
use super::error::SessionError;
use super::event::Direction;
use super::messages::{unsendable, write_norev, write_rev};
use super::store::{Change, ReplicaStore};
use crate::database::revision::RevId;

/// A revision that the peer wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub id: String,
    pub sequence: u64,
    pub revision: RevId,
}

impl Wanted {
    pub fn of(change: Change) -> Wanted {
        Wanted { id: change.id, sequence: change.sequence, revision: change.vector.id() }
    }
}

/// A revision in flight.
#[derive(Clone, Debug)]
pub(super) struct SentRev {
    pub id: String,
    pub sequence: u64,
    pub deleted: bool,
    /// Of its body.
    pub bytes: usize,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct RevSender {
    wanted: VecDeque<Wanted>,
    in_flight: usize,
    /// Sequences whose revision is not here any more: nothing is left to do for them.
    pub gone: Vec<u64>,
}

impl RevSender {
    /// Notes a revision that the peer wants.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    /// Revisions that are not sent yet.
    pub fn queued(&self) -> usize {
        self.wanted.len()
    }

    /// Whether nothing is queued or in flight.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.in_flight == 0
    }

    /// Forgets what is not sent yet.
    pub fn clear(&mut self) {
        self.wanted.clear();
    }

    /// Sends what the limits allow. A revision that is not the newest of its document any more gives a `norev`: the
    /// newer one is further on in the feed.
    pub fn pump(
        &mut self,
        core: &mut Core,
        collection: usize,
        store: &dyn ReplicaStore,
        no_conflicts: bool,
    ) -> Result<bool, SessionError> {
        let mut sent = false;
        while core.may_send_rev(self.in_flight) {
            let Some(wanted) = self.wanted.pop_front() else { break };
            let Some(target) = core.collections.get(collection) else { break };
            let index = target.index.clone();
            let newest = store
                .document(target.id, &wanted.id)?
                .filter(|change| change.vector.current == wanted.revision.version());
            sent = true;
            let refused = newest.as_ref().and_then(|change| unsendable(change, core.body_size_max));
            if refused.is_some() {
                let revision = wanted.revision.to_string();
                core.notify(write_norev(index.as_deref(), &wanted.id, &revision, wanted.sequence))?;
                core.report(Direction::Sent, collection, &wanted.id, false, refused);
                continue;
            }
            let Some(change) = newest else {
                let revision = wanted.revision.to_string();
                core.notify(write_norev(index.as_deref(), &wanted.id, &revision, wanted.sequence))?;
                self.gone.push(wanted.sequence);
                continue;
            };
            let message = write_rev(index.as_deref(), &change, no_conflicts);
            let bytes = message.body.len();
            self.in_flight += 1;
            let rev = SentRev { id: wanted.id, sequence: wanted.sequence, deleted: change.deleted, bytes };
            core.request(message, Awaiting::Rev { collection, rev })?;
        }
        Ok(sent)
    }

    /// A reply has come.
    pub fn replied(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}
