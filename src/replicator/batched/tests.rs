//! What each answer to each kind of revision in a `revs` message means, where the peer pulls and where this side pushes.

use std::time::Duration;

use super::feed::BatchFeed;
use super::push::BatchPush;
use super::receiver::{OnConflict, sort};
use super::sender::BatchSender;
use crate::blip::{BlipConfig, ErrorReply, IncomingReply, MessageNumber, Properties};
use crate::replica::revision::{RevId, SourceId, Version, VersionVector};
use crate::replica::store::{CollectionId, ConflictOutcome, ConflictPolicy, IncomingRevision, ReplicaStore};
use crate::replicator::context::{SessionCollection, SessionContext};
use crate::replicator::direction::Direction;
use crate::replicator::event::SessionEvent;
use crate::replicator::extension::answer::{RevAnswer, encode};
use crate::replicator::extension::codec::{Content, RevEntry};
use crate::replicator::extension::{REVS_BYTES, REVS_ENTRIES, RevsFormat};
use crate::replicator::feed::Feed;
use crate::replicator::in_flight::{Awaiting, RevsReceived, Sent, SentRevision, Wanted};
use crate::replicator::limits::SessionLimits;
use crate::replicator::memory_store::MemoryStore;
use crate::replicator::protocol::feed::{FeedProtocol, FeedState};
use crate::replicator::protocol::push::{PushProtocol, PushState};
use crate::replicator::pushed::PushedNote;
use crate::replicator::sequences::{RemoteSequence, SequenceSet};
use crate::replicator::unsynced::Unsynced;
use crate::replicator::unsynced::failure::Failure;
use crate::replicator::unsynced::list::UnsyncedList;

const MAIN: CollectionId = CollectionId(0);
const SEQUENCE: u64 = 1;
const AT_PEER: u64 = 900;

/// What an answer says of a document that is listed as not synced in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Means {
    /// It is sent once more.
    again: bool,
    /// It counts as a document that went over.
    counts: bool,
    /// It is told, and with which code if it failed.
    told: Option<Option<i32>>,
    /// It is listed no more as what the peer lacks, or as what was refused here.
    settled: (bool, bool),
    /// Pushed, it need not be pushed any more.
    done: bool,
    /// Pushed, it is at this place of the peer's feed.
    at_peer: Option<u64>,
    /// Pushed, it waits for what the pull brings.
    conflicted: bool,
}

struct Scene {
    store: MemoryStore,
    context: SessionContext,
    awaiting: Awaiting,
    reply: IncomingReply,
}

impl Scene {
    fn new(sent: Sent, answer: &RevAnswer) -> Scene {
        let store = MemoryStore::new(1);
        store.put("d", "{}");
        let revision = store.vector("d").expect("there").id();
        let mut context = SessionContext::new(BlipConfig::default(), true, true, Duration::from_secs(60));
        let name = "_default".to_owned();
        context.collections = vec![SessionCollection {
            name,
            id: MAIN,
            index: None,
            incoming_filter: None,
            outgoing_filter: None,
        }];
        let mut list = UnsyncedList::load(&store, MAIN, "peer").expect("readable");
        list.note(Failure::sent("d", revision, SEQUENCE, false, ErrorReply::http(500, "before")));
        let place = RemoteSequence::Number(1);
        list.note(Failure::received("d", "1@x".into(), place, false, ErrorReply::http(400, "before")));
        context.lists = vec![list];
        let (id, sequence, deleted) = ("d".to_owned(), SEQUENCE, false);
        let revisions = vec![SentRevision { id, sequence, deleted, sent, revision }];
        let awaiting = Awaiting::Revs { collection: 0, revisions, bytes: 10 };
        let body = encode(std::slice::from_ref(answer), RevsFormat::NEWEST).into();
        let reply = IncomingReply { properties: Properties::default(), body, compressed: false };
        Scene { store, context, awaiting, reply }
    }

    fn means(&mut self, is_idle: bool) -> Means {
        let again = !is_idle;
        assert_eq!(self.context.progress.completed, u64::from(!again), "what is sent again is not over");
        let mut told = None;
        while let Some(event) = self.context.poll_event() {
            if let SessionEvent::DocumentReplicated(document) = event {
                assert_eq!((told, document.direction), (None, Direction::Sent), "once");
                told = Some(document.error.map(|error| error.code));
            }
        }
        let mut unsynced = Unsynced::default();
        self.context.lists[0].tell("_default", &mut unsynced);
        let lists = |direction| unsynced.listed.iter().any(|document| document.direction == direction);
        let settled = (!lists(Direction::Sent), !lists(Direction::Received));
        let counts = self.context.progress.documents == 1;
        Means { again, counts, told, settled, ..Means::default() }
    }
}

