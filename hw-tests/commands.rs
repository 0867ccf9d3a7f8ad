//! The commands as a person or a script uses them: output, exit codes, and what becomes of bad input.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod command;
#[path = "commands/conflicts.rs"]
mod conflicts;
#[path = "commands/copies.rs"]
mod copies;
#[path = "commands/imports.rs"]
mod imports;
#[path = "commands/kinds.rs"]
mod kinds;
#[path = "commands/newcomer.rs"]
mod newcomer;
#[path = "commands/orderly.rs"]
mod orderly;
#[path = "commands/untouched.rs"]
mod untouched;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use command::{Process, free_port, gattway, ok, run, run_with_input};
use serde_json::{Value, json};

const WEATHER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/hw-tests/data/seattle-weather-hourly-normals.csv");
const PENGUINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hw-tests/data/penguins.json");

/// A database path in a directory that lives as long as the first value.
fn database() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    (directory, path)
}

fn documents(db: &Path) -> Vec<Value> {
    ok(db, &["db", "export"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn documents_are_put_got_listed_and_removed() {
    let (_directory, db) = database();
    let revision = ok(&db, &["db", "put", "valve-7", r#"{"open":true,"_id":"valve-7"}"#]);
    let document: Value = serde_json::from_str(&ok(&db, &["db", "get", "valve-7"])).unwrap();
    assert_eq!(document, json!({"_id": "valve-7", "_rev": revision.trim(), "open": true}));
    assert_eq!(ok(&db, &["db", "get", "valve-7", "--body"]), "{\"open\":true}\n");

    let stale = run(&db, &["db", "put", "valve-7", "{}", "--if-revision", "none"]);
    assert_eq!(stale.code, Some(4));
    assert!(stale.stderr.contains("valve-7") && stale.stderr.contains(revision.trim()), "{stale:?}");
    let fresh = ok(&db, &["db", "put", "valve-7", r#"{"open":false}"#, "--if-revision", revision.trim()]);
    assert_ne!(fresh, revision);

    ok(&db, &["db", "put", "valve-10", "{}"]);
    assert_eq!(ok(&db, &["db", "ls"]), "valve-10\nvalve-7\n");
    assert_eq!(ok(&db, &["db", "rm", "valve-7"]), "valve-7\n");
    assert_eq!(ok(&db, &["db", "ls"]), "valve-10\n");
    for args in [["db", "get", "valve-7"], ["db", "rm", "valve-7"]] {
        let gone = run(&db, &args);
        assert_eq!(gone.code, Some(3), "{gone:?}");
        assert!(gone.stderr.contains("valve-7"), "{gone:?}");
    }
    let changes = ok(&db, &["db", "changes", "--json"]);
    let last: Value = serde_json::from_str(changes.lines().last().unwrap()).unwrap();
    assert_eq!((&last["_id"], &last["deleted"]), (&json!("valve-7"), &json!(true)));
}

#[test]
fn imports_come_out_as_they_went_in_and_can_be_repeated() {
    let (_directory, db) = database();
    let first = ok(&db, &["db", "import", WEATHER, "--id-from", "date", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap()["saved"], 8759);
    let again = ok(&db, &["db", "import", WEATHER, "--id-from", "date", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap()["unchanged"], 8759);
    let exported = ok(&db, &["db", "export"]);
    let line = exported.lines().next().unwrap();
    let date = "2010-01-01T01:00:00";
    assert_eq!(
        line,
        json!({"_id": date, "date": date, "pressure": 1016.6, "temperature": 4.0, "wind": 3.8}).to_string()
    );
    assert!(exported.lines().is_sorted());

    let (_other, copy) = database();
    run_with_input(&copy, &["db", "import", "-", "--format", "ndjson"], exported.as_bytes());
    assert_eq!(ok(&copy, &["db", "export"]), exported);
    ok(
        &copy,
        &[
            "db",
            "import",
            PENGUINS,
            "--id-prefix",
            "p",
            "--short-ids",
            "--collection",
            "field.birds",
            "--create-collection",
        ],
    );
    assert_eq!(ok(&copy, &["db", "ls", "-c", "field.birds"]).lines().count(), 344);
    ok(&copy, &["db", "compact"]);
    assert!(ok(&copy, &["db", "verify"]).contains("0 problems"));
    assert_eq!(ok(&copy, &["db", "export"]), exported);
}

#[test]
fn malformed_input_imports_nothing_and_names_the_line() {
    let big = format!("{{\"_id\":\"big\",\"text\":\"{}\"}}\n", "x".repeat(21 << 20));
    for (format, input, message) in [
        ("ndjson", "{\"_id\":\"a\"}\n{\"_id\":\"b\",}\n".to_owned(), "line 2: "),
        ("ndjson", "{\"_id\":\"a\"}\n{\"x\":1}\n".to_owned(), "line 2: no `_id`"),
        (
            "ndjson",
            "{\"_id\":\"a\"}\n{\"_id\":\"a\"}\n".to_owned(),
            "line 2: the ID \"a\" was used on line 1 already",
        ),
        ("ndjson", "{\"_id\":\"a\"}\n{\"_id\":\"_b\"}\n".to_owned(), "line 2: "),
        ("ndjson", format!("{{\"_id\":\"a\"}}\n{big}"), "line 2: document body of 22020"),
        ("json", "[{\"_id\":\"a\"},\n{\"_id\":\"b\"\n".to_owned(), "line 3: "),
        ("csv", "_id,n\na,1\nb\n".to_owned(), "line 3: 1 cell, the header has 2"),
    ] {
        let (_directory, db) = database();
        let ended = run_with_input(&db, &["db", "import", "-", "--format", format], input.as_bytes());
        assert_eq!(ended.code, Some(4), "{message}: {ended:?}");
        assert!(
            ended.stderr.contains(message) && ended.stderr.contains("nothing was imported"),
            "{message}: {ended:?}"
        );
        assert!(!db.exists(), "{message}: an input that is not taken makes no database");
    }
}

#[test]
fn a_long_stream_that_breaks_says_how_much_was_imported() {
    let (_directory, db) = database();
    let text = "x".repeat(10_000);
    let mut input = String::new();
    for n in 0..4000 {
        input.push_str(&format!("{{\"_id\":\"{n:05}\",\"text\":\"{text}\"}}\n"));
    }
    input.push_str("{\"_id\":");
    let ended = run_with_input(&db, &["db", "import", "-", "--format", "ndjson"], input.as_bytes());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let said: usize =
        ended.stderr.split("; ").nth(1).unwrap().split(' ').next().unwrap().replace(',', "").parse().unwrap();
    assert!(ended.stderr.contains("line 4001"), "{ended:?}");
    assert_eq!(ok(&db, &["db", "ls"]).lines().count(), said);
    assert!(said > 1000, "{said}");
}

#[test]
fn unknown_collections_are_named_with_those_that_exist() {
    let (_directory, db) = database();
    ok(&db, &["db", "collections", "--create", "plant.readings"]);
    for args in [
        &["db", "get", "x", "-c", "plant.reading"][..],
        &["db", "put", "x", "{}", "-c", "plant.reading"],
        &["db", "export", "-c", "plant.reading"],
        &["db", "import", WEATHER, "--id-from", "date", "-c", "plant.reading"],
        &["serve", "--listen", "tcp:127.0.0.1:0", "-c", "plant.reading"],
        &["sync", "tcp:127.0.0.1:1", "-c", "plant.reading"],
    ] {
        let ended = run(&db, args);
        assert_eq!(ended.code, Some(3), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("plant.readings"), "{args:?}: {ended:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let (_directory, db) = database();
    ok(&db, &["db", "import", WEATHER, "--id-from", "date"]);
    let mut child =
        gattway(&db).args(["db", "export"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_database_in_use_is_told_from_a_missing_one() {
    let (directory, db) = database();
    let mut server = Process::start(&db, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    server.address();
    let ended = run(&db, &["db", "compact"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.contains("in use"), "{ended:?}");
    assert_eq!(server.terminate(), Some(0));
    ok(&db, &["db", "ls"]);
    std::fs::write(directory.path().join("file"), "no database").unwrap();
    assert_eq!(run(&directory.path().join("file"), &["db", "ls"]).code, Some(5));
}

#[test]
fn two_processes_sync_over_tcp_unix_and_stdio() {
    let (_directory, field) = database();
    let (directory, gateway) = database();
    ok(&field, &["db", "import", PENGUINS, "--id-prefix", "p", "--short-ids"]);
    ok(&gateway, &["db", "put", "note", r#"{"from":"gateway"}"#]);
    let socket = format!("unix:{}", directory.path().join("socket").display());
    let mut server =
        Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--listen", &socket, "--json"]);
    // They are opened side by side: either may be first.
    let mut listening = [server.address(), server.address()];
    listening.sort();
    let [tcp, unix] = listening;
    assert!(tcp.starts_with("tcp:") && unix == socket, "{tcp} {unix}");

    let events = ok(&field, &["sync", &tcp, "--json", "--documents"]);
    let finished: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&finished["event"], &finished["ok"], &finished["documents"]),
        (&json!("finished"), &json!(true), &json!(345))
    );
    let again = run(&field, &["sync", &tcp]);
    assert!(again.code == Some(0) && again.stderr.contains("nothing to do"), "{again:?}");
    ok(&field, &["db", "rm", "p000001", "note"]);
    ok(&field, &["sync", &socket, "--push"]);
    assert_eq!(server.terminate(), Some(0));
    let revisions = |db: &Path| ok(db, &["db", "export", "--revisions"]);
    assert_eq!(revisions(&field), revisions(&gateway));
    assert_eq!(documents(&gateway).len(), 343);

    // Standard input and output of `serve` are the wire; a socket pair stands for ssh.
    ok(&gateway, &["db", "put", "late", "{}"]);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let theirs_too = theirs.try_clone().unwrap();
    let mut serve = gattway(&gateway)
        .args(["serve", "--listen", "stdio", "--trust-all"])
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .stdout(std::os::fd::OwnedFd::from(theirs_too))
        .spawn()
        .unwrap();
    let ours_too = ours.try_clone().unwrap();
    let status = gattway(&field)
        .args(["sync", "stdio", "--trust-all"])
        .stdin(std::os::fd::OwnedFd::from(ours))
        .stdout(std::os::fd::OwnedFd::from(ours_too))
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(serve.wait().unwrap().code(), Some(0));
    assert_eq!(documents(&field).len(), 344);
}

/// As large as a document may be, both ways at once: each waits for acknowledgements while the other side sends too.
#[test]
fn documents_of_many_megabytes_sync_both_ways() {
    let (_directory, field) = database();
    let (_directory, gateway) = database();
    for (db, who) in [(&field, "f"), (&gateway, "g")] {
        let line = |mebibytes: usize| {
            format!("{{\"_id\":\"{who}{mebibytes}\",\"text\":\"{}\"}}\n", who.repeat(mebibytes << 20))
        };
        let lines = [5, 10, 19, 0].map(line).concat();
        let ended = run_with_input(db, &["db", "import", "-", "--format", "ndjson"], lines.as_bytes());
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    ok(&field, &["sync", &server.address()]);
    assert_eq!(server.terminate(), Some(0));
    let revisions = |db: &Path| ok(db, &["db", "export", "--revisions"]);
    assert!(revisions(&field) == revisions(&gateway));
    assert_eq!(documents(&gateway).len(), 8);
}

#[test]
fn what_another_program_writes_is_saved_acknowledged_and_synced() {
    let (_directory, field) = database();
    let (_directory, gateway) = database();
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let tcp = server.address();
    let mut sync =
        Process::start(&field, &["sync", &tcp, "--continuous", "--import", "-", "--json", "--documents"]);
    let mut stdin = sync.stdin.take().unwrap();
    stdin.write_all(b"{\"_id\":\"a\",\"n\":1}\nnot json\n{\"_id\":\"b\",\"n\":2}\n").unwrap();
    // A refused line is told at once, those around it when they are on stable storage.
    let line = |event: &Value| event["event"] == "rejected" || event["event"] == "saved";
    let mut told: Vec<Value> = (0..3).map(|_| sync.wait_for(line)).collect();
    told.sort_by_key(|event| event["line"].as_u64());
    let told: Vec<_> = told.iter().map(|event| (&event["event"], &event["_id"])).collect();
    assert_eq!(
        told,
        [(&json!("saved"), &json!("a")), (&json!("rejected"), &Value::Null), (&json!("saved"), &json!("b"))]
    );
    sync.wait_for(|event| {
        event["event"] == "document" && event["_id"] == "b" && event["direction"] == "sent"
    });
    stdin.write_all(b"{\"_id\":\"a\",\"_deleted\":true}\n").unwrap();
    sync.wait_for(|event| event["event"] == "document" && event["_id"] == "a" && event["deleted"] == true);
    // One line was refused.
    assert_eq!(sync.terminate(), Some(4));
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(documents(&gateway), [json!({"_id": "b", "n": 2})]);
}

#[test]
fn garbage_and_silence_on_the_wire_harm_nobody_else() {
    for (how, event) in [("--trust-all", "refused"), ("--plain", "status")] {
        garbage_and_silence(how, event);
    }
}

/// `ending`: the event that tells of a connection that ended.
fn garbage_and_silence(how: &str, ending: &str) {
    let (_directory, field) = database();
    let (_directory, gateway) = database();
    ok(&field, &["db", "import", PENGUINS, "--id-prefix", "p", "--short-ids"]);
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json", how]);
    let address = server.address();
    let tcp = address.strip_prefix("tcp:").unwrap();

    // A peer that works, before, during and after.
    let mut sync = Process::start(
        &field,
        &["sync", &address, "--continuous", "--import", "-", "--json", "--documents", how],
    );
    sync.wait_for(|event| event["activity"] == "idle");
    let silent = TcpStream::connect(tcp).unwrap();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", // a frame of 2^64 - 1 bytes
        b"\x82\x05\xff\xff\xff\xff\xff",                     // not masked
        b"\x82\x88\0\0\0\0\x01\x00\xff\xff\xff\xff\xff\xff", // masked, and no BLIP frame
        &[0u8; 4096],
    ] {
        let mut wire = TcpStream::connect(tcp).unwrap();
        wire.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may have closed before everything was written.
        let _ = wire.write_all(garbage);
        let mut answer = Vec::new();
        let closed = wire.read_to_end(&mut answer);
        assert!(
            closed.is_ok() || closed.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
            "{garbage:?}"
        );
        assert!(answer.len() < 200, "{garbage:?} was answered with {} bytes", answer.len());
        let event = server.wait_for(|event| {
            event["event"] == ending && (ending == "refused" || event["activity"] == "stopped")
        });
        assert!(event["error"].is_string(), "{event}");
    }
    let mut stdin = sync.stdin.take().unwrap();
    stdin.write_all(b"{\"_id\":\"after\"}\n").unwrap();
    sync.wait_for(|event| event["event"] == "document" && event["_id"] == "after");
    assert_eq!(sync.terminate(), Some(0));
    drop(silent);
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(documents(&gateway).len(), 345);
}

#[test]
fn a_collection_that_the_peer_lacks_is_named_with_what_to_do() {
    let (_directory, field) = database();
    let (_directory, gateway) = database();
    ok(&field, &["db", "put", "x", "{}", "-c", "plant.readings", "--create-collection"]);
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    let ended = run(&field, &["sync", &address]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(ended.stderr.contains("plant.readings: the peer does not have it"), "{ended:?}");
    assert!(ended.stderr.contains("--collection") && !ended.stderr.contains("WARN"), "{ended:?}");
    let named = run(&field, &["sync", &address, "--collection", "plant.readings"]);
    assert_eq!(named.code, Some(6), "{named:?}");
    assert!(named.stderr.contains("peer has no collection \"plant.readings\""), "{named:?}");
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_peer_that_is_not_there_is_told_soon_and_by_name() {
    let (_directory, db) = database();
    let address = format!("tcp:127.0.0.1:{}", free_port());
    let ended = run(&db, &["sync", &address, "--attempts", "1"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.stderr.contains(&address), "{ended:?}");
    for args in [["sync", "http://x"], ["sync", "tcp:x"]] {
        assert_eq!(run(&db, &args).code, Some(2));
    }
    assert_eq!(run(&db, &["serve", "--listen", "stdio", "--json"]).code, Some(2));
}
