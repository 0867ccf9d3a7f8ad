//! The honest one: a member of the group that pushes one document a sync.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gattway::database::{Database, DatabaseConfig};
use gattway::endpoint::{MessageEndpoint, MessageEndpointConnection, ProtocolType};
use gattway::lab::secure::{GroupOnly, Identity};
use gattway::lab::transport::secure::{Carrier, SecureConnection, SecureConnectionConfig};
use gattway::lab::transport::stream::{Address, StreamConnection};
use gattway::replicator::{Replicator, ReplicatorConfiguration, ReplicatorType};

use crate::gateway::group_key;

/// A sync that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of the question and of the OFFER.
const FIRST_MESSAGES: usize = 7 + 231;

pub struct Member {
    db: Database,
    gateway: SocketAddr,
    made: usize,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Member {
    pub fn new(gateway: SocketAddr) -> Member {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Database::open(folder.path().join("db"), DatabaseConfig::default()).expect("a database");
        db.default_collection().expect("is made");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        Member { db, gateway, made: 0, runtime, _folder: folder }
    }

    /// One document to the gateway, in one attempt.
    pub fn sync(&mut self) -> Result<Duration, String> {
        self.sync_to(self.gateway)
    }

    fn sync_to(&mut self, address: SocketAddr) -> Result<Duration, String> {
        self.made += 1;
        let collection = self.db.default_collection().expect("it is always there");
        let id = format!("honest-{}", self.made);
        self.db.batch(|batch| batch.put_json(&collection, &id, b"{\"n\":1}")).expect("saved");
        let delegate = move |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> {
            let address: Address = format!("tcp:{address}").parse().expect("an address");
            let carrier = Carrier::Stream(Arc::new(StreamConnection::connect(address)));
            let identity = Arc::new(Identity::from_private([1; 32]));
            let config = SecureConnectionConfig::new(identity, Arc::new(GroupOnly(group_key())));
            Arc::new(SecureConnection::active(carrier, config))
        };
        let endpoint =
            MessageEndpoint::new("gateway", Arc::new(()), ProtocolType::ByteStream, Arc::new(delegate));
        let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(self.db.clone()));
        config.max_attempts = Some(1);
        config.replicator_type = ReplicatorType::Push;
        let began = Instant::now();
        let status = self.runtime.block_on(async {
            let replicator = Replicator::new(config);
            replicator.start();
            tokio::time::timeout(PATIENCE, replicator.wait_until_stopped()).await
        });
        match status {
            Ok(status) => status.error.map_or(Ok(began.elapsed()), |error| Err(error.to_string())),
            Err(_) => Err(format!("no end after {} s", PATIENCE.as_secs())),
        }
    }

    /// A sync through somebody who passes everything on: what the member says first.
    pub fn overhear(&mut self) -> Vec<u8> {
        let between = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, gateway) = (between.local_addr().expect("an address"), self.gateway);
        let listening = std::thread::spawn(move || {
            let (mut near, _) = between.accept().expect("the member");
            let mut far = TcpStream::connect(gateway).expect("the gateway");
            let (mut from, mut to) =
                (far.try_clone().expect("a handle"), near.try_clone().expect("a handle"));
            let down = std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            let (mut heard, mut bytes) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = near.read(&mut bytes) {
                heard.extend_from_slice(&bytes[..count]);
                if far.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = far.shutdown(Shutdown::Write);
            down.join().expect("no panic");
            heard.truncate(FIRST_MESSAGES);
            heard
        });
        self.sync_to(address).expect("the first sync");
        let heard = listening.join().expect("no panic");
        assert_eq!((heard.len(), &heard[..2]), (FIRST_MESSAGES, &[0x47, 1][..]), "question and OFFER");
        heard
    }
}
