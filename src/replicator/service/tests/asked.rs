//! What an application asks a replicator for beside starting it: what is pending, to be quiet for a while, how much went over.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::pair::{LIMIT, Pair, arrives, put};
use crate::endpoint::ProtocolType;
use crate::replica::store::{Conflict, Resolution};
use crate::replicator::config::{CollectionConfig, ReplicatorType};
use crate::replicator::{Replicator, ReplicatorActivity};

async fn runs_to_its_end(replicator: &Replicator) {
    replicator.start();
    let status = timeout(LIMIT, replicator.wait_until_stopped()).await.expect("it stops");
    assert!(status.error.is_none(), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_has_not_confirmed_is_pending() {
    for extension in [true, false] {
        let pair = Pair::new(ProtocolType::ByteStream, |_| {});
        for (n, id) in ["a", "b", "c", "left-out"].into_iter().enumerate() {
            put(&pair.field, id, json!({ "n": n }));
        }
        put(&pair.hub, "theirs", json!({}));
        let replicator = pair.replicator(&[], |config| {
            config.extension = extension;
            config.collections[0].push_filter = Some(Arc::new(|input| !input.id.starts_with("left-out")));
        });
        let pending = |replicator: &Replicator| replicator.pending_document_ids("_default").expect("read");
        let is_pending = |id: &str| replicator.is_document_pending("_default._default", id).expect("read");
        assert_eq!(pending(&replicator), ["a", "b", "c"]);
        assert!(is_pending("b") && !is_pending("left-out") && !is_pending("unknown"));
        runs_to_its_end(&replicator).await;
        assert_eq!(pending(&replicator), [""; 0], "nor is what came from the peer");
        put(&pair.field, "b", json!({ "n": 9 }));
        pair.field.default_collection().expect("exists").delete("a").expect("deleted");
        assert_eq!(pending(&replicator), ["b", "a"]);
        assert!(is_pending("a") && !is_pending("c"));
        assert_eq!(replicator.pending_document_ids("no.such").expect("read"), [""; 0]);
        runs_to_its_end(&replicator).await;
        assert_eq!(pending(&replicator), [""; 0]);
        let chosen = pair.replicator(&[], |config| {
            config.collections[0].document_ids = Some(vec!["c".into(), "x".into()]);
        });
        assert_eq!(pending(&chosen), ["c"], "another replication, which has confirmed nothing");
        let pulling = pair.replicator(&[], |config| config.replicator_type = ReplicatorType::Pull);
        assert_eq!(pending(&pulling), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspended_replicator_has_no_connection_and_goes_on_when_resumed() {
    let pair = Pair::new(ProtocolType::ByteStream, |_| {});
    let replicator = pair.replicator(&[], |config| config.continuous = true);
    let reaches = async |wanted| {
        let status = timeout(LIMIT, replicator.wait_until(|status| status.activity == wanted)).await;
        status.expect("it gets there")
    };
    replicator.start();
    put(&pair.field, "first", json!({}));
    arrives(&pair.hub, "first", &json!({})).await;
    replicator.suspend();
    let status = reaches(ReplicatorActivity::Offline).await;
    assert!(status.error.is_none(), "{status:?}");
    timeout(LIMIT, pair.listener.wait_until_closed()).await.expect("no connection is left");
    put(&pair.field, "second", json!({}));
    replicator.retry_now();
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    assert!(pair.listener.connections().is_empty());
    assert_eq!(replicator.pending_document_ids("_default").expect("read"), ["second"]);
    replicator.resume();
    arrives(&pair.hub, "second", &json!({})).await;
    // Suspended, it stops as well, and starts suspended.
    replicator.suspend();
    reaches(ReplicatorActivity::Offline).await;
    replicator.stop();
    reaches(ReplicatorActivity::Stopped).await;
    replicator.start();
    reaches(ReplicatorActivity::Offline).await;
    replicator.resume();
    reaches(ReplicatorActivity::Idle).await;
    replicator.stop();
    assert!(reaches(ReplicatorActivity::Stopped).await.error.is_none());
}

#[tokio::test(start_paused = true)]
async fn progress_tells_the_bytes_that_went_over() {
    let pair = Pair::new(ProtocolType::ByteStream, |_| {});
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(10_000).collect();
    put(&pair.field, "large", json!({ "noise": noise }));
    let replicator = pair.replicator(&[], |_| {});
    runs_to_its_end(&replicator).await;
    let progress = replicator.status().progress;
    assert!((7_000..20_000).contains(&progress.bytes_sent), "{progress:?}");
    assert!((20..2_000).contains(&progress.bytes_received), "{progress:?}");
}

/// Each collection may have its own rule; the others go by the replicator's.
#[tokio::test(start_paused = true)]
async fn a_collection_may_have_a_resolver_of_its_own() {
    let pair = Pair::new(ProtocolType::ByteStream, |config| {
        config.collections = vec!["plant.own".into(), "plant.others".into()];
    });
    let names = ["plant.own", "plant.others"];
    for (db, by) in [(&pair.field, "field"), (&pair.hub, "hub")] {
        for name in names {
            db.create_collection(name).expect("made").put("d", &json!({ "by": by })).expect("saved");
        }
    }
    let sync = async || {
        let replicator = pair.replicator(&[], |config| {
            config.collections = names.map(CollectionConfig::new).into();
            config.collections[0].resolver = Some(Arc::new(|_: &Conflict<'_>| Ok(Resolution::Remote)));
            config.resolver = Arc::new(|_: &Conflict<'_>| Ok(Resolution::Local));
        });
        runs_to_its_end(&replicator).await;
    };
    sync().await;
    sync().await;
    for db in [&pair.field, &pair.hub] {
        for (name, by) in [("plant.own", "hub"), ("plant.others", "field")] {
            let found = db.collection(name).expect("there").get("d").expect("read").expect("there");
            assert_eq!(found.body()["by"], by, "{name}");
        }
    }
}
