//! The durability rule: when a commit counts as done. How sled is opened, written and synced is in [`super::sled`].
//!
//! - A commit is one batch of the log, which recovers a batch wholly or not at all.
//! - A commit is acknowledged after a sync to stable storage.
//! - sled trusts its flush: it reuses a segment of the log, and calls it stable in the headers of later ones, when what
//!   replaced its content was flushed. That holds in a power cut only if at most one segment is begun between two real
//!   syncs; [`Window`] sees to it. A commit that could begin two goes through a redo list ([`super::commit`]).
//! - Concurrent writers share syncs: one leads, the others wait for it or lead the next.
//! - A failed write leaves sled's memory ahead of the storage device, so the handle refuses everything afterwards.
//! - sled panics on some kinds of damage; panics end here as typed errors.
//!
//! One file, because applying, syncing and failing are rules about one group of commits.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(in crate::database) use super::ground::SEGMENT_BYTES;
pub(crate) use super::ground::directory_bytes;
pub(super) use super::ground::{Entry, VALUE_BYTES_MAX, io_error, sync_directory};
use super::keys::{self, CollectionKey};
use super::sled::log::{self, Entries, Log, LogResult, Stored, Value};
use super::sled::seal;
use crate::database::DatabaseError;

mod overlay;
mod window;

use self::overlay::Overlay;
pub(super) use self::window::BATCH_BYTES_MAX;
use self::window::{Look, Window};

/// What sled writes for a byte of ours: the entry itself, and its share of the pages that are written anew.
const LOG_AMPLIFICATION: usize = 3;

/// Bytes of an entry's header in the log.
const ENTRY_HEADER_BYTES: usize = 24;

/// Commits that wait for others at one time. Each holds a thread of those that may block, which others need too.
const GATHERED_MAX: usize = 64;

/// The writes of one commit, in order: of two to one key the later holds.
#[derive(Default)]
pub(super) struct Writes {
    pub(super) entries: Vec<Entry>,
}

impl Writes {
    pub(super) fn insert(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.entries.push((key.into(), Some(value.into())));
    }

    pub(super) fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.entries.push((key.into(), None));
    }

    /// Estimate of what the log grows by.
    pub(super) fn log_bytes(&self) -> usize {
        self.entries.iter().map(log_bytes).sum()
    }
}

/// Estimate of what the log grows by for one entry.
pub(super) fn log_bytes((key, value): &Entry) -> usize {
    let written = LOG_AMPLIFICATION * (ENTRY_HEADER_BYTES + key.len() + value.as_ref().map_or(0, Vec::len));
    // sled writes a page anew after ten removals, with all that is left in it: for a piece that goes, about one that stays.
    let left = if value.is_none() && keys::is_piece(key) { VALUE_BYTES_MAX } else { 0 };
    written + left
}

/// Names a commit for waiting on its durability; later ones are larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The newest sequence of each collection that a sync made durable.
pub(super) type Watermarks = BTreeMap<CollectionKey, u64>;

/// How often things happened, for benchmarks and tests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineCounts {
    /// Batches applied.
    pub(crate) commits: u64,
    /// Syncs to stable storage.
    pub(crate) syncs: u64,
    /// Bytes that the log grew by.
    pub(crate) log_bytes: u64,
}

impl EngineCounts {
    /// With what engines before this one have done. Commits are numbered on.
    pub(super) fn after(self, before: EngineCounts) -> EngineCounts {
        EngineCounts {
            syncs: self.syncs + before.syncs,
            log_bytes: self.log_bytes + before.log_bytes,
            ..self
        }
    }
}

/// An open log with group commit.
pub(super) struct Engine {
    log: Log,
    /// Commits that take several steps, while they are made.
    overlay: Overlay,
    directory: PathBuf,
    group: Mutex<Group>,
    group_changed: Condvar,
    ended: OnceLock<End>,
    syncs: AtomicU64,
    /// Called after each sync, so that a test knows what a power cut would leave.
    #[cfg(test)]
    pub(super) synced: Mutex<Option<Box<dyn Fn() + Send>>>,
    /// How many syncs to stable storage shall fail from now on.
    #[cfg(test)]
    pub(super) failing_syncs: AtomicU64,
}

/// Why an engine accepts nothing more.
enum End {
    /// A write failed, for this reason: what is in memory is ahead of the storage device.
    Failed(String),
    /// Its owner closed it in order.
    Closed,
}

impl End {
    fn error(&self) -> DatabaseError {
        match self {
            End::Failed(reason) => DatabaseError::Failed { reason: reason.clone() },
            End::Closed => DatabaseError::Closed,
        }
    }
}

