//! Databases of two kinds of revision IDs: two with trees sync as any, one of each kind ends with what to do.

use super::command::{Process, ok, run};
use super::database;

#[test]
fn the_kind_is_chosen_once_and_told_where_it_does_not_fit() {
    let (directory, vectors) = database();
    let place = |name: &str| directory.path().join(name);
    let (gateway, sensor) = (place("gateway"), place("sensor"));
    for db in [&gateway, &sensor] {
        let made = ok(db, &["db", "create", "--versioning", "rev-trees", "--json"]);
        assert!(made.contains(r#""versioning":"rev-trees""#), "{made}");
    }
    let again = run(&sensor, &["db", "create"]);
    assert!(again.code != Some(0) && again.stderr.contains("is there already"), "{again:?}");
    let unknown = run(&place("other"), &["db", "create", "--versioning", "trees"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("neither"), "{unknown:?}");
    ok(&sensor, &["db", "put", "x", r#"{"a":1,"name":"db"}"#]);
    // The recorded ID of this body.
    let shown = ok(&sensor, &["db", "get", "x"]);
    assert!(shown.contains("1-cce28e3a1fbb1f8f7f144488069dd44d8a2c80fa"), "{shown}");
    ok(&vectors, &["db", "put", "y", "{}"]);
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    ok(&sensor, &["sync", &address]);
    assert_eq!(ok(&gateway, &["db", "get", "x"]), shown);
    let ended = run(&vectors, &["sync", &address]);
    assert!(!matches!(ended.code, Some(0) | None), "{ended:?}");
    assert!(ended.stderr.contains("peer uses another kind of revision IDs"), "{}", ended.stderr);
    assert!(ended.stderr.contains("gattway db create --versioning"), "{}", ended.stderr);
    assert_eq!(server.terminate(), Some(0));
}
