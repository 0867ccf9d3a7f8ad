//! Lists of a peer that are not as they should be, and where ours end.

use std::sync::Arc;
use std::time::Duration;

use super::exchange::{active, fill, passive, stores};
use super::memory_store::MemoryStore;
use super::pair::Pair;
use super::scripted::{NEW, START, Scripted, pulling, request};
use crate::blip::frame::{Frame, FrameType};
use crate::blip::{Event, IncomingRequest, OutgoingMessage};
use crate::replica::store::ReplicaStore;
use crate::replicator::config::*;
use crate::replicator::error::SessionError;
use crate::replicator::event::{Activity, SessionEvent};
use crate::replicator::extension::{PROPERTY, VERSION, codec};
use crate::replicator::session::Session;

/// Of a list with a bad entry the others are asked for; of one that is no list nothing comes, and the run says so.
#[test]
fn a_bad_entry_of_a_list_leaves_the_others_alone() {
    let list = |scripted: &mut Scripted, body: String| {
        let answer = scripted.ask(request("changes").with_body(body)).0.expect("answered");
        assert_eq!(scripted.ask(request("changes").with_body("[]")).0, Some(Ok(OutgoingMessage::default())));
        answer
    };
    let mut scripted = pulling(false);
    let body =
        format!(r#"[[1,"bad","no revision",0,9],[2,"tree","1-ab",0,9],[3,"",{NEW:?},0,9],[4,"d",{NEW:?}]]"#);
    let answer = list(&mut scripted, body).expect("a list");
    assert_eq!(&answer.body[..], b"[0,[],0,[]]");
    for (id, rev, sequence) in [("tree", "1-ab", "2"), ("d", NEW, "4")] {
        let rev = request("rev").with("id", id).with("rev", rev).with("sequence", sequence);
        assert!(scripted.ask(rev.with_body("{}")).0.expect("answered").is_ok());
    }
    assert_eq!(scripted.store.count(), 2);
    assert_eq!(scripted.result, Ok(()));

    let mut scripted = pulling(false);
    assert!(list(&mut scripted, "[[1".to_owned()).is_err());
    assert_eq!(scripted.finished, Some(Err(SessionError::Malformed { what: "changes" })));
}

/// A passive side that has been asked for its collection, in this protocol.
fn asked(extension: bool) -> Scripted {
    let mut scripted = Scripted::passive(extension);
    let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
    let mut ask = OutgoingMessage::request("getCollections").with_body(body);
    if extension {
        ask = ask.with(PROPERTY, VERSION);
    }
    assert!(scripted.ask(ask).0.expect("answered").is_ok());
    scripted
}

/// Lets a message arrive, and does nothing more.
fn deliver(scripted: &mut Scripted, message: OutgoingMessage) {
    scripted.peer.send_request(message).expect("small");
    while let Some(frame) = scripted.peer.poll_frame() {
        scripted.session.handle_frame(START, &frame, &*scripted.store).expect("well formed");
    }
}

/// What the peer hears of the feed: how much is in it, and whether it ends there.
fn heard(events: Vec<Event>) -> Vec<(bool, bool)> {
    let told = |event: Event| {
        let Event::Request(request) = event else { return None };
        let told = match request.profile() {
            "revs" => codec::decode(&request.body).map(|revs| (!revs.revisions.is_empty(), revs.last)),
            _ => Ok((&request.body[..] != b"[]", &request.body[..] == b"[]")),
        };
        Some(told.expect("a list"))
    };
    events.into_iter().filter_map(told).collect()
}

/// A peer asks for the feed while what it has pushed is on its way to the store: the feed is not told to end before what was
/// there.
#[test]
fn the_feed_does_not_end_before_what_was_there_while_a_commit_is_under_way() {
    for (extension, edited) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut scripted = asked(extension);
        let subscribe = || request("subChanges").with("versioning", "version-vectors");
        let new = || request("rev").with("id", "new").with("rev", NEW).with_body("{}");
        let commit = if edited {
            deliver(&mut scripted, subscribe().with("batch", "1"));
            deliver(&mut scripted, new());
            let commit = scripted.session.poll_commit().expect("pushed");
            // What was there moves to the end of the feed, behind the commit that is under way.
            ["d", "e"].iter().for_each(|id| scripted.store.put(id, r#"{"n":2}"#));
            commit
        } else {
            deliver(&mut scripted, new());
            let commit = scripted.session.poll_commit().expect("pushed");
            deliver(&mut scripted, subscribe());
            commit
        };
        let meanwhile = heard(scripted.settle());
        assert!(meanwhile.iter().all(|(_, ends)| !ends), "{extension}, {edited}: {meanwhile:?}");
        let result = scripted.store.commit(&commit.revisions, scripted.session.conflict_policy());
        scripted.session.handle_commit(START, commit.id, result, &*scripted.store);
        let all: Vec<_> = meanwhile.into_iter().chain(heard(scripted.settle())).collect();
        assert!(all.first().is_some_and(|(lists, _)| *lists), "{extension}, {edited}: {all:?}");
        assert!(all.last().is_some_and(|(_, ends)| *ends), "{extension}, {edited}: {all:?}");
    }
}

/// With a change there is work on either side, also while nothing can be sent.
#[test]
fn a_change_makes_both_sides_busy_before_it_is_sent() {
    for extension in [false, true] {
        let (a, p) = stores();
        fill(&a, "a", 3);
        fill(&p, "p", 3);
        let config = ActiveConfig { continuous: true, ..active(ReplicatorType::PushAndPull, extension) };
        let mut pair = Pair::new(1, config, passive(extension), &a, &p);
        pair.run_for(Duration::from_secs(1));
        for (side, store) in [(&mut pair.a, &a), (&mut pair.p, &p)] {
            assert!(side.idle);
            store.put("new", "{}");
            side.session.handle_store_changed(pair.now, &**store);
            let events: Vec<_> = std::iter::from_fn(|| side.session.poll_event()).collect();
            let busy = |event: &SessionEvent| matches!(event, SessionEvent::Activity(Activity::Busy));
            assert!(events.iter().any(busy), "extension {extension}: {events:?}");
        }
    }
}

/// A peer that wants everything and takes nothing is listed no more than it may leave open, and all of it in the end; one that
/// has been told the end of a feed that it wanted once hears of nothing more.
#[test]
fn lists_stop_while_many_revisions_wait() {
    const DOCUMENTS: usize = 4_000;
    let store = Arc::new(MemoryStore::new(1));
    fill(&store, "d", DOCUMENTS);
    let mut scripted = Scripted::new(Session::passive(passive(false)), store).with_collections();
    let ask = request("subChanges").with("versioning", "version-vectors");
    scripted.peer.send_request(ask).expect("small");
    let (mut listed, mut open, mut most, mut ends) = (0, 0, 0, 0);
    let mut revs: Vec<IncomingRequest> = Vec::new();
    loop {
        let heard = scripted.settle();
        if heard.is_empty() && revs.is_empty() {
            break;
        }
        if heard.is_empty() {
            open -= revs.len();
            for rev in revs.drain(..) {
                scripted.peer.reply(rev.number, OutgoingMessage::default()).expect("open");
            }
        }
        for event in heard {
            let Event::Request(request) = event else { continue };
            if request.profile() == "rev" {
                revs.push(request);
                continue;
            }
            let rows: Vec<serde_json::Value> = serde_json::from_slice(&request.body).expect("a list");
            ends += usize::from(rows.is_empty());
            (listed, open) = (listed + rows.len(), open + rows.len());
            if !request.no_reply {
                let wanted = vec!["[]"; rows.len()].join(",");
                let reply = OutgoingMessage::default().with_body(format!("[{wanted}]"));
                scripted.peer.reply(request.number, reply).expect("open");
            }
        }
        most = most.max(open);
    }
    assert_eq!((listed, open, ends), (DOCUMENTS, 0, 1));
    let max = WANTED_REVS_MAX + REVS_IN_FLIGHT_MAX + LISTS_IN_FLIGHT_MAX * CHANGES_BATCH;
    assert!((WANTED_REVS_MAX..=max).contains(&most), "{most} open");
    scripted.store.put("late", "{}");
    scripted.session.handle_store_changed(scripted.now, &*scripted.store);
    assert!(scripted.settle().is_empty(), "it did not ask for what comes later");
}

/// Couchbase Lite takes a list that overtakes another for the newer place in the feed: none begins before the last is out.
#[test]
fn a_list_is_out_before_the_next_begins() {
    let store = Arc::new(MemoryStore::new(1));
    let mut rng = fastrand::Rng::with_seed(1);
    for n in 0..700 {
        let long: String = std::iter::repeat_with(|| rng.alphanumeric()).take(200).collect();
        store.put(&format!("{n}-{long}"), "{}");
    }
    let mut scripted = Scripted::new(Session::passive(passive(false)), store).with_collections();
    deliver(&mut scripted, request("subChanges").with("versioning", "version-vectors"));
    let mut numbers = Vec::new();
    while let Some(frame) = scripted.session.poll_frame(START, &*scripted.store) {
        let header = Frame::parse(&frame).expect("ours").header;
        numbers.extend((header.flags.kind() == FrameType::Request).then_some(header.number));
    }
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(
        numbers.len() > 4 && numbers.iter().max() > Some(&1),
        "several lists of several frames: {numbers:?}"
    );
}
