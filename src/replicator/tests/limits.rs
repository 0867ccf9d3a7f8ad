//! What one side asks for is bounded, each kind by itself; below the bounds work goes on, and collections share them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::exchange::{active, passive};
use super::memory_store::MemoryStore;
use super::pair::{Pair, Side};
use crate::blip::{BlipConfig, MessageNumber, OutgoingMessage};
use crate::replica::revision::{RevId, SourceId, Version, VersionVector};
use crate::replica::store::{Change, CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};
use crate::replicator::config::{CollectionConfig, REPLY_TIMEOUT_FACTOR, ReplicatorType};
use crate::replicator::context::SessionContext;
use crate::replicator::feed::Feed;
use crate::replicator::in_flight::{Awaiting, Sent, SentRev, SentRevision};
use crate::replicator::limits::{InFlight, SessionLimits};
use crate::replicator::session::Session;
use crate::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(60);

fn context() -> SessionContext {
    let mut context = SessionContext::new(BlipConfig::default(), false, false, TIMEOUT);
    context.limits = SessionLimits {
        send_queue_low: 10_000,
        lists_in_flight: (2, 3),
        revs_in_flight: (2, 3),
        rev_bytes_in_flight: 100,
        batches_in_flight: (2, 3),
        batch_bytes_in_flight: 100,
        ..SessionLimits::default()
    };
    context
}

fn list() -> Awaiting {
    Awaiting::Changes { collection: 0, changes: Vec::new() }
}

fn revision() -> RevId {
    RevId::Version(Version { time: 1, source: SourceId([1; 16]) })
}

fn rev(bytes: usize) -> Awaiting {
    let (id, revision) = ("d".to_owned(), revision());
    let rev = SentRev {
        id,
        sequence: 1,
        deleted: false,
        revision,
        bytes,
        guesses_tree: false,
        known: None,
        is_delta: false,
    };
    Awaiting::Rev { collection: 0, rev }
}

fn batch(bytes: usize) -> Awaiting {
    let (id, revision) = ("d".to_owned(), revision());
    let revisions = vec![SentRevision { id, sequence: 1, deleted: false, sent: Sent::Body, revision }];
    Awaiting::Revs { collection: 0, revisions, bytes }
}

/// Sends all that is queued.
fn drain(context: &mut SessionContext) {
    while context.poll_frame().is_some() {}
}

/// Lists, single revisions and batches, to a collection that has one of each under way, and to one that has two.
fn may(context: &SessionContext) -> ([bool; 3], [bool; 3]) {
    let of = |n| [context.may_list(n), context.may_send_rev(n), context.may_send_batch(n)];
    (of(1), of(2))
}

#[test]
fn each_limit_holds_by_itself_and_ends_with_the_reply() {
    type Make = fn() -> Awaiting;
    let kinds: [(&str, Make, usize, [bool; 3]); 5] = [
        ("lists", list, 3, [false, true, true]),
        ("revisions", || rev(1), 3, [true, false, true]),
        ("bytes of revisions", || rev(50), 2, [true, false, true]),
        ("batches", || batch(1), 3, [true, true, false]),
        ("bytes of batches", || batch(50), 2, [true, true, false]),
    ];
    for (what, make, most, at_limit) in kinds {
        let mut context = context();
        for n in 1..=most {
            assert!(!context.is_at_session_limit(), "{what}: {n} of {most} may go");
            assert_eq!(may(&context), ([true; 3], [false; 3]), "{what}: two of a collection are the most");
            context.request(OutgoingMessage::request("x"), make()).expect("open");
            drain(&mut context);
        }
        assert_eq!(may(&context), (at_limit, [false; 3]), "{what}");
        assert!(context.is_at_session_limit(), "{what}");
        assert!(context.take_awaiting(MessageNumber(1)).is_some(), "{what}");
        assert_eq!(may(&context).0, [true; 3], "{what}: one is answered");
        assert!(!context.is_at_session_limit(), "{what}");
    }
    // What waits for the transport holds up everything.
    let mut context = context();
    context.request(OutgoingMessage::request("x").with_body(vec![0; 10_000]), rev(1)).expect("open");
    assert_eq!((may(&context), context.may_send()), (([false; 3], [false; 3]), false));
    assert!(context.is_at_session_limit());
    drain(&mut context);
    assert_eq!((may(&context).0, context.may_send()), ([true; 3], true));
    assert!(!context.is_at_session_limit());
}

