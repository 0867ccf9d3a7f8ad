//! What is exchanged in the ordinary course of things, with and without the extension on either side.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::memory_store::MemoryStore;
use super::pair::Pair;
use crate::endpoint::{AccessRule, CollectionAccess};
use crate::replica::store::CollectionId;
use crate::replicator::config::*;
use crate::replicator::delivery;
use crate::replicator::error::SessionError;
use crate::replicator::event::{Direction, DocumentReplication, SessionEvent};

/// Who has the extension: active, passive.
pub(super) const COMBINATIONS: [(bool, bool); 4] =
    [(false, false), (false, true), (true, false), (true, true)];

pub(super) fn stores() -> (Arc<MemoryStore>, Arc<MemoryStore>) {
    (Arc::new(MemoryStore::new(0xa1)), Arc::new(MemoryStore::new(0xb2)))
}

pub(super) fn active(direction: ReplicatorType, extension: bool) -> ActiveConfig {
    ActiveConfig { direction, extension, peer_uid: "peer".into(), ..ActiveConfig::default() }
}

pub(super) fn passive(extension: bool) -> PassiveConfig {
    PassiveConfig { extension, ..PassiveConfig::default() }
}

pub(super) fn fill(store: &MemoryStore, prefix: &str, count: usize) {
    (0..count)
        .for_each(|n| store.put(&format!("{prefix}{n:05}"), &format!("{{\"n\":{n},\"of\":\"{prefix}\"}}")));
}

pub(super) fn sync(
    seed: u64,
    a: &Arc<MemoryStore>,
    p: &Arc<MemoryStore>,
    config: ActiveConfig,
    extension: bool,
) -> Pair {
    let mut pair = Pair::new(seed, config, passive(extension), a, p);
    pair.run().expect("a clean end");
    for side in [&pair.a, &pair.p] {
        let activity = |event: &SessionEvent| match event {
            SessionEvent::Activity(activity) => Some(*activity),
            _ => None,
        };
        let told: Vec<_> = side.events.iter().filter_map(activity).collect();
        assert!(told.windows(2).all(|two| two[0] != two[1]), "told once: {told:?}");
    }
    pair
}

pub(super) fn documents(pair: &Pair, direction: Direction) -> usize {
    let of = |event: &&SessionEvent| matches!(event, SessionEvent::DocumentReplicated(it) if it.error.is_none() && it.direction == direction);
    pair.a.events.iter().filter(of).count()
}

pub(super) fn errors(pair: &Pair) -> Vec<String> {
    let of = |event: &SessionEvent| match event {
        SessionEvent::DocumentReplicated(DocumentReplication { id, error: Some(error), .. }) => {
            Some(format!("{id}: {error}"))
        }
        _ => None,
    };
    pair.a.events.iter().filter_map(of).collect()
}

#[test]
fn every_direction_with_every_peer() {
    for (seed, (ours, theirs)) in COMBINATIONS.into_iter().enumerate() {
        for direction in [ReplicatorType::PushAndPull, ReplicatorType::Push, ReplicatorType::Pull] {
            let (a, p) = stores();
            fill(&a, "a", 530);
            fill(&p, "p", 470);
            a.put("gone", "{}");
            a.delete("gone");
            let pair = sync(seed as u64, &a, &p, active(direction, ours), theirs);
            assert_eq!(pair.a.session.uses_extension(), ours && theirs);
            let a_to_p = if direction.pushes() { 531 } else { 0 };
            let p_to_a = if direction.pulls() { 470 } else { 0 };
            assert_eq!((p.count(), a.count()), (470 + a_to_p, 531 + p_to_a), "{direction:?} {ours} {theirs}");
            assert_eq!(
                (documents(&pair, Direction::Sent), documents(&pair, Direction::Received)),
                (a_to_p, p_to_a)
            );
            if direction == ReplicatorType::PushAndPull {
                assert_eq!(a.dump(0), p.dump(0));
            }
        }
    }
}

