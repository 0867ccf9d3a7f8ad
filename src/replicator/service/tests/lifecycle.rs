//! The active side: open, close, stop, retry, with transports that fail, hang or panic. All under virtual time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::scripted::{Delegate, Does, Script};
use crate::endpoint::{MessagingError, ProtocolType};
use crate::replicator::driver::error::TransportCall;
use crate::replicator::service::status::lock;
use crate::replicator::{Replicator, ReplicatorActivity, ReplicatorError, ReplicatorStatus};

use ProtocolType::{ByteStream, MessageStream};
use ReplicatorActivity::{Busy, Offline, Stopped};

/// Above every limit of one connection together.
const FOREVER: Duration = Duration::from_secs(3600);

async fn stopped(replicator: &Replicator) -> ReplicatorStatus {
    timeout(FOREVER, replicator.wait_until_stopped()).await.expect("it stops")
}

async fn reaches(replicator: &Replicator, activity: ReplicatorActivity) -> ReplicatorStatus {
    timeout(FOREVER, replicator.wait_until(|status| status.activity == activity))
        .await
        .expect("it gets there")
}

fn all_ways(close: Does) -> [Script; 4] {
    [Does::Works, Does::Never, Does::Panics, Does::Fails(MessagingError::recoverable("test"))]
        .map(|open| Script { open, close: close.clone(), ..Script::default() })
}

#[tokio::test(start_paused = true)]
async fn an_open_that_never_returns_is_given_up_and_closed() {
    let delegate = Delegate::new(Script { open: Does::Never, ..Script::default() });
    let replicator = delegate.replicator(ByteStream, |config| config.max_attempts = Some(1));
    let began = Instant::now();
    replicator.start();
    let status = stopped(&replicator).await;
    assert!(
        matches!(status.error, Some(ReplicatorError::TransportTimeout { call: TransportCall::Open, .. })),
        "{status:?}"
    );
    assert_eq!(began.elapsed().as_secs(), 15);
    delegate.last().assert_closed_once();
}

