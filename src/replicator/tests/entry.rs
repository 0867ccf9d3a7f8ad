//! What no document may be: the rest arrives, and each that cannot is told by name, on both sides of both protocols.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::exchange::{COMBINATIONS, active, fill, passive, stores};
use super::memory_store::MemoryStore;
use super::pair::{Pair, Side};
use super::scripted::{NEW, Scripted, pulling, request};
use crate::blip::{BlipConfig, OutgoingMessage};
use crate::replica::revision::VersionVector;
use crate::replica::store::Change;
use crate::replica::{DOCUMENT_ID_MAX, DOCUMENT_OVERHEAD_MAX};
use crate::replicator::config::{ActiveConfig, PassiveConfig, ReplicatorType};
use crate::replicator::event::{Direction, SessionEvent};
use crate::replicator::extension::answer::{RevAnswer, decode};
use crate::replicator::extension::codec::{Content, RevsEncoder};

/// Largest body in these tests, in bytes: as the default has it, at a size that takes no time.
const BODY_MAX: usize = 100 * 1024;

/// Both sides, so that no larger body fits into a message.
fn pair(
    direction: ReplicatorType,
    extension: (bool, bool),
    a: &Arc<MemoryStore>,
    p: &Arc<MemoryStore>,
) -> Pair {
    let blip = BlipConfig { message_size_max: BODY_MAX + DOCUMENT_OVERHEAD_MAX, ..BlipConfig::default() };
    let active = ActiveConfig { blip: blip.clone(), ..active(direction, extension.0) };
    Pair::new(7, active, PassiveConfig { blip, ..passive(extension.1) }, a, p)
}

