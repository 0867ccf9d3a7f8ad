//! Who may: groups, pairing and the trust list, with real processes over real sockets.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod command;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use command::{Ended, Process, ok, run, run_with_input};
use gattway::endpoint::{MessageEndpointConnection, ReplicatorConnection};
use gattway::lab::secure::{Authentication, Grant, Identity, PeerId, PeerPolicy, Psk, Refusal};
use gattway::lab::transport::secure::{Carrier, SecureConnection, SecureConnectionConfig};
use gattway::lab::transport::stream::StreamConnection;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A database path in a directory that lives as long as the first value.
fn database() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    (directory, path)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The peers of a database as `peers ls` lists them, without the line of all others.
fn peers(db: &Path) -> Vec<Value> {
    lines(&ok(db, &["peers", "ls", "--json"])).split_off(1)
}

/// Makes both databases members of one new group.
fn group(a: &Path, b: &Path) {
    ok(a, &["group", "create", "plant-7"]);
    join(a, b);
}

/// Takes `b` into the group that `a` is in.
fn join(a: &Path, b: &Path) {
    let code = ok(a, &["group", "show"]);
    assert_eq!(run_with_input(b, &["group", "join"], code.as_bytes()).code, Some(0));
}

/// Pairs `b` with `a`, which shows the code; arguments of either side to follow.
fn pair(a: &Path, b: &Path, at_a: &[&str], at_b: &[&str]) {
    let listen = [&["pair", "--listen", "tcp:127.0.0.1:0", "--json"], at_a].concat();
    let mut listener = Process::start(a, &listen);
    let address = listener.address();
    let code = listener.wait_for(|event| event["event"] == "code")["code"].as_str().unwrap().to_owned();
    let connect = [&["pair", &address, "--json", "--code-file", "-"], at_b].concat();
    let ended = run_with_input(b, &connect, code.as_bytes());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(lines(&ended.stdout)[0]["event"], "paired");
    listener.wait_for(|event| event["event"] == "paired");
    assert_eq!(listener.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_group_is_created_shown_joined_and_left() {
    let (_a, a) = database();
    let (_b, b) = database();
    let created: Value = serde_json::from_str(&ok(&a, &["group", "create", "plant-7", "--json"])).unwrap();
    assert_eq!(created["name"], "plant-7");
    assert!(created.get("code").is_none(), "{created}");
    let shown: Value = serde_json::from_str(&ok(&a, &["group", "show", "--json"])).unwrap();
    let code = shown["code"].as_str().unwrap();
    let typed = ok(&a, &["group", "show"]);
    assert_eq!(typed.trim(), code);

    let mistyped: String = code.chars().rev().collect();
    let refused = run_with_input(&b, &["group", "join"], mistyped.as_bytes());
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(!refused.stderr.contains(&mistyped), "{refused:?}");
    let file = b.with_extension("code");
    fs::write(&file, format!("  {}\n", code.to_lowercase().replace('-', " "))).unwrap();
    let joined = ok(&b, &["group", "join", "--json", "--file", file.to_str().unwrap()]);
    let joined: Value = serde_json::from_str(&joined).unwrap();
    assert_eq!(joined["fingerprint"], created["fingerprint"]);

    let again = run_with_input(&b, &["group", "join"], code.as_bytes());
    assert_eq!(again.code, Some(4), "one group at most: {again:?}");
    assert!(ok(&b, &["group", "show", "--qr"]).contains('█'));
    ok(&b, &["group", "leave"]);
    for args in [["group", "leave"], ["group", "show"]] {
        assert_eq!(run(&b, &args).code, Some(3));
    }
}

#[test]
fn files_are_the_owners_alone_and_a_readable_one_is_refused() {
    let (_a, a) = database();
    ok(&a, &["group", "create"]);
    ok(&a, &["peers", "add", &"a".repeat(52), "--name", "somebody"]);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&a), 0o700);
    for entry in fs::read_dir(&a).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(mode(&entry.path()) & 0o077, 0, "{name}");
    }
    for (name, args) in [("group", ["group", "show"]), ("trust", ["peers", "ls"])] {
        let path = a.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = run(&a, &args);
        assert_eq!(refused.code, Some(5), "{refused:?}");
        assert!(refused.stderr.contains("chmod 600"), "{refused:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        ok(&a, &args);
        let mut bytes = fs::read(&path).unwrap();
        bytes[6] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let damaged = run(&a, &args);
        assert_eq!(damaged.code, Some(5), "{damaged:?}");
        assert!(damaged.stderr.contains("damaged"), "{damaged:?}");
    }
}

