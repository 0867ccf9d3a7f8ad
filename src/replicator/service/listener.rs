//! The passive side: what a peer that has connected to us may do, and one task for each such connection.
//!
//! The connections know nothing of each other: garbage, silence or a failing transport ends one and leaves the others.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tracing::{Instrument, info_span};

use super::connections::{Connections, Entry};
use super::listener_config::MessageEndpointListenerConfiguration;
use super::listener_event::{ListenerError, MessageEndpointListenerChange};
use super::quota::Quotas;
use super::refusals::{Counters, Refusals};
use super::replicator::ConflictReport;
use super::status::{
    ListenerToken, Listeners, ReplicatorActivity, ReplicatorProgress, ReplicatorStatus, lock,
};
use crate::blip::ErrorReply;
use crate::endpoint::framing::FramingRole;
use crate::endpoint::{AccessRule, MessageEndpointConnection};
use crate::replicator::config::PassiveConfig;
use crate::replicator::driver::error::ReplicatorError;
use crate::replicator::driver::{self, Allowance, DriverEvent, Setup, StopSignal};
use crate::replicator::error::is_conflict;
use crate::replicator::event::DocumentReplication;
use crate::replicator::event::SessionEvent;
use crate::replicator::messages::refuse;
use crate::replicator::session::Session;
use crate::task;

/// The passive side of replication. Dropping it equals [`close_all`](Self::close_all).
/// ```
/// use std::sync::Arc;
///
/// use gattway::{
///     Database, DatabaseConfig, MessageEndpointListener, MessageEndpointListenerConfiguration, ProtocolType,
/// };
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use gattway::endpoint::{MessageEndpointConnection, MessagingError, ReplicatorConnection};
/// # use gattway::Message;
/// # struct Cable;
/// # #[async_trait::async_trait]
/// # impl MessageEndpointConnection for Cable {
/// #     async fn open(&self, _: ReplicatorConnection) -> Result<(), MessagingError> {
/// #         Err(MessagingError::recoverable("not plugged in"))
/// #     }
/// #     async fn send(&self, _: Message) -> Result<(), MessagingError> { Ok(()) }
/// #     async fn close(&self, _: Option<MessagingError>) -> Result<(), MessagingError> { Ok(()) }
/// # }
/// # let incoming: Arc<dyn MessageEndpointConnection> = Arc::new(Cable);
/// # let directory = tempfile::tempdir()?;
/// let db = Database::open(directory.path().join("gateway.db"), DatabaseConfig::default())?;
/// let config = MessageEndpointListenerConfiguration::new(Arc::new(db), ProtocolType::ByteStream);
/// let listener = MessageEndpointListener::new(config);
/// listener.add_change_listener(|change| println!("{:?}", change.status.activity));
/// // A peer has connected by a transport of the program's own.
/// listener.accept(incoming)?;
/// listener.close_all();
/// listener.wait_until_closed().await;
/// # Ok(()) }
/// ```
pub struct MessageEndpointListener {
    inner: Arc<Inner>,
}

/// Something of one connection.
type Of<T> = (Arc<dyn MessageEndpointConnection>, T);

struct Inner {
    config: MessageEndpointListenerConfiguration,
    connections: Mutex<Connections>,
    changes: Listeners<MessageEndpointListenerChange>,
    documents: Listeners<Of<DocumentReplication>>,
    conflicts: Listeners<Of<ConflictReport>>,
    /// How many connections there are, to wait on.
    open: watch::Sender<usize>,
    refused: Counters,
    quotas: Option<Arc<Quotas>>,
}

impl MessageEndpointListener {
    /// A listener without connections.
    pub fn new(config: MessageEndpointListenerConfiguration) -> MessageEndpointListener {
        let own = || {
            let names = config.collections.iter().map(String::as_str);
            config.peer_quota.map(|quota| Quotas::new(quota, &config.store, names))
        };
        let quotas = config.quotas.clone().or_else(own);
        let inner = Inner {
            config,
            connections: Mutex::default(),
            changes: Listeners::new(),
            documents: Listeners::new(),
            conflicts: Listeners::new(),
            open: watch::Sender::new(0),
            refused: Counters::default(),
            quotas,
        };
        MessageEndpointListener { inner: Arc::new(inner) }
    }

