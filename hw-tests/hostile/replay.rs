//! First messages of members, overheard and sent again beside honest syncs over real sockets: nobody honest fails, and nobody
//! who repeats gets further than a stranger. Judged by what comes and how often, not by time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gattway::database::Database;
use gattway::database::DatabaseConfig;
use gattway::endpoint::{MessageEndpoint, MessageEndpointConnection, ProtocolType};
use gattway::lab::secure::{GroupOnly, Identity, Psk};
use gattway::lab::transport::secure::{
    Carrier, HALF_OPEN_MAX, Incoming, SecureAcceptor, SecureConnection, SecureConnectionConfig,
};
use gattway::lab::transport::stream::{Address, StreamConnection, StreamListener};
use gattway::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};
use gattway::replicator::{Replicator, ReplicatorConfiguration, ReplicatorStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Patience with a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Honest syncs beside each attack.
const SYNCS: usize = 13;
/// Bytes of the question and of the OFFER.
const FIRST_MESSAGES: usize = 7 + 231;
/// What a REFUSE of strangers is.
const STRANGER: [u8; 7] = [0x47, 4, 3, 0, 2, 2, 2];

fn member(device: u8, group: u8) -> SecureConnectionConfig {
    let identity = Arc::new(Identity::from_private([device; 32]));
    SecureConnectionConfig::new(identity, Arc::new(GroupOnly(Psk([group; 32]))))
}

/// A database that serves to the members of its group.
struct Gateway {
    acceptor: SecureAcceptor,
    address: SocketAddr,
    db: Database,
    _folder: tempfile::TempDir,
}

impl Gateway {
    async fn start(device: u8, group: u8) -> Gateway {
        let (folder, db) = database();
        let config =
            MessageEndpointListenerConfiguration::new(Arc::new(db.clone()), ProtocolType::ByteStream);
        let listener = MessageEndpointListener::new(config);
        let acceptor = SecureAcceptor::new(member(device, group));
        let address: Address = "tcp:127.0.0.1:0".parse().expect("an address");
        let stream = StreamListener::bind(address).await.expect("a port");
        let Address::Tcp(address) = stream.local_address().clone() else { panic!("TCP") };
        let door = acceptor.clone();
        tokio::spawn(async move {
            while let Ok(Some(connection)) = stream.accept().await {
                door.incoming(Carrier::Stream(Arc::new(connection)), "TCP");
            }
        });
        let door = acceptor.clone();
        tokio::spawn(async move {
            while let Some(incoming) = door.next().await {
                if let Incoming::Accepted(accepted) = incoming {
                    // A refused one is closed by its drop.
                    let _ = listener.accept(accepted.connection);
                }
            }
        });
        let address = address.parse().expect("a socket address");
        Gateway { acceptor, address, db, _folder: folder }
    }

    fn documents(&self) -> u64 {
        self.db.default_collection().expect("it is always there").count()
    }
}

fn database() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().expect("a folder");
    let db = Database::open(folder.path().join("db"), DatabaseConfig::default()).expect("a database");
    db.default_collection().expect("is made");
    (folder, db)
}

/// One document to the gateway, in one attempt.
async fn sync(db: &Database, number: usize, address: SocketAddr) -> ReplicatorStatus {
    let collection = db.default_collection().expect("it is always there");
    let put = db.batch(|batch| batch.put_json(&collection, &format!("honest-{number}"), b"{\"n\":1}"));
    put.expect("saved");
    let delegate = move |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> {
        let address: Address = format!("tcp:{address}").parse().expect("an address");
        let carrier = Carrier::Stream(Arc::new(StreamConnection::connect(address)));
        Arc::new(SecureConnection::active(carrier, member(1, 9)))
    };
    let endpoint =
        MessageEndpoint::new("gateway", Arc::new(()), ProtocolType::ByteStream, Arc::new(delegate));
    let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(db.clone()));
    config.max_attempts = Some(1);
    let replicator = Replicator::new(config);
    replicator.start();
    timeout(PATIENCE, replicator.wait_until_stopped()).await.expect("a sync ends")
}

