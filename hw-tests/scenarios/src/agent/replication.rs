//! Replications: the active side with its counters, the passive side for whoever connects.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gattway::database::Database;
use gattway::endpoint::{MessageEndpoint, MessageEndpointConnection, ProtocolType};
use gattway::lab::transport::packet::Connector;
use gattway::lab::transport::session::{LinkConnection, SessionConfig};
use gattway::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};
use gattway::replicator::{Replicator, ReplicatorActivity, ReplicatorConfiguration, ReplicatorStatus};
use tokio::time::timeout;

use super::protocol::Synced;
use super::{Result, fail};

/// How often counters are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Called with each new connection.
pub type Watch = Arc<dyn Fn(&Arc<LinkConnection>) + Send + Sync>;

/// A replication of this node with a peripheral.
pub struct ActiveSync {
    replicator: Replicator,
    began: std::time::Instant,
    documents: Arc<Documents>,
}

/// Documents over all connections of a replication: each connection counts anew.
#[derive(Default)]
struct Documents {
    total: AtomicU64,
    last: Mutex<u64>,
}

impl Documents {
    fn update(&self, now: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let more = if now >= *last { now - *last } else { now };
        *last = now;
        self.total.fetch_add(more, Ordering::Relaxed);
    }
}

impl ActiveSync {
    /// Starts it.
    pub fn start(
        database: &Database,
        peer: &str,
        connector: Arc<dyn Connector>,
        continuous: bool,
        session: SessionConfig,
        watch: Watch,
    ) -> ActiveSync {
        let create = move |_: &MessageEndpoint| {
            let connection = LinkConnection::central(Arc::clone(&connector), session);
            watch(&connection);
            let connection: Arc<dyn MessageEndpointConnection> = connection;
            connection
        };
        let endpoint = MessageEndpoint::new(peer, Arc::new(()), ProtocolType::ByteStream, Arc::new(create));
        let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(database.clone()));
        config.continuous = continuous;
        let replicator = Replicator::new(config);
        let documents = Arc::new(Documents::default());
        let counted = Arc::clone(&documents);
        let _token = replicator.add_change_listener(move |status| counted.update(status.progress.documents));
        replicator.start();
        ActiveSync { replicator, began: std::time::Instant::now(), documents }
    }

    fn synced(&self, status: &ReplicatorStatus) -> Synced {
        let stopped = status.activity == ReplicatorActivity::Stopped;
        Synced {
            documents: self.documents.total.load(Ordering::Relaxed),
            seconds: self.began.elapsed().as_secs_f64(),
            error: status.error.as_ref().filter(|_| stopped).map(ToString::to_string),
        }
    }

    /// Waits until everything is there, or it has stopped.
    pub async fn wait_synced(&self, limit: Duration) -> Result<Synced> {
        let done = |s: &ReplicatorStatus| {
            matches!(s.activity, ReplicatorActivity::Stopped | ReplicatorActivity::Idle)
        };
        match timeout(limit, self.replicator.wait_until(done)).await {
            Ok(status) => Ok(self.synced(&status)),
            Err(_) => {
                let status = self.replicator.status();
                fail(format!("not in sync within {} s: {status:?}", limit.as_secs()))
            }
        }
    }

    /// Waits until so many documents have gone over.
    pub async fn wait_documents(&self, documents: u64, limit: Duration) -> Result<Synced> {
        let there = async {
            while self.documents.total.load(Ordering::Relaxed) < documents {
                tokio::time::sleep(LOOK).await;
            }
        };
        match timeout(limit, there).await {
            Ok(()) => Ok(self.synced(&self.replicator.status())),
            Err(_) => fail(format!(
                "{} of {documents} documents within {} s: {:?}",
                self.documents.total.load(Ordering::Relaxed),
                limit.as_secs(),
                self.replicator.status()
            )),
        }
    }

    /// Stops it.
    pub async fn stop(&self, limit: Duration) -> Result<Synced> {
        self.replicator.stop();
        match timeout(limit, self.replicator.wait_until_stopped()).await {
            Ok(status) => Ok(self.synced(&status)),
            Err(_) => fail(format!("the replicator has not stopped within {} s", limit.as_secs())),
        }
    }
}

/// Answers centrals from a database.
pub fn passive(database: &Database) -> MessageEndpointListener {
    let store = Arc::new(database.clone());
    MessageEndpointListener::new(MessageEndpointListenerConfiguration::new(store, ProtocolType::ByteStream))
}
