//! Stock peers and of an older one, message by message.

use std::sync::Arc;

use super::memory_store::MemoryStore;
use super::scripted::{NEW, OTHER, Scripted, pulling, request};
use crate::blip::{ErrorReply, Event, OutgoingMessage};
use crate::replicator::checkpoint::Checkpoint;
use crate::replicator::config::{ActiveConfig, CollectionConfig};
use crate::replicator::error::SessionError;
use crate::replicator::session::Session;

#[test]
fn answers_the_probes_of_an_original_peer() {
    let get = |ids: &str, names: &str| {
        OutgoingMessage::request("getCollections")
            .with_body(format!("{{\"checkpoint_ids\":{ids},\"collections\":{names}}}"))
    };
    for (asked, code) in [
        (get("[\"a\",\"b\"]", "[\"_default\",\"no.such\"]"), "[{},null]"),
        (get("[\"a\"]", "[\"_default\",\"x.y\"]"), "BLIP/400"),
        (get("[\"a\",\"b\"]", "[\"_default\",\"_default._default\"]"), "BLIP/400"),
        (get("[]", "[]"), "BLIP/400"),
        (get("[\"a\"]", "[\"_default._default\"]"), "[{}]"),
        (OutgoingMessage::request("getCollections").with_body("{oops"), "BLIP/400"),
        (OutgoingMessage::request("fooBar"), "BLIP/404"),
    ] {
        assert_eq!(Scripted::passive(false).code(asked.clone()), code, "{asked:?}");
    }
    let sub = |versioning| request("subChanges").with("versioning", versioning);
    let rev = |id, rev| request("rev").with("id", id).with("rev", rev);
    let long = "x".repeat(251);
    for (asked, code) in [
        (get("[\"cp-x\"]", "[\"_default\"]"), "BLIP/400"),
        (request("fooBar"), "BLIP/404"),
        (OutgoingMessage::default().with("collection", "0"), "BLIP/404"),
        (OutgoingMessage::request("getCheckpoint").with("collection", "7").with("client", "x"), "HTTP/400"),
        (OutgoingMessage::request("getCheckpoint").with("client", "x"), "HTTP/400"),
        (request("getCheckpoint").with("client", "cp-none"), "HTTP/404"),
        (request("getCheckpoint"), "BLIP/400"),
        (request("setCheckpoint").with("client", "n").with("rev", "1-cc").with_body("{}"), "HTTP/409"),
        (request("setCheckpoint").with("client", "n").with("rev", "").with_body("{oops"), ""),
        (request("setCheckpoint").with("client", "own/n").with("rev", "").with_body("{}"), "HTTP/403"),
        (request("proposeChanges").with_body("{\"x\":1}"), "BLIP/400"),
        (request("proposeChanges").with_body("[[\"x\",\"nonsense\"]]"), "LiteCore/26"),
        (request("proposeChanges").with_body(format!("[[\"\",\"{NEW}\"]]")), "LiteCore/26"),
        (
            request("proposeChanges")
                .with_body(format!("[[\"n\",\"{NEW}\"],[\"d\",\"{OTHER}\",\"{NEW}\"],[\"t\",\"{NEW}\"]]")),
            "[0,409]",
        ),
        (request("changes").with_body(format!("[[1,\"n2\",\"{NEW}\"],[2,\"{long}\",\"{NEW}\"]]")), "[[],[]]"),
        (request("changes").with_body("[]"), ""),
        (sub("rev-trees"), "LiteCore/501"),
        (request("subChanges"), "LiteCore/501"),
        (sub("version-vectors").with("filter", "f/g"), "LiteCore/19"),
        (rev("n", NEW).with_body(r#"{"q":1}"#), ""),
        (rev(&long, NEW).with_body("{}"), "LiteCore/29"),
        (rev("_x", NEW).with_body("{}"), "LiteCore/29"),
        (rev("", NEW).with_body("{}"), "HTTP/400"),
        (rev("n", "").with_body("{}"), "HTTP/400"),
        (rev("n", "zzz").with_body("{}"), "HTTP/400"),
        (rev("n", NEW).with_body("{q"), "LiteCore/5"),
        (rev("n", NEW).with_body("[1]"), "LiteCore/5"),
        (rev("n", NEW), "LiteCore/5"),
        (rev("n", NEW).with("history", "garbage").with_body("{}"), "LiteCore/4"),
        (rev("d", OTHER).with("noconflicts", "1").with_body("{}"), "LiteCore/8"),
        (rev("d", OTHER).with("deltaSrc", OTHER).with_body("{}"), "HTTP/422"),
        (rev("d", OTHER).with("deltaSrc", "").with_body("{}"), "HTTP/422"),
        (rev("d", OTHER).with("deltaSrc", NEW).with_body("{\"q\":{\"no\":{}}}"), "HTTP/422"),
        (rev("n", NEW).with_body(r#"{"_id":"n","q":1}"#), "LiteCore/5"),
        (
            request("getAttachment").with("digest", "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA=").with("docID", "d"),
            "LiteCore/7",
        ),
        (request("getAttachment").with("digest", "nope").with("docID", "d"), "LiteCore/9"),
        (
            request("proveAttachment").with("digest", "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA=").with_body("nonce"),
            "LiteCore/7",
        ),
        (request("revs").with_body("garbage"), "BLIP/404"),
    ] {
        let mut scripted = Scripted::passive(false).with_collections();
        assert_eq!(scripted.code(asked.clone()), code, "{asked:?}");
        assert_eq!(scripted.result, Ok(()));
    }
}

#[test]
fn feeds_a_subscriber_as_an_original_peer_does() {
    let lists = |asked: OutgoingMessage| {
        let (answer, requests) = Scripted::passive(false).with_collections().ask(asked);
        assert_eq!(answer.expect("answered").expect("accepted"), OutgoingMessage::default());
        let texts: Vec<String> =
            requests.iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
        let last = requests.last().expect("the empty list");
        assert!(last.urgent && last.no_reply && last.body == "[]");
        (texts[0].clone(), texts.len())
    };
    let sub = || request("subChanges").with("versioning", "version-vectors");
    let (all, count) = lists(sub().with("since", "\"abc\""));
    assert_eq!((serde_json::from_str::<Vec<serde_json::Value>>(&all).expect("a list").len(), count), (3, 2));
    assert!(all.contains("\"t\"") && all.ends_with(",1]]"), "a tombstone leaves the size out: {all}");
    assert!(!lists(sub().with("activeOnly", "true")).0.contains("\"t\""));
    assert_eq!(lists(sub().with("since", "999")), ("[]".into(), 1));
    assert!(lists(sub().with_body(r#"{"docIDs":["e","zz"]}"#)).0.starts_with("[[2,\"e\""));
}

#[test]
fn an_older_active_peer_is_served_without_collections() {
    let mut scripted = Scripted::passive(true);
    assert_eq!(scripted.code(OutgoingMessage::request("getCheckpoint").with("client", "c")), "HTTP/404");
    let sub = OutgoingMessage::request("subChanges").with("versioning", "version-vectors");
    let (_, requests) = scripted.ask(sub);
    assert!(requests.iter().all(|r| r.profile() == "changes" && r.properties.get("collection").is_none()));
    assert_eq!(scripted.code(request("getCheckpoint").with("client", "c")), "HTTP/400");
    assert_eq!(scripted.code(OutgoingMessage::request("getCollections")), "BLIP/400");
}

#[test]
fn an_older_passive_peer_is_asked_without_collections() {
    let store = Arc::new(MemoryStore::new(1));
    store.put("d", "{}");
    let mut scripted = Scripted::new(Session::active(ActiveConfig::default()), store);
    for _ in 0..10 {
        for event in scripted.settle() {
            let Event::Request(request) = event else { continue };
            assert!(request.profile() == "getCollections" || request.properties.get("collection").is_none());
            let reply = match request.profile() {
                "getCollections" => Err(ErrorReply::no_handler()),
                "getCheckpoint" => Err(ErrorReply::http(404, "missing")),
                "proposeChanges" => Ok(OutgoingMessage::default().with_body("[]")),
                "setCheckpoint" => Ok(OutgoingMessage::default().with("rev", "1-cc")),
                "subChanges" => {
                    let mut end = OutgoingMessage::request("changes").with_body("[]");
                    end.no_reply = true;
                    scripted.peer.send_request(end).expect("small");
                    Ok(OutgoingMessage::default())
                }
                "rev" => Ok(OutgoingMessage::default()),
                other => panic!("{other}"),
            };
            match reply {
                Ok(reply) => scripted.peer.reply(request.number, reply).expect("open"),
                Err(error) => scripted.peer.reply_error(request.number, &error).expect("open"),
            }
        }
    }
    assert!(scripted.session.is_finished());
    assert_eq!(scripted.result, Ok(()));
}

/// That an older peer has no checkpoint is one answer; any other error is no word of how far it has come.
#[test]
fn a_checkpoint_that_cannot_be_read_is_not_taken_for_none() {
    for (code, is_refused) in [(404, false), (500, true), (403, true)] {
        let mut scripted =
            Scripted::new(Session::active(ActiveConfig::default()), Arc::new(MemoryStore::new(1)));
        let mut asked_on = false;
        for _ in 0..4 {
            for event in scripted.settle() {
                let Event::Request(request) = event else { continue };
                let error = match request.profile() {
                    "getCollections" => ErrorReply::no_handler(),
                    "getCheckpoint" => ErrorReply::http(code, "no"),
                    _ => {
                        asked_on = true;
                        continue;
                    }
                };
                scripted.peer.reply_error(request.number, &error).expect("open");
            }
        }
        assert_eq!((scripted.session.is_finished(), asked_on), (is_refused, !is_refused), "{code}");
        if is_refused {
            assert!(matches!(scripted.result, Err(SessionError::Refused { .. })), "{:?}", scripted.result);
        }
    }
}

/// Without collections there is one, the default collection: nothing else can be asked of an older peer.
#[test]
fn an_older_passive_peer_is_asked_for_the_default_collection_alone() {
    for names in [&["a.b"][..], &["_default", "a.b"], &["a.b", "_default"]] {
        let store = Arc::new(MemoryStore::with_collections(1, names));
        let collections = names.iter().map(|name| CollectionConfig::new(*name)).collect();
        let config = ActiveConfig { collections, ..ActiveConfig::default() };
        let mut scripted = Scripted::new(Session::active(config), store);
        let heard = scripted.settle();
        let [Event::Request(request)] = &heard[..] else { panic!("{heard:?}") };
        scripted.peer.reply_error(request.number, &ErrorReply::no_handler()).expect("open");
        assert_eq!(scripted.settle().len(), 0, "{names:?}: nothing more is asked");
        let refused =
            Some(Err(SessionError::Refused { request: "getCollections", error: ErrorReply::no_handler() }));
        assert_eq!(scripted.finished, refused, "{names:?}");
    }
}

/// A peer may let a short list, and the word that its feed ends here, overtake a long list.
#[test]
fn lists_that_overtake_each_other_hide_nothing() {
    const LONG: u64 = 200;
    let mut scripted = pulling(false);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut ids: Vec<String> = Vec::new();
    let mut list = |count: u64| {
        let first = ids.len() as u64 + 1;
        let entries = (first..first + count).map(|sequence| {
            let id: String = std::iter::repeat_with(|| rng.alphanumeric()).take(200).collect();
            ids.push(id.clone());
            format!("[{sequence},\"{id}\",\"{NEW}\"]")
        });
        let mut list = request("changes").with_body(format!("[{}]", entries.collect::<Vec<_>>().join(",")));
        list.urgent = true;
        list
    };
    let (long, short) = (list(LONG), list(1));
    let mut end = request("changes").with_body("[]");
    (end.urgent, end.no_reply) = (true, true);
    let rev = |sequence: u64| {
        let id = &ids[sequence as usize - 1];
        request("rev").with("id", id).with("rev", NEW).with("sequence", &sequence.to_string()).with_body("{}")
    };
    for message in [long, short, end, rev(LONG + 1)] {
        scripted.peer.send_request(message).expect("small");
    }
    // All but the last frame of the long list.
    let frames: Vec<Vec<u8>> = std::iter::from_fn(|| scripted.peer.poll_frame()).collect();
    let (last, before) = frames.split_last().expect("they were queued");
    assert!(before.len() > 4, "the long list takes several frames");
    for frame in before {
        scripted.session.handle_frame(scripted.now, frame, &*scripted.store).expect("good frames");
    }
    let heard = scripted.settle();
    assert_eq!(scripted.store.count(), 1);
    assert!(!scripted.session.is_finished(), "the long list is still on its way");
    let saves =
        |event: &Event| matches!(event, Event::Request(request) if request.profile() == "setCheckpoint");
    assert!(!heard.iter().any(saves), "the position has passed a list that is not here");

    scripted.session.handle_frame(scripted.now, last, &*scripted.store).expect("a good frame");
    for sequence in 1..=LONG {
        scripted.peer.send_request(rev(sequence)).expect("small");
    }
    let heard = scripted.settle();
    assert_eq!(scripted.store.count() as u64, LONG + 1);
    let saved = heard.iter().find_map(|event| match event {
        Event::Request(request) if request.profile() == "setCheckpoint" => Some(request.body.clone()),
        _ => None,
    });
    let saved = Checkpoint::from_json(&saved.expect("it ends with a checkpoint"));
    assert_eq!(saved.to_json(), format!("{{\"remote\":{}}}", LONG + 1));
}
