//! The passive side: what a peer that has connected to us may do, and one task for each such connection.
//!
//! The connections know nothing of each other: garbage, silence or a failing transport ends one and leaves the others.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tracing::{Instrument, info_span};

use super::quota::{PeerQuota, Quotas};
use super::refusals::{Counters, Refusals};
use super::replicator::ConflictReport;
use super::status::{
    ListenerToken, Listeners, ReplicatorActivity, ReplicatorProgress, ReplicatorStatus, lock,
};
use crate::blip::{BlipConfig, Budget, ErrorReply};
use crate::endpoint::framing::FramingRole;
use crate::endpoint::{AccessRule, MessageEndpointConnection, ProtocolType};
use crate::replica::store::ReplicaStore;
use crate::replicator::config::{PassiveConfig, ReplicationFilter};
use crate::replicator::driver::error::ReplicatorError;
use crate::replicator::driver::{self, Allowance, ConnectionLimits, DriverEvent, Setup, StopSignal};
use crate::replicator::error::is_conflict;
use crate::replicator::event::DocumentReplication;
use crate::replicator::event::SessionEvent;
use crate::replicator::messages::refuse;
use crate::replicator::session::Session;
use crate::task;

/// Connections that a listener takes at one time, unless configured otherwise. Each may hold a few MiB while it is busy.
pub const CONNECTIONS_MAX: usize = 64;

/// Connections that one peer has at one time, if the transport knows who it is: a device that comes over two ways, and
/// comes again before its old connection was found dead. Of more the oldest ends.
pub const PEER_CONNECTIONS_MAX: usize = 4;

/// Bytes that the unfinished messages of one peer may hold: the largest document and what goes beside it. A peer that
/// pushes has no more than 2 MiB on their way beside one document.
pub const REASSEMBLY_BYTES_MAX: usize = 24 << 20;

/// Bytes that the unfinished messages of all peers may hold together, beyond 256 KiB for each: the largest document of two at
/// once. With what else attackers can make a process hold it stays below 64 MiB.
pub const REASSEMBLY_BYTES_SHARED_MAX: usize = 2 * REASSEMBLY_BYTES_MAX;

/// What a [`MessageEndpointListener`] is made of. Make one with [`new`](Self::new) and change what differs.
/// ```
/// use std::sync::Arc;
///
/// use gattway::{Database, DatabaseConfig, MessageEndpointListenerConfiguration, ProtocolType};
///
/// # let directory = tempfile::tempdir()?;
/// let db = Database::open(directory.path().join("gateway.db"), DatabaseConfig::default())?;
/// let mut config = MessageEndpointListenerConfiguration::new(Arc::new(db), ProtocolType::ByteStream)
///     .with_collections(["plant.readings"]);
/// (config.accept_pull, config.connections_max) = (false, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct MessageEndpointListenerConfiguration {
    /// The local database.
    pub store: Arc<dyn ReplicaStore>,
    /// Full names of the collections that peers may reach. The default collection alone, unless changed.
    pub collections: Vec<String>,
    /// What the transport keeps of the bytes.
    pub protocol_type: ProtocolType,
    /// Whether peers may push to us.
    pub accept_push: bool,
    /// Whether peers may pull from us.
    pub accept_pull: bool,
    /// Revisions it refuses are not stored.
    pub incoming_filter: Option<ReplicationFilter>,
    /// Revisions it refuses are not offered.
    pub outgoing_filter: Option<ReplicationFilter>,
    /// Connections at one time.
    pub connections_max: usize,
    /// What each peer may have stored in a time, if the transport knows who it is; `None`: anything.
    pub peer_quota: Option<PeerQuota>,
    /// What peers have used, if somebody else counts with it as well: goes before `peer_quota`.
    pub(crate) quotas: Option<Arc<Quotas>>,
    /// Time and size limits of each connection.
    pub limits: ConnectionLimits,
    /// Limits and compression of messages.
    #[doc(hidden)]
    pub blip: BlipConfig,
    /// Whether to accept the extension that saves bytes between two peers of this library.
    pub extension: bool,
    /// Whether listeners of documents hear of those that went over, too. Off, unless changed: it costs something for each.
    pub report_documents: bool,
}

