//! Documents that very many databases have edited.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::exchange::{COMBINATIONS, active, errors, passive};
use super::memory_store::MemoryStore;
use super::pair::Pair;
use super::scripted::{Scripted, pulling, request};
use crate::replica::revision::{SourceId, VERSIONS_MAX, Version, VersionVector};
use crate::replica::store::{
    Change, CollectionId, CommitOutcome, ConflictPolicy, IncomingRevision, ReplicaStore,
};
use crate::replicator::config::ReplicatorType;
use crate::replicator::event::SessionEvent;
use crate::replicator::extension::RevsFormat;
use crate::replicator::extension::answer::{self, RevAnswer};
use crate::replicator::extension::codec::{Content, RevsEncoder};

/// A vector of so many authors, the newest first.
fn vector(authors: usize) -> VersionVector {
    let version = |n: usize| {
        let mut source = [0xee; 16];
        source[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Version { time: 0x18ea_0000_0000_0000 + ((n as u64) << 16), source: SourceId(source) }
    };
    let history = (1..authors).rev().map(version).collect();
    VersionVector { history, ..VersionVector::new(version(authors)) }
}

fn store_document(store: &MemoryStore, id: &str, authors: usize) {
    let revision = IncomingRevision {
        collection: CollectionId(0),
        id: id.into(),
        vector: vector(authors),
        deleted: false,
        body: Bytes::from_static(b"{}"),
    };
    let outcomes = store.commit(&[revision], ConflictPolicy::Refuse).expect("in memory");
    assert!(matches!(outcomes[..], [CommitOutcome::Inserted { .. }]), "{outcomes:?}");
}

#[test]
fn documents_of_many_authors_go_both_ways_in_both_protocols() {
    for (seed, (ours, theirs)) in COMBINATIONS.into_iter().enumerate() {
        let (a, p) = (Arc::new(MemoryStore::new(0xa1)), Arc::new(MemoryStore::new(0xb2)));
        let counts = [2, 255, 256, 257, 300, 1_000, VERSIONS_MAX];
        for authors in counts {
            store_document(&a, &format!("a{authors}"), authors);
            store_document(&p, &format!("p{authors}"), authors);
        }
        (0..300).for_each(|n| a.put(&format!("small{n}"), "{}"));
        let sync = |run: u64| {
            let config = active(ReplicatorType::PushAndPull, ours);
            let mut pair = Pair::new(seed as u64 + run, config, passive(theirs), &a, &p);
            pair.run().expect("a clean end");
            assert_eq!(errors(&pair), [] as [String; 0]);
            assert_eq!(a.dump(0), p.dump(0), "{ours} {theirs}");
        };
        sync(0);
        for authors in counts {
            assert_eq!(p.vector(&format!("a{authors}")), Some(vector(authors)), "whole, in its order");
            // Each side edits what the other made; one author more than are kept makes the oldest go.
            a.put(&format!("p{authors}"), r#"{"edited":true}"#);
            p.put(&format!("a{authors}"), r#"{"edited":true}"#);
        }
        sync(10);
        let edited = a.vector(&format!("a{VERSIONS_MAX}")).expect("there");
        assert_eq!(edited.versions().count(), VERSIONS_MAX);
        let oldest = edited.history.iter().map(|version| version.time).min();
        assert_eq!(
            oldest,
            vector(2).history.first().map(|_| vector(2).current.time),
            "the first author went"
        );
    }
}

#[test]
fn conflicts_of_many_authors_are_resolved() {
    for (ours, theirs) in COMBINATIONS {
        let (a, p) = (Arc::new(MemoryStore::new(0xa1)), Arc::new(MemoryStore::new(0xb2)));
        for n in 0..12 {
            store_document(&a, &format!("d{n}"), VERSIONS_MAX - 1);
            store_document(&p, &format!("d{n}"), VERSIONS_MAX - 1);
            a.put(&format!("d{n}"), r#"{"by":"a"}"#);
            p.put(&format!("d{n}"), r#"{"by":"p"}"#);
        }
        for run in 0..3 {
            let config = active(ReplicatorType::PushAndPull, ours);
            Pair::new(run, config, passive(theirs), &a, &p).run().expect("a clean end");
        }
        assert_eq!(a.dump(0), p.dump(0), "{ours} {theirs}");
    }
}

/// Vectors that no peer may send: longer than the limit; an author twice in the history; that of the current version once more.
fn refused_vectors() -> [VersionVector; 3] {
    let (mut twice, mut again) = (vector(5), vector(5));
    let older = |version: Version| Version { time: version.time - 1, ..version };
    twice.history.push(older(twice.history[1]));
    again.history.push(older(again.current));
    [vector(VERSIONS_MAX + 1), twice, again]
}

/// Such a vector is refused by name, and everything around it is taken.
#[test]
fn a_vector_that_none_may_send_is_refused_alone() {
    refused_vectors().iter().for_each(is_refused_alone);
}

fn is_refused_alone(long: &VersionVector) {
    let (rev, history) = (long.current.to_string(), long.history_text());
    let mut scripted = Scripted::passive(false).with_collections();
    let proposal = format!(r#"[["long","{long}","",9],["good","{rev}","",9]]"#);
    assert_eq!(scripted.code(request("proposeChanges").with_body(proposal)), "[]");
    let long_rev = request("rev").with("id", "long").with("rev", &rev).with("history", &history);
    assert_eq!(scripted.code(long_rev.with_body("{}")), "LiteCore/4");
    assert_eq!(scripted.code(request("rev").with("id", "good").with("rev", &rev).with_body("{}")), "");
    assert_eq!((scripted.store.body("long"), scripted.result.clone()), (None, Ok(())));

    // The active side asks for what a list names by too many versions, and is told by name when it comes.
    let mut scripted = pulling(false);
    let list = format!(r#"[[1,"long","{long}",0],[2,"good","{rev}",0]]"#);
    assert_eq!(scripted.code(request("changes").with_body(list)), "[[],[]]");
    let long_rev = request("rev").with("id", "long").with("rev", &rev).with("history", &history);
    assert_eq!(scripted.code(long_rev.with("sequence", "1").with_body("{}")), "LiteCore/4");
    assert_eq!(scripted.result, Ok(()));
}

#[test]
fn a_vector_that_none_may_send_in_a_message_of_many_is_refused_alone() {
    refused_vectors().into_iter().for_each(is_refused_alone_in_revs);
}

fn is_refused_alone_in_revs(long: VersionVector) {
    let mut encoder = RevsEncoder::new(RevsFormat::Versions, false, 0);
    let body = Content::Body(Bytes::from_static(b"{}"));
    encoder.push(&Change::known_as(1, "before", vector(5)), &body);
    encoder.push(&Change::known_as(2, "long", long), &body);
    encoder.push(&Change::known_as(3, "after", vector(5)), &body);
    let mut scripted = pulling(true);
    scripted.peer.send_request(request("revs").with_body(encoder.finish(3, true))).expect("small");
    let mut told = Vec::new();
    let (mut reply, mut ended) = (None, None);
    for _ in 0..10 {
        while let Some(frame) = scripted.peer.poll_frame() {
            scripted.session.handle_frame(scripted.now, &frame, &*scripted.store).expect("taken");
        }
        told.extend(std::iter::from_fn(|| scripted.session.poll_event()).filter_map(|event| match event {
            SessionEvent::DocumentReplicated(it) => it.error.map(|error| (it.id, error.code)),
            SessionEvent::Finished(result) => {
                ended = Some(result);
                None
            }
            _ => None,
        }));
        for event in scripted.settle() {
            if let crate::blip::Event::Reply { result, .. } = event {
                reply = Some(result.expect("answered"));
            }
        }
        scripted.now = scripted.now + Duration::from_millis(1);
    }
    assert_eq!(told, [("long".to_owned(), 4)]);
    let answers = answer::decode(&reply.expect("a reply").body, 3).expect("well formed");
    assert!(
        matches!(&answers[..], [RevAnswer::Stored(_), RevAnswer::Failed(error), RevAnswer::Stored(_)] if error.code == 4),
        "{answers:?}"
    );
    assert_eq!(scripted.store.count(), 2);
    assert_eq!(ended.or(scripted.finished), Some(Ok(())), "the session comes to its end");
}