/// Who waits for which sync.
#[derive(Default)]
struct Group {
    applied: u64,
    synced: u64,
    leading: bool,
    /// Sequences applied and not yet given to a sync.
    dirty: Watermarks,
    /// Those that a sync in passing made durable, and nobody was told of yet.
    untold: Watermarks,
    /// When the oldest commit was applied that no sync has begun to cover.
    since: Option<Instant>,
    /// How many wait for others to share their sync.
    gathered: usize,
    window: Window,
    closed: bool,
}

impl Group {
    /// How long a commit may still wait for others before it is synced; `None`: no longer.
    fn time_left(&self, delay: Duration) -> Option<Duration> {
        if self.closed || self.gathered >= GATHERED_MAX {
            return None;
        }
        // Without a commit that waits nobody is to come.
        let waited = self.since?.elapsed();
        delay.checked_sub(waited).filter(|left| !left.is_zero())
    }
}

impl Engine {
    /// An engine on a log that was just opened, with all that this wrote synced.
    pub(super) fn begun(log: Log, directory: &Path, start: Ticket) -> Engine {
        let engine = Engine::new(log, directory, start);
        let opened = Look { applied: 0, tip: engine.log.tip() };
        engine.lock().window.synced(opened);
        engine
    }

    /// An engine on a log that is read alone.
    pub(super) fn new(log: Log, directory: &Path, start: Ticket) -> Engine {
        Engine {
            log,
            overlay: Overlay::default(),
            directory: directory.to_owned(),
            group: Mutex::new(Group { applied: start.0, synced: start.0, ..Group::default() }),
            group_changed: Condvar::new(),
            ended: OnceLock::new(),
            syncs: AtomicU64::new(0),
            #[cfg(test)]
            synced: Mutex::default(),
            #[cfg(test)]
            failing_syncs: AtomicU64::new(0),
        }
    }

    /// Whether it is made of files that sled writes.
    pub(super) fn is_on_files(&self) -> bool {
        self.log.is_on_files()
    }

    /// Whether it can only be read.
    pub(super) fn is_frozen(&self) -> bool {
        self.log.is_frozen()
    }

    /// Runs a call of the log that reads. An error concerns the page that was read; the handle goes on. After a panic it
    /// does not.
    fn read<T>(&self, call: impl FnOnce() -> LogResult<T>) -> Result<T, DatabaseError> {
        if let Some(end) = self.ended.get() {
            return Err(end.error());
        }
        match log::contain(call) {
            Ok(result) => result.map_err(|error| log::translate("read", error, &self.directory)),
            Err(detail) => Err(self.fail(DatabaseError::Damaged { detail })),
        }
    }