impl MessageEndpointListenerConfiguration {
    /// Offers the default collection for push and pull.
    pub fn new(
        store: Arc<dyn ReplicaStore>,
        protocol_type: ProtocolType,
    ) -> MessageEndpointListenerConfiguration {
        let defaults = PassiveConfig::default();
        MessageEndpointListenerConfiguration {
            store,
            collections: defaults.collections,
            protocol_type,
            accept_push: defaults.accept_push,
            accept_pull: defaults.accept_pull,
            incoming_filter: None,
            outgoing_filter: None,
            connections_max: CONNECTIONS_MAX,
            peer_quota: Some(PeerQuota::default()),
            quotas: None,
            limits: ConnectionLimits::default(),
            blip: BlipConfig {
                open_bytes_max: REASSEMBLY_BYTES_MAX,
                open_bytes_shared: Some(Budget::new(REASSEMBLY_BYTES_SHARED_MAX)),
                ..defaults.blip
            },
            extension: defaults.extension,
            report_documents: false,
        }
    }

    /// Replaces the list of collections, by full names (`scope.name`, or `_default`).
    pub fn with_collections<T: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = T>,
    ) -> MessageEndpointListenerConfiguration {
        self.collections = names.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn session(&self) -> PassiveConfig {
        PassiveConfig {
            collections: self.collections.clone(),
            accept_push: self.accept_push,
            accept_pull: self.accept_pull,
            incoming_filter: self.incoming_filter.clone(),
            outgoing_filter: self.outgoing_filter.clone(),
            blip: self.blip.clone(),
            extension: self.extension,
            report_documents: self.report_documents,
            ..PassiveConfig::default()
        }
    }
}

impl fmt::Debug for MessageEndpointListenerConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEndpointListenerConfiguration")
            .field("collections", &self.collections)
            .field("protocol_type", &self.protocol_type)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

/// Why a connection was not accepted. It was not opened and belongs to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerError {
    /// As many as are allowed.
    #[error("{max} connections are open, which is the limit")]
    TooManyConnections {
        /// The limit.
        max: usize,
    },
    /// The peer opens connections faster than its old ones end.
    #[error("{PEER_CONNECTIONS_MAX} earlier connections of this peer are just ending")]
    TooManyOfPeer,
    /// The same object again.
    #[error("the connection has been accepted before")]
    AlreadyAccepted,
}

/// A change of the status of one connection.
#[derive(Clone)]
#[non_exhaustive]
pub struct MessageEndpointListenerChange {
    /// Which connection.
    pub connection: Arc<dyn MessageEndpointConnection>,
    /// Its status now; [`ReplicatorActivity::Stopped`] is the last.
    pub status: ReplicatorStatus,
}

impl fmt::Debug for MessageEndpointListenerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEndpointListenerChange").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A document of one connection that was replicated, or failed to be.
#[derive(Clone)]
#[non_exhaustive]
pub struct MessageEndpointListenerDocument {
    /// Which connection.
    pub connection: Arc<dyn MessageEndpointConnection>,
    /// The document.
    pub document: DocumentReplication,
}

impl fmt::Debug for MessageEndpointListenerDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEndpointListenerDocument")
            .field("document", &self.document)
            .finish_non_exhaustive()
    }
}

/// A conflict with the peer of one connection.
#[derive(Clone)]
#[non_exhaustive]
pub struct MessageEndpointListenerConflict {
    /// Which connection.
    pub connection: Arc<dyn MessageEndpointConnection>,
    /// The conflict.
    pub conflict: ConflictReport,
}

impl fmt::Debug for MessageEndpointListenerConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEndpointListenerConflict")
            .field("conflict", &self.conflict)
            .finish_non_exhaustive()
    }
}

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

