//! What could not be synced: named in each run, tried again only when something has changed, and no hindrance to the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::exchange::{COMBINATIONS, active, errors, fill, passive, stores, sync};
use super::memory_store::MemoryStore;
use super::pair::{Pair, Side};
use crate::endpoint::{AccessRule, CollectionAccess};
use crate::replica::store::{CollectionId, ReplicaStore};
use crate::replicator::config::*;
use crate::replicator::error::SessionError;
use crate::replicator::event::{Direction, SessionEvent};
use crate::replicator::unsynced::list::{PREFIX, UnsyncedList};
use crate::replicator::unsynced::{Lack, Unsynced};

const BOTH: ReplicatorType = ReplicatorType::PushAndPull;

/// What a side told last of what could not be synced.
fn unsynced(side: &Side) -> Unsynced {
    let told = side.events.iter().rev().find_map(|event| match event {
        SessionEvent::Unsynced(unsynced) => Some((**unsynced).clone()),
        _ => None,
    });
    told.unwrap_or_default()
}

fn listed(side: &Side) -> Vec<(Direction, String)> {
    unsynced(side).listed.iter().map(|document| (document.direction, document.id.clone())).collect()
}

fn lacks(pair: &Pair) -> Vec<(String, String)> {
    let text = |lack: &Lack| match lack {
        Lack::PushRefused(error) => format!("push: {error}"),
        Lack::PullRefused(error) => format!("pull: {error}"),
        lack => lack.to_string(),
    };
    unsynced(&pair.a).collections.iter().map(|c| (c.name.clone(), text(&c.lack))).collect()
}

/// Revisions with a body that came to the store.
fn received(store: &MemoryStore) -> u64 {
    store.received.load(Ordering::Relaxed)
}

/// A refused document, whichever side refuses it: named in each run, sent once, sent again when it was changed, when it is
/// asked for, and as soon as the side that refused it has learned to take it.
#[test]
fn a_refused_document_is_named_in_each_run_and_sent_once() {
    for (ours, theirs) in COMBINATIONS {
        for at_active in [true, false] {
            let (a, p) = stores();
            let (from, to) = if at_active { (&p, &a) } else { (&a, &p) };
            let direction = if at_active { Direction::Received } else { Direction::Sent };
            let case = format!("extension {ours} {theirs}, refused by the active side: {at_active}");
            fill(from, "d", 30);
            to.refuse("d00007");
            let named = vec![(direction, "d00007".to_owned())];
            let first = sync(1, &a, &p, active(BOTH, ours), theirs);
            assert_eq!(errors(&first).len(), 1, "{case}: {:?}", errors(&first));
            assert_eq!((listed(&first.a), to.count()), (named.clone(), 29), "{case}");
            // Whoever refuses tells of it too.
            let there = if at_active { Direction::Sent } else { Direction::Received };
            assert_eq!(listed(&first.p), vec![(there, "d00007".to_owned())], "{case}");
            for seed in 2..4 {
                let before = (received(&a), received(&p));
                let again = sync(seed, &a, &p, active(BOTH, ours), theirs);
                assert_eq!((listed(&again.a), errors(&again).len()), (named.clone(), 0), "{case}");
                assert_eq!((received(&a), received(&p)), before, "{case}: it is not sent again");
                if ours && theirs {
                    assert_eq!(again.frames, 2, "{case}: one round trip");
                }
            }
            // A new revision of it is tried, and stands on the list instead.
            from.put("d00007", r#"{"changed":1}"#);
            let changed = sync(4, &a, &p, active(BOTH, ours), theirs);
            assert_eq!((listed(&changed.a), errors(&changed).len()), (named.clone(), 1), "{case}");
            let revision = from.vector("d00007").expect("there").current.to_string();
            assert_eq!(unsynced(&changed.a).listed[0].revision, revision, "{case}");
            // On demand, while it is still refused, and when it is not any more.
            let retry = ActiveConfig { retry_unsynced: true, ..active(BOTH, ours) };
            let tried = sync(5, &a, &p, retry.clone(), theirs);
            assert_eq!((listed(&tried.a), errors(&tried).len()), (named, 1), "{case}");
            to.refuse_nothing();
            let before = received(&a) + received(&p);
            let taken = sync(6, &a, &p, retry, theirs);
            assert_eq!((unsynced(&taken.a), errors(&taken).len()), (Unsynced::default(), 0), "{case}");
            assert_eq!((received(&a) + received(&p), a.dump(0)), (before + 1, p.dump(0)), "{case}");
            let quiet = sync(7, &a, &p, active(BOTH, ours), theirs);
            assert_eq!((unsynced(&quiet.a), received(&a) + received(&p)), (Unsynced::default(), before + 1));
        }
    }
}

/// A release that takes more finds on its own what it refused before, and offers again what the peer has learned to take.
#[test]
fn what_is_taken_by_now_is_tried_again_without_being_asked() {
    for (ours, theirs) in COMBINATIONS {
        for at_active in [true, false] {
            let (a, p) = stores();
            let (from, to) = if at_active { (&p, &a) } else { (&a, &p) };
            fill(from, "d", 300);
            to.refuse("d00100");
            sync(1, &a, &p, active(BOTH, ours), theirs);
            to.refuse_nothing();
            UnsyncedList::make_outdated(&*a, CollectionId(0), "peer");
            let before = received(&a) + received(&p);
            let again = sync(2, &a, &p, active(BOTH, ours), theirs);
            // A stock peer does not say what it takes.
            let has_ancestor = at_active || (ours && theirs);
            assert_eq!(unsynced(&again.a).is_empty(), has_ancestor, "{ours} {theirs} {at_active}");
            assert_eq!(to.count(), if has_ancestor { 300 } else { 299 });
            assert_eq!(
                received(&a) + received(&p),
                before + u64::from(has_ancestor),
                "nothing else is sent again"
            );
        }
    }
}

/// It comes from elsewhere, or is replaced here: then it is on no list.
#[test]
fn what_came_another_way_is_on_the_list_no_more() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        let c = Arc::new(MemoryStore::new(0xc3));
        fill(&p, "d", 3);
        sync(1, &c, &p, active(ReplicatorType::Pull, ours), theirs);
        a.refuse("d00001");
        let first = sync(2, &a, &p, active(BOTH, ours), theirs);
        assert_eq!(unsynced(&first.a).documents, 1);
        a.refuse_nothing();
        let other = ActiveConfig { peer_uid: "other".into(), ..active(BOTH, ours) };
        sync(3, &a, &c, other, theirs);
        assert_eq!(a.count(), 3);
        let last = sync(4, &a, &p, active(BOTH, ours), theirs);
        assert_eq!(unsynced(&last.a), Unsynced::default());
    }
}

