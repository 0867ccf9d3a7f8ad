//! When a run of the active side may end, what it waits for, and what it asks to be woken for.

use std::sync::Arc;
use std::time::Duration;

use super::exchange::{active, fill, passive, stores, sync};
use super::memory_store::MemoryStore;
use super::pair::Pair;
use super::scripted::{NEW, START, Scripted, pulling, request};
use crate::blip::{ErrorReply, Event, IncomingRequest, OutgoingMessage};
use crate::replica::store::{CollectionId, ReplicaStore};
use crate::replicator::checkpoint::Checkpoint;
use crate::replicator::config::*;
use crate::replicator::error::SessionError;
use crate::replicator::event::{Direction, SessionEvent};
use crate::replicator::messages::parse_document_ids;
use crate::replicator::session::Session;

const DEFAULT: CollectionId = CollectionId(0);

/// An active side that pushes `d` to a peer without the extension.
fn pushing(continuous: bool) -> Scripted {
    let store = Arc::new(MemoryStore::new(1));
    store.put("d", "{}");
    let config = ActiveConfig { continuous, ..active(ReplicatorType::Push, false) };
    Scripted::new(Session::active(config), store)
}

/// Answers as a stock peer that wants everything; gives the requests that stay without an answer, because their profile is
/// one of these or because they want none.
fn answer(scripted: &mut Scripted, hold: &[&str]) -> Vec<IncomingRequest> {
    let mut held = Vec::new();
    loop {
        let heard = scripted.settle();
        if heard.is_empty() {
            return held;
        }
        for event in heard {
            let Event::Request(request) = event else { continue };
            if hold.contains(&request.profile()) || request.no_reply {
                held.push(request);
                continue;
            }
            let reply = match request.profile() {
                "getCollections" => OutgoingMessage::default().with_body("[{}]"),
                "proposeChanges" => OutgoingMessage::default().with_body("[]"),
                "setCheckpoint" => OutgoingMessage::default().with("rev", "1-x"),
                _ => OutgoingMessage::default(),
            };
            scripted.peer.reply(request.number, reply).expect("open");
        }
    }
}

fn one(held: Vec<IncomingRequest>, profile: &str) -> IncomingRequest {
    let of = |request: &IncomingRequest| request.profile() == profile;
    held.into_iter().find(of).unwrap_or_else(|| panic!("{profile} was to come"))
}

