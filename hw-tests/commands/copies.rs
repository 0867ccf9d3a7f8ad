//! A card image copied to two devices: both are told, and a new source ID and identity for one of them is the way out.

use std::path::Path;

use serde_json::{Value, json};

use super::command::{Process, ok, run};
use super::database;
use super::untouched::copy;

fn info(db: &Path) -> Value {
    serde_json::from_str(&ok(db, &["db", "info", "--json"])).unwrap()
}

#[test]
fn a_copy_on_a_second_device_is_told_and_made_another_one() {
    let (directory, first) = database();
    ok(&first, &["db", "put", "x", r#"{"old":1}"#]);
    let id = ok(&first, &["id"]);
    let second = directory.path().join("second");
    copy(&first, &second);
    ok(&first, &["db", "put", "x", r#"{"by":"first"}"#]);
    ok(&second, &["db", "put", "x", r#"{"by":"second"}"#]);
    let gateway = directory.path().join("gateway");
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    let sync = |db: &Path| {
        let ended = run(db, &["sync", &address]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stderr
    };
    let told = "another device goes on with a copy of this database";
    assert!(!sync(&second).contains(told));
    let said = sync(&first);
    assert!(said.contains(told) && said.contains("db renew --identity"), "{said}");
    // The other one hears of it by the next document of the first.
    ok(&first, &["db", "put", "later", "{}"]);
    sync(&first);
    assert!(sync(&second).contains(told));
    for db in [&first, &second] {
        assert_eq!(info(db)["copy"]["collection"], "_default");
        assert!(ok(db, &["db", "info"]).contains("copy   "));
        let doctor = run(db, &["doctor"]).stdout;
        assert!(doctor.contains(told) && doctor.contains("db renew --identity"), "{doctor}");
    }
    // Two that meet say so as well.
    let mut twin = Process::start(&second, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let met = run(&first, &["sync", &twin.address(), "--attempts", "1"]);
    assert!(met.code == Some(6) && met.stderr.contains("one is a copy of the other"), "{met:?}");
    assert_eq!(twin.terminate(), Some(0));

    let renewed: Value = serde_json::from_str(&ok(&first, &["db", "renew", "--identity", "--json"])).unwrap();
    assert_eq!(renewed["former_source"], info(&second)["source"]);
    assert_eq!(renewed["source"], info(&first)["source"]);
    assert_ne!(ok(&first, &["id"]), id);
    assert_eq!(info(&first)["copy"], Value::Null);
    assert!(ok(&first, &["db", "renew"]).contains("nothing was changed"));
    ok(&first, &["db", "put", "x", r#"{"by":"first, again"}"#]);
    sync(&first);
    sync(&second);
    sync(&first);
    let export = |db: &Path| ok(db, &["db", "export", "--revisions"]);
    assert_eq!(export(&first), export(&second));
    let document: Value = serde_json::from_str(&ok(&second, &["db", "get", "x", "--body"])).unwrap();
    assert_eq!(document, json!({"by": "first, again"}));
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(export(&first), export(&gateway));
}