/// Documents that earlier releases took, each with what is said of it.
fn unsendable() -> Vec<(String, String, &'static str)> {
    let large = format!("{{\"t\":\"{}\"}}", "x".repeat(BODY_MAX));
    [
        ("i".repeat(DOCUMENT_ID_MAX + 1), "{}", "it has 241 bytes"),
        ("nul\0".into(), "{}", "control character U+0000"),
        ("line\n".into(), "{}", "control character U+000A"),
        ("_id".into(), "{}", "it begins with `_`"),
        ("removed".into(), r#"{"a":"","_removed":true}"#, r#"the key "_removed" begins with `_`"#),
        ("unnamed".into(), r#"{"a":1,"":2}"#, "a key at the top level is empty"),
        ("large".into(), &*large, "too large"),
    ]
    .map(|(id, body, said)| (id, body.to_owned(), said))
    .to_vec()
}

fn failed(side: &Side, direction: Direction) -> BTreeMap<String, String> {
    let of = |event: &SessionEvent| match event {
        SessionEvent::DocumentReplicated(it) if it.direction == direction => {
            it.error.as_ref().map(|error| (it.id.clone(), error.message.clone()))
        }
        _ => None,
    };
    side.events.iter().filter_map(of).collect()
}

#[test]
fn what_cannot_be_sent_is_told_and_keeps_nothing_back() {
    for (ours, theirs) in COMBINATIONS {
        for direction in [ReplicatorType::Push, ReplicatorType::Pull] {
            let (a, p) = stores();
            let sender = if direction == ReplicatorType::Push { &a } else { &p };
            fill(sender, "before", 300);
            unsendable().iter().for_each(|(id, body, _)| sender.put(id, body));
            fill(sender, "after", 300);
            let mut pair = pair(direction, (ours, theirs), &a, &p);
            pair.run().expect("a clean end");
            let side = if direction == ReplicatorType::Push { &pair.a } else { &pair.p };
            let told = failed(side, Direction::Sent);
            assert_eq!(told.len(), unsendable().len(), "{direction:?} {ours} {theirs}: {told:?}");
            for (id, _, said) in unsendable() {
                assert!(told[&id].contains(said), "{direction:?} {ours} {theirs}: {id:?}: {}", told[&id]);
            }
            let receiver = if direction == ReplicatorType::Push { &p } else { &a };
            assert_eq!(receiver.count(), 600, "{direction:?} {ours} {theirs}");
        }
    }
}

/// The largest document there may be goes through, after smaller ones in one message and offered again.
#[test]
fn what_is_taken_can_be_sent() {
    let largest = format!("{{\"t\":\"{}\"}}", "x".repeat(BODY_MAX - 8));
    assert_eq!(largest.len(), BODY_MAX);
    let id = "i".repeat(DOCUMENT_ID_MAX);
    for (ours, theirs) in COMBINATIONS {
        for direction in [ReplicatorType::Push, ReplicatorType::Pull] {
            let (a, p) = stores();
            let (sender, receiver) = if direction == ReplicatorType::Push { (&a, &p) } else { (&p, &a) };
            fill(sender, "small", 300);
            sender.put("nearly", &format!("{{\"t\":\"{}\"}}", "x".repeat(40 * 1024)));
            sender.put(&id, &largest);
            let mut pair = pair(direction, (ours, theirs), &a, &p);
            pair.run().expect("a clean end");
            assert_eq!(receiver.count(), 302, "{direction:?} {ours} {theirs}");
            // Once more from a third that offers what it did not write.
            let third = Arc::new(MemoryStore::new(0xc3));
            let mut pair = self::pair(ReplicatorType::Push, (ours, theirs), receiver, &third);
            pair.run().expect("a clean end");
            assert_eq!(third.count(), 302, "{direction:?} {ours} {theirs}");
        }
    }
}

fn revs(entries: &[(&str, &str)]) -> OutgoingMessage {
    let mut encoder = RevsEncoder::new(Default::default(), false, 0);
    for (n, (id, body)) in entries.iter().enumerate() {
        let vector = NEW.parse::<VersionVector>().expect("a version");
        let change = Change::known_as(n as u64 + 1, *id, vector);
        encoder.push(&change, &Content::Body(Bytes::copy_from_slice(body.as_bytes())));
    }
    request("revs").with_body(encoder.finish(entries.len() as u64, true))
}

#[test]
fn a_peer_that_sends_them_is_refused_one_by_one() {
    let longest = "i".repeat(250);
    let bad = [
        (&*longest, "{}", 29),
        ("n\0", "{}", 29),
        ("_x", "{}", 29),
        ("d1", r#"{"_exp":1}"#, 5),
        ("d2", r#"{"\u005ffoo":1}"#, 5),
        ("d3", r#"{"":1}"#, 5),
        ("d4", r#"{"a":1,"a":1}"#, 5),
    ];
    let mut entries: Vec<(&str, &str)> = bad.iter().map(|(id, body, _)| (*id, *body)).collect();
    entries.push(("good", r#"{"q":{"":1,"_x":2}}"#));
    let mut scripted = pulling(true);
    let reply = scripted.ask(revs(&entries)).0.expect("answered").expect("taken");
    let answers = decode(&reply.body, entries.len()).expect("answers");
    for ((id, _, code), answer) in bad.iter().zip(&answers) {
        assert!(matches!(answer, RevAnswer::Failed(error) if error.code == *code), "{id:?}: {answer:?}");
    }
    assert_eq!(answers.last(), Some(&RevAnswer::Stored(1)));
    assert_eq!(scripted.store.count(), 1);
    for (id, body, code) in bad {
        let rev = request("rev").with("rev", NEW).with("noconflicts", "1").with("id", id).with_body(body);
        // NUL ends a property: what is left of the ID is taken as such.
        let code = if id.contains('\0') { String::new() } else { format!("LiteCore/{code}") };
        assert_eq!(Scripted::passive(false).with_collections().code(rev), code, "{id:?} {body}");
    }
}

#[test]
fn lists_that_name_them_lose_nothing_else() {
    let long = "i".repeat(DOCUMENT_ID_MAX + 1);
    let list = request("proposeChanges").with_body(format!("[[\"{long}\",\"{NEW}\"],[\"n\",\"{NEW}\"]]"));
    assert_eq!(Scripted::passive(false).with_collections().code(list), "[500]");
    let mut scripted = pulling(false);
    let list = request("changes").with_body(format!("[[1,\"{long}\",\"{NEW}\"],[2,\"n\",\"{NEW}\"]]"));
    assert_eq!(scripted.code(list), "[0,[]]");
}
