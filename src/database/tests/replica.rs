//! The database as replication uses it, and version vectors against recorded ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Fixture, contents, object};
use crate::database::store::{CHECKPOINTS_MAX, PEER_CHECKPOINTS_MAX};
use crate::database::{Collection, Database};
use crate::replica::revision::{SourceId, VERSIONS_MAX, Version, VersionVector};
use crate::replica::store::{
    Change, CollectionId, CommitOutcome, Conflict, ConflictPolicy, ConflictResolver, IncomingRevision,
    Rejection, ReplicaStore, Resolution,
};

const DEFAULT: CollectionId = CollectionId(0);

fn open() -> (Fixture, Database, Collection) {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    (fixture, database, collection)
}

fn incoming(change: &Change) -> IncomingRevision {
    IncomingRevision {
        collection: DEFAULT,
        id: change.id.clone(),
        vector: change.vector.clone(),
        deleted: change.deleted,
        body: change.body.clone().expect("asked for"),
    }
}

fn changes(database: &Database, since: u64) -> Vec<Change> {
    database.changes(DEFAULT, since, usize::MAX, true).expect("changes")
}

fn push(from: &Database, to: &Database, since: u64, policy: ConflictPolicy<'_>) -> Vec<CommitOutcome> {
    let revisions: Vec<IncomingRevision> = changes(from, since).iter().map(incoming).collect();
    to.commit(&revisions, policy).expect("commit")
}

/// Decides always the same.
struct Always(Resolution);

impl ConflictResolver for Always {
    fn resolve(&self, _: &Conflict<'_>) -> Result<Resolution, String> {
        Ok(self.0.clone())
    }
}

#[test]
fn revisions_travel_whole() {
    let (_one, a, in_a) = open();
    let (_two, b, in_b) = open();
    in_a.put("x", &json!({"n": 1, "self": "x", "list": [1.5, "ä", null, {"deep": true}]})).expect("put");
    in_a.put("y", &json!({})).expect("put");
    in_a.delete("y").expect("delete");
    let outcomes = push(&a, &b, 0, ConflictPolicy::Refuse);
    assert_eq!(outcomes, [CommitOutcome::Inserted { sequence: 1 }, CommitOutcome::Inserted { sequence: 2 }]);
    assert_eq!(contents(&in_a), contents(&in_b));
    let [one, two]: [Vec<Change>; 2] = [changes(&a, 0), changes(&b, 0)];
    for (sent, stored) in one.iter().zip(&two) {
        assert_eq!((&sent.id, &sent.vector, sent.deleted), (&stored.id, &stored.vector, stored.deleted));
        assert_eq!(sent.body_size, sent.body.as_ref().map_or(0, |b| b.len() as u64));
    }
    let again = push(&a, &b, 0, ConflictPolicy::Refuse);
    assert_eq!(
        again,
        [CommitOutcome::AlreadyKnown { sequence: 1 }, CommitOutcome::AlreadyKnown { sequence: 2 }]
    );
}

#[test]
fn what_was_resolved_stays_resolved_when_a_newer_revision_comes() {
    let (_one, a, in_a) = open();
    let (_two, b, in_b) = open();
    let (_three, c, in_c) = open();
    for (collection, by) in [(&in_a, "a"), (&in_b, "b")] {
        collection.put("x", &json!({"by": by})).expect("put");
    }
    // Somebody has A's revision as it was before A kept it against B's, and writes on top.
    push(&a, &c, 0, ConflictPolicy::Refuse);
    push(&b, &a, 0, ConflictPolicy::Resolve(&Always(Resolution::Local)));
    in_c.put("x", &json!({"by": "c"})).expect("put");
    assert!(matches!(push(&c, &a, 0, ConflictPolicy::Refuse)[..], [CommitOutcome::Inserted { .. }]));
    // A has pulled B's revision and will not do so again: what it pushes must be seen to descend from it.
    assert!(matches!(push(&a, &b, 0, ConflictPolicy::Refuse)[..], [CommitOutcome::Inserted { .. }]));
    assert_eq!(contents(&in_a), contents(&in_b));
}

