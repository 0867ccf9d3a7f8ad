//! The victim: a database that serves on a TCP port of this machine, as `gattway serve` does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gattway::database::Database;
use gattway::endpoint::{MessageEndpointConnection, ProtocolType};
use gattway::lab::blip::Budget;
use gattway::lab::database::config::DatabaseConfig;
use gattway::lab::transport::stream::{Address, StreamListener};
use gattway::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};

/// Patience with a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Handles are of the same server.
#[derive(Clone)]
pub struct Server {
    pub listener: Arc<MessageEndpointListener>,
    pub address: SocketAddr,
    db: Database,
    budget: Option<Budget>,
    _folder: Arc<tempfile::TempDir>,
}

impl Server {
    pub async fn start(change: impl FnOnce(&mut MessageEndpointListenerConfiguration)) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Database::open(folder.path().join("db"), DatabaseConfig::default()).expect("a database");
        let mut config =
            MessageEndpointListenerConfiguration::new(Arc::new(db.clone()), ProtocolType::ByteStream);
        change(&mut config);
        let budget = config.blip.open_bytes_shared.clone();
        let listener = Arc::new(MessageEndpointListener::new(config));
        let address: Address = "tcp:127.0.0.1:0".parse().expect("an address");
        let stream = StreamListener::bind(address).await.expect("a port");
        let Address::Tcp(address) = stream.local_address().clone() else { panic!("TCP") };
        let accepting = Arc::clone(&listener);
        tokio::spawn(async move {
            while let Ok(Some(connection)) = stream.accept().await {
                let connection: Arc<dyn MessageEndpointConnection> = Arc::new(connection);
                // A refused one is closed by its drop.
                let _ = accepting.accept(connection);
            }
        });
        let address = address.parse().expect("a socket address");
        Server { listener, address, db, budget, _folder: Arc::new(folder) }
    }

    /// Saves so many documents of about 200 bytes.
    pub fn fill(&self, documents: usize) {
        let collection = self.db.default_collection().expect("it is always there");
        let text = "x".repeat(150);
        let saved = self.db.batch(|batch| {
            (0..documents).try_for_each(|n| {
                let body = format!("{{\"n\":{n},\"text\":\"{text}\"}}");
                batch.put_json(&collection, &format!("doc-{n:06}"), body.as_bytes())
            })
        });
        saved.expect("saved");
    }

    /// Bytes that unfinished messages hold of the shared budget.
    pub fn shared_bytes(&self) -> usize {
        self.budget.as_ref().map_or(0, Budget::held)
    }

    pub async fn wait_until_idle(&self) {
        let closed = tokio::time::timeout(PATIENCE, self.listener.wait_until_closed());
        closed.await.expect("all connections end");
    }

    pub fn wait_for_connections(&self, count: usize) {
        wait("connections", || self.listener.connections().len() == count);
    }

    pub fn wait_for_refusals(&self, count: u64) {
        wait("refusals", || self.listener.refusals().connections == count);
    }
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "no such {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
