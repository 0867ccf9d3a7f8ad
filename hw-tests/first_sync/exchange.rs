//! Runs a plan: a real listener and a real replicator over a real socket.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gattway::database::Database;
use gattway::endpoint::{
    Message, MessageEndpoint, MessageEndpointConnection, MessageEndpointListener,
    MessageEndpointListenerConfiguration, MessagingError, ProtocolType, ReplicatorConnection,
};
use gattway::replicator::config::AccessRule;
use gattway::replicator::{Direction, Replicator, ReplicatorActivity, ReplicatorConfiguration};
use gattway::secure::{GroupOnly, Identity, Psk};
use gattway::transport::secure::{
    Carrier, Incoming, SecureAcceptor, SecureConnection, SecureConnectionConfig,
};
use gattway::transport::stream::{Address, StreamConnection, StreamListener};

use super::plan::{ACTIVE, PASSIVE, Plan};

/// How long nothing may end before a run counts as hung; far above what a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(400);

/// What was said about one document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    pub collection: String,
    pub id: String,
    pub sent: bool,
    /// Why it was not replicated; `None`: it was.
    pub error: Option<String>,
}

/// What one run said at its end, and what it cost.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub reports: Vec<Report>,
    /// Why the whole ended early.
    pub error: Option<String>,
    /// Documents that went over, by the closing report.
    pub documents: u64,
    /// Bytes that went over the socket, both ways.
    pub bytes: u64,
}

/// One replication from its beginning to its end.
pub fn run(plan: &Plan, databases: &[Database; 2], directory: &Path) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let both = replicate(plan, databases, directory);
        tokio::time::timeout(PATIENCE, both)
            .await
            .unwrap_or_else(|_| panic!("it has not ended within {PATIENCE:?}"))
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    outcome
}

async fn replicate(plan: &Plan, databases: &[Database; 2], directory: &Path) -> Outcome {
    let address = match plan.tcp {
        true => Address::Tcp("127.0.0.1:0".into()),
        false => Address::Unix(directory.join("socket")),
    };
    let bytes = Arc::new(AtomicU64::new(0));
    let listener = Arc::new(MessageEndpointListener::new(passive(plan, &databases[PASSIVE])));
    let socket = StreamListener::bind(address).await.unwrap();
    let address = socket.local_address().clone();
    let accepting = tokio::spawn(accept(socket, plan.clone(), Arc::clone(&listener), Arc::clone(&bytes)));
    let replicator = active(plan, &databases[ACTIVE], address, &bytes);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&reports);
    replicator.add_document_listener(move |document| {
        told.lock().unwrap().push(Report {
            collection: full_name(&document.collection),
            id: document.id.clone(),
            sent: document.direction == Direction::Sent,
            error: document.error.as_ref().map(ToString::to_string),
        });
    });
    replicator.start();
    if plan.continuous {
        let done = |activity| matches!(activity, ReplicatorActivity::Idle | ReplicatorActivity::Stopped);
        replicator.wait_until(|status| done(status.activity)).await;
        replicator.stop();
    }
    let status = replicator.wait_until_stopped().await;
    listener.close_all();
    listener.wait_until_closed().await;
    accepting.abort();
    let reports = std::mem::take(&mut *reports.lock().unwrap());
    Outcome {
        reports,
        error: status.error.map(|error| error.to_string()),
        documents: status.progress.documents,
        bytes: bytes.load(Ordering::Relaxed),
    }
}

fn passive(plan: &Plan, database: &Database) -> MessageEndpointListenerConfiguration {
    let names = plan.collections.iter().filter(|collection| collection.at[PASSIVE]);
    let mut config =
        MessageEndpointListenerConfiguration::new(Arc::new(database.clone()), ProtocolType::ByteStream)
            .with_collections(names.map(|collection| collection.name.clone()));
    config.extension = plan.extension[PASSIVE];
    config
}

fn active(plan: &Plan, database: &Database, address: Address, bytes: &Arc<AtomicU64>) -> Replicator {
    let (bytes, secure) = (Arc::clone(bytes), plan.secure.then(|| security(plan, ACTIVE)));
    let connect = move |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> {
        let stream = Counted::new(StreamConnection::connect(address.clone()), &bytes);
        match &secure {
            None => stream,
            Some(config) => Arc::new(SecureConnection::active(Carrier::Stream(stream), config.clone())),
        }
    };
    let endpoint = MessageEndpoint::new("peer", Arc::new(()), ProtocolType::ByteStream, Arc::new(connect));
    let names = plan.collections.iter().filter(|collection| collection.at[ACTIVE]);
    let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(database.clone()))
        .with_collections(names.map(|collection| collection.name.clone()));
    config.replicator_type = plan.direction;
    config.continuous = plan.continuous;
    config.extension = plan.extension[ACTIVE];
    // Nothing here may need a second connection.
    config.max_attempts = Some(1);
    Replicator::new(config)
}

fn security(plan: &Plan, side: usize) -> SecureConnectionConfig {
    let identity = Identity::from_private([side as u8 + 1; 32]);
    SecureConnectionConfig::new(Arc::new(identity), Arc::new(GroupOnly(Psk([plan.seed as u8; 32]))))
}

/// Gives each connection to the listener, after the handshake if there is one.
async fn accept(
    socket: StreamListener,
    plan: Plan,
    listener: Arc<MessageEndpointListener>,
    bytes: Arc<AtomicU64>,
) {
    let access: AccessRule = {
        let rules: Vec<_> = plan.collections.iter().map(|c| (full_name(&c.name), c.access)).collect();
        Arc::new(move |name: &str| rules.iter().find(|(rule, _)| *rule == full_name(name)).unwrap().1)
    };
    let acceptor = plan.secure.then(|| SecureAcceptor::new(security(&plan, PASSIVE)));
    loop {
        let stream = Counted::new(socket.accept().await.unwrap().unwrap(), &bytes);
        let Some(acceptor) = &acceptor else {
            listener.accept_limited(stream, Some(Arc::clone(&access))).unwrap();
            continue;
        };
        acceptor.incoming(Carrier::Stream(stream), "the active side");
        match acceptor.next().await {
            Some(Incoming::Accepted(accepted)) => {
                listener.accept_limited(accepted.connection, Some(Arc::clone(&access))).unwrap();
            }
            Some(Incoming::Refused { error, .. }) => panic!("the active side was refused: {error}"),
            None => return,
        }
    }
}

/// The name under which a collection is spoken of.
pub fn full_name(name: &str) -> String {
    gattway::database::canonical_collection_name(name).unwrap()
}

/// Counts what is sent.
struct Counted {
    stream: StreamConnection,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    fn new(stream: StreamConnection, bytes: &Arc<AtomicU64>) -> Arc<Counted> {
        Arc::new(Counted { stream, bytes: Arc::clone(bytes) })
    }
}

#[async_trait]
impl MessageEndpointConnection for Counted {
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        self.stream.open(connection).await
    }

    async fn send(&self, message: Message) -> Result<(), MessagingError> {
        self.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        self.stream.send(message).await
    }

    async fn close(&self, error: Option<MessagingError>) -> Result<(), MessagingError> {
        self.stream.close(error).await
    }
}
