//! What is known of one database: a board that is kept by what its node and its syncs tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counted::Counted;
use super::status::{
    CollectionStatus, DatabaseStatus, ListenerStatus, NeighbourStatus, RetentionStatus, UpstreamStatus,
    activity_word, now_s,
};
use crate::database::Database;
use crate::node::{NodeEvent, SyncEvent};
use crate::replicator::ReplicatorActivity;

/// Neighbours that are kept in mind; beyond them the one that was heard longest ago is forgotten.
const NEIGHBOURS_MAX: usize = 1_000;

/// What is known of one database. Clones are the same board.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    db: Option<Database>,
    database: DatabaseStatus,
    listeners: BTreeMap<String, ListenerStatus>,
    upstreams: BTreeMap<String, (UpstreamStatus, Counted)>,
    /// By the proven ID, else by the name.
    neighbours: BTreeMap<String, (NeighbourStatus, Counted)>,
    connections: BTreeMap<u64, String>,
    /// With the bytes of each collection.
    retention: BTreeMap<String, (RetentionStatus, BTreeMap<String, u64>)>,
    /// Whom each sync with neighbours visits now.
    visits: BTreeMap<(String, Arc<str>), String>,
}

impl Board {
    /// Of a database that is not open yet.
    pub(crate) fn new(name: &str, path: &str) -> Board {
        let board = Board::default();
        board.lock().database =
            DatabaseStatus { name: name.into(), path: path.into(), ..DatabaseStatus::default() };
        board
    }

    /// Nothing under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database is open.
    pub(crate) fn opened(&self, db: &Database) {
        let mut state = self.lock();
        (state.database.open, state.db) = (true, Some(db.clone()));
    }

    /// It works, so what failed before is over.
    pub(crate) fn works(&self) {
        self.lock().database.error = None;
    }

    /// The database is closed; `error`: by a failure.
    pub(crate) fn closed(&self, error: Option<String>) {
        let mut state = self.lock();
        (state.database.open, state.db) = (false, None);
        state.database.failures += u64::from(error.is_some());
        state.database.error = error;
        state.connections.clear();
        state.visits.clear();
        state.neighbours.values_mut().for_each(|(neighbour, _)| neighbour.connected = false);
    }

    /// Another path holds from now on.
    pub(crate) fn moved(&self, path: &str) {
        path.clone_into(&mut self.lock().database.path);
    }

    /// A listener was configured, or does not listen yet.
    pub(crate) fn listener(&self, name: &str, address: &str) {
        let status =
            ListenerStatus { name: name.into(), address: address.into(), ..ListenerStatus::default() };
        self.lock().listeners.insert(name.into(), status);
    }

    /// It is no more.
    pub(crate) fn forget_listener(&self, name: &str) {
        self.lock().listeners.remove(name);
    }

    /// How an attempt to listen has ended, or listening itself.
    pub(crate) fn listens(&self, name: &str, result: Result<String, String>) {
        let mut state = self.lock();
        let Some(listener) = state.listeners.get_mut(name) else { return };
        listener.listening = result.is_ok();
        match result {
            Ok(address) => (listener.address, listener.error) = (address, None),
            Err(error) => {
                listener.failures += 1;
                listener.error = Some(error);
            }
        }
    }

    /// An upstream was configured.
    pub(crate) fn upstream(&self, name: &str, address: &str) {
        let status = UpstreamStatus {
            name: name.into(),
            address: address.into(),
            activity: activity_word(ReplicatorActivity::Stopped).into(),
            ..UpstreamStatus::default()
        };
        self.lock().upstreams.insert(name.into(), (status, Counted::default()));
    }

    /// It is no more.
    pub(crate) fn forget_upstream(&self, name: &str) {
        self.lock().upstreams.remove(name);
    }

    /// What it does between two syncs, and when the next begins.
    pub(crate) fn upstream_waits(&self, name: &str, activity: &str, next_s: Option<u64>) {
        if let Some((upstream, _)) = self.lock().upstreams.get_mut(name) {
            activity.clone_into(&mut upstream.activity);
            upstream.next_s = next_s;
        }
    }

