//! Runs a plan: a real listener and a real replicator over a real socket.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use gattway::database::Database;
use gattway::endpoint::AccessRule;
use gattway::endpoint::{
    Message, MessageEndpoint, MessageEndpointConnection, MessagingError, ProtocolType, ReplicatorConnection,
};
use gattway::lab::replica::store::{Conflict, ConflictResolver, Resolution};
use gattway::lab::secure::{GroupOnly, Identity, Psk};
use gattway::lab::transport::secure::{
    Carrier, Incoming, SecureAcceptor, SecureConnection, SecureConnectionConfig,
};
use gattway::lab::transport::stream::{Address, StreamConnection, StreamListener};
use gattway::replicator::{
    DefaultResolver, Direction, DocumentReplication, ReplicationFilter, Replicator, ReplicatorActivity,
    ReplicatorConfiguration, Unsynced, UnsyncedDocument,
};
use gattway::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};

use super::plan::{ACTIVE, Filter, PASSIVE, Plan, Resolving};

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

/// What a side says that is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeftOut {
    pub documents: u64,
    /// The first of them.
    pub listed: BTreeSet<Report>,
    /// Name, and what is wrong with it.
    pub collections: BTreeSet<(String, String)>,
}

/// What one run said at its end, and what it cost.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub reports: Vec<Report>,
    pub left_out: LeftOut,
    /// The same of the passive side.
    pub passive_reports: Vec<Report>,
    pub passive_left_out: LeftOut,
    /// Why the whole ended early.
    pub error: Option<String>,
    /// Documents that went over, by the closing report.
    pub documents: u64,
    /// Bytes that went over the socket, both ways; `None`: nobody has counted.
    pub bytes: Option<u64>,
    /// What the command ended with, and the `ok` of its last event.
    pub exit: Option<(i32, bool)>,
}

impl From<&DocumentReplication> for Report {
    fn from(document: &DocumentReplication) -> Report {
        Report {
            collection: full_name(&document.collection),
            id: document.id.clone(),
            sent: document.direction == Direction::Sent,
            error: document.error.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&Unsynced> for LeftOut {
    fn from(unsynced: &Unsynced) -> LeftOut {
        let listed = |document: &UnsyncedDocument| Report {
            collection: document.collection.clone(),
            id: document.id.clone(),
            sent: document.direction == Direction::Sent,
            error: Some(document.error.to_string()),
        };
        let lacks = unsynced.collections.iter().map(|lack| (lack.name.clone(), lack.lack.to_string()));
        LeftOut {
            documents: unsynced.documents,
            listed: unsynced.listed.iter().map(listed).collect(),
            collections: lacks.collect(),
        }
    }
}

/// One replication from its beginning to its end.
pub fn run(plan: &Plan, active: &Database, passive: &Database, directory: &Path) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let both = replicate(plan, active, passive, directory);
        tokio::time::timeout(PATIENCE, both)
            .await
            .unwrap_or_else(|_| panic!("it has not ended within {PATIENCE:?}"))
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    outcome
}

async fn replicate(plan: &Plan, active: &Database, passive: &Database, directory: &Path) -> Outcome {
    let address = match plan.tcp {
        true => Address::Tcp("127.0.0.1:0".into()),
        false => Address::Unix(directory.join("socket")),
    };
    let bytes = Arc::new(AtomicU64::new(0));
    let listener = Arc::new(MessageEndpointListener::new(passive_side(plan, passive)));
    let (passive_reports, passive_left_out) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::default()));
    // For each connection: a stock peer that lacks a collection is connected to once more, and the end of the first may be
    // told last.
    let (told, left_out) = (Arc::clone(&passive_reports), Arc::clone(&passive_left_out));
    listener.add_document_listener(move |_, document| told.lock().unwrap().push(Report::from(document)));
    listener.add_change_listener(move |change| {
        let mut left_out: MutexGuard<'_, Vec<_>> = left_out.lock().unwrap();
        let says = LeftOut::from(&*change.status.unsynced);
        match left_out.iter_mut().find(|(of, _)| Arc::ptr_eq(of, &change.connection)) {
            Some((_, said)) => *said = says,
            None => left_out.push((Arc::clone(&change.connection), says)),
        }
    });
    let socket = StreamListener::bind(address).await.unwrap();
    let address = socket.local_address().clone();
    let accepting = tokio::spawn(accept(socket, plan.clone(), Arc::clone(&listener), Arc::clone(&bytes)));
    let replicator = active_side(plan, active, address, &bytes);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&reports);
    replicator.add_document_listener(move |document| told.lock().unwrap().push(Report::from(document)));
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
    let taken = |reports: &Mutex<Vec<Report>>| std::mem::take(&mut *reports.lock().unwrap());
    Outcome {
        reports: taken(&reports),
        left_out: LeftOut::from(&*status.unsynced),
        passive_reports: taken(&passive_reports),
        passive_left_out: passive_left_out.lock().unwrap().pop().map(|(_, said)| said).unwrap_or_default(),
        error: status.error.map(|error| error.to_string()),
        documents: status.progress.documents,
        bytes: Some(bytes.load(Ordering::Relaxed)),
        exit: None,
    }
}

fn passive_side(plan: &Plan, database: &Database) -> MessageEndpointListenerConfiguration {
    let names = plan.collections.iter().filter(|collection| collection.at[PASSIVE]);
    let mut config =
        MessageEndpointListenerConfiguration::new(Arc::new(database.clone()), ProtocolType::ByteStream)
            .with_collections(names.map(|collection| collection.name.clone()));
    config.extension = plan.extension[PASSIVE];
    config.incoming_filter = plan.incoming.map(passing);
    config.outgoing_filter = plan.outgoing.map(passing);
    config
}

fn active_side(plan: &Plan, database: &Database, address: Address, bytes: &Arc<AtomicU64>) -> Replicator {
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
    let asked = plan.collections.iter().filter(|collection| collection.at[ACTIVE]);
    for (collection, asked) in config.collections.iter_mut().zip(asked) {
        collection.optional = plan.optional;
        collection.push_filter = asked.push_filter.map(passing);
        collection.pull_filter = asked.pull_filter.map(passing);
        collection.document_ids = asked.document_ids();
    }
    config.resolver = resolver(plan.resolver);
    config.replicator_type = plan.direction;
    config.continuous = plan.continuous;
    config.extension = plan.extension[ACTIVE];
    // Nothing here may need a second connection.
    config.max_attempts = Some(1);
    Replicator::new(config)
}

fn passing(filter: Filter) -> ReplicationFilter {
    Arc::new(move |input| filter.passes(input.id))
}

fn resolver(resolving: Resolving) -> Arc<dyn ConflictResolver> {
    match resolving {
        Resolving::Default => Arc::new(DefaultResolver),
        Resolving::Failing(filter) => {
            Arc::new(move |conflict: &Conflict<'_>| match filter.passes(conflict.id) {
                true => DefaultResolver.resolve(conflict),
                false => Err("too hard".to_owned()),
            })
        }
        Resolving::Merging => Arc::new(|conflict: &Conflict<'_>| {
            let ids = serde_json::json!({ "merged": conflict.id });
            Ok(Resolution::Merge(ids.as_object().cloned().unwrap_or_default()))
        }),
        Resolving::Deleting => Arc::new(|_: &Conflict<'_>| Ok(Resolution::Delete)),
    }
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
