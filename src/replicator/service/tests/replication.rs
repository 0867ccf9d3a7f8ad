//! Both sides together with real databases, over both protocol types.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::pair::{LIMIT, Pair, arrives, contents, fill, put};
use super::pipe::{RequestError, ToListener};
use super::scripted::EmptyStore;
use crate::database::{Database, DatabaseConfig, Durability};
use crate::endpoint::{CollectionAccess, MessageEndpoint, ProtocolType};
use crate::replicator::error::SessionError;
use crate::replicator::service::status::lock;
use crate::replicator::{
    ConnectionLimits, Direction, Replicator, ReplicatorActivity, ReplicatorConfiguration, ReplicatorError,
    ReplicatorType,
};

use ProtocolType::{ByteStream, MessageStream};
use ReplicatorActivity::{Busy, Idle, Offline, Stopped};

#[tokio::test(start_paused = true)]
async fn one_shot_exchanges_everything_and_the_next_has_nothing_to_do() {
    // With and without the extension between gattway peers.
    for (protocol, extension) in
        [(ByteStream, true), (MessageStream, true), (ByteStream, false), (MessageStream, false)]
    {
        let pair = Pair::new(protocol, |config| config.extension = extension);
        fill(&pair.field, "field", 500, 100);
        fill(&pair.hub, "hub", 300, 100);
        let seen = Arc::new(Mutex::new((0, 0)));
        let replicator = pair.replicator(&[], |_| {});
        let count = Arc::clone(&seen);
        replicator.add_document_listener(move |document| {
            assert_eq!(document.error, None);
            let mut count = lock(&count);
            match document.direction {
                Direction::Sent => count.0 += 1,
                Direction::Received => count.1 += 1,
            }
        });
        replicator.start();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(status.error.is_none(), "{protocol:?} {status:?}");
        assert_eq!(*lock(&seen), (500, 300), "{protocol:?}");
        assert_eq!((status.progress.documents, status.progress.completed), (800, status.progress.total));
        pair.assert_equal();
        assert!(pair.last_error().await.is_none());

        let again = pair.sync().await;
        assert!(again.error.is_none() && again.progress.documents == 0, "{protocol:?} {again:?}");
        // The same object can run again.
        put(&pair.field, "one-more", json!({ "n": 1 }));
        replicator.start();
        let third = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(third.error.is_none() && third.progress.documents == 1, "{protocol:?} {third:?}");
        pair.assert_equal();
    }
}

/// The peer's last word costs a round trip: it is not awaited where the transport itself hears that all has arrived. A stock
/// peer's always is.
#[tokio::test(start_paused = true)]
async fn where_close_is_answered_the_last_word_of_a_gattway_peer_is_not_awaited() {
    for extension in [false, true] {
        let pair = Pair::new(ByteStream, |config| config.extension = extension);
        put(&pair.field, "one", json!({ "n": 1 }));
        let replicator = pair.replicator(&[RequestError::CloseIsLast], |_| {});
        let began = tokio::time::Instant::now();
        replicator.start();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(status.error.is_none(), "{extension} {status:?}");
        let waited = began.elapsed() >= ConnectionLimits::default().close;
        assert_eq!(waited, !extension, "{:?}", began.elapsed());
        assert!(pair.last_error().await.is_none(), "the listener sees an orderly end");
        pair.assert_equal();
        let again = pair.sync().await;
        // Of what a stock peer has pushed the newest is listed to it once more.
        assert!(
            again.error.is_none() && again.progress.total == u64::from(!extension),
            "the checkpoint has arrived: {again:?}"
        );
    }
}