/// Ended or stopped: what was sent is answered first, and what that says is in the checkpoint that the peer has taken.
#[test]
fn no_end_before_the_answer_and_the_checkpoint() {
    for stopped in [false, true] {
        let mut scripted = pushing(stopped);
        let rev = one(answer(&mut scripted, &["rev"]), "rev");
        if stopped {
            scripted.session.stop(scripted.now);
            assert!(answer(&mut scripted, &["rev", "setCheckpoint"]).is_empty());
        }
        assert_eq!(scripted.finished, None, "a revision is on its way");
        scripted.peer.reply(rev.number, OutgoingMessage::default()).expect("open");
        let saving = one(answer(&mut scripted, &["setCheckpoint"]), "setCheckpoint");
        assert_eq!(Checkpoint::from_json(&saving.body).to_json(), r#"{"local":1}"#, "stopped {stopped}");
        assert_eq!(scripted.finished, None, "the checkpoint is on its way");
        scripted.peer.reply(saving.number, OutgoingMessage::default().with("rev", "1-x")).expect("open");
        answer(&mut scripted, &[]);
        assert_eq!(scripted.finished, Some(Ok(())), "stopped {stopped}");
    }
}

#[test]
fn before_anything_is_agreed_a_stop_is_the_end() {
    let mut scripted = pushing(true);
    scripted.settle();
    assert_eq!(scripted.finished, None);
    scripted.session.stop(scripted.now);
    scripted.settle();
    assert_eq!(scripted.finished, Some(Ok(())));
}

/// A quiet continuous run wakes for its checkpoint, once, and not in vain while the peer has not answered.
#[test]
fn a_quiet_run_wakes_for_its_checkpoint_alone() {
    let mut scripted = pushing(true);
    assert!(answer(&mut scripted, &["setCheckpoint"]).iter().all(|request| request.no_reply));
    let due = scripted.session.poll_at().expect("a checkpoint is due");
    assert_eq!(due, START + CHECKPOINT_INTERVAL);
    scripted.now = due;
    scripted.session.handle_timeout(due, &*scripted.store);
    let saving = one(answer(&mut scripted, &["setCheckpoint"]), "setCheckpoint");
    // There is news for the next one, and it has to wait for the answer.
    scripted.store.put("e", "{}");
    scripted.session.handle_store_changed(scripted.now, &*scripted.store);
    answer(&mut scripted, &["setCheckpoint"]);
    let next = scripted.session.poll_at().expect("the answer is due");
    assert!(next > due + CHECKPOINT_INTERVAL, "{next:?}");
    scripted.now = scripted.now + Duration::from_secs(6);
    scripted.peer.reply(saving.number, OutgoingMessage::default().with("rev", "1-x")).expect("open");
    let again = one(answer(&mut scripted, &["setCheckpoint"]), "setCheckpoint");
    assert_eq!(Checkpoint::from_json(&again.body).to_json(), r#"{"local":2}"#);
    scripted.peer.reply(again.number, OutgoingMessage::default().with("rev", "2-x")).expect("open");
    answer(&mut scripted, &[]);
    assert_eq!(scripted.session.poll_at(), None, "nothing is open");
}

/// Idle, it tells the store what the peer has, and not only with the next checkpoint: an edit then names its ancestor.
#[test]
fn what_the_peer_has_is_marked_as_soon_as_there_is_no_work() {
    let mut scripted = pushing(true);
    answer(&mut scripted, &[]);
    let before = scripted.store.vector("d").expect("there").id();
    scripted.store.put("d", r#"{"n":2}"#);
    let edited = scripted.store.revision(DEFAULT, "d").expect("read").expect("there");
    assert_eq!(edited.remote_ancestor, Some(before));
}

/// A peer that has taken the subscription owes its feed, until it says that it has ended.
#[test]
fn a_feed_that_does_not_go_on_is_given_up() {
    for extension in [false, true] {
        let mut scripted = pulling(extension);
        let until = scripted.session.poll_at().expect("the feed is owed");
        assert!(until >= START + REPLY_TIMEOUT, "{until:?}");
        scripted.now = until;
        scripted.session.handle_timeout(until, &*scripted.store);
        scripted.settle();
        assert!(
            matches!(scripted.finished, Some(Err(SessionError::TimedOut { .. }))),
            "{:?}",
            scripted.finished
        );
    }
}

#[test]
fn whoever_is_active_is_not_asked() {
    for profile in ["proposeChanges", "subChanges", "getCollections"] {
        assert_eq!(pulling(false).code(request(profile).with_body("[]")), "HTTP/403", "{profile}");
    }
    assert_eq!(pulling(false).code(request("unheard")), "BLIP/404");
}

/// What `retry` gives for documents that are tried again: those of the list, after one was purged at the peer.
fn listed_after(retry: CollectionConfig) -> Vec<String> {
    let (a, p) = stores();
    fill(&p, "d", 3);
    a.refuse("d");
    sync(1, &a, &p, active(ReplicatorType::Pull, false), false);
    p.purge("d00001");
    let config = ActiveConfig {
        retry_unsynced: true,
        collections: vec![retry],
        ..active(ReplicatorType::Pull, false)
    };
    let mut pair = Pair::new(2, config, passive(false), &a, &p);
    pair.run().expect("a clean end");
    let plain = sync(3, &a, &p, active(ReplicatorType::Pull, false), false);
    let told = plain.a.events.iter().rev().find_map(|event| match event {
        SessionEvent::Unsynced(unsynced) => Some(unsynced.listed.clone()),
        _ => None,
    });
    let listed = told.unwrap_or_default().into_iter();
    listed.filter(|document| document.direction == Direction::Received).map(|document| document.id).collect()
}

/// A peer that gives nothing does not say that its documents are no more.
#[test]
fn a_pull_that_is_refused_takes_nothing_off_the_list() {
    let (a, p) = stores();
    fill(&p, "d", 3);
    a.refuse("d");
    let collections = vec![CollectionConfig { optional: true, ..CollectionConfig::new("_default") }];
    let config = ActiveConfig { collections, ..active(ReplicatorType::PushAndPull, false) };
    Pair::new(1, config.clone(), passive(false), &a, &p).run().expect("a clean end");
    let closed = PassiveConfig { accept_pull: false, ..passive(false) };
    let retry = ActiveConfig { retry_unsynced: true, ..config.clone() };
    Pair::new(2, retry, closed, &a, &p).run().expect("it may push");
    let mut pair = Pair::new(3, config, passive(false), &a, &p);
    pair.run().expect("a clean end");
    let told = pair.a.events.iter().rev().find_map(|event| match event {
        SessionEvent::Unsynced(unsynced) => Some(unsynced.documents),
        _ => None,
    });
    assert_eq!(told, Some(3));
}

/// Only a run that sees all of the peer's feed knows that a document is no more.
#[test]
fn what_the_peer_has_no_more_is_taken_off_the_list_by_a_whole_run_alone() {
    let plain = CollectionConfig::new("_default");
    assert_eq!(listed_after(plain.clone()), ["d00000", "d00002"]);
    let all = ["d00000", "d00001", "d00002"];
    let some = CollectionConfig { document_ids: Some(vec!["d00002".into()]), ..plain };
    assert_eq!(listed_after(some), all);
}

/// How much there is to push is known from the beginning, not only as it is read.
#[test]
fn the_total_counts_what_is_not_read_yet() {
    for extension in [false, true] {
        let (a, p) = stores();
        fill(&a, "a", 5_000);
        let pair = sync(1, &a, &p, active(ReplicatorType::Push, extension), extension);
        let told = pair.a.events.iter().filter_map(|event| match event {
            SessionEvent::Progress(progress) if progress.total > 0 => Some(progress.total),
            _ => None,
        });
        let totals: Vec<u64> = told.collect();
        assert!(!totals.is_empty() && totals.iter().all(|total| *total == 5_000), "{totals:?}");
        // Whoever is pushed to knows of what is under way, and of all at the end.
        let told = pair.p.events.iter().filter_map(|event| match event {
            SessionEvent::Progress(progress) => Some((progress.completed, progress.total)),
            _ => None,
        });
        let told: Vec<(u64, u64)> = told.collect();
        assert!(told.iter().all(|(completed, total)| completed <= total), "{told:?}");
        assert_eq!(told.last(), Some(&(5_000, 5_000)), "extension {extension}");
    }
}

/// Lists that came while too many revisions were on their way are answered when those are here.
#[test]
fn a_list_that_had_to_wait_is_answered_when_there_is_room() {
    let list = |n: usize| {
        let rows: Vec<String> =
            (0..1_000).map(|row| format!(r#"[{},"d{n}-{row}","{NEW}",0]"#, n * 1_000 + row + 1)).collect();
        OutgoingMessage::request("changes").with("collection", "0").with_body(format!("[{}]", rows.join(",")))
    };
    let mut scripted = pulling(false);
    assert!(
        (0..2).all(|n| scripted.ask(list(n)).0.is_some_and(|answer| answer.is_ok())),
        "2,000 are asked for"
    );
    let mut held: Vec<_> = [2, 3].map(|n| scripted.peer.send_request(list(n)).expect("open")).into();
    let mut answered = Vec::new();
    let mut hear = |scripted: &mut Scripted| {
        answered.extend(scripted.settle().into_iter().filter_map(|event| match event {
            Event::Reply { number, .. } => Some(number),
            _ => None,
        }));
        answered.clone()
    };
    assert_eq!(hear(&mut scripted), [], "they wait");
    for n in 0..3_100 {
        let norev = request("norev").with("id", &format!("d{}-{}", n / 1_000, n % 1_000)).with("rev", NEW);
        let norev = norev.with("sequence", &(n + 1).to_string()).with("error", "404");
        let sent = scripted.peer.send_request(OutgoingMessage { no_reply: true, ..norev });
        sent.expect("open");
        if n == 1_001 {
            assert_eq!(hear(&mut scripted), held[..1], "{:?}", scripted.finished);
            // There is room for one more, but another waits already.
            held.push(scripted.peer.send_request(list(4)).expect("open"));
            assert_eq!(hear(&mut scripted), held[..1], "{:?}", scripted.finished);
        }
        if n == 2_999 {
            assert_eq!(hear(&mut scripted), held[..2], "{:?}", scripted.finished);
        }
    }
    assert_eq!(hear(&mut scripted), held, "{:?}", scripted.finished);
}

/// How often the document was proposed in a run whose peer answers its revision so.
fn proposed(code: i32) -> usize {
    let mut scripted = pushing(false);
    let mut proposals = 0;
    loop {
        let held = answer(&mut scripted, &["rev", "proposeChanges"]);
        if held.is_empty() {
            return proposals;
        }
        for request in held {
            let answered = match request.profile() {
                "rev" => scripted.peer.reply_error(request.number, &ErrorReply::http(code, "")),
                _ if request.body.len() < 5 => continue,
                _ => {
                    proposals += 1;
                    let wanted = OutgoingMessage::default().with_body("[]");
                    scripted.peer.reply(request.number, wanted)
                }
            };
            answered.expect("open");
        }
    }
}

/// A refusal may be for what the peer did not see: once more, and no more. Whatever else went wrong is for the next run.
#[test]
fn a_refused_revision_is_proposed_once_more() {
    assert_eq!((proposed(403), proposed(500), proposed(413)), (2, 1, 1));
}

#[test]
fn a_subscription_names_documents_or_none() {
    let none = [&b""[..], b"{}", b"[1]", b"\"x\"", b"7"];
    assert!(none.iter().all(|body| parse_document_ids(body, 9) == Ok(None)));
    let some = parse_document_ids(br#"{"docIDs":["a",7,"b"]}"#, 9);
    assert_eq!(some, Ok(Some(vec!["a".to_owned(), "b".to_owned()])));
    for (body, code) in [(&b"{oops"[..], 400), (br#"{"docIDs":7}"#, 400), (br#"{"docIDs":["a","b"]}"#, 413)] {
        assert_eq!(parse_document_ids(body, 1).map_err(|error| error.code), Err(code));
    }
}

/// A peer that answers `getCollections` with an error is an older one only if it does not know the request.
#[test]
fn an_error_for_the_first_request_is_the_end() {
    let mut scripted = pushing(false);
    let first = one(answer(&mut scripted, &["getCollections"]), "getCollections");
    scripted.peer.reply_error(first.number, &ErrorReply::http(503, "later")).expect("open");
    assert!(answer(&mut scripted, &[]).is_empty());
    assert!(
        matches!(&scripted.finished, Some(Err(SessionError::Refused { error, .. })) if error.code == 503),
        "{:?}",
        scripted.finished
    );
}

/// The peer has another revision of the checkpoint: it is asked for and takes the new one; a peer that always says so, or
/// cannot keep any, does not keep the run from ending.
#[test]
fn a_checkpoint_that_the_peer_refuses_does_not_keep_the_run() {
    for (code, learns, saves) in [(409, true, 2), (409, false, 3), (500, true, 1)] {
        let mut scripted = pushing(false);
        let mut saved = Vec::new();
        while scripted.finished.is_none() {
            let held = answer(&mut scripted, &["setCheckpoint", "getCheckpoint"]);
            assert!(!held.is_empty() || scripted.finished.is_some(), "it waits for nothing");
            for request in held {
                let reply = OutgoingMessage::default().with("rev", "7-x");
                let answered = match request.profile() {
                    "getCheckpoint" => scripted.peer.reply(request.number, reply),
                    _ => {
                        saved.push(request.properties.get("rev").unwrap_or_default().to_owned());
                        if saved.len() > 1 && learns {
                            scripted.peer.reply(request.number, reply)
                        } else {
                            scripted.peer.reply_error(request.number, &ErrorReply::http(code, ""))
                        }
                    }
                };
                answered.expect("open");
            }
            assert!(saved.len() < 50);
        }
        assert_eq!(scripted.finished, Some(Ok(())), "{code}");
        assert_eq!(saved.len(), saves, "{code} {saved:?}");
        assert!(saved[0].is_empty() && saved[1..].iter().all(|rev| rev == "7-x"), "{saved:?}");
    }
}

/// A peer that wants everything and confirms nothing is offered no more than it may leave open.
#[test]
fn proposals_stop_while_many_revisions_wait() {
    const DOCUMENTS: usize = 4_000;
    let store = Arc::new(MemoryStore::new(1));
    fill(&store, "d", DOCUMENTS);
    let mut scripted = Scripted::new(Session::active(active(ReplicatorType::Push, false)), store);
    let (mut proposed, mut open, mut most) = (0, 0, 0);
    let mut revs = Vec::new();
    while scripted.finished.is_none() {
        let held = answer(&mut scripted, &["rev", "proposeChanges"]);
        if held.is_empty() {
            let confirmed: Vec<IncomingRequest> = std::mem::take(&mut revs);
            open -= confirmed.len();
            for rev in confirmed {
                scripted.peer.reply(rev.number, OutgoingMessage::default()).expect("open");
            }
        }
        for request in held {
            if request.profile() == "rev" {
                revs.push(request);
            } else if !request.no_reply {
                let rows: Vec<serde_json::Value> = serde_json::from_slice(&request.body).expect("a list");
                (proposed, open) = (proposed + rows.len(), open + rows.len());
                scripted
                    .peer
                    .reply(request.number, OutgoingMessage::default().with_body("[]"))
                    .expect("open");
            }
        }
        most = most.max(open);
    }
    assert_eq!((scripted.finished, proposed), (Some(Ok(())), DOCUMENTS));
    // What waits, what is on its way, and the lists that were under way when the last of them came to wait.
    let max = WANTED_REVS_MAX + REVS_IN_FLIGHT_MAX + LISTS_IN_FLIGHT_MAX * CHANGES_BATCH;
    assert!((WANTED_REVS_MAX..=max).contains(&most), "{most} open");
}
