//! Who is connected to the passive side, as people and scripts are told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::support::display::{activity_name, tell_document};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::output::counted;
use crate::cli::support::paced::{State, Topic};
use crate::cli::support::security;
use crate::endpoint::MessagingError;
use crate::node::NodeEvent;
use crate::replicator::error::is_conflict;
use crate::replicator::{DocumentReplication, ReplicatorActivity, ReplicatorStatus, Unsynced};
use crate::secure::PeerId;

/// How long nothing moves with a peer before it is told to be in sync: between two messages nothing moves either.
const REST: Duration = Duration::from_secs(1);

/// Who is connected, for the display.
pub(crate) struct Peers {
    pub(crate) events: Events,
    secure: bool,
    /// Whether a script hears of each document.
    documents: bool,
    awaited: AtomicBool,
    state: Mutex<PeersState>,
}

#[derive(Default)]
struct PeersState {
    by_connection: HashMap<u64, Peer>,
    /// Documents of connections that have ended.
    documents: u64,
    /// Peers that were not let in.
    turned_away: u64,
}

struct Peer {
    name: String,
    /// Whether it has proven who it is, in a secure session.
    secure: bool,
    activity: ReplicatorActivity,
    documents: u64,
    /// Nothing moves since then, which was not told.
    at_rest: Option<Instant>,
    /// How many documents were told.
    told: Option<u64>,
    /// Whether it is told of. One of those that come too fast is not, before it has begun to sync.
    is_told: bool,
    /// What was told of it last.
    unsynced: Arc<Unsynced>,
}

impl Peer {
    /// Notes what it does now.
    fn moved(&mut self, status: &ReplicatorStatus) {
        let before = std::mem::replace(&mut self.activity, status.activity);
        let documents = std::mem::replace(&mut self.documents, status.progress.documents);
        match status.activity {
            ReplicatorActivity::Idle if before != status.activity || documents != self.documents => {
                self.at_rest = Some(Instant::now());
            }
            ReplicatorActivity::Idle => {}
            _ => self.at_rest = None,
        }
    }

    /// What is told once nothing has moved for a while, after the peer's name.
    fn rest_text(&mut self) -> Option<(String, String)> {
        self.at_rest.take_if(|since| since.elapsed() >= REST)?;
        if self.told == Some(self.documents) {
            return None;
        }
        self.told = Some(self.documents);
        let line = format!("{}: in sync, {} so far", self.name, counted(self.documents, "document"));
        Some((self.name.clone(), line))
    }
}