fn pulled(sent: Sent, answer: &RevAnswer) -> Means {
    let mut scene = Scene::new(sent, answer);
    let feed = Feed::new(MAIN, "_default", 0, None);
    let mut state = FeedState { collection: 0, feed, continuous: false, caught_up: false, due: 0 };
    let mut protocol = BatchFeed::new(SourceId([1; 16]), 0, 0);
    let (context, reply) = (&mut scene.context, Ok(scene.reply.clone()));
    let awaiting = std::mem::replace(&mut scene.awaiting, Awaiting::Collections);
    let mut pushed = PushedNote::none(MAIN);
    protocol.handle_reply(&mut state, context, awaiting, reply, &mut pushed).expect("an answer");
    scene.means(protocol.is_idle())
}

fn pushed(sent: Sent, answer: &RevAnswer) -> Means {
    let mut scene = Scene::new(sent, answer);
    let feed = Feed::new(MAIN, "_default", 0, None);
    let mut state = PushState::new(0, feed, SequenceSet::new(), true, false);
    let mut protocol = BatchPush::new(SourceId([1; 16]), 0, 0);
    let awaiting = std::mem::replace(&mut scene.awaiting, Awaiting::Collections);
    let replied = protocol
        .handle_reply(&mut state, &mut scene.context, awaiting, Ok(scene.reply.clone()), &scene.store)
        .expect("an answer");
    assert!(replied.refused.is_none() && replied.at_peer.len() <= 1);
    let (done, conflicted) = (state.done.contains(SEQUENCE), state.conflicts.contains("d"));
    let at_peer = replied.at_peer.first().copied();
    Means { done, conflicted, at_peer, ..scene.means(protocol.is_idle()) }
}

fn conflict() -> RevAnswer {
    RevAnswer::Conflict(VersionVector::new(Version { time: 1, source: SourceId([9; 16]) }))
}

fn failed(code: i32) -> RevAnswer {
    RevAnswer::Failed(ErrorReply::http(code, "no"))
}

const NOTHING: Means = Means {
    again: false,
    counts: false,
    told: None,
    settled: (false, false),
    done: false,
    at_peer: None,
    conflicted: false,
};

#[test]
fn what_a_peer_that_pulls_answers_means() {
    let again = Means { again: true, ..NOTHING };
    let settled = Means { settled: (true, false), ..NOTHING };
    // Of what it knows it may have refused a newer one.
    let known = Means { counts: true, told: Some(None), ..settled };
    let stored = Means { settled: (true, true), ..known };
    let refused = |code| Means { told: Some(Some(code)), ..NOTHING };
    for (answer, [body, offer, gone]) in [
        (RevAnswer::Stored(AT_PEER), [stored, settled, NOTHING]),
        (RevAnswer::Known, [known, settled, NOTHING]),
        (RevAnswer::Wanted, [known, again, NOTHING]),
        (conflict(), [known, settled, NOTHING]),
        (failed(403), [refused(403); 3]),
        (failed(500), [refused(500); 3]),
    ] {
        for (sent, means) in [(Sent::Body, body), (Sent::Offer, offer), (Sent::Gone, gone)] {
            assert_eq!(pulled(sent, &answer), means, "{answer:?} to {sent:?}");
        }
    }
}

#[test]
fn what_a_peer_that_is_pushed_to_answers_means() {
    let again = Means { again: true, ..NOTHING };
    let settled = Means { settled: (true, false), done: true, ..NOTHING };
    let there = Means { at_peer: Some(AT_PEER), ..settled };
    let stored = Means { counts: true, told: Some(None), settled: (true, true), ..there };
    let gone = Means { done: true, ..NOTHING };
    let conflicted = Means { conflicted: true, ..NOTHING };
    let refused = |code, done| Means { told: Some(Some(code)), done, ..NOTHING };
    for (answer, [body, offer, gone]) in [
        (RevAnswer::Stored(AT_PEER), [stored, there, there]),
        (RevAnswer::Known, [settled, settled, gone]),
        (RevAnswer::Wanted, [NOTHING, again, NOTHING]),
        (conflict(), [conflicted; 3]),
        // What it will never take is passed, what it may take another time is not.
        (failed(403), [refused(403, true); 3]),
        (failed(500), [refused(500, false); 3]),
    ] {
        for (sent, means) in [(Sent::Body, body), (Sent::Offer, offer), (Sent::Gone, gone)] {
            assert_eq!(pushed(sent, &answer), means, "{answer:?} to {sent:?}");
        }
    }
}

