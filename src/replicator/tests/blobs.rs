//! Documents that name blobs: their content goes along, first, and continues where it was cut off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::exchange::stores;
use super::for_seeds;
use super::memory_store::MemoryStore;
use super::pair::Pair;
use super::scripted::{NEW, Scripted, pulling_to, request};
use crate::blip::{Event, OutgoingMessage};
use crate::replica::blobs::BlobDigest;
use crate::replicator::config::*;
use crate::replicator::event::SessionEvent;
use crate::replicator::memory_blobs::digest_of;
use crate::replicator::session::Session;

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn active(direction: ReplicatorType, extension: bool) -> ActiveConfig {
    ActiveConfig { report_documents: true, ..super::exchange::active(direction, extension) }
}

fn passive(extension: bool) -> PassiveConfig {
    PassiveConfig { report_documents: true, ..super::exchange::passive(extension) }
}

fn naming(digests: &[BlobDigest], length: Option<usize>) -> String {
    let length = length.map(|length| format!(r#""length":{length},"#)).unwrap_or_default();
    let blob =
        |d: &BlobDigest| format!(r#"{{{length}"@type":"blob","content_type":"text/plain","digest":"{d}"}}"#);
    format!(r#"{{"n":1,"blobs":[{}]}}"#, digests.iter().map(blob).collect::<Vec<_>>().join(","))
}

fn put_with_blob(store: &MemoryStore, id: &str, content: &[u8]) -> BlobDigest {
    let digest = store.blobs.save(content);
    store.put(id, &naming(&[digest], Some(content.len())));
    digest
}

/// The errors of documents that one side reports.
fn failures(events: &[SessionEvent]) -> BTreeMap<String, String> {
    let failed = events.iter().filter_map(|event| match event {
        SessionEvent::DocumentReplicated(document) => {
            let error = document.error.as_ref()?;
            Some((document.id.clone(), format!("{}/{}", error.domain, error.code)))
        }
        _ => None,
    });
    failed.collect()
}

/// Whatever documents name, whoever has it, however often the connection is cut: at the end both have the same documents, and
/// all blobs of each; with or without the extension.
#[test]
fn blobs_go_along_whatever_is_cut() {
    for_seeds(120, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (a, p) = stores();
        let extension = rng.bool();
        for n in 0..rng.usize(1..25) {
            let store = if rng.bool() { &a } else { &p };
            let count = *rng.choice(&[0, 1, 1, 2, 9]).expect("one");
            let digests: Vec<BlobDigest> = (0..count)
                .map(|_| {
                    let len = *rng.choice(&[0, 1, 700, 20_000, 70_000, 300_000]).expect("one");
                    store.blobs.save(&noise(len, rng.u64(0..6)))
                })
                .collect();
            store.put(&format!("d{n}"), &naming(&digests, None));
        }
        let direction = ReplicatorType::PushAndPull;
        for round in 0..rng.u64(0..8) {
            let mut pair = Pair::new(seed + round, active(direction, extension), passive(extension), &a, &p);
            pair.run_and_cut(rng.u64(0..90));
        }
        let mut pair = Pair::new(seed, active(direction, extension), passive(extension), &a, &p);
        pair.run().expect("a clean end");
        let failed = [&pair.a, &pair.p].map(|side| failures(&side.events));
        assert_eq!(failed, [BTreeMap::new(), BTreeMap::new()]);
        assert_eq!(a.dump(0), p.dump(0));
        assert_eq!(a.blobs.whole(), p.blobs.whole());
        assert!(a.blobs.whole().iter().all(|(digest, content)| digest_of(content) == *digest));
    });
}

/// What came before a cut does not come again when both ends are ours, also when a document is all that there is.
#[test]
fn a_blob_continues_where_it_was_cut_off() {
    for extension in [true, false] {
        let (a, p) = stores();
        let content = noise(3 << 20, 7);
        put_with_blob(&a, "big", &content);
        let (mut cuts, mut last) = (0, 0);
        loop {
            let push = active(ReplicatorType::Push, extension);
            let mut pair = Pair::new(cuts, push, passive(extension), &a, &p);
            pair.run_and_cut(40);
            let received = *p.blobs.received.lock().unwrap();
            if pair.a.finished.is_some() {
                break;
            }
            assert!(received >= last && cuts < 50, "cut {cuts}: {received} bytes after {last}");
            (cuts, last) = (cuts + 1, received);
        }
        assert!(cuts >= 3, "{cuts} cuts");
        assert_eq!(last.max(*p.blobs.received.lock().unwrap()), content.len() as u64, "each byte once");
        assert_eq!(p.blobs.whole(), a.blobs.whole());
        assert_eq!(a.dump(0), p.dump(0));
    }
}

/// A document whose blob is lost or is something else does not come, says so on both sides, and stops no other; once the blob is
/// there it comes.
#[test]
fn a_document_without_its_blob_is_named_and_stops_no_other() {
    for extension in [true, false] {
        for (direction, lost_here) in [(ReplicatorType::Push, true), (ReplicatorType::Pull, false)] {
            let (a, p) = stores();
            let (from, to) = if lost_here { (&a, &p) } else { (&p, &a) };
            put_with_blob(from, "good", b"good");
            let lost = put_with_blob(from, "lost", b"lost");
            let forged = put_with_blob(from, "forged", b"what was meant");
            from.blobs.remove(&lost);
            from.blobs.forge(forged, b"something else");
            from.put("plain", "{}");
            let mut pair = Pair::new(1, active(direction, extension), passive(extension), &a, &p);
            pair.run().expect("a clean end");
            let expected: BTreeMap<String, String> =
                [("forged", "LiteCore/15"), ("lost", "LiteCore/7")].map(|(a, b)| (a.into(), b.into())).into();
            for side in [&pair.a, &pair.p] {
                let failed = failures(&side.events);
                // Without the extension the passive side does not hear what becomes of what it gives.
                assert!(failed == expected || (failed.is_empty() && !lost_here), "{failed:?}");
            }
            let there: Vec<String> = to.dump(0).into_keys().collect();
            assert_eq!(there, ["good", "plain"], "extension {extension}, {direction:?}");
            assert_eq!(to.blobs.whole().into_values().collect::<Vec<_>>(), [b"good".to_vec()]);
        }
    }
}

/// However many come, few have come without being durable: a store may give up the parts of more.
#[test]
fn many_blobs_are_made_durable_as_they_come() {
    let (a, p) = stores();
    for n in 0..900 {
        put_with_blob(&a, &format!("d{n}"), format!("content {n}").as_bytes());
    }
    let mut pair = Pair::new(3, active(ReplicatorType::Push, true), passive(true), &a, &p);
    let mut most = 0;
    while pair.a.finished.is_none() {
        pair.run_until(pair.frames + 1);
        most = most.max(p.blobs.parts());
        if !pair.step() {
            pair.run_for(Duration::from_secs(1));
        }
    }
    assert_eq!(p.blobs.whole().len(), 900);
    assert!((2..=40).contains(&most), "{most} parts at a time");
}

fn get(digest: &str, id: &str) -> OutgoingMessage {
    OutgoingMessage::request("getAttachment").with("digest", digest).with("docID", id)
}

/// Who asks for a blob names a document that he may read and that has it. Content comes from the byte that was asked for.
#[test]
fn a_blob_is_given_to_who_may_read_its_document() {
    let mut scripted = Scripted::passive(false);
    let digest = put_with_blob(&scripted.store, "with", b"0123456789");
    let other = scripted.store.blobs.save(b"nobody's");
    put_with_blob(&scripted.store, "gone", b"0123456789");
    scripted.store.delete("gone");
    let text = digest.to_string();
    // This is what settles which collections there are.
    scripted.ask(OutgoingMessage::request("subChanges"));
    assert_eq!(scripted.code(get(&text, "with")), "0123456789");
    for (from, rest) in [("0", "0123456789"), ("3", "3456789"), ("10", ""), ("11", ""), ("x", "0123456789")] {
        let (answer, _) = scripted.ask(get(&text, "with").with("gattway-from", from));
        let answer = answer.expect("an answer").expect("no error");
        assert_eq!(answer.body, rest, "from {from}");
        let said = answer.properties.get("gattway-from").map(str::to_owned);
        assert_eq!(said, from.parse::<u64>().ok().map(|from| from.min(10).to_string()));
    }
    for (digest, id, expected) in [
        (&*text, "d", "LiteCore/7"),
        (&text, "", "LiteCore/7"),
        (&text, "nowhere", "LiteCore/7"),
        (&text, "gone", "LiteCore/7"),
        (&other.to_string(), "with", "LiteCore/7"),
        ("sha1-x", "with", "LiteCore/9"),
        ("", "with", "LiteCore/9"),
    ] {
        assert_eq!(scripted.code(get(digest, id)), expected, "{digest} of {id:?}");
    }
    scripted.store.expire("with");
    assert_eq!(scripted.code(get(&text, "with")), "LiteCore/7");
    // What a filter keeps back it keeps back whole.
    let store = Arc::new(MemoryStore::new(1));
    let digests = ["open", "hidden"].map(|id| put_with_blob(&store, id, id.as_bytes()).to_string());
    let outgoing_filter: Option<ReplicationFilter> = Some(Arc::new(|input| input.id != "hidden"));
    let mut scripted =
        Scripted::new(Session::passive(PassiveConfig { outgoing_filter, ..passive(false) }), store);
    scripted.ask(OutgoingMessage::request("subChanges"));
    assert_eq!(scripted.code(get(&digests[0], "open")), "open");
    assert_eq!(scripted.code(get(&digests[1], "hidden")), "LiteCore/7");
}

/// Who asks and does not read, or wants no answer, makes the process hold little and nothing.
#[test]
fn who_asks_for_blobs_and_takes_none_costs_a_bounded_memory() {
    let mut scripted = Scripted::passive(false);
    let digest = put_with_blob(&scripted.store, "with", &noise(10_000_000, 4)).to_string();
    scripted.ask(OutgoingMessage::request("subChanges"));
    for _ in 0..300 {
        let unheard = OutgoingMessage { no_reply: true, ..get(&digest, "with") };
        scripted.peer.send_request(unheard).expect("small");
    }
    scripted.settle();
    assert_eq!(scripted.session.blobs_given(), 0);
    for _ in 0..300 {
        scripted.peer.send_request(get(&digest, "with")).expect("small");
    }
    // Its frames come in, and none of ours goes out to be acknowledged.
    while let Some(frame) = scripted.peer.poll_frame() {
        scripted.session.handle_frame(scripted.now, &frame, &*scripted.store).expect("good");
    }
    for _ in 0..500 {
        scripted.session.poll_frame(scripted.now, &*scripted.store);
    }
    assert!((1..=20).contains(&scripted.session.blobs_given()), "{}", scripted.session.blobs_given());
    assert!(scripted.session.held_reply_bytes() < 3 << 20, "{} bytes", scripted.session.held_reply_bytes());
}

/// The proof is a hash of the length of the nonce, the nonce and the content.
#[test]
fn a_blob_is_proven_to_be_here() {
    let mut scripted = Scripted::passive(false);
    let digest = put_with_blob(&scripted.store, "with", b"content").to_string();
    scripted.ask(OutgoingMessage::request("subChanges"));
    let prove = |digest: &str, nonce: &[u8]| {
        OutgoingMessage::request("proveAttachment")
            .with("digest", digest)
            .with("docID", "with")
            .with_body(nonce.to_vec())
    };
    assert_eq!(scripted.code(prove(&digest, b"abc")), digest_of(b"\x03abccontent").to_string());
    assert_eq!(
        scripted.code(prove(&digest, &[7; 255])),
        digest_of(&[&[255], &[7; 255][..], b"content"].concat()).to_string()
    );
    assert_eq!(scripted.code(prove(&digest, b"")), "BLIP/400");
    assert_eq!(scripted.code(prove(&digest, &[7; 256])), "BLIP/400");
    assert_eq!(scripted.code(prove(&digest_of(b"x").to_string(), b"abc")), "LiteCore/7");
}

/// A stock peer does not know of the byte from which on a blob is wanted, and gives all of it.
#[test]
fn what_a_stock_peer_gives_is_taken_from_its_beginning() {
    let content = noise(300_000, 3);
    let digest = digest_of(&content);
    let store = Arc::new(MemoryStore::new(1));
    store.blobs.append(&digest, 0, &content[..100_000]);
    let mut scripted = pulling_to(store, ActiveConfig { extension: false, ..ActiveConfig::default() });
    let (answer, _) = scripted.ask(request("changes").with_body(format!(r#"[[1,"n","{NEW}"]]"#)));
    answer.expect("an answer").expect("it is wanted");
    let rev = request("rev").with("id", "n").with("rev", NEW);
    let number = scripted.peer.send_request(rev.with("sequence", "1").with_body(naming(&[digest], None)));
    let asked: Vec<_> = scripted
        .settle()
        .into_iter()
        .filter_map(|event| match event {
            Event::Request(request) => Some(request),
            _ => None,
        })
        .collect();
    assert_eq!(asked.iter().map(|request| request.profile()).collect::<Vec<_>>(), ["getAttachment"]);
    assert_eq!(asked[0].properties.get("gattway-from"), Some("100000"));
    assert_eq!(asked[0].properties.get("compress"), Some("true"));
    let whole = OutgoingMessage::default().with_body(content.clone());
    scripted.peer.reply(asked[0].number, whole).expect("open");
    let number = number.expect("small");
    let taken = |event: &Event| matches!(event, Event::Reply { number: n, result: Ok(_) } if *n == number);
    assert!(scripted.settle().iter().any(taken));
    assert_eq!(scripted.store.blobs.whole().into_values().collect::<Vec<_>>(), [content]);
    assert_eq!(scripted.store.count(), 1);
}

/// A peer that names blobs and gives none holds up nothing of what comes later, and not for ever.
#[test]
fn who_gives_no_blob_is_not_waited_for_without_end() {
    let (a, p) = stores();
    put_with_blob(&a, "with", &noise(500_000, 1));
    let push = ActiveConfig { reply_timeout: Duration::from_secs(20), ..active(ReplicatorType::Push, true) };
    let mut pair = Pair::new(1, push, passive(true), &a, &p);
    pair.run_until(20);
    assert!(pair.p.session.poll_at().is_some(), "the passive side waits for a blob, and looks at the clock");
    let at = pair.p.session.poll_at().expect("a moment");
    pair.p.session.handle_timeout(at, &*p);
    let finished = std::iter::from_fn(|| pair.p.session.poll_event())
        .find(|event| matches!(event, SessionEvent::Finished(Err(_))));
    assert!(finished.is_some());
}
