//! What answers tell, and what comes of those that refuse.

use std::sync::Arc;

use super::exchange::active;
use super::memory_store::MemoryStore;
use super::scripted::{NEW, START, Scripted, pulling, pulling_to, request};
use crate::blip::{BlipStats, ErrorReply, Event, OutgoingMessage};
use crate::endpoint::{AccessRule, CollectionAccess};
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::Change;
use crate::replicator::checkpoint::Checkpoint;
use crate::replicator::config::*;
use crate::replicator::error::SessionError;
use crate::replicator::extension::answer::{RevAnswer, decode};
use crate::replicator::extension::codec::{Content, RevsEncoder};
use crate::replicator::extension::{ALSO_PROPERTY, PROPERTY, RevsFormat, VERSION};
use crate::replicator::session::Session;

/// What is answered to two revisions that a peer pushes in one message, where five stand in the store already.
fn answers(may_read: bool) -> Vec<RevAnswer> {
    let store = Arc::new(MemoryStore::new(1));
    (0..5).for_each(|n| store.put(&format!("d{n}"), "{}"));
    let config = PassiveConfig { extension: true, accept_pull: may_read, ..PassiveConfig::default() };
    let mut scripted = Scripted::new(Session::passive(config), store);
    let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
    let ask = OutgoingMessage::request("getCollections").with(PROPERTY, VERSION).with_body(body);
    assert!(scripted.ask(ask).0.expect("answered").is_ok());
    let mut encoder = RevsEncoder::new(RevsFormat::default(), false, 0);
    for sequence in 1..3 {
        let vector = VersionVector::new(Version { time: sequence, source: SourceId([9; 16]) });
        let change = Change::known_as(sequence, format!("new{sequence}"), vector);
        encoder.push(&change, &Content::Body("{}".into()));
    }
    let reply = scripted.ask(request("revs").with_body(encoder.finish(2, false))).0;
    decode(&reply.expect("answered").expect("taken").body, 2).expect("answers")
}

/// Sequences tell how much there is, and what others have written meanwhile.
#[test]
fn who_may_not_read_learns_no_sequence() {
    assert_eq!(answers(true), [RevAnswer::Stored(6), RevAnswer::Stored(7)]);
    assert_eq!(answers(false), [RevAnswer::Stored(1), RevAnswer::Stored(2)]);
}

/// The checkpoint of a push whose only proposal is answered so, if one is saved.
fn checkpoint_after(status: u32) -> Option<String> {
    let store = Arc::new(MemoryStore::new(1));
    store.put("d", "{}");
    let mut scripted = Scripted::new(Session::active(active(ReplicatorType::Push, false)), store);
    let mut saved = None;
    while scripted.finished.is_none() {
        let heard = scripted.settle();
        assert!(!heard.is_empty() || scripted.finished.is_some(), "it waits for nothing");
        for event in heard {
            let Event::Request(request) = event else { continue };
            let body = match request.profile() {
                "getCollections" => "[{}]".to_owned(),
                "proposeChanges" => format!("[{status}]"),
                _ => String::new(),
            };
            if request.profile() == "setCheckpoint" {
                saved = Some(Checkpoint::from_json(&request.body).to_json());
            }
            let reply = OutgoingMessage::default().with("rev", "1-x").with_body(body);
            if !request.no_reply {
                scripted.peer.reply(request.number, reply).expect("open");
            }
        }
    }
    assert_eq!(scripted.finished, Some(Ok(())), "{status}");
    saved
}

