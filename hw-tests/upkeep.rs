//! What keeps a database alive, as an operator does it: backup of a running one, restore, verify, repair.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod command;

use std::path::{Path, PathBuf};

use command::{Process, ok, run, run_with_input};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// A database with `count` documents in the directory.
fn database(directory: &Path, count: usize) -> PathBuf {
    let db = directory.join("plant.db");
    let lines: String =
        (0..count).map(|n| format!("{{\"_id\":\"d{n:05}\",\"n\":{n},\"text\":\"reading {n}\"}}\n")).collect();
    let ended = run_with_input(&db, &["db", "import", "-", "--format", "ndjson"], lines.as_bytes());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    db
}

#[test]
fn a_running_database_is_backed_up_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(directory.path(), 3000);
    let exported = ok(&db, &["db", "export", "--revisions"]);
    let backup = directory.path().join("plant.backup");
    let backup = backup.to_str().unwrap();
    let mut serve = Process::start(&db, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    serve.address();
    let info = json(&ok(&db, &["db", "backup", backup, "--json"]));
    assert_eq!(info["records"], 3000);
    let again = run(&db, &["db", "backup", backup]);
    assert_eq!(again.code, Some(4), "{again:?}");
    assert!(again.stderr.contains("--replace"), "{again:?}");
    ok(&db, &["db", "backup", backup, "--replace"]);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(backup).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(db.join("http")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(serve.terminate(), Some(0));
    assert!(!db.join("http").exists());
    // A process that ends in order leaves a sealed log.
    assert!(db.join("log-000001/seal").exists());

    let copy = directory.path().join("copy.db");
    let to = copy.to_str().unwrap();
    let restored = json(&ok(&db, &["db", "restore", backup, "--to", to, "--json"]));
    assert_eq!(restored["documents"], 3000);
    assert_ne!(restored["source"], restored["backup_source"]);
    assert_eq!(ok(&copy, &["db", "export", "--revisions"]), exported);
    assert!(!copy.join("identity").exists(), "the copy is another device");
    let twice = run(&db, &["db", "restore", backup, "--to", to]);
    assert_eq!(twice.code, Some(5), "{twice:?}");
    let same = directory.path().join("same.db");
    ok(&db, &["db", "restore", backup, "--to", same.to_str().unwrap(), "--same-device"]);
    assert_eq!(std::fs::read(same.join("identity")).unwrap(), std::fs::read(db.join("identity")).unwrap());
    // Nothing half done is left behind.
    let names =
        std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.contains("partial")));

    let mut bytes = std::fs::read(backup).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(backup, bytes).unwrap();
    let damaged =
        run(&db, &["db", "restore", backup, "--to", directory.path().join("no.db").to_str().unwrap()]);
    assert_eq!(damaged.code, Some(4), "{damaged:?}");
    assert!(!directory.path().join("no.db").exists());
}

#[test]
fn a_damaged_database_is_reported_refused_and_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(directory.path(), 3000);
    assert_eq!(json(&ok(&db, &["db", "verify", "--json"]))["ok"], true);
    let log = db.join("log-000001/db");
    let mut bytes = std::fs::read(&log).unwrap();
    // A bit in each page of the first half: something of it is in use.
    let half = bytes.len() / 2;
    (2048..half).step_by(16 * 4096).for_each(|at| bytes[at] ^= 4);
    std::fs::write(&log, &bytes).unwrap();

    let verify = run(&db, &["db", "verify", "--json"]);
    assert_eq!(verify.code, Some(1), "{verify:?}");
    let report = json(&verify.stdout);
    assert_eq!(report["ok"], false);
    assert!(report["damage"][0]["file"].as_str().unwrap().starts_with("log-000001/"), "{report}");
    assert!(verify.stderr.contains("db repair"), "{verify:?}");
    assert!(std::fs::read(&log).unwrap() == bytes, "verify changed it");

    let export = run(&db, &["db", "export", "--keep-going"]);
    let rest = export.stdout.lines().count();
    assert!(rest > 1000, "only {rest} documents were exported");
    assert_eq!(export.code, Some(i32::from(rest < 3000)), "{:?}", export.stderr);
    let repair = run(&db, &["db", "repair", "--json"]);
    let report = json(&repair.stdout);
    assert_eq!(report["documents"], rest, "{report}");
    assert_eq!(repair.code, Some(i32::from(rest < 3000)));
    assert_eq!(report["lost_count"].as_u64().unwrap() as usize + rest, 3000, "{report}");
    let kept = PathBuf::from(report["damaged"].as_str().unwrap());
    assert!(std::fs::read(kept.join("log-000001/db")).unwrap() == bytes, "the damaged one is kept");
    assert_eq!(json(&ok(&db, &["db", "verify", "--json"]))["ok"], true);
    assert_eq!(ok(&db, &["db", "export"]).lines().count(), rest);
    ok(&db, &["db", "put", "new", "{}"]);
}

/// Bytes that may be written to the file system of `path`.
fn free_bytes(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_bavail * found.f_frsize
}

