//! What becomes of a revision that the peer has refused as a conflict, by what the peer says next.

use std::time::Duration;

use bytes::Bytes;

use super::super::batched::pull::BatchPull;
use super::super::batched::push::BatchPush;
use super::super::config::EXPECTED_REVS_HIGH;
use super::super::feed::Feed;
use super::super::protocol::conflicts::{Conflicts, Refused};
use super::super::protocol::pull::PullProtocol;
use super::super::protocol::push::PushState;
use super::super::sequences::{RemoteSequence, SequenceSet};
use super::super::stock::pull::ListPull;
use super::*;
use crate::blip::{BlipConfig, MessageNumber};
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::{CollectionId, ConflictOutcome, Rejection};

const OURS: u64 = 7;

fn version(time: u64) -> Version {
    Version { time, source: SourceId([2; 16]) }
}

fn revision(id: &str) -> IncomingRevision {
    IncomingRevision {
        collection: CollectionId(0),
        id: id.into(),
        vector: VersionVector::new(version(5)),
        deleted: false,
        body: Bytes::from_static(b"{}"),
    }
}

fn context() -> SessionContext {
    SessionContext::new(BlipConfig::default(), true, false, Duration::from_secs(60))
}

/// A run whose peer has refused our revision of `x`.
fn refused() -> Active {
    let source = SourceId([1; 16]);
    let feed = Feed::new(CollectionId(0), "_default", 0, None);
    let mut state = PushState::new(0, feed, SequenceSet::new(), true, false);
    let ours = RevId::Version(Version { time: 9, source });
    state.conflicts.note("x", Refused::new(OURS, Some(ours)), &mut state.done);
    let push = Push::new(state, Box::new(BatchPush::new(source, 0, 0)));
    let checkpointer = Checkpointer::new(0, CollectionId(0), "cp-".into(), Instant::ZERO, Duration::ZERO, 0);
    let mut active = Active::new(ActiveConfig::default());
    active.syncs.push(CollectionSync { push: Some(push), ..CollectionSync::new(checkpointer, true, true) });
    active
}

#[derive(Debug, PartialEq)]
enum Now {
    /// It waits for what the pull brings.
    Refused,
    /// There is nothing to push any more.
    Settled,
    /// It is sent once more.
    SentAgain,
}

