//! The passive side: connections that misbehave, and their neighbours.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::scripted::{Does, EmptyStore, Script, Scripted};
use crate::blip::frame::{FrameFlags, FrameHeader, FrameType};
use crate::blip::stream::StreamEncoder;
use crate::endpoint::framing::{Framing, FramingRole};
use crate::endpoint::{MessageEndpointConnection, MessagingError, ProtocolType};
use crate::replicator::service::PEER_CONNECTIONS_MAX;
use crate::replicator::service::status::lock;
use crate::replicator::{ListenerError, MessageEndpointListener, MessageEndpointListenerConfiguration};
use crate::replicator::{ReplicatorActivity, ReplicatorError, ReplicatorStatus};

use ProtocolType::{ByteStream, MessageStream};

type Log = Arc<Mutex<Vec<(Arc<dyn MessageEndpointConnection>, ReplicatorStatus)>>>;

fn listener(
    protocol: ProtocolType,
    change: impl FnOnce(&mut MessageEndpointListenerConfiguration),
) -> (MessageEndpointListener, Log) {
    let mut config = MessageEndpointListenerConfiguration::new(Arc::new(EmptyStore::default()), protocol);
    change(&mut config);
    let listener = MessageEndpointListener::new(config);
    let log = Log::default();
    let writer = Arc::clone(&log);
    let _ = listener.add_change_listener(move |change| {
        lock(&writer).push((Arc::clone(&change.connection), change.status.clone()));
    });
    (listener, log)
}

/// The error of a connection that has ended.
fn end_of(log: &Log, connection: &Arc<Scripted>) -> Option<ReplicatorError> {
    let connection: Arc<dyn MessageEndpointConnection> = connection.clone();
    let log = lock(log);
    let (_, status) = log.iter().rev().find(|(other, _)| Arc::ptr_eq(other, &connection)).expect("told of");
    assert_eq!(status.activity, ReplicatorActivity::Stopped);
    status.error.clone()
}

async fn closed(listener: &MessageEndpointListener) {
    timeout(Duration::from_secs(60), listener.wait_until_closed()).await.expect("all end");
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_one_connection_and_leaves_the_others() {
    for garbage in
        [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 5000], vec![0; 40], b"\x82\x05hello".to_vec()]
    {
        let (listener, log) = listener(ByteStream, |_| {});
        let (bad, good) = (Scripted::new(Script::default()), Scripted::new(Script::default()));
        listener.accept(bad.clone()).expect("accepted");
        listener.accept(good.clone()).expect("accepted");
        sleep(Duration::from_millis(1)).await;
        bad.handle().receive(garbage.into()).await;
        sleep(Duration::from_secs(2)).await;
        assert!(matches!(end_of(&log, &bad), Some(ReplicatorError::Framing(_))), "{:?}", end_of(&log, &bad));
        bad.assert_closed_once();
        assert!(lock(&bad.calls).closed[0].as_ref().is_some_and(|error| !error.is_recoverable()));
        assert_eq!(bad.sent_bytes()[..4], [0x88, bad.sent_bytes()[1], 0x03, 0xea], "closed with 1002");
        assert_eq!((good.closes(), listener.connections().len()), (0, 1));
    }
}

/// What one peer has sent at once is handled bit by bit: another is heard before its end.
#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_much_at_once_does_not_make_the_others_wait() {
    const PINGS: usize = 3200;
    let (listener, _) = listener(ByteStream, |_| {});
    let (busy, other) = (Scripted::new(Script::default()), Scripted::new(Script::default()));
    listener.accept(busy.clone()).expect("accepted");
    listener.accept(other.clone()).expect("accepted");
    sleep(Duration::from_millis(1)).await;
    let framing = Framing::new(FramingRole::Active, ByteStream);
    let ping = framing.encode_ping(b"", [1, 2, 3, 4]).expect("a byte stream has pings");
    busy.handle().receive(ping.repeat(PINGS).into()).await;
    other.handle().receive(ping.into()).await;
    while other.sent_bytes().is_empty() {
        tokio::task::yield_now().await;
    }
    let before = busy.sent_bytes().len();
    sleep(Duration::from_secs(1)).await;
    let all = busy.sent_bytes().len();
    assert!(before < all / 50, "{before} of {all} bytes were answered before the other peer was");
}