#[test]
fn conflicts_are_refused_or_resolved() {
    for (resolution, body, is_pushed) in [
        (Resolution::Local, Some(json!({"by": "b"})), true),
        (Resolution::Remote, Some(json!({"by": "a"})), false),
        (Resolution::Merge(object(json!({"by": "both"}))), Some(json!({"by": "both"})), true),
        (Resolution::Delete, None, true),
    ] {
        let (_one, a, in_a) = open();
        let (_two, b, in_b) = open();
        in_a.put("x", &json!({"by": "a"})).expect("put");
        in_b.put("x", &json!({"by": "b"})).expect("put");
        let refused = push(&a, &b, 0, ConflictPolicy::Refuse);
        let local = b.revision(DEFAULT, "x").expect("read").expect("there").vector;
        assert_eq!(refused, [CommitOutcome::Conflict { local }]);
        let resolver = Always(resolution.clone());
        let outcomes = push(&a, &b, 0, ConflictPolicy::Resolve(&resolver));
        assert!(
            matches!(outcomes[..], [CommitOutcome::Resolved { sequence: 2, push, .. }] if push == is_pushed)
        );
        let found = in_b.get("x").expect("read").map(|d| Value::Object(d.into_body()));
        assert_eq!(found, body, "{resolution:?}");
        // What came of it is news for the other side, and no conflict any more.
        let back = push(&b, &a, 0, ConflictPolicy::Refuse);
        assert!(!matches!(back[0], CommitOutcome::Conflict { .. }), "{resolution:?}: {back:?}");
        assert_eq!(contents(&in_a), contents(&in_b), "{resolution:?}");
    }
}

/// Decides a conflict, and meanwhile somebody edits the document here.
struct Interrupted {
    resolution: fn(&Conflict<'_>) -> Resolution,
    collection: Collection,
    edits: AtomicU64,
    seen: std::sync::Mutex<Vec<Value>>,
}

impl ConflictResolver for Interrupted {
    fn resolve(&self, conflict: &Conflict<'_>) -> Result<Resolution, String> {
        let local = conflict.local_body.cloned().map(Value::Object).unwrap_or_default();
        self.seen.lock().expect("lock").push(local.clone());
        if self.edits.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut body = object(local);
            body.insert("meanwhile".into(), json!(true));
            self.collection.put(conflict.id, &body).expect("put");
        }
        Ok((self.resolution)(conflict))
    }
}

/// What was decided on a revision that is not the newest any more is decided again, on the newest.
#[test]
fn a_decision_on_a_revision_that_was_replaced_meanwhile_is_taken_again() {
    let merge = |conflict: &Conflict<'_>| {
        let mut both = conflict.local_body.cloned().unwrap_or_default();
        both.extend(conflict.remote_body.cloned().unwrap_or_default());
        Resolution::Merge(both)
    };
    type Decide = fn(&Conflict<'_>) -> Resolution;
    let resolutions: [(Decide, Value); 3] = [
        (merge, json!({"by": "a", "meanwhile": true})),
        (|_| Resolution::Local, json!({"by": "b", "meanwhile": true})),
        (|_| Resolution::Remote, json!({"by": "a"})),
    ];
    for (resolution, expected) in resolutions {
        let (_one, a, in_a) = open();
        let (_two, b, in_b) = open();
        in_a.put("x", &json!({"by": "a"})).expect("put");
        in_b.put("x", &json!({"by": "b"})).expect("put");
        let (edits, seen) = (AtomicU64::new(0), std::sync::Mutex::default());
        let resolver = Interrupted { resolution, collection: in_b.clone(), edits, seen };
        let outcomes = push(&a, &b, 0, ConflictPolicy::Resolve(&resolver));
        assert!(matches!(outcomes[..], [CommitOutcome::Resolved { .. }]), "{outcomes:?}");
        let seen = resolver.seen.into_inner().expect("lock");
        let meanwhile = json!({"by": "b", "meanwhile": true});
        assert_eq!(seen, [json!({"by": "b"}), meanwhile], "what the decisions were made on");
        assert_eq!(contents(&in_b), [("x".to_owned(), expected)]);
        let back = push(&b, &a, 0, ConflictPolicy::Refuse);
        assert!(!matches!(back[0], CommitOutcome::Conflict { .. }), "{back:?}");
        assert_eq!(contents(&in_a), contents(&in_b));
    }
}

