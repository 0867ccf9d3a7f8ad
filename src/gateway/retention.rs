//! What a gateway does for one section of rules: it looks through the collections, and removes what is beyond.
//!
//! Where the files are limited as well, what fits into them is shared among the section's collections, and the database is
//! compacted when that is due (`node::retention::files`). Writers wait for a compaction.
//!
//! The work is done in small steps on a thread that may block, each followed by a pause four times as long, so that a sync and its
//! commits are not kept waiting. What to do is the core's to say (`node::retention`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::board::Board;
use super::config::RetentionConfig;
use super::pace::paced;
use crate::database::retained::AgedDocument;
use crate::database::{Collection, Database, DatabaseError};
use crate::node::retention::files::{FilesKeeper, FilesRule, FilesStep, Medium};
use crate::node::retention::{Aged, Extent, Keeper, Step, Sweep};
use crate::replica::store::{ReplicaStore, ReplicaStoreError};
use crate::replicator::{Direction, delivery, unsynced};
use crate::task;

/// Documents that are looked at in one step.
const LOOKED_AT: usize = 256;

/// Documents that one commit removes.
const REMOVED_AT_ONCE: usize = 64;

/// Between two rounds, however much changes.
const ROUND_MIN: Duration = Duration::from_secs(2);

/// Between two looks at the size of the files, if nothing changes.
const FILES_WAIT: Duration = Duration::from_secs(60);

/// After a failure of the database, which its own task deals with.
const FAILURE_WAIT: Duration = Duration::from_secs(30);

/// A section of rules that is looked after, until dropped.
pub(super) struct Retaining {
    pub(super) config: RetentionConfig,
    task: tokio::task::JoinHandle<()>,
}

impl Retaining {
    pub(super) fn start(name: &str, db: &Database, config: RetentionConfig, board: Board) -> Retaining {
        let worker = Worker { name: name.into(), db: db.clone(), config: config.clone(), board };
        Retaining { config, task: task::spawn(worker.run()) }
    }
}

impl Drop for Retaining {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why rules, or old tombstones, cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetentionError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Replica(#[from] ReplicaStoreError),
}

/// Looks after the section.
pub(crate) struct Worker {
    pub(crate) name: Arc<str>,
    pub(crate) db: Database,
    pub(crate) config: RetentionConfig,
    pub(crate) board: Board,
}

/// What is known from round to round.
pub(crate) struct Known {
    keepers: BTreeMap<String, Keeper>,
    files: Option<FilesKeeper>,
    /// Bytes of documents, of all collections together, that fit into the files.
    fits: Option<u64>,
    /// Documents that were removed since the start.
    removed: u64,
    /// Why the rules are not met, as far as this round has found.
    pub(crate) held: Vec<String>,
}

impl Known {
    pub(crate) fn new(config: &RetentionConfig) -> Known {
        let files = (config.files != FilesRule::default()).then(|| FilesKeeper::new(config.files));
        Known { keepers: BTreeMap::new(), files, fits: None, removed: 0, held: Vec::new() }
    }

    /// Bytes of documents.
    fn bytes(&self) -> u64 {
        self.keepers.values().filter_map(Keeper::bytes).sum()
    }

    /// Shares what fits among the collections, as they are.
    fn limit(&mut self) {
        let (total, fits) = (self.bytes(), self.fits);
        for keeper in self.keepers.values_mut() {
            let own = u128::from(keeper.bytes().unwrap_or(0));
            let share = |fits: u64| u64::try_from(own * u128::from(fits) / u128::from(total.max(1))).ok();
            keeper.limit_bytes(fits.filter(|fits| total > *fits).and_then(share));
        }
    }
}

impl Worker {
    async fn run(self) {
        let mut changed = self.db.watch();
        let mut known = Known::new(&self.config);
        loop {
            let began = Instant::now();
            changed.borrow_and_update();
            let wait = match self.round(&mut known).await {
                Ok(wait) => {
                    let held = (!known.held.is_empty()).then(|| known.held.join("; "));
                    self.board.retention_told(&self.name, held, None);
                    wait
                }
                Err(error) => {
                    self.board.retention_told(&self.name, None, Some(error.to_string()));
                    FAILURE_WAIT
                }
            };
            tokio::time::sleep(ROUND_MIN.saturating_sub(began.elapsed())).await;
            tokio::select! {
                () = tokio::time::sleep_until(began + wait) => {}
                ended = changed.changed() => if ended.is_err() { return },
            }
        }
    }