/// What was refused is heard of; what a filter leaves out and what is the other side's to resolve is nothing refused.
#[tokio::test(start_paused = true)]
async fn a_listener_hears_of_what_it_refuses_and_counts_that_alone() {
    for extension in [false, true] {
        let pair = Pair::new(ByteStream, |config| {
            config.extension = extension;
            config.incoming_filter = Some(Arc::new(|input| !input.id.starts_with("left-out")));
        });
        let status = pair.sync().await;
        assert!(status.error.is_none(), "{status:?}");
        let told = |wanted| lock(&pair.changes).iter().any(|change| change.status.activity == wanted);
        timeout(LIMIT, pair.listener.wait_until_closed()).await.expect("it ends");
        assert!(told(Busy) && told(Stopped), "it was open, though there was nothing to do");
        let blob = pair.field.save_blob(&b"a picture"[..], "image/png").expect("saved");
        put(&pair.field, "photo", json!({ "picture": blob }));
        std::fs::remove_dir_all(pair.field.path().join("blobs")).expect("it is lost");
        put(&pair.field, "left-out", json!({ "n": 1 }));
        put(&pair.field, "both", json!({ "by": "field" }));
        put(&pair.hub, "both", json!({ "by": "hub" }));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let _token = pair.listener.add_document_listener(move |_, document| {
            lock(&hears).push((document.id.clone(), document.error.is_some()));
        });
        let status = pair.sync().await;
        assert!(status.error.is_none(), "{status:?}");
        assert!(
            lock(&heard).contains(&("photo".to_owned(), true)),
            "extension {extension}: {:?}",
            lock(&heard)
        );
        assert_eq!(pair.listener.refusals().documents, 1, "extension {extension}: {:?}", lock(&heard));
    }
}

