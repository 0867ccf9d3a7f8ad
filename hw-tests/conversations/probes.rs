//! Requests written by hand, most of them wrong, and what a real passive peer answered: ours must answer the same.

use std::collections::HashMap;

use gattway::lab::blip::{BlipConfig, Connection, Event, MessageNumber, OutgoingMessage};
use gattway::lab::replica::revision::Versioning;
use gattway::lab::replicator::config::PassiveConfig;
use gattway::lab::replicator::session::Session;
use gattway::lab::time::Instant;
use serde_json::{Value, json};

use crate::normal::{Reply, Request, Vocabulary};
use crate::recording::{self, RecordedMessage, Sent, Side};
use crate::replica::Replica;
use crate::scenario::RecordedDocument;

/// Author of every version that the probes made up.
const PROBE_SOURCE: &str = "@EbSEdOPmQ5ScF/AHieZMrQ";

/// Digest of every revision in a tree that they made up.
const PROBE_DIGEST: &str = "8d68fdc87bd911d4f039dc14f3a1e86f38fa5ad";

/// What the recorded peer had: document, sequence, whether deleted.
const DOCUMENTS: [(&str, u64, bool); 3] = [("d", 1, false), ("t", 3, true), ("bl", 4, false)];

/// Probes, by the beginning of their names, that are answered in another way on purpose.
const DIFFERENT: [(&str, &str); 15] = [
    ("changes: [unknown", "an active side answers a conflict with what it has; ours does so in both roles"),
    (
        "rev new, unproposed",
        "a revision nobody asked for is judged by what it is; it need not end the connection",
    ),
    ("norev", "the same"),
    ("rev deleted with no body", "answered with an error; it need not end the connection"),
    ("rev empty body", "the same"),
    (
        "rev already have",
        "it is a conflict, without the mark that refuses it; a passive side of ours takes none",
    ),
    ("rev conflict, no noconflicts", "the same"),
    ("rev bad JSON", "all that is wrong with a body has one domain here"),
    (
        "rev body with _id",
        "what Couchbase Lite drops without a word is refused, or both sides would hold different documents as one",
    ),
    ("rev body with _foo", "the same"),
    ("getAttachment existing", "no blobs are kept"),
    ("getAttachment no docID", "the same"),
    ("proveAttachment existing", "the same"),
    ("proveAttachment no nonce", "the same"),
    ("rev with blob", "the same"),
];

/// What one connection brought: answers by the number of the request, and requests in order.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    pub answers: HashMap<u64, Reply>,
    pub requests: Vec<Request>,
}

/// A database with what the recorded peer had.
fn replica(messages: &[RecordedMessage], versioning: Versioning) -> Replica {
    let mut replica = Replica::new(&["_default".to_owned()], HashMap::new(), versioning);
    let documents = DOCUMENTS.map(|(id, sequence, deleted)| RecordedDocument {
        collection: "_default".into(),
        id: id.into(),
        vector: version_of(id, messages, versioning),
        deleted,
        sequence,
        body: if deleted { json!({}) } else { json!({"a": 1}) },
    });
    replica.load(&documents);
    replica
}

