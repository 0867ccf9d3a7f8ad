//! Peers that break the protocol or stop in the middle.

use std::sync::Arc;
use std::time::Duration;

use super::memory_store::MemoryStore;
use super::pair::Pair;
use super::scripted::{NEW, OTHER, Scripted, pulling, request};
use crate::blip::{BlipConfig, BlipError, ErrorReply, Event, OutgoingMessage, Properties};
use crate::replica::store::ReplicaStore;
use crate::replicator::config::{
    ActiveConfig, DOCUMENT_IDS_MAX, FEED_RANGES_MAX, HELD_LIST_BYTES_MAX, HELD_REQUESTS_BYTES_MAX,
    LIST_ENTRIES_MAX, LISTED_ENTRIES_HIGH, PassiveConfig, REPLIES_MAX, REPLY_BYTES_HIGH, REPLY_TIMEOUT,
    REQUEST_INTERVAL, STOP_TIMEOUT,
};
use crate::replicator::error::SessionError;
use crate::replicator::event::SessionEvent;
use crate::replicator::messages::{PROPERTY_KEYS, profile};
use crate::replicator::session::Session;

/// Text that might hurt.
fn text(rng: &mut fastrand::Rng) -> String {
    let pieces = [
        "d",
        "e",
        "",
        "_x",
        "0",
        "1",
        "-1",
        "18446744073709551615",
        "cp-x",
        "own/x",
        NEW,
        OTHER,
        "zzz",
        "true",
        "[]",
        "[[],0]",
        "{}",
        "{\"q\":1}",
        "[[1,\"d\",\"",
        "\"]]",
        "version-vectors",
        "sha1-",
        "[0,409]",
        "{\"docIDs\":[\"d\"]}",
        ";",
        ",",
        "\u{ffff}",
        "[[\"n\",\"18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ\",\"\",9]]",
        "[[1,\"n\",\"18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ\"]]",
        "{\"checkpoint_ids\":[\"a\"],\"collections\":[\"_default\"]}",
        "[{}]",
        "[null]",
    ];
    (0..rng.usize(0..3)).map(|_| pieces[rng.usize(0..pieces.len())]).collect()
}

fn body(rng: &mut fastrand::Rng, sample: &[u8]) -> Vec<u8> {
    match rng.u8(0..4) {
        0 => text(rng).into_bytes(),
        1 => (0..rng.usize(0..80)).map(|_| rng.u8(..)).collect(),
        2 => sample.to_vec(),
        _ => {
            let mut damaged = sample.to_vec();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(0..damaged.len());
                damaged[at] = rng.u8(..);
            }
            damaged
        }
    }
}

/// A good `revs` message to be damaged.
fn sample_revs() -> Vec<u8> {
    use crate::replicator::extension::RevsFormat;
    use crate::replicator::extension::codec::{Content, RevsEncoder};
    let store = MemoryStore::new(9);
    (0..20).for_each(|n| store.put(&format!("doc-{n}"), "{\"a\":[1,2,3]}"));
    let changes =
        store.changes(store.collection("_default").expect("there"), 0, 100, true).expect("in memory");
    let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, false, 0);
    for (n, change) in changes.iter().enumerate() {
        let body = Content::Body(change.body.clone().expect("asked for"));
        encoder.push(change, if n % 3 == 0 { &Content::Offer } else { &body });
    }
    encoder.finish(20, true)
}