    /// Takes a connection that a peer has made: opens it and answers the peer until either side ends it. A peer that the
    /// transport knows already ([`MessageEndpointConnection::peer_uid`]) keeps the newest four of its own.
    ///
    /// # Errors
    /// There are as many as allowed, or this object was accepted before; it was not opened.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn accept(&self, connection: Arc<dyn MessageEndpointConnection>) -> Result<(), ListenerError> {
        self.accept_limited(connection, None)
    }

    /// As [`accept`](Self::accept), for a peer that may do only what `access` says, within the configuration.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    ///
    /// # Panics
    /// As [`accept`](Self::accept).
    #[doc(hidden)]
    pub fn accept_limited(
        &self,
        connection: Arc<dyn MessageEndpointConnection>,
        access: Option<AccessRule>,
    ) -> Result<(), ListenerError> {
        let (id, stop) = {
            let mut connections = lock(&self.inner.connections);
            if connections.open.values().any(|entry| is_same(&entry.connection, &connection)) {
                return Err(ListenerError::AlreadyAccepted);
            }
            let peer = connection.peer_uid();
            if let Err(error) = connections.make_room(peer.as_deref(), self.inner.config.connections_max) {
                self.inner.refused.refused_connection();
                return Err(error);
            }
            connections.last += 1;
            let id = connections.last;
            let wanted = watch::Sender::new(0);
            let stop = StopSignal::new(wanted.subscribe(), 0);
            let status = ReplicatorStatus::new(ReplicatorActivity::Connecting);
            connections.open.insert(id, Entry { connection: Arc::clone(&connection), status, wanted, peer });
            self.inner.open.send_replace(connections.open.len());
            (id, stop)
        };
        let span = info_span!("listener", connection = id, correlation = tracing::field::Empty);
        task::spawn(serve(Arc::clone(&self.inner), id, connection, access, stop).instrument(span));
        Ok(())
    }

    /// Ends one connection in order; does nothing if it has ended. Returns at once.
    pub fn close(&self, connection: &Arc<dyn MessageEndpointConnection>) {
        for entry in lock(&self.inner.connections).open.values() {
            if is_same(&entry.connection, connection) {
                entry.end();
            }
        }
    }

    /// Ends all connections in order. Returns at once; see [`wait_until_closed`](Self::wait_until_closed).
    pub fn close_all(&self) {
        self.inner.close_all();
    }

    /// Waits until no connection is open.
    pub async fn wait_until_closed(&self) {
        // The sender lives as long as `self`.
        let _ = self.inner.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// The open connections, oldest first.
    pub fn connections(&self) -> Vec<Arc<dyn MessageEndpointConnection>> {
        lock(&self.inner.connections).open.values().map(|entry| Arc::clone(&entry.connection)).collect()
    }

    /// The status of an open connection.
    pub fn status(&self, connection: &Arc<dyn MessageEndpointConnection>) -> Option<ReplicatorStatus> {
        let connections = lock(&self.inner.connections);
        connections
            .open
            .values()
            .find(|entry| is_same(&entry.connection, connection))
            .map(|entry| entry.status.clone())
    }

    /// Calls back with each change of any connection's status, from that connection's task; the callback must not
    /// block.
    pub fn add_change_listener(
        &self,
        callback: impl Fn(&MessageEndpointListenerChange) + Send + Sync + 'static,
    ) -> ListenerToken {
        self.inner.changes.add(callback)
    }

    /// Calls back with each document that a peer's connection failed to replicate, and with all of them if
    /// [`report_documents`](MessageEndpointListenerConfiguration::report_documents) says so; from that connection's task, so
    /// the callback must not block.
    pub fn add_document_listener(
        &self,
        callback: impl Fn(&Arc<dyn MessageEndpointConnection>, &DocumentReplication) + Send + Sync + 'static,
    ) -> ListenerToken {
        self.inner.documents.add(move |(connection, document)| callback(connection, document))
    }

    /// Calls back with each conflict: once when it is met, which leaves it open for the peer, and again when the peer has
    /// resolved it while connected; from that connection's task, so the callback must not block. A conflict that the peer
    /// resolves before it offers its own revision is not seen here.
    pub fn add_conflict_listener(
        &self,
        callback: impl Fn(&Arc<dyn MessageEndpointConnection>, &ConflictReport) + Send + Sync + 'static,
    ) -> ListenerToken {
        self.inner.conflicts.add(move |(connection, conflict)| callback(connection, conflict))
    }

    /// What was refused so far.
    pub fn refusals(&self) -> Refusals {
        self.inner.refused.read()
    }

    /// What it is made of.
    pub fn configuration(&self) -> &MessageEndpointListenerConfiguration {
        &self.inner.config
    }
}

impl Drop for MessageEndpointListener {
    fn drop(&mut self) {
        self.close_all();
    }
}