/// A directory that stood open to others of the machine, with a lock that any of them could have taken.
#[test]
fn a_directory_that_is_open_to_others_is_closed_with_a_word() {
    let (_a, a) = database();
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(&a).unwrap();
    for command in [["id"].as_slice(), &["db", "put", "x", "{}"], &["db", "ls"]] {
        open(&a, 0o755);
        if a.join("lock").exists() {
            open(&a.join("lock"), 0o644);
        }
        let ended = run(&a, command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains("mode 755"), "{command:?}: {ended:?}");
        assert_eq!((mode(&a), mode(&a.join("lock"))), (0o700, 0o600), "{command:?}");
    }
    assert!(!run(&a, &["db", "ls"]).stderr.contains("others"), "once is enough");
}

/// An identity that was put into an empty directory before there was a database.
#[test]
fn an_identity_may_be_there_before_the_database() {
    let (_a, a) = database();
    let (_b, b) = database();
    let id = ok(&a, &["id"]);
    fs::create_dir(&b).unwrap();
    fs::copy(a.join("identity"), b.join("identity")).unwrap();
    assert_eq!(ok(&b, &["id"]), id);
    ok(&b, &["db", "put", "x", "{}"]);
    let (_c, c) = database();
    fs::create_dir(&c).unwrap();
    fs::write(c.join("letter.txt"), "mine").unwrap();
    assert_eq!(run(&c, &["id"]).code, Some(5), "what is another's is not taken");
    assert_eq!(fs::read_dir(&c).unwrap().count(), 1);
}

