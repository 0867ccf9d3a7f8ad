//! Both ends of each kind of stream: bytes, back-pressure, ends, stale sockets.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::*;
use crate::endpoint::{Inbound, Message, MessageEndpointConnection, MessagingError, ReplicatorConnection};

const INBOUND_BYTES: usize = 256 * 1024;

async fn open(connection: &StreamConnection) -> Inbound {
    let (handle, inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    connection.open(handle).await.expect("open");
    inbound
}

async fn pair(
    address: Address,
) -> (StreamListener, (StreamConnection, Inbound), (StreamConnection, Inbound)) {
    let listener = StreamListener::bind(address).await.expect("bind");
    let active = StreamConnection::connect(listener.local_address().clone());
    let active_inbound = open(&active).await;
    let passive = listener.accept().await.expect("accept").expect("a connection");
    let passive_inbound = open(&passive).await;
    (listener, (active, active_inbound), (passive, passive_inbound))
}

async fn collect(inbound: &mut Inbound) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(message) = inbound.next().await {
        bytes.extend_from_slice(&message);
    }
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn loopback() -> Address {
    Address::Tcp("127.0.0.1:0".to_owned())
}

async fn carries_bytes_both_ways(address: Address) {
    let (_listener, (active, mut active_in), (passive, mut passive_in)) = pair(address).await;
    let bytes = pattern(3_000_000);
    let send = async |connection: &StreamConnection| {
        for chunk in bytes.chunks(997) {
            connection.send(Message::from_bytes(chunk.to_vec())).await.expect("send");
        }
        connection.close(None).await.expect("close");
    };
    let (_, _, at_passive, at_active) =
        tokio::join!(send(&active), send(&passive), collect(&mut passive_in), collect(&mut active_in));
    assert!(at_passive == bytes && at_active == bytes);
    assert_eq!(passive_in.closed().map(|error| error.is_none()), Some(true));
}

#[tokio::test]
async fn tcp_carries_bytes_both_ways_and_ends_clean() {
    carries_bytes_both_ways(loopback()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_carries_bytes_both_ways_and_ends_clean() {
    let folder = tempfile::tempdir().expect("folder");
    carries_bytes_both_ways(Address::Unix(folder.path().join("socket"))).await;
}

#[tokio::test]
async fn a_library_that_takes_nothing_holds_the_sender_back() {
    let (_listener, (active, _active_in), (_passive, mut passive_in)) = pair(loopback()).await;
    let chunk = pattern(64 * 1024);
    let mut sent = 0usize;
    let flood = async {
        loop {
            active.send(Message::from_bytes(chunk.clone())).await.expect("send");
            sent += chunk.len();
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(300), flood).await;
    assert!(sent < 64 << 20, "{sent} bytes went into buffers");
    // An orderly close still delivers all of it once the library reads again.
    let (_, received) = tokio::join!(active.close(None), collect(&mut passive_in));
    assert_eq!(received.len(), sent);
}

#[tokio::test]
async fn close_completes_although_the_peer_reads_nothing() {
    let (_listener, (active, _in), (_passive, passive_in)) = pair(loopback()).await;
    let flood = async {
        loop {
            active.send(Message::from_bytes(pattern(64 * 1024))).await.expect("send");
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(200), flood).await;
    let started = Instant::now();
    active.close(Some(MessagingError::recoverable("enough"))).await.expect("close");
    assert!(started.elapsed() < Duration::from_millis(100));
    assert!(active.send(Message::from_bytes(vec![1])).await.is_err());
    drop(passive_in);
}

#[tokio::test]
async fn dropping_a_connection_equals_closing_it() {
    let (_listener, (active, active_in), (_passive, mut passive_in)) = pair(loopback()).await;
    drop((active, active_in));
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), passive_in.next()).await.expect("noticed"), None);
}

#[tokio::test]
async fn nobody_listens() {
    let address = StreamListener::bind(loopback()).await.expect("bind").local_address().clone();
    let active = StreamConnection::connect(address.clone());
    let (handle, _inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    let error = active.open(handle).await.expect_err("refused");
    assert!(error.is_recoverable() && error.message().contains(&address.to_string()), "{error}");
    active.close(None).await.expect("close");
}

#[tokio::test(start_paused = true)]
async fn close_ends_a_connect_that_hangs() {
    // A listener whose backlog is full would do; an address that is not routed does too, or fails at once.
    let active = std::sync::Arc::new(StreamConnection::connect(Address::Tcp("192.0.2.1:9".to_owned())));
    let (handle, _inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    let opening = tokio::spawn({
        let active = active.clone();
        async move { active.open(handle).await }
    });
    tokio::task::yield_now().await;
    active.close(None).await.expect("close");
    assert!(opening.await.expect("join").expect_err("closed").is_recoverable());
}

#[tokio::test]
async fn unix_socket_is_private_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("socket");
    let address = Address::Unix(path.clone());
    let stale = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    assert_eq!(
        StreamListener::bind(address.clone()).await.err().expect("in use").kind(),
        std::io::ErrorKind::AddrInUse
    );
    drop(stale);
    assert!(path.exists());
    let listener = StreamListener::bind(address.clone()).await.expect("replaces the stale one");
    assert_eq!(std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
    drop(listener);
    assert!(!path.exists());
    std::fs::write(&path, "precious").expect("write");
    assert!(StreamListener::bind(address).await.is_err());
    assert_eq!(std::fs::read(&path).expect("read"), b"precious");
}
