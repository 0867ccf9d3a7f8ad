//! What is known of one database: a board that is kept by what its node and its syncs tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[cfg(feature = "bluetooth")]
use tokio::sync::watch;

use super::counted::Counted;
use super::happened::Happened;
use super::history::{DatabaseHistory, History};
use super::neighbours::Neighbours;
use super::status::{
    AdapterStatus, CollectionStatus, DatabaseStatus, ListenerStatus, MqttStatus, RefusedStatus,
    RetentionStatus, UpstreamStatus, activity_word, now_s,
};
use crate::database::Database;
use crate::node::{NodeEvent, SyncEvent};
#[cfg(feature = "bluetooth")]
use crate::node::{RadioStatus, advertised::Adverts};
use crate::replicator::{MessageEndpointListener, ReplicatorActivity, ReplicatorStatus, Traffic};

/// What is known of one database. Clones are the same board.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    db: Option<Database>,
    database: DatabaseStatus,
    listeners: BTreeMap<String, ListenerStatus>,
    upstreams: BTreeMap<String, (UpstreamStatus, Counted)>,
    neighbours: Neighbours,
    /// With the bytes of each collection.
    retention: BTreeMap<String, (RetentionStatus, BTreeMap<String, u64>)>,
    mqtt: BTreeMap<String, MqttStatus>,
    adapters: Vec<AdapterStatus>,
    #[cfg(feature = "bluetooth")]
    radio: Option<watch::Receiver<Vec<RadioStatus>>>,
    #[cfg(feature = "bluetooth")]
    adverts: Adverts,
    happened: Happened,
    history: History,
    /// Documents that went over since the history was noted.
    exchanged: u64,
    /// Of the node that runs: what it refuses, and what it has carried.
    passive: Weak<MessageEndpointListener>,
    traffic: Traffic,
    /// Who was not let in, since the start.
    strangers: u64,
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

    /// Another node runs from now on, and counts from 0.
    pub(crate) fn node(&self, passive: Weak<MessageEndpointListener>, traffic: Traffic) {
        let mut state = self.lock();
        (state.passive, state.traffic) = (passive, traffic);
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
        state.neighbours.leave();
    }

    /// Another path holds from now on.
    pub(crate) fn moved(&self, path: &str) {
        path.clone_into(&mut self.lock().database.path);
    }

    /// A listener was configured, or does not listen yet.
    pub(crate) fn listener(&self, name: &str, address: &str) {
        self.lock().listeners.insert(name.into(), ListenerStatus::new(name, address));
    }

    /// It does not listen for a while, as it should.
    pub(crate) fn not_listening(&self, name: &str) {
        if let Some(listener) = self.lock().listeners.get_mut(name) {
            (listener.listening, listener.error) = (false, None);
        }
    }

    /// It is no more.
    pub(crate) fn forget_listener(&self, name: &str) {
        self.lock().listeners.remove(name);
    }

    /// How an attempt to listen has ended, or listening itself.
    pub(crate) fn listens(&self, name: &str, result: Result<String, String>) {
        let mut state = self.lock();
        let Some(listener) = state.listeners.get_mut(name) else { return };
        listener.take(result);
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
                state.take_upstream(name, status);
                state.neighbours.visit_status(&visit(address), status);
            }
            SyncEvent::Visiting { address, peer, advertised, .. } => {
                state.neighbours.visit(visit(address), peer, advertised);
            }
            SyncEvent::Authenticated { address, peer, name, .. } => {
                state.neighbours.prove(&visit(address), peer.to_text(), name.as_deref());
            }
            SyncEvent::Visited { address, status, .. } => {
                state.neighbours.visit_ended(&visit(address), status);
                state.take_upstream(name, status);
            }
            SyncEvent::Conflict { address, conflict } => {
                let peer = state.neighbours.visited_name(&visit(address)).unwrap_or_else(|| name.to_owned());
                state.happened.conflict(&peer, conflict);
            }
            SyncEvent::Document { address, document } => {
                let peer = state.neighbours.visited_name(&visit(address)).unwrap_or_else(|| name.to_owned());
                state.happened.document(&peer, document);
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
        let state = &mut *state;
        let neighbours = &mut state.neighbours;
        match event {
            NodeEvent::Connected { connection, peer, uid } => {
                neighbours.connected(*connection, peer, uid.clone());
            }
            NodeEvent::Status { connection, status, .. } => {
                let grown = neighbours.status(*connection, status);
                state.exchanged += grown;
            }
            NodeEvent::Conflict { peer, conflict } => state.happened.conflict(peer, conflict),
            NodeEvent::Document { peer, document } => state.happened.document(peer, document),
            NodeEvent::Refused { .. } => state.strangers += 1,
            NodeEvent::Declined { connection, error, .. } => {
                neighbours.declined(*connection, &error.to_string());
            }
            _ => {}
        }
    }

    /// A broker is kept in touch with.
    #[cfg(feature = "mqtt")]
    pub(crate) fn mqtt(&self, name: &str, broker: &str) {
        let status = MqttStatus { name: name.into(), broker: broker.into(), ..MqttStatus::default() };
        self.lock().mqtt.insert(name.into(), status);
    }

    /// It is no more.
    #[cfg(feature = "mqtt")]
    pub(crate) fn forget_mqtt(&self, name: &str) {
        self.lock().mqtt.remove(name);
    }

    /// Changes what is known of a broker.
    #[cfg(feature = "mqtt")]
    pub(crate) fn mqtt_told(&self, name: &str, change: impl FnOnce(&mut MqttStatus)) {
        if let Some(status) = self.lock().mqtt.get_mut(name) {
            change(status);
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

    /// The adapters of the configuration.
    #[cfg(feature = "bluetooth")]
    pub(crate) fn adapters(&self, adapters: Vec<AdapterStatus>) {
        self.lock().adapters = adapters;
    }

    /// Where the node tells its radio connections.
    #[cfg(feature = "bluetooth")]
    pub(crate) fn radio(&self, radio: Option<watch::Receiver<Vec<RadioStatus>>>) {
        self.lock().radio = radio;
    }

    /// Where the node tells what it advertises.
    #[cfg(feature = "bluetooth")]
    pub(crate) fn adverts(&self, adverts: Adverts) {
        self.lock().adverts = adverts;
    }

    /// Notes how it stands in the history.
    pub(crate) fn note(&self) {
        let db = self.lock().db.clone();
        // The database is asked without the lock: it may have to read.
        let documents = db.map(|db| {
            let of = |name: &String| db.collection(name).map_or(0, |collection| collection.count());
            db.collections().iter().map(of).sum()
        });
        let mut state = self.lock();
        let exchanged = std::mem::take(&mut state.exchanged);
        state.history.note(now_s(), exchanged, documents);
    }

    /// How it did over the last hour and day.
    pub(crate) fn history(&self) -> DatabaseHistory {
        self.note();
        let state = self.lock();
        state.history.told(&state.database.name)
    }

    /// What is known now.
    pub(crate) fn status(&self) -> DatabaseStatus {
        let state = self.lock();
        let mut status = state.database.clone();
        status.listeners = state.listeners.values().cloned().collect();
        status.upstreams = state.upstreams.values().map(|(upstream, _)| upstream.clone()).collect();
        status.neighbours = state.neighbours.all();
        status.adapters.clone_from(&state.adapters);
        #[cfg(feature = "bluetooth")]
        if let Some(radio) = &state.radio {
            state.neighbours.hear(&radio.borrow(), &mut status.neighbours);
            super::radio::share_links(&radio.borrow(), &mut status.adapters);
        }
        #[cfg(feature = "bluetooth")]
        super::radio::share_adverts(&state.adverts, &mut status.adapters);
        status.conflicts = state.happened.conflicts.iter().cloned().collect();
        status.left_out = state.happened.left_out.iter().cloned().collect();
        (status.conflicts_total, status.left_out_total) =
            (state.happened.conflicts_total, state.happened.left_out_total);
        (status.sent_bytes, status.received_bytes) = state.traffic.read();
        let refused = state.passive.upgrade().map(|passive| passive.refusals()).unwrap_or_default();
        status.refused = RefusedStatus { strangers: state.strangers, peers: refused };
        status.mqtt = state.mqtt.values().cloned().collect();
        status.retention = state.retention.values().map(|(retention, _)| retention.clone()).collect();
        let db = state.db.clone();
        // The database is asked without the lock: it may have to read.
        drop(state);
        if let Some(db) = db {
            let room = db.room();
            (status.free_bytes, status.full) = (room.free_bytes, room.is_short);
            let counts = db.counts();
            status.files_bytes = db.disk_bytes().ok();
            (status.commits, status.syncs, status.log_bytes) =
                (counts.commits, counts.syncs, counts.log_bytes);
            let of = |name| CollectionStatus::of(&db, name);
            status.collections = db.collections().into_iter().map(of).collect();
        }
        status
    }
}

impl State {
    fn take_upstream(&mut self, name: &str, status: &ReplicatorStatus) {
        if let Some((upstream, counted)) = self.upstreams.get_mut(name) {
            let before = upstream.documents;
            upstream.take(status, counted);
            self.exchanged += upstream.documents.saturating_sub(before);
        }
    }
}
