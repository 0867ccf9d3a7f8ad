//! What becomes of a proposal that the peer refuses, whose documents may have tree IDs.

use std::sync::Arc;

use bytes::Bytes;

use super::exchange::active;
use super::memory_store::MemoryStore;
use super::scripted::{NEW, Scripted, request};
use crate::blip::{ErrorReply, Event, OutgoingMessage};
use crate::replica::revision::{SourceId, TreeId, Version, VersionVector};
use crate::replica::store::{CollectionId, ConflictPolicy, IncomingRevision, ReplicaStore};
use crate::replicator::config::ReplicatorType;
use crate::replicator::event::{Activity, SessionEvent};
use crate::replicator::session::Session;

fn tree(n: u8) -> TreeId {
    TreeId::new(u32::from(n), &[n; 20]).expect("a tree ID")
}

/// What a peer hears of a push of one document, and what the application is told.
#[derive(Debug, Default)]
struct Pushed {
    /// The bodies of lists that propose something.
    proposals: Vec<String>,
    revisions: usize,
    errors: Vec<String>,
    sent: usize,
}

/// Pushes one edit on top of these tree IDs to a peer that answers its proposals so, and its first revision with this error.
fn push(
    direction: ReplicatorType,
    trees: &[u8],
    answer: &str,
    error: Option<&ErrorReply>,
    edits: bool,
) -> Pushed {
    let store = Arc::new(MemoryStore::new(1));
    let current = Version { time: 1 << 60, source: SourceId([2; 16]) };
    let trees = trees.iter().map(|n| tree(*n)).collect();
    let vector = VersionVector { trees, ..VersionVector::new(current) };
    let (collection, id, body) = (CollectionId(0), "d".to_owned(), Bytes::from_static(b"{}"));
    let revision = IncomingRevision { collection, id, vector, deleted: false, body };
    store.commit(&[revision], ConflictPolicy::Refuse).expect("taken");
    let mut scripted = Scripted::new(Session::active(active(direction, false)), store);
    let mut pushed = Pushed::default();
    while scripted.finished.is_none() {
        let heard = scripted.settle();
        assert!(!heard.is_empty() || scripted.finished.is_some(), "it waits for nothing");
        for event in heard {
            let Event::Request(request) = event else { continue };
            let (mut body, mut refused) = (String::new(), None);
            match request.profile() {
                "getCollections" => body = "[{}]".into(),
                "proposeChanges" if &*request.body != b"[]" => {
                    pushed.proposals.push(String::from_utf8_lossy(&request.body).into_owned());
                    body = answer.into();
                }
                "rev" => {
                    pushed.revisions += 1;
                    refused = error.filter(|_| pushed.revisions == 1);
                    if edits {
                        scripted.store.put("d", r#"{"edited":true}"#);
                    }
                }
                _ => {}
            }
            let reply = OutgoingMessage::default().with("rev", "1-x").with_body(body);
            match (refused, request.no_reply) {
                (Some(error), _) => scripted.peer.reply_error(request.number, error).expect("open"),
                (None, false) => scripted.peer.reply(request.number, reply).expect("open"),
                (None, true) => {}
            }
            if request.profile() == "subChanges" {
                let end = super::scripted::request("changes").with_body("[]");
                scripted.peer.send_request(end).expect("small");
            }
        }
        for told in scripted.told.drain(..) {
            if let SessionEvent::DocumentReplicated(document) = told {
                match document.error {
                    Some(error) => pushed.errors.push(error.to_string()),
                    None => pushed.sent += 1,
                }
            }
        }
    }
    assert_eq!(scripted.finished, Some(Ok(())));
    pushed
}

/// What one peer had of a document is named to another, which lacks it and says so: it is proposed once more, without.
#[test]
fn what_a_peer_lacks_is_proposed_without_what_another_had() {
    let store = Arc::new(MemoryStore::new(1));
    store.put("d", r#"{"n":1}"#);
    let had = store.revision(CollectionId(0), "d").expect("readable").expect("there");
    store.mark_pushed(CollectionId(0), had.sequence);
    store.put("d", r#"{"n":2}"#);
    let mut scripted = Scripted::new(Session::active(active(ReplicatorType::Push, false)), store);
    let (mut proposals, mut revisions) = (Vec::new(), 0);
    while scripted.finished.is_none() {
        for event in scripted.settle() {
            let Event::Request(request) = event else { continue };
            let body = match request.profile() {
                "getCollections" => "[{}]",
                "proposeChanges" if &*request.body != b"[]" => {
                    proposals.push(String::from_utf8_lossy(&request.body).into_owned());
                    if proposals.len() == 1 { r#"[{"status":409,"rev":""}]"# } else { "[]" }
                }
                "rev" => {
                    revisions += 1;
                    ""
                }
                _ => "",
            };
            if !request.no_reply {
                let reply = OutgoingMessage::default().with("rev", "1-x").with_body(body);
                scripted.peer.reply(request.number, reply).expect("open");
            }
        }
    }
    assert_eq!(scripted.finished, Some(Ok(())));
    let named = had.vector.id().to_string();
    assert_eq!(proposals.iter().map(|list| list.contains(&named)).collect::<Vec<_>>(), [true, false]);
    assert_eq!(revisions, 1);
}

/// A peer with a tombstone wants whatever is proposed, and says only by refusing that the revision names a tree ID that it does
/// not have. A second proposal names the newest, so that the peer can tell what it has. Nothing else is proposed again: not where
/// there was no choice, nor after another error, nor what was edited meanwhile and is further on in the feed.
#[test]
fn a_wrong_guess_of_a_tree_id_is_mended_by_a_second_proposal() {
    let conflict = ErrorReply::http(409, "conflict");
    let refused = ErrorReply::http(413, "too large");
    let mended = push(ReplicatorType::Push, &[5, 3], "[0]", Some(&conflict), false);
    assert_eq!((mended.proposals.len(), mended.revisions, mended.sent), (2, 2, 1), "{mended:?}");
    assert!(mended.proposals[1].contains(&format!(",\"{}\",", tree(5))), "{mended:?}");
    assert!(mended.errors.is_empty(), "{mended:?}");
    for (trees, error) in [(&[5][..], &conflict), (&[5, 3], &refused), (&[5], &refused)] {
        let pushed = push(ReplicatorType::Push, trees, "[0]", Some(error), false);
        assert_eq!((pushed.proposals.len(), pushed.revisions, pushed.errors.len()), (1, 1, 1), "{pushed:?}");
    }
    let edited = push(ReplicatorType::Push, &[5, 3], "[0]", Some(&conflict), true);
    assert!(edited.proposals[1..].iter().all(|list| !list.contains(&tree(5).to_string())), "{edited:?}");
}

/// A proposal that is a conflict is told where nothing else will bring what it conflicts with.
#[test]
fn a_conflict_is_told_at_once_where_nothing_is_pulled() {
    for (direction, answer, errors) in
        [(ReplicatorType::Push, "[409]", 1), (ReplicatorType::Push, "[304]", 0)]
    {
        let pushed = push(direction, &[], answer, None, false);
        assert_eq!((pushed.errors.len(), pushed.revisions), (errors, 0), "{answer}: {pushed:?}");
    }
}

/// While a revision that has come is being saved the passive side is at work, though it waits for no answer.
#[test]
fn a_side_that_saves_is_busy() {
    let mut scripted = Scripted::passive(false).with_collections();
    scripted.settle();
    let rev = request("rev").with("id", "new").with("rev", NEW).with("sequence", "1").with_body("{}");
    scripted.peer.send_request(rev).expect("small");
    while let Some(frame) = scripted.peer.poll_frame() {
        scripted.session.handle_frame(scripted.now, &frame, &*scripted.store).expect("taken");
    }
    let activity = |session: &mut Session| {
        let mut last = None;
        while let Some(event) = session.poll_event() {
            if let SessionEvent::Activity(activity) = event {
                last = Some(activity);
            }
        }
        last
    };
    assert_eq!(scripted.session.poll_frame(scripted.now, &*scripted.store), None);
    assert_eq!(activity(&mut scripted.session), Some(Activity::Busy));
    let commit = scripted.session.poll_commit().expect("it is to be saved");
    let result = scripted.store.commit(&commit.revisions, scripted.session.conflict_policy());
    scripted.session.handle_commit(scripted.now, commit.id, result, &*scripted.store);
    while scripted.session.poll_frame(scripted.now, &*scripted.store).is_some() {}
    assert_eq!(activity(&mut scripted.session), Some(Activity::Idle));
}