/// The same of few frames that are large: half a megabyte of a message that goes on, of which each piece is acknowledged.
#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_large_frames_at_once_does_not_make_the_others_wait() {
    const BODY: usize = 1 << 20;
    let (listener, _) = listener(ByteStream, |config| config.limits.inbound_bytes = 2 * BODY);
    let (busy, other) = (Scripted::new(Script::default()), Scripted::new(Script::default()));
    listener.accept(busy.clone()).expect("accepted");
    listener.accept(other.clone()).expect("accepted");
    sleep(Duration::from_millis(1)).await;
    let framing = Framing::new(FramingRole::Active, ByteStream);
    let flags = FrameFlags::new(FrameType::Request).with_more_coming(true);
    let (mut encoder, piece) = (StreamEncoder::new(0), vec![7; 50_000]);
    for n in 0..BODY / piece.len() {
        let mut frame = Vec::new();
        FrameHeader { number: 1, flags }.emit(&mut frame);
        // The first begins with the length of the properties: there are none.
        let checksum = encoder.encode(&[if n == 0 { &[0][..] } else { &[] }, &piece], false, &mut frame);
        frame.extend_from_slice(&checksum.to_be_bytes());
        busy.handle().receive(framing.encode_frame(&frame, [1, 2, 3, 4]).into()).await;
    }
    let ping = framing.encode_ping(b"", [1, 2, 3, 4]).expect("a byte stream has pings");
    other.handle().receive(ping.into()).await;
    while other.sent_bytes().is_empty() {
        tokio::task::yield_now().await;
    }
    let before = busy.sent_bytes().len();
    sleep(Duration::from_secs(1)).await;
    let all = busy.sent_bytes().len();
    assert!(all > 0 && before < all / 4, "{before} of {all} bytes were answered before the other peer was");
}