impl fmt::Debug for MessageEndpointListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = lock(&self.inner.connections).open.len();
        f.debug_struct("MessageEndpointListener")
            .field("config", &self.inner.config)
            .field("open", &open)
            .finish()
    }
}

/// Whether two handles are of the same object. Metadata is left out: one object may have several tables.
fn is_same(a: &Arc<dyn MessageEndpointConnection>, b: &Arc<dyn MessageEndpointConnection>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

/// Takes the connection off the list when its task ends, however that comes.
struct Registration {
    inner: Arc<Inner>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut connections = lock(&self.inner.connections);
        connections.open.remove(&self.id);
        self.inner.open.send_replace(connections.open.len());
    }
}

/// The life of one connection.
async fn serve(
    inner: Arc<Inner>,
    id: u64,
    connection: Arc<dyn MessageEndpointConnection>,
    access: Option<AccessRule>,
    stop: StopSignal,
) {
    let registration = Registration { inner: Arc::clone(&inner), id };
    let config = &inner.config;
    let setup = Setup {
        connection: Arc::clone(&connection),
        session: Session::passive(PassiveConfig { access, ..config.session() }),
        store: Arc::clone(&config.store),
        role: FramingRole::Passive,
        protocol_type: config.protocol_type,
        limits: config.limits.clone(),
        stop,
        allowance: inner.quotas.clone().map(|quotas| quotas as Arc<dyn Allowance>),
        traffic: config.traffic.clone(),
    };
    let mut status = ReplicatorStatus::new(ReplicatorActivity::Connecting);
    inner.tell(id, &connection, &status);
    let result = driver::run(setup, &mut |event| {
        let changed = match event {
            DriverEvent::Opened => {
                std::mem::replace(&mut status.activity, ReplicatorActivity::Busy) != ReplicatorActivity::Busy
            }
            DriverEvent::Session(SessionEvent::Activity(activity)) => {
                let activity = ReplicatorActivity::of(activity);
                std::mem::replace(&mut status.activity, activity) != activity
            }
            DriverEvent::Session(SessionEvent::Progress(progress)) => {
                status.progress = ReplicatorProgress::of(progress);
                true
            }
            DriverEvent::Session(SessionEvent::Unsynced(unsynced)) => {
                status.unsynced = Arc::from(unsynced);
                true
            }
            DriverEvent::Session(SessionEvent::Conflict { collection, id, outcome }) => {
                let connection = Arc::clone(&connection);
                let conflict = ConflictReport { collection, id, outcome };
                inner.conflicts.notify(&(connection, conflict));
                false
            }
            DriverEvent::Session(SessionEvent::DocumentReplicated(document)) => {
                inner.tell_document(&connection, document);
                false
            }
            DriverEvent::Session(_) => false,
        };
        if changed {
            inner.tell(id, &connection, &status);
        }
    })
    .await;
    log_end(result.as_ref().err());
    if let Err(error) = &result {
        inner.refused.ended(error);
    }
    status.activity = ReplicatorActivity::Stopped;
    status.error = result.err();
    lock(&inner.connections).open.remove(&id);
    inner.changes.notify(&MessageEndpointListenerChange { connection, status });
    drop(registration);
}

fn log_end(error: Option<&ReplicatorError>) {
    match error {
        Some(error) if error.is_recoverable() => tracing::info!(%error, "connection ended"),
        Some(error) => tracing::warn!(%error, "connection ended"),
        None => tracing::debug!("connection ended in order"),
    }
}

impl Inner {
    fn close_all(&self) {
        lock(&self.connections).open.values().for_each(Entry::end);
    }

    fn tell_document(&self, connection: &Arc<dyn MessageEndpointConnection>, document: DocumentReplication) {
        // Refused for what it is: a conflict is the active side's to resolve, and a filter leaves out what it is meant to.
        let is_meant = |error: &ErrorReply| is_conflict(error) || *error == refuse::filtered();
        if document.error.as_ref().is_some_and(|error| !is_meant(error)) {
            self.refused.refused_document();
        }
        if !self.documents.is_empty() {
            self.documents.notify(&(Arc::clone(connection), document));
        }
    }

    fn tell(&self, id: u64, connection: &Arc<dyn MessageEndpointConnection>, status: &ReplicatorStatus) {
        if let Some(entry) = lock(&self.connections).open.get_mut(&id) {
            entry.status.clone_from(status);
        }
        if !self.changes.is_empty() {
            let connection = Arc::clone(connection);
            self.changes.notify(&MessageEndpointListenerChange { connection, status: status.clone() });
        }
    }
}