struct Inner {
    config: MessageEndpointListenerConfiguration,
    connections: Mutex<Connections>,
    changes: Listeners<MessageEndpointListenerChange>,
    documents: Listeners<MessageEndpointListenerDocument>,
    conflicts: Listeners<MessageEndpointListenerConflict>,
    /// How many connections there are, to wait on.
    open: watch::Sender<usize>,
    refused: Counters,
    quotas: Option<Arc<Quotas>>,
}

#[derive(Default)]
struct Connections {
    last: u64,
    open: BTreeMap<u64, Entry>,
}

struct Entry {
    connection: Arc<dyn MessageEndpointConnection>,
    status: ReplicatorStatus,
    /// 0: run; anything else: end.
    wanted: watch::Sender<u64>,
    /// Who the peer has proven to be.
    peer: Option<String>,
}

impl Entry {
    fn is_staying(&self) -> bool {
        *self.wanted.borrow() == 0
    }

    fn end(&self) {
        self.wanted.send_replace(1);
    }
}

impl Connections {
    fn staying(&self) -> impl Iterator<Item = &Entry> {
        self.open.values().filter(|entry| entry.is_staying())
    }

    /// Makes room for one more connection of `peer`, if there is a way: its own oldest one gives way to the newest beyond
    /// [`PEER_CONNECTIONS_MAX`], and where all places are taken somebody's who has several to a peer that has none.
    fn make_room(&mut self, peer: Option<&str>, max: usize) -> Result<(), ListenerError> {
        let full = Err(ListenerError::TooManyConnections { max });
        // Those that are ending are few, and soon gone; a transport that does not let go must not make them many.
        if self.open.len() >= max.saturating_mul(2) {
            return full;
        }
        let mut of_peer = 0;
        if let Some(peer) = peer {
            let is_its = |entry: &&Entry| entry.peer.as_deref() == Some(peer);
            of_peer = self.staying().filter(is_its).count();
            if self.open.values().filter(is_its).count() - of_peer >= PEER_CONNECTIONS_MAX {
                return Err(ListenerError::TooManyOfPeer);
            }
            if of_peer >= PEER_CONNECTIONS_MAX {
                self.end_oldest_of(peer);
            }
        }
        if self.staying().count() < max {
            return Ok(());
        }
        match self.most_present() {
            Some(crowd) if peer.is_some() && of_peer == 0 => {
                self.end_oldest_of(&crowd);
                Ok(())
            }
            _ => full,
        }
    }

    /// The peer with the most connections, of those with several.
    fn most_present(&self) -> Option<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for peer in self.staying().filter_map(|entry| entry.peer.as_deref()) {
            *counts.entry(peer).or_default() += 1;
        }
        let (peer, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        (count > 1).then(|| peer.to_owned())
    }

    fn end_oldest_of(&self, peer: &str) {
        if let Some(entry) = self.staying().find(|entry| entry.peer.as_deref() == Some(peer)) {
            tracing::info!(peer, "its oldest connection ends to make room for another");
            entry.end();
        }
    }
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
    /// transport knows already ([`MessageEndpointConnection::peer_uid`]) keeps the newest [`PEER_CONNECTIONS_MAX`] of its own.
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
        let span = info_span!("listener", connection = id);
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
        callback: impl Fn(&MessageEndpointListenerDocument) + Send + Sync + 'static,
    ) -> ListenerToken {
        self.inner.documents.add(callback)
    }

    /// Calls back with each conflict: once when it is met, which leaves it open for the peer, and again when the peer has
    /// resolved it while connected; from that connection's task, so the callback must not block. A conflict that the peer
    /// resolves before it offers its own revision is not seen here.
    pub fn add_conflict_listener(
        &self,
        callback: impl Fn(&MessageEndpointListenerConflict) + Send + Sync + 'static,
    ) -> ListenerToken {
        self.inner.conflicts.add(callback)
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
                inner.conflicts.notify(&MessageEndpointListenerConflict { connection, conflict });
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
            let connection = Arc::clone(connection);
            self.documents.notify(&MessageEndpointListenerDocument { connection, document });
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
