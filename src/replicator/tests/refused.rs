//! Single revisions that this side does not take, or does not give: what is said of them, to the peer and here.

use std::sync::Arc;

use super::scripted::{NEW, OTHER, Scripted, pulling, request};
use crate::blip::{Event, OutgoingMessage};
use crate::replica::store::{CommitOutcome, Rejection};
use crate::replicator::config::PassiveConfig;
use crate::replicator::event::SessionEvent;
use crate::replicator::limits::SessionLimits;
use crate::replicator::memory_store::MemoryStore;
use crate::replicator::session::Session;
use crate::replicator::unsynced::Unsynced;

fn deliver(scripted: &mut Scripted, message: OutgoingMessage) {
    scripted.peer.send_request(message).expect("small");
    while let Some(frame) = scripted.peer.poll_frame() {
        scripted.session.handle_frame(scripted.now, &frame, &*scripted.store).expect("well formed");
    }
}

/// Lets the peer's feed end, and with it the run; gives what it tells at its end.
fn unsynced(scripted: &mut Scripted) -> Unsynced {
    let end = OutgoingMessage { no_reply: true, ..request("changes").with_body("[]") };
    deliver(scripted, end);
    let mut told = None;
    for _ in 0..8 {
        while let Some(event) = scripted.session.poll_event() {
            if let SessionEvent::Unsynced(unsynced) = event {
                told = Some(*unsynced);
            }
        }
        while let Some(frame) = scripted.session.poll_frame(scripted.now, &*scripted.store) {
            scripted.peer.handle_frame(&frame).expect("our frames are good");
        }
        while let Some(event) = scripted.peer.poll_event() {
            let Event::Request(asked) = event else { continue };
            if !asked.no_reply {
                scripted
                    .peer
                    .reply(asked.number, OutgoingMessage::default().with("rev", "1-x"))
                    .expect("open");
            }
        }
        while let Some(frame) = scripted.peer.poll_frame() {
            scripted.session.handle_frame(scripted.now, &frame, &*scripted.store).expect("well formed");
        }
    }
    assert!(scripted.session.is_finished());
    told.expect("something was refused")
}

/// The next run asks again for what only the application's resolver has refused, and for nothing else.
#[test]
fn what_a_resolver_refuses_is_tried_again() {
    for (rejection, is_open) in
        [(Rejection::Resolver("not now".into()), true), (Rejection::BadBody("never".into()), false)]
    {
        let mut scripted = pulling(false);
        let list = request("changes").with_body(format!("[[1,\"x\",\"{NEW}\"]]"));
        assert!(scripted.ask(list).0.expect("answered").is_ok());
        let rev = request("rev").with("id", "x").with("rev", NEW).with("sequence", "1").with_body("{}");
        deliver(&mut scripted, rev);
        let commit = scripted.session.poll_commit().expect("it came");
        let result = Ok(vec![CommitOutcome::Rejected(rejection)]);
        scripted.session.handle_commit(scripted.now, commit.id, result, &*scripted.store);
        let listed = unsynced(&mut scripted).listed;
        assert_eq!(
            listed.iter().map(|one| (one.id.as_str(), one.is_open)).collect::<Vec<_>>(),
            [("x", is_open)]
        );
    }
}

/// Of what cannot be taken by its ID alone it is told whether it was a deletion.
#[test]
fn a_listed_document_that_cannot_be_here_is_named_with_what_it_is() {
    let long = "x".repeat(251);
    for (flags, deleted) in [("", false), (",0", false), (",1", true), (",2", false), (",3", true)] {
        let mut scripted = pulling(false);
        let list = request("changes").with_body(format!("[[1,\"{long}\",\"{NEW}\"{flags}]]"));
        assert!(scripted.ask(list).0.expect("answered").is_ok());
        let listed = unsynced(&mut scripted).listed;
        assert_eq!(listed.iter().map(|one| one.deleted).collect::<Vec<_>>(), [deleted], "{flags:?}");
    }
}

/// A filter here leaves out what comes; that what is here already comes once more is no failure of the peer.
#[test]
fn what_a_filter_leaves_out_is_no_failure_if_it_is_here() {
    let store = Arc::new(MemoryStore::new(1));
    store.put("d", r#"{"n":1}"#);
    store.put("d", r#"{"n":2}"#);
    let vector = store.vector("d").expect("there");
    let newest = vector.current.to_string();
    let config = PassiveConfig { incoming_filter: Some(Arc::new(|_| false)), ..PassiveConfig::default() };
    let mut scripted = Scripted::new(Session::passive(config), store).with_collections();
    let rev = |id: &str, rev: &str| request("rev").with("id", id).with("rev", rev).with_body("{}");
    assert_eq!(scripted.code(rev("d", &newest)), "");
    for (id, revision) in [("e", OTHER), ("d", &*format!("{NEW};{newest}"))] {
        assert_eq!(scripted.code(rev(id, revision)), "HTTP/403", "{id} {revision}");
    }
    assert_eq!(scripted.code(rev("d", NEW)), "LiteCore/8", "who asks is to resolve it");
}

/// What has been read ahead is not sent if it has expired before its turn.
#[test]
fn what_expires_before_its_turn_is_not_sent() {
    let store = Arc::new(MemoryStore::new(1));
    (0..10).for_each(|n| store.put(&format!("d{n}"), r#"{"n":1}"#));
    let limits = SessionLimits { revs_in_flight: (1, 1), ..SessionLimits::default() };
    let session = Session::passive(PassiveConfig::default()).with_limits(limits);
    let mut scripted = Scripted::new(session, Arc::clone(&store)).with_collections();
    let subscribe = request("subChanges").with("versioning", "version-vectors");
    scripted.peer.send_request(subscribe).expect("small");
    let mut sent = vec![];
    for _ in 0..40 {
        for event in scripted.settle() {
            let Event::Request(asked) = event else { continue };
            let body = match asked.profile() {
                "changes" => "[[],[],[],[],[],[],[],[],[],[]]",
                "rev" => {
                    sent.push(asked.properties.get("id").expect("an ID").to_owned());
                    store.expire("d7");
                    ""
                }
                _ => "",
            };
            if !asked.no_reply {
                scripted.peer.reply(asked.number, OutgoingMessage::default().with_body(body)).expect("open");
            }
        }
    }
    assert_eq!(sent, ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "d8", "d9"]);
}