/// What the peer will never take is passed; what it may take another time is not.
#[test]
fn a_checkpoint_passes_what_the_peer_will_not_take_and_nothing_else() {
    let passed = Some(r#"{"local":1}"#.to_owned());
    for (status, saved) in
        [(304, &passed), (403, &passed), (409, &passed), (413, &passed), (503, &None), (500, &None)]
    {
        assert_eq!(&checkpoint_after(status), saved, "{status}");
    }
}

/// A peer that has said where its feed ends still owes what it was asked for before.
#[test]
fn a_wanted_revision_that_does_not_come_ends_the_run_in_time() {
    let mut scripted = pulling(false);
    let list = request("changes").with_body(format!(r#"[[1,"d",{NEW:?},0]]"#));
    assert!(scripted.ask(list).0.expect("answered").is_ok());
    assert!(scripted.ask(request("changes").with_body("[]")).0.expect("answered").is_ok());
    let until = scripted.session.poll_at().expect("a revision is owed");
    assert!(until >= START + REPLY_TIMEOUT, "{until:?}");
    scripted.now = until;
    scripted.session.handle_timeout(until, &*scripted.store);
    scripted.settle();
    assert!(matches!(scripted.finished, Some(Err(SessionError::TimedOut { .. }))), "{:?}", scripted.finished);
}

/// How a run ends whose request of this profile is answered with this error.
fn refused(profile: &str, error: &ErrorReply) -> Result<(), SessionError> {
    let store = Arc::new(MemoryStore::new(1));
    store.put("d", "{}");
    let direction = if profile == "subChanges" { ReplicatorType::Pull } else { ReplicatorType::Push };
    let mut scripted = Scripted::new(Session::active(active(direction, false)), store);
    while scripted.finished.is_none() {
        let heard = scripted.settle();
        assert!(!heard.is_empty() || scripted.finished.is_some(), "it waits for nothing");
        for event in heard {
            let Event::Request(request) = event else { continue };
            if request.profile() == profile {
                scripted.peer.reply_error(request.number, error).expect("open");
            } else if !request.no_reply {
                let reply = OutgoingMessage::default().with_body("[{}]");
                scripted.peer.reply(request.number, reply).expect("open");
            }
        }
    }
    assert_ne!(scripted.session.blip_stats(), BlipStats::default());
    scripted.finished.expect("it has ended")
}

/// One error of each alone says that the peer names revisions in another way.
#[test]
fn a_refused_direction_ends_the_run_with_what_it_means() {
    let of = |domain: &str, code| ErrorReply { domain: domain.into(), ..ErrorReply::http(code, "") };
    for (request, code) in [("subChanges", 501), ("proposeChanges", 26)] {
        assert_eq!(refused(request, &of("LiteCore", code)), Err(SessionError::Versioning));
        for error in [of("HTTP", code), of("LiteCore", 27), of("HTTP", 403)] {
            let ended = SessionError::Refused { request, error: error.clone() };
            assert_eq!(refused(request, &error), Err(ended));
        }
    }
}

#[test]
fn a_list_of_nothing_is_the_end_of_the_feed_in_either_form() {
    for body in ["", "[]"] {
        let mut scripted = pulling(false);
        let answer = scripted.ask(request("changes").with_body(body)).0;
        assert_eq!(answer, Some(Ok(OutgoingMessage::default())), "{body:?}");
        assert_eq!(scripted.finished, Some(Ok(())), "{body:?}");
    }
}

/// A peer that does not say which collection it means gets the default one only where that is offered.
#[test]
fn the_default_collection_is_for_whom_it_is_offered_to() {
    let default = || vec!["_default".to_owned()];
    for (collections, without, is_given) in
        [(default(), true, true), (default(), false, false), (vec!["c.d".to_owned()], true, false)]
    {
        let case = format!("{collections:?} {without}");
        let store = Arc::new(MemoryStore::with_collections(1, &["_default", "c.d"]));
        store.put("d", r#"{"secret":1}"#);
        let config =
            PassiveConfig { collections, default_without_collections: without, ..PassiveConfig::default() };
        let mut scripted = Scripted::new(Session::passive(config), store);
        let ask = OutgoingMessage::request("subChanges").with("versioning", "version-vectors");
        let (answer, lists) = scripted.ask(ask);
        assert_eq!(answer.expect("answered").is_ok(), is_given, "{case}");
        assert_eq!(!lists.is_empty(), is_given, "{case}");
    }
}

/// Of what a peer has not asked for it is told what it could have, and that there is something in it.
#[test]
fn names_of_collections_are_told_to_who_may_have_them() {
    let names = ["_default", "c.full", "c.empty", "c.secret"];
    let store = Arc::new(MemoryStore::with_collections(1, &names));
    [0, 1, 3].into_iter().for_each(|collection| store.put_in(collection, "d", "{}"));
    let access: AccessRule = Arc::new(|name: &str| {
        let may = name != "c.secret";
        CollectionAccess { push: may, pull: may }
    });
    let collections = names.map(str::to_owned).to_vec();
    let config = PassiveConfig { collections, access: Some(access), ..PassiveConfig::default() };
    let mut scripted = Scripted::new(Session::passive(config), store);
    let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
    let ask = OutgoingMessage::request("getCollections").with(PROPERTY, VERSION).with_body(body);
    let reply = scripted.ask(ask).0.expect("answered").expect("taken");
    let also = reply.properties.get(ALSO_PROPERTY).expect("there is another");
    assert!(also.contains("c.full"), "{also}");
    assert!(["_default", "c.empty", "c.secret"].iter().all(|name| !also.contains(name)), "{also}");
}

/// What a filter of the active side leaves out is that, whatever stands here: it resolves conflicts and refuses none.
#[test]
fn what_a_filter_leaves_out_is_a_conflict_where_those_are_refused_alone() {
    let store = Arc::new(MemoryStore::new(1));
    ["d", "e"].iter().for_each(|id| store.put(id, r#"{"n":1}"#));
    let pull_filter: ReplicationFilter = Arc::new(|input: &FilterInput<'_>| input.id == "e");
    let collections =
        vec![CollectionConfig { pull_filter: Some(pull_filter), ..CollectionConfig::new("_default") }];
    let mut scripted =
        pulling_to(store, ActiveConfig { collections, extension: false, ..ActiveConfig::default() });
    for (id, code) in [("d", "HTTP/403"), ("new", "HTTP/403"), ("e", "")] {
        let rev = request("rev").with("id", id).with("rev", NEW).with_body("{}");
        assert_eq!(scripted.code(rev), code, "{id}");
    }
    // Where they are refused, the peer hears of the conflict: its revision is not left out, it is not the one to be.
    let incoming_filter: ReplicationFilter = Arc::new(|_: &FilterInput<'_>| false);
    let store = Arc::new(MemoryStore::new(1));
    store.put("d", r#"{"n":1}"#);
    let config = PassiveConfig { incoming_filter: Some(incoming_filter), ..PassiveConfig::default() };
    let mut scripted = Scripted::new(Session::passive(config), store).with_collections();
    for (id, code) in [("d", "LiteCore/8"), ("new", "HTTP/403")] {
        let rev = request("rev").with("id", id).with("rev", NEW).with_body("{}");
        assert_eq!(scripted.code(rev), code, "{id}");
    }
}

/// What cannot be begun says why.
#[test]
fn a_run_that_cannot_be_begun_says_why() {
    let many = || (0..=COLLECTIONS_MAX).map(|n| CollectionConfig::new(format!("c.n{n}"))).collect();
    let nobody: AccessRule = Arc::new(|_: &str| CollectionAccess { push: false, pull: false });
    let optional = || vec![CollectionConfig { optional: true, ..CollectionConfig::new("_default") }];
    for (collections, access, reason) in [
        (vec![], None, "no collections"),
        (many(), None, "too many collections"),
        (vec![CollectionConfig::new("_default"); 2], None, "a collection is named twice"),
        (optional(), Some(nobody), "the peer may do nothing with any collection"),
    ] {
        let config = ActiveConfig { collections, access, ..active(ReplicatorType::Push, false) };
        let mut scripted = Scripted::new(Session::active(config), Arc::new(MemoryStore::new(1)));
        scripted.settle();
        assert_eq!(scripted.finished, Some(Err(SessionError::Configuration { reason })));
    }
}