/// A list that was there and is gone must not read as one in which nobody is denied.
#[test]
fn a_trust_list_that_is_lost_lets_nobody_in() {
    let (_a, a) = database();
    let (_b, b) = database();
    let (_c, c) = database();
    group(&a, &b);
    join(&a, &c);
    ok(&a, &["db", "put", "treasure", "{}"]);
    let denied: Value = serde_json::from_str(&ok(&b, &["id", "--json"])).unwrap();
    ok(&a, &["peers", "deny", denied["id"].as_str().unwrap()]);

    let (mut server, address) = serve(&a, &[]);
    let member = Process::start(&c, &["sync", &address, "--continuous", "--json", "--trusted-only"]);
    server.wait_for(|event| event["event"] == "status" && event["activity"] == "idle");
    let away = a.with_extension("away");
    fs::rename(a.join("trust"), &away).unwrap();
    server.wait_for(|event| event["event"] == "status" && event["activity"] == "stopped");
    assert_eq!(sync(&b, &address, &[]).code, Some(6));
    assert_eq!(ids(&b, "_default"), [""; 0]);
    member.terminate();
    server.terminate();

    for (args, code) in [
        (["peers", "ls"].as_slice(), 5),
        (&["peers", "add", &"a".repeat(52)], 5),
        (&["serve", "--listen", "tcp:127.0.0.1:0", "--trusted-only"], 5),
        (&["serve", "--listen", "tcp:127.0.0.1:0", "--trust-all"], 5),
        (&["db", "verify"], 1),
        (&["doctor"], 1),
    ] {
        let ended = run(&a, args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        let told = ended.stderr + &ended.stdout;
        assert!(told.contains("trust is missing") && told.contains("peers reset"), "{args:?}: {told}");
    }
    // Put back, it is as it was.
    fs::rename(&away, a.join("trust")).unwrap();
    assert!(peers(&a).iter().any(|peer| peer["allowed"] == false));
    assert_eq!(run(&a, &["peers", "reset"]).code, Some(4), "a whole list is not given up by mistake");
    fs::remove_file(a.join("trust")).unwrap();
    ok(&a, &["peers", "reset"]);
    let (server, address) = serve(&a, &[]);
    assert_eq!(sync(&c, &address, &[]).code, Some(6), "nobody may do anything until it is said");
    server.terminate();
    ok(&a, &["peers", "allow", "default", "--role", "both"]);
    let (server, address) = serve(&a, &[]);
    assert_eq!(sync(&c, &address, &[]).code, Some(0));
    server.terminate();
}

/// Who may write has a share of the disk, not the disk.
#[test]
fn a_peer_that_has_used_up_its_quota_waits_and_the_others_go_on() {
    let (_a, a) = database();
    let (_b, b) = database();
    let (_c, c) = database();
    group(&a, &b);
    join(&a, &c);
    let documents: String = (0..200).map(|n| format!("{{\"_id\":\"b{n:03}\"}}\n")).collect();
    assert_eq!(
        run_with_input(&b, &["db", "import", "-", "--format", "ndjson"], documents.as_bytes()).code,
        Some(0)
    );
    let (server, address) = serve(&a, &["--peer-documents", "50"]);
    // A commit that begins within the quota is let through whole.
    let _ = sync(&b, &address, &[]);
    ok(&b, &["db", "put", "beyond", "{}"]);
    let refused = sync(&b, &address, &[]);
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    ok(&c, &["db", "put", "from-c", "{}"]);
    assert_eq!(sync(&c, &address, &[]).code, Some(0), "the others have shares of their own");
    assert_eq!(sync(&b, &address, &["--pull"]).code, Some(0), "what it may get, it gets");
    server.terminate();
    let stored = ids(&a, "_default");
    assert!(stored.contains(&"from-c".to_owned()) && !stored.contains(&"beyond".to_owned()));
    let (server, address) = serve(&a, &[]);
    assert_eq!(sync(&b, &address, &[]).code, Some(0), "the default is far more than that");
    server.terminate();
    assert!(ids(&a, "_default").contains(&"beyond".to_owned()));
}

/// Neither a restart nor the other side of the call gives a peer a new share.
#[test]
fn a_quota_outlives_the_process_and_counts_what_is_pulled() {
    let (_a, a) = database();
    let (_b, b) = database();
    group(&a, &b);
    let put = |db: &std::path::Path, from: u32, many: u32| {
        let lines: String = (from..from + many).map(|n| format!("{{\"_id\":\"b{n:03}\"}}\n")).collect();
        let imported = run_with_input(db, &["db", "import", "-", "--format", "ndjson"], lines.as_bytes());
        assert_eq!(imported.code, Some(0), "{imported:?}");
    };
    put(&b, 0, 60);
    let limit = ["--peer-documents", "50"];
    // Pushed to one process ...
    let (server, address) = serve(&a, &limit);
    let _ = sync(&b, &address, &[]);
    server.terminate();
    // A commit that begins within the quota is let through whole.
    let taken = ids(&a, "_default").len();
    assert!((50..=60).contains(&taken), "{taken}");
    // ... refused by the next, and when it is fetched.
    put(&b, 60, 1);
    let (server, address) = serve(&a, &limit);
    let refused = sync(&b, &address, &["--push"]);
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    server.terminate();
    let (server, address) = serve(&b, &[]);
    let refused = sync(&a, &address, &limit);
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert!(format!("{refused:?}").contains("used up its quota (50 documents"), "{refused:?}");
    assert_eq!(ids(&a, "_default").len(), taken);
    // Who asks for one sync, and says no limit, gets what there is.
    assert_eq!(sync(&a, &address, &[]).code, Some(0));
    assert_eq!(ids(&a, "_default").len(), 61);
    server.terminate();
}

#[test]
fn a_denial_is_lifted_only_where_that_is_said() {
    let (_a, a) = database();
    let id = "a".repeat(52);
    ok(&a, &["id"]);
    ok(&a, &["peers", "deny", &id]);
    let refused = run(&a, &["peers", "add", &id, "--role", "both"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("peers allow"), "{refused:?}");
    assert_eq!(peers(&a)[0]["allowed"], false);
    ok(&a, &["peers", "allow", &id]);
    ok(&a, &["peers", "add", &id]);
    assert_eq!((&peers(&a)[0]["allowed"], &peers(&a)[0]["origin"]), (&json!(true), &json!("manual")));
}

#[test]
fn the_trust_list_is_edited_by_name_and_by_id() {
    let (_a, a) = database();
    let (x, y) = ("a".repeat(52), format!("b{}", "a".repeat(51)));
    ok(
        &a,
        &["peers", "add", &x, "--name", "gateway", "--role", "read", "--collection", "plant.readings=both"],
    );
    ok(&a, &["peers", "add", &y]);
    let listed = peers(&a);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["role"], &listed[0]["collections"], &listed[0]["origin"]),
        (&json!("gateway"), &json!("read"), &json!({"plant.readings": "both"}), &json!("manual"))
    );
    assert_eq!((&listed[1]["id"], &listed[1]["role"]), (&json!(y), &json!("both")));
    ok(&a, &["peers", "rename", "baaa", "sensor"]);
    ok(&a, &["peers", "deny", "sensor"]);
    ok(&a, &["peers", "allow", "gateway", "--collection", "plant.readings=default", "--role", "write"]);
    ok(&a, &["peers", "allow", "default", "--role", "none"]);
    let listed = peers(&a);
    assert_eq!((&listed[0]["role"], &listed[0]["collections"]), (&json!("write"), &json!({})));
    assert_eq!(
        (&listed[1]["name"], &listed[1]["allowed"], &listed[1]["role"]),
        (&json!("sensor"), &json!(false), &json!("none"))
    );
    assert!(ok(&a, &["peers", "ls"]).contains("DENIED"));
    for (args, code) in
        [(["peers", "deny", "nobody"], 3), (["peers", "forget", "aa"], 3), (["peers", "add", "zz"], 2)]
    {
        assert_eq!(run(&a, &args).code, Some(code), "{args:?}");
    }
    assert_eq!(run(&a, &["peers", "rename", "sensor", "gateway"]).code, Some(4));
    ok(&a, &["peers", "forget", "gateway"]);
    assert_eq!(peers(&a).len(), 1);
}