    /// Runs a call of the log that writes: refuses after a failure, turns panics into errors.
    fn guarded<T>(
        &self,
        action: &'static str,
        call: impl FnOnce() -> LogResult<T>,
    ) -> Result<T, DatabaseError> {
        if let Some(end) = self.ended.get() {
            return Err(end.error());
        }
        match log::contain(call) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.fail(log::translate(action, error, &self.directory))),
            Err(detail) => Err(self.fail(DatabaseError::Damaged { detail })),
        }
    }

    /// Marks the handle as failed, with the first reason.
    pub(super) fn fail(&self, error: DatabaseError) -> DatabaseError {
        let _ = self.ended.set(End::Failed(error.to_string()));
        error
    }

    /// Refuses everything from now on, after an orderly end.
    pub(super) fn refuse(&self) {
        let _ = self.ended.set(End::Closed);
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Value>, DatabaseError> {
        let view = self.overlay.view();
        self.read(|| view.get(&self.log, key))
    }

    /// The first entry at or after `from` and before `to`.
    pub(super) fn first(&self, from: &[u8], to: &[u8]) -> Result<Option<Stored>, DatabaseError> {
        let view = self.overlay.view();
        self.read(|| view.first(&self.log, from, to))
    }

    /// The last entry at or after `from` and before `to`.
    pub(super) fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Stored>, DatabaseError> {
        let view = self.overlay.view();
        self.read(|| view.last(&self.log, from, to))
    }

    /// Shows the entries at or after `from` and before `to` in order until `visit` breaks.
    pub(super) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let mut next = from.to_vec();
        let mut entries: Option<Entries> = None;
        loop {
            let view = self.overlay.view();
            let entry = self.read(|| {
                if !view.is_clear() {
                    // They know nothing of what lies over the log.
                    entries = None;
                    return view.first(&self.log, &next, to);
                }
                match &mut entries {
                    Some(entries) => entries.next(),
                    none => none.insert(self.log.range(&next, to)?).next(),
                }
            })?;
            drop(view);
            let Some((key, value)) = entry else { break };
            next.clear();
            next.extend_from_slice(&key);
            next.push(0);
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A commit was applied.
    pub(super) fn committed(&self, sequences: Watermarks) -> Ticket {
        let mut group = self.lock();
        group.applied += 1;
        group.dirty.extend(sequences);
        group.since.get_or_insert_with(Instant::now);
        let ticket = Ticket(group.applied);
        drop(group);
        self.group_changed.notify_all();
        ticket
    }

    /// Shows readers writes that are not in the log.
    pub(super) fn lay(&self, writes: &[Entry]) {
        self.overlay.lay(writes);
    }

    /// Shows readers a commit as a whole while `make` writes it in steps.
    pub(super) fn make_in_steps(
        &self,
        entries: Vec<Entry>,
        make: impl FnOnce(Vec<Entry>) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        self.overlay.lay(&entries);
        // After a failure nothing is read any more.
        make(entries)?;
        self.overlay.take_off();
        Ok(())
    }

    /// Applies writes of at most [`BATCH_BYTES_MAX`] as one batch, after a sync if there is no room for them before it.
    pub(super) fn apply_part(&self, writes: Writes) -> Result<(), DatabaseError> {
        if writes.entries.is_empty() {
            return Ok(());
        }
        let bound = window::bound(writes.entries.len(), writes.log_bytes());
        if !self.lock().window.has_room_for(bound) {
            let look = self.flush()?;
            let has_room = {
                let window = &mut self.lock().window;
                window.saw(look);
                window.has_room_for(bound)
            };
            if !has_room {
                self.sync_flushed(look)?;
                self.passed();
            }
        }
        self.guarded("write", || self.log.apply(writes.entries))?;
        self.lock().window.add(bound);
        Ok(())
    }

    /// Hands everything applied so far to the operating system, and looks how far the log has come by it.
    fn flush(&self) -> Result<Look, DatabaseError> {
        let applied = self.lock().window.applied();
        self.guarded("write", || self.log.flush())?;
        Ok(Look { applied, tip: self.log.tip() })
    }

    fn lock(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest commit.
    pub(super) fn newest(&self) -> Ticket {
        Ticket(self.lock().applied)
    }

    /// A sync was made by the one who makes a commit: all before it are on stable storage, for one is made at a time.
    fn passed(&self) {
        let mut group = self.lock();
        if group.synced >= group.applied {
            return;
        }
        group.synced = group.applied;
        group.since = None;
        let dirty = std::mem::take(&mut group.dirty);
        group.untold.extend(dirty);
        drop(group);
        self.group_changed.notify_all();
    }

    /// Waits until stable storage has the commit, leading a sync if nobody does; before that, up to `delay` after the oldest
    /// commit that waits, for others to share it. `publish` is called with what became durable, without a lock held.
    pub(super) fn sync(
        &self,
        ticket: Ticket,
        delay: impl Fn() -> Duration,
        publish: impl FnOnce(Watermarks),
    ) -> Result<(), DatabaseError> {
        let mut group = self.lock();
        let (target, dirty) = loop {
            if group.synced >= ticket.0 {
                let untold = std::mem::take(&mut group.untold);
                drop(group);
                if !untold.is_empty() {
                    publish(untold);
                }
                return Ok(());
            }
            if let Some(end) = self.ended.get() {
                return Err(end.error());
            }
            group = if group.leading {
                self.group_changed.wait(group).unwrap_or_else(PoisonError::into_inner)
            } else if let Some(left) = group.time_left(delay()) {
                self.gather(group, left)
            } else {
                group.leading = true;
                group.since = None;
                let mut dirty = std::mem::take(&mut group.untold);
                dirty.append(&mut group.dirty);
                break (group.applied, dirty);
            };
        };
        drop(group);
        let result = self.sync_medium();
        let mut group = self.lock();
        group.leading = false;
        if result.is_ok() {
            group.synced = group.synced.max(target);
        }
        drop(group);
        self.group_changed.notify_all();
        if result.is_ok() {
            publish(dirty);
        }
        result
    }

    /// Waits for others, at most so long.
    fn gather<'g>(&self, mut group: MutexGuard<'g, Group>, left: Duration) -> MutexGuard<'g, Group> {
        group.gathered += 1;
        let waited = self.group_changed.wait_timeout(group, left);
        let (mut group, _) = waited.unwrap_or_else(PoisonError::into_inner);
        group.gathered -= 1;
        group
    }

    /// Lets those who wait for others look again.
    pub(super) fn hurry(&self) {
        // With the lock, so that nobody has looked and does not wait yet.
        drop(self.lock());
        self.group_changed.notify_all();
    }

    /// A sync that is made before the rest of a commit: it covers all commits before that one, and whoever waits for them is told.
    pub(super) fn sync_in_passing(&self) -> Result<(), DatabaseError> {
        self.sync_medium()?;
        self.passed();
        Ok(())
    }

    /// Sees to it that the log can grow by so many bytes.
    pub(super) fn reserve(&self, bytes: u64) -> std::io::Result<()> {
        self.log.reserve(bytes)
    }

    /// Brings everything applied so far to stable storage.
    pub(super) fn sync_medium(&self) -> Result<(), DatabaseError> {
        let covered = self.flush()?;
        self.sync_flushed(covered)
    }

    /// Brings to stable storage what was flushed before this look.
    fn sync_flushed(&self, covered: Look) -> Result<(), DatabaseError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        // After a failed fdatasync the kernel may have dropped the pages: nothing later may count on them.
        #[cfg(feature = "test-faults")]
        let wanted = !crate::database::faults::fdatasync_is_left_out();
        #[cfg(not(feature = "test-faults"))]
        let wanted = true;
        if wanted {
            self.sync_data().map_err(|source| self.fail(io_error("sync", source)))?;
        }
        #[cfg(test)]
        if let Some(synced) = &*self.synced.lock().unwrap_or_else(PoisonError::into_inner) {
            synced();
        }
        self.lock().window.synced(covered);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        #[cfg(test)]
        if self
            .failing_syncs
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            return Err(rustix::io::Errno::IO.into());
        }
        self.log.sync_data()
    }

    /// Blocks until a commit has waited so long for a sync, or listeners are to be told of one; `None` once the engine is closed.
    pub(super) fn wait_due(&self, delay: Duration) -> Option<Ticket> {
        let mut group = self.lock();
        loop {
            if group.closed || self.ended.get().is_some() {
                return None;
            }
            if !group.untold.is_empty() {
                return Some(Ticket(group.synced));
            }
            let left = group.since.map(|since| delay.saturating_sub(since.elapsed()));
            group = match left {
                Some(Duration::ZERO) => return Some(Ticket(group.applied)),
                Some(left) => {
                    let waited = self.group_changed.wait_timeout(group, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                // Nothing waits, or a sync is under way that covers all.
                None => self.group_changed.wait(group).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// How many wait for others to share their sync.
    #[cfg(test)]
    pub(super) fn gathered(&self) -> usize {
        self.lock().gathered
    }

    /// Ends [`Engine::wait_due`].
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.group_changed.notify_all();
    }

    /// Syncs and seals the log; no other write may come. Without the seal the next open looks at the log more closely; nothing
    /// is lost by it.
    ///
    /// # Errors
    /// Of the storage device, or why the log had failed before.
    pub(super) fn seal(&self) -> Result<(), DatabaseError> {
        match self.ended.get() {
            None => {}
            Some(End::Closed) => return Ok(()),
            Some(failed) => return Err(failed.error()),
        }
        // Also what is not a commit, as the removal of a redo list.
        let synced = self.sync_medium();
        let sealed =
            if self.log.is_on_files() { synced.and_then(|()| seal::seal(&self.directory)) } else { synced };
        match &sealed {
            Ok(()) => {}
            // Whoever writes is told that the disk is full; whoever reads is not to be alarmed.
            Err(error @ DatabaseError::Full { .. }) => {
                tracing::debug!(path = %self.directory.display(), %error, "the log was not sealed");
            }
            Err(error) => {
                tracing::warn!(path = %self.directory.display(), %error, "the log could not be sealed");
            }
        }
        sealed
    }

    /// What went wrong so that the handle accepts nothing more, if so. An orderly end is no failure.
    pub(super) fn failure(&self) -> Option<String> {
        match self.ended.get()? {
            End::Failed(reason) => Some(reason.clone()),
            End::Closed => None,
        }
    }

    /// Directory of the log.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn counts(&self) -> EngineCounts {
        let group = self.lock();
        let (commits, log_bytes) = (group.applied, group.window.grown());
        EngineCounts { commits, syncs: self.syncs.load(Ordering::Relaxed), log_bytes }
    }
}

#[cfg(test)]
mod tests;
