//! How much one peer may have stored in a time. Who may write may write for ever, and a device has one disk for all: whoever uses
//! up his share waits, and the others go on. It does not matter who has called whom: what a peer pushes and what is pulled from
//! it count together.
//!
//! Use is kept in the database, so that a peer gains nothing from a restart here: in one record for all peers, written when
//! one has used a hundredth of its quota since, or five seconds have passed. A crash forgets no more than that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::replica::blobs::{BlobDigest, BlobState};
use crate::replica::store::{CollectionId, CommitOutcome, IncomingRevision, ReplicaStore, ReplicaStoreError};
use crate::replica::{CHECKPOINT_SIZE_MAX, DEFAULT_NAME, OWN_PREFIX};
use crate::replicator::driver::Allowance;

/// Peers whose use is known at one time; beyond it the one that has used least is forgotten.
const PEERS_MAX: usize = 1000;

/// The part of a quota that may be used before that is written.
const UNWRITTEN_MAX: f64 = 0.01;

/// How long less than that may be unwritten while more comes.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// What one peer may have stored within `period`, all connections together, in whichever direction they were made; what it has
/// used comes back evenly. Peers that prove no name are not counted. Use is kept in the database, over restarts. While nothing
/// runs it comes back by the system's clock, which gives nothing back if it was set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerQuota {
    /// Revisions; `u64::MAX`: any number.
    pub revisions: u64,
    /// Bytes of their bodies and blobs; `u64::MAX`: any number.
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

impl PeerQuota {
    /// The larger part of it that so much is: 1 is all of it.
    fn part(&self, revisions: f64, bytes: f64) -> f64 {
        let revisions = revisions / (self.revisions as f64).max(f64::MIN_POSITIVE);
        revisions.max(bytes / (self.bytes as f64).max(f64::MIN_POSITIVE))
    }
}

type WallClock = Box<dyn Fn() -> u64 + Send + Sync>;

/// The use of all peers of one database. Those who are made with the same one count together.
pub(crate) struct Quotas {
    quota: PeerQuota,
    store: Arc<dyn ReplicaStore>,
    /// Collections with whose checkpoints the record may be kept; the first that exists.
    places: Vec<String>,
    /// Nanoseconds since 1970.
    wall_ns: WallClock,
    state: Mutex<State>,
}

struct State {
    peers: BTreeMap<String, Used>,
    /// The part of the quota that is used and not written, all peers together.
    unwritten: f64,
    written: Instant,
    /// The revision of the record that was read or written last.
    revision: Option<String>,
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
        self.give_back(quota, now.saturating_duration_since(self.at));
        self.at = now;
    }

    fn give_back(&mut self, quota: &PeerQuota, passed: Duration) {
        let share = passed.as_secs_f64() / quota.period.as_secs_f64().max(f64::MIN_POSITIVE);
        self.revisions = (self.revisions - quota.revisions as f64 * share).max(0.0);
        self.bytes = (self.bytes - quota.bytes as f64 * share).max(0.0);
    }

    fn part(&self, quota: &PeerQuota) -> f64 {
        quota.part(self.revisions, self.bytes)
    }
}

/// The use of all peers as the database keeps it, in postcard.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// When, in nanoseconds since 1970.
    at_ns: u64,
    /// Peer, revisions, bytes; who has used most stands first.
    peers: Vec<(String, f64, f64)>,
}