/// More than a list can hold: all are counted, the next run costs nothing, and on demand all of them come.
#[test]
fn what_finds_no_room_on_the_list_is_counted_and_comes_on_demand() {
    for (ours, theirs) in COMBINATIONS {
        for at_active in [true, false] {
            let (a, p) = stores();
            let (from, to) = if at_active { (&p, &a) } else { (&a, &p) };
            fill(from, "d", 900);
            to.refuse("d");
            let first = sync(1, &a, &p, active(BOTH, ours), theirs);
            let told = unsynced(&first.a);
            assert_eq!((told.documents, told.listed.len(), to.count()), (900, 100, 0));
            let record = a.checkpoint(CollectionId(0), &a.own_checkpoint(PREFIX)).unwrap().unwrap();
            assert!(record.body.len() < 64 << 10, "{} bytes", record.body.len());
            let before = received(to);
            let again = sync(2, &a, &p, active(BOTH, ours), theirs);
            assert_eq!((unsynced(&again.a).documents, received(to)), (900, before));
            to.refuse_nothing();
            let retry = ActiveConfig { retry_unsynced: true, ..active(BOTH, ours) };
            let last = sync(3, &a, &p, retry, theirs);
            assert_eq!((unsynced(&last.a), to.count()), (Unsynced::default(), 900), "{ours} {theirs}");
        }
    }
}

/// Wherever the connection is cut: the checkpoint has not passed the document, or it is on the list.
#[test]
fn no_cut_makes_a_refused_document_forgotten() {
    for (ours, theirs) in COMBINATIONS {
        for at_active in [true, false] {
            for cut in 1..40 {
                let (a, p) = stores();
                let (from, to) = if at_active { (&p, &a) } else { (&a, &p) };
                fill(from, "d", 12);
                to.refuse("d00007");
                let often =
                    ActiveConfig { checkpoint_interval: std::time::Duration::ZERO, ..active(BOTH, ours) };
                Pair::new(cut, often, passive(theirs), &a, &p).run_and_cut(cut);
                let next = sync(99, &a, &p, active(BOTH, ours), theirs);
                assert_eq!(listed(&next.a).len(), 1, "{ours} {theirs} {at_active} cut after {cut} frames");
                assert_eq!(to.count(), 11);
            }
        }
    }
}

