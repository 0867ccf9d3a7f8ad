//! Documents that several change: saving with a handler, when a document was saved, the changes of one.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{Fixture, object};
use crate::database::{DatabaseConfig, DatabaseError, Document, Versioning};
use crate::replica::revision::{SourceId, TreeId, Version, VersionVector};
use crate::replica::store::{CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};

#[test]
fn the_handler_is_asked_until_nobody_was_faster() {
    let fixture = Fixture::new();
    let collection = fixture.open().default_collection().expect("default");
    let mut new = Document::new("d", object(json!({"n": 1})));
    assert!(collection.save_with(&mut new, |_, _| panic!("there is none")).expect("saved"));
    let mut mine = collection.get("d").expect("read").expect("there");
    mine.body_mut().insert("mine".into(), true.into());
    collection.put("d", &json!({"n": 2})).expect("put");
    let mut asked = 0;
    let saved = collection.save_with(&mut mine, |mine, stored| {
        asked += 1;
        // Somebody is faster once more.
        if asked == 1 {
            collection.put("d", &json!({"n": 3})).expect("put");
        }
        let n = stored.expect("there").body()["n"].clone();
        mine.body_mut().insert("n".into(), n);
        true
    });
    assert!(saved.expect("saved") && asked == 2);
    let stored = collection.get("d").expect("read").expect("there");
    assert_eq!(stored.body(), &object(json!({"n": 3, "mine": true})));
    assert_eq!(stored.revision(), mine.revision());
    // Who does not want to leaves what is there.
    let mut old = new.clone();
    assert!(!collection.save_with(&mut old, |_, _| false).expect("asked"));
    assert_eq!(collection.get("d").expect("read"), Some(stored));
    // What was deleted meanwhile is made anew.
    collection.delete("d").expect("deleted");
    assert!(collection.save_with(&mut old, |_, stored| stored.is_none()).expect("saved"));
    assert_eq!(collection.get("d").expect("read").expect("there").body(), &object(json!({"n": 1})));
    // One that is never fast enough is told so.
    let mut slow = old.clone();
    collection.put("d", &json!({"n": 0})).expect("put");
    let mut n = 0;
    let result = collection.save_with(&mut slow, |_, _| {
        n += 1;
        collection.put("d", &json!({"n": n})).expect("put");
        true
    });
    assert!(matches!(result, Err(DatabaseError::Conflict { .. })), "{result:?}");
}

#[test]
fn a_document_tells_when_it_was_saved() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    assert_eq!(Document::new("d", object(json!({}))).timestamp(), None);
    let before = SystemTime::now() - Duration::from_millis(1);
    collection.put("d", &json!({})).expect("put");
    let saved = collection.get("d").expect("read").expect("there").timestamp().expect("a time");
    assert!(saved >= before && saved <= SystemTime::now() + Duration::from_secs(1), "{saved:?}");
    // Of a peer's by its clock.
    let time = 1_700_000_000_000_000_000;
    let vector = VersionVector::new(Version { time, source: SourceId([7; 16]) });
    let body = "{}".into();
    let theirs =
        IncomingRevision { collection: CollectionId(0), id: "p".into(), vector, deleted: false, body };
    database.commit(&[theirs], ConflictPolicy::Refuse).expect("taken");
    let theirs = collection.get("p").expect("read").expect("there").timestamp();
    assert_eq!(theirs, Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(time)));
}

#[test]
fn the_changes_of_one_document_are_its_own() {
    let fixture = Fixture::new();
    let collection = fixture.open().default_collection().expect("default");
    collection.put("d", &json!({})).expect("put");
    let mut changes = collection.document_changes("d");
    let mut next = || match pin!(changes.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(change) => Some(change.expect("it goes on").expect("readable")),
        Poll::Pending => None,
    };
    assert!(next().is_none(), "from now on");
    collection.put("other", &json!({})).expect("put");
    assert!(next().is_none());
    collection.put("d", &json!({"n": 1})).expect("put");
    collection.put("d", &json!({"n": 2})).expect("put");
    let change = next().expect("changed");
    assert_eq!((&*change.id, change.deleted, change.sequence), ("d", false, 4));
    assert!(next().is_none(), "both are one");
    collection.delete("d").expect("deleted");
    assert!(next().expect("changed").deleted);
    assert!(next().is_none());
}

#[test]
fn indexes_are_built_anew() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    for n in 0..300 {
        collection.put(&format!("{n}"), &json!({"n": n})).expect("put");
    }
    collection.create_index("by-n", ["n"]).expect("made");
    collection.build_indexes().expect("built");
    let before = collection.indexes().expect("read");
    assert_eq!(database.reindex().expect("begun"), 1);
    collection.build_indexes().expect("built");
    let after = collection.indexes().expect("read");
    assert_eq!((&after[0].name, after[0].entries, after[0].is_ready), (&before[0].name, 300, true));
    assert_eq!(database.verify().expect("read").problems, 0);
}

/// A document that is no longer for us goes, and comes back; one that was changed here and not pushed stays.
#[test]
fn what_was_lost_may_come_back() {
    for versioning in [Versioning::VersionVectors, Versioning::RevisionTrees] {
        may_come_back(versioning);
    }
}

fn may_come_back(versioning: Versioning) {
    let fixture = Fixture::new();
    let config = DatabaseConfig { versioning: Some(versioning), ..DatabaseConfig::default() };
    let database = fixture.try_open(config).expect("open");
    let collection = database.default_collection().expect("default");
    let id = CollectionId(0);
    let vector = match versioning {
        Versioning::RevisionTrees => VersionVector::at_tree(TreeId::new(1, &[7; 20]).expect("an ID")),
        _ => VersionVector::new(Version { time: 1 << 60, source: SourceId([7; 16]) }),
    };
    let theirs =
        IncomingRevision { collection: id, id: "d".into(), vector, deleted: false, body: "{}".into() };
    let take = || database.commit(std::slice::from_ref(&theirs), ConflictPolicy::Refuse).expect("taken");
    take();
    assert!(database.lose(id, "d").expect("gone"));
    assert_eq!((collection.get("d").expect("read"), database.lose(id, "d").expect("asked")), (None, false));
    take();
    assert!(collection.get("d").expect("read").is_some(), "it is not remembered as removed");
    collection.put("d", &json!({"mine": 1})).expect("put");
    assert!(!database.lose(id, "d").expect("asked"));
    database.mark_pushed(id, collection.last_sequence());
    assert!(database.lose(id, "d").expect("gone"));
    assert_eq!(database.verify().expect("read").problems, 0);
}