#[test]
fn bad_revisions_are_rejected_alone() {
    let (_fixture, b, in_b) = open();
    let other = SourceId([7; 16]);
    let one = |id: &str, body: &str, source: SourceId, time: u64| IncomingRevision {
        collection: DEFAULT,
        id: id.into(),
        vector: VersionVector::new(Version { time, source }),
        deleted: false,
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    let revisions = [
        one("_no", "{}", other, 1),
        one("list", "[]", other, 1),
        one("twice", r#"{"a":1,"a":2}"#, other, 1),
        one("mine", "{}", b.source(), u64::MAX),
        one("good", r#"{"a":1}"#, other, u64::MAX),
    ];
    let outcomes = b.commit(&revisions, ConflictPolicy::Refuse).expect("commit");
    assert!(matches!(outcomes[0], CommitOutcome::Rejected(Rejection::BadId { .. })));
    assert!(matches!(outcomes[1], CommitOutcome::Rejected(Rejection::BadBody(_))));
    assert!(matches!(outcomes[2], CommitOutcome::Rejected(Rejection::BadBody(_))));
    assert!(matches!(outcomes[3], CommitOutcome::Rejected(Rejection::BadRevision(_))));
    assert_eq!(outcomes[4], CommitOutcome::Inserted { sequence: 1 });
    // The far future of another author does not become ours.
    in_b.put("good", &json!({"a": 2})).expect("put");
    let stored = b.revision(DEFAULT, "good").expect("read").expect("there");
    assert!(stored.vector.current.time < u64::MAX / 2);
    assert_eq!(stored.remote_ancestor, Some(Version { time: u64::MAX, source: other }.into()));
}

/// Stores a document as a peer wrote it at `time`.
pub(in crate::database) fn take_from_a_peer(database: &Database, id: &str, time: u64) {
    database.commit(&[by_a_peer(id, time)], ConflictPolicy::Refuse).expect("commit");
}

/// A document as a peer wrote it at `time`.
pub(in crate::database) fn by_a_peer(id: &str, time: u64) -> IncomingRevision {
    IncomingRevision {
        collection: DEFAULT,
        id: id.into(),
        vector: VersionVector::new(Version { time, source: SourceId([9; 16]) }),
        deleted: false,
        body: Bytes::from_static(b"{\"by\":\"a peer\"}"),
    }
}

/// A peer in the year 2262: what it wrote travels and can be edited by others, and nobody else's clock follows it.
#[test]
fn a_version_from_2262_poisons_nothing() {
    const IN_2262: u64 = 9_214_646_400_000_000_000;
    let (_fixture_a, a, in_a) = open();
    let (_fixture_b, b, in_b) = open();
    let now = Version { time: crate::database::clock::wall_now(), source: a.source() };
    let future = Version { time: IN_2262, source: SourceId([9; 16]) };
    let late = IncomingRevision {
        collection: DEFAULT,
        id: "x".into(),
        vector: VersionVector::new(future),
        deleted: false,
        body: Bytes::from_static(b"{\"by\":\"the future\"}"),
    };
    let outcomes = a.commit(std::slice::from_ref(&late), ConflictPolicy::Refuse).expect("commit");
    assert_eq!(outcomes, [CommitOutcome::Inserted { sequence: 1 }]);
    assert_eq!(a.info().expect("info").versions_ahead, 1);
    // Each edits what the other wrote, and each edit replaces what it descends from, whatever the clocks say.
    for round in 0..3 {
        for (from, to, edited) in [(&a, &b, &in_a), (&b, &a, &in_b)] {
            if edited.get("x").expect("read").is_some() {
                edited.put("x", &json!({"round": round})).expect("put");
            }
            for change in changes(from, 0) {
                assert!(change.vector.current.time < now.time + crate::database::CLOCK_AHEAD_NS_MAX);
                assert!(change.vector.contains(future));
                let incoming = IncomingRevision {
                    collection: DEFAULT,
                    id: change.id,
                    vector: change.vector,
                    deleted: change.deleted,
                    body: change.body.unwrap_or_default(),
                };
                let outcomes = to.commit(&[incoming], ConflictPolicy::Refuse).expect("commit");
                assert!(matches!(outcomes[0], CommitOutcome::Inserted { .. }), "{outcomes:?}");
            }
        }
    }
    assert_eq!(contents(&in_a), contents(&in_b));
    // Sent again, it is what was known long ago.
    let outcomes = b.commit(&[late], ConflictPolicy::Refuse).expect("commit");
    assert!(matches!(outcomes[0], CommitOutcome::AlreadyKnown { .. }));
}

#[test]
fn remembers_what_a_peer_had() {
    let (_fixture, database, collection) = open();
    let ancestor = |id: &str| database.revision(DEFAULT, id).expect("read").expect("there").remote_ancestor;
    let current = |id: &str| database.revision(DEFAULT, id).expect("read").expect("there").vector.id();
    collection.put("x", &json!({"n": 1})).expect("put");
    let first = current("x");
    assert_eq!(ancestor("x"), None);
    database.mark_pushed(DEFAULT, 1);
    collection.put("x", &json!({"n": 2})).expect("put");
    assert_eq!(ancestor("x"), Some(first));
    collection.put("x", &json!({"n": 3})).expect("put");
    assert_eq!(ancestor("x"), Some(first), "an edit on an edit inherits it");
    collection.put("new", &json!({})).expect("put");
    assert_eq!(ancestor("new"), None);
}

#[test]
fn checkpoints_compare_and_set() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let set = |database: &Database, expected: Option<&str>, body: &'static str| {
        database
            .set_checkpoint(DEFAULT, "client", expected, Bytes::from_static(body.as_bytes()))
            .expect("set")
    };
    assert_eq!(database.checkpoint(DEFAULT, "client").expect("read"), None);
    assert_eq!(set(&database, Some("1-cc"), "{}"), None);
    assert_eq!(set(&database, None, "{\"local\":1}").as_deref(), Some("1-cc"));
    assert_eq!(set(&database, None, "{}"), None);
    assert_eq!(set(&database, Some("1-cc"), "{\"local\":2}").as_deref(), Some("2-cc"));
    drop(database);
    let stored = fixture.open().checkpoint(DEFAULT, "client").expect("read").expect("there");
    assert_eq!((stored.revision.as_str(), &*stored.body), ("2-cc", &b"{\"local\":2}"[..]));
}

#[test]
fn a_peer_has_its_share_of_checkpoints_and_the_oldest_gives_way() {
    let fixture = Fixture::new();
    let database = fixture.open();
    // Longer than one value of the store, so that pieces are not taken for checkpoints, and go with theirs.
    let body = Bytes::from(vec![b'x'; 5_000]);
    let set = |peer: &str, client: &str| {
        database.set_peer_checkpoint(DEFAULT, peer, client, None, body.clone()).expect("set").is_some()
    };
    let has = |client: &str| database.checkpoint(DEFAULT, client).expect("read").is_some();
    assert!(database.set_checkpoint(DEFAULT, "own/mine", None, body.clone()).expect("set").is_some());
    assert!(set("honest", "honest") && set("", "nameless"));
    for n in 0..3 * PEER_CHECKPOINTS_MAX {
        assert!(set("greedy", &format!("greedy-{n}")), "{n}");
        assert!(has(&format!("greedy-{n}")), "the newest is kept");
    }
    let kept: Vec<usize> = (0..3 * PEER_CHECKPOINTS_MAX).filter(|n| has(&format!("greedy-{n}"))).collect();
    assert_eq!(kept, (2 * PEER_CHECKPOINTS_MAX..3 * PEER_CHECKPOINTS_MAX).collect::<Vec<_>>());
    assert!(has("honest") && has("nameless") && has("own/mine"));
    // One that is written again is the newest.
    let rewritten = format!("greedy-{}", kept[0]);
    let again = database.set_peer_checkpoint(DEFAULT, "greedy", &rewritten, Some("1-cc"), body.clone());
    assert_eq!(again.expect("set").as_deref(), Some("2-cc"));
    assert!(set("greedy", "greedy-last") && has(&rewritten) && !has(&format!("greedy-{}", kept[1])));
    for bad in ["", "a\0\u{1}", "a\nb"] {
        let set = database.set_peer_checkpoint(DEFAULT, "greedy", bad, None, body.clone());
        assert!(set.is_err(), "{bad:?}: it could be a piece of another's");
    }
}

/// Many identities, each with its share: the oldest of whoever has most gives way, what the database keeps for itself never.
#[test]
fn checkpoints_of_all_peers_together_have_a_limit() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let set = |peer: &str, client: &str| {
        database.set_peer_checkpoint(DEFAULT, peer, client, None, Bytes::from_static(b"{}")).expect("set")
    };
    let has = |client: &str| database.checkpoint(DEFAULT, client).expect("read").is_some();
    assert!(database.set_checkpoint(DEFAULT, "own/mine", None, Bytes::from_static(b"{}")).is_ok());
    assert!(set("first", "first").is_some());
    (0..3).for_each(|n| assert!(set("several", &format!("several-{n}")).is_some()));
    let others = CHECKPOINTS_MAX - 5;
    (0..others).for_each(|n| assert!(set(&format!("peer-{n}"), &format!("cp-{n}")).is_some()));
    assert!(has("first") && has("several-0"), "there is room for as many");
    // Two of whoever has three, then the oldest of all.
    for (n, gone) in ["several-0", "several-1", "first"].iter().enumerate() {
        assert!(
            has(gone) && set(&format!("late-{n}"), &format!("late-{n}")).is_some() && !has(gone),
            "{gone}"
        );
    }
    let kept = (0..others).filter(|n| has(&format!("cp-{n}"))).count();
    assert_eq!(kept, others, "one gives way for one");
    assert!(has("own/mine") && has("several-2") && (0..3).all(|n| has(&format!("late-{n}"))));
}