fn now(active: &Active) -> Now {
    let push = active.syncs[0].push.as_ref().expect("it pushes");
    match (push.is_conflicted("x"), push.done().contains(OURS), push.is_idle(0)) {
        (true, false, true) => Now::Refused,
        (false, true, true) => Now::Settled,
        (false, false, false) => Now::SentAgain,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_store_says_of_the_peers_revision_decides() {
    let resolved = |push| CommitOutcome::Resolved { sequence: 20, push, outcome: ConflictOutcome::Local };
    let failed = Rejection::Resolver("it failed".into());
    for (outcome, then) in [
        // Ours descends from it: nothing but ours is news.
        (CommitOutcome::AlreadyKnown { sequence: OURS }, Now::SentAgain),
        (CommitOutcome::Inserted { sequence: 20 }, Now::Settled),
        (resolved(false), Now::Settled),
        (resolved(true), Now::Settled),
        (CommitOutcome::Rejected(Rejection::BadBody("bad".into())), Now::Settled),
        // It is tried again.
        (CommitOutcome::Rejected(failed), Now::Refused),
    ] {
        let mut active = refused();
        let from = (0, None, &RemoteSequence::START);
        active.received(&mut context(), from, &revision("y"), &outcome);
        assert_eq!(now(&active), Now::Refused, "{outcome:?} of another document");
        active.received(&mut context(), from, &revision("x"), &outcome);
        assert_eq!(now(&active), then, "{outcome:?}");
    }
}

#[test]
fn what_is_answered_to_an_offer_decides() {
    let entry = |id: &str, content| RevEntry {
        sequence: 3,
        id: id.into(),
        vector: VersionVector::new(version(5)),
        deleted: false,
        content,
        refused: None,
    };
    let body = || Content::Body(Bytes::from_static(b"{}"));
    let entries = [entry("x", body()), entry("y", Content::Offer), entry("x", Content::Offer)];
    let offers = refused().conflicted_offers(0, &entries);
    assert_eq!(offers, [(2, "x".to_owned(), RevId::Version(version(5)))], "bodies go to the store");
    for (answer, then) in [
        (Some(RevAnswer::Known), Now::SentAgain),
        (Some(RevAnswer::Stored(20)), Now::Settled),
        (Some(RevAnswer::Wanted), Now::Refused),
        (None, Now::Refused),
    ] {
        let mut active = refused();
        let received = RevsReceived {
            request: MessageNumber(1),
            no_reply: false,
            collection: 0,
            asked: false,
            from: 0,
            through: 3,
            answers: vec![(1, None), (2, None), (3, answer.clone())],
        };
        active.conflicted_offers_answered(offers.clone(), &received);
        assert_eq!(now(&active), then, "{answer:?}");
    }
}

/// Answers overtake each other: the newest refused revision counts, those before it have nothing left to push.
#[test]
fn of_several_refusals_the_newest_revision_waits() {
    let note = |sequences: &[u64]| {
        let (mut conflicts, mut done) = (Conflicts::default(), SequenceSet::new());
        for sequence in sequences {
            conflicts.note("x", Refused::new(*sequence, None), &mut done);
        }
        let waits = conflicts.tell(true);
        assert!(conflicts.tell(true).is_empty(), "it is told once");
        assert!(conflicts.contains("x") && !conflicts.contains("y"));
        (waits, (1..10).filter(|sequence| done.contains(*sequence)).collect::<Vec<u64>>())
    };
    let x = |sequence| vec![("x".to_owned(), sequence)];
    assert_eq!(note(&[5]), (x(5), vec![]));
    assert_eq!(note(&[5, 9]), (x(9), vec![5]));
    assert_eq!(note(&[9, 5]), (x(9), vec![5]));
    assert_eq!(note(&[5, 5]), (x(5), vec![]));
    // What the peer's feed still brings is told at the end alone.
    let mut conflicts = Conflicts::default();
    let refused = Refused { mutually_contains: true, ..Refused::new(5, None) };
    conflicts.note("x", refused, &mut SequenceSet::new());
    assert_eq!((conflicts.tell(false), conflicts.tell(true)), (vec![], x(5)));
    assert!(Conflicts::default().take("x").is_none() && conflicts.take("x").is_some());
}

/// A peer may offer without end; what is wanted of it and does not come is bounded.
#[test]
fn offers_that_are_wanted_and_do_not_come_are_bounded() {
    let mut pull = BatchPull::new(0, 0);
    let mut offer = |from: u64, count: u64| {
        let answers = (from + 1..=from + count).map(|n| (n, Some(RevAnswer::Wanted))).collect();
        let (request, through) = (MessageNumber(1), from + count);
        let received =
            RevsReceived { request, no_reply: false, collection: 0, asked: false, from, through, answers };
        pull.begin_revs(&received, 0, false)
    };
    let max = 16 * EXPECTED_REVS_HIGH as u64;
    assert_eq!((offer(0, max / 2), offer(max / 2, max / 2)), (Ok(()), Ok(())));
    let (actual, max) = (max as usize + 1, max as usize);
    assert_eq!(offer(max as u64, 1), Err(SessionError::TooMany { what: "offers", max, actual }));
}

/// Only a feed that was read to its end has caught up: not one that was given up. And what was not agreed is no part of it.
#[test]
fn a_feed_that_is_given_up_has_not_caught_up() {
    let received = RevsReceived {
        request: MessageNumber(1),
        no_reply: false,
        collection: 0,
        asked: false,
        from: 0,
        through: 0,
        answers: vec![],
    };
    let mut pull = Pull::new(0, Box::new(BatchPull::new(0, 0)));
    assert!(!pull.has_caught_up() && !pull.is_complete());
    pull.protocol.begin_revs(&received, 0, true).expect("an empty message");
    pull.protocol.settle_revs(&received, &[]);
    assert!(pull.has_caught_up() && pull.is_complete());
    pull.end();
    assert!(!pull.has_caught_up() && pull.is_complete());
    let mut pull = ListPull::new(0, RemoteSequence::START);
    assert!(matches!(pull.begin_revs(&received, 0, true), Err(SessionError::Malformed { .. })));
}

/// A push that waits is due once, also while nothing can be sent.
#[test]
fn a_delay_is_over_at_its_end() {
    let due = Instant::from_micros(5_000_000);
    let feed = Feed::new(CollectionId(0), "_default", 0, None);
    let mut state = PushState::new(0, feed, SequenceSet::new(), true, false);
    state.delayed_until = Some(due);
    let mut active = refused();
    active.syncs[0].push = Some(Push::new(state, Box::new(BatchPush::new(SourceId([1; 16]), 0, 0))));
    let due_at = |active: &Active| active.syncs[0].push.as_ref().and_then(Push::due_at);
    active.handle_timeout(Instant::from_micros(4_999_999));
    assert_eq!((due_at(&active), active.poll_at()), (Some(due), Some(due)));
    active.handle_timeout(due);
    assert_eq!(due_at(&active), None);
}

#[test]
fn what_is_said_of_the_peer_before_the_start_holds() {
    use crate::endpoint::CollectionAccess;
    let mut active = Active::new(ActiveConfig::default());
    assert!(active.may_read("a"));
    active.set_access(Arc::new(|name: &str| CollectionAccess { push: true, pull: name == "a" }));
    assert!(active.may_read("a") && !active.may_read("b"));
    active.set_peer_uid("peer".into());
    assert_eq!(active.config.peer_uid, "peer");
}

/// What an interrupted run had begun is noted for each peer by itself, and counts as all after a reset.
#[test]
fn the_note_of_a_run_is_found_by_the_next() {
    let store = crate::replicator::memory_store::MemoryStore::new(1);
    let nothing = serde_json::json!({});
    let load = |client: &str, reset: bool| {
        let mut checkpointer =
            Checkpointer::new(0, CollectionId(0), client.into(), Instant::ZERO, Duration::ZERO, 0);
        checkpointer.load(&nothing, &store, reset).expect("readable");
        checkpointer
    };
    let noted = |client: &str, reset: bool| {
        let note = load(client, reset).note();
        (note.sent, note.received)
    };
    assert_eq!(noted("one", false), (0, 0));
    let mut one = load("one", false);
    one.take_note(5, 7, &store).expect("kept");
    one.take_note(4, 8, &store).expect("kept");
    load("other", false).take_note(1, 2, &store).expect("kept");
    assert_eq!((noted("one", false), noted("other", false)), ((5, 8), (1, 2)));
    assert_eq!(noted("one", true), (u64::MAX, u64::MAX));
}

#[test]
fn only_blip_says_that_it_knows_no_such_request() {
    use super::agree::is_unknown_profile;
    let error = |domain: &str, code| ErrorReply { domain: domain.into(), code, message: "no".into() };
    let found = [("BLIP", 404), ("BLIP", 400), ("HTTP", 404), ("HTTP", 500)]
        .map(|(domain, code)| is_unknown_profile(&error(domain, code)));
    assert_eq!(found, [true, false, false, false]);
}