    /// Looks after each collection, and after the files, until nothing is left to do; gives how long that holds if nothing
    /// changes.
    pub(crate) async fn round(&self, known: &mut Known) -> Result<Duration, RetentionError> {
        known.held.clear();
        let mut wait = self.collections(known).await?;
        if known.files.is_some() {
            wait = wait.min(self.files(known).await?);
        }
        // New collections, and the wall clock.
        Ok(wait.min(Duration::from_secs(3_600)))
    }

    /// Looks after each collection.
    async fn collections(&self, known: &mut Known) -> Result<Duration, RetentionError> {
        let mut wait = Duration::MAX;
        let names = match self.config.collections.is_empty() {
            true => self.db.collections(),
            false => self.config.collections.clone(),
        };
        known.keepers.retain(|name, _| names.contains(name));
        for name in names {
            // One that was deleted has no documents.
            let Some(collection) = self.db.collection(&name) else { continue };
            let keeper =
                known.keepers.entry(name.clone()).or_insert_with(|| Keeper::new(self.config.rule.clone()));
            let done = self.look_after(keeper, &collection, &name).await;
            self.board.retained(&self.name, &name, keeper.bytes().unwrap_or_default());
            match done {
                Ok(done) => {
                    known.removed += done.removed;
                    known.held.extend(done.held);
                    wait = wait.min(done.wait);
                }
                Err(error) => {
                    // What it was told to remove may be there.
                    known.keepers.remove(&name);
                    return Err(error);
                }
            }
        }
        Ok(wait)
    }

    /// Brings the files below their limits; gives when to look again.
    async fn files(&self, known: &mut Known) -> Result<Duration, RetentionError> {
        loop {
            self.fit(known).await?;
            let medium = self.medium(known).await?;
            let Some(files) = &mut known.files else { return Ok(Duration::MAX) };
            let step = files.next(self.db.wall(), medium);
            self.board.files(&self.name, medium.files, files.allowed(medium));
            match step {
                FilesStep::Fine => return Ok(FILES_WAIT),
                FilesStep::Stuck(why) => {
                    known.held.push(format!("the files are too large: {why}"));
                    return Ok(FILES_WAIT);
                }
                FilesStep::Limit(bytes) => {
                    known.fits = Some(bytes);
                    self.fit(known).await?;
                    if known.bytes() >= medium.documents {
                        known.held.push("the files are too large, and nothing more may be removed".into());
                        return Ok(FILES_WAIT);
                    }
                }
                FilesStep::Compact => {
                    let db = self.db.clone();
                    task::blocking(move || db.compact()).await.unwrap_or(Err(DatabaseError::Closed))?;
                    let medium = self.medium(known).await?;
                    let Some(files) = &mut known.files else { return Ok(Duration::MAX) };
                    known.fits = Some(files.compacted(self.db.wall(), medium));
                    self.board.compacted(&self.name);
                }
            }
        }
    }

    /// Removes what does not fit into the files.
    async fn fit(&self, known: &mut Known) -> Result<(), RetentionError> {
        if known.fits.is_none_or(|fits| known.bytes() <= fits) {
            return Ok(());
        }
        let before = known.removed;
        known.limit();
        let done = self.collections(known).await;
        known.keepers.values_mut().for_each(|keeper| keeper.limit_bytes(None));
        done?;
        if let Some(files) = known.files.as_mut().filter(|_| known.removed > before) {
            files.removed();
        }
        Ok(())
    }

    async fn medium(&self, known: &Known) -> Result<Medium, RetentionError> {
        let db = self.db.clone();
        let files = task::blocking(move || db.disk_bytes()).await.unwrap_or(Err(DatabaseError::Closed))?;
        Ok(Medium { files, free: self.db.room().free_bytes, documents: known.bytes() })
    }