#[test]
fn a_second_run_exchanges_no_documents() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        fill(&a, "a", 300);
        fill(&p, "p", 300);
        sync(1, &a, &p, active(ReplicatorType::PushAndPull, ours), theirs);
        for run in 2..4 {
            let pair = sync(run, &a, &p, active(ReplicatorType::PushAndPull, ours), theirs);
            assert_eq!(documents(&pair, Direction::Sent) + documents(&pair, Direction::Received), 0);
            if ours && theirs {
                assert_eq!((pair.a.frames_out, pair.p.frames_out), (1, 1), "one round trip");
            }
        }
        assert_eq!(a.needless.load(std::sync::atomic::Ordering::Relaxed), 0);
        assert_eq!(p.needless.load(std::sync::atomic::Ordering::Relaxed), 0);
        let checkpoints = p.checkpoint_names().into_iter().filter(|name| name.starts_with("cp-")).count();
        assert_eq!(checkpoints, 1, "the passive side keeps one checkpoint");
    }
}

#[test]
fn nothing_is_sent_back_that_just_came() {
    let (a, p) = stores();
    fill(&a, "a", 2_000);
    sync(1, &a, &p, active(ReplicatorType::PushAndPull, true), true);
    p.put("p", "{}");
    let pair = sync(2, &a, &p, active(ReplicatorType::PushAndPull, true), true);
    assert_eq!(documents(&pair, Direction::Received), 1);
    assert!(pair.p.bytes_out < 400, "{} bytes for one document", pair.p.bytes_out);
    assert!(pair.a.bytes_out < 600, "{} bytes for one answer", pair.a.bytes_out);
}

#[test]
fn continuous_sessions_follow_both_sides() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        fill(&a, "a", 10);
        let config = ActiveConfig { continuous: true, ..active(ReplicatorType::PushAndPull, ours) };
        let mut pair = Pair::new(7, config, passive(theirs), &a, &p);
        pair.run_for(Duration::from_secs(1));
        assert!(pair.a.idle && pair.a.finished.is_none());
        for n in 0..5 {
            a.put("x", &format!("{{\"n\":{n}}}"));
            p.put("y", &format!("{{\"n\":{n}}}"));
            p.put(&format!("p{n}"), "{}");
            if n == 3 {
                a.delete("x");
            }
            pair.run_for(Duration::from_secs(1));
            assert_eq!(a.dump(0), p.dump(0), "{ours} {theirs}");
            assert!(pair.a.idle && pair.p.idle);
        }
        let frames = pair.frames;
        pair.run_for(Duration::from_secs(3600));
        assert!(
            pair.frames - frames <= 2,
            "quiet when there is nothing to do: {} frames",
            pair.frames - frames
        );
        pair.a.session.stop(pair.now);
        pair.run_for(Duration::from_secs(60));
        assert_eq!(pair.a.finished, Some(Ok(())));
        let again = sync(8, &a, &p, active(ReplicatorType::PushAndPull, ours), theirs);
        assert_eq!(documents(&again, Direction::Sent) + documents(&again, Direction::Received), 0);
    }
}

#[test]
fn several_collections_and_missing_ones() {
    for (ours, theirs) in COMBINATIONS {
        let names = ["shop.orders", "shop.items", "_default"];
        let a = Arc::new(MemoryStore::with_collections(1, &names));
        let p = Arc::new(MemoryStore::with_collections(2, &names));
        for n in 0..3 {
            (0..50).for_each(|i| a.put_in(n, &format!("a{i}"), "{}"));
            (0..70).for_each(|i| p.put_in(n, &format!("p{i}"), "{}"));
        }
        let collections = names.iter().map(|n| CollectionConfig::new(*n)).collect();
        let config = ActiveConfig { collections, ..active(ReplicatorType::PushAndPull, ours) };
        let offer = |names: &[&str]| PassiveConfig {
            collections: names.iter().map(|n| n.to_string()).collect(),
            ..passive(theirs)
        };
        let mut pair = Pair::new(1, config.clone(), offer(&["shop.orders"]), &a, &p);
        let missing = SessionError::RemoteCollectionMissing { name: "shop.items".into() };
        assert_eq!(pair.run(), Err(missing));
        let mut pair =
            Pair::new(1, config, offer(&["shop.items", "shop.orders", "_default._default"]), &a, &p);
        pair.run().expect("all are there");
        (0..3).for_each(|n| assert_eq!(a.dump(n), p.dump(n)));
    }
}