/// A peer that owes nothing has its whole time for the first request; what is asked meanwhile gives it no more.
#[test]
fn the_time_for_a_reply_begins_with_the_first_request() {
    let mut context = context();
    let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
    context.now = at(100);
    assert_eq!(context.reply_deadline(false), None);
    context.request(OutgoingMessage::request("x"), list()).expect("open");
    assert_eq!(context.reply_deadline(false), Some(at(160)));
    context.now = at(110);
    context.request(OutgoingMessage::request("x"), list()).expect("open");
    assert_eq!(context.reply_deadline(false), Some(at(160)), "nothing has moved");
    drain(&mut context);
    assert_eq!(context.reply_deadline(false), Some(at(170)), "the second went out");
    context.now = at(120);
    context.request(OutgoingMessage::request("x"), list()).expect("open");
    assert_eq!(context.reply_deadline(false), Some(at(170)), "it owes two replies");
}

/// A long message has its time from its last frame on, however many minutes it needs.
#[test]
fn a_request_that_goes_out_slowly_is_not_given_up() {
    let mut context = context();
    context.now = Instant::ZERO + Duration::from_secs(100);
    let begin = context.now;
    context.request(OutgoingMessage::request("x").with_body(vec![0; 120_000]), list()).expect("open");
    while context.poll_frame().is_some() {
        context.now = context.now + Duration::from_secs(59);
        assert!(context.reply_deadline(false) > Some(context.now), "{:?}", context.now);
    }
    assert!(context.now > begin + TIMEOUT * REPLY_TIMEOUT_FACTOR, "it took longer than an answer may");
}

/// What waits for this side's store is not the peer's delay, and after the end nothing is.
#[test]
fn no_time_runs_while_it_is_this_sides_turn() {
    use crate::replicator::inbox::{Batch, Origin};
    use crate::replicator::sequences::RemoteSequence;
    let mut context = context();
    context.request(OutgoingMessage::request("x"), list()).expect("open");
    assert!(context.reply_deadline(false).is_some());
    let (request, sequence) = (MessageNumber(1), RemoteSequence::START);
    let origin = Origin::Rev { request, no_reply: false, collection: 0, ticket: None, sequence };
    context.inbox.push(Batch { origin, revisions: vec![], corrupt: vec![] });
    assert_eq!(context.reply_deadline(true), None);
    context.inbox.clear();
    assert!(context.reply_deadline(true).is_some());
    context.finish(Ok(()));
    assert_eq!(context.reply_deadline(true), None);
}

