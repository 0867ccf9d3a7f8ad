//! Where connections become peers: at once if all is plain, else after the secure handshake. The same way for every kind of
//! listener.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::{Security, peer_name};
use super::event::NodeEvent;
use super::hub::Hub;
use crate::endpoint::{AccessRule, MessageEndpointConnection, MessagingError};
use crate::replicator::{
    MessageEndpointListener, MessageEndpointListenerChange, MessageEndpointListenerConfiguration,
    ReplicatorActivity,
};
use crate::secure::Established;
use crate::task;
use crate::transport::secure::{Accepted, Carrier, Incoming, SecureAcceptor, access_rule};

/// Takes what a listener accepts. Clones are the same intake.
#[derive(Clone)]
pub(super) struct PeerIntake {
    acceptor: Option<SecureAcceptor>,
    listener: Arc<MessageEndpointListener>,
    connections: Arc<Connections>,
}

impl PeerIntake {
    /// An intake for a listener made of `config`.
    pub(super) fn new(
        security: &Security,
        config: MessageEndpointListenerConfiguration,
        events: Arc<Hub<NodeEvent>>,
    ) -> PeerIntake {
        let acceptor = match security {
            Security::Plain => None,
            Security::Secure(config) => Some(SecureAcceptor::new(config.clone())),
        };
        let listener = Arc::new(MessageEndpointListener::new(config));
        let connections = Arc::new(Connections { events, last: AtomicU64::new(0), open: Mutex::default() });
        let observer = Arc::clone(&connections);
        listener.add_change_listener(move |change| observer.changed(change));
        let observer = Arc::clone(&connections);
        listener.add_document_listener(move |connection, document| {
            let (peer, document) = (observer.peer(connection), document.clone());
            observer.events.emit(NodeEvent::Document { peer, document });
        });
        let observer = Arc::clone(&connections);
        listener.add_conflict_listener(move |connection, conflict| {
            let (peer, conflict) = (observer.peer(connection), conflict.clone());
            observer.events.emit(NodeEvent::Conflict { peer, conflict });
        });
        PeerIntake { acceptor, listener, connections }
    }

    /// The passive side of replication behind it.
    pub(super) fn listener(&self) -> &Arc<MessageEndpointListener> {
        &self.listener
    }

    /// Takes a connection that a peer has made; `label` says where it came from, `plain` that nobody proves anything there.
    /// Returns at once.
    pub(super) fn accept_transport(&self, carrier: Carrier, label: &str, plain: bool) {
        match &self.acceptor {
            Some(acceptor) if !plain => acceptor.incoming(carrier, label),
            _ => self.register(carrier.into_connection(), label, None),
        }
    }

    /// Gives a peer that may come in to the listener.
    fn register(
        &self,
        connection: Arc<dyn MessageEndpointConnection>,
        name: &str,
        access: Option<AccessRule>,
    ) {
        self.connections.add(&connection, name);
        if let Err(error) = self.listener.accept_limited(Arc::clone(&connection), access) {
            // It is told, rather than left to think that all is done.
            let why = MessagingError::recoverable(error.to_string());
            if let Some((id, peer)) = self.connections.remove(&connection) {
                self.connections.events.emit(NodeEvent::Declined { connection: id, peer, error });
            }
            task::spawn(async move { connection.close(Some(why)).await });
        }
    }

    /// Registers those who have proven who they are, until it is dropped.
    pub(super) async fn run(self) {
        let Some(acceptor) = &self.acceptor else { return std::future::pending().await };
        while let Some(incoming) = acceptor.next().await {
            match incoming {
                Incoming::Accepted(accepted) => {
                    let Accepted { connection, established, label } = *accepted;
                    let access = access_rule(&established);
                    let Established { peer, via, grant, .. } = established;
                    let called = peer_name(&peer, grant.name.as_deref());
                    let name = grant.name;
                    self.connections.events.emit(NodeEvent::Authenticated { label, peer, name, via });
                    self.register(connection, &called, Some(access));
                }
                Incoming::Refused { label, peer, error } => {
                    self.connections.events.emit(NodeEvent::Refused { label, peer, error });
                }
            }
        }
    }
}

/// Who is connected.
struct Connections {
    events: Arc<Hub<NodeEvent>>,
    last: AtomicU64,
    open: Mutex<HashMap<usize, (u64, Arc<str>)>>,
}

impl Connections {
    fn add(&self, connection: &Arc<dyn MessageEndpointConnection>, name: &str) {
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let peer: Arc<str> = name.into();
        self.lock().insert(key(connection), (id, Arc::clone(&peer)));
        self.events.emit(NodeEvent::Connected { connection: id, peer, uid: connection.peer_uid() });
    }

    fn remove(&self, connection: &Arc<dyn MessageEndpointConnection>) -> Option<(u64, Arc<str>)> {
        self.lock().remove(&key(connection))
    }

    /// What people call the peer.
    fn peer(&self, connection: &Arc<dyn MessageEndpointConnection>) -> Arc<str> {
        self.lock().get(&key(connection)).map_or_else(|| "".into(), |(_, peer)| Arc::clone(peer))
    }

    fn changed(&self, change: &MessageEndpointListenerChange) {
        let known = if change.status.activity == ReplicatorActivity::Stopped {
            self.remove(&change.connection)
        } else {
            self.lock().get(&key(&change.connection)).cloned()
        };
        let Some((connection, peer)) = known else { return };
        self.events.emit(NodeEvent::Status { connection, peer, status: change.status.clone() });
    }

    /// Nothing under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, (u64, Arc<str>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells connections apart as long as they live.
fn key(connection: &Arc<dyn MessageEndpointConnection>) -> usize {
    Arc::as_ptr(connection).cast::<()>().addr()
}