#[test]
fn nonsense_never_panics_and_ends_in_a_typed_error_at_most() {
    let profiles: Vec<&str> = profile::ALL.into_iter().chain(["x"]).collect();
    let keys = PROPERTY_KEYS;
    let sample = sample_revs();
    let (mut errors, mut survived) = (0, 0);
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut scripted = match rng.bool() {
            true => Scripted::passive(rng.bool()),
            false => {
                let store = Arc::new(MemoryStore::new(1));
                (0..5).for_each(|n| store.put(&format!("a{n}"), "{}"));
                Scripted::new(Session::active(ActiveConfig::default()), store)
            }
        };
        for _ in 0..rng.usize(1..30) {
            let mut properties = Properties::of_profile(profiles[rng.usize(0..profiles.len())]);
            if rng.u8(0..5) > 0 {
                properties.set("collection", "0");
            }
            for _ in 0..rng.usize(0..5) {
                properties.set(keys[rng.usize(0..keys.len())], &text(&mut rng));
            }
            let no_reply = rng.u8(0..8) == 0;
            let message = OutgoingMessage {
                properties,
                body: body(&mut rng, &sample).into(),
                compressed: rng.bool(),
                urgent: rng.bool(),
                no_reply,
            };
            scripted.peer.send_request(message).expect("small");
            for event in scripted.settle() {
                let Event::Request(request) = event else { continue };
                if request.no_reply || rng.u8(0..6) == 0 {
                    continue;
                }
                let mut reply = OutgoingMessage::default().with_body(body(&mut rng, &[1, 1, 2]));
                if request.profile() == "getCollections" {
                    reply = OutgoingMessage::default().with_body("[{\"local\":2,\"rev\":\"1-cc\"}]");
                    if rng.bool() {
                        reply = reply.with("gattway", "1 77");
                    }
                }
                match rng.u8(0..5) {
                    0 => scripted
                        .peer
                        .reply_error(request.number, &ErrorReply::http(rng.i32(0..600), "no"))
                        .expect("open"),
                    _ => scripted.peer.reply(request.number, reply).expect("open"),
                }
            }
            if scripted.session.is_finished() {
                break;
            }
        }
        match scripted.result {
            Ok(()) => survived += 1,
            Err(_) => errors += 1,
        }
        scripted.session.stop(scripted.now);
        let deadline = scripted.now + STOP_TIMEOUT;
        scripted.session.handle_timeout(deadline, &*scripted.store);
        assert!(scripted.session.is_finished(), "seed {seed}: stop ends");
    }
    assert!(errors > 100 && survived > 100, "both happen: {errors} errors, {survived} survived");
}

#[test]
fn a_peer_that_stops_in_the_middle_is_given_up_in_time() {
    for frames in [0, 1, 2, 3, 5, 8, 13, 40] {
        for extension in [false, true] {
            let (a, p) = (Arc::new(MemoryStore::new(1)), Arc::new(MemoryStore::new(2)));
            (0..2_000).for_each(|n| a.put(&format!("a{n}"), "{}"));
            (0..2_000).for_each(|n| p.put(&format!("p{n}"), "{}"));
            let config = ActiveConfig { extension, ..ActiveConfig::default() };
            let passive = PassiveConfig { extension, ..PassiveConfig::default() };
            let mut pair = Pair::new(frames, config.clone(), passive, &a, &p);
            pair.run_and_cut(frames);
            if pair.a.finished.is_some() {
                continue;
            }
            let begun = pair.now;
            let mut end = None;
            for _ in 0..100_000 {
                // What is being committed ends; nothing comes from the peer.
                if let Some(request) = pair.a.session.poll_commit() {
                    let result = a.commit(&request.revisions, pair.a.session.conflict_policy());
                    pair.a.session.handle_commit(pair.now, request.id, result, &*a);
                }
                while pair.a.session.poll_frame(pair.now, &*a).is_some() {}
                while let Some(event) = pair.a.session.poll_event() {
                    if let SessionEvent::Finished(result) = event {
                        end = Some(result);
                    }
                }
                let Some(at) = pair.a.session.poll_at() else { break };
                pair.now = at.max(pair.now);
                pair.a.session.handle_timeout(pair.now, &*a);
            }
            // A commit that the cut took never comes back; its driver ends the session then.
            let Some(end) = end else { continue };
            assert!(matches!(end, Err(SessionError::TimedOut { .. })), "{end:?}");
            assert!(pair.now.since(begun) <= config.reply_timeout + Duration::from_secs(6), "{}", pair.now);
        }
    }
}

#[test]
fn stop_ends_in_time_whatever_the_peer_does() {
    for frames in [0, 1, 3, 7, 20, 60] {
        let (a, p) = (Arc::new(MemoryStore::new(1)), Arc::new(MemoryStore::new(2)));
        (0..2_000).for_each(|n| a.put(&format!("a{n}"), "{}"));
        let mut pair = Pair::new(frames, ActiveConfig::default(), PassiveConfig::default(), &a, &p);
        pair.run_and_cut(frames);
        pair.a.session.stop(pair.now);
        pair.now = pair.now + STOP_TIMEOUT;
        pair.a.session.handle_timeout(pair.now, &*a);
        assert!(pair.a.session.is_finished());
        assert_eq!(pair.a.session.poll_at(), None);
    }
}

