//! What the system does not give: an address, a larger file, a descriptor; and hubs that are restarted.

use std::io::{BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::command::{Process, free_port, gattway, ok, run};
use crate::{Guard, WEATHER, database, listening, said_by, wait_until};

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
    // Kept open, and never full with what is told here.
    let mut events = BufReader::new(serve.0.stdout.take().unwrap());
    let address = &listening(&mut events);
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

/// What holds keys leaves no core file, and is not traced by others of its user.
#[test]
fn commands_that_hold_secrets_leave_no_core_file() {
    let (_directory, db) = database();
    ok(&db, &["group", "create"]);
    let listen = ["--listen", "tcp:127.0.0.1:0", "--json"];
    for args in [[&["serve", "--trust-all"], &listen[..]].concat(), [&["pair"], &listen[..]].concat()] {
        let mut shell = Command::new("sh");
        let script = "ulimit -S -c $(ulimit -H -c); ulimit -c; exec \"$0\" --db \"$@\"";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_gattway")]).arg(&db).args(&args).stdin(Stdio::null());
        let mut process = Guard(shell.stdout(Stdio::piped()).spawn().unwrap());
        let mut events = BufReader::new(process.0.stdout.take().unwrap());
        let mut before = String::new();
        std::io::BufRead::read_line(&mut events, &mut before).unwrap();
        assert_ne!(before.trim(), "0", "nothing can be shown where the system allows no core files at all");
        listening(&mut events);
        let proc = format!("/proc/{}", process.0.id());
        let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let limit: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(limit[4..6], ["0", "0"], "{args:?}: {core}");
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("{proc}/mem")).unwrap());
        assert_eq!(owner, 0, "{args:?}: who is not root could look into it");
        process.signal("TERM");
        process.ended();
    }
}
