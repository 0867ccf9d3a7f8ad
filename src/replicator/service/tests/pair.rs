//! Two real databases, a listener on one, replicators on the other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::pipe::{RequestError, ToListener};
use crate::database::{Database, DatabaseConfig};
use crate::endpoint::{AccessRule, MessageEndpoint, ProtocolType};
use crate::replicator::service::status::lock;
use crate::replicator::{
    MessageEndpointListener, MessageEndpointListenerChange, MessageEndpointListenerConfiguration,
};
use crate::replicator::{
    Replicator, ReplicatorActivity, ReplicatorConfiguration, ReplicatorError, ReplicatorStatus,
};

/// No test takes so long, in virtual time.
pub const LIMIT: Duration = Duration::from_secs(3600);

/// Two databases, a listener on the second, and everything its connections said.
pub struct Pair {
    _directory: TempDir,
    pub field: Database,
    pub hub: Database,
    pub listener: Arc<MessageEndpointListener>,
    pub changes: Arc<Mutex<Vec<MessageEndpointListenerChange>>>,
    pub protocol: ProtocolType,
    /// What the field may do at the hub.
    pub access: Option<AccessRule>,
}

impl Pair {
    pub fn new(
        protocol: ProtocolType,
        change: impl FnOnce(&mut MessageEndpointListenerConfiguration),
    ) -> Pair {
        Pair::with_databases(protocol, &DatabaseConfig::default(), change)
    }

    /// As [`Pair::new`], on databases opened as said.
    pub fn with_databases(
        protocol: ProtocolType,
        database: &DatabaseConfig,
        change: impl FnOnce(&mut MessageEndpointListenerConfiguration),
    ) -> Pair {
        let directory = tempfile::tempdir().expect("a directory");
        let open = |name| Database::open(directory.path().join(name), database.clone()).expect("opens");
        let (field, hub) = (open("field"), open("hub"));
        field.default_collection().expect("is made");
        hub.default_collection().expect("is made");
        let mut config = MessageEndpointListenerConfiguration::new(Arc::new(hub.clone()), protocol);
        change(&mut config);
        let listener = Arc::new(MessageEndpointListener::new(config));
        let changes = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&changes);
        let _ = listener.add_change_listener(move |change| lock(&log).push(change.clone()));
        Pair { _directory: directory, field, hub, listener, changes, protocol, access: None }
    }

    pub fn replicator(
        &self,
        faults: &[RequestError],
        change: impl FnOnce(&mut ReplicatorConfiguration),
    ) -> Replicator {
        let delegate = ToListener::new(&self.listener, faults, self.access.clone());
        let endpoint = MessageEndpoint::new("hub", Arc::new(()), self.protocol, delegate);
        let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(self.field.clone()));
        change(&mut config);
        Replicator::new(config)
    }

    /// Runs a one-shot replication to its end.
    pub async fn sync(&self) -> ReplicatorStatus {
        let replicator = self.replicator(&[], |_| {});
        replicator.start();
        timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops")
    }

    pub fn assert_equal(&self) {
        let (field, hub) = (contents(&self.field), contents(&self.hub));
        assert_eq!(field.len(), hub.len());
        assert!(field == hub, "same number of documents, but not the same");
    }

    pub async fn last_error(&self) -> Option<ReplicatorError> {
        timeout(LIMIT, self.listener.wait_until_closed()).await.expect("the listener's side ends too");
        let changes = lock(&self.changes);
        let last = changes.last().expect("it was told");
        assert_eq!(last.status.activity, ReplicatorActivity::Stopped);
        last.status.error.clone()
    }
}

pub fn fill(db: &Database, prefix: &str, count: usize, size: usize) {
    let collection = db.default_collection().expect("it exists");
    db.batch(|batch| {
        for n in 0..count {
            let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(size).collect();
            batch.put(&collection, &format!("{prefix}-{n:05}"), &json!({ "n": n, "text": text }))?;
        }
        Ok(())
    })
    .expect("saved");
}

pub fn put(db: &Database, id: &str, value: Value) {
    db.default_collection().expect("exists").put(id, &value).expect("saved");
}

pub fn contents(db: &Database) -> Vec<(String, Value)> {
    let all = db.default_collection().expect("exists").iter();
    all.map(|document| document.expect("reads"))
        .map(|document| (document.id().to_owned(), Value::Object(document.body().clone())))
        .collect()
}

pub async fn arrives(db: &Database, id: &str, value: &Value) {
    let mut changes = db.watch();
    let arrived = async {
        while db
            .default_collection()
            .expect("exists")
            .get(id)
            .expect("reads")
            .map(|d| Value::Object(d.into_body()))
            != Some(value.clone())
        {
            changes.changed().await.expect("the database is open");
        }
    };
    timeout(LIMIT, arrived).await.expect("it arrives");
}
