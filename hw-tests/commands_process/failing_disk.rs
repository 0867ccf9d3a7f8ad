//! A medium that cannot write any more: whatever sync fails, the command says so and does not panic, and what it acknowledged is there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Process, gattway, ok};
use crate::database;

/// More syncs than one `db put` makes.
const SYNCS_MAX: usize = 60;

/// Compiles what lets syncs fail; the linker of Rust programs needs the same compiler.
fn failing_sync(directory: &Path) -> PathBuf {
    let library = directory.join("failing_sync.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/hw-tests/commands_process/failing_sync.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    library
}

fn check_said(said: &str, what: &str) {
    // A log line begins with the module that says it.
    let said = said.replace("store::sled::", "store::");
    for word in ["panicked", "unwrap", "RUST_BACKTRACE", "sled"] {
        assert!(!said.contains(word), "{what}: {said}");
    }
}

/// Each sync of the log in turn fails, once or from then on.
#[test]
fn any_sync_that_fails_is_told_and_what_was_acknowledged_stays() {
    let (directory, db) = database();
    let library = failing_sync(directory.path());
    ok(&db, &["db", "put", "before", "{}"]);
    let (mut acknowledged, mut refused) = (vec!["before".to_owned()], 0);
    for count in ["1", "1000"] {
        let mut all_worked = false;
        for first in 1..=SYNCS_MAX {
            let id = format!("d{count}-{first}");
            let mut command = gattway(&db);
            command.args(["db", "put", &id, "{}"]).env("LD_PRELOAD", &library);
            command.env("FAILING_SYNC_FIRST", first.to_string()).env("FAILING_SYNC_COUNT", count);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            check_said(&said, &id);
            match output.status.code() {
                Some(0) => acknowledged.push(id),
                Some(5) => {
                    assert!(said.contains("Input/output error"), "{id}: {said}");
                    refused += 1;
                }
                _ => panic!("{id}: {:?}: {said}", output.status),
            }
            if said.is_empty() {
                all_worked = true;
                break;
            }
        }
        assert!(all_worked, "a command with more syncs than are tried here");
    }
    assert!(refused >= 4, "{refused} were refused: the syncs of a commit did not fail");
    let there = ok(&db, &["db", "ls"]);
    let lost: Vec<_> = acknowledged.iter().filter(|id| !there.lines().any(|line| line == **id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    ok(&db, &["db", "verify"]);
}

/// A service whose last sync fails ends with a code that says so.
#[test]
fn a_service_whose_last_sync_fails_says_so() {
    let (directory, db) = database();
    let library = failing_sync(directory.path());
    ok(&db, &["db", "put", "before", "{}"]);
    let (flag, log) = (directory.path().join("flag"), directory.path().join("log"));
    let mut command = gattway(&db);
    command.args(["serve", "--trust-all", "--json", "--listen", "tcp:127.0.0.1:0"]);
    command.env("LD_PRELOAD", &library).env("FAILING_SYNC_FLAG", &flag);
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut serve = Process::of(command);
    serve.address();
    std::fs::write(&flag, []).unwrap();
    let code = serve.terminate();
    let said = std::fs::read_to_string(&log).unwrap();
    check_said(&said, "serve");
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("Input/output error"), "{said}");
    std::fs::remove_file(&flag).unwrap();
    assert_eq!(ok(&db, &["db", "ls"]), "before\n");
}

/// The new log of a compaction is on stable storage before it takes the place of the former one, and has taken it on stable storage before
/// anything of that one goes.
#[test]
fn a_compaction_removes_nothing_before_the_medium_has_what_replaces_it() {
    let (directory, db) = database();
    let library = failing_sync(directory.path());
    for n in 0..20 {
        ok(&db, &["db", "put", &format!("d{n}"), "{}"]);
    }
    let path = directory.path().join("trace");
    let mut command = gattway(&db);
    command.args(["db", "compact"]).env("LD_PRELOAD", &library).env("FAILING_SYNC_TRACE", &path);
    assert!(command.status().unwrap().success());
    let trace = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = trace.lines().map(str::trim_end).collect();
    let position = |wanted: &dyn Fn(&&str) -> bool, what: &str| {
        lines.iter().position(wanted).unwrap_or_else(|| panic!("{what}: {trace}"))
    };
    let db = db.canonicalize().unwrap().display().to_string();
    let rename = position(&|line| line.starts_with("rename ") && line.ends_with("/current"), "no rename");
    let synced =
        |what: &str, lines: &[&str]| lines.iter().rposition(|line| *line == format!("sync {db}{what}"));
    let written = lines[..rename].iter().rposition(|line| *line == format!("write {db}/log-000002/db"));
    assert!(written.is_some(), "nothing was written: {trace}");
    for file in ["/log-000002/db", "/log-000002/conf", "/log-000002", "", "/current.partial"] {
        assert!(synced(file, &lines[..rename]).is_some(), "{file} is not synced before the rename: {trace}");
    }
    assert!(
        synced("/log-000002/db", &lines[..rename]) > written,
        "what was written last is not synced: {trace}"
    );
    let is_former =
        |line: &str| line.starts_with("remove") && line.replace(' ', "/").ends_with("/log-000001/db");
    let removal = position(&|line| is_former(line), "the former log was not removed");
    assert!(removal > rename, "the former log goes before the new one is named: {trace}");
    assert!(
        synced("", &lines[rename..removal]).is_some(),
        "the new name is not synced before the former log goes: {trace}"
    );
}