/// Work and rest are told when they change, and at rest what could not be synced until then; after the end nothing is.
#[test]
fn work_and_rest_are_told_once() {
    use crate::replicator::event::{Activity, SessionEvent};
    let mut context = context();
    let told = |context: &mut SessionContext, activity| {
        context.set_activity(activity);
        let events = std::iter::from_fn(|| context.poll_event()).filter_map(|event| match event {
            SessionEvent::Unsynced(_) => Some("unsynced"),
            SessionEvent::Activity(Activity::Busy) => Some("busy"),
            SessionEvent::Activity(_) => Some("idle"),
            SessionEvent::Finished(_) => Some("finished"),
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    context.only_at_peer(vec!["a".into()]);
    assert!(told(&mut context, Activity::Busy).is_empty(), "it is at work");
    assert_eq!(told(&mut context, Activity::Idle), ["unsynced", "idle"]);
    assert!(told(&mut context, Activity::Idle).is_empty());
    context.only_at_peer(vec!["b".into()]);
    assert_eq!(told(&mut context, Activity::Busy), ["busy"]);
    context.finish(Ok(()));
    context.only_at_peer(vec!["c".into()]);
    assert_eq!(told(&mut context, Activity::Idle), ["unsynced", "finished"], "of before the end");
    assert!(told(&mut context, Activity::Busy).is_empty());
}

/// A peer that does not read, or does not go on with what it has begun, has as long.
#[test]
fn what_is_not_read_and_what_is_not_ended_has_its_time() {
    let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
    let mut context = context();
    context.notify(OutgoingMessage::request("x")).expect("open");
    assert_eq!(context.reply_deadline(false), Some(at(60)), "it has not gone out");
    drain(&mut context);
    assert_eq!(context.reply_deadline(false), None, "no reply is wanted");
    assert_eq!(context.reply_deadline(true), Some(at(60)), "somebody else knows of something");
    let mut peer = crate::blip::Connection::new(BlipConfig { compression_level: 0, ..BlipConfig::default() });
    peer.send_request(OutgoingMessage::request("x").with_body(vec![0; 100_000])).expect("open");
    let first = peer.poll_frame().expect("there is much to send");
    context.blip.handle_frame(&first).expect("in order");
    assert_eq!(context.reply_deadline(false), Some(at(60)), "it has begun something");
    while let Some(frame) = peer.poll_frame() {
        context.blip.handle_frame(&frame).expect("in order");
    }
    drain(&mut context);
    assert_eq!(context.reply_deadline(false), None);
}

/// The limits of the sending side.
fn narrow() -> SessionLimits {
    SessionLimits {
        send_queue_low: 4 << 20,
        lists_in_flight: (2, 3),
        list_bytes: 1,
        revs_in_flight: (4, 6),
        rev_bytes_in_flight: 4 << 20,
        batches_in_flight: (2, 3),
        batch_bytes_in_flight: 4 << 20,
        ..SessionLimits::default()
    }
}

/// Documents of each collection, large enough for a message each.
const DOCUMENTS: usize = 8;

fn pair(
    limits: SessionLimits,
    names: &[&str],
    pushes: bool,
    extension: bool,
) -> (Pair, [Arc<MemoryStore>; 2]) {
    let a = Arc::new(MemoryStore::with_collections(1, names));
    let p = Arc::new(MemoryStore::with_collections(2, names));
    let from = if pushes { &a } else { &p };
    let body = format!("{{\"b\":\"{}\"}}", "b".repeat(50_000));
    for collection in 0..names.len() {
        (0..DOCUMENTS).for_each(|n| from.put_in(collection, &format!("d{n}"), &body));
    }
    let direction = if pushes { ReplicatorType::Push } else { ReplicatorType::Pull };
    let mut config = active(direction, extension);
    config.collections = names.iter().map(|name| CollectionConfig::new(*name)).collect();
    let mut answering = passive(extension);
    answering.collections = names.iter().map(|name| (*name).to_owned()).collect();
    [&mut config.blip, &mut answering.blip].into_iter().for_each(|blip| blip.compression_level = 0);
    let [asking, answering] = [Session::active(config), Session::passive(answering)]
        .map(|session| session.with_limits(limits.clone()));
    let pair = Pair::of(1, asking, answering, &a, &p).without_events();
    (pair, if pushes { [a, p] } else { [p, a] })
}

fn sending(pair: &Pair, pushes: bool) -> &Side {
    if pushes { &pair.a } else { &pair.p }
}

/// The most of each kind that was under way until the end, which must come.
fn most_under_way(limits: SessionLimits, names: &[&str], pushes: bool, extension: bool) -> InFlight {
    let (mut pair, [from, to]) = pair(limits, names, pushes, extension);
    let mut most = InFlight::default();
    while pair.a.finished.is_none() {
        pair.run_until(pair.frames + 1);
        let now = sending(&pair, pushes).session.in_flight();
        most.lists = most.lists.max(now.lists);
        most.revs = most.revs.max(now.revs);
        most.rev_bytes = most.rev_bytes.max(now.rev_bytes);
        most.batches = most.batches.max(now.batches);
        most.batch_bytes = most.batch_bytes.max(now.batch_bytes);
    }
    assert_eq!(pair.a.finished, Some(Ok(())));
    assert!((0..names.len()).all(|n| from.dump(n) == to.dump(n)));
    most
}

#[test]
fn as_much_is_under_way_as_the_limits_say() {
    for pushes in [true, false] {
        for (names, [lists, revs, batches]) in
            [(&["c.a"][..], [2, 4, 2]), (&["c.a", "c.b", "c.c", "c.d"][..], [3, 6, 3])]
        {
            let plain = most_under_way(narrow(), names, pushes, false);
            assert_eq!((plain.lists, plain.revs, plain.batches), (lists, revs, 0), "{pushes} {names:?}");
            let extension = most_under_way(narrow(), names, pushes, true);
            assert_eq!((extension.revs, extension.batches), (0, batches), "{pushes} {names:?}");
            // One more may go below the bytes: three in all.
            let limits =
                SessionLimits { rev_bytes_in_flight: 110_000, batch_bytes_in_flight: 110_000, ..narrow() };
            let revs = most_under_way(limits.clone(), names, pushes, false).rev_bytes;
            assert!((150_000..160_000).contains(&revs), "{pushes} {names:?}: {revs}");
            let one_of_three = SessionLimits { batches_in_flight: (9, 9), ..limits };
            let batches = most_under_way(one_of_three, names, pushes, true).batch_bytes;
            assert!((150_000..160_000).contains(&batches), "{pushes} {names:?}: {batches}");
        }
    }
}

/// None waits until another has sent all.
#[test]
fn collections_take_turns_at_the_limit() {
    for pushes in [true, false] {
        for extension in [true, false] {
            let names = ["c.a", "c.b", "c.c", "c.d"];
            let (mut pair, [_, to]) = pair(narrow(), &names, pushes, extension);
            let counts = || names.iter().enumerate().map(|(n, _)| to.dump(n).len());
            while counts().any(|count| count == 0) {
                assert!(
                    counts().all(|count| count < DOCUMENTS),
                    "{pushes} {extension}: {:?}",
                    counts().collect::<Vec<_>>()
                );
                assert_eq!(pair.a.finished, None);
                pair.run_until(pair.frames + 1);
            }
        }
    }
}

/// Revisions of many authors have long names: fewer of them go into a list.
#[test]
fn a_list_is_no_longer_than_it_may_be_however_long_the_names_are() {
    const DOCUMENTS: usize = 40;
    let store = MemoryStore::new(1);
    let name_bytes = |change: &Change| change.vector.list_text(None).len();
    let is_large = |n: usize| n % 10 == 3;
    for n in 0..DOCUMENTS {
        let by = |author: u8| Version { time: 1 + u64::from(author), source: SourceId([author; 16]) };
        let history = if n % 2 == 0 { (1..200).map(by).collect() } else { Vec::new() };
        // Older than what stands in its history: then a list names the whole vector.
        let current = Version { time: 1, source: SourceId([201; 16]) };
        let vector = VersionVector { history, ..VersionVector::new(current) };
        let text = if is_large(n) { format!("{{\"b\":\"{}\"}}", "b".repeat(2_000)) } else { "{}".to_owned() };
        let (collection, id, body) = (CollectionId(0), format!("d{n}"), Bytes::from(text));
        let revision = IncomingRevision { collection, id, vector, deleted: false, body };
        store.commit(&[revision], ConflictPolicy::Refuse).expect("taken");
    }
    let mut context = context();
    context.limits.list_bytes = 50_000;
    context.body_size_max = 1_000;
    let mut feed = Feed::new(CollectionId(0), "_default", 0, None);
    let (mut lists, mut documents, mut bytes, mut left_out) = (0, 0, 0, Vec::new());
    while !feed.is_exhausted(DOCUMENTS as u64) {
        let rows = feed.read_list(&store, DOCUMENTS as u64, 200, &context).expect("read");
        let changes = rows.changes;
        for (change, _) in rows.unsendable {
            assert!((rows.from + 1..=rows.through).contains(&change.sequence), "it has its turn");
            left_out.push(change.id);
        }
        let size: usize = changes.iter().map(name_bytes).sum();
        assert!(size <= 50_000 || changes.len() == 1, "{size} bytes for {} documents", changes.len());
        (lists, documents, bytes) = (lists + 1, documents + changes.len(), bytes + size);
    }
    assert_eq!(left_out, ["d3", "d13", "d23", "d33"], "each is told once");
    assert_eq!(documents, DOCUMENTS - left_out.len());
    assert!(lists <= 2 * bytes / 50_000 + 2, "{lists} lists for {bytes} bytes");
}

#[test]
fn a_feed_is_complete_at_its_end_and_one_without_an_end_never() {
    let at = |cursor, target| Feed::new(CollectionId(0), "_default", cursor, target).is_complete();
    assert!(at(5, Some(5)) && at(6, Some(5)) && !at(4, Some(5)) && !at(5, None));
}
