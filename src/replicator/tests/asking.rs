//! Peers that ask without end for what costs them nothing.

use std::sync::Arc;
use std::time::Duration;

use super::memory_store::MemoryStore;
use super::scripted::{NEW, Scripted, pulling, request};
use crate::blip::OutgoingMessage;
use crate::replicator::config::{PassiveConfig, REQUEST_INTERVAL, REQUESTS_AT_ONCE_MAX};
use crate::replicator::limits::SessionLimits;
use crate::replicator::session::Session;

const AT_ONCE: u32 = 10;
const INTERVAL: Duration = Duration::from_millis(2);

fn passive() -> Scripted {
    let limits =
        SessionLimits { requests_at_once: AT_ONCE, request_interval: INTERVAL, ..SessionLimits::default() };
    let store = Arc::new(MemoryStore::new(1));
    store.put("d", r#"{"n":1}"#);
    Scripted::new(Session::passive(PassiveConfig::default()).with_limits(limits), store).with_collections()
}

fn pass(scripted: &mut Scripted, time: Duration) {
    scripted.now = scripted.now + time;
    scripted.session.handle_timeout(scripted.now, &*scripted.store);
}

/// Whatever is answered at once counts, with a reply or an error. The input waits for exactly as long as there were too many, and
/// nothing is lost by it.
#[test]
fn who_asks_without_end_is_heard_now_and_then() {
    let nonsense = OutgoingMessage::request("nonsense");
    for (question, answer) in [
        (request("norev").with("id", "x"), ""),
        (request("getCheckpoint").with("client", "nobody"), "HTTP/404"),
        (nonsense, "BLIP/404"),
        (request("rev").with("id", "x").with("rev", "no version").with_body("{}"), "HTTP/400"),
        (request("changes").with_body("[]"), ""),
        (OutgoingMessage { no_reply: true, ..request("norev").with("id", "x") }, "none"),
    ] {
        let mut scripted = passive();
        // What came before counts no more.
        pass(&mut scripted, INTERVAL * 1_000);
        for n in 0..AT_ONCE {
            assert!(scripted.session.accepts_input(), "{answer} {n}");
            assert_eq!(scripted.code(question.clone()), answer, "{n}");
        }
        for more in 1..=3 {
            assert_eq!(scripted.session.accepts_input(), more == 1, "{answer}");
            assert_eq!(scripted.code(question.clone()), answer, "what was read before it waits is answered");
            let due = scripted.session.poll_at();
            assert_eq!(due, Some(scripted.now + INTERVAL * more), "{answer}");
        }
        pass(&mut scripted, INTERVAL * 3 - Duration::from_micros(1));
        assert!(!scripted.session.accepts_input(), "{answer}");
        pass(&mut scripted, Duration::from_micros(1));
        assert!(scripted.session.accepts_input(), "{answer}");
        assert_eq!(scripted.finished, None);
    }
}

/// Revisions for the store are limited by the store, and those that were asked for by what was asked.
#[test]
fn what_a_peer_brings_is_no_question() {
    let mut scripted = passive();
    for n in 0..5 * AT_ONCE {
        let rev = request("rev").with("id", &format!("n{n}")).with("rev", NEW).with_body("{}");
        assert_eq!(scripted.code(rev), "", "{n}");
        assert!(scripted.session.accepts_input(), "{n}");
    }
    let rows = |first: u32| {
        let rows = (first..first + 1_000).map(|n| format!(r#"[{},"d{n}","{NEW}",0]"#, n + 1));
        let rows: Vec<String> = rows.collect();
        OutgoingMessage::request("changes").with("collection", "0").with_body(format!("[{}]", rows.join(",")))
    };
    let norev = |n: u32| {
        let norev = request("norev").with("id", &format!("d{n}")).with("rev", NEW).with("error", "404");
        OutgoingMessage { no_reply: true, ..norev.with("sequence", &(n + 1).to_string()) }
    };
    let mut scripted = pulling(false);
    for first in (0..2 * REQUESTS_AT_ONCE_MAX).step_by(1_000) {
        assert!(scripted.ask(rows(first)).0.is_some_and(|answer| answer.is_ok()));
        for n in first..first + 1_000 {
            scripted.peer.send_request(norev(n)).expect("open");
        }
        scripted.settle();
        assert!(scripted.session.accepts_input(), "all of the {} were asked for", first + 1_000);
    }
    // Those that nobody asked for are another matter.
    for n in 0..2 * REQUESTS_AT_ONCE_MAX {
        scripted.peer.send_request(norev(1_000_000 + n)).expect("open");
    }
    scripted.settle();
    assert!(!scripted.session.accepts_input());
    let due = scripted.session.poll_at().expect("it is waited for");
    let most = REQUEST_INTERVAL * (REQUESTS_AT_ONCE_MAX + 100);
    assert!(due > scripted.now && due <= scripted.now + most, "{due} after {}", scripted.now);
}

/// What could not be synced is kept under the name that the peer has proven.
#[test]
fn what_a_peer_could_not_bring_is_kept_under_its_name() {
    let store = Arc::new(MemoryStore::new(1));
    let mut session = Session::passive(PassiveConfig::default());
    session.set_peer_uid("a peer".into());
    let mut scripted = Scripted::new(session, Arc::clone(&store)).with_collections();
    let rev = request("rev").with("id", "x").with("rev", "no version").with("sequence", "1").with_body("{}");
    assert_eq!(scripted.code(rev), "HTTP/400");
    scripted.session.close(&*store);
    let kept = crate::replicator::unsynced::list::stored(&*store).expect("readable");
    let kept: Vec<(&str, usize)> =
        kept.iter().map(|with| (with.peer.as_str(), with.documents.len())).collect();
    assert_eq!(kept, [("a peer", 1)]);
}
