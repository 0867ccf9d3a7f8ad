//! Lists of a peer that are not as they should be, and where ours end.

use super::scripted::{NEW, START, Scripted, pulling, request};
use crate::blip::{Event, OutgoingMessage};
use crate::replica::store::ReplicaStore;
use crate::replicator::error::SessionError;
use crate::replicator::extension::{PROPERTY, VERSION, codec};

/// Of a list with a bad entry the others are asked for; of one that is no list nothing comes, and the run says so.
#[test]
fn a_bad_entry_of_a_list_leaves_the_others_alone() {
    let list = |scripted: &mut Scripted, body: String| {
        let answer = scripted.ask(request("changes").with_body(body)).0.expect("answered");
        assert_eq!(scripted.ask(request("changes").with_body("[]")).0, Some(Ok(OutgoingMessage::default())));
        answer
    };
    let mut scripted = pulling(false);
    let body =
        format!(r#"[[1,"bad","no revision",0,9],[2,"tree","1-ab",0,9],[3,"",{NEW:?},0,9],[4,"d",{NEW:?}]]"#);
    let answer = list(&mut scripted, body).expect("a list");
    assert_eq!(&answer.body[..], b"[0,[],0,[]]");
    for (id, rev, sequence) in [("tree", "1-ab", "2"), ("d", NEW, "4")] {
        let rev = request("rev").with("id", id).with("rev", rev).with("sequence", sequence);
        assert!(scripted.ask(rev.with_body("{}")).0.expect("answered").is_ok());
    }
    assert_eq!(scripted.store.count(), 2);
    assert_eq!(scripted.result, Ok(()));

    let mut scripted = pulling(false);
    assert!(list(&mut scripted, "[[1".to_owned()).is_err());
    assert_eq!(scripted.finished, Some(Err(SessionError::Malformed { what: "changes" })));
}

/// A passive side that has been asked for its collection, in this protocol.
fn asked(extension: bool) -> Scripted {
    let mut scripted = Scripted::passive(extension);
    let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
    let mut ask = OutgoingMessage::request("getCollections").with_body(body);
    if extension {
        ask = ask.with(PROPERTY, VERSION);
    }
    assert!(scripted.ask(ask).0.expect("answered").is_ok());
    scripted
}

/// Lets a message arrive, and does nothing more.
fn deliver(scripted: &mut Scripted, message: OutgoingMessage) {
    scripted.peer.send_request(message).expect("small");
    while let Some(frame) = scripted.peer.poll_frame() {
        scripted.session.handle_frame(START, &frame, &*scripted.store).expect("well formed");
    }
}

/// What the peer hears of the feed: how much is in it, and whether it ends there.
fn heard(events: Vec<Event>) -> Vec<(bool, bool)> {
    let told = |event: Event| {
        let Event::Request(request) = event else { return None };
        let told = match request.profile() {
            "revs" => codec::decode(&request.body).map(|revs| (!revs.revisions.is_empty(), revs.last)),
            _ => Ok((&request.body[..] != b"[]", &request.body[..] == b"[]")),
        };
        Some(told.expect("a list"))
    };
    events.into_iter().filter_map(told).collect()
}

/// A peer asks for the feed while what it has pushed is on its way to the store: the feed is not told to end before what was
/// there.
#[test]
fn the_feed_does_not_end_before_what_was_there_while_a_commit_is_under_way() {
    for (extension, edited) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut scripted = asked(extension);
        let subscribe = || request("subChanges").with("versioning", "version-vectors");
        let new = || request("rev").with("id", "new").with("rev", NEW).with_body("{}");
        let commit = if edited {
            deliver(&mut scripted, subscribe().with("batch", "1"));
            deliver(&mut scripted, new());
            let commit = scripted.session.poll_commit().expect("pushed");
            // What was there moves to the end of the feed, behind the commit that is under way.
            ["d", "e"].iter().for_each(|id| scripted.store.put(id, r#"{"n":2}"#));
            commit
        } else {
            deliver(&mut scripted, new());
            let commit = scripted.session.poll_commit().expect("pushed");
            deliver(&mut scripted, subscribe());
            commit
        };
        let meanwhile = heard(scripted.settle());
        assert!(meanwhile.iter().all(|(_, ends)| !ends), "{extension}, {edited}: {meanwhile:?}");
        let result = scripted.store.commit(&commit.revisions, scripted.session.conflict_policy());
        scripted.session.handle_commit(START, commit.id, result, &*scripted.store);
        let all: Vec<_> = meanwhile.into_iter().chain(heard(scripted.settle())).collect();
        assert!(all.first().is_some_and(|(lists, _)| *lists), "{extension}, {edited}: {all:?}");
        assert!(all.last().is_some_and(|(_, ends)| *ends), "{extension}, {edited}: {all:?}");
    }
}
