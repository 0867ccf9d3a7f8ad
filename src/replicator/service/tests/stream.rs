//! The byte stream's own frames: heartbeats, closing frames and their codes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::scripted::{Delegate, Does, Script, Scripted};
use crate::endpoint::ProtocolType::ByteStream;
use crate::endpoint::framing::{Framing, FramingEvent, FramingRole};
use crate::replicator::service::status::lock;
use crate::replicator::{Replicator, ReplicatorActivity, ReplicatorError, ReplicatorStatus};

async fn reaches(replicator: &Replicator, activity: ReplicatorActivity) -> ReplicatorStatus {
    let wanted = replicator.wait_until(|status| status.activity == activity);
    timeout(Duration::from_secs(3600), wanted).await.expect("it gets there")
}

fn connected() -> (Arc<Delegate>, Replicator) {
    let delegate = Delegate::new(Script::default());
    let replicator = delegate.replicator(ByteStream, |config| {
        config.continuous = true;
        // Shorter than the time after which the session misses its answers.
        config.limits.heartbeat = Duration::from_secs(10);
        config.limits.heartbeat_timeout = Duration::from_secs(5);
    });
    replicator.start();
    (delegate, replicator)
}

/// What the active side has sent, without its BLIP frames.
fn control_frames(connection: &Scripted) -> Vec<FramingEvent> {
    let mut framing = Framing::new(FramingRole::Passive, ByteStream);
    framing.handle_bytes(&connection.sent_bytes()).expect("correct frames");
    std::iter::from_fn(|| framing.poll_event())
        .filter(|event| !matches!(event, FramingEvent::Frame(_)))
        .collect()
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    Framing::new(FramingRole::Passive, ByteStream)
        .encode_close(code, reason, [0; 4])
        .expect("a byte stream has them")
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_sent_a_ping_and_then_given_up() {
    let (delegate, replicator) = connected();
    let began = Instant::now();
    sleep(Duration::from_secs(11)).await;
    assert!(matches!(control_frames(&delegate.last())[..], [FramingEvent::Ping(_)]));
    let status = reaches(&replicator, ReplicatorActivity::Offline).await;
    assert!(matches!(status.error, Some(ReplicatorError::PeerSilent { .. })), "{status:?}");
    assert_eq!(began.elapsed().as_secs(), 15);
    delegate.last().assert_closed_once();
}

#[tokio::test(start_paused = true)]
async fn a_pong_keeps_the_connection_and_a_ping_is_answered() {
    let (delegate, replicator) = connected();
    reaches(&replicator, ReplicatorActivity::Busy).await;
    let peer = Framing::new(FramingRole::Passive, ByteStream);
    let connection = delegate.last();
    for _ in 0..4 {
        sleep(Duration::from_secs(11)).await;
        connection.handle().receive(peer.encode_pong(&[], [0; 4]).expect("pong").into()).await;
    }
    assert_eq!(control_frames(&connection).len(), 4);
    assert_eq!(replicator.status().activity, ReplicatorActivity::Busy);
    connection.handle().receive(peer.encode_ping(b"are you there", [0; 4]).expect("ping").into()).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(control_frames(&connection).last(), Some(&FramingEvent::Pong(b"are you there"[..].into())));
    // A flood of them does not grow without bound.
    let flood = peer.encode_ping(&[7; 125], [0; 4]).expect("ping").repeat(10_000);
    connection.handle().receive(flood.into()).await;
    sleep(Duration::from_secs(1)).await;
    assert!(connection.sent_bytes().len() < 100_000);
}

#[tokio::test(start_paused = true)]
async fn the_peers_close_code_decides_what_follows() {
    // (code, whether it tries again)
    for (code, again) in
        [(1000, true), (1001, true), (4001, true), (4002, false), (1002, false), (1005, false)]
    {
        let (delegate, replicator) = connected();
        reaches(&replicator, ReplicatorActivity::Busy).await;
        let connection = delegate.last();
        connection.handle().receive(close_frame(code, "because").into()).await;
        let end = if again { ReplicatorActivity::Offline } else { ReplicatorActivity::Stopped };
        let status = reaches(&replicator, end).await;
        match status.error {
            Some(ReplicatorError::GoingAway) => assert!(code <= 1001),
            Some(ReplicatorError::ClosedByPeer { code: told, .. }) => assert_eq!(told, code),
            other => panic!("{other:?}"),
        }
        connection.assert_closed_once();
        let answers = control_frames(&connection);
        let [FramingEvent::Close { code: answered, .. }] = answers[..] else { panic!("{code}: {answers:?}") };
        assert_eq!(answered, if code == 1005 { 1000 } else { code });
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_away_is_looked_for_again_by_a_one_shot_replicator_too() {
    let delegate = Delegate::new(Script::default());
    let replicator = delegate.replicator(ByteStream, |config| config.max_attempts = Some(2));
    replicator.start();
    reaches(&replicator, ReplicatorActivity::Busy).await;
    delegate.last().handle().receive(close_frame(1000, "").into()).await;
    let status = reaches(&replicator, ReplicatorActivity::Offline).await;
    assert!(matches!(status.error, Some(ReplicatorError::GoingAway)), "{status:?}");
    reaches(&replicator, ReplicatorActivity::Busy).await;
    delegate.last().handle().receive(close_frame(1001, "").into()).await;
    let status = reaches(&replicator, ReplicatorActivity::Stopped).await;
    assert!(matches!(status.error, Some(ReplicatorError::GoingAway)), "{status:?}");
    assert!(
        lock(&delegate.last().calls).closed[0].is_none(),
        "an orderly end is none of the transport's errors"
    );
}

#[tokio::test(start_paused = true)]
async fn stop_says_so_to_the_peer_and_waits_for_its_answer() {
    let (delegate, replicator) = connected();
    reaches(&replicator, ReplicatorActivity::Busy).await;
    replicator.stop();
    reaches(&replicator, ReplicatorActivity::Stopped).await;
    let connection = delegate.last();
    let [FramingEvent::Close { code: 1000, .. }] = control_frames(&connection)[..] else {
        panic!("{:?}", control_frames(&connection));
    };
    connection.assert_closed_once();
}

/// The closing frame goes after what is being sent, unless that cannot be.
#[tokio::test(start_paused = true)]
async fn the_end_is_told_after_what_is_on_its_way() {
    let second = Duration::from_secs(1);
    for (send, told) in
        [(Does::Takes(3 * second), true), (Does::Takes(second / 2), true), (Does::Takes(20 * second), false)]
    {
        let delegate = Delegate::new(Script { send: send.clone(), ..Script::default() });
        let replicator = delegate.replicator(ByteStream, |config| {
            config.continuous = true;
            config.limits.stop = second;
        });
        replicator.start();
        reaches(&replicator, ReplicatorActivity::Busy).await;
        replicator.stop();
        reaches(&replicator, ReplicatorActivity::Stopped).await;
        let frames = control_frames(&delegate.last());
        assert_eq!(
            matches!(frames[..], [FramingEvent::Close { code: 1000, .. }]),
            told,
            "{send:?} {frames:?}"
        );
    }
}

/// The answer of the peer ends the wait for it.
#[tokio::test(start_paused = true)]
async fn the_peers_answer_to_the_end_is_read() {
    let (delegate, replicator) = connected();
    reaches(&replicator, ReplicatorActivity::Busy).await;
    let connection = delegate.last();
    replicator.stop();
    while control_frames(&connection).is_empty() {
        sleep(Duration::from_millis(100)).await;
    }
    let told = Instant::now();
    connection.handle().receive(close_frame(1000, "").into()).await;
    reaches(&replicator, ReplicatorActivity::Stopped).await;
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
}

#[tokio::test(start_paused = true)]
async fn garbage_from_the_passive_side_stops_with_a_typed_error() {
    let (delegate, replicator) = connected();
    reaches(&replicator, ReplicatorActivity::Busy).await;
    delegate.last().handle().receive(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec().into()).await;
    let status = reaches(&replicator, ReplicatorActivity::Stopped).await;
    assert!(matches!(status.error, Some(ReplicatorError::Framing(_))), "{status:?}");
    delegate.last().assert_closed_once();
}

/// What was received before the transport failed counts, in order: the peer's reason, and garbage behind which nothing is read.
#[tokio::test(start_paused = true)]
async fn what_came_before_the_transport_failed_counts() {
    let ends_with = |messages: Vec<Vec<u8>>| async move {
        let (delegate, replicator) = connected();
        reaches(&replicator, ReplicatorActivity::Busy).await;
        let handle = delegate.last().handle();
        for message in messages {
            handle.receive(message.into()).await;
        }
        handle.close(Some(crate::endpoint::MessagingError::recoverable("cut")));
        replicator.wait_until(|status| status.error.is_some()).await.error
    };
    let pong = || Framing::new(FramingRole::Passive, ByteStream).encode_pong(&[], [0; 4]).expect("pong");
    for before in 0..4 {
        let messages = (0..before).map(|_| pong()).chain([close_frame(4002, "because")]).collect();
        let error = ends_with(messages).await;
        assert!(
            matches!(error, Some(ReplicatorError::ClosedByPeer { code: 4002, .. })),
            "{before} before: {error:?}"
        );
    }
    let error = ends_with(vec![b"HTTP/1.1 400 Bad".to_vec(), close_frame(4002, "because")]).await;
    assert!(!matches!(error, Some(ReplicatorError::ClosedByPeer { .. })), "garbage says nothing: {error:?}");
    assert!(matches!(ends_with(Vec::new()).await, Some(ReplicatorError::Messaging(_))));
}