impl Quotas {
    /// Reads what was used before. `collections`: those that are replicated.
    pub(crate) fn new<'a>(
        quota: PeerQuota,
        store: &Arc<dyn ReplicaStore>,
        collections: impl IntoIterator<Item = &'a str>,
    ) -> Arc<Quotas> {
        let clock = Arc::clone(store);
        Quotas::with_clock(quota, store, collections, Box::new(move || clock.wall_ns()))
    }

    fn with_clock<'a>(
        quota: PeerQuota,
        store: &Arc<dyn ReplicaStore>,
        collections: impl IntoIterator<Item = &'a str>,
        wall_ns: WallClock,
    ) -> Arc<Quotas> {
        let places = [DEFAULT_NAME].into_iter().chain(collections).map(str::to_owned).collect();
        // What is little and comes first is written at once.
        let now = Instant::now();
        let written = now.checked_sub(WRITE_INTERVAL).unwrap_or(now);
        let state = State { peers: BTreeMap::new(), unwritten: 0.0, written, revision: None };
        let quotas = Quotas { quota, store: Arc::clone(store), places, wall_ns, state: Mutex::new(state) };
        if let Err(error) = quotas.read(&mut quotas.state()) {
            tracing::warn!(%error, "what peers have used of their quotas cannot be read");
        }
        Arc::new(quotas)
    }

    /// Writes what is not written, as at the end.
    pub(crate) fn save(&self) {
        let mut state = self.state();
        if state.unwritten > 0.0 {
            self.write(&mut state);
        }
    }

    fn place(&self) -> Option<CollectionId> {
        self.places.iter().find_map(|name| self.store.collection(name))
    }

    /// Takes in what the record says, less what has come back since, unless it is as this left it. Another handle on the
    /// database may have counted for itself, so the larger use of each peer holds.
    fn read(&self, state: &mut State) -> Result<Option<CollectionId>, ReplicaStoreError> {
        let Some(place) = self.place() else { return Ok(None) };
        let Some(stored) = self.store.checkpoint(place, &record_name())? else { return Ok(Some(place)) };
        if state.revision.as_ref() == Some(&stored.revision) {
            return Ok(Some(place));
        }
        state.revision = Some(stored.revision);
        let record: Record = postcard::from_bytes(&stored.body).unwrap_or_default();
        let passed = Duration::from_nanos((self.wall_ns)().saturating_sub(record.at_ns));
        let now = Instant::now();
        for (peer, revisions, bytes) in record.peers {
            let is_known = state.peers.contains_key(&peer);
            if state.peers.len() >= PEERS_MAX && !is_known {
                continue;
            }
            let mut theirs = Used { revisions, bytes, at: now };
            theirs.give_back(&self.quota, passed);
            let ours = state.peers.entry(peer).or_insert(theirs);
            ours.come_back(&self.quota, now);
            ours.revisions = ours.revisions.max(theirs.revisions);
            ours.bytes = ours.bytes.max(theirs.bytes);
        }
        Ok(Some(place))
    }

    /// Writes the use of all. If it cannot be written, it is tried again with the next.
    fn write(&self, state: &mut State) {
        (state.unwritten, state.written) = (0.0, Instant::now());
        let written = self.read(state).and_then(|place| {
            let Some(place) = place else { return Ok(()) };
            let body = Bytes::from(self.record(state));
            let expected = state.revision.as_deref();
            if let Some(revision) = self.store.set_checkpoint(place, &record_name(), expected, body)? {
                state.revision = Some(revision);
            }
            Ok(())
        });
        if let Err(error) = written {
            tracing::debug!(%error, "what peers have used of their quotas cannot be noted now");
        }
    }

    /// As many peers as find room, with those that have used most before the others.
    fn record(&self, state: &mut State) -> Vec<u8> {
        let now = Instant::now();
        state.peers.values_mut().for_each(|used| used.come_back(&self.quota, now));
        state.peers.retain(|_, used| used.part(&self.quota) > 0.0);
        let mut peers: Vec<(&String, &Used)> = state.peers.iter().collect();
        peers.sort_by(|(_, a), (_, b)| b.part(&self.quota).total_cmp(&a.part(&self.quota)));
        // A name, its length, and two numbers of eight bytes; the time and the number of peers.
        let mut room = CHECKPOINT_SIZE_MAX - 32;
        let fits = |(peer, _): &(&String, &Used)| {
            let size = peer.len() + 20;
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        };
        let peers = peers.into_iter().take_while(fits);
        let peers = peers.map(|(peer, used)| (peer.clone(), used.revisions, used.bytes));
        let record = Record { at_ns: (self.wall_ns)(), peers: peers.collect() };
        postcard::to_stdvec(&record).unwrap_or_default()
    }

    /// Nothing under this lock can be left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Quotas {
    fn drop(&mut self) {
        self.save();
    }
}

/// Under this name no peer has a checkpoint.
fn record_name() -> String {
    format!("{OWN_PREFIX}quotas")
}

impl Allowance for Quotas {
    /// A commit that begins before the quota is used up is let through whole: it is short, and so none is too long for it.
    fn check(&self, peer: &str) -> Result<(), ReplicaStoreError> {
        let quota = &self.quota;
        let mut state = self.state();
        let Some(used) = state.peers.get_mut(peer) else { return Ok(()) };
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

    fn used(&self, peer: &str, revisions: &[IncomingRevision], outcomes: &[CommitOutcome]) {
        let is_stored = |outcome: &CommitOutcome| {
            matches!(outcome, CommitOutcome::Inserted { .. } | CommitOutcome::Resolved { .. })
        };
        let stored = || revisions.iter().zip(outcomes).filter(|(_, outcome)| is_stored(outcome));
        let (count, bytes) =
            (stored().count(), stored().map(|(revision, _)| revision.body.len()).sum::<usize>());
        self.count(peer, count, bytes as u64);
    }

    fn used_for_blobs(&self, peer: &str, blobs: &[BlobDigest]) {
        let of = |digest| match self.store.blob(digest) {
            Ok(BlobState::Whole(length)) => length,
            _ => 0,
        };
        self.count(peer, 0, blobs.iter().map(of).sum());
    }
}

impl Quotas {
    fn count(&self, peer: &str, count: usize, bytes: u64) {
        if count == 0 && bytes == 0 {
            return;
        }
        let quota = &self.quota;
        let mut state = self.state();
        let peers = &mut state.peers;
        if peers.len() >= PEERS_MAX && !peers.contains_key(peer) {
            let least = peers.iter().min_by(|(_, a), (_, b)| a.part(quota).total_cmp(&b.part(quota)));
            if let Some(least) = least.map(|(peer, _)| peer.clone()) {
                peers.remove(&least);
            }
        }
        let now = Instant::now();
        let used = peers.entry(peer.to_owned()).or_insert(Used { revisions: 0.0, bytes: 0.0, at: now });
        used.come_back(quota, now);
        used.revisions += count as f64;
        used.bytes += bytes as f64;
        state.unwritten += quota.part(count as f64, bytes as f64);
        if state.unwritten >= UNWRITTEN_MAX || now.duration_since(state.written) >= WRITE_INTERVAL {
            self.write(&mut state);
        }
    }
}

#[cfg(test)]
mod tests;