#[tokio::test(start_paused = true)]
async fn a_blip_frame_that_is_none_ends_the_connection() {
    for (protocol, bytes) in [
        (MessageStream, vec![0xff; 30]),
        (ByteStream, Framing::new(FramingRole::Active, ByteStream).encode_frame(&[0xff; 30], [1, 2, 3, 4])),
    ] {
        let (listener, log) = listener(protocol, |_| {});
        let connection = Scripted::new(Script::default());
        listener.accept(connection.clone()).expect("accepted");
        sleep(Duration::from_millis(1)).await;
        connection.handle().receive(bytes.into()).await;
        closed(&listener).await;
        assert!(matches!(end_of(&log, &connection), Some(ReplicatorError::Session(_))));
        connection.assert_closed_once();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_closed() {
    for protocol in [ByteStream, MessageStream] {
        let (listener, log) = listener(protocol, |_| {});
        let connection = Scripted::new(Script::default());
        let began = Instant::now();
        listener.accept(connection.clone()).expect("accepted");
        // Half a frame head is nothing.
        sleep(Duration::from_secs(5)).await;
        if protocol == ByteStream {
            connection.handle().receive(vec![0x82].into()).await;
        }
        closed(&listener).await;
        assert!(matches!(end_of(&log, &connection), Some(ReplicatorError::HandshakeTimeout { .. })));
        connection.assert_closed_once();
        // Over a byte stream it is told why, and may answer for a second.
        assert_eq!(began.elapsed().as_secs(), if protocol == ByteStream { 31 } else { 30 });
    }
}

/// A peer that has begun and falls silent keeps its place for so long after its last word, where the transport does not tell.
#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_closed_in_time() {
    let (listener, log) =
        listener(MessageStream, |config| config.limits.idle = Some(Duration::from_secs(600)));
    let connection = Scripted::new(Script::default());
    listener.accept(connection.clone()).expect("accepted");
    sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    let mut peer = crate::blip::Connection::new(crate::blip::BlipConfig::default());
    for wait in [0, 400] {
        sleep(Duration::from_secs(wait)).await;
        peer.send_request(crate::blip::OutgoingMessage::request("unheard")).expect("small");
        while let Some(frame) = peer.poll_frame() {
            connection.handle().receive(frame.into()).await;
        }
    }
    timeout(Duration::from_secs(3600), listener.wait_until_closed()).await.expect("it ends");
    assert!(matches!(end_of(&log, &connection), Some(ReplicatorError::IdleTimeout { .. })));
    assert_eq!(began.elapsed().as_secs(), 1_000);
    connection.assert_closed_once();
}

#[tokio::test(start_paused = true)]
async fn connections_are_limited_and_none_is_accepted_twice() {
    let (listener, _) = listener(ByteStream, |config| config.connections_max = 2);
    let all: Vec<_> = (0..3).map(|_| Scripted::new(Script::default())).collect();
    assert_eq!(listener.accept(all[0].clone()), Ok(()));
    assert_eq!(listener.accept(all[0].clone()), Err(ListenerError::AlreadyAccepted));
    assert_eq!(listener.accept(all[1].clone()), Ok(()));
    assert_eq!(listener.accept(all[2].clone()), Err(ListenerError::TooManyConnections { max: 2 }));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(lock(&all[2].calls).opened, 0);
    let first: Arc<dyn MessageEndpointConnection> = all[0].clone();
    assert_eq!(listener.status(&first).expect("open").activity, ReplicatorActivity::Busy);
    listener.close(&first);
    sleep(Duration::from_secs(11)).await;
    all[0].assert_closed_once();
    assert_eq!(all[0].sent_bytes(), [0x88, 0x02, 0x03, 0xe8], "an orderly end");
    assert!(listener.status(&first).is_none());
    assert_eq!(all[1].closes(), 0);
    assert_eq!(listener.accept(all[2].clone()), Ok(()), "there is room again");
}

fn of_peer(peer: &'static str) -> Arc<Scripted> {
    Scripted::new(Script { peer: Some(peer), ..Script::default() })
}

#[tokio::test(start_paused = true)]
async fn a_peer_keeps_its_newest_connections_and_no_place_of_others() {
    let (listener, _) = listener(ByteStream, |config| {
        config.connections_max = 6;
        // Nobody says anything here.
        config.limits.handshake = Duration::from_secs(3600);
    });
    let greedy: Vec<_> = (0..12).map(|_| of_peer("greedy")).collect();
    for connection in &greedy {
        listener.accept(connection.clone()).expect("the newest is taken");
        sleep(Duration::from_secs(11)).await;
    }
    let closes: Vec<_> = greedy.iter().map(|connection| connection.closes()).collect();
    let ended = greedy.len() - PEER_CONNECTIONS_MAX;
    assert!(closes[..ended].iter().all(|n| *n == 1) && closes[ended..].iter().all(|n| *n == 0), "{closes:?}");

    let unknown = [Scripted::new(Script::default()), Scripted::new(Script::default())];
    unknown.iter().for_each(|connection| listener.accept(connection.clone()).expect("room"));
    let full = Err(ListenerError::TooManyConnections { max: 6 });
    assert_eq!(listener.accept(Scripted::new(Script::default())), full, "nobody gives way to who is nobody");
    let others: Vec<_> = ["a", "b", "c"].map(of_peer).into();
    for connection in &others {
        assert_eq!(listener.accept(connection.clone()), Ok(()), "a place of who has several");
        sleep(Duration::from_secs(11)).await;
    }
    assert_eq!(listener.accept(of_peer("d")), full, "everybody has one");
    assert_eq!(listener.accept(of_peer("a")), full, "who has one gets no other's");
    let left = others.iter().chain(&unknown).chain(&greedy[greedy.len() - 1..]);
    assert!(left.into_iter().all(|connection| connection.closes() == 0));
    assert_eq!(listener.connections().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn who_connects_faster_than_its_connections_end_is_refused() {
    let (listener, _) = listener(ByteStream, |_| {});
    let stuck = Script { close: Does::Never, send: Does::Never, peer: Some("greedy"), ..Script::default() };
    for n in 0..100 {
        let taken = listener.accept(Scripted::new(stuck.clone()));
        assert_eq!(taken.is_ok(), n < 2 * PEER_CONNECTIONS_MAX, "{n}");
    }
    assert_eq!(listener.accept(of_peer("other")), Ok(()));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(listener.accept(of_peer("greedy")), Ok(()), "they are gone by then");
}

#[tokio::test(start_paused = true)]
async fn close_all_and_drop_close_every_connection_whatever_the_transport_does() {
    let hopeless =
        &[Does::Works, Does::Never, Does::Panics, Does::Fails(MessagingError::recoverable("test"))];
    for dropped in [false, true] {
        let (listener, _) = listener(ByteStream, |_| {});
        let scripts = hopeless.iter().flat_map(|open| {
            hopeless.iter().flat_map(move |send| {
                hopeless.iter().map(move |close| Script {
                    open: open.clone(),
                    send: send.clone(),
                    close: close.clone(),
                    drops_handle: false,
                    peer: None,
                })
            })
        });
        let all: Vec<_> = scripts.map(Scripted::new).collect();
        for connection in &all {
            listener.accept(connection.clone()).expect("accepted");
        }
        sleep(Duration::from_millis(1)).await;
        if dropped {
            drop(listener);
            // Before any would end for having said nothing.
            sleep(Duration::from_secs(25)).await;
        } else {
            listener.close_all();
            closed(&listener).await;
            assert!(listener.connections().is_empty());
        }
        all.iter().for_each(|connection| connection.assert_closed_once());
    }
}

#[tokio::test(start_paused = true)]
async fn callbacks_may_call_the_listener() {
    let (listener, _) = listener(MessageStream, |_| {});
    let listener = Arc::new(listener);
    let weak = Arc::downgrade(&listener);
    let _ = listener.add_change_listener(move |change| {
        if let Some(listener) = weak.upgrade() {
            assert!(listener.connections().len() <= 1);
            let _ = listener.status(&change.connection);
            listener.close(&change.connection);
            listener.close_all();
        }
    });
    let connection = Scripted::new(Script::default());
    listener.accept(connection.clone()).expect("accepted");
    closed(&listener).await;
    connection.assert_closed_once();
}