    /// Up to which sequence documents may go.
    fn confirmed(&self, collection: &str) -> Result<u64, RetentionError> {
        let Some(upstream) = &self.config.only_confirmed else { return Ok(u64::MAX) };
        let Some(id) = ReplicaStore::collection(&self.db, collection) else { return Ok(0) };
        Ok(delivery::confirmed_until(&self.db, id, upstream)?)
    }

    /// Documents that a peer has refused for what they are: whoever waits for a confirmation does not want to lose them.
    fn refused(&self, collection: &str) -> Result<HashSet<String>, RetentionError> {
        if self.config.only_confirmed.is_none() {
            return Ok(HashSet::new());
        }
        let lists = unsynced::stored(&self.db)?.into_iter().filter(|list| list.collection == collection);
        let sent = lists.flat_map(|list| list.documents).filter(|of| of.direction == Direction::Sent);
        Ok(sent.map(|document| document.id).collect())
    }

    async fn look_after(
        &self,
        keeper: &mut Keeper,
        collection: &Collection,
        name: &str,
    ) -> Result<Done, RetentionError> {
        let mut removed = 0;
        loop {
            let extent = Extent {
                documents: collection.count(),
                last_sequence: collection.last_sequence(),
                confirmed: self.confirmed(name)?,
            };
            match keeper.next(collection.wall(), extent) {
                Step::Wait(wait) => {
                    let held =
                        keeper.is_waiting(collection.wall(), extent).then(|| self.waits_for(name, extent));
                    return Ok(Done { wait, removed, held });
                }
                Step::Look { after } => {
                    let (seen, until) = look(collection, after).await?;
                    seen.iter().for_each(|seen| keeper.look(seen));
                    keeper.looked(until);
                }
                Step::Sweep(sweep) => {
                    let sweep = self.sweep(sweep, collection, name, extent).await?;
                    for some in keeper.swept(collection.wall(), sweep).chunks(REMOVED_AT_ONCE) {
                        let gone = remove(collection, some, self.config.only_confirmed.is_some()).await?;
                        self.board.removed(&self.name, gone);
                        removed += gone;
                    }
                }
            }
        }
    }

    async fn sweep(
        &self,
        mut sweep: Sweep,
        collection: &Collection,
        name: &str,
        extent: Extent,
    ) -> Result<Sweep, RetentionError> {
        let refused = self.refused(name)?;
        let mut after = 0;
        while after < extent.last_sequence {
            let (seen, until) = look(collection, after).await?;
            // What comes meanwhile is for the next look.
            for seen in seen.into_iter().filter(|seen| seen.sequence <= extent.last_sequence) {
                if refused.contains(&*seen.id) { sweep.keep(&seen) } else { sweep.see(seen) }
            }
            after = until;
        }
        Ok(sweep)
    }

    /// Why documents beyond the rule are still there.
    fn waits_for(&self, collection: &str, extent: Extent) -> String {
        let upstream = self.config.only_confirmed.as_deref().unwrap_or_default();
        let Extent { last_sequence, confirmed, .. } = extent;
        let behind = last_sequence.saturating_sub(confirmed);
        format!(
            "{collection}: documents beyond the rule stay until {upstream} has confirmed them; it is {behind} of \
             {last_sequence} changes behind"
        )
    }
}

/// What was done with a collection.
struct Done {
    /// When to look again, if nothing changes.
    wait: Duration,
    removed: u64,
    /// Why the rule is not met, if so.
    held: Option<String>,
}

/// The documents after a sequence, and the sequence up to which that was looked at.
async fn look(collection: &Collection, after: u64) -> Result<(Vec<AgedDocument>, u64), DatabaseError> {
    let collection = collection.clone();
    paced(move || collection.ages_since(after, LOOKED_AT)).await
}

/// Removes some documents; gives how many. `takes_late`: what was never here and could not be handed on is still taken, however
/// old it is.
async fn remove(collection: &Collection, some: &[Aged], takes_late: bool) -> Result<u64, DatabaseError> {
    let (collection, some) = (collection.clone(), some.to_vec());
    paced(move || collection.remove_aged(some.iter().map(|aged| (&*aged.id, aged.sequence)), takes_late))
        .await
}