/// The peer's revision may name ours: then its feed brings it once more, and the run does not tell of a conflict before that.
#[test]
fn of_a_conflict_that_the_peer_lists_again_nothing_is_told_yet() {
    let ours = Scene::new(Sent::Body, &RevAnswer::Known).store.vector("d").expect("there");
    let RevId::Version(ours) = ours.id() else { panic!("{ours:?}") };
    let theirs = VersionVector::new(Version { time: 1, source: SourceId([9; 16]) });
    let above = VersionVector { history: vec![ours], ..theirs.clone() };
    for (theirs, told) in [(theirs, 1), (above, 0)] {
        let mut scene = Scene::new(Sent::Body, &RevAnswer::Conflict(theirs.clone()));
        let feed = Feed::new(MAIN, "_default", 0, None);
        let mut state = PushState::new(0, feed, SequenceSet::new(), true, false);
        let mut protocol = BatchPush::new(SourceId([1; 16]), 0, 0);
        let awaiting = std::mem::replace(&mut scene.awaiting, Awaiting::Collections);
        protocol
            .handle_reply(&mut state, &mut scene.context, awaiting, Ok(scene.reply.clone()), &scene.store)
            .expect("an answer");
        assert_eq!(state.conflicts.tell(false).len(), told, "{theirs:?}");
    }
}

/// What was kept against each other here and there is wanted, so that the peer hears of it; any other conflict is left to the
/// peer, and told. Who resolves conflicts wants both.
#[test]
fn an_offer_that_conflicts_is_left_to_the_peer_unless_both_contain_each_other() {
    let [ours, theirs] = [1, 9].map(|n| Version { time: 5, source: SourceId([n; 16]) });
    let above = |current, below| VersionVector { history: vec![below], ..VersionVector::new(current) };
    for (ours, theirs, on_conflict, is_wanted) in [
        (VersionVector::new(ours), VersionVector::new(theirs), OnConflict::Refuse, false),
        (above(ours, theirs), above(theirs, ours), OnConflict::Refuse, true),
        (VersionVector::new(ours), VersionVector::new(theirs), OnConflict::Resolve, true),
    ] {
        let mut scene = Scene::new(Sent::Offer, &RevAnswer::Known);
        let revision = IncomingRevision {
            collection: MAIN,
            id: "here".into(),
            vector: ours.clone(),
            deleted: false,
            body: bytes::Bytes::from_static(b"{}"),
        };
        scene.store.commit(&[revision], ConflictPolicy::Refuse).expect("in memory");
        let entry = RevEntry {
            sequence: 1,
            id: "here".into(),
            vector: theirs,
            deleted: false,
            content: Content::Offer,
            refused: None,
        };
        let received = RevsReceived {
            request: MessageNumber(1),
            no_reply: false,
            collection: 0,
            asked: false,
            from: 0,
            through: 1,
            answers: vec![],
        };
        let sorted = sort(&mut scene.context, received, vec![entry], on_conflict, &scene.store);
        let (received, revisions) = sorted.expect("in memory");
        let expected = if is_wanted { RevAnswer::Wanted } else { RevAnswer::Conflict(ours) };
        assert_eq!((received.answers, revisions.len()), (vec![(1, Some(expected))], 0));
        let events = std::iter::from_fn(|| scene.context.poll_event());
        let open = events
            .filter(|event| matches!(event, SessionEvent::Conflict { outcome: ConflictOutcome::Open, .. }))
            .count();
        assert_eq!(open, usize::from(!is_wanted));
    }
}

/// What was wanted of many offers goes in messages of about [`REVS_BYTES`], and of no more than [`REVS_ENTRIES`] revisions, so that
/// none holds up the others for long.
#[test]
fn what_is_wanted_goes_in_messages_of_a_bounded_size() {
    for (count, bytes, least) in [(200, 2_000, 200 * 2_000 / (REVS_BYTES + 3_000)), (REVS_ENTRIES + 1, 1, 2)]
    {
        let mut scene = Scene::new(Sent::Offer, &RevAnswer::Known);
        scene.context.limits = SessionLimits {
            send_queue_low: 1 << 30,
            batches_in_flight: (1_000, 1_000),
            batch_bytes_in_flight: 1 << 30,
            ..SessionLimits::default()
        };
        let mut sender = BatchSender::new(SourceId([1; 16]), 0, 0);
        for n in 0..count {
            let (id, text) = (n.to_string(), "x".repeat(bytes));
            scene.store.put(&id, &format!("{{\"t\":\"{text}\"}}"));
            let newest = scene.store.revision(MAIN, &id).expect("in memory").expect("there");
            sender.want(Wanted {
                id,
                sequence: newest.sequence,
                revision: newest.vector.id(),
                known: None,
                bases: Vec::new(),
            });
        }
        sender.pump_wanted(&mut scene.context, 0, &scene.store).expect("readable");
        let sent = scene.context.awaiting_count();
        assert!(
            (least..=least * 3).contains(&sent),
            "{sent} messages of {count} revisions, {least} at least"
        );
    }
}