#[test]
fn the_feed_shows_only_what_is_on_the_medium() {
    let (_fixture, database, collection) = open();
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let mut watch = database.watch();
        let (database, seen) = (&database, &seen);
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            while seen.load(Ordering::Relaxed) < 50 {
                runtime.block_on(watch.changed()).expect("open");
                let last = database.last_sequence(DEFAULT);
                assert!(changes(database, 0).iter().all(|c| c.sequence <= database.last_sequence(DEFAULT)));
                seen.store(last, Ordering::Relaxed);
            }
        });
        for n in 0..50 {
            collection.put(&format!("d{n}"), &json!({})).expect("put");
            assert!(database.last_sequence(DEFAULT) > n, "acknowledged and not in the feed");
        }
    });
}

#[test]
fn vectors_evolve_as_recorded() {
    let text = include_str!("../../../hw-tests/vectors/vv-encoding.jsonl");
    let mut databases: HashMap<String, HashMap<String, VersionVector>> = HashMap::new();
    let mut checked = 0;
    for line in text.lines().skip(1) {
        let step: Value = serde_json::from_str(line).expect("JSON");
        let name = step["step"].as_str().expect("a name");
        let Some(after) = step["after"].as_object() else { continue };
        match step["sync"].as_str() {
            None => {
                let database = databases.entry(step["db"].as_str().expect("a database").into()).or_default();
                for (id, document) in after {
                    checked += usize::from(check_edit(database, id, document, name));
                }
            }
            Some(sync) => {
                let (active, passive) = (&sync[..1], &sync[sync.len() - "X (passive)".len()..][..1]);
                checked += check_sync(&mut databases, active, passive, after, name);
            }
        }
    }
    assert!(checked > 25, "only {checked} vectors were compared");
}