/// Somebody between a member and its gateway, who passes everything on and keeps what the member says first.
async fn overhear(gateway: SocketAddr, db: &Database) -> Vec<u8> {
    let between = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = between.local_addr().expect("an address");
    let listening = tokio::spawn(async move {
        let (mut near, _) = between.accept().await.expect("the member");
        let mut far = TcpStream::connect(gateway).await.expect("the gateway");
        let mut heard = Vec::new();
        let (mut from_member, mut to_member) = near.split();
        let (mut from_gateway, mut to_gateway) = far.split();
        let up = async {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from_member.read(&mut bytes).await {
                heard.extend_from_slice(&bytes[..count]);
                if to_gateway.write_all(&bytes[..count]).await.is_err() {
                    break;
                }
            }
            let _ = to_gateway.shutdown().await;
        };
        let down = async {
            let _ = tokio::io::copy(&mut from_gateway, &mut to_member).await;
            let _ = to_member.shutdown().await;
        };
        tokio::join!(up, down);
        heard.truncate(FIRST_MESSAGES);
        heard
    });
    let status = sync(db, 0, address).await;
    assert!(status.error.is_none(), "{status:?}");
    let heard = timeout(PATIENCE, listening).await.expect("it ends").expect("no panic");
    assert_eq!((heard.len(), &heard[..2], &heard[7..9]), (FIRST_MESSAGES, &[0x47, 1][..], &[0x47, 1][..]));
    heard
}

/// What somebody who repeats `heard` is told, to the end of the connection.
async fn told(gateway: SocketAddr, heard: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway).await.expect("it listens");
    stream.write_all(heard).await.expect("it takes them");
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends").expect("in order");
    answer
}

/// Repeats what was heard so many times a second, hangs up on nobody, and keeps the newest connections open.
async fn repeat(gateway: SocketAddr, heard: Vec<u8>, each_second: u64, made: Arc<AtomicUsize>) {
    let mut beat = tokio::time::interval(Duration::from_micros(1_000_000 / each_second));
    let mut kept = std::collections::VecDeque::new();
    loop {
        beat.tick().await;
        let Ok(mut stream) = TcpStream::connect(gateway).await else { continue };
        if stream.write_all(&heard).await.is_ok() {
            made.fetch_add(1, Ordering::Relaxed);
            kept.push_back(stream);
        }
        if kept.len() > 2 * HALF_OPEN_MAX {
            kept.pop_front();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_offer_keeps_no_honest_peer_out() {
    let _alone = crate::ALONE.lock().await;
    let gateway = Gateway::start(2, 9).await;
    let (_folder, db) = database();
    let heard = overhear(gateway.address, &db).await;
    let mut honest = 1;
    // All that was heard, and only the question, after which the gateway waits.
    for (each_second, heard) in [(25, &heard[..]), (200, &heard[..]), (200, &heard[..7])] {
        let made = Arc::new(AtomicUsize::new(0));
        let (before, refused) = (gateway.acceptor.stats(), heard.len() == FIRST_MESSAGES);
        let attack = tokio::spawn(repeat(gateway.address, heard.to_vec(), each_second, Arc::clone(&made)));
        let mut syncs = 0;
        // Until there were more repetitions than places, too.
        while syncs < SYNCS || made.load(Ordering::Relaxed) < 2 * HALF_OPEN_MAX {
            let status = sync(&db, honest, gateway.address).await;
            assert!(status.error.is_none(), "sync {syncs} beside {each_second} a second: {status:?}");
            (syncs, honest) = (syncs + 1, honest + 1);
            assert!(gateway.acceptor.half_open() <= HALF_OPEN_MAX);
        }
        attack.abort();
        let _ = attack.await;
        let (after, made) = (gateway.acceptor.stats(), made.load(Ordering::Relaxed));
        println!(
            "{syncs} of {syncs} honest syncs beside {made} connections, {each_second} a second: {after:?}"
        );
        assert_eq!(after.accepted - before.accepted, syncs as u64, "somebody came in by repeating");
        if refused {
            // Some of the repetitions before are refused in this round.
            let kept = (made as u64).saturating_sub(after.refused - before.refused);
            assert!(kept <= HALF_OPEN_MAX as u64, "{kept} repetitions were not refused");
        }
        assert_eq!(gateway.documents(), honest as u64);
    }
}

/// Recorded once, asked of everybody: the member that it was meant for, another one, another group's.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_offer_finds_no_members() {
    let _alone = crate::ALONE.lock().await;
    let meant = Gateway::start(2, 9).await;
    let (_folder, db) = database();
    let heard = overhear(meant.address, &db).await;
    let (member, stranger) = (Gateway::start(3, 9).await, Gateway::start(4, 8).await);
    for gateway in [&meant, &member, &stranger] {
        let before = gateway.acceptor.stats().accepted;
        for _ in 0..3 {
            let answer = told(gateway.address, &heard).await;
            // CHALLENGE and REFUSE.
            assert_eq!((answer.len(), &answer[..4]), (43, &[0x47, 5, 32, 0][..]));
            assert_eq!(answer[36..], STRANGER);
        }
        assert_eq!(gateway.acceptor.stats().accepted, before);
    }
}