/// `logs` and `_default.logs` are one collection, whoever writes which; on the wire it is the short form, which is the only
/// one that Couchbase Lite knows.
#[test]
fn a_collection_of_the_default_scope_has_one_name() {
    for (ours, theirs) in COMBINATIONS {
        for (here, there) in [("logs", "_default.logs"), ("_default.logs", "logs"), ("logs", "logs")] {
            let a = Arc::new(MemoryStore::with_collections(1, &["_default.logs"]));
            let p = Arc::new(MemoryStore::with_collections(2, &["_default.logs"]));
            a.put("a", "{}");
            p.put("p", "{}");
            let collections = vec![CollectionConfig::new(here)];
            let config = ActiveConfig { collections, ..active(ReplicatorType::PushAndPull, ours) };
            let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
            let heard = asked.clone();
            let access: AccessRule = Arc::new(move |name| {
                heard.lock().unwrap().push(name.to_owned());
                CollectionAccess { push: true, pull: true }
            });
            let offer = PassiveConfig {
                collections: vec![there.to_owned()],
                access: Some(access),
                ..passive(theirs)
            };
            let mut pair = Pair::new(1, config, offer, &a, &p);
            assert_eq!(pair.run(), Ok(()), "{here} {there}");
            assert_eq!((a.dump(0), a.count()), (p.dump(0), 2));
            // How far it was is remembered under the one name.
            let otherwise = if here == "logs" { "_default.logs" } else { "logs" };
            let collections = vec![CollectionConfig::new(otherwise)];
            let config = ActiveConfig { collections, ..active(ReplicatorType::PushAndPull, ours) };
            let offer = PassiveConfig { collections: vec![there.to_owned()], ..passive(theirs) };
            assert_eq!(Pair::new(2, config, offer, &a, &p).run(), Ok(()), "{otherwise} {there}");
            let checkpoints = p.checkpoint_names().into_iter().filter(|name| name.starts_with("cp-"));
            assert_eq!(checkpoints.count(), 1, "{otherwise} {there}");
            let asked = asked.lock().unwrap();
            assert!(
                asked.iter().all(|name| name == "_default.logs"),
                "access is by the full name: {asked:?}"
            );
        }
    }
    let twice = vec![CollectionConfig::new("logs"), CollectionConfig::new("_default.logs")];
    let config = ActiveConfig { collections: twice, ..active(ReplicatorType::Push, true) };
    let (a, p) = stores();
    let ended = Pair::new(1, config, passive(true), &a, &p).run();
    assert_eq!(ended, Err(SessionError::Configuration { reason: "a collection is named twice" }));
    let wire = crate::replicator::messages::write_get_collections(&[], &["_default", "_default.logs", "a.b"]);
    assert!(wire.contains(r#"["_default","logs","a.b"]"#), "{wire}");
}

#[test]
fn document_ids_filters_and_tombstones() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        fill(&a, "a", 5);
        fill(&p, "p", 5);
        p.put("old", "{}");
        p.delete("old");
        let ids = CollectionConfig {
            document_ids: Some(vec!["a00001".into(), "p00002".into(), "none".into()]),
            ..CollectionConfig::default_collection()
        };
        let with = |collection| ActiveConfig {
            collections: vec![collection],
            ..active(ReplicatorType::PushAndPull, ours)
        };
        sync(1, &a, &p, with(ids.clone()), theirs);
        assert_eq!((a.count(), p.count()), (6, 7));
        let filtered = CollectionConfig {
            push_filter: Some(Arc::new(|input| input.id != "a00002")),
            pull_filter: Some(Arc::new(|input| input.id != "p00003")),
            skip_deleted: true,
            ..CollectionConfig::default_collection()
        };
        let pair = sync(2, &a, &p, with(filtered.clone()), theirs);
        assert!(a.body("p00003").is_none() && p.body("a00002").is_none() && a.vector("old").is_none());
        assert_eq!((a.count(), p.count()), (9, 10));
        assert_eq!(errors(&pair).len(), 1);
        let again = sync(3, &a, &p, with(filtered), theirs);
        assert_eq!(errors(&again).len(), 0, "what was filtered out is not asked for again");
    }
}