impl Peers {
    pub(crate) fn new(events: &Events, secure: bool, documents: bool) -> Peers {
        Peers {
            events: events.clone(),
            secure,
            documents,
            awaited: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Tells of what the node tells.
    pub(crate) fn observe(&self, event: &NodeEvent) {
        let events = &self.events;
        match event {
            NodeEvent::Listening { address, .. } => {
                self.awaited.store(true, Ordering::Release);
                events.emit(&Event::Listening { address: address.clone() });
                events.say(&format!("listening on {address}"));
            }
            NodeEvent::ListenFailed { address, error, .. } => {
                let error = error.to_string();
                events.say(&format!("{error}; will try again"));
                events.emit(&Event::ListenFailed { address: address.clone(), error: &error });
            }
            NodeEvent::Authenticated { label, peer, name, via, .. } => {
                security::announce(events, label, peer, name.as_deref(), *via);
            }
            NodeEvent::Refused { label, peer, error, .. } => self.turned_away(label, *peer, error),
            NodeEvent::Connected { connection, peer, uid, .. } => self.add(*connection, peer, uid.as_deref()),
            NodeEvent::Declined { connection, error, .. } => self.refuse(*connection, &error.to_string()),
            NodeEvent::Status { connection, status, .. } => self.changed(*connection, status),
            NodeEvent::Document { peer, document, .. } => self.document(peer, document),
            NodeEvent::Conflict { peer, conflict, .. } => events.conflict(peer, conflict, self.documents),
            NodeEvent::Group(news) => security::tell_group_news(events, news),
            #[cfg(feature = "bluetooth")]
            NodeEvent::Radio(status) => events.radio(status),
        }
    }

    /// A newcomer that never became a peer.
    fn turned_away(&self, label: &str, peer: Option<PeerId>, error: &MessagingError) {
        self.lock().turned_away += 1;
        // Strangers are all alike: they can choose what they are called and what is wrong with them.
        let known = peer.map_or_else(String::new, |peer| peer.to_text());
        if !self.events.may_tell(Topic::Refused, &known) {
            return;
        }
        let who = peer.map_or_else(|| label.to_owned(), |peer| format!("{label}: {peer}"));
        self.events.say(&format!("{who}: refused: {error}"));
        self.events.emit(&Event::Refused {
            peer: label,
            id: peer.map(|peer| peer.to_text()),
            error: error.to_string(),
        });
    }

    fn add(&self, connection: u64, name: &str, uid: Option<&str>) {
        let (name, activity) = (name.to_owned(), ReplicatorActivity::Connecting);
        let is_told = self.events.may_tell(Topic::Connected, uid.unwrap_or_default());
        let peer = Peer {
            name: name.clone(),
            secure: self.secure && uid.is_some(),
            activity,
            is_told,
            documents: 0,
            at_rest: None,
            told: None,
            unsynced: Arc::default(),
        };
        self.lock().by_connection.insert(connection, peer);
        if is_told {
            self.events.say(&format!("{name}: connected"));
        }
    }

    fn refuse(&self, connection: u64, error: &str) {
        let Some(peer) = self.lock().by_connection.remove(&connection).filter(|peer| peer.is_told) else {
            return;
        };
        self.events.say(&format!("{}: refused: {error}", peer.name));
        self.events.emit(&Event::Refused { peer: &peer.name, id: None, error: error.to_owned() });
    }

    /// Whether it was told that one of the addresses is open.
    pub(crate) fn have_been_awaited(&self) -> bool {
        self.awaited.load(Ordering::Acquire)
    }

    /// How many were not let in, at the end.
    pub(crate) fn tell_turned_away(&self) {
        let turned_away = self.lock().turned_away;
        if turned_away > 0 {
            self.events.say(&format!("{} turned away", counted(turned_away, "peer")));
        }
    }

    /// A document was replicated, or failed to be.
    fn document(&self, name: &str, document: &DocumentReplication) {
        // A conflict is told as what it is.
        if document.error.as_ref().is_some_and(is_conflict) {
            return;
        }
        tell_document(&self.events, Some(name), document, self.documents);
    }

    fn changed(&self, key: u64, status: &ReplicatorStatus) {
        let mut state = self.lock();
        let Some(peer) = state.by_connection.get_mut(&key) else { return };
        peer.moved(status);
        let name = peer.name.clone();
        let before = std::mem::replace(&mut peer.unsynced, Arc::clone(&status.unsynced));
        // Without a secure session a connection rests before anybody has said a word.
        let secure = peer.secure;
        peer.is_told |=
            secure && status.activity == ReplicatorActivity::Idle || status.progress.completed > 0;
        let is_told = peer.is_told;
        if status.activity == ReplicatorActivity::Stopped {
            state.by_connection.remove(&key);
            state.documents += status.progress.documents;
        }
        drop(state);
        if is_told {
            self.tell_left_out(&name, &before, status);
            self.tell_status(&name, secure, status);
        }
    }

    /// Tells what is not synced with a peer, if that is news.
    fn tell_left_out(&self, name: &str, before: &Unsynced, status: &ReplicatorStatus) {
        let now = &status.unsynced;
        let is_news = !now.is_empty() && before != &**now;
        if is_news || (status.activity == ReplicatorActivity::Idle && now.is_empty()) {
            self.events.left_out(name, now);
        }
        self.events.lacking_collections(name, before, now);
    }

    /// Tells how far the connection with a peer is, or how it ended.
    fn tell_status(&self, name: &str, secure: bool, status: &ReplicatorStatus) {
        let documents = status.progress.documents;
        let event = Event::Status {
            peer: name,
            secure,
            activity: activity_name(status.activity),
            completed: status.progress.completed,
            total: status.progress.total,
            documents,
            error: status.error.as_ref().map(ToString::to_string),
        };
        if status.activity != ReplicatorActivity::Stopped {
            return self.events.tell_state(State::Connection, name, &event);
        }
        if self.events.tell_end(name, &event) {
            let documents = counted(documents, "document");
            self.events.say(&match &status.error {
                None => format!("{name}: done, {documents}"),
                Some(error) => format!("{name}: ended after {documents}: {error}"),
            });
        }
    }

    /// Tells of peers with which nothing moves any more, unless that was told.
    pub(crate) fn tell_at_rest(&self) {
        let resting: Vec<(String, String)> =
            self.lock().by_connection.values_mut().filter_map(Peer::rest_text).collect();
        for (name, line) in resting {
            if self.events.may_tell(Topic::Rest, &name) {
                self.events.say(&line);
            }
        }
    }

    pub(crate) fn documents(&self) -> u64 {
        self.lock().documents
    }

    /// Nothing under this lock can be left half done.
    fn lock(&self) -> std::sync::MutexGuard<'_, PeersState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
