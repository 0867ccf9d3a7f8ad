//! Both sides have changed a document: each is told what became of it, on standard error and as an event.

use std::path::Path;

use serde_json::Value;

use super::command::{Process, ok, run};
use super::database;

#[test]
fn conflicts_are_told_on_both_sides() {
    let ((_a, sensor), (_b, gateway)) = (database(), database());
    let mut server =
        Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json", "--documents"]);
    let address = server.address();
    let put = |db: &Path, id: &str, by: &str| ok(db, &["db", "put", id, &format!(r#"{{"by":"{by}"}}"#)]);
    put(&sensor, "x", "both");
    put(&sensor, "y", "both");
    ok(&sensor, &["sync", &address]);
    let arrived = server.wait_for(|event| event["event"] == "document");
    assert_eq!((&arrived["direction"], &arrived["_id"]), (&"received".into(), &"x".into()), "{arrived}");
    assert_eq!(server.terminate(), Some(0));
    // Default: the later change stays.
    put(&gateway, "x", "gateway");
    put(&sensor, "x", "sensor");
    put(&sensor, "y", "sensor");
    put(&gateway, "y", "gateway");
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    let ended = run(&sensor, &["sync", &address, "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let events: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut told: Vec<_> = events.iter().filter(|event| event["event"] == "conflict").collect();
    told.sort_by_key(|event| event["_id"].to_string());
    let here: Vec<_> = told.iter().map(|event| (&event["_id"], &event["outcome"])).collect();
    assert_eq!(here, [(&"x".into(), &"local".into()), (&"y".into(), &"remote".into())], "{events:?}");
    assert!(told.iter().all(|event| event["peer"] == *address && event["collection"] == "_default"));
    assert_eq!(events.last().unwrap()["conflicts"], 2);
    // The other side has met them too, and knows whose change stands now.
    let mut there: Vec<(String, String)> = Vec::new();
    server.wait_for(|event| {
        assert!(event["event"] != "document", "a conflict is no failure: {event}");
        if event["event"] == "conflict" {
            let text = |key: &str| event[key].as_str().unwrap().to_owned();
            there.push((text("_id"), text("outcome")));
        }
        event["event"] == "status" && event["activity"] == "stopped"
    });
    there.retain(|(_, outcome)| outcome != "open");
    there.sort();
    assert_eq!(there, [("x".into(), "remote".into()), ("y".into(), "local".into())]);
    assert_eq!(server.terminate(), Some(0));
    // For people.
    put(&gateway, "x", "gateway again");
    put(&sensor, "x", "sensor again");
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let said = run(&sensor, &["sync", &server.address()]).stderr;
    assert!(
        said.contains(r#"both sides have changed "x" of _default: this side's change was kept"#),
        "{said}"
    );
    assert!(said.contains(", 1 conflict resolved"), "{said}");
    assert_eq!(server.terminate(), Some(0));
}
