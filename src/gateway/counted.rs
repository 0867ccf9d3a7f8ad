//! What the state of a replication says of an upstream or a neighbour.

use std::time::Instant;

use super::status::{NeighbourStatus, UpstreamStatus, activity_word, now_s};
use crate::replicator::{ReplicatorActivity, ReplicatorStatus};

/// How far the present connection has come, so that numbers of all connections add up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    documents: u64,
    /// When it began to connect, or something was to be synced; `None` once all was, or it has failed.
    began: Option<Instant>,
}

impl Counted {
    /// What has come since the last look; the numbers start again with each connection.
    fn grown(&mut self, status: &ReplicatorStatus) -> u64 {
        let now = status.progress.documents;
        let grown = if now >= self.documents { now - self.documents } else { now };
        self.documents = now;
        grown
    }
}

fn pending(status: &ReplicatorStatus) -> u64 {
    match status.activity {
        ReplicatorActivity::Busy | ReplicatorActivity::Offline | ReplicatorActivity::Connecting => {
            status.progress.total.saturating_sub(status.progress.completed)
        }
        _ => 0,
    }
}

/// Whether all was synced at this moment.
fn is_in_sync(status: &ReplicatorStatus) -> bool {
    let ended_well = status.activity == ReplicatorActivity::Stopped && status.error.is_none();
    ended_well || status.activity == ReplicatorActivity::Idle
}

impl UpstreamStatus {
    pub(super) fn take(&mut self, status: &ReplicatorStatus, counted: &mut Counted) {
        activity_word(status.activity).clone_into(&mut self.activity);
        self.documents += counted.grown(status);
        self.pending = pending(status);
        self.next_s = None;
        match status.activity {
            ReplicatorActivity::Connecting | ReplicatorActivity::Busy => {
                counted.began.get_or_insert_with(Instant::now);
            }
            _ => {
                let took = counted.began.take().map(|began| began.elapsed());
                took.filter(|_| is_in_sync(status)).into_iter().for_each(|took| self.syncs.note(took));
            }
        }
        if is_in_sync(status) {
            (self.last_synced_s, self.error) = (Some(now_s()), None);
        }
        // How it has ended is told by whoever starts it again.
        if status.activity == ReplicatorActivity::Offline {
            self.failures += 1;
            self.error = status.error.as_ref().map(ToString::to_string);
        }
    }
}

impl NeighbourStatus {
    pub(super) fn take(&mut self, status: &ReplicatorStatus, counted: &mut Counted) {
        let connected = matches!(status.activity, ReplicatorActivity::Idle | ReplicatorActivity::Busy);
        if connected || self.connected {
            self.last_heard_s = now_s();
        }
        self.connected = connected;
        self.documents += counted.grown(status);
        self.pending = pending(status);
        if is_in_sync(status) {
            (self.last_synced_s, self.error) = (Some(now_s()), None);
        }
        if let Some(error) = &status.error {
            self.failures += 1;
            self.error = Some(error.to_string());
        }
    }
}