fn vector_of(document: &Value) -> VersionVector {
    let text = document["vector"].as_str().expect("a vector");
    let vector: VersionVector = text.parse().expect("a vector");
    assert_eq!(vector.to_string(), text);
    let history = vector.history_text();
    assert_eq!(
        VersionVector::from_rev_and_history(&vector.id().to_string(), &history).expect("a vector"),
        vector
    );
    vector
}

fn check_edit(database: &mut HashMap<String, VersionVector>, id: &str, document: &Value, step: &str) -> bool {
    let vector = vector_of(document);
    let before = database.insert(id.into(), vector.clone());
    if before.as_ref() == Some(&vector) {
        return false;
    }
    let edited = before.map_or_else(|| VersionVector::new(vector.current), |b| b.edited(vector.current));
    assert_eq!(edited, vector, "{step}");
    true
}

fn check_sync(
    databases: &mut HashMap<String, HashMap<String, VersionVector>>,
    active: &str,
    passive: &str,
    after: &serde_json::Map<String, Value>,
    step: &str,
) -> usize {
    let mut checked = 0;
    for (id, document) in after[active].as_object().expect("documents") {
        let vector = vector_of(document);
        let local = databases.entry(active.into()).or_default().insert(id.clone(), vector.clone());
        let remote = databases.entry(passive.into()).or_default().get(id).cloned();
        let (Some(local), Some(remote)) = (local, remote) else { continue };
        if local == vector || remote == vector {
            continue;
        }
        let expected = if vector.current == local.current {
            local.with_ancestors_of(&remote)
        } else if vector.current == remote.current {
            remote.with_ancestors_of(&local)
        } else {
            local.merged_with(&remote, vector.current)
        };
        assert_eq!(expected, vector, "{step}");
        checked += 1;
    }
    for (id, document) in after[passive].as_object().expect("documents") {
        let vector = vector_of(document);
        let before = databases.entry(passive.into()).or_default().insert(id.clone(), vector.clone());
        if before.as_ref() != Some(&vector) {
            assert_eq!(databases[active].get(id), Some(&vector), "{step}");
            checked += 1;
        }
    }
    checked
}