#[test]
fn a_store_that_does_not_come_back_stops_the_input() {
    let mut scripted = Scripted::passive(false).with_collections();
    let big = format!("{{\"b\":\"{}\"}}", "x".repeat(100_000));
    let mut sent = 0;
    while scripted.session.accepts_input() {
        sent += 1;
        assert!(sent < 100, "input goes on and on");
        let rev = request("rev").with("id", &format!("n{sent}")).with("rev", NEW).with_body(big.clone());
        scripted.peer.send_request(rev).expect("small");
        while let Some(frame) = scripted.peer.poll_frame() {
            scripted.session.handle_frame(scripted.now, &frame, &*scripted.store).expect("good");
        }
        while let Some(frame) = scripted.session.poll_frame(scripted.now, &*scripted.store) {
            scripted.peer.handle_frame(&frame).expect("good");
        }
    }
    assert!(sent > 20);
    scripted.settle();
    assert!(scripted.session.accepts_input(), "it goes on when the store does");
}

#[test]
fn a_revision_that_never_comes_does_not_keep_lists_without_end() {
    let mut scripted = pulling(false);
    let entry = |n: usize, flags: u8| format!("[{n},\"d{n}\",\"{NEW}\",{flags}]");
    let wanted = format!("[{}]", entry(1, 0));
    assert_eq!(scripted.code(request("changes").with_body(wanted)), "[[]]");
    // 2: nothing to be had, so that each entry is settled at once; but all stand behind the first.
    let mut answered = 0;
    for list in 0..1_000 {
        let entries: Vec<String> = (0..5_000).map(|n| entry(2 + list * 5_000 + n, 2)).collect();
        answered += usize::from(
            scripted.code(request("changes").with_body(format!("[{}]", entries.join(",")))) != "none",
        );
        if scripted.result.is_err() {
            break;
        }
    }
    assert_eq!(answered, LISTED_ENTRIES_HIGH / 5_000, "then lists wait");
    assert!(
        matches!(scripted.result, Err(SessionError::TooMany { max: HELD_LIST_BYTES_MAX, .. })),
        "{:?}",
        scripted.result
    );
}

#[test]
fn a_feed_of_holes_is_refused() {
    use crate::replicator::extension::RevsFormat;
    use crate::replicator::extension::codec::RevsEncoder;
    let mut scripted = pulling(true);
    for n in 1.. {
        let body = RevsEncoder::new(RevsFormat::NEWEST, false, 2 * n).finish(2 * n + 1, false);
        let mut message = request("revs").with_body(body);
        message.no_reply = true;
        scripted.peer.send_request(message).expect("small");
        scripted.settle();
        if scripted.result.is_err() {
            break;
        }
        assert!(n as usize <= FEED_RANGES_MAX, "holes without end");
    }
    let too_many =
        SessionError::TooMany { what: "ranges of a feed", max: FEED_RANGES_MAX, actual: FEED_RANGES_MAX + 1 };
    assert_eq!(scripted.result, Err(too_many));
}

#[test]
fn who_asks_and_never_reads_is_not_heard_any_more() {
    let mut scripted = Scripted::passive(false).with_collections();
    let mut asked = 0;
    while scripted.session.accepts_input() {
        asked += 1;
        assert!(asked <= REPLIES_MAX, "answers without end");
        // An answer of one byte; slowly, for how often it asks is another matter.
        scripted.now = scripted.now + REQUEST_INTERVAL;
        scripted.peer.send_request(request("norev").with("id", "x")).expect("small");
        while let Some(frame) = scripted.peer.poll_frame() {
            scripted.session.handle_frame(scripted.now, &frame, &*scripted.store).expect("good");
        }
    }
    assert_eq!(asked, REPLIES_MAX);
    scripted.settle();
    assert!(scripted.session.accepts_input(), "it goes on when the peer reads");
}