#[test]
fn refused_directions_filters_and_versioning() {
    for (ours, theirs) in COMBINATIONS {
        for (push, pull) in [(false, true), (true, false)] {
            let (a, p) = stores();
            fill(&a, "a", 300);
            fill(&p, "p", 300);
            let one_way = PassiveConfig { accept_push: push, accept_pull: pull, ..passive(theirs) };
            let mut pair = Pair::new(1, active(ReplicatorType::PushAndPull, ours), one_way, &a, &p);
            let error = pair.run().expect_err("one half is refused");
            assert!(matches!(&error, SessionError::Refused { error, .. } if error.code == 403), "{error}");
            assert_eq!(a.count(), if pull { 600 } else { 300 });
            assert_eq!(p.count(), if push { 600 } else { 300 });
        }
        let (a, p) = stores();
        fill(&a, "a", 3);
        fill(&p, "p", 3);
        let collection = CollectionConfig {
            remote_filter: Some("app/byname".into()),
            ..CollectionConfig::default_collection()
        };
        let config =
            ActiveConfig { collections: vec![collection], ..active(ReplicatorType::PushAndPull, ours) };
        let error = Pair::new(1, config, passive(theirs), &a, &p).run().expect_err("no filters");
        assert!(matches!(&error, SessionError::Refused { error, .. } if error.code == 19), "{error}");
        assert_eq!((a.count(), p.count()), (3, 6), "the push half goes on");
    }
}

#[test]
fn documents_that_the_peer_refuses_are_reported_and_others_go_on() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        fill(&a, "a", 20);
        let refusing = PassiveConfig {
            incoming_filter: Some(Arc::new(|input| !input.id.ends_with('7'))),
            ..passive(theirs)
        };
        let mut pair = Pair::new(1, active(ReplicatorType::PushAndPull, ours), refusing, &a, &p);
        pair.run().expect("the others go on");
        assert_eq!(errors(&pair).len(), 2, "{:?}", errors(&pair));
        assert_eq!(p.count(), 18);
    }
}

#[test]
fn a_reset_compares_everything_and_sends_nothing() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        fill(&a, "a", 500);
        fill(&p, "p", 500);
        sync(1, &a, &p, active(ReplicatorType::PushAndPull, ours), theirs);
        let reset = ActiveConfig { reset: true, ..active(ReplicatorType::PushAndPull, ours) };
        let pair = sync(2, &a, &p, reset, theirs);
        assert_eq!(
            documents(&pair, Direction::Sent) + documents(&pair, Direction::Received),
            0,
            "{ours} {theirs}"
        );
        let again = sync(3, &a, &p, active(ReplicatorType::PushAndPull, ours), theirs);
        if ours && theirs {
            assert_eq!(again.frames, 2);
        }
    }
}

impl CollectionConfig {
    fn default_collection() -> CollectionConfig {
        CollectionConfig::new("_default")
    }
}

#[test]
fn revisions_that_vanish_before_they_are_sent_do_not_hold_up_the_rest() {
    for (ours, theirs) in COMBINATIONS {
        for cut in (4..40).step_by(5) {
            let (a, p) = stores();
            // Written by a third peer, so that they are offered before they are sent.
            let c = Arc::new(MemoryStore::new(0xc3));
            fill(&c, "c", 400);
            sync(1, &c, &a, active(ReplicatorType::Push, ours), theirs);
            sync(1, &c, &p, active(ReplicatorType::Push, ours), theirs);
            (0..400).for_each(|n| c.put(&format!("c{n:05}"), "{\"new\":true}"));
            sync(1, &c, &a, active(ReplicatorType::Push, ours), theirs);
            let mut pair = Pair::new(cut, active(ReplicatorType::PushAndPull, ours), passive(theirs), &a, &p);
            pair.run_until(cut);
            (0..400).step_by(3).for_each(|n| a.purge(&format!("c{n:05}")));
            (1..400).step_by(3).for_each(|n| a.put(&format!("c{n:05}"), "{\"newer\":true}"));
            pair.run().expect("the rest goes on");
            sync(2, &a, &p, active(ReplicatorType::PushAndPull, ours), theirs);
            assert_eq!(p.body("c00001").as_deref(), Some("{\"newer\":true}"));
            assert_eq!(p.body("c00002").as_deref(), Some("{\"new\":true}"));
        }
    }
}

