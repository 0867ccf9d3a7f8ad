//! How much one peer may have stored in a time. Who may write may write for ever, and a device has one disk for all: whoever uses
//! up his share waits, and the others go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::replica::store::{CommitOutcome, IncomingRevision, ReplicaStoreError};
use crate::replicator::driver::Allowance;

/// Peers whose use is known at one time; beyond it the one that has used least is forgotten.
const PEERS_MAX: usize = 1000;

/// What one peer may have stored within `period`, all connections together; what it has used comes back evenly. Peers that
/// prove no name are not counted. Use is kept in memory: a restart forgets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerQuota {
    /// Revisions; `u64::MAX`: any number.
    pub revisions: u64,
    /// Bytes of their bodies; `u64::MAX`: any number.
    pub bytes: u64,
    /// In what time.
    pub period: Duration,
}

impl Default for PeerQuota {
    /// 250,000 revisions and 1 GiB a day.
    fn default() -> PeerQuota {
        PeerQuota { revisions: 250_000, bytes: 1 << 30, period: Duration::from_secs(86_400) }
    }
}

/// The use of all peers.
pub(super) struct Quotas {
    quota: PeerQuota,
    peers: Mutex<BTreeMap<String, Used>>,
}

#[derive(Clone, Copy, Debug)]
struct Used {
    revisions: f64,
    bytes: f64,
    at: Instant,
}

impl Used {
    /// Takes off what has come back by `now`.
    fn come_back(&mut self, quota: &PeerQuota, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let share = passed / quota.period.as_secs_f64().max(f64::MIN_POSITIVE);
        self.revisions = (self.revisions - quota.revisions as f64 * share).max(0.0);
        self.bytes = (self.bytes - quota.bytes as f64 * share).max(0.0);
        self.at = now;
    }

    /// The larger part of the quota that is used: 1 is all of it.
    fn part(&self, quota: &PeerQuota) -> f64 {
        let revisions = self.revisions / (quota.revisions as f64).max(f64::MIN_POSITIVE);
        revisions.max(self.bytes / (quota.bytes as f64).max(f64::MIN_POSITIVE))
    }
}

impl Quotas {
    pub(super) fn new(quota: PeerQuota) -> Arc<Quotas> {
        Arc::new(Quotas { quota, peers: Mutex::default() })
    }

    /// What a connection of this peer asks.
    pub(super) fn of_peer(self: &Arc<Quotas>, peer: String) -> Arc<dyn Allowance> {
        Arc::new(PeerShare { all: Arc::clone(self), peer })
    }

    /// Nothing under this lock can be left half done.
    fn peers(&self) -> MutexGuard<'_, BTreeMap<String, Used>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct PeerShare {
    all: Arc<Quotas>,
    peer: String,
}

impl Allowance for PeerShare {
    /// A commit that begins before the quota is used up is let through whole: it is short, and so none is too long for it.
    fn check(&self) -> Result<(), ReplicaStoreError> {
        let quota = &self.all.quota;
        let mut peers = self.all.peers();
        let Some(used) = peers.get_mut(&self.peer) else { return Ok(()) };
        used.come_back(quota, Instant::now());
        if used.part(quota) < 1.0 {
            return Ok(());
        }
        let hours = quota.period.as_secs_f64() / 3600.0;
        let message = format!(
            "this peer has used up its quota ({} documents and {} MiB in {hours:.0} hours); more is taken bit by bit",
            quota.revisions,
            quota.bytes >> 20
        );
        Err(ReplicaStoreError { message, recoverable: true })
    }

    fn used(&self, revisions: &[IncomingRevision], outcomes: &[CommitOutcome]) {
        let quota = &self.all.quota;
        let is_stored = |outcome: &CommitOutcome| matches!(outcome, CommitOutcome::Inserted { .. });
        let stored = || revisions.iter().zip(outcomes).filter(|(_, outcome)| is_stored(outcome));
        let (count, bytes) =
            (stored().count(), stored().map(|(revision, _)| revision.body.len()).sum::<usize>());
        if count == 0 {
            return;
        }
        let mut peers = self.all.peers();
        if peers.len() >= PEERS_MAX && !peers.contains_key(&self.peer) {
            let least = peers.iter().min_by(|(_, a), (_, b)| a.part(quota).total_cmp(&b.part(quota)));
            if let Some(least) = least.map(|(peer, _)| peer.clone()) {
                peers.remove(&least);
            }
        }
        let fresh = Used { revisions: 0.0, bytes: 0.0, at: Instant::now() };
        let used = peers.entry(self.peer.clone()).or_insert(fresh);
        used.come_back(quota, Instant::now());
        used.revisions += count as f64;
        used.bytes += bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::replica::revision::{SourceId, Version, VersionVector};
    use crate::replica::store::CollectionId;

    fn revision(bytes: usize) -> IncomingRevision {
        IncomingRevision {
            collection: CollectionId(0),
            id: "x".into(),
            vector: VersionVector::new(Version { time: 1, source: SourceId([1; 16]) }),
            deleted: false,
            body: Bytes::from(vec![b' '; bytes]),
        }
    }

    const STORED: CommitOutcome = CommitOutcome::Inserted { sequence: 1 };

    #[tokio::test(start_paused = true)]
    async fn who_has_used_his_share_waits_and_the_others_do_not() {
        let quotas = Quotas::new(PeerQuota { revisions: 10, bytes: 1000, period: Duration::from_secs(100) });
        let share = |peer: &str| quotas.of_peer(peer.into());
        for n in 0..10 {
            assert!(share("greedy").check().is_ok(), "{n}");
            share("greedy").used(&[revision(1)], &[STORED]);
        }
        let refused = share("greedy").check().expect_err("used up");
        assert!(refused.recoverable && refused.message.contains("10 documents"), "{refused}");
        assert!(share("other").check().is_ok());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(share("greedy").check().is_ok(), "one has come back");
        share("greedy").used(&[revision(1)], &[STORED]);
        assert!(share("greedy").check().is_err(), "and not more");
        tokio::time::advance(Duration::from_secs(1000)).await;
        share("greedy").used(&[revision(2000)], &[STORED]);
        assert!(share("greedy").check().is_err(), "bytes count as well");
        tokio::time::advance(Duration::from_secs(101)).await;
        assert!(share("greedy").check().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_stored_is_not_used_and_the_table_is_bounded() {
        let quotas = Quotas::new(PeerQuota { revisions: 2, ..PeerQuota::default() });
        let known = CommitOutcome::AlreadyKnown { sequence: 1 };
        let share = |peer: &str| quotas.of_peer(peer.into());
        for _ in 0..100 {
            share("repeats").used(&[revision(1)], std::slice::from_ref(&known));
        }
        assert!(share("repeats").check().is_ok());
        share("greedy").used(&[revision(1), revision(1)], &[STORED, STORED]);
        for n in 0..3 * PEERS_MAX {
            share(&format!("peer {n}")).used(&[revision(1)], &[STORED]);
        }
        assert!(quotas.peers().len() <= PEERS_MAX);
        assert!(share("greedy").check().is_err(), "many identities do not make one's use forgotten");
    }
}