/// The same of few answers that are long: they wait in the store until the peer has read those before, and questions are few. Checkpoints of
/// several collections make a reply that waits for acknowledgements, which are input; `getCollections` may come again while it names one that
/// is not there.
#[test]
fn who_asks_for_much_and_never_reads_is_not_heard_any_more() {
    const SIZE: usize = 60_000;
    let collections = ["_default", "a.a", "a.b", "a.c"];
    let passive = || {
        let store = Arc::new(MemoryStore::with_collections(1, &collections));
        let collections = collections.iter().map(ToString::to_string).collect();
        Scripted::new(Session::passive(PassiveConfig { collections, ..PassiveConfig::default() }), store)
    };
    let body = format!("{{\"n\":\"{}\"}}", "x".repeat(SIZE));
    for (question, longest) in [
        (OutgoingMessage::request("getCheckpoint").with("client", "n"), SIZE),
        (
            OutgoingMessage::request("getCollections").with_body(
                r#"{"checkpoint_ids":["n","n","n","n","n"],"collections":["_default","a.a","a.b","a.c","a.none"]}"#,
            ),
            4 * SIZE,
        ),
    ] {
        let mut scripted = passive();
        for (n, name) in collections.iter().enumerate() {
            let id = scripted.store.collection(name).expect("it is there");
            let set = scripted.store.set_checkpoint(id, "n", None, body.clone().into());
            assert!(set.expect("kept").is_some(), "{n}");
        }
        let (mut most, mut result) = (0, Ok(()));
        for asked in 0..100_000 {
            scripted.now = scripted.now + REQUEST_INTERVAL;
            scripted.peer.send_request(question.clone()).expect("small");
            while let Some(frame) = scripted.peer.poll_frame() {
                result = scripted.session.handle_frame(scripted.now, &frame, &*scripted.store);
            }
            most = most.max(scripted.session.held_reply_bytes());
            if result.is_err() {
                break;
            }
            assert!(scripted.session.accepts_input(), "answers do not stop it");
            // The transport takes a frame now and then; the peer reads none of them.
            if asked % 8 == 0 {
                let _ = scripted.session.poll_frame(scripted.now, &*scripted.store);
            }
        }
        let max = BlipConfig::default().unanswered_requests_max;
        assert_eq!(result, Err(SessionError::Blip(BlipError::TooManyUnanswered { max })));
        assert!(most < REPLY_BYTES_HIGH + longest + 1_000, "{most} bytes of answers at once");
    }
    // Who reads gets them all.
    let mut scripted = passive().with_collections();
    let id = scripted.store.collection("_default").expect("it is there");
    scripted.store.set_checkpoint(id, "n", None, body.into()).expect("kept");
    for _ in 0..1_000 {
        scripted.peer.send_request(request("getCheckpoint").with("client", "n")).expect("small");
    }
    let answers = scripted.settle();
    let whole =
        |event: &&Event| matches!(event, Event::Reply { result: Ok(reply), .. } if reply.body.len() > SIZE);
    assert_eq!((answers.iter().filter(whole).count(), answers.len()), (1_000, 1_000));
    assert!(scripted.session.accepts_input());
}

#[test]
fn lists_of_who_never_reads_wait_before_the_input_stops() {
    let mut scripted = Scripted::passive(false).with_collections();
    let entries = vec![format!("[\"d\",\"{NEW}\",\"\",9]"); 1_000];
    let list = format!("[{}]", entries.join(","));
    let (mut asked, mut bytes) = (0, 0);
    while scripted.session.accepts_input() {
        asked += 1;
        bytes += list.len();
        assert!(bytes < HELD_REQUESTS_BYTES_MAX + 2 * REPLY_BYTES_HIGH, "lists without end");
        let message = request("proposeChanges").with("conflictIncludesRev", "true").with_body(list.clone());
        scripted.peer.send_request(message).expect("small");
        while let Some(frame) = scripted.peer.poll_frame() {
            scripted.session.handle_frame(scripted.now, &frame, &*scripted.store).expect("good");
        }
    }
    assert!(bytes > HELD_REQUESTS_BYTES_MAX);
    let frame = scripted.session.poll_frame(scripted.now, &*scripted.store).expect("an answer");
    scripted.peer.handle_frame(&frame).expect("our frames are good");
    let waiting = scripted.session.held_reply_bytes();
    assert!(waiting < 2 * REPLY_BYTES_HIGH, "{waiting} bytes of answers at once");
    let answers = scripted.settle().iter().filter(|event| matches!(event, Event::Reply { .. })).count();
    assert_eq!(
        (answers, scripted.session.accepts_input()),
        (asked, true),
        "all are answered when the peer reads"
    );
}

