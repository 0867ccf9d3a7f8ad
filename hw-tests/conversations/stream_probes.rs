//! Requests written by hand over a byte stream, each on a database of its own: IDs, keys and vectors at the limits. Ours
//! must answer the same and keep the same.

use std::collections::HashMap;

use gattway::lab::replica::revision::Versioning;
use gattway::lab::replica::store::ReplicaStore;
use serde_json::{Value, json};

use crate::normal::Vocabulary;
use crate::probes::{ask, recorded};
use crate::recording::{self, Recording, Sent, Side};
use crate::replica::Replica;
use crate::scenario::{blip_frames, versions_text};

/// Probes, by file and name, that are answered in another way on purpose.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("long-id-probe", "241 bytes", UNASKED),
    ("long-id-probe", "250 bytes", UNASKED),
    ("long-id-probe", "255 bytes", UNASKED),
    ("long-id-probe", "256 bytes", ONE_BY_ONE),
    ("long-id-probe", "1000 bytes", ONE_BY_ONE),
    ("long-id-probe", "242 bytes, 121 characters", UNASKED),
    ("long-id-probe", "empty", UNASKED),
    (
        "many-authors-probe",
        "300 authors, proposed with the parent named (the passive has no such document)",
        LACKING,
    ),
    ("reserved-keys-probe", "_foo", RESERVED),
    ("reserved-keys-probe", "_foo alone", RESERVED),
    ("reserved-keys-probe", "_ alone (key of one underscore)", RESERVED),
    ("reserved-keys-probe", "__ key", RESERVED),
    ("reserved-keys-probe", "_removed true", RESERVED),
    ("reserved-keys-probe", "_removed true alone", RESERVED),
    ("reserved-keys-probe", "_removed false", RESERVED),
    ("reserved-keys-probe", "_removed 1", RESERVED),
    ("reserved-keys-probe", "_removed string", RESERVED),
    ("reserved-keys-probe", "_id other", RESERVED),
    ("reserved-keys-probe", "_id same", RESERVED),
    ("reserved-keys-probe", "_rev", RESERVED),
    ("reserved-keys-probe", "_revisions", RESERVED),
    ("reserved-keys-probe", "_attachments empty", RESERVED),
    ("reserved-keys-probe", "_attachments stub", RESERVED),
    ("reserved-keys-probe", "_attachments blob_/pic with the same blob in the body", RESERVED),
    ("reserved-keys-probe", "_deleted true in the body, no property deleted", RESERVED),
    ("reserved-keys-probe", "_deleted false", RESERVED),
    ("reserved-keys-probe", "_exp", RESERVED),
    ("reserved-keys-probe", "_sync", RESERVED),
    ("reserved-keys-probe", "all at once", RESERVED),
    ("reserved-keys-probe", "_foo escaped as \\u005ffoo", RESERVED),
    ("reserved-keys-probe", "_removed escaped", RESERVED),
    ("reserved-keys-probe", "deleted property 1 with _foo", RESERVED),
    ("reserved-keys-probe", "_foo in an update of a document the passive has", RESERVED),
    ("reserved-keys-probe", "_removed true for a document the passive has", RESERVED),
    ("reserved-keys-probe", "_removed true with property deleted, document the passive has", RESERVED),
    (
        "reserved-keys-probe",
        "the same _foo in a rev that was not proposed before (proposeChanges missing)",
        RESERVED,
    ),
    ("reserved-keys-probe", "an ordinary rev that was not proposed before", UNASKED),
];

const UNASKED: &str =
    "a revision that nobody asked for is judged by what it is; it need not end the connection";
const ONE_BY_ONE: &str = "an ID that is too long is refused alone, not with the rest of the list";
const LACKING: &str = "a document that is lacking is asked for, whatever the peer thinks that is here";
const RESERVED: &str =
    "the core drops such keys without a word, or the document; here it is refused, by name";

/// Probes that cannot be read here: a property is text, and one that is not ends the connection.
const NOT_READ: &str = "not UTF-8";

/// The documents in the end: ID, versions, whether deleted, body.
fn stored(documents: &Value) -> Value {
    let document = |document: &Value| {
        let history = document["history"].as_str().expect("a vector");
        json!([document["id"], versions_text(history), document["deleted"], document["body"]])
    };
    documents.as_array().expect("a list").iter().map(document).collect()
}

fn ours(replica: &Replica) -> Value {
    let id = replica.id_of("_default");
    let changes = replica.changes(id, 0, usize::MAX, true).expect("changes");
    let document = |change: gattway::lab::replica::store::Change| {
        let body: Value = serde_json::from_slice(&change.body.expect("asked for")).expect("JSON");
        json!([change.id, change.vector.versions_text(), change.deleted, body])
    };
    changes.into_iter().map(document).collect()
}

/// Plays all probes of a file; gives how many are the same.
fn play(file: &str) -> usize {
    let vocabulary = Vocabulary { own_suffix: "@ourselves".into(), ..Vocabulary::default() };
    let (mut same, mut differences) = (0, Vec::new());
    let lines = recording::lines(file);
    for line in &lines[1..] {
        let name = line["probe"].as_str().expect("name");
        if name.starts_with(NOT_READ) {
            continue;
        }
        let listed = DIFFERENT.iter().any(|(other, start, _)| *other == file && name == *start);
        let sent = line["hex"].as_array().expect("frames").iter().map(|pair| Sent {
            from: Side::of_direction(pair[0].as_str().expect("direction")),
            bytes: recording::unhex(pair[1].as_str().expect("hex")),
        });
        let recording = Recording { name: name.to_owned(), header: lines[0].clone(), sent: sent.collect() };
        let frames = blip_frames(&recording);
        let messages = recording::messages(&frames);
        let replica = Replica::new(&["_default".to_owned()], HashMap::new(), Versioning::VersionVectors);
        let heard = ask(&replica, &messages, &frames, &vocabulary);
        let expected = recorded(&messages, &vocabulary);
        let (kept, recorded) = (ours(&replica), stored(&line["stored"]));
        match (heard == expected && kept == recorded, listed) {
            (true, false) => same += 1,
            (false, true) => {}
            (true, true) => differences.push(format!("{name}\n  listed as different, but is not")),
            (false, false) => differences
                .push(format!("{name}\n  ours: {heard:?} {kept}\n  recorded: {expected:?} {recorded}")),
        }
    }
    let clipped: Vec<String> = differences.iter().map(|text| text.chars().take(1_500).collect()).collect();
    assert!(differences.is_empty(), "{file}:\n{}", clipped.join("\n"));
    same
}

#[test]
fn ids_are_answered_as_recorded() {
    assert!(play("long-id-probe") > 15);
}

#[test]
fn keys_are_answered_as_recorded() {
    assert!(play("reserved-keys-probe") > 5);
}

#[test]
fn vectors_of_many_authors_are_answered_as_recorded() {
    assert!(play("many-authors-probe") > 12);
}