#[test]
fn a_continuous_peer_does_not_send_back_what_it_is_sent() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        let config = ActiveConfig { continuous: true, ..active(ReplicatorType::PushAndPull, ours) };
        let mut pair = Pair::new(11, config, passive(theirs), &a, &p);
        pair.commit_steps = 30;
        for burst in 0..10 {
            fill(&a, &format!("b{burst}-"), 300);
            pair.run_for(Duration::from_millis(100));
        }
        assert_eq!(p.count(), 3_000);
        // A stock peer answers each revision; nobody offers one back, which takes 60 bytes or more.
        let each = pair.p.bytes_out as f64 / 3_000.0;
        assert!(
            each < if ours && theirs { 0.5 } else { 12.0 },
            "{each} bytes a document from the passive side"
        );
        assert_eq!(a.needless.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

#[test]
fn superseded_changes_leave_no_gaps_in_the_checkpoint() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        for round in 0..3 {
            (0..20).for_each(|n| a.put(&format!("a{n:05}"), "{\"soon\":\"replaced\"}"));
            fill(&a, "a", 50 * (round + 1));
            fill(&p, "p", 70 * (round + 1));
            sync(round as u64, &a, &p, active(ReplicatorType::PushAndPull, ours), theirs);
        }
        let name = p.own_checkpoint("cp-");
        let id = crate::replica::store::CollectionId(0);
        let held = crate::replica::store::ReplicaStore::checkpoint(&*p, id, &name)
            .expect("in memory")
            .expect("there");
        let body: Value = serde_json::from_slice(&held.body).expect("JSON");
        assert_eq!(body.get("localCompleted"), None, "{body}");
        assert_eq!(body["local"], crate::replica::store::ReplicaStore::last_sequence(&*a, id), "{body}");
    }
}

#[test]
fn what_the_peer_has_in_a_newer_revision_is_not_pushed_again_and_again() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        a.put("d", "{}");
        sync(1, &a, &p, active(ReplicatorType::PushAndPull, ours), theirs);
        p.put("d", "{\"newer\":true}");
        let push = || ActiveConfig { peer_uid: "other".into(), ..active(ReplicatorType::Push, ours) };
        sync(2, &a, &p, push(), theirs);
        let pair = sync(3, &a, &p, push(), theirs);
        assert_eq!(errors(&pair), Vec::<String>::new());
        if ours && theirs {
            assert_eq!(pair.frames, 2);
        }
    }
}

/// A list too long for one frame would be overtaken by the shorter one after it, and by the word that the feed ends here.
#[test]
fn long_lists_are_pulled_whole() {
    for count in [150, 199, 201, 250, 390, 1_100] {
        let (a, p) = stores();
        let mut rng = fastrand::Rng::with_seed(count as u64);
        for n in 0..count {
            let long: String = std::iter::repeat_with(|| rng.alphanumeric()).take(200).collect();
            p.put(&format!("{n}-{long}"), "{}");
        }
        let pair = sync(count as u64, &a, &p, active(ReplicatorType::Pull, false), false);
        assert_eq!((a.count(), documents(&pair, Direction::Received)), (count, count));
        let again = sync(1, &a, &p, active(ReplicatorType::Pull, false), false);
        assert!(again.p.bytes_out < 1_000, "{} documents: {} bytes again", count, again.p.bytes_out);
    }
}

/// What a peer has confirmed is noted by the name it was given, and by who was told to: also that it has less than before.
#[test]
fn what_the_peer_has_confirmed_is_noted() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        let plain = || active(ReplicatorType::PushAndPull, ours);
        let noting = || ActiveConfig { confirmed_as: Some("up".into()), ..plain() };
        let confirmed = || delivery::confirmed_until(&*a, CollectionId(0), "up").expect("read");
        fill(&a, "a", 5);
        sync(1, &a, &p, plain(), theirs);
        assert_eq!(confirmed(), 0, "nobody asked for it");
        sync(2, &a, &p, noting(), theirs);
        assert_eq!(confirmed(), 5, "nothing was left to send");
        fill(&a, "b", 2);
        sync(3, &a, &p, noting(), theirs);
        assert_eq!(confirmed(), 7);
    }
}
