//! The command as a process among others: signals, readers that stall or leave, limits of the system.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod command;

use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use command::{PATIENCE, Process, free_port, gattway, ok, run};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

const WEATHER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/hw-tests/data/seattle-weather-hourly-normals.csv");

/// A database path in a directory that lives as long as the first value.
fn database() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    (directory, path)
}

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

/// Killed when dropped.
struct Guard(Child);

impl Guard {
    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits until it has ended.
    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not end within {PATIENCE:?}");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
    let mut line = String::new();
    let mut events = BufReader::new(serve.0.stdout.take().unwrap());
    events.read_line(&mut line).unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap();
    drop(events);
    for n in 0..2 {
        ok(&field, &["db", "put", &format!("b{n}"), "{}"]);
        ok(&field, &["sync", listening["address"].as_str().unwrap()]);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    ok(&field, &["db", "put", "c", "{}"]);
    let mut sync = gattway(&field);
    sync.args(["sync", listening["address"].as_str().unwrap(), "--trust-all", "--json"]).stdout(writer);
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
        let mut line = String::new();
        events.read_line(&mut line).unwrap();
        let address: Value = serde_json::from_str(&line).unwrap();
        serve.signal("HUP");
        if ignored {
            let (_directory, field) = database();
            ok(&field, &["sync", address["address"].as_str().unwrap()]);
        }
        serve.signal(ended_by);
        let told: Vec<Value> =
            events.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        assert_eq!(serve.ended().code(), Some(0));
        let last = told.last().unwrap();
        assert_eq!((&last["event"], &last["ok"]), (&"finished".into(), &true.into()));
        assert_eq!(told.len() > 1, ignored, "{told:?}");
        // A process that ends in order leaves a sealed log.
        assert!(db.join("log-000001/seal").exists() && !db.join("control").exists());
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

/// What a process says on standard error, as it comes.
fn said_by(child: &mut Child) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let (mut stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&said));
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = stderr.read(&mut bytes) {
            kept.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..len]));
        }
    });
    said
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sets how large a file of a process that runs may be.
fn limit_files(child: &Child, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn an_address_that_cannot_be_opened_yet_is_tried_again_while_another_works() {
    let (directory, gateway) = database();
    let (_directory, field) = database();
    ok(&field, &["db", "put", "a", "{}"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp:{}", taken.local_addr().unwrap());
    let unix = format!("unix:{}", directory.path().join("socket").display());
    let mut command = gattway(&gateway);
    command.args(["serve", "--trust-all", "--json", "--listen", &tcp, "--listen", &unix]);
    if cfg!(feature = "bluetooth") {
        command.args(["--listen", "ble"]).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    }
    let mut serve = Process::of(command);
    assert_eq!(serve.address(), unix);
    ok(&field, &["sync", &unix]);
    let mut failed = vec![tcp.clone()];
    if cfg!(feature = "bluetooth") {
        failed.push("ble".to_owned());
    }
    serve.wait_for(|event| {
        if event["event"] == "listen_failed" {
            assert!(event["error"].as_str().unwrap().contains("cannot listen on"), "{event}");
            failed.retain(|address| event["address"] != **address);
        }
        failed.is_empty()
    });
    drop(taken);
    assert_eq!(serve.address(), tcp);
    ok(&field, &["db", "put", "b", "{}"]);
    ok(&field, &["sync", &tcp]);
    assert_eq!(serve.terminate(), Some(0));
    assert_eq!(ok(&gateway, &["db", "ls"]), "a\nb\n");

    // Where none works there is nothing to wait for.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp:{}", taken.local_addr().unwrap());
    let ended = run(&gateway, &["serve", "--listen", &tcp, "--listen", "tcp:256.0.0.1:1"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.stderr.contains(&tcp) && ended.stderr.contains("256.0.0.1"), "{ended:?}");
}

#[test]
fn a_hub_that_is_restarted_in_order_is_waited_for() {
    let (_directory, gateway) = database();
    let (_directory, field) = database();
    ok(&field, &["db", "import", WEATHER, "--id-from", "date"]);
    let address = format!("tcp:127.0.0.1:{}", free_port());
    let serve = ["serve", "--listen", &address, "--json"];
    let mut hub = Process::start(&gateway, &serve);
    hub.address();
    let mut sync = Process::start(&field, &["sync", &address, "--json", "--documents", "--attempts", "10"]);
    sync.wait_for(|event| event["event"] == "document");
    assert_eq!(hub.terminate(), Some(0));
    let offline = sync.wait_for(|event| event["activity"] == "offline");
    assert!(offline["error"].is_string(), "{offline}");
    let mut hub = Process::start(&gateway, &serve);
    hub.address();
    let finished = sync.wait_for(|event| event["event"] == "finished");
    assert_eq!(finished["ok"], true, "{finished}");
    assert_eq!(hub.terminate(), Some(0));
    assert_eq!(ok(&gateway, &["db", "ls"]).lines().count(), 8759);
}

#[test]
fn the_end_of_a_file_limit_is_a_full_disk_and_no_death() {
    let (_directory, gateway) = database();
    let (_directory, field) = database();
    let (_directory, reader) = database();
    ok(&gateway, &["db", "put", "old", "{}"]);
    ok(&field, &["db", "import", WEATHER, "--id-from", "date"]);
    let mut serve = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = serve.address();
    limit_files(&serve.child, Some(1 << 20));
    let refused = run(&field, &["sync", &address, "--push", "--attempts", "1"]);
    assert!(refused.code.is_some_and(|code| code > 0), "{refused:?}");
    let full = serve.wait_for(|event| event["event"] == "storage");
    assert_eq!((&full["full"], &full["lack"]), (&true.into(), &"file_size".into()));
    // It still gives what it has.
    ok(&reader, &["sync", &address, "--pull"]);
    assert!(ok(&reader, &["db", "ls"]).contains("old\n"));
    limit_files(&serve.child, None);
    ok(&field, &["sync", &address]);
    serve.wait_for(|event| event["event"] == "storage" && event["full"] == false);
    assert_eq!(serve.terminate(), Some(0));
    assert_eq!(ok(&gateway, &["db", "ls"]).lines().count(), 8760);

    // A command that ends says so, rather than be killed.
    let (_directory, new) = database();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 16; exec \"$0\" --db \"$1\" db put a '{}'", env!("CARGO_BIN_EXE_gattway")]);
    let output = shell.arg(&new).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
fn exhausted_descriptors_are_waited_out() {
    let (_directory, gateway) = database();
    let (_directory, field) = database();
    let mut shell = Command::new("sh");
    let script = "ulimit -n 64; exec \"$0\" --db \"$1\" serve --listen tcp:127.0.0.1:0 --plain --json";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_gattway")]).arg(&gateway).stdin(Stdio::null());
    let mut serve = Guard(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    // Kept open, and never full with what is told here.
    let mut events = BufReader::new(serve.0.stdout.take().unwrap());
    events.read_line(&mut line).unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap();
    let address = listening["address"].as_str().unwrap();
    let said = said_by(&mut serve.0);
    let args = ["sync", address, "--continuous", "--import", "-", "--json", "--documents", "--plain"];
    let mut sync = Process::start(&field, &args);
    sync.wait_for(|event| event["activity"] == "idle");
    let mut idle = Vec::new();
    wait_until("the want of descriptors is told", || {
        idle.push(std::net::TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap());
        said.lock().unwrap().contains("no connection can be accepted")
    });
    // Who is there goes on.
    sync.stdin.as_mut().unwrap().write_all(b"{\"_id\":\"a\"}\n").unwrap();
    sync.wait_for(|event| event["event"] == "document" && event["_id"] == "a");
    assert_eq!(sync.terminate(), Some(0));
    drop(idle);
    let (_directory, other) = database();
    ok(&other, &["db", "put", "b", "{}"]);
    ok(&other, &["sync", address, "--plain"]);
    serve.signal("TERM");
    assert_eq!(serve.ended().code(), Some(0));
    let said = said.lock().unwrap();
    assert_eq!(said.matches("no connection can be accepted").count(), 1, "{said}");
    assert_eq!(ok(&gateway, &["db", "ls"]), "a\nb\n");
}
