//! A transport that does what a test tells it to, and an empty store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::endpoint::{
    Message, MessageEndpoint, MessageEndpointConnection, MessageEndpointDelegate, MessagingError,
    ProtocolType, ReplicatorConnection,
};
use crate::replica::revision::SourceId;
use crate::replica::store::{
    Change, CollectionId, CommitOutcome, ConflictPolicy, IncomingRevision, ReplicaStore, ReplicaStoreError,
    StoredCheckpoint,
};
use crate::replicator::service::status::lock;
use crate::replicator::{Replicator, ReplicatorConfiguration};

/// How a call of the transport ends.
#[derive(Clone, Debug, Default)]
pub enum Does {
    #[default]
    Works,
    Never,
    Takes(Duration),
    Fails(MessagingError),
    Panics,
}

impl Does {
    async fn it(&self, call: &str) -> Result<(), MessagingError> {
        match self {
            Does::Works => Ok(()),
            Does::Never => std::future::pending().await,
            Does::Takes(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Does::Fails(error) => Err(error.clone()),
            Does::Panics => panic!("{call} panics because the test says so"),
        }
    }
}

/// How a connection behaves.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub open: Does,
    pub send: Does,
    pub close: Does,
    /// Forgets the library's handle at once.
    pub drops_handle: bool,
    /// Who the peer is.
    pub peer: Option<&'static str>,
}

/// What was called on a connection.
#[derive(Default)]
pub struct Calls {
    pub opened: usize,
    pub closed: Vec<Option<MessagingError>>,
    pub sent: Vec<Message>,
    pub handle: Option<ReplicatorConnection>,
}

pub struct Scripted {
    script: Script,
    pub created: Instant,
    pub calls: Mutex<Calls>,
}

impl Scripted {
    pub fn new(script: Script) -> Arc<Scripted> {
        Arc::new(Scripted { script, created: Instant::now(), calls: Mutex::default() })
    }

    /// The library's handle. The connection must have been opened.
    pub fn handle(&self) -> ReplicatorConnection {
        lock(&self.calls).handle.clone().expect("opened before")
    }

    pub fn sent_bytes(&self) -> Vec<u8> {
        lock(&self.calls).sent.iter().flat_map(|message| message.to_vec()).collect()
    }

    pub fn closes(&self) -> usize {
        lock(&self.calls).closed.len()
    }

    /// Fails unless `close` was called exactly once for each `open`.
    pub fn assert_closed_once(&self) {
        let calls = lock(&self.calls);
        assert_eq!((calls.opened, calls.closed.len()), (1, 1), "open and close");
    }
}

#[async_trait]
impl MessageEndpointConnection for Scripted {
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        {
            let mut calls = lock(&self.calls);
            calls.opened += 1;
            calls.handle = (!self.script.drops_handle).then_some(connection);
        }
        self.script.open.it("open").await
    }

    async fn send(&self, message: Message) -> Result<(), MessagingError> {
        lock(&self.calls).sent.push(message);
        self.script.send.it("send").await
    }

    async fn close(&self, error: Option<MessagingError>) -> Result<(), MessagingError> {
        lock(&self.calls).closed.push(error);
        self.script.close.it("close").await
    }

    fn peer_uid(&self) -> Option<String> {
        self.script.peer.map(str::to_owned)
    }
}

/// Makes connections that all follow one script, and keeps them.
pub struct Delegate {
    script: Script,
    pub made: Mutex<Vec<Arc<Scripted>>>,
}

impl MessageEndpointDelegate for Delegate {
    fn create_connection(&self, _: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        let connection = Scripted::new(self.script.clone());
        lock(&self.made).push(Arc::clone(&connection));
        connection
    }
}

impl Delegate {
    pub fn new(script: Script) -> Arc<Delegate> {
        Arc::new(Delegate { script, made: Mutex::default() })
    }

    pub fn made(&self) -> Vec<Arc<Scripted>> {
        lock(&self.made).clone()
    }

    pub fn last(&self) -> Arc<Scripted> {
        self.made().pop().expect("a connection was asked for")
    }

    /// A replicator over these connections and an empty store.
    pub fn replicator(
        self: &Arc<Delegate>,
        protocol: ProtocolType,
        change: impl FnOnce(&mut ReplicatorConfiguration),
    ) -> Replicator {
        let endpoint = MessageEndpoint::new("peer", Arc::new(()), protocol, self.clone());
        let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(EmptyStore::default()));
        change(&mut config);
        Replicator::new(config)
    }
}

/// A store with one collection and nothing in it, that takes nothing.
pub struct EmptyStore {
    /// How long a commit hangs before it fails.
    pub hangs: Duration,
    pub changes: watch::Sender<u64>,
}

impl Default for EmptyStore {
    fn default() -> EmptyStore {
        EmptyStore { hangs: Duration::ZERO, changes: watch::Sender::new(0) }
    }
}

impl ReplicaStore for EmptyStore {
    fn source(&self) -> SourceId {
        SourceId([1; 16])
    }

    fn collection(&self, name: &str) -> Option<CollectionId> {
        name.starts_with("_default").then_some(CollectionId(0))
    }

    fn last_sequence(&self, _: CollectionId) -> u64 {
        0
    }

    fn make_durable(&self) -> Result<(), ReplicaStoreError> {
        Ok(())
    }

    fn changes(&self, _: CollectionId, _: u64, _: usize, _: bool) -> Result<Vec<Change>, ReplicaStoreError> {
        Ok(Vec::new())
    }

    fn document(&self, _: CollectionId, _: &str) -> Result<Option<Change>, ReplicaStoreError> {
        Ok(None)
    }

    fn revision(&self, _: CollectionId, _: &str) -> Result<Option<Change>, ReplicaStoreError> {
        Ok(None)
    }

    fn commit(
        &self,
        _: &[IncomingRevision],
        _: ConflictPolicy<'_>,
    ) -> Result<Vec<CommitOutcome>, ReplicaStoreError> {
        std::thread::sleep(self.hangs);
        Err(ReplicaStoreError { message: "takes nothing".into(), recoverable: false })
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn mark_pushed(&self, _: CollectionId, _: u64) {}

    fn collections(&self) -> Vec<(CollectionId, String)> {
        Vec::new()
    }

    fn checkpoint_clients(&self, _: CollectionId, _: &str) -> Result<Vec<String>, ReplicaStoreError> {
        Ok(Vec::new())
    }

    fn checkpoint(&self, _: CollectionId, _: &str) -> Result<Option<StoredCheckpoint>, ReplicaStoreError> {
        Ok(None)
    }

    fn set_checkpoint(
        &self,
        _: CollectionId,
        _: &str,
        _: Option<&str>,
        _: Bytes,
    ) -> Result<Option<String>, ReplicaStoreError> {
        Ok(Some("1-cc".into()))
    }
}
