//! Documents that a server says are no longer for us.

use std::sync::Arc;

use super::memory_store::MemoryStore;
use super::scripted::{NEW, OTHER, pulling_to, request};
use crate::replicator::config::ActiveConfig;
use crate::replicator::event::SessionEvent;

#[test]
fn they_go_unless_they_were_changed_here() {
    for auto_purge in [true, false] {
        let store = Arc::new(MemoryStore::new(1));
        store.put("ours", "{}");
        let config = ActiveConfig { extension: false, auto_purge, ..ActiveConfig::default() };
        let mut scripted = pulling_to(store.clone(), config);
        for (sequence, id) in [(1, "revoked"), (2, "removed"), (3, "stays")] {
            let list = request("changes").with_body(format!("[[{sequence},\"{id}\",\"{NEW}\"]]"));
            assert_eq!(scripted.code(list), "[[]]");
            let rev = request("rev").with("id", id).with("rev", NEW).with("sequence", &sequence.to_string());
            assert_eq!(scripted.code(rev.with_body("{}")), "");
        }
        scripted.told.clear();
        let list = format!(
            "[[4,\"revoked\",\"{OTHER}\",2],[5,\"removed\",\"{OTHER}\",4],[6,\"ours\",\"{OTHER}\",2],\
             [7,\"unknown\",\"{OTHER}\",6]]"
        );
        assert_eq!(scripted.code(request("changes").with_body(list)), "[]");
        let ids: Vec<String> = store.dump(0).into_keys().collect();
        let mut told = Vec::new();
        for event in scripted.told.drain(..) {
            if let SessionEvent::DocumentReplicated(document) = event {
                assert!(document.access_removed, "{document:?}");
                told.push((document.id, document.error.map(|error| error.code)));
            }
        }
        if auto_purge {
            assert_eq!(ids, ["ours", "stays"]);
            let some = |id: &str, code| (id.to_owned(), code);
            assert_eq!(told, [some("revoked", None), some("removed", None), some("ours", Some(403))]);
            // The access is back, and with it the same revision.
            let list = request("changes").with_body(format!("[[8,\"revoked\",\"{OTHER}\"]]"));
            assert_eq!(scripted.code(list), "[[]]");
        } else {
            assert_eq!((ids.len(), told), (4, vec![]));
        }
    }
}