/// A conflict that a push alone cannot settle is on the list until it is settled, by whatever kind of run.
#[test]
fn a_conflict_of_a_push_alone_is_on_the_list_until_it_is_settled() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        a.put("both", r#"{"at":"a"}"#);
        p.advance_clock(100);
        p.put("both", r#"{"at":"p"}"#);
        let mut bodies = Vec::new();
        for seed in 1..4 {
            let pair = sync(seed, &a, &p, active(ReplicatorType::Push, ours), theirs);
            assert_eq!(listed(&pair.a), vec![(Direction::Sent, "both".to_owned())], "{ours} {theirs}");
            bodies.push(received(&p));
        }
        assert_eq!(bodies, [bodies[0]; 3], "{ours} {theirs}: it is asked for again, not sent");
        let pair = sync(4, &a, &p, active(BOTH, ours), theirs);
        assert_eq!((unsynced(&pair.a), a.dump(0)), (Unsynced::default(), p.dump(0)), "{ours} {theirs}");
    }
}

/// Nor is it on the list, or left behind, when a third has settled it at the peer.
#[test]
fn a_conflict_of_a_push_alone_that_a_third_has_settled_is_over() {
    for (ours, theirs) in COMBINATIONS {
        for edits_meanwhile in [false, true] {
            let case = format!("{ours} {theirs}, edited meanwhile: {edits_meanwhile}");
            let ((a, p), c) = (stores(), Arc::new(MemoryStore::new(3)));
            p.put("both", r#"{"at":"p"}"#);
            a.advance_clock(100);
            a.put("both", r#"{"at":"a"}"#);
            sync(1, &c, &a, ActiveConfig { peer_uid: "a".into(), ..active(BOTH, ours) }, theirs);
            if edits_meanwhile {
                a.put("both", r#"{"at":"a","later":true}"#);
            }
            let push = || active(ReplicatorType::Push, ours);
            let pair = sync(2, &a, &p, push(), theirs);
            assert_eq!(listed(&pair.a), vec![(Direction::Sent, "both".to_owned())], "{case}");
            for seed in 3..5 {
                sync(seed, &c, &p, ActiveConfig { peer_uid: "p".into(), ..active(BOTH, ours) }, theirs);
            }
            assert_eq!(p.body("both").as_deref(), Some(r#"{"at":"a"}"#), "{case}: the third has settled it");
            let pair = sync(5, &a, &p, push(), theirs);
            assert_eq!((unsynced(&pair.a), a.body("both")), (Unsynced::default(), p.body("both")), "{case}");
        }
    }
}

/// Conflicts that the run resolves are no failures, whichever comes first: the refusal, or the peer's revision.
#[test]
fn resolved_conflicts_are_not_told_as_failures() {
    for (ours, theirs) in COMBINATIONS {
        for seed in 0..40 {
            let (a, p) = stores();
            fill(&a, "d", 20);
            p.advance_clock(1_000);
            fill(&p, "d", 20);
            let pair = sync(seed, &a, &p, active(BOTH, ours), theirs);
            assert_eq!(errors(&pair), Vec::<String>::new(), "{ours} {theirs} seed {seed}");
            assert_eq!(unsynced(&pair.a), Unsynced::default(), "{ours} {theirs} seed {seed}");
            sync(seed, &a, &p, active(BOTH, ours), theirs);
            assert_eq!(a.dump(0), p.dump(0), "{ours} {theirs} seed {seed}");
        }
    }
}

#[test]
fn collections_that_the_peer_lacks_do_not_stop_the_others() {
    for (ours, theirs) in COMBINATIONS {
        let names = ["shop.gone", "shop.orders", "_default", "shop.lost"];
        let a = Arc::new(MemoryStore::with_collections(1, &names));
        let p = Arc::new(MemoryStore::with_collections(2, &["shop.orders", "_default", "shop.only"]));
        (0..4).for_each(|n| (0..20).for_each(|i| a.put_in(n, &format!("a{i}"), "{}")));
        (0..3).for_each(|n| (0..30).for_each(|i| p.put_in(n, &format!("p{i}"), "{}")));
        let optional = |name: &&str| CollectionConfig { optional: true, ..CollectionConfig::new(*name) };
        let config = ActiveConfig { collections: names.iter().map(optional).collect(), ..active(BOTH, ours) };
        let offer = PassiveConfig {
            collections: ["shop.orders", "_default", "shop.only"].map(str::to_owned).to_vec(),
            ..passive(theirs)
        };
        let mut pair = Pair::new(1, config.clone(), offer.clone(), &a, &p);
        let mut ended = pair.run();
        if !(ours && theirs) {
            // A stock peer answers once in a connection.
            let gone = ["shop.gone", "shop.lost"].map(str::to_owned).to_vec();
            assert_eq!(ended, Err(SessionError::SomeCollectionsMissing { names: gone.clone() }));
            let config = ActiveConfig { absent: gone, ..config.clone() };
            pair = Pair::new(2, config, offer.clone(), &a, &p);
            ended = pair.run();
        }
        assert_eq!(ended, Ok(()), "{ours} {theirs}");
        assert_eq!((a.dump(1), a.dump(2)), (p.dump(0), p.dump(1)));
        assert_eq!((a.dump(1).len(), a.dump(0).len(), a.dump(3).len()), (50, 20, 20));
        let missing = |name: &str| (name.to_owned(), Lack::MissingAtPeer.to_string());
        assert_eq!(lacks(&pair), [missing("shop.gone"), missing("shop.lost")]);
        let only = if ours && theirs { vec!["shop.only".to_owned()] } else { Vec::new() };
        assert_eq!(unsynced(&pair.a).only_at_peer, only);
        // One that is asked for by name is needed, and so is at least one.
        let mut strict = config.clone();
        strict.collections[3].optional = false;
        let needed = SessionError::RemoteCollectionMissing { name: "shop.lost".into() };
        assert_eq!(Pair::new(3, strict, offer.clone(), &a, &p).run(), Err(needed));
        let nothing = PassiveConfig { collections: vec!["shop.only".into()], ..offer };
        let none = SessionError::RemoteCollectionMissing { name: "shop.gone".into() };
        assert_eq!(Pair::new(4, config, nothing, &a, &p).run(), Err(none));
    }
}

/// Every database has the default collection: while it is empty nobody misses it at the peer.
#[test]
fn an_empty_default_collection_is_not_missed() {
    let a = Arc::new(MemoryStore::with_collections(1, &["_default", "shop.orders"]));
    let p = Arc::new(MemoryStore::with_collections(2, &["shop.orders"]));
    let optional = |name| CollectionConfig { optional: true, ..CollectionConfig::new(name) };
    let collections = vec![optional("_default"), optional("shop.orders")];
    let config = ActiveConfig { collections, ..active(BOTH, true) };
    let offer = PassiveConfig { collections: vec!["shop.orders".into()], ..passive(true) };
    for documents in [0, 1] {
        (0..documents).for_each(|n| a.put(&n.to_string(), "{}"));
        let mut pair = Pair::new(1, config.clone(), offer.clone(), &a, &p);
        assert_eq!((pair.run(), lacks(&pair).len()), (Ok(()), documents));
        assert_eq!(unsynced(&pair.p), Unsynced::default(), "the passive side is not told of it");
    }
}

/// One direction is refused by the peer, or by what the peer may do here: the other goes on, and both are told.
#[test]
fn a_direction_that_is_not_allowed_does_not_stop_the_other() {
    for (ours, theirs) in COMBINATIONS {
        let optional = CollectionConfig { optional: true, ..CollectionConfig::new("_default") };
        for (push, pull) in [(true, false), (false, true)] {
            let config = ActiveConfig { collections: vec![optional.clone()], ..active(BOTH, ours) };
            let filled = || {
                let (a, p) = stores();
                fill(&a, "a", 30);
                fill(&p, "p", 20);
                (a, p)
            };
            let counts = if push { (30, 50) } else { (50, 20) };
            let (a, p) = filled();
            let one_way = PassiveConfig { accept_push: push, accept_pull: pull, ..passive(theirs) };
            let mut pair = Pair::new(1, config.clone(), one_way, &a, &p);
            assert_eq!((pair.run(), (a.count(), p.count())), (Ok(()), counts), "{ours} {theirs} {push}");
            let [(name, lack)] = &lacks(&pair)[..] else { panic!("{:?}", lacks(&pair)) };
            let refused = if push { "pull: " } else { "push: " };
            assert!(name == "_default" && lack.starts_with(refused), "{lack}");
            // The one may not read what the other pushes, or not write what it pulls.
            let (a, p) = filled();
            let access: AccessRule = Arc::new(move |_| CollectionAccess { push: pull, pull: push });
            let limited = ActiveConfig { access: Some(access), ..config.clone() };
            let mut pair = Pair::new(2, limited.clone(), passive(theirs), &a, &p);
            assert_eq!((pair.run(), (a.count(), p.count())), (Ok(()), counts), "{ours} {theirs} {push}");
            let lack = if push { Lack::MayNotWrite } else { Lack::MayNotRead };
            assert_eq!(lacks(&pair), [("_default".to_owned(), lack.to_string())]);
            // By name it is strict.
            let named = vec![CollectionConfig::new("_default")];
            let strict = ActiveConfig { collections: named, ..limited };
            let ended = Pair::new(3, strict, passive(theirs), &a, &p).run();
            assert!(matches!(ended, Err(SessionError::Configuration { .. })), "{ended:?}");
        }
        // Nothing at all is an error.
        let (a, p) = stores();
        fill(&a, "a", 3);
        let config = ActiveConfig { collections: vec![optional.clone()], ..active(BOTH, ours) };
        let closed = PassiveConfig { accept_push: false, accept_pull: false, ..passive(theirs) };
        let ended = Pair::new(4, config.clone(), closed, &a, &p).run();
        assert!(matches!(&ended, Err(SessionError::Refused { error, .. }) if error.code == 403), "{ended:?}");
        let access: AccessRule = Arc::new(|_| CollectionAccess { push: false, pull: false });
        let ended =
            Pair::new(5, ActiveConfig { access: Some(access), ..config }, passive(theirs), &a, &p).run();
        assert!(matches!(ended, Err(SessionError::Configuration { .. })), "{ended:?}");
    }
}

/// A document that does not fit into a message: the side that has it names it in each run. A gattway peer names it too;
/// Couchbase Lite takes no word of what it has not asked for.
#[test]
fn a_document_too_large_to_be_sent_is_named() {
    for (ours, theirs) in COMBINATIONS {
        for at_active in [true, false] {
            let (a, p) = stores();
            let from = if at_active { &a } else { &p };
            fill(from, "d", 5);
            from.put("large", &format!(r#"{{"text":"{}"}}"#, "x".repeat(300 << 10)));
            let small = crate::blip::BlipConfig { message_size_max: 200 << 10, ..Default::default() };
            let config = ActiveConfig { blip: small.clone(), ..active(BOTH, ours) };
            let offer = PassiveConfig { blip: small, ..passive(theirs) };
            for seed in 1..3 {
                let mut pair = Pair::new(seed, config.clone(), offer.clone(), &a, &p);
                assert_eq!(pair.run(), Ok(()));
                let (here, there) = if at_active { (&pair.a, &pair.p) } else { (&pair.p, &pair.a) };
                let told = usize::from(ours && theirs);
                assert_eq!(
                    (listed(here).len(), listed(there).len()),
                    (1, told),
                    "{ours} {theirs} {at_active}"
                );
                assert_eq!(unsynced(here).listed[0].error.code, 413);
            }
            assert_eq!((a.count().min(p.count()), a.count().max(p.count())), (5, 6));
        }
    }
}

fn leaves_out(prefix: &'static str) -> ReplicationFilter {
    Arc::new(move |input: &FilterInput<'_>| !input.id.starts_with(prefix))
}

/// A conflict of which the pull brings nothing, because the peer keeps its own to itself: a continuous run says so once it
/// is idle, and once.
#[test]
fn a_conflict_that_nothing_settles_is_told_by_a_continuous_run_too() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        fill(&a, "d", 5);
        p.advance_clock(1_000);
        p.put("d00003", r#"{"at":"p"}"#);
        let offer = PassiveConfig { outgoing_filter: Some(leaves_out("d00003")), ..passive(theirs) };
        let config = ActiveConfig { continuous: true, ..active(BOTH, ours) };
        let mut pair = Pair::new(1, config, offer, &a, &p);
        pair.run_for(std::time::Duration::from_secs(20));
        assert_eq!(listed(&pair.a), [(Direction::Sent, "d00003".to_owned())], "{ours} {theirs}");
        assert_eq!(errors(&pair).len(), 1, "{ours} {theirs}: {:?}", errors(&pair));
        // What the peer gives at last settles it.
        p.put("d00003", r#"{"at":"p","n":2}"#);
        let settled = sync(2, &a, &p, active(BOTH, ours), theirs);
        assert_eq!(unsynced(&settled.a), Unsynced::default(), "{ours} {theirs}");
    }
}

/// What the peer's filter refuses and the peer has in a newer revision is no failure, and in no order of messages.
#[test]
fn what_a_filter_refuses_needlessly_is_not_told() {
    for (ours, theirs) in COMBINATIONS {
        for seed in 0..20 {
            let (a, p) = stores();
            fill(&a, "d", 20);
            sync(seed, &a, &p, active(BOTH, ours), theirs);
            p.put("d00003", r#"{"newer":true}"#);
            let offer = PassiveConfig { incoming_filter: Some(leaves_out("d00003")), ..passive(theirs) };
            // As another peer: nothing is known of what was synced before.
            let config = ActiveConfig { peer_uid: "another".into(), ..active(BOTH, ours) };
            let mut pair = Pair::new(seed, config, offer, &a, &p);
            assert_eq!(pair.run(), Ok(()));
            assert_eq!(
                (errors(&pair), unsynced(&pair.a).documents),
                (Vec::new(), 0),
                "{ours} {theirs} {seed}"
            );
            assert_eq!(a.dump(0), p.dump(0));
        }
    }
}

/// What a filter of the active side leaves out on purpose is on no list, at either side.
#[test]
fn what_is_left_out_on_purpose_is_on_no_list() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = stores();
        fill(&p, "d", 20);
        let mut config = active(BOTH, ours);
        config.collections[0].pull_filter = Some(leaves_out("d00003"));
        let pair = sync(1, &a, &p, config, theirs);
        assert_eq!((a.count(), unsynced(&pair.a).documents), (19, 0), "{ours} {theirs}");
        assert_eq!(unsynced(&pair.p).documents, 0, "{ours} {theirs}");
    }
}

/// Whoever stops a continuous run when it is idle hears of a refusal: the run is not idle before it ends with that, also
/// where the other direction, or another collection, would go on.
#[test]
fn a_continuous_run_that_ends_with_a_refusal_is_not_idle_before() {
    for ((ours, theirs), direction) in
        COMBINATIONS.into_iter().flat_map(|both| [(both, ReplicatorType::Push), (both, BOTH)])
    {
        let case = format!("{ours} {theirs} {direction:?}");
        let names = ["_default", "shop.open"];
        let store = |name: u8, filled: &str| {
            let store = MemoryStore::with_collections(name, &names);
            (0..2).for_each(|n| (0..5).for_each(|i| store.put_in(n, &format!("{filled}{i}"), "{}")));
            Arc::new(store)
        };
        let (a, p) = (store(1, "a"), store(2, "p"));
        let collections = names.map(CollectionConfig::new).to_vec();
        let config = ActiveConfig { continuous: true, collections, ..active(direction, ours) };
        let access: AccessRule =
            Arc::new(|name: &str| CollectionAccess { push: name != "_default", pull: true });
        let collections = names.map(String::from).to_vec();
        let limited = PassiveConfig { access: Some(access), collections, ..passive(theirs) };
        let mut pair = Pair::new(1, config, limited, &a, &p);
        pair.run_for(Duration::from_secs(100));
        let ended = &pair.a.finished;
        assert!(
            matches!(ended, Some(Err(SessionError::Refused { error, .. })) if error.code == 403),
            "{case}: {ended:?}"
        );
        let idle = SessionEvent::Activity(crate::replicator::event::Activity::Idle);
        assert!(!pair.a.events.contains(&idle), "{case}: {:?}", pair.a.events);
        let pulled = if direction == BOTH { 10 } else { 5 };
        let counts = [a.dump(0).len(), a.dump(1).len(), p.dump(0).len(), p.dump(1).len()];
        assert_eq!(counts, [pulled, pulled, 5, 10], "{case}: the rest is done");
    }
}

/// What is refused stands on both lists, also when the peer is sent an older revision of it, in whatever order.
#[test]
fn an_older_revision_that_the_peer_knows_takes_nothing_off_the_list() {
    for (ours, theirs) in COMBINATIONS {
        for seed in 0..20 {
            let (a, p) = stores();
            fill(&p, "d", 20);
            sync(seed, &a, &p, active(BOTH, ours), theirs);
            a.put("d00003", r#"{"newer":true}"#);
            p.refuse("d00003");
            let config = ActiveConfig { peer_uid: "another".into(), ..active(BOTH, ours) };
            let pair = sync(seed, &a, &p, config, theirs);
            assert_eq!(listed(&pair.a), [(Direction::Sent, "d00003".to_owned())], "{ours} {theirs} {seed}");
            assert_eq!(
                listed(&pair.p),
                [(Direction::Received, "d00003".to_owned())],
                "{ours} {theirs} {seed}"
            );
        }
    }
}