#[tokio::test(start_paused = true)]
async fn close_is_called_once_for_each_open_and_need_not_return() {
    for close in [Does::Works, Does::Never, Does::Panics, Does::Fails(MessagingError::permanent("no"))] {
        for protocol in [ByteStream, MessageStream] {
            for script in all_ways(close.clone()) {
                let delegate = Delegate::new(script.clone());
                let replicator = delegate.replicator(protocol, |config| config.max_attempts = Some(2));
                replicator.start();
                sleep(Duration::from_secs(1)).await;
                replicator.stop();
                let status = stopped(&replicator).await;
                assert!(!delegate.made().is_empty(), "{script:?}");
                for connection in delegate.made() {
                    connection.assert_closed_once();
                }
                let panicked = matches!(script.open, Does::Panics);
                assert!(status.error.is_none() || panicked, "{script:?} {status:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stop_during_open_ends_at_once() {
    let delegate = Delegate::new(Script { open: Does::Never, ..Script::default() });
    let replicator = delegate.replicator(ByteStream, |_| {});
    replicator.start();
    sleep(Duration::from_secs(1)).await;
    replicator.stop();
    let began = Instant::now();
    let status = stopped(&replicator).await;
    assert!(status.error.is_none() && began.elapsed() < Duration::from_secs(1), "{status:?}");
    delegate.last().assert_closed_once();
}

/// Before its task has begun: no later word would end such a run.
#[tokio::test(start_paused = true)]
async fn stop_or_drop_right_after_start_ends_it() {
    let delegate = Delegate::new(Script { open: Does::Never, ..Script::default() });
    let replicator = delegate.replicator(ByteStream, |config| config.continuous = true);
    replicator.start();
    replicator.stop();
    assert!(stopped(&replicator).await.error.is_none());
    assert!(delegate.made().is_empty());
    // The last word counts.
    replicator.start();
    replicator.stop();
    replicator.start();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(delegate.made().len(), 1);
    replicator.stop();
    stopped(&replicator).await;
    replicator.start();
    drop(replicator);
    sleep(FOREVER).await;
    assert_eq!(delegate.made().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stop_during_a_send_that_never_completes_is_bounded() {
    for close in [Does::Works, Does::Never] {
        let delegate = Delegate::new(Script { send: Does::Never, close, ..Script::default() });
        let replicator = delegate.replicator(ByteStream, |config| config.continuous = true);
        replicator.start();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(replicator.status().activity, Busy);
        replicator.stop();
        let began = Instant::now();
        stopped(&replicator).await;
        let limits = &replicator.configuration().limits;
        assert!(began.elapsed() <= limits.stop + limits.close * 3, "{:?}", began.elapsed());
        delegate.last().assert_closed_once();
    }
}

#[tokio::test(start_paused = true)]
async fn a_send_that_never_completes_is_given_up() {
    let delegate = Delegate::new(Script { send: Does::Never, ..Script::default() });
    let replicator = delegate.replicator(MessageStream, |config| {
        config.max_attempts = Some(1);
        config.limits.send = Duration::from_secs(7);
    });
    let began = Instant::now();
    replicator.start();
    let status = stopped(&replicator).await;
    assert!(
        matches!(status.error, Some(ReplicatorError::TransportTimeout { call: TransportCall::Send, .. })),
        "{status:?}"
    );
    assert_eq!(began.elapsed().as_secs(), 7);
    delegate.last().assert_closed_once();
}

/// What is on its way at a stop has its time, and no more: first to come to an end, then to be sent, then for the closing frame.
#[tokio::test(start_paused = true)]
async fn each_part_of_a_stop_has_its_own_limit() {
    let session = crate::replicator::config::STOP_TIMEOUT.as_secs();
    for (stop, close, takes) in [(60, 3, session + 3 + 3), (2, 4, 2 + 4)] {
        let delegate = Delegate::new(Script { send: Does::Never, ..Script::default() });
        let replicator = delegate.replicator(ByteStream, |config| {
            config.continuous = true;
            config.limits.stop = Duration::from_secs(stop);
            config.limits.close = Duration::from_secs(close);
        });
        replicator.start();
        reaches(&replicator, Busy).await;
        sleep(Duration::from_secs(1)).await;
        replicator.stop();
        let began = Instant::now();
        assert!(stopped(&replicator).await.error.is_none());
        assert_eq!(began.elapsed().as_secs(), takes, "{stop} {close}");
    }
}

/// Whoever has said stop does not hear what else went wrong.
#[tokio::test(start_paused = true)]
async fn an_error_while_stopping_is_none() {
    let delegate = Delegate::new(Script { send: Does::Never, ..Script::default() });
    let replicator = delegate.replicator(ByteStream, |config| config.continuous = true);
    replicator.start();
    reaches(&replicator, Busy).await;
    replicator.stop();
    sleep(Duration::from_millis(100)).await;
    delegate.last().handle().receive(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec().into()).await;
    let began = Instant::now();
    let status = stopped(&replicator).await;
    assert!(status.error.is_none(), "{status:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "it ended by the error: {:?}", began.elapsed());
    assert_eq!(delegate.made().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_send_that_panics_or_fails_for_good_stops() {
    for send in [Does::Panics, Does::Fails(MessagingError::permanent("never again"))] {
        let delegate = Delegate::new(Script { send, ..Script::default() });
        let replicator = delegate.replicator(MessageStream, |config| config.continuous = true);
        replicator.start();
        let status = stopped(&replicator).await;
        assert!(matches!(status.error, Some(ReplicatorError::Messaging(_))), "{status:?}");
        assert_eq!(delegate.made().len(), 1);
        delegate.last().assert_closed_once();
    }
}

#[tokio::test(start_paused = true)]
async fn one_shot_tries_ten_times_with_growing_waits_and_new_connections() {
    let delegate = Delegate::new(Script {
        open: Does::Fails(MessagingError::recoverable("out of range")),
        ..Script::default()
    });
    let replicator = delegate.replicator(ByteStream, |_| {});
    replicator.start();
    let status = stopped(&replicator).await;
    assert!(matches!(status.error, Some(ReplicatorError::Messaging(_))), "{status:?}");
    let made = delegate.made();
    assert_eq!(made.len(), 10);
    for (n, pair) in made.windows(2).enumerate() {
        assert!(!Arc::ptr_eq(&pair[0], &pair[1]));
        let wait = (pair[1].created - pair[0].created).as_secs_f64();
        let whole = 2f64.powi(n as i32 + 1).min(300.0);
        assert!(wait <= whole + 0.01 && wait >= whole * 0.89, "wait {n} was {wait} of {whole}");
    }
    made.iter().for_each(|connection| connection.assert_closed_once());
}

#[tokio::test(start_paused = true)]
async fn continuous_goes_on_trying_and_stops_from_offline() {
    let delegate = Delegate::new(Script {
        open: Does::Fails(MessagingError::recoverable("out of range")),
        ..Script::default()
    });
    let replicator = delegate.replicator(ByteStream, |config| config.continuous = true);
    replicator.start();
    sleep(Duration::from_secs(3600)).await;
    assert!(delegate.made().len() > 15);
    let status = reaches(&replicator, Offline).await;
    assert!(status.error.is_some());
    let before = delegate.made().len();
    replicator.retry_now();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(delegate.made().len(), before + 1);
    replicator.stop();
    let began = Instant::now();
    assert!(stopped(&replicator).await.error.is_none());
    assert!(began.elapsed() < Duration::from_secs(1));
    // And again.
    replicator.start();
    reaches(&replicator, Offline).await;
    drop(replicator);
    sleep(Duration::from_secs(1)).await;
    let after = delegate.made().len();
    sleep(FOREVER).await;
    assert_eq!(delegate.made().len(), after, "dropping it stops it");
}

#[tokio::test(start_paused = true)]
async fn the_transports_close_decides_what_follows() {
    // (protocol, continuous, error, whether it tries again)
    let recoverable = || Some(MessagingError::recoverable("lost"));
    let permanent = || Some(MessagingError::permanent("wrong peer"));
    let cases = [
        (ByteStream, false, recoverable(), true),
        (ByteStream, true, permanent(), false),
        (MessageStream, true, permanent(), false),
        // Without a closing frame a byte stream that ends was lost.
        (ByteStream, false, None, true),
        // A peer that closes a message stream is going away.
        (MessageStream, false, None, false),
        (MessageStream, true, None, true),
    ];
    for (protocol, continuous, error, again) in cases {
        let delegate = Delegate::new(Script::default());
        let replicator = delegate.replicator(protocol, |config| config.continuous = continuous);
        replicator.start();
        reaches(&replicator, Busy).await;
        let connection = delegate.last();
        connection.handle().close(error.clone());
        let status = reaches(&replicator, if again { Offline } else { Stopped }).await;
        assert!(status.error.is_some());
        connection.assert_closed_once();
        if error.is_none() {
            assert_eq!(
                matches!(status.error, Some(ReplicatorError::Lost)),
                protocol == ByteStream,
                "{status:?}"
            );
        }
        if let Some(error) = error {
            let told = lock(&connection.calls).closed[0].clone().expect("the same error");
            assert_eq!(told.message(), error.message());
        }
        replicator.stop();
        stopped(&replicator).await;
    }
}

#[tokio::test(start_paused = true)]
async fn states_come_as_a_stream_that_ends_with_the_replicator() {
    let delegate = Delegate::new(Script { open: Does::Never, ..Script::default() });
    let replicator = delegate.replicator(ByteStream, |config| config.max_attempts = Some(1));
    let mut states = replicator.statuses();
    let now = states.next().await.expect("its state now");
    assert_eq!((now.activity, now.error.is_some()), (Stopped, false));
    replicator.start();
    let mut activities = Vec::new();
    loop {
        let status = timeout(FOREVER, states.next()).await.expect("it goes on").expect("it is there");
        activities.push(status.activity);
        if status.activity == Stopped {
            assert!(status.error.is_some());
            break;
        }
    }
    activities.dedup();
    assert_eq!(activities, [ReplicatorActivity::Connecting, Stopped]);
    drop(replicator);
    assert!(timeout(FOREVER, states.next()).await.expect("it ends").is_none());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_equals_closing_and_receive_after_close_is_ignored() {
    let delegate = Delegate::new(Script { drops_handle: true, ..Script::default() });
    let replicator = delegate.replicator(MessageStream, |_| {});
    replicator.start();
    let status = stopped(&replicator).await;
    assert!(matches!(status.error, Some(ReplicatorError::GoingAway | ReplicatorError::Lost)), "{status:?}");
    delegate.last().assert_closed_once();

    let delegate = Delegate::new(Script::default());
    let replicator = delegate.replicator(MessageStream, |_| {});
    replicator.start();
    reaches(&replicator, Busy).await;
    let handle = delegate.last().handle();
    replicator.stop();
    stopped(&replicator).await;
    for _ in 0..1000 {
        handle.receive(vec![0xff; 16_384].into()).await;
    }
    handle.close(Some(MessagingError::permanent("too late")));
    assert!(replicator.status().error.is_none());
    delegate.last().assert_closed_once();
}

#[tokio::test(start_paused = true)]
async fn callbacks_may_call_back() {
    let delegate =
        Delegate::new(Script { open: Does::Fails(MessagingError::recoverable("no")), ..Script::default() });
    let replicator = Arc::new(delegate.replicator(ByteStream, |_| {}));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (weak, log) = (Arc::downgrade(&replicator), Arc::clone(&seen));
    let token = replicator.add_change_listener(move |status| {
        lock(&log).push(status.activity);
        let Some(replicator) = weak.upgrade() else { return };
        let _ = replicator.status();
        let _ = replicator.add_document_listener(|_| {});
        match status.activity {
            Offline if lock(&log).len() < 8 => replicator.stop(),
            Stopped if lock(&log).len() < 8 => replicator.start(),
            Offline => panic!("a callback's panic disturbs nobody"),
            _ => {}
        }
    });
    replicator.start();
    sleep(Duration::from_secs(10)).await;
    let order = lock(&seen).clone();
    assert!(order.len() > 8, "{order:?}");
    assert_eq!(order[..3], [ReplicatorActivity::Connecting, Offline, Stopped], "{order:?}");
    token.remove();
    let count = lock(&seen).len();
    replicator.stop();
    stopped(&replicator).await;
    assert_eq!(lock(&seen).len(), count);
}

#[tokio::test(start_paused = true)]
async fn a_delegate_that_panics_stops_the_replicator() {
    use crate::endpoint::{MessageEndpoint, MessageEndpointConnection};
    let delegate = |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> { panic!("test") };
    let endpoint = MessageEndpoint::new("peer", Arc::new(()), ByteStream, Arc::new(delegate));
    let store = Arc::new(super::scripted::EmptyStore::default());
    let replicator = Replicator::new(crate::replicator::ReplicatorConfiguration::new(endpoint, store));
    replicator.start();
    assert!(matches!(stopped(&replicator).await.error, Some(ReplicatorError::Panicked { .. })));
}

/// A runtime that is shut down takes the task with it: whoever asks hears that it has ended, and not in order.
#[test]
fn a_replicator_ends_with_its_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let delegate = Delegate::new(Script { open: Does::Never, ..Script::default() });
    let replicator = runtime.block_on(async {
        let replicator = delegate.replicator(ByteStream, |config| config.continuous = true);
        replicator.start();
        tokio::task::yield_now().await;
        replicator
    });
    assert_ne!(replicator.status().activity, Stopped);
    drop(runtime);
    let status = replicator.status();
    assert_eq!(status.activity, Stopped);
    assert!(matches!(status.error, Some(ReplicatorError::Panicked { .. })), "{status:?}");
}
