//! Databases over a resumable connection: a cut is no matter of the replicator's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{OUT_OF_RANGE, Setting, setting};
use crate::database::{Database, DatabaseConfig};
use crate::endpoint::{MessageEndpoint, MessageEndpointConnection, ProtocolType};
use crate::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};
use crate::replicator::{Replicator, ReplicatorConfiguration};
use crate::transport::session::LinkConnection;
use crate::transport::sim::HostConfig;
use crate::transport::sim::radio::Path;

fn database(folder: &std::path::Path, name: &str, documents: usize) -> Database {
    let db = Database::open(folder.join(name), DatabaseConfig::default()).expect("opens");
    let collection = db.default_collection().expect("is made");
    db.batch(|batch| {
        for n in 0..documents {
            batch.put(
                &collection,
                &format!("{name}-{n:05}"),
                &serde_json::json!({"n": n, "unit": "degree Celsius"}),
            )?;
        }
        Ok(())
    })
    .expect("saved");
    db
}

fn ids(db: &Database) -> Vec<String> {
    let collection = db.default_collection().expect("exists");
    collection.iter().map(|document| document.expect("reads").id().to_owned()).collect()
}

/// Cut again and again; and once for nearly as long as a lost link is kept, which no limit of the layers above may undercut.
#[tokio::test(start_paused = true)]
async fn databases_replicate_across_cuts_without_the_replicator_noticing() {
    replicate_while(15, async |setting| {
        for _ in 0..2_000 {
            sleep(Duration::from_millis(300)).await;
            setting.cut();
        }
    })
    .await;
    replicate_while(16, async |setting| {
        sleep(Duration::from_millis(250)).await;
        setting.set_path(OUT_OF_RANGE);
        sleep(Duration::from_secs(110)).await;
        setting.set_path(Path::default());
        sleep(Duration::from_secs(600)).await;
    })
    .await;
}

async fn replicate_while(seed: u64, happens: impl AsyncFnOnce(&Setting)) {
    let setting = setting(seed, HostConfig { drop: 0.02, ..HostConfig::default() }, |_| ());
    let folder = tempfile::tempdir().expect("folder");
    let (field, hub) = (database(folder.path(), "field", 3_000), database(folder.path(), "hub", 1_000));
    let listening =
        MessageEndpointListenerConfiguration::new(Arc::new(hub.clone()), ProtocolType::ByteStream);
    let listener = Arc::new(MessageEndpointListener::new(listening));
    tokio::spawn({
        let (acceptor, listener) = (setting.acceptor.clone(), Arc::clone(&listener));
        async move {
            while let Some(connection) = acceptor.next().await {
                listener.accept(connection).expect("accepted");
            }
        }
    });
    let connections = Arc::new(Mutex::new(Vec::new()));
    let delegate = {
        let (connector, config, connections) =
            (setting.connector.clone(), setting.config, connections.clone());
        move |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> {
            let connection = LinkConnection::central(connector.clone(), config);
            connections.lock().expect("lock").push(connection.clone());
            connection
        }
    };
    let endpoint = MessageEndpoint::new("hub", Arc::new(()), ProtocolType::ByteStream, Arc::new(delegate));
    let replicator = Replicator::new(ReplicatorConfiguration::new(endpoint, Arc::new(field.clone())));
    replicator.start();
    let status = tokio::select! {
        () = happens(&setting) => panic!("it goes on for ever"),
        status = timeout(Duration::from_secs(600), replicator.wait_until_stopped()) => status.expect("it stops"),
    };
    assert!(status.error.is_none(), "{status:?}");
    assert_eq!((ids(&field).len(), ids(&field)), (4_000, ids(&hub)));
    let connections = connections.lock().expect("lock");
    assert_eq!(connections.len(), 1, "one connection for all");
    assert!(connections[0].stats().link.resumes >= 1, "{:?}", connections[0].stats());
}