/// A directory on a file system where others write little, if there is one.
fn quiet_directory() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    let is_usable = in_memory.is_dir() && free_bytes(in_memory) > 48 << 20;
    if is_usable && let Ok(directory) = tempfile::tempdir_in(in_memory) {
        return directory;
    }
    tempfile::tempdir().unwrap()
}

/// Room runs out under a `serve` and comes back: it refuses, tells the peer, keeps what it has acknowledged, still gives
/// what it has, and takes everything as soon as it can.
#[test]
fn serve_goes_on_when_there_is_room_again() {
    let directory = quiet_directory();
    let db = directory.path().join("gateway.db");
    ok(&db, &["db", "put", "here", "{\"by\":\"the gateway\"}"]);
    // What counts as full lies 12 MiB below what is free now, and the ballast takes 24.
    let keep_free = (free_bytes(directory.path()) - (12 << 20)).to_string();
    let mut serve = Process::start(
        &db,
        &["serve", "--listen", "tcp:127.0.0.1:0", "--keep-free", &keep_free, "--import", "-", "--json"],
    );
    let address = serve.address();
    let ballast = directory.path().join("ballast");
    std::fs::write(&ballast, vec![0x55; 24 << 20]).unwrap();
    let event = serve.wait_for(|event| event["event"] == "storage");
    assert_eq!(event["full"], true, "{event}");

    let sensors = tempfile::tempdir().unwrap();
    let sensor = database(sensors.path(), 200);
    let refused = run(&sensor, &["sync", &address, "--push", "--attempts", "1"]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    assert!(refused.stderr.contains("no space left"), "{refused:?}");
    // Who only reads is served.
    let reader = sensors.path().join("reader.db");
    ok(&reader, &["sync", &address, "--pull"]);
    assert_eq!(json(&ok(&reader, &["db", "get", "here"]))["by"], "the gateway");
    let mut continuous = Process::start(&sensor, &["sync", &address, "--continuous", "--json"]);
    continuous.wait_for(|event| event["event"] == "status" && !event["error"].is_null());
    let mut input = serve.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"{\"_id\":\"waits\",\"n\":1}\n").unwrap();

    std::fs::remove_file(&ballast).unwrap();
    let event = serve.wait_for(|event| event["event"] == "storage");
    assert_eq!(event["full"], false, "{event}");
    // The import that waited, and the sensor by itself.
    continuous.wait_for(|event| event["event"] == "status" && event["activity"] == "idle");
    assert_eq!(continuous.terminate(), Some(0));
    drop(input);
    assert_eq!(serve.terminate(), Some(0));
    assert_eq!(
        ok(&db, &["db", "export"]).lines().count(),
        202,
        "200 of the sensor, 1 of its own, 1 imported"
    );
    assert_eq!(json(&ok(&db, &["db", "verify", "--json"]))["ok"], true);
}

/// The operating system refuses a write after all: `serve` ends with code 5 and says what to do, and started again it has
/// everything that it has acknowledged, and goes on.
#[test]
fn serve_ends_on_a_refused_write_and_resumes_when_it_is_started_again() {
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("gateway.db");
    let mut limited = std::process::Command::new("sh");
    limited.args([
        "-c",
        "trap '' XFSZ; ulimit -f 2000; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_gattway"),
        "--db",
    ]);
    // Nothing is kept free: else the write would be refused before it is begun, and the process go on.
    limited.arg(&db).args(["serve", "--listen", "tcp:127.0.0.1:0", "--plain", "--import", "-", "--json"]);
    limited.args(["--keep-free", "0"]);
    limited.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = limited.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let line = |n: u32| format!("{{\"_id\":\"d{n}\",\"text\":\"{}\"}}\n", format!("{n:08x}").repeat(80));
        (0..).try_for_each(|n| std::io::Write::write_all(&mut input, line(n).as_bytes()))
    });
    let output = child.wait_with_output().unwrap();
    assert!(feeder.join().unwrap().is_err(), "the input ends with the process");
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("make room") || stderr.contains("no space left"), "{stderr}");
    let events = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let saved: Vec<String> = events
        .filter(|event| event["event"] == "saved")
        .map(|event| event["_id"].as_str().unwrap().to_owned())
        .collect();
    assert!(saved.len() > 50, "only {} were saved", saved.len());

    let mut serve = Process::start(&db, &["serve", "--listen", "tcp:127.0.0.1:0", "--import", "-", "--json"]);
    serve.address();
    let mut input = serve.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"{\"_id\":\"more\"}\n").unwrap();
    serve.wait_for(|event| event["event"] == "saved");
    drop(input);
    assert_eq!(serve.terminate(), Some(0));
    let exported = ok(&db, &["db", "export"]);
    let there: std::collections::HashSet<String> = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["_id"].as_str().unwrap().to_owned())
        .collect();
    let missing: Vec<&String> = saved.iter().filter(|id| !there.contains(*id)).collect();
    assert!(missing.is_empty() && there.contains("more"), "acknowledged and not there: {missing:?}");
}
