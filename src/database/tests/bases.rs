//! What a document was when a peer had it, as the base of a delta.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Fixture;
use crate::database::{Collection, Database};
use crate::replica::revision::{RevId, SourceId, Version, VersionVector};
use crate::replica::store::{CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};

const DEFAULT: CollectionId = CollectionId(0);

fn body(n: u64, words: usize) -> Value {
    let text = "lorem ipsum ".repeat(words);
    json!({"n": n, "text": text, "list": [1, n, {"deep": n as f64 / 3.0}], "zero": -0.0})
}

fn body_at(database: &Database, id: &str, revision: RevId) -> Option<Value> {
    let body = database.body_at(DEFAULT, id, revision).expect("readable");
    body.map(|body| serde_json::from_slice(&body).expect("JSON"))
}

fn revision(collection: &Collection, id: &str) -> RevId {
    collection.get(id).expect("read").expect("there").revision().expect("saved").id()
}

fn put(collection: &Collection, id: &str, body: &Value) -> RevId {
    collection.put(id, body).expect("put");
    revision(collection, id)
}

fn pushed(database: &Database, collection: &Collection) {
    database.sync().expect("sync");
    database.mark_pushed(DEFAULT, collection.last_sequence());
}

#[test]
fn what_a_peer_had_is_known_until_it_is_no_use() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let first = put(&collection, "d", &body(1, 40));
    let second = put(&collection, "d", &body(2, 40));
    assert_eq!(body_at(&database, "d", first), None, "no peer had it");
    assert_eq!(body_at(&database, "d", second), Some(body(2, 40)));
    pushed(&database, &collection);
    for n in 3..6 {
        put(&collection, "d", &body(n, 40 + n as usize));
        assert_eq!(body_at(&database, "d", second), Some(body(2, 40)), "after edit {n}");
        assert_eq!(body_at(&database, "d", first), None);
    }
    // Two edits in one commit.
    let both = |batch: &mut crate::database::Batch| {
        batch.put(&collection, "d", &body(6, 41))?;
        batch.put(&collection, "d", &body(7, 42))
    };
    database.batch(both).expect("room");
    assert_eq!(body_at(&database, "d", second), Some(body(2, 40)));
    database.compact().expect("compacted");
    assert_eq!(body_at(&database, "d", second), Some(body(2, 40)), "after compaction");
    drop((collection, database));
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    assert_eq!(body_at(&database, "d", second), Some(body(2, 40)), "after a restart");
    // What the peer has from now on.
    let third = revision(&collection, "d");
    pushed(&database, &collection);
    put(&collection, "d", &body(8, 42));
    assert_eq!((body_at(&database, "d", second), body_at(&database, "d", third)), (None, Some(body(7, 42))));
    assert_eq!(database.verify().expect("read").problems, 0);
    // A body with nothing in common with it: a delta would be of no use.
    put(&collection, "d", &json!({"other": "z".repeat(400)}));
    assert_eq!(body_at(&database, "d", third), None);
    for (id, remove) in [("deleted", true), ("purged", false)] {
        let had = put(&collection, id, &body(1, 40));
        pushed(&database, &collection);
        put(&collection, id, &body(2, 40));
        assert_eq!(body_at(&database, id, had), Some(body(1, 40)));
        if remove {
            collection.delete(id).expect("deleted");
        } else {
            collection.purge(id).expect("purged");
        }
        put(&collection, id, &body(3, 40));
        assert_eq!(body_at(&database, id, had), None, "{id}");
    }
}

/// A small document costs no look at what it was.
#[test]
fn small_documents_have_none() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let had = put(&collection, "d", &json!({"n": 1, "text": "short"}));
    pushed(&database, &collection);
    put(&collection, "d", &json!({"n": 2, "text": "short"}));
    assert_eq!(body_at(&database, "d", had), None);
}

#[test]
fn an_edit_on_top_of_a_peers_revision_knows_it_until_the_peers_next() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let theirs = |time| Version { time, source: SourceId([7; 16]) };
    let take = |vector: VersionVector, n| {
        let body = body(n, 40).to_string().into();
        let revision = IncomingRevision { collection: DEFAULT, id: "d".into(), vector, deleted: false, body };
        database.commit(&[revision], ConflictPolicy::Refuse).expect("taken")
    };
    take(VersionVector::new(theirs(5)), 1);
    let had = revision(&collection, "d");
    let edited = put(&collection, "d", &body(2, 40));
    assert_eq!(body_at(&database, "d", had), Some(body(1, 40)));
    let vector = collection.get("d").expect("read").expect("there").revision().expect("saved").clone();
    take(vector.edited(theirs(vector.current.time + 9)), 3);
    assert_eq!(body_at(&database, "d", had), None);
    assert_eq!(body_at(&database, "d", edited), None);
    assert_eq!(database.verify().expect("read").problems, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is done, a body that is given for a revision is the one that it had.
    #[test]
    fn a_base_is_never_another_one(steps in prop::collection::vec((0u8..12, 0u64..3, 0usize..60), 1..40)) {
        let fixture = Fixture::new();
        let mut database = fixture.open();
        let mut collection = database.default_collection().expect("default");
        let mut was: Vec<(String, RevId, Value)> = Vec::new();
        for (n, (step, id, words)) in steps.into_iter().enumerate() {
            let id = format!("d{id}");
            match step {
                0..6 => {
                    let body = body(n as u64, words);
                    let revision = put(&collection, &id, &body);
                    was.push((id, revision, body));
                }
                6..9 => pushed(&database, &collection),
                9 => {
                    collection.delete(&id).expect("deleted");
                }
                10 => {
                    collection.purge(&id).expect("purged");
                }
                _ => {
                    database.sync().expect("sync");
                    drop((collection, database));
                    database = fixture.open();
                    collection = database.default_collection().expect("default");
                }
            }
            for (id, revision, body) in &was {
                if let Some(found) = body_at(&database, id, *revision) {
                    prop_assert_eq!(found.to_string(), body.to_string());
                }
            }
        }
        prop_assert_eq!(database.verify().expect("read").problems, 0);
    }
}
