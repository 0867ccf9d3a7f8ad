//! Readers that stall or leave, and signals.

use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command::{PATIENCE, Process, gattway, ok};
use crate::{Guard, WEATHER, database, listening};

/// A pipe that takes nothing until it is read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let full = loop {
        if let Err(error) = writer.write_all(b"\n") {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Waits until something listens on the socket.
fn wait_for_socket(path: &Path) {
    let until = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(path).is_err() {
        assert!(Instant::now() < until, "nobody listens on {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_nobody_reads_holds_up_neither_peers_nor_the_end() {
    for unread in ["stdout", "stderr"] {
        let (directory, gateway) = database();
        let (_directory, field) = database();
        ok(&field, &["db", "put", "a", "{}"]);
        let socket = directory.path().join("socket");
        let address = format!("unix:{}", socket.display());
        let (mut reader, writer) = full_pipe();
        let mut command = gattway(&gateway);
        command.args(["serve", "--listen", &address, "--trust-all", "-vvv"]).stdin(Stdio::null());
        match unread {
            "stdout" => command.arg("--json").stdout(writer).stderr(Stdio::null()),
            _ => command.stdout(Stdio::null()).stderr(writer),
        };
        let mut serve = Guard(command.spawn().unwrap());
        // It holds the pipe too.
        drop(command);
        wait_for_socket(&socket);
        for _ in 0..3 {
            ok(&field, &["sync", &address]);
        }
        serve.signal("TERM");
        assert_eq!(serve.ended().code(), Some(0), "{unread}");
        // What was written before is all there is.
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == b'\n'), "{unread}");
        assert_eq!(ok(&gateway, &["db", "ls"]), "a\n");
    }
}

#[test]
fn a_pairing_whose_events_nobody_reads_goes_on() {
    let (directory, gateway) = database();
    let (_directory, field) = database();
    let (code, socket) = (directory.path().join("code"), directory.path().join("socket"));
    std::fs::write(&code, "482915").unwrap();
    let (code, address) = (code.to_str().unwrap(), format!("unix:{}", socket.display()));
    let (_reader, writer) = full_pipe();
    let mut command = gattway(&gateway);
    command.args(["pair", "--listen", &address, "--json", "--code-file", code]);
    let mut listener = Guard(command.stdin(Stdio::null()).stdout(writer).spawn().unwrap());
    drop(command);
    wait_for_socket(&socket);
    let events = ok(&field, &["pair", &address, "--json", "--code-file", code]);
    assert!(events.contains("\"event\":\"paired\""), "{events}");
    assert_eq!(listener.ended().code(), Some(0));
    let peers = ok(&gateway, &["peers", "ls", "--json"]);
    assert!(peers.contains("\"origin\":\"paired\""), "{peers}");
}

#[test]
fn events_that_were_not_read_in_time_are_counted() {
    let (directory, gateway) = database();
    let (_directory, field) = database();
    let socket = directory.path().join("socket");
    let address = format!("unix:{}", socket.display());
    let mut serve = Process::start(&gateway, &["serve", "--listen", &address, "--json"]);
    serve.address();
    let (_other, source) = database();
    ok(&source, &["db", "import", WEATHER, "--id-from", "date"]);
    let lines = directory.path().join("weather.ndjson");
    std::fs::write(&lines, ok(&source, &["db", "export"])).unwrap();
    let import = lines.to_str().unwrap();
    let args = ["sync", &address, "--continuous", "--import", import, "--json", "--documents"];
    let mut sync = Process::start(&field, &args);
    // All of it is said before anything is read: the server has all documents and waits.
    serve.wait_for(|event| event["activity"] == "idle" && event["documents"] == 8759);
    let (mut told, mut dropped) = (0, 0);
    let mut count = |event: &Value| {
        told += u64::from(event["event"] == "saved" || event["event"] == "document");
        dropped += event["events"].as_u64().unwrap_or(0);
    };
    sync.wait_for(|event| {
        count(event);
        event["event"] == "dropped"
    });
    // From here on all is told again.
    ok(&source, &["db", "put", "late", "{}"]);
    ok(&source, &["sync", &address]);
    sync.wait_for(|event| {
        count(event);
        event["_id"] == "late" && event["direction"] == "received"
    });
    assert!(told > 1000 && dropped > 0 && told + dropped >= 2 * 8759, "{told} told, {dropped} dropped");
    assert_eq!(sync.terminate(), Some(0));
    assert_eq!(serve.terminate(), Some(0));
}

#[test]
fn a_reader_of_events_that_dies_ends_neither_serve_nor_sync() {
    let (_directory, gateway) = database();
    let (_directory, field) = database();
    ok(&field, &["db", "put", "a", "{}"]);
    let mut serve = gattway(&gateway);
    serve.args(["serve", "--listen", "tcp:127.0.0.1:0", "--trust-all", "--json"]).stdin(Stdio::null());
    let mut serve = Guard(serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut events = BufReader::new(serve.0.stdout.take().unwrap());
    let address = listening(&mut events);
    drop(events);
    for n in 0..2 {
        ok(&field, &["db", "put", &format!("b{n}"), "{}"]);
        ok(&field, &["sync", &address]);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    ok(&field, &["db", "put", "c", "{}"]);
    let mut sync = gattway(&field);
    sync.args(["sync", &address, "--trust-all", "--json"]).stdout(writer);
    assert_eq!(sync.status().unwrap().code(), Some(0));
    serve.signal("TERM");
    assert_eq!(serve.ended().code(), Some(0));
    let mut said = String::new();
    serve.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.matches("nobody reads the events").count(), 1, "{said}");
    assert_eq!(ok(&gateway, &["db", "ls"]), "a\nb0\nb1\nc\n");
}

#[test]
fn a_hangup_ends_in_order_unless_it_is_ignored() {
    for (ignored, ended_by) in [(false, "HUP"), (true, "TERM")] {
        let (_directory, db) = database();
        let before = if ignored { "trap '' HUP; " } else { "" };
        let script =
            format!("{before}exec \"$0\" --db \"$1\" serve --listen tcp:127.0.0.1:0 --trust-all --json");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_gattway"), db.to_str().unwrap()]);
        let mut serve = Guard(shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
        let mut events = BufReader::new(serve.0.stdout.take().unwrap());
        let address = listening(&mut events);
        serve.signal("HUP");
        if ignored {
            let (_directory, field) = database();
            ok(&field, &["sync", &address]);
        }
        serve.signal(ended_by);
        let told: Vec<Value> =
            events.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        assert_eq!(serve.ended().code(), Some(0));
        let last = told.last().unwrap();
        assert_eq!((&last["event"], &last["ok"]), (&"finished".into(), &true.into()));
        assert_eq!(told.len() > 1, ignored, "{told:?}");
        // A process that ends in order leaves a sealed log.
        assert!(db.join("log-000001/seal").exists() && !db.join("http").exists());
    }
}

#[test]
fn an_import_that_waits_for_its_input_is_ended_by_a_signal() {
    let (_directory, db) = database();
    let mut sync = Process::start(&db, &["sync", "tcp:127.0.0.1:1", "--import", "-", "--json"]);
    sync.stdin.as_mut().unwrap().write_all(b"{\"_id\":\"a\"}\n").unwrap();
    sync.wait_for(|event| event["event"] == "saved");
    let stdin = sync.stdin.take();
    assert_eq!(sync.terminate(), Some(130));
    drop(stdin);
    assert_eq!(ok(&db, &["db", "ls"]), "a\n");
}

/// It says what it has imported, and the same command again imports the rest.
#[test]
fn an_import_that_is_interrupted_says_what_it_has_saved() {
    const RECORDS: usize = 200_000;
    let (directory, db) = database();
    let input = directory.path().join("input.ndjson");
    let lines: String = (0..RECORDS).map(|n| format!("{{\"_id\":\"{n:06}\"}}\n")).collect();
    std::fs::write(&input, lines).unwrap();
    let input = input.to_str().unwrap();
    let import = gattway(&db).args(["db", "import", input]).stderr(Stdio::piped()).spawn();
    let mut import = Guard(import.unwrap());
    let until = Instant::now() + PATIENCE;
    while !db.exists() {
        assert!(Instant::now() < until && import.0.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(1));
    }
    import.signal("INT");
    let mut said = String::new();
    import.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(import.ended().code(), Some(130), "{said}");
    let saved = ok(&db, &["db", "ls"]).lines().count();
    assert!(saved > 0 && saved < RECORDS, "{saved} of them: {said}");
    let thousands = format!("{},{:03} records before it were imported", saved / 1000, saved % 1000);
    assert!(said.contains(&thousands) && said.contains("imports the rest"), "{saved}: {said}");
    assert!(ok(&db, &["db", "import", input]).is_empty());
    assert_eq!(ok(&db, &["db", "ls"]).lines().count(), RECORDS);
}

#[test]
fn a_demo_that_is_ended_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (_reader, writer) = full_pipe();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_gattway"));
    demo.args(["demo", "-vvv"]).env("TMPDIR", directory.path()).stdout(Stdio::null()).stderr(writer);
    let mut demo = Guard(demo.spawn().unwrap());
    let place = || std::fs::read_dir(directory.path()).unwrap().next();
    let until = Instant::now() + PATIENCE;
    while place().is_none_or(|place| !place.unwrap().path().join("gateway").exists()) {
        assert!(Instant::now() < until && demo.0.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    demo.signal("TERM");
    assert_eq!(demo.ended().code(), Some(130));
    assert!(place().is_none());
}