/// Two devices that have resolved a conflict alike give each other no further versions: the later one stays, whatever the
/// resolver says of who wins.
#[test]
fn what_says_the_same_settles() {
    for resolution in
        [Resolution::Local, Resolution::Remote, Resolution::Merge(object(json!({"by": "both"})))]
    {
        let (_one, a, in_a) = open();
        let (_two, b, in_b) = open();
        in_a.put("x", &json!({"by": "both"})).expect("put");
        in_b.put("x", &json!({"by": "both"})).expect("put");
        let resolver = Always(resolution.clone());
        let later = b.revision(DEFAULT, "x").expect("read").expect("there").vector.current;
        push(&a, &b, 0, ConflictPolicy::Resolve(&resolver));
        push(&b, &a, 0, ConflictPolicy::Resolve(&resolver));
        for database in [&a, &b] {
            let found = database.revision(DEFAULT, "x").expect("read").expect("there").vector;
            assert_eq!(found.current, later, "{resolution:?}");
        }
    }
}

#[test]
fn documents_of_many_authors_are_kept_whole() {
    let (fixture, database, collection) = open();
    let version = |n: u64| {
        let mut source = [0xee; 16];
        source[..8].copy_from_slice(&n.to_be_bytes());
        Version { time: 0x18ea_0000_0000_0000 + (n << 16), source: SourceId(source) }
    };
    for authors in [256, 257, 1_000, VERSIONS_MAX as u64] {
        let history = (1..authors).rev().map(version).collect();
        let revision = IncomingRevision {
            collection: DEFAULT,
            id: format!("d{authors}"),
            vector: VersionVector { history, ..VersionVector::new(version(authors)) },
            deleted: false,
            body: Bytes::from_static(b"{}"),
        };
        let outcomes =
            database.commit(std::slice::from_ref(&revision), ConflictPolicy::Refuse).expect("commit");
        assert!(matches!(outcomes[..], [CommitOutcome::Inserted { .. }]), "{outcomes:?}");
        assert_eq!(changes(&database, 0).last().map(|change| change.vector.clone()), Some(revision.vector));
        collection.put(&revision.id, &json!({"edited": true})).expect("put");
    }
    let before = changes(&database, 0);
    database.close().expect("sealed");
    drop((database, collection));
    let database = fixture.open();
    assert_eq!(changes(&database, 0), before);
    let counts: Vec<usize> = before.iter().map(|change| change.vector.versions().count()).collect();
    assert_eq!(counts, [257, 258, 1_001, VERSIONS_MAX], "the oldest author goes where one is too many");
}