/// With nothing left to do or to save it ends when it is asked for frames, and nothing comes that would wake it later.
#[tokio::test(start_paused = true)]
async fn a_stop_of_an_idle_run_ends_it_at_once() {
    for protocol in [ByteStream, MessageStream] {
        let pair = Pair::new(protocol, |_| {});
        let replicator = pair.replicator(&[], |config| config.continuous = true);
        replicator.start();
        timeout(LIMIT, replicator.wait_until(|status| status.activity == Idle)).await.expect("it is in sync");
        let began = tokio::time::Instant::now();
        replicator.stop();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(status.error.is_none(), "{protocol:?} {status:?}");
        assert!(began.elapsed() < Duration::from_secs(1), "{protocol:?} {:?}", began.elapsed());
        assert!(pair.last_error().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn continuous_carries_a_change_each_way_and_stops_in_order() {
    for protocol in [ByteStream, MessageStream] {
        let pair = Pair::new(protocol, |_| {});
        let replicator = pair.replicator(&[], |config| config.continuous = true);
        replicator.start();
        timeout(LIMIT, replicator.wait_until(|status| status.activity == Idle)).await.expect("it gets idle");
        for n in 0..5 {
            let value = json!({ "n": n });
            put(&pair.field, "from-field", value.clone());
            arrives(&pair.hub, "from-field", &value).await;
            put(&pair.hub, "from-hub", value.clone());
            arrives(&pair.field, "from-hub", &value).await;
        }
        pair.field.default_collection().expect("exists").delete("from-hub").expect("deleted");
        let mut changes = pair.hub.watch();
        while pair.hub.default_collection().expect("exists").get("from-hub").expect("reads").is_some() {
            timeout(LIMIT, changes.changed()).await.expect("the deletion arrives").expect("open");
        }
        timeout(LIMIT, replicator.wait_until(|status| status.activity == Idle))
            .await
            .expect("it gets idle again");
        replicator.stop();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(status.error.is_none(), "{status:?}");
        pair.assert_equal();
        assert!(pair.last_error().await.is_none());
    }
}

/// What a connection may do is what was said when it was accepted.
#[tokio::test(start_paused = true)]
async fn a_connection_may_do_what_was_said_of_it() {
    for [push, pull] in [[true, false], [false, true], [false, false]] {
        let mut pair = Pair::new(ByteStream, |_| {});
        pair.access = Some(Arc::new(move |_: &str| CollectionAccess { push, pull }));
        put(&pair.field, "from-field", json!({}));
        put(&pair.hub, "from-hub", json!({}));
        pair.sync().await;
        let there = |db: &Database| contents(db).len() == 2;
        assert_eq!([there(&pair.hub), there(&pair.field)], [push, pull]);
    }
}

/// That a connection has come to rest is told to those who listen to the listener too.
#[tokio::test(start_paused = true)]
async fn the_listener_tells_of_work_and_rest() {
    let pair = Pair::new(ByteStream, |_| {});
    put(&pair.field, "from-field", json!({}));
    let replicator = pair.replicator(&[], |config| config.continuous = true);
    replicator.start();
    let rests = async {
        while lock(&pair.changes).last().is_none_or(|change| change.status.activity != Idle) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, rests).await.expect("it is told");
}

#[tokio::test(start_paused = true)]
async fn the_passive_side_may_end_it_first() {
    for (protocol, continuous) in [(ByteStream, true), (ByteStream, false), (MessageStream, true)] {
        let pair = Pair::new(protocol, |_| {});
        fill(&pair.field, "field", 2000, 400);
        // At the first sign of the first connection, so that even a one-shot run is still at it.
        let (weak, first) = (Arc::downgrade(&pair.listener), AtomicBool::new(true));
        pair.listener.add_change_listener(move |change| {
            if change.status.activity == Busy
                && first.swap(false, Ordering::Relaxed)
                && let Some(listener) = weak.upgrade()
            {
                listener.close_all();
            }
        });
        let replicator = pair.replicator(&[], |config| config.continuous = continuous);
        replicator.start();
        let comes_back = continuous || protocol == ByteStream;
        let end = if comes_back { Offline } else { Stopped };
        let status = timeout(LIMIT, replicator.wait_until(|status| status.activity == end))
            .await
            .expect("it hears of it");
        // A transport that is closed before it was open is lost; only the closing frame tells otherwise.
        let told = matches!(status.error, Some(ReplicatorError::GoingAway))
            || protocol == MessageStream && matches!(status.error, Some(ReplicatorError::Lost));
        assert!(told, "{protocol:?} {continuous} {status:?}");
        if continuous {
            timeout(LIMIT, replicator.wait_until(|status| status.activity == Idle))
                .await
                .expect("it comes back");
            pair.assert_equal();
        }
        replicator.stop();
        timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
    }
}

#[tokio::test(start_paused = true)]
async fn cuts_are_recovered_without_sending_again_what_was_confirmed() {
    for protocol in [ByteStream, MessageStream] {
        let pair = Pair::new(protocol, |_| {});
        fill(&pair.field, "field", 3000, 200);
        fill(&pair.hub, "hub", 500, 200);
        let faults = [
            RequestError::Cut(0),
            RequestError::Cut(200),
            RequestError::Cut(100_000),
            RequestError::Cut(150_000),
        ];
        let replicator = pair.replicator(&faults, |_| {});
        replicator.start();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(status.error.is_none(), "{protocol:?} {status:?}");
        pair.assert_equal();
    }
}

/// Attempts are counted since the last that got something done, though none came to its end.
#[tokio::test(start_paused = true)]
async fn a_connection_that_moved_something_is_no_failed_attempt() {
    let pair = Pair::new(ByteStream, |_| {});
    fill(&pair.hub, "hub", 1_500, 2_000);
    // More than what the hub sends before the first answer, which comes when something is stored here.
    let faults = [RequestError::Cut(700_000), RequestError::Cut(700_000)];
    let replicator = pair.replicator(&faults, |config| config.max_attempts = Some(2));
    replicator.start();
    let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
    assert!(status.error.is_none(), "{status:?}");
    pair.assert_equal();
    // Those that got nothing done are.
    let faults = [RequestError::Cut(0), RequestError::Cut(0)];
    let replicator = pair.replicator(&faults, |config| config.max_attempts = Some(2));
    replicator.start();
    let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
    assert!(status.error.is_some_and(|error| error.is_recoverable()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_in_the_middle_is_given_up_by_both() {
    for protocol in [ByteStream, MessageStream] {
        let pair = Pair::new(protocol, |config| config.limits.idle = Some(Duration::from_secs(600)));
        fill(&pair.field, "field", 2000, 200);
        let replicator =
            pair.replicator(&[RequestError::Silence(50_000)], |config| config.max_attempts = Some(1));
        replicator.start();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        let error = status.error.expect("an error");
        assert!(error.is_recoverable(), "{error:?}");
        assert!(pair.last_error().await.expect("an error there too").is_recoverable());
    }
}

#[tokio::test(start_paused = true)]
async fn back_pressure_on_both_sides_is_no_deadlock() {
    for protocol in [ByteStream, MessageStream] {
        let pair = Pair::new(protocol, |config| config.limits.inbound_bytes = 1024);
        fill(&pair.field, "field", 1500, 300);
        fill(&pair.hub, "hub", 1500, 300);
        fill(&pair.field, "large", 2, 700_000);
        fill(&pair.hub, "big", 2, 700_000);
        let replicator = pair.replicator(&[], |config| config.limits.inbound_bytes = 1024);
        replicator.start();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(status.error.is_none(), "{protocol:?} {status:?}");
        pair.assert_equal();
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_collection_stops_the_active_side() {
    let pair = Pair::new(ByteStream, |_| {});
    pair.field.create_collection("plant.readings").expect("made");
    let endpoint = |pair: &Pair| {
        MessageEndpoint::new("hub", Arc::new(()), pair.protocol, ToListener::new(&pair.listener, &[], None))
    };
    for (name, local) in [("plant.readings", false), ("plant.nothing", true)] {
        let config = ReplicatorConfiguration::new(endpoint(&pair), Arc::new(pair.field.clone()));
        let replicator = Replicator::new(config.with_collections([name]));
        replicator.start();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        match status.error {
            Some(ReplicatorError::Session(SessionError::RemoteCollectionMissing { .. })) => assert!(!local),
            Some(ReplicatorError::Session(SessionError::LocalCollectionMissing { .. })) => assert!(local),
            other => panic!("{other:?}"),
        }
    }
}

/// Couchbase Lite says once in a connection what it lacks: the rest is synced over another one, at once.
#[tokio::test(start_paused = true)]
async fn collections_that_the_peer_lacks_cost_a_connection_and_stop_nothing() {
    for extension in [true, false] {
        let pair = Pair::new(ByteStream, |config| config.extension = extension);
        put(&pair.hub, "document", json!({}));
        pair.field.create_collection("plant.readings").expect("made");
        let connections = ToListener::new(&pair.listener, &[], None);
        let endpoint = MessageEndpoint::new("hub", Arc::new(()), pair.protocol, connections);
        let config = ReplicatorConfiguration::new(endpoint, Arc::new(pair.field.clone()));
        let mut config = config.with_collections(["plant.readings", "_default"]).with_optional_collections();
        config.max_attempts = Some(1);
        let replicator = Replicator::new(config);
        let attempts = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let seen = Arc::clone(&attempts);
        replicator.add_change_listener(move |status| {
            let connecting = status.activity == ReplicatorActivity::Connecting;
            seen.fetch_add(u32::from(connecting), std::sync::atomic::Ordering::Relaxed);
        });
        let began = tokio::time::Instant::now();
        replicator.start();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(status.error.is_none(), "{status:?}");
        pair.assert_equal();
        let lacks: Vec<&str> = status.unsynced.collections.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(lacks, ["plant.readings"]);
        let connections = attempts.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(connections, if extension { 1 } else { 2 });
        assert!(began.elapsed() < Duration::from_secs(2), "no wait in between (virtual time)");
    }
}

#[tokio::test(start_paused = true)]
async fn push_alone_and_pull_alone_move_one_way() {
    for (kind, sent, received) in [(ReplicatorType::Push, 10, 0), (ReplicatorType::Pull, 0, 5)] {
        let pair = Pair::new(ByteStream, |_| {});
        fill(&pair.field, "field", 10, 10);
        fill(&pair.hub, "hub", 5, 10);
        let replicator = pair.replicator(&[], |config| config.replicator_type = kind);
        replicator.start();
        let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        assert!(status.error.is_none(), "{status:?}");
        assert_eq!(contents(&pair.hub).len(), 5 + sent);
        assert_eq!(contents(&pair.field).len(), 10 + received);
    }
}

/// What was saved just before a run that ends by itself goes over, in both directions and with both durabilities.
#[tokio::test(start_paused = true)]
async fn what_is_not_on_the_medium_yet_is_sent_as_well() {
    for durability in [Durability::Relaxed, Durability::Synced] {
        for extension in [true, false] {
            let database = DatabaseConfig { durability, ..DatabaseConfig::default() };
            let pair = Pair::with_databases(ByteStream, &database, |config| config.extension = extension);
            for round in 0..3 {
                put(&pair.field, &format!("field{round}"), json!({ "round": round }));
                put(&pair.hub, &format!("hub{round}"), json!({ "round": round }));
                let status = pair.sync().await;
                assert!(status.error.is_none(), "{status:?}");
                assert_eq!(status.progress.documents, 2, "{durability:?}, extension {extension}, {round}");
                pair.assert_equal();
            }
        }
    }
}

/// Edits and deletions on both sides while connections are cut at random moments: in the end both are the same.
#[tokio::test(start_paused = true)]
async fn random_cuts_and_edits_converge() {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for (protocol, extension) in [(ByteStream, true), (MessageStream, true), (ByteStream, false)] {
        let pair = Pair::new(protocol, |config| config.extension = extension);
        let faults: Vec<RequestError> = (0..40).map(|_| RequestError::Cut(random.u64(0..60_000))).collect();
        let replicator = pair.replicator(&faults, |config| {
            config.continuous = true;
            config.max_attempt_wait = Duration::from_secs(2);
        });
        replicator.start();
        for round in 0..30 {
            for db in [&pair.field, &pair.hub] {
                let collection = db.default_collection().expect("exists");
                for _ in 0..random.usize(0..30) {
                    let id = format!("document-{}", random.u32(0..200));
                    let text: String = (0..random.usize(0..400)).map(|_| random.alphanumeric()).collect();
                    if random.u8(0..10) == 0 {
                        collection.delete(&id).expect("deleted");
                    } else {
                        collection.put(&id, &json!({ "round": round, "text": text })).expect("saved");
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(random.u64(0..3000))).await;
        }
        // Conflicts of the last edits are pushed by the run after the one that resolves them.
        replicator.stop();
        timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
        for _ in 0..3 {
            let status = pair.sync().await;
            assert!(status.error.is_none(), "{protocol:?} {status:?}");
        }
        pair.assert_equal();
        assert_eq!(pair.sync().await.progress.documents, 0, "{protocol:?}: nothing is left to do");
    }
}

/// In real time: a thread that hangs in the operating system stops the virtual clock.
#[tokio::test]
async fn a_medium_that_hangs_does_not_hold_up_stop() {
    let pair = Pair::new(ByteStream, |_| {});
    put(&pair.hub, "document", json!({}));
    let store = EmptyStore { hangs: Duration::from_secs(2), ..EmptyStore::default() };
    let replicator = pair.replicator(&[], |config| {
        config.store = Arc::new(store);
        config.continuous = true;
        config.limits.stop = Duration::from_millis(100);
        config.limits.close = Duration::from_millis(100);
    });
    replicator.start();
    timeout(LIMIT, replicator.wait_until(|status| status.activity == Busy)).await.expect("it connects");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = std::time::Instant::now();
    replicator.stop();
    timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_good_stops_its_own_side_and_lets_the_peer_try_again() {
    let pair = Pair::new(ByteStream, |_| {});
    put(&pair.hub, "document", json!({}));
    let replicator = pair.replicator(&[], |config| config.store = Arc::new(EmptyStore::default()));
    replicator.start();
    let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
    assert!(matches!(status.error, Some(ReplicatorError::Session(SessionError::Store(_)))), "{status:?}");
    let told = pair.last_error().await;
    assert!(matches!(told, Some(ReplicatorError::ClosedByPeer { code: 4001, .. })), "{told:?}");
}