#[test]
fn two_devices_are_paired_by_the_code_and_know_each_other_by_name() {
    let (_a, a) = database();
    let (_b, b) = database();
    pair(&a, &b, &["--name", "gateway", "--role", "write"], &["--name", "sensor"]);
    let (at_a, at_b) = (peers(&a), peers(&b));
    assert_eq!((at_a.len(), at_b.len()), (1, 1));
    assert_eq!((&at_a[0]["name"], &at_a[0]["role"]), (&json!("sensor"), &json!("write")));
    assert_eq!((&at_b[0]["name"], &at_b[0]["origin"]), (&json!("gateway"), &json!("paired")));
    // A device that was denied is let in again by pairing it again, and keeps its name.
    ok(&a, &["peers", "rename", "sensor", "pump-house"]);
    ok(&a, &["peers", "deny", "pump-house"]);
    pair(&a, &b, &[], &["--name", "sensor"]);
    let at_a = peers(&a);
    assert_eq!((&at_a[0]["name"], &at_a[0]["allowed"]), (&json!("pump-house"), &json!(true)));
}

#[test]
fn wrong_codes_are_counted_and_enter_nobody() {
    let (_a, a) = database();
    let (_b, b) = database();
    let mut listener = Process::start(&a, &["pair", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = listener.address();
    let code = listener.wait_for(|event| event["event"] == "code")["code"].as_str().unwrap().to_owned();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for left in [2, 1, 0] {
        let refused = run_with_input(&b, &["pair", &address, "--code-file", "-"], wrong.as_bytes());
        assert_eq!(refused.code, Some(6), "{refused:?}");
        assert_eq!(listener.wait_for(|event| event["event"] == "attempt")["left"], left);
    }
    assert_eq!(listener.child.wait().unwrap().code(), Some(6));
    assert!(peers(&a).is_empty() && peers(&b).is_empty());
    let late = run_with_input(&b, &["pair", &address, "--code-file", "-"], code.as_bytes());
    assert_eq!(late.code, Some(6), "{late:?}");
}

/// A listener that is started again and again with one code gives away one guess in all.
#[test]
fn a_given_code_is_good_for_one_wrong_guess_over_all_restarts() {
    let (_a, a) = database();
    let (_b, b) = database();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("code");
    std::fs::write(&file, "482915").unwrap();
    let listen = ["pair", "--listen", "tcp:127.0.0.1:0", "--json", "--code-file", file.to_str().unwrap()];
    let attempt = |guess: &str| {
        let mut listener = Process::start(&a, &listen);
        let address = listener.address();
        let ended = run_with_input(&b, &["pair", &address, "--code-file", "-"], guess.as_bytes());
        (ended.code, listener.child.wait().unwrap().code())
    };
    // The right one costs nothing: the next device may use it too.
    assert_eq!(attempt("482915"), (Some(0), Some(0)));
    assert_eq!(attempt("482916"), (Some(6), Some(6)));
    for _ in 0..2 {
        let again = run(&a, &listen);
        assert_eq!(again.code, Some(4), "{again:?}");
        assert!(again.stderr.contains("tried before") && again.stderr.contains("another code"), "{again:?}");
    }
    std::fs::write(&file, "713377").unwrap();
    assert_eq!(attempt("713377"), (Some(0), Some(0)));
}

/// Strangers that connect and say nothing, more than there are places, keep nobody from pairing.
#[test]
fn who_connects_to_a_pairing_and_is_silent_keeps_nobody_out() {
    let (_a, a) = database();
    let (_b, b) = database();
    let mut listener = Process::start(&a, &["pair", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = listener.address();
    let code = listener.wait_for(|event| event["event"] == "code")["code"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Each has a session of its own: what it does not have is anything to say.
    let mut silent = Vec::new();
    for n in 0..40 {
        let mut config = SecureConnectionConfig::new(
            Arc::new(Identity::from_private([n + 1; 32])),
            Arc::new(EverybodyIn(watch::Sender::new(0))),
        );
        config.pairing = true;
        let carrier = Carrier::Stream(Arc::new(StreamConnection::connect(address.parse().unwrap())));
        let connection = SecureConnection::active(carrier, config);
        let (handle, inbound) = ReplicatorConnection::detached(4096);
        runtime.block_on(connection.open(handle)).unwrap();
        silent.push((connection, inbound));
    }
    let ended = run_with_input(&b, &["pair", &address, "--json", "--code-file", "-"], code.as_bytes());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    listener.wait_for(|event| event["event"] == "paired");
    assert_eq!(listener.child.wait().unwrap().code(), Some(0));
    assert_eq!(peers(&a).len(), 1);
}

/// Lets everybody into a session, as a device does that pairs.
struct EverybodyIn(watch::Sender<u64>);

impl PeerPolicy for EverybodyIn {
    fn group_psk(&self) -> Option<Psk> {
        None
    }

    fn paired(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn admit(&self, _: &PeerId, _: Authentication) -> Result<Grant, Refusal> {
        Ok(Grant::full(None))
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// Runs commands that handle secrets with everything logged, and looks for the secrets in all that they wrote.
#[test]
fn no_secret_stands_in_logs_errors_or_arguments() {
    let (_a, a) = database();
    let (_b, b) = database();
    group(&a, &b);
    let shown: Value = serde_json::from_str(&ok(&a, &["group", "show", "--json"])).unwrap();
    let secret = shown["code"].as_str().unwrap().to_owned();
    ok(&b, &["group", "leave"]);
    let mut written = String::new();
    let mut keep = |ended: Ended| {
        written.push_str(&ended.stdout);
        written.push_str(&ended.stderr);
        ended.code
    };
    assert_eq!(
        keep(run_with_input(&b, &["-vvv", "group", "join"], format!("{secret}0").as_bytes())),
        Some(4)
    );
    assert_eq!(keep(run_with_input(&b, &["-vvv", "group", "join"], secret.as_bytes())), Some(0));
    assert_eq!(keep(run(&b, &["-vvv", "group", "show", "--public"])), Some(0));

    let code = "482915";
    let log = a.with_extension("log");
    let mut listener = command::gattway(&a)
        .args(["-vvv", "pair", "--listen", "tcp:127.0.0.1:0", "--json", "--code-file", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    listener.stdin.take().unwrap().write_all(code.as_bytes()).unwrap();
    let stdout = listener.stdout.take().unwrap();
    let mut process = Process { child: listener, stdin: None, events: Some(std::io::BufReader::new(stdout)) };
    let address = process.address();
    let arguments = fs::read(format!("/proc/{}/cmdline", process.child.id())).unwrap();
    assert_eq!(
        keep(run_with_input(&b, &["-vvv", "pair", &address, "--code-file", "-"], code.as_bytes())),
        Some(0)
    );
    process.wait_for(|event| event["event"] == "paired");
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
    written.push_str(&fs::read_to_string(&log).unwrap());
    written.push_str(&String::from_utf8(arguments).unwrap());

    // Without the times in front of log lines, whose digits are any.
    let line = |line: &str| match line.split_once(' ') {
        Some((time, rest)) if time.ends_with('Z') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let written: String = written.lines().map(line).collect::<Vec<_>>().join("\n");
    assert!(!written.contains(code) && !written.contains("482 915"), "the pairing code was written");
    let flat =
        |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_uppercase();
    let (written, secret) = (flat(&written), flat(&secret));
    assert!(written.contains("SECURESESSION"), "it was logged in detail");
    // Not even a part that leaves 80 bits to guess.
    for start in 0..=secret.len() - 12 {
        assert!(!written.contains(&secret[start..start + 12]), "a part of the group's secret was written");
    }
    for (db, name) in [(&a, "group"), (&a, "identity"), (&b, "identity")] {
        let file = fs::read(db.join(name)).unwrap();
        let hex: String = file.iter().map(|byte| format!("{byte:02X}")).collect();
        for start in (16..hex.len() - 24).step_by(2) {
            assert!(!written.contains(&hex[start..start + 16]), "a part of {name} was written");
        }
    }
}

/// The documents of a database, read while nobody else has it open.
fn ids(db: &Path, collection: &str) -> Vec<String> {
    ok(db, &["db", "ls", "-c", collection]).lines().map(str::to_owned).collect()
}

/// Starts `serve` on a free port for peers that it knows, with records on its standard input.
fn serve(db: &Path, more: &[&str]) -> (Process, String) {
    let args = ["serve", "--listen", "tcp:127.0.0.1:0", "--json", "--trusted-only", "--import", "-"];
    let mut server = Process::start(db, &[&args, more].concat());
    let address = server.address();
    (server, address)
}

fn sync(db: &Path, address: &str, more: &[&str]) -> Ended {
    run(db, &[&["sync", address, "--json", "--trusted-only", "--attempts", "1"], more].concat())
}

fn say(process: &mut Process, record: &Value) {
    writeln!(process.stdin.as_mut().unwrap(), "{record}").unwrap();
}

#[test]
fn paired_devices_sync_and_a_denied_one_is_cut_off_and_stays_out() {
    let (_a, a) = database();
    let (_b, b) = database();
    pair(&a, &b, &["--name", "gateway"], &["--name", "sensor"]);
    ok(&b, &["db", "put", "from-sensor", "{}"]);
    let (mut server, address) = serve(&a, &[]);
    let mut client = Process::start(
        &b,
        &["sync", &address, "--continuous", "--retry-wait", "0.2", "--json", "--trusted-only", "--documents"],
    );
    let came = server.wait_for(|event| event["event"] == "peer");
    assert_eq!((&came["name"], &came["via"]), (&json!("sensor"), &json!("paired")));
    say(&mut server, &json!({"_id": "before"}));
    client.wait_for(|event| event["event"] == "document" && event["_id"] == "before");

    let told = Instant::now();
    ok(&a, &["peers", "deny", "sensor"]);
    let ended = server.wait_for(|event| event["event"] == "status" && event["activity"] == "stopped");
    assert!(ended["error"].is_string(), "{ended}");
    assert!(told.elapsed() < Duration::from_secs(30), "{:?}", told.elapsed());
    say(&mut server, &json!({"_id": "after"}));
    server.wait_for(|event| event["event"] == "saved" && event["_id"] == "after");
    // It tries again and again, and is refused each time.
    for _ in 0..3 {
        server.wait_for(|event| event["event"] == "refused");
    }
    client.terminate();
    assert_eq!(ids(&b, "_default"), ["before", "from-sensor"]);
    let refused = sync(&b, &address, &[]);
    assert_eq!(refused.code, Some(6), "{refused:?}");

    // Allowed again it gets what it has missed.
    ok(&a, &["peers", "allow", "sensor"]);
    std::thread::sleep(Duration::from_secs(3));
    let synced = sync(&b, &address, &[]);
    assert_eq!(synced.code, Some(0), "{synced:?}");
    assert_eq!(ids(&b, "_default"), ["after", "before", "from-sensor"]);
    server.terminate();
    assert_eq!(ids(&a, "_default"), ["after", "before", "from-sensor"]);
}

#[test]
fn members_of_a_group_come_in_and_strangers_and_former_members_do_not() {
    let (_a, a) = database();
    let (_b, b) = database();
    let (_c, c) = database();
    group(&a, &b);
    ok(&c, &["group", "create"]);
    ok(&b, &["db", "put", "from-b", "{}"]);
    ok(&c, &["db", "put", "from-c", "{}"]);
    let (server, address) = serve(&a, &[]);
    assert_eq!(sync(&b, &address, &[]).code, Some(0));
    let refused = sync(&c, &address, &[]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    server.terminate();
    assert_eq!(ids(&a, "_default"), ["from-b"]);
    let listed = peers(&a);
    assert_eq!((listed.len(), &listed[0]["origin"]), (1, &json!("group")));
    let entered = listed[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&ok(&b, &["id", "--json"])).unwrap()["id"], entered);

    // While it runs, the group is left: who came by it must go, whoever it is.
    let (mut server, address) = serve(&a, &[]);
    let client = Process::start(&b, &["sync", &address, "--continuous", "--json", "--trusted-only"]);
    server.wait_for(|event| event["event"] == "status" && event["activity"] == "idle");
    ok(&a, &["group", "leave"]);
    server.wait_for(|event| event["event"] == "status" && event["activity"] == "stopped");
    server.wait_for(|event| event["event"] == "refused");
    client.terminate();
    server.terminate();
}

#[test]
fn a_role_limits_what_a_peer_may_do_collection_by_collection() {
    let (_a, a) = database();
    let (_b, b) = database();
    for db in [&a, &b] {
        for collection in ["plant.settings", "plant.readings", "plant.secrets"] {
            ok(db, &["db", "collections", "--create", collection]);
            let id = if db == &a { "from-a" } else { "from-b" };
            ok(db, &["db", "put", id, "{}", "-c", collection]);
        }
    }
    let roles =
        ["--role", "none", "--collection", "plant.settings=read", "--collection", "plant.readings=write"];
    pair(&a, &b, &roles, &[]);
    let (server, address) = serve(&a, &[]);
    let only = |collection: &str, more: &[&str]| sync(&b, &address, &[&["-c", collection], more].concat());

    assert_eq!(only("plant.settings", &["--pull"]).code, Some(0));
    assert_eq!(only("plant.readings", &["--push"]).code, Some(0));
    for (collection, direction) in [
        ("plant.settings", "--push"),
        ("plant.readings", "--pull"),
        ("plant.secrets", "--pull"),
        ("plant.secrets", "--push"),
    ] {
        let ended = only(collection, &[direction]);
        let failed = ended.code != Some(0) || ended.stdout.contains("error");
        assert!(failed, "{collection} {direction}: {ended:?}");
    }
    // What it may not know of is answered like what does not exist.
    ok(&b, &["db", "collections", "--create", "plant.nothing"]);
    let error = |collection: &str| {
        let ended = only(collection, &["--pull"]);
        let last: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
        last["error"].as_str().unwrap().replace(collection, "NAME")
    };
    assert_eq!(error("plant.secrets"), error("plant.nothing"));
    server.terminate();
    assert_eq!(ids(&b, "plant.settings"), ["from-a", "from-b"]);
    assert_eq!(ids(&a, "plant.settings"), ["from-a"]);
    assert_eq!(ids(&a, "plant.readings"), ["from-a", "from-b"]);
    assert_eq!(ids(&b, "plant.readings"), ["from-b"]);
    assert_eq!(
        (ids(&a, "plant.secrets"), ids(&b, "plant.secrets")),
        (vec!["from-a".into()], vec!["from-b".into()])
    );

    // The active side keeps to what its own list says as well: this one may give nothing.
    ok(&b, &["peers", "allow", &peers(&b)[0]["id"].as_str().unwrap()[..16], "--role", "read"]);
    let (server, address) = serve(&a, &[]);
    let refused = sync(&b, &address, &["-c", "plant.settings", "--pull"]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    server.terminate();
}

/// What a denied member of the group can read of the session: it holds every key, and takes all that comes.
#[test]
fn a_denied_peer_reads_no_document_no_collection_and_no_count() {
    use gattway::endpoint::{Message, MessageEndpointConnection, ReplicatorConnection};
    use gattway::lab::secure::{Identity, PeerPolicy};
    use gattway::lab::transport::secure::{Carrier, SecureConnection, SecureConnectionConfig};
    use gattway::lab::transport::stream::StreamConnection;
    use gattway::lab::trust::Trust;

    let (_a, a) = database();
    let (_b, b) = database();
    group(&a, &b);
    ok(&a, &["db", "collections", "--create", "plant.secrets"]);
    ok(&a, &["db", "put", "treasure", r#"{"map":true}"#, "-c", "plant.secrets"]);
    let id = ok(&b, &["id", "--json"]);
    let id: Value = serde_json::from_str(&id).unwrap();
    let session = |address: String| -> (Result<(), String>, Vec<u8>) {
        let identity = Arc::new(Identity::load(&b).unwrap().unwrap());
        let policy: Arc<dyn PeerPolicy> = Arc::new(Trust::open(&b).unwrap());
        let carrier = Carrier::Stream(Arc::new(StreamConnection::connect(address.parse().unwrap())));
        let connection = SecureConnection::active(carrier, SecureConnectionConfig::new(identity, policy));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (handle, mut inbound) = ReplicatorConnection::detached(1 << 20);
            let opened = connection.open(handle).await.map_err(|error| error.to_string());
            // The first words of a replicator: which collections are there?
            let ask = b"\x82\x80\0\0\0\0".to_vec();
            let _ = connection.send(Message::from_bytes(ask)).await;
            let mut read = Vec::new();
            let wait = Duration::from_secs(5);
            while let Ok(Some(message)) = tokio::time::timeout(wait, inbound.next()).await {
                read.extend_from_slice(&message);
            }
            let closed = inbound.closed().flatten().map(|error| error.to_string());
            let _ = connection.close(None).await;
            (opened.and(closed.map_or(Ok(()), Err)), read)
        })
    };
    let (server, address) = serve(&a, &[]);
    let (_, read) = session(address.clone());
    assert!(!read.is_empty(), "allowed, it is at least told what was wrong with its words");
    ok(&a, &["peers", "deny", id["id"].as_str().unwrap()]);
    std::thread::sleep(Duration::from_secs(3));
    let (result, read) = session(address);
    assert!(result.is_err() && read.is_empty(), "{result:?}: {read:?}");
    server.terminate();
}

fn group_of(db: &Path) -> Value {
    serde_json::from_str(&ok(db, &["group", "show", "--public", "--json"])).unwrap()
}

/// A device is stolen; nobody visits the others. One meets the gateway, the other only the one that did.
#[test]
fn a_new_secret_of_the_group_comes_to_members_by_itself_and_not_to_who_is_denied() {
    let ((_a, gateway), (_b, near), (_c, far), (_d, stolen)) =
        (database(), database(), database(), database());
    group(&gateway, &near);
    join(&gateway, &far);
    join(&gateway, &stolen);
    let (server, address) = serve(&gateway, &[]);
    for db in [&near, &far, &stolen] {
        assert_eq!(sync(db, &address, &[]).code, Some(0));
    }
    server.terminate();
    let id = |db: &Path| serde_json::from_str::<Value>(&ok(db, &["id", "--json"])).unwrap();
    ok(&gateway, &["peers", "deny", id(&stolen)["id"].as_str().unwrap()]);

    let refused = run(&near, &["group", "rotate"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("not on this device"), "{refused:?}");
    let planned = ok(&gateway, &["group", "rotate", "--dry-run"]);
    assert_eq!(
        (planned.matches("gets it").count(), planned.matches("is kept out").count()),
        (2, 1),
        "{planned}"
    );
    assert_eq!(group_of(&gateway)["epoch"], 0);

    let (mut server, address) = serve(&gateway, &[]);
    let args = ["sync", &address, "--continuous", "--retry-wait", "0.2", "--json", "--documents"];
    let mut client = Process::start(&near, &args);
    server.wait_for(|event| event["event"] == "status" && event["activity"] == "idle");
    // While they are connected.
    let rotated: Value = serde_json::from_str(&ok(&gateway, &["group", "rotate", "--json"])).unwrap();
    assert_eq!((&rotated["epoch"], rotated["members"].as_array().unwrap().len()), (&json!(1), 2));
    let taken = server.wait_for(|event| event["event"] == "group_taken");
    assert_eq!((&taken["id"], &taken["epoch"]), (&id(&near)["id"], &json!(1)));
    say(&mut server, &json!({"_id": "after"}));
    // In any order.
    let (mut changed, mut has_document) = (Value::Null, false);
    client.wait_for(|event| {
        if event["event"] == "group_changed" {
            changed = event.clone();
        }
        has_document |= event["event"] == "document" && event["_id"] == "after";
        has_document && !changed.is_null()
    });
    assert_eq!((&changed["epoch"], &changed["from"]), (&json!(1), &id(&gateway)["id"]));
    client.terminate();
    // The thief, as he is known, and under another identity.
    assert_eq!(sync(&stolen, &address, &[]).code, Some(6));
    ok(&stolen, &["db", "renew", "--identity"]);
    let refused = sync(&stolen, &address, &[]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    server.terminate();
    let listed = peers(&gateway);
    let behind: Vec<_> =
        listed.iter().filter(|peer| peer["behind"] == true).map(|peer| &peer["id"]).collect();
    assert_eq!(behind, [&id(&far)["id"]], "{listed:?}");
    let doctor = run(&gateway, &["doctor"]);
    assert!(doctor.stdout.contains("epoch 1 of the group: 1 peer not seen with it yet"), "{doctor:?}");

    // In one sync, from a device that is not the authority.
    ok(&near, &["db", "put", "from-near", "{}"]);
    let (server, address) = serve(&near, &[]);
    assert_eq!(sync(&far, &address, &[]).code, Some(0));
    assert_eq!(ids(&far, "_default"), ["after", "from-near"]);
    assert_eq!(sync(&stolen, &address, &[]).code, Some(6));
    server.terminate();
    let fingerprints = [&gateway, &near, &far].map(|db| group_of(db)["fingerprint"].clone());
    assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]), "{fingerprints:?}");
    assert_ne!(group_of(&stolen)["fingerprint"], fingerprints[0]);
    assert_eq!(id(&far)["group"]["epoch"], 1);
    assert!(ids(&stolen, "_default").is_empty(), "not a document after the change");
}

/// The gateway that the group was made on is gone.
#[test]
fn another_device_takes_over_the_group_where_its_owner_says_so() {
    let ((_a, gone), (_b, spare), (_c, member)) = (database(), database(), database());
    group(&gone, &spare);
    join(&gone, &member);
    assert_eq!(run(&spare, &["group", "authority", "--accept", "nonsense"]).code, Some(2));
    let key = ok(&spare, &["group", "authority", "--make"]).trim().to_owned();
    assert_eq!(run(&spare, &["group", "authority", "--make"]).code, Some(4), "once is enough");
    let (server, address) = serve(&spare, &[]);
    assert_eq!(sync(&member, &address, &[]).code, Some(0));
    // With it ends what it has noted of who came.
    server.terminate();
    ok(&spare, &["group", "rotate"]);
    let (server, address) = serve(&spare, &[]);
    let refused = sync(&member, &address, &[]);
    assert_ne!(refused.code, Some(0), "nobody has told this device of another authority: {refused:?}");
    ok(&member, &["group", "authority", "--accept", &key]);
    assert_eq!(sync(&member, &address, &[]).code, Some(0));
    assert_eq!(group_of(&member)["epoch"], 1);
    server.terminate();
}