    /// It has failed, and is tried again.
    pub(crate) fn upstream_failed(&self, name: &str, error: &str) {
        if let Some((upstream, _)) = self.lock().upstreams.get_mut(name) {
            upstream.error = Some(error.to_owned());
            upstream.failures += 1;
        }
    }

    /// What a sync tells.
    pub(crate) fn observe_sync(&self, name: &str, event: &SyncEvent) {
        let mut state = self.lock();
        let state = &mut *state;
        // Several neighbours are visited at the same time.
        let visit = |address: &Arc<str>| (name.to_owned(), Arc::clone(address));
        match event {
            SyncEvent::Status { address, status } => {
                if let Some((upstream, counted)) = state.upstreams.get_mut(name) {
                    upstream.take(status, counted);
                }
                let visited = state.visits.get(&visit(address)).and_then(|key| state.neighbours.get_mut(key));
                if let Some((neighbour, counted)) = visited {
                    neighbour.take(status, counted);
                }
            }
            SyncEvent::Visiting { address, peer, .. } => {
                state.visits.insert(visit(address), peer.clone());
                state.meet(peer.clone(), peer, None);
            }
            SyncEvent::Authenticated { address, peer, name, .. } => {
                // The ID outlives the address by which it was visited.
                if let Some(visited) = state.visits.get_mut(&visit(address)) {
                    let id = peer.to_text();
                    let old = std::mem::replace(visited, id.clone());
                    if old != id {
                        state.neighbours.remove(&old);
                    }
                    let name = name.as_deref().unwrap_or(&old).to_owned();
                    state.meet(id.clone(), &name, Some(id));
                }
            }
            SyncEvent::Visited { address, status, .. } => {
                if let Some((neighbour, counted)) =
                    state.visits.remove(&visit(address)).and_then(|key| state.neighbours.get_mut(&key))
                {
                    neighbour.take(status, counted);
                }
                if let Some((upstream, counted)) = state.upstreams.get_mut(name) {
                    upstream.take(status, counted);
                }
            }
            SyncEvent::Offline { error } => {
                if let Some((upstream, _)) = state.upstreams.get_mut(name) {
                    activity_word(ReplicatorActivity::Offline).clone_into(&mut upstream.activity);
                    upstream.error = Some(error.to_string());
                    upstream.failures += 1;
                }
            }
            _ => {}
        }
    }

    /// What a node tells.
    pub(crate) fn observe_node(&self, event: &NodeEvent) {
        let mut state = self.lock();
        match event {
            NodeEvent::Connected { connection, peer, uid } => {
                let key = uid.clone().unwrap_or_else(|| peer.to_string());
                state.connections.insert(*connection, key.clone());
                state.meet(key, peer, uid.clone());
            }
            NodeEvent::Status { connection, status, .. } => {
                let Some(key) = state.connections.get(connection).cloned() else { return };
                if status.activity == ReplicatorActivity::Stopped {
                    state.connections.remove(connection);
                }
                let others = state.connections.values().any(|other| *other == key);
                if let Some((neighbour, counted)) = state.neighbours.get_mut(&key) {
                    neighbour.take(status, counted);
                    neighbour.connected |= others;
                }
            }
            NodeEvent::Declined { connection, error, .. } => {
                let Some(key) = state.connections.remove(connection) else { return };
                if let Some((neighbour, _)) = state.neighbours.get_mut(&key) {
                    neighbour.failures += 1;
                    neighbour.error = Some(error.to_string());
                    neighbour.connected = false;
                }
            }
            _ => {}
        }
    }

    /// Rules are looked after.
    pub(crate) fn retention(&self, name: &str) {
        let status = RetentionStatus { name: name.into(), ..RetentionStatus::default() };
        self.lock().retention.insert(name.into(), (status, BTreeMap::new()));
    }

    /// They are no more.
    pub(crate) fn forget_retention(&self, name: &str) {
        self.lock().retention.remove(name);
    }

