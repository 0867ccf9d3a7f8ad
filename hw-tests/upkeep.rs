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
    assert_eq!(std::fs::metadata(db.join("control")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(serve.terminate(), Some(0));
    assert!(!db.join("control").exists());
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
