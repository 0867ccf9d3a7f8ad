//! Lists of a peer that are not as they should be.

use super::scripted::{NEW, Scripted, pulling, request};
use crate::blip::OutgoingMessage;
use crate::replicator::error::SessionError;

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