/// A revision that could not be stored is refused only where it would be: what is here already, or is settled from the other
/// side, is no failure.
#[test]
fn what_is_known_is_not_refused_for_what_it_is() {
    let (_one, a, in_a) = open();
    let (_two, b, in_b) = open();
    let blob = json!({"pic": a.save_blob(&b"a picture"[..], "image/png").expect("saved")});
    for id in ["newer here", "in conflict", "newer there"] {
        in_a.put(id, &json!({"n": 1})).expect("put");
    }
    assert!(
        push(&a, &b, 0, ConflictPolicy::Refuse).iter().all(|o| matches!(o, CommitOutcome::Inserted { .. }))
    );
    let known = |id: &str| b.document(DEFAULT, id).expect("read").expect("there");
    in_b.put("newer here", &json!({"n": 2})).expect("put");
    in_b.put("in conflict", &json!({"n": 2})).expect("put");
    in_a.put("in conflict", &blob).expect("put");
    in_a.put("newer there", &blob).expect("put");
    let with_blob = |id: &str| IncomingRevision {
        body: Bytes::from(blob.to_string()),
        ..incoming(&a.document(DEFAULT, id).expect("read").expect("there"))
    };
    let outcome =
        |id: &str, policy: ConflictPolicy<'_>| b.commit(&[with_blob(id)], policy).expect("commit").remove(0);
    let sequence = known("newer here").sequence;
    assert_eq!(outcome("newer here", ConflictPolicy::Refuse), CommitOutcome::AlreadyKnown { sequence });
    let conflict = CommitOutcome::Conflict { local: known("in conflict").vector };
    assert_eq!(outcome("in conflict", ConflictPolicy::Refuse), conflict);
    let is_missing = |outcome| matches!(outcome, CommitOutcome::Rejected(Rejection::MissingBlob { .. }));
    assert!(is_missing(outcome("newer there", ConflictPolicy::Refuse)));
    let resolver = Always(Resolution::Local);
    assert!(
        is_missing(outcome("in conflict", ConflictPolicy::Resolve(&resolver))),
        "it cannot be decided on"
    );
}

/// A tombstone may say why.
#[test]
fn tombstones_keep_what_they_say() {
    let (_fixture, database, _) = open();
    let tombstone = |source: u8| IncomingRevision {
        collection: DEFAULT,
        id: "d".into(),
        vector: VersionVector::new(Version { time: 1_000, source: SourceId([source; 16]) }),
        deleted: true,
        body: Bytes::from_static(b"{\"why\":\"old\"}"),
    };
    database.commit(&[tombstone(9)], ConflictPolicy::Refuse).expect("commit");
    let stored = database.document(DEFAULT, "d").expect("read").expect("there");
    assert_eq!((stored.deleted, stored.body.as_deref()), (true, Some(&b"{\"why\":\"old\"}"[..])));
}

#[test]
fn checkpoints_are_found_by_the_beginning_of_their_names() {
    let (_fixture, database, _) = open();
    for client in ["own/x/b", "own/x/a", "own/y", "cp-c"] {
        let body = Bytes::from_static(b"{}");
        database.set_checkpoint(DEFAULT, client, None, body).expect("stored").expect("no race");
    }
    let of = |prefix| database.checkpoint_clients(DEFAULT, prefix).expect("read");
    assert_eq!(of("own/x/"), ["own/x/a", "own/x/b"]);
    assert_eq!((of("cp-"), of("none").len()), (vec!["cp-c".to_owned()], 0));
}

