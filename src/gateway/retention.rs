//! What a gateway does for one section of rules: it looks through the collections, and removes what is beyond.
//!
//! The work is done in small steps on a thread that may block, each followed by a pause four times as long, so that a sync and its
//! commits are not kept waiting. What to do is the core's to say (`node::retention`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::board::Board;
use super::config::RetentionConfig;
use crate::database::retained::AgedDocument;
use crate::database::{Collection, Database, DatabaseError};
use crate::node::retention::{Aged, Extent, Keeper, Step};
use crate::task;

/// Documents that are looked at in one step.
const LOOKED_AT: usize = 256;

/// Documents that one commit removes.
const REMOVED_AT_ONCE: usize = 64;

/// The pause after a step, as a multiple of it, and its limits.
const PAUSE_FACTOR: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Between two rounds, however much changes.
const ROUND_MIN: Duration = Duration::from_secs(2);

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

struct Worker {
    name: Arc<str>,
    db: Database,
    config: RetentionConfig,
    board: Board,
}

impl Worker {
    async fn run(self) {
        let mut changed = self.db.watch();
        let mut keepers: BTreeMap<String, Keeper> = BTreeMap::new();
        loop {
            let began = Instant::now();
            changed.borrow_and_update();
            let wait = match self.round(&mut keepers).await {
                Ok(wait) => {
                    self.board.retention_failed(&self.name, None);
                    wait
                }
                Err(error) => {
                    self.board.retention_failed(&self.name, Some(error.to_string()));
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

    /// Looks after each collection until nothing is left to do; gives how long that holds if nothing changes.
    async fn round(&self, keepers: &mut BTreeMap<String, Keeper>) -> Result<Duration, DatabaseError> {
        let mut wait = Duration::MAX;
        let names = match self.config.collections.is_empty() {
            true => self.db.collections(),
            false => self.config.collections.clone(),
        };
        for name in names {
            // One that was deleted has no documents.
            let Some(collection) = self.db.collection(&name) else { continue };
            let keeper = keepers.entry(name.clone()).or_insert_with(|| Keeper::new(self.config.rule.clone()));
            let due = self.look_after(keeper, &collection).await;
            self.board.retained(&self.name, &name, keeper.bytes().unwrap_or_default());
            match due {
                Ok(due) => wait = wait.min(due),
                Err(error) => {
                    // What it was told to remove may be there.
                    keepers.remove(&name);
                    return Err(error);
                }
            }
        }
        // New collections, and the wall clock.
        Ok(wait.min(Duration::from_secs(3_600)))
    }

    async fn look_after(
        &self,
        keeper: &mut Keeper,
        collection: &Collection,
    ) -> Result<Duration, DatabaseError> {
        loop {
            let extent = Extent {
                documents: collection.count(),
                last_sequence: collection.last_sequence(),
                confirmed: u64::MAX,
            };
            match keeper.next(collection.wall(), extent) {
                Step::Wait(wait) => return Ok(wait),
                Step::Look { after } => {
                    let (seen, until) = look(collection, after).await?;
                    seen.iter().for_each(|seen| keeper.look(seen));
                    keeper.looked(until);
                }
                Step::Sweep(mut sweep) => {
                    let mut after = 0;
                    while after < extent.last_sequence {
                        let (seen, until) = look(collection, after).await?;
                        // What comes meanwhile is for the next look.
                        let old = seen.into_iter().filter(|seen| seen.sequence <= extent.last_sequence);
                        old.for_each(|seen| sweep.see(seen));
                        after = until;
                    }
                    for some in keeper.swept(sweep).chunks(REMOVED_AT_ONCE) {
                        let removed = remove(collection, some).await?;
                        self.board.removed(&self.name, removed);
                    }
                }
            }
        }
    }
}

/// The documents after a sequence, and the sequence up to which that was looked at.
async fn look(collection: &Collection, after: u64) -> Result<(Vec<AgedDocument>, u64), DatabaseError> {
    let collection = collection.clone();
    paced(move || collection.ages_since(after, LOOKED_AT)).await
}

/// Removes some documents; gives how many.
async fn remove(collection: &Collection, some: &[Aged]) -> Result<u64, DatabaseError> {
    let (collection, some) = (collection.clone(), some.to_vec());
    paced(move || collection.remove_aged(some.iter().map(|aged| (&*aged.id, aged.sequence)))).await
}

/// Runs a step that blocks, and pauses after it.
async fn paced<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, DatabaseError> {
    let began = Instant::now();
    let done = task::blocking(work).await;
    let pause = (began.elapsed() * PAUSE_FACTOR).clamp(PAUSE_MIN, PAUSE_MAX);
    tokio::time::sleep(pause).await;
    done.unwrap_or(Err(DatabaseError::Closed))
}
