//! Up to where a collection was published, kept with the database: after an outage of the broker or of the power it goes on there.

use bytes::Bytes;
use tracing::warn;

use super::window::Window;
use crate::database::{Collection, Database};
use crate::gateway::config::MqttConfig;
use crate::replica::OWN_PREFIX;
use crate::replica::store::ReplicaStore;

/// A collection with its position.
pub(super) struct Feed {
    pub(super) name: String,
    pub(super) collection: Collection,
    /// Everything up to here was confirmed.
    pub(super) position: u64,
    /// As it is kept.
    kept: u64,
    /// Everything up to here was read.
    pub(super) read: u64,
}

impl Feed {
    /// Reads the position that `section` of the configuration has in this collection. It begins anew in a database that was put
    /// back to an older copy: what has come since then has lower numbers.
    fn open(db: &Database, section: &str, name: &str) -> Option<Feed> {
        let collection = db.collection(name)?;
        let id = ReplicaStore::collection(db, name)?;
        let stored = db.checkpoint(id, &record_name(section)).ok().flatten();
        let sequence = stored.and_then(|stored| Some(u64::from_be_bytes((&*stored.body).try_into().ok()?)));
        let position = sequence.filter(|position| *position <= collection.last_sequence()).unwrap_or(0);
        Some(Feed { name: name.to_owned(), collection, position, kept: position, read: position })
    }

    /// Collections that are published and not among the `known` ones.
    pub(super) fn open_others(
        db: &Database,
        config: &MqttConfig,
        section: &str,
        known: &[String],
    ) -> Vec<Feed> {
        let wanted = |name: &String| config.collections.is_empty() || config.collections.contains(name);
        let names = db.collections().into_iter().filter(wanted).filter(|name| !known.contains(name));
        names.filter_map(|name| Feed::open(db, section, &name)).collect()
    }

    /// Keeps the position. If it cannot be, what was published since it was kept is published again one day.
    pub(super) fn keep(&mut self, db: &Database, section: &str) {
        if self.kept == self.position {
            return;
        }
        let Some(id) = ReplicaStore::collection(db, &self.name) else { return };
        let (name, body) = (record_name(section), Bytes::copy_from_slice(&self.position.to_be_bytes()));
        let stored = || {
            let revision = db.checkpoint(id, &name)?.map(|stored| stored.revision);
            db.set_checkpoint(id, &name, revision.as_deref(), body)
        };
        match stored() {
            Ok(Some(_)) => self.kept = self.position,
            Ok(None) => {}
            Err(error) => warn!(%error, collection = self.name, "cannot note what was published"),
        }
    }

    /// There is nothing to publish up to this sequence; the position waits for what is before it.
    pub(super) fn pass_over(&mut self, window: &mut Window, nth: usize, sequence: u64) {
        if let Some((_, position)) = window.pass_over(nth, sequence).first() {
            self.position = *position;
        }
    }

    /// Changes that were not confirmed yet, at most.
    pub(super) fn pending(&self) -> u64 {
        self.collection.last_sequence().saturating_sub(self.position)
    }
}

fn record_name(section: &str) -> String {
    format!("{OWN_PREFIX}mqtt/{section}")
}
