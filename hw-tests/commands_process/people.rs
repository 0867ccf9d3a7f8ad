//! What people see beside a process that runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::command::{Process, gattway, ok, run, run_with_input};
use crate::{Guard, database, wait_until};

#[test]
fn changes_of_a_served_database_are_followed() {
    let (_directory, gateway) = database();
    let (_directory, field) = database();
    ok(&gateway, &["db", "put", "first", "{}"]);
    let mut serve = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = serve.address();
    assert_eq!(ok(&gateway, &["db", "changes"]), "       1  first\n");
    let unknown = run(&gateway, &["db", "changes", "-c", "none", "--follow"]);
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    let mut follow = Process::start(&gateway, &["db", "changes", "--follow", "--json"]);
    let wanted = |id: &'static str| move |row: &Value| row["_id"] == id;
    follow.wait_for(wanted("first"));
    ok(&field, &["db", "put", "second", "{}"]);
    ok(&field, &["sync", &address]);
    let second = follow.wait_for(wanted("second"));
    assert_eq!((&second["sequence"], &second["deleted"]), (&json!(2), &json!(false)));
    // A backup does not wait for who follows.
    ok(&gateway, &["db", "backup", gateway.with_extension("backup").to_str().unwrap()]);
    // It goes on when the server ends, and when the next begins.
    assert_eq!(serve.terminate(), Some(0));
    ok(&gateway, &["db", "rm", "first"]);
    assert_eq!(follow.wait_for(wanted("first"))["deleted"], true);
    let mut serve = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    ok(&field, &["db", "put", "third", "{}"]);
    ok(&field, &["sync", &serve.address()]);
    follow.wait_for(wanted("third"));
    assert_eq!(serve.terminate(), Some(0));
    drop(follow);

    let limited = ok(&gateway, &["db", "changes", "--follow", "--limit", "2", "--json"]);
    assert_eq!(limited.lines().count(), 2);
}

