//! Which blobs go, and when: one that no document names, a day after it came; a part that nobody continued for a week.
//!
//! That a document names a blob no more is on stable storage before the blob goes, and no commit comes in between. So
//! neither a crash nor a writer finds a document without one of its blobs.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::background::{Look, Worker};
use super::blobs::LOOK_MAX;
use super::expiry::NS_PER_MS;
use super::handle::Store;
use super::keys;
use super::timer::{Started, Timer};
use crate::database::{DatabaseError, clock};
use crate::replica::blobs::BlobDigest;

/// The wait after a failure, or for a backup to end.
const LATER: Duration = Duration::from_secs(60);

/// Blobs that are removed while writers wait.
const REMOVED_AT_ONCE: usize = 64;

/// Documents, and bytes of them, that are looked through while writers wait.
const RECORDS_AT_ONCE: usize = 256;
const RECORD_BYTES_AT_ONCE: usize = 1 << 20;

impl Store {
    /// Sees to it that blobs go in time, if there are any.
    pub(crate) fn sweep_later(self: &Arc<Store>) {
        // A simulation is shorter than the wait: whoever simulates calls for it.
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            return;
        }
        if !self.is_read_only() && self.blobs.has_any() {
            // Without a thread they go when the database is opened again.
            self.sweeper
                .look_at(1, || Worker { name: "gattway-blobs", timer: &self.sweeper, look }.start(self));
        }
    }

    /// Some documents name these blobs no more.
    pub(super) fn suspect(&self, digests: Vec<BlobDigest>) {
        if !digests.is_empty() {
            self.blobs.suspect(digests);
            self.sweeper.look_at(1, || Started::Nobody);
        }
    }

    /// Removes what is to go. `false` if nothing can be said now.
    pub(crate) fn sweep_blobs(&self) -> Result<bool, DatabaseError> {
        let _sweep = self.blobs.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        // A backup reads them after the documents.
        let Ok(_one) = self.backup.try_lock() else { return Ok(false) };
        if !clock::is_plausible(self.wall()) {
            return Ok(false);
        }
        if !self.blobs.is_recorded.load(Ordering::Acquire) {
            self.record_blobs()?;
        }
        let suspects = self.blobs.take_suspects();
        let swept = self.sweep_these(suspects.as_ref());
        if swept.is_err() {
            self.blobs.suspect_all();
        }
        swept.map(|()| true)
    }

    /// Removes what is to go of these blobs, or of all, and of parts.
    fn sweep_these(&self, suspects: Option<&BTreeSet<BlobDigest>>) -> Result<(), DatabaseError> {
        let now = self.wall() / NS_PER_MS;
        let (whole, parts) = match suspects {
            Some(suspects) => (suspects.iter().copied().collect(), Vec::new()),
            None => self.blobs.list()?,
        };
        let mut old = Vec::new();
        for digest in whole {
            if self.blobs.is_old(&digest, now)? && !self.is_named(&digest)? {
                old.push(digest);
            }
            if old.len() >= REMOVED_AT_ONCE {
                self.remove_unnamed(&std::mem::take(&mut old), now)?;
            }
        }
        if !old.is_empty() {
            self.remove_unnamed(&old, now)?;
        }
        for digest in parts {
            // One that a document names is fetched again, sooner or later: it was whole once.
            let is_wanted =
                || Ok::<_, DatabaseError>(!self.blobs.is_whole(&digest)? && self.is_named(&digest)?);
            if self.blobs.is_old_part(&digest, now)? && !is_wanted()? {
                self.blobs.remove_part(&digest)?;
            }
        }
        Ok(())
    }

    /// Removes those of these that no document names, with writers held off.
    fn remove_unnamed(&self, digests: &[BlobDigest], now: u64) -> Result<(), DatabaseError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // A power cut must not bring back a document that names one.
        self.sync(self.newest())?;
        for digest in digests {
            if !self.is_named(digest)? && self.blobs.remove_old(digest, now)? {
                tracing::debug!(%digest, "no document names this blob: it is removed");
            }
        }
        Ok(())
    }

    /// Whether a document names a blob.
    pub(crate) fn is_named(&self, digest: &BlobDigest) -> Result<bool, DatabaseError> {
        let (from, to) = keys::blob_names(digest);
        Ok(self.engine().first(&from, &to)?.is_some())
    }

    /// Notes what all documents name: of a database that an earlier release wrote, or that was repaired.
    fn record_blobs(&self) -> Result<(), DatabaseError> {
        for (key, state) in self.collections() {
            let mut after = 0;
            loop {
                let mut writer = self.writer();
                let bytes = RECORD_BYTES_AT_ONCE;
                let records = match self.stored_within(key, after, state.applied(), RECORDS_AT_ONCE, bytes) {
                    // It was deleted meanwhile.
                    Err(DatabaseError::UnknownCollection { .. }) => break,
                    records => records?,
                };
                let Some(last) = records.last() else { break };
                after = last.sequence;
                records
                    .iter()
                    .filter(|record| !record.deleted)
                    .for_each(|record| writer.name_blobs(key, record));
                writer.commit()?;
            }
        }
        let mut writer = self.writer();
        writer.all_blobs_are_named();
        writer.commit()?;
        self.blobs.is_recorded.store(true, Ordering::Release);
        Ok(())
    }
}

fn look(store: &Weak<Store>, timer: &Timer) -> Look {
    let Some(store) = store.upgrade() else { return Look::Never };
    // Whoever wants a look from now on gets another one.
    timer.plan(u64::MAX);
    match store.sweep_blobs() {
        Ok(true) => Look::Again(LOOK_MAX),
        Ok(false) => Look::Again(LATER),
        Err(DatabaseError::Closed) => Look::Never,
        Err(_) if store.failure().is_some() => Look::Never,
        Err(error) => {
            tracing::warn!(%error, "blobs that no document names cannot be removed now; it is tried again");
            Look::Again(LATER)
        }
    }
}