/// Our passive side, given the same frames.
pub fn ask(
    replica: &Replica,
    messages: &[RecordedMessage],
    frames: &[Sent],
    vocabulary: &Vocabulary,
) -> Heard {
    let mut session =
        Session::passive(PassiveConfig { default_without_collections: false, ..PassiveConfig::default() });
    let now = Instant::from_micros(1);
    session.start(now, replica);
    let mut heard = Heard::default();
    // Frames of ours are read by a connection that has sent what the recorded peer sent.
    let mut reader = Connection::new(BlipConfig::default());
    for message in messages.iter().filter(|m| m.from == Side::Active && m.is_request()) {
        let request = OutgoingMessage {
            properties: message.properties.clone(),
            no_reply: message.flags.no_reply(),
            ..OutgoingMessage::default()
        };
        reader.send_request(request).expect("queued");
    }
    while reader.poll_frame().is_some() {}
    for sent in frames.iter().filter(|sent| sent.from == Side::Active) {
        if session.handle_frame(now, &sent.bytes, replica).is_err() {
            return heard;
        }
        while let Some(commit) = session.poll_commit() {
            let result = commit.run(replica, session.conflict_policy());
            session.handle_commit(now, commit.id, result, replica);
        }
        while let Some(frame) = session.poll_frame(now, replica) {
            reader.handle_frame(&frame).expect("a frame of ours");
            while let Some(event) = reader.poll_event() {
                match event {
                    Event::Request(request) => heard.requests.push(vocabulary.our_request(&request)),
                    Event::Reply { number: MessageNumber(number), result } => {
                        let profile = profile_of(number, messages);
                        heard.answers.insert(number, vocabulary.our_reply(profile, &result));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    heard
}

fn profile_of(number: u64, messages: &[RecordedMessage]) -> &str {
    let asked = messages.iter().find(|m| m.from == Side::Active && m.is_request() && m.number == number);
    asked.map_or("", |m| m.properties.profile())
}

/// The version that the recorded peer had of a document, if the conversation names it.
fn version_of(id: &str, messages: &[RecordedMessage], versioning: Versioning) -> String {
    let lists = messages.iter().filter_map(|m| serde_json::from_slice::<Value>(&m.body).ok());
    let items = lists.flat_map(|list| list.as_array().cloned().unwrap_or_default());
    let mut versions = items.filter_map(|item| {
        let item = item.as_array()?;
        let at = item.iter().position(|value| value == id)?;
        item.get(at + 1)?.as_str().filter(|version| !is_made_up(version)).map(str::to_owned)
    });
    let unnamed = match versioning {
        Versioning::RevisionTrees => "2-7e07bf65cccbfad496e22f57f5edfc0e010793fa",
        _ => "18ea7b0000000000@AAAAAAAAAAAAAAAAAAAAAA",
    };
    versions.next().unwrap_or_else(|| unnamed.to_owned())
}

fn is_made_up(revision: &str) -> bool {
    revision.ends_with(PROBE_SOURCE) || revision.ends_with(PROBE_DIGEST)
}

pub fn recorded(messages: &[RecordedMessage], vocabulary: &Vocabulary) -> Heard {
    let mut heard = Heard::default();
    for message in messages.iter().filter(|m| m.from == Side::Passive) {
        if message.is_request() {
            heard.requests.push(vocabulary.recorded_request(message));
        } else {
            let profile = profile_of(message.number, messages);
            heard.answers.insert(message.number, vocabulary.recorded_reply(profile, message));
        }
    }
    heard
}

#[test]
fn our_passive_side_answers_probes_as_the_recorded_one() {
    let vocabulary = Vocabulary { own_suffix: "@ourselves".into(), ..Vocabulary::default() };
    let (mut same, mut different) = (0, Vec::new());
    for line in recording::lines("probes-passive-replies").into_iter().skip(1) {
        let name = line["probe"].as_str().expect("name");
        let versioning = match line["versioning"].as_str() {
            Some("revtree") => Versioning::RevisionTrees,
            _ => Versioning::VersionVectors,
        };
        if DIFFERENT.iter().any(|(start, _)| name.starts_with(start)) {
            continue;
        }
        let frames: Vec<Sent> = line["hex"]
            .as_array()
            .expect("frames")
            .iter()
            .map(|pair| Sent {
                from: Side::of_direction(pair[0].as_str().expect("direction")),
                bytes: recording::unhex(pair[1].as_str().expect("hex")),
            })
            .collect();
        let messages = recording::messages(&frames);
        let (ours, recorded) = (
            ask(&replica(&messages, versioning), &messages, &frames, &vocabulary),
            recorded(&messages, &vocabulary),
        );
        // What came before on the same connection is a probe of its own.
        let last = messages.iter().filter(|m| m.from == Side::Active).map(|m| m.number).max().unwrap_or(0);
        if ours.answers.get(&last) == recorded.answers.get(&last) && ours.requests == recorded.requests {
            same += 1;
        } else {
            different.push(format!("{versioning}: {name}\n  ours: {ours:?}\n  recorded: {recorded:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert_eq!(same, 56 + 57);
}