#[test]
fn a_database_in_use_names_the_process_that_has_it() {
    let (_directory, db) = database();
    let mut serve = Process::start(&db, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    serve.address();
    let ended = run(&db, &["db", "compact"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let process = format!("process {} (", serve.child.id());
    assert!(ended.stderr.contains(&process) && ended.stderr.contains("serve --listen"), "{ended:?}");
    assert_eq!(serve.terminate(), Some(0));
}

#[test]
fn with_json_logs_nothing_else_is_on_standard_error() {
    let (_directory, db) = database();
    let (_other, field) = database();
    let mut serve = gattway(&db);
    serve.args(["serve", "--listen", "tcp:127.0.0.1:0", "--trust-all", "--log-format", "json", "-vv"]);
    let mut serve = Guard(serve.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(serve.0.stderr.take().unwrap()).lines();
    let mut next =
        || -> Option<Value> { lines.next().map(|line| serde_json::from_str(&line.unwrap()).unwrap()) };
    let address = loop {
        let line = next().unwrap();
        let message = line["fields"]["message"].as_str().unwrap_or_default();
        if let Some(address) = message.strip_prefix("listening on ") {
            assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
            break address.to_owned();
        }
    };
    ok(&field, &["sync", &address]);
    serve.signal("TERM");
    while next().is_some() {}
    assert_eq!(serve.ended().code(), Some(0));
    for wrong in [&["db", "get", "none"][..], &["sync", "tcp:x"], &["nonsense"]] {
        let ended = run(&db, &[wrong, &["--log-format", "json"]].concat());
        assert!(ended.code != Some(0), "{ended:?}");
        for line in ended.stderr.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["level"], "ERROR", "{line}");
        }
    }
}

/// What a terminal would show, of a command whose output is one.
fn on_terminal(command: &std::process::Command) -> Option<String> {
    let line: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|arg| format!("'{}'", arg.to_str().unwrap()))
        .collect();
    let mut script = std::process::Command::new("script");
    let output = script.args(["-qec", &line.join(" "), "/dev/null"]).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_a_peer_chose_never_steers_a_terminal() {
    let (_directory, db) = database();
    let (_other, reader) = database();
    let value = "\u{1b}]0;title\u{7}\u{9b}2J\u{202e}txt.exe\u{7f}";
    let line = json!({"_id": "a", "value": value, value: 1}).to_string();
    run_with_input(&db, &["db", "import", "-", "--format", "ndjson"], line.as_bytes());
    let steers =
        |text: &str| text.chars().any(|c| c.is_control() && !"\r\n\t".contains(c) || c == '\u{202e}');
    for json in [&["db", "get", "a"][..], &["db", "get", "a", "--json"], &["db", "export"]] {
        let text = ok(&db, json);
        assert!(!steers(&text), "{json:?}: {text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["value"], value);
    }
    let Some(shown) = on_terminal(gattway(&db).args(["db", "get", "a"])) else {
        println!("what a terminal shows needs `script`, which is not here");
        return;
    };
    assert!(shown.contains("txt.exe") && !steers(&shown), "{shown:?}");

    // Errors and status lines: a reason, with an end of line, as a peer may send it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    let liar = std::thread::spawn(move || {
        let (mut wire, _) = listener.accept().unwrap();
        let reason = "\u{1b}[2J\u{9b}2J\u{202e}\nlistening on tcp:1";
        let mut frame = vec![0x88, (reason.len() + 2) as u8];
        frame.extend_from_slice(&4002u16.to_be_bytes());
        frame.extend_from_slice(reason.as_bytes());
        wire.write_all(&frame).unwrap();
        let _ = wire.read_to_end(&mut Vec::new());
    });
    let ended = run(&reader, &["sync", &address, "--plain", "--attempts", "1"]);
    liar.join().unwrap();
    assert!(ended.stderr.contains("listening on tcp:1"), "{ended:?}");
    assert!(!steers(&ended.stderr), "{ended:?}");
    assert!(!ended.stderr.lines().any(|line| line.starts_with("listening on")), "{ended:?}");
}

#[test]
fn who_was_met_is_listed_with_name_and_time() {
    let (directory, gateway) = database();
    let (_directory, field) = database();
    let code = ok(&gateway, &["group", "create"]);
    let file = directory.path().join("code");
    std::fs::write(&file, code.lines().next().unwrap()).unwrap();
    ok(&field, &["group", "join", "--file", file.to_str().unwrap()]);
    let args = ["serve", "--listen", "tcp:127.0.0.1:0", "--json", "--trusted-only"];
    let mut serve = Process::start(&gateway, &args);
    ok(&field, &["sync", &serve.address(), "--trusted-only"]);
    let id: Value = serde_json::from_str(&ok(&field, &["id", "--json"])).unwrap();
    let id = id["id"].as_str().unwrap();
    wait_until("the peer is in the list while the server runs", || {
        ok(&gateway, &["peers", "ls"]).contains("just now")
    });
    // Each has told the other what it calls itself: the name of its machine.
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let machine = machine.trim();
    for db in [&gateway, &field] {
        wait_until("the peer's own name is in the list", || {
            let rows = ok(db, &["peers", "ls", "--json"]);
            let row: Value = serde_json::from_str(rows.lines().last().unwrap()).unwrap();
            row["calls_itself"] == machine && row["name"].is_null()
        });
        assert!(ok(db, &["peers", "ls"]).contains(&format!("{machine:?}")));
    }
    ok(&gateway, &["peers", "allow", machine, "--role", "both"]);
    let row: Value = serde_json::from_str(&ok(&gateway, &["peers", "rename", id, "pump", "--json"])).unwrap();
    assert_eq!((&row["id"], &row["name"], &row["allowed"]), (&json!(id), &json!("pump"), &json!(true)));
    let row = ok(&gateway, &["peers", "allow", "pump", "--role", "read", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&row).unwrap()["role"], "read");
    let row = ok(&gateway, &["peers", "deny", "pump", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&row).unwrap()["allowed"], false);
    assert!(ok(&gateway, &["peers", "allow", "default", "--role", "both"]).ends_with(": both\n"));
    let row = ok(&gateway, &["peers", "forget", "pump", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&row).unwrap()["forgotten"], true);
    assert_eq!(serve.terminate(), Some(0));

    ok(&field, &["db", "put", "a", "{}"]);
    assert_eq!(ok(&field, &["db", "rm", "a", "--json"]), "{\"_id\":\"a\",\"deleted\":true}\n");
}