/// A tombstone has a body if a peer gives it one that says something; a document always has one.
#[test]
fn what_is_empty_is_taken_for_a_tombstone_alone() {
    let (_fixture, database, collection) = open();
    let version =
        |n: u64| Version { time: crate::database::clock::wall_now() - n, source: SourceId([7; 16]) };
    for (n, (deleted, body, kept)) in [
        (true, "", Some("{}")),
        (true, "{}", Some("{}")),
        (true, r#"{"by":"a"}"#, Some(r#"{"by":"a"}"#)),
        (false, "{}", Some("{}")),
        (false, r#"{"by":"a"}"#, Some(r#"{"by":"a"}"#)),
        (false, "", None),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("d{n}");
        let revision = IncomingRevision {
            collection: DEFAULT,
            id: id.clone(),
            vector: VersionVector::new(version(n as u64)),
            deleted,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let outcome = database.commit(&[revision], ConflictPolicy::Refuse).expect("commit").remove(0);
        let Some(kept) = kept else {
            assert!(matches!(outcome, CommitOutcome::Rejected(Rejection::BadBody(_))), "{outcome:?}");
            continue;
        };
        let stored = database.document(DEFAULT, &id).expect("read").expect("stored");
        assert_eq!(
            (stored.deleted, stored.body.as_deref()),
            (deleted, Some(kept.as_bytes())),
            "{deleted} {body}"
        );
    }
    assert_eq!(collection.count(), 2);
}

/// The newest version of document `x`.
fn current(database: &Database) -> Version {
    database.revision(DEFAULT, "x").expect("read").expect("there").vector.current
}

/// What both sides say already stays as it is; any other decision is carried out, by a version of its own.
#[test]
fn what_a_resolver_decides_is_done() {
    let says = |by: &str| object(json!({ "by": by }));
    for (local, remote, resolution, expected) in [
        (None, Some("a"), Resolution::Delete, None),
        (Some("a"), Some("a"), Resolution::Delete, None),
        (Some("b"), Some("a"), Resolution::Merge(says("b")), Some("b")),
        (Some("a"), Some("a"), Resolution::Merge(says("c")), Some("c")),
    ] {
        let [(_one, a, in_a), (_two, b, in_b)] = [open(), open()];
        // The remote one is the later.
        for (collection, by) in [(&in_b, local), (&in_a, remote)] {
            collection.put("x", &json!({ "by": by })).expect("put");
            assert!(by.is_some() || collection.delete("x").expect("delete"));
        }
        let made = [&a, &b].map(current);
        push(&a, &b, 0, ConflictPolicy::Resolve(&Always(resolution.clone())));
        let found = in_b.get_as::<Value>("x").expect("readable");
        assert_eq!(found, expected.map(|by| json!({ "by": by })), "{local:?} {remote:?} {resolution:?}");
        assert!(!made.contains(&current(&b)), "{local:?} {remote:?} {resolution:?}");
    }
}

/// Of two tombstones none is a third one: what both say stays, whatever the resolver decides.
#[test]
fn two_deletions_settle_without_a_version_more() {
    for resolution in [Resolution::Delete, Resolution::Local, Resolution::Remote] {
        let [(_one, a, in_a), (_two, b, in_b)] = [open(), open()];
        for (database, collection) in [(&a, &in_a), (&b, &in_b)] {
            collection.put("x", &json!({"by": database.source().0[0]})).expect("put");
            collection.delete("x").expect("delete");
        }
        let policy = Always(resolution.clone());
        let made = [&a, &b].map(current);
        push(&a, &b, 0, ConflictPolicy::Resolve(&policy));
        push(&b, &a, 0, ConflictPolicy::Resolve(&policy));
        let [one, other] =
            [&a, &b].map(|database| database.document(DEFAULT, "x").expect("read").expect("there"));
        assert!(one.deleted && other.deleted);
        assert_eq!(one.vector.current, other.vector.current, "{resolution:?}");
        assert!(made.contains(&one.vector.current), "{resolution:?}");
        let authors = [a.source(), b.source()];
        assert!(one.vector.all_versions().all(|version| authors.contains(&version.source)));
        let sequences = [&a, &b].map(|database| database.last_sequence(DEFAULT));
        push(&a, &b, 0, ConflictPolicy::Resolve(&policy));
        push(&b, &a, 0, ConflictPolicy::Resolve(&policy));
        assert_eq!(
            [&a, &b].map(|database| database.last_sequence(DEFAULT)),
            sequences,
            "{resolution:?}: nothing more to say"
        );
    }
}
