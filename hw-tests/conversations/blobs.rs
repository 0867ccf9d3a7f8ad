//! Conversations about documents with blobs. Our sides keep no blobs: a document that names one is refused as the original
//! refuses one whose blob is lost, everything else goes on as recorded, and the document is named.

use std::collections::BTreeSet;

use gattway::replicator::Direction;
use serde_json::Value;

use crate::half::Half;
use crate::recording::{self, Side};
use crate::scenario::Scenario;

/// Documents with a blob that one side has sent.
fn sent_with_blobs(scenario: &Scenario, from: Side) -> BTreeSet<String> {
    let sent = scenario.revisions().filter(|message| message.from == from);
    let with_blob = sent.map(|message| scenario.sent_document(message)).filter(|d| names_blob(&d.body));
    with_blob.map(|document| document.id).collect()
}

fn names_blob(value: &Value) -> bool {
    match value {
        Value::Object(object) => {
            object.get("@type") == Some(&"blob".into()) || object.values().any(names_blob)
        }
        Value::Array(list) => list.iter().any(names_blob),
        _ => false,
    }
}

/// Documents that the recorded receiver could not take.
fn lost(scenario: &Scenario) -> BTreeSet<String> {
    let events = scenario.header["active_events"].as_array().expect("events").iter();
    let failed = events.filter_map(Value::as_str).filter(|event| event.contains("No such blob"));
    failed.map(|event| event.split(' ').nth(3).expect("an ID").to_owned()).collect()
}

#[test]
fn a_document_with_a_blob_is_refused_whole_and_named() {
    let mut played = 0;
    for name in recording::conversation_names() {
        if !name.starts_with("blob") || !name.ends_with("-vv") {
            continue;
        }
        for us in [Side::Active, Side::Passive] {
            let scenario = Scenario::read(&name);
            let outcome = Half::new(&scenario, us).play();
            let here = format!("{name}, our {us:?} side");
            // What comes here with a blob is refused; what goes from here is asked for its blob, which is not here either.
            let (refused, sent) = (sent_with_blobs(&scenario, us.other()), sent_with_blobs(&scenario, us));
            for difference in &outcome.differences {
                let about_blobs =
                    difference.contains("getAttachment") || difference.contains("proveAttachment");
                let about_refused = refused.iter().any(|id| difference.contains(&format!("\"{id}\"")));
                let count = difference.contains("documents in the end");
                assert!(about_blobs || about_refused || count, "{here}: {difference}");
            }
            let listed = |wanted: Direction| -> BTreeSet<String> {
                let documents = outcome.unsynced.listed.iter().filter(|d| d.direction == wanted);
                documents
                    .inspect(|d| assert_eq!((d.error.domain.as_str(), d.error.code), ("LiteCore", 7)))
                    .map(|d| d.id.clone())
                    .collect()
            };
            assert_eq!(listed(Direction::Received), refused, "{here}");
            // The recorded peer answers as it did, with what it could get then.
            let lost: BTreeSet<String> = lost(&scenario).intersection(&sent).cloned().collect();
            assert_eq!(listed(Direction::Sent), lost, "{here}");
            assert!(!matches!(outcome.finished, Some(Err(_))), "{here}: {:?}", outcome.finished);
            played += 1;
        }
    }
    assert!(played >= 22, "only {played}");
}