    /// A collection has so many bytes now.
    pub(crate) fn retained(&self, name: &str, collection: &str, bytes: u64) {
        if let Some((status, collections)) = self.lock().retention.get_mut(name) {
            collections.insert(collection.to_owned(), bytes);
            status.bytes = collections.values().sum();
        }
    }

    /// So many documents were removed.
    pub(crate) fn removed(&self, name: &str, documents: u64) {
        if let Some((status, _)) = self.lock().retention.get_mut(name) {
            status.removed += documents;
        }
    }

    /// Why they are not met, or cannot be looked after, if so.
    pub(crate) fn retention_told(&self, name: &str, held: Option<String>, error: Option<String>) {
        if let Some((status, _)) = self.lock().retention.get_mut(name) {
            (status.held, status.error) = (held, error);
        }
    }

    /// The files have so many bytes now, and may have so many.
    pub(crate) fn files(&self, name: &str, bytes: u64, allowed: u64) {
        if let Some((status, _)) = self.lock().retention.get_mut(name) {
            (status.files_bytes, status.files_allowed) = (Some(bytes), Some(allowed));
        }
    }

    /// The database was compacted.
    pub(crate) fn compacted(&self, name: &str) {
        if let Some((status, _)) = self.lock().retention.get_mut(name) {
            status.compactions += 1;
        }
    }

    /// So many tombstones were removed.
    pub(crate) fn tombstones_removed(&self, tombstones: u64) {
        self.lock().database.tombstones_removed += tombstones;
    }

    /// What is known now.
    pub(crate) fn status(&self) -> DatabaseStatus {
        let state = self.lock();
        let mut status = state.database.clone();
        status.listeners = state.listeners.values().cloned().collect();
        status.upstreams = state.upstreams.values().map(|(upstream, _)| upstream.clone()).collect();
        status.neighbours = state.neighbours.values().map(|(neighbour, _)| neighbour.clone()).collect();
        status.retention = state.retention.values().map(|(retention, _)| retention.clone()).collect();
        let db = state.db.clone();
        // The database is asked without the lock: it may have to read.
        drop(state);
        if let Some(db) = db {
            let room = db.room();
            (status.free_bytes, status.full) = (room.free_bytes, room.is_short);
            let counts = db.counts();
            (status.commits, status.syncs, status.log_bytes) =
                (counts.commits, counts.syncs, counts.log_bytes);
            status.collections = db
                .collections()
                .into_iter()
                .filter_map(|name| {
                    let documents = db.collection(&name)?.count();
                    Some(CollectionStatus { name, documents })
                })
                .collect();
        }
        status
    }
}

impl State {
    /// A peer is there now.
    fn meet(&mut self, key: String, name: &str, id: Option<String>) {
        if !self.neighbours.contains_key(&key) && self.neighbours.len() >= NEIGHBOURS_MAX {
            let gone = self.neighbours.iter().filter(|(_, (neighbour, _))| !neighbour.connected);
            // Whoever proves nothing can come under any number of names; those who do are not to be forgotten for it.
            let first = |neighbour: &NeighbourStatus| (neighbour.id.is_some(), neighbour.last_heard_s);
            let oldest = gone.min_by_key(|(_, (neighbour, _))| first(neighbour)).map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) => drop(self.neighbours.remove(&oldest)),
                None => return,
            }
        }
        let (neighbour, counted) = self.neighbours.entry(key).or_default();
        name.clone_into(&mut neighbour.name);
        neighbour.id = id.or(neighbour.id.take());
        (neighbour.connected, neighbour.last_heard_s) = (true, now_s());
        *counted = Counted::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_without_end_do_not_push_out_those_who_prove_who_they_are() {
        let mut state = State::default();
        state.meet("id".into(), "pump", Some("id".into()));
        for n in 0..2 * NEIGHBOURS_MAX {
            state.meet(format!("tcp:10.0.0.1:{n}"), "stranger", None);
            state.neighbours.values_mut().for_each(|(neighbour, _)| neighbour.connected = false);
        }
        assert_eq!(state.neighbours.len(), NEIGHBOURS_MAX);
        assert!(state.neighbours.contains_key("id"));
    }
}