#[test]
fn document_ids_are_limited_over_all_subscriptions() {
    let store = Arc::new(MemoryStore::with_collections(1, &["_default", "a.b"]));
    let collections = vec!["_default".to_owned(), "a.b".to_owned()];
    let config = PassiveConfig { collections, ..PassiveConfig::default() };
    let mut scripted = Scripted::new(Session::passive(config), store);
    let body = r#"{"checkpoint_ids":["x","x"],"collections":["_default","a.b"]}"#;
    assert_eq!(scripted.code(OutgoingMessage::request("getCollections").with_body(body)), "[{},{}]");
    let mut subscribe = |collection: &str, ids: usize| {
        let ids: Vec<String> = (0..ids).map(|n| format!("\"{n}\"")).collect();
        let message = OutgoingMessage::request("subChanges").with("collection", collection);
        let message = message.with("versioning", "version-vectors");
        scripted.code(message.with_body(format!("{{\"docIDs\":[{}]}}", ids.join(","))))
    };
    assert_eq!(subscribe("0", DOCUMENT_IDS_MAX - 10), "");
    assert_eq!(subscribe("1", 11), "HTTP/413");
    assert_eq!(subscribe("1", 10), "");
    // A subscription takes the place of the one before.
    assert_eq!(subscribe("0", 5), "");
    assert_eq!(subscribe("1", DOCUMENT_IDS_MAX - 5), "");
}

#[test]
fn lists_do_not_unfold_in_memory() {
    let long = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
    let proposals = |body: String| {
        Scripted::passive(false).with_collections().code(request("proposeChanges").with_body(body))
    };
    assert_eq!(proposals(long("[]", LIST_ENTRIES_MAX + 1)), "HTTP/413");
    assert_eq!(proposals(format!("[{}]", long("0", 1_000_000))), "LiteCore/26");
    assert_eq!(proposals(long("[]", 1_500_000)), "HTTP/413");
    let changes =
        |body: String| Scripted::passive(false).with_collections().code(request("changes").with_body(body));
    let sequence = "9".repeat(300);
    assert_eq!(changes(format!("[[\"{sequence}\",\"d\",\"{NEW}\"]]")), "BLIP/400");
    let names = |ids: String| {
        let body = format!("{{\"checkpoint_ids\":{ids},\"collections\":{ids}}}");
        Scripted::passive(false).code(OutgoingMessage::request("getCollections").with_body(body))
    };
    assert_eq!(names(long("\"\"", 300)), "BLIP/400");
}

#[test]
fn a_message_that_does_not_go_on_ends_the_session() {
    let mut scripted = Scripted::passive(false).with_collections();
    assert_eq!(scripted.session.poll_at(), None, "nothing is owed");
    let rev = request("rev").with("id", "n").with("rev", NEW).with_body(vec![b'x'; 100_000]);
    scripted.peer.send_request(rev).expect("small");
    let first = scripted.peer.poll_frame().expect("the first of several");
    scripted.session.handle_frame(scripted.now, &first, &*scripted.store).expect("good");
    let due = scripted.session.poll_at().expect("the rest is owed");
    assert_eq!(due, scripted.now + REPLY_TIMEOUT);
    scripted.session.handle_timeout(due, &*scripted.store);
    let ended = std::iter::from_fn(|| scripted.session.poll_event())
        .any(|event| matches!(event, SessionEvent::Finished(Err(SessionError::TimedOut { .. }))));
    assert!(ended && scripted.session.is_finished());
}

#[test]
fn a_peer_that_lies_about_the_end_of_its_feed_costs_no_more_than_a_number() {
    let store = Arc::new(MemoryStore::new(1));
    (0..5).for_each(|n| store.put(&format!("a{n}"), "{}"));
    let mut scripted = Scripted::new(Session::active(ActiveConfig::default()), store);
    for event in scripted.settle() {
        let Event::Request(request) = event else { continue };
        let last = u64::MAX.to_string();
        let reply = OutgoingMessage::default().with("gattway", &format!("1 {last}")).with_body("[{}]");
        scripted.peer.reply(request.number, reply).expect("open");
    }
    assert!(scripted.settle().iter().any(|event| matches!(event, Event::Request(_))), "it goes on");
    assert_eq!(scripted.result, Ok(()));
}
