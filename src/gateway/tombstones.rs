//! How long a gateway keeps the tombstones of a database: looked after by one task, for all its collections.
//!
//! What it knows from one start to the next (how far the feed of a collection had come, and when) is kept in the database, in a
//! record beside the checkpoints. What to do is the core's to say (`node::retention::tombstones`).

use std::time::Duration;

use tokio::time::Instant;

use super::board::Board;
use super::config::DatabaseConfig;
use super::pace::paced;
use super::retention::RetentionError;
use crate::database::{Collection, Database};
use crate::node::retention::tombstones::{Span, TombstoneKeeper};
use crate::replica::store::{CollectionId, ReplicaStore, ReplicaStoreError, StoredCheckpoint};
use crate::replicator::delivery;
use crate::task;

/// Name of the record. No peer may store one of this name.
const RECORD: &str = "own/tombstones";

/// Documents that are looked at in one step.
const LOOKED_AT: usize = 256;

/// Tombstones that one commit removes.
const REMOVED_AT_ONCE: usize = 64;

/// After a failure of the database, which its own task deals with.
const FAILURE_WAIT: Duration = Duration::from_secs(30);

/// How long tombstones are kept, by collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TombstoneRules {
    pub(crate) default: Duration,
    /// Those of sections, with their collections; none: all.
    pub(crate) sections: Vec<(Vec<String>, Duration)>,
}

impl TombstoneRules {
    pub(super) fn of(config: &DatabaseConfig) -> TombstoneRules {
        let sections = config.retention.values();
        let sections =
            sections.filter_map(|section| Some((section.collections.clone(), section.tombstones?)));
        TombstoneRules { default: config.tombstones, sections: sections.collect() }
    }

    fn limit(&self, collection: &str) -> Duration {
        let is_its = |(names, _): &&(Vec<String>, Duration)| {
            names.is_empty() || names.iter().any(|name| name == collection)
        };
        self.sections.iter().find(is_its).map_or(self.default, |(_, limit)| *limit)
    }
}

/// Tombstones of a database that are looked after, until dropped.
pub(super) struct TombstoneKeeping {
    pub(super) rules: TombstoneRules,
    task: tokio::task::JoinHandle<()>,
}

impl TombstoneKeeping {
    pub(super) fn start(db: &Database, rules: TombstoneRules, board: Board) -> TombstoneKeeping {
        let worker = Worker { db: db.clone(), rules: rules.clone(), board };
        TombstoneKeeping { rules, task: task::spawn(worker.run()) }
    }
}

impl Drop for TombstoneKeeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks after them.
pub(crate) struct Worker {
    pub(crate) db: Database,
    pub(crate) rules: TombstoneRules,
    pub(crate) board: Board,
}

impl Worker {
    async fn run(self) {
        loop {
            let began = Instant::now();
            let wait = match self.round().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "old tombstones cannot be removed now; it is tried again");
                    FAILURE_WAIT
                }
            };
            tokio::time::sleep_until(began + wait).await;
        }
    }

    /// Looks after each collection; gives when to look again.
    pub(crate) async fn round(&self) -> Result<Duration, RetentionError> {
        let mut wait = Duration::MAX;
        for name in self.db.collections() {
            let limit = self.rules.limit(&name);
            wait = wait.min(TombstoneKeeper::wait(limit));
            let Some(collection) = self.db.collection(&name) else { continue };
            let Some(id) = ReplicaStore::collection(&self.db, &name) else { continue };
            self.look_after(&collection, id, limit).await?;
        }
        Ok(wait.min(FAILURE_WAIT.max(Duration::from_secs(3_600))))
    }

    async fn look_after(
        &self,
        collection: &Collection,
        id: CollectionId,
        limit: Duration,
    ) -> Result<(), RetentionError> {
        let stored = self.db.checkpoint(id, RECORD)?;
        let bytes = stored.as_ref().map(|stored| &stored.body[..]).unwrap_or_default();
        let mut keeper = TombstoneKeeper::from_bytes(bytes);
        let now = collection.wall();
        let mut has_changed = keeper.note(now, collection.last_sequence(), limit);
        let delivered = delivery::delivered_until(&self.db, id)?;
        if let Some(Span { after, until }) = keeper.due(now, delivered, limit) {
            self.remove(collection, after, until).await?;
            keeper.removed(until);
            has_changed = true;
        }
        if has_changed {
            self.store(id, stored.as_ref(), &keeper)?;
        }
        Ok(())
    }

    fn store(
        &self,
        id: CollectionId,
        stored: Option<&StoredCheckpoint>,
        keeper: &TombstoneKeeper,
    ) -> Result<(), ReplicaStoreError> {
        let before = stored.map(|stored| stored.revision.as_str());
        // Nobody else writes it.
        self.db.set_checkpoint(id, RECORD, before, keeper.to_bytes().into()).map(drop)
    }

    async fn remove(&self, collection: &Collection, after: u64, until: u64) -> Result<(), RetentionError> {
        let mut position = after;
        while position < until {
            let looked_at = collection.clone();
            let (found, last) = paced(move || looked_at.tombstones_since(position, until, LOOKED_AT)).await?;
            for some in found.chunks(REMOVED_AT_ONCE) {
                let (collection, some) = (collection.clone(), some.to_vec());
                let remove = move || {
                    collection.remove_tombstones(some.iter().map(|(id, sequence)| (&**id, *sequence)))
                };
                self.board.tombstones_removed(paced(remove).await?);
            }
            position = last.max(position + 1);
        }
        Ok(())
    }
}
