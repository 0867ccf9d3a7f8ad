//! What only reads leaves everything as it is: it makes no database, and where nothing can be written it reads all the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::command::{Ended, Process, free_port, ok, run};
use super::{PENGUINS, WEATHER, database};

#[test]
fn a_mistyped_name_makes_no_database() {
    let (directory, db) = database();
    let backup = directory.path().join("backup");
    let backup = backup.to_str().unwrap();
    for args in [
        &["db", "get", "x"][..],
        &["db", "ls"],
        &["db", "rm", "x"],
        &["db", "export"],
        &["db", "export", "--keep-going"],
        &["db", "changes"],
        &["db", "collections"],
        &["db", "collections", "--delete", "x"],
        &["db", "info"],
        &["db", "compact"],
        &["db", "verify"],
        &["db", "repair"],
        &["db", "backup", backup],
        &["peers", "ls"],
        &["peers", "rename", "a", "b"],
        &["peers", "deny", "a"],
        &["peers", "forget", "a"],
        &["group", "show"],
        &["group", "leave"],
    ] {
        let ended = run(&db, args);
        assert_eq!(ended.code, Some(5), "{args:?}: {ended:?}");
        assert!(
            ended.stderr.contains("there is no database in") && ended.stdout.is_empty(),
            "{args:?}: {ended:?}"
        );
        assert!(ended.stderr.contains("--db"), "{args:?}: {ended:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{args:?} made something");
    }
    // What makes one says so, once.
    let says = |ended: &Ended| ended.stderr.contains("made a new, empty database in");
    let address = format!("tcp:127.0.0.1:{}", free_port());
    let first = run(&db, &["sync", &address, "--attempts", "1"]);
    assert!(first.code == Some(6) && says(&first), "{first:?}");
    assert!(!says(&run(&db, &["sync", &address, "--attempts", "1"])));
    let other = directory.path().join("other");
    let mut server = Process::start(&other, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    assert_eq!(server.event().unwrap()["event"], "created");
    server.address();
    assert_eq!(server.terminate(), Some(0));
}

/// Content and time of change of each file below a directory.
fn state(directory: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            found.extend(state(&path));
            found.insert(path, (None, changed));
        } else if path.is_file() {
            found.insert(path.clone(), (Some(fs::read(&path).unwrap()), changed));
        }
    }
    found
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A directory that is also there as a file system that cannot be written to.
struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    /// `None` where mounting is not allowed.
    fn mount(of: &Path) -> Option<ReadOnly> {
        let place = ReadOnly(tempfile::tempdir().unwrap());
        let mount = |args: &[&str]| {
            Command::new("mount").args(args).arg(place.0.path()).output().is_ok_and(|o| o.status.success())
        };
        let of = of.to_str().unwrap();
        (mount(&["--bind", of]) && mount(&["-o", "remount,bind,ro"])).then_some(place)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A database with some history: `closed` in order, or as a killed process leaves it.
fn with_history(db: &Path, closed: bool) {
    ok(db, &["db", "import", WEATHER, "--id-from", "date"]);
    ok(
        db,
        &[
            "db",
            "import",
            PENGUINS,
            "--id-prefix",
            "p",
            "--short-ids",
            "-c",
            "field.birds",
            "--create-collection",
        ],
    );
    ok(db, &["db", "rm", "2010-01-01T01:00:00"]);
    ok(db, &["id"]);
    if !closed {
        let lines = db.with_extension("ndjson");
        // Lines of which none is taken, so that the count of documents stays.
        std::fs::write(&lines, "[\n]\n").unwrap();
        let lines = lines.to_str().unwrap();
        let args = ["serve", "--listen", "tcp:127.0.0.1:0", "--json", "--import", lines, "--id-prefix", "q"];
        let mut server = Process::start(db, &args);
        server.wait_for(|event| event["event"] == "import_ended");
        std::fs::remove_file(lines).unwrap();
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        assert!(!db.join("log-000001/seal").exists());
    }
}

#[test]
fn what_cannot_be_written_to_is_read_without_changing_a_byte() {
    for closed in [true, false] {
        let (directory, original) = database();
        with_history(&original, closed);
        let twin = directory.path().join("twin");
        copy(&original, &twin);
        let Some(mounted) = ReadOnly::mount(directory.path()) else {
            println!("a read-only file system needs a mount, which is not allowed here");
            return;
        };
        let db = mounted.0.path().join(original.file_name().unwrap());
        let before = state(&original);
        assert!(fs::write(db.join("probe"), "").is_err(), "it can be written to");
        for args in [
            &["db", "get", "2010-01-01T02:00:00"][..],
            &["db", "ls", "--json"],
            &["db", "ls", "-c", "field.birds"],
            &["db", "export", "--revisions"],
            &["db", "export", "-c", "field.birds"],
            &["db", "changes", "--json"],
            &["db", "collections"],
            &["db", "verify"],
            &["id"],
            &["peers", "ls"],
        ] {
            let read = run(&db, args);
            assert_eq!(read.code, Some(0), "{args:?}: {read:?}");
            assert_eq!(read.stdout, ok(&twin, args), "{args:?}");
        }
        let info = ok(&db, &["db", "info", "--json"]);
        assert!(info.contains("\"read_only\":true") && info.contains("8758"), "{info}");
        let (backup, restored) = (directory.path().join("backup"), directory.path().join("restored"));
        ok(&db, &["db", "backup", backup.to_str().unwrap()]);
        ok(&db, &["db", "restore", backup.to_str().unwrap(), "--to", restored.to_str().unwrap()]);
        let repaired = directory.path().join("repaired");
        ok(&db, &["db", "repair", "--to", repaired.to_str().unwrap()]);
        let export = |db: &Path| ok(db, &["db", "export", "--revisions"]);
        let all = export(&db);
        assert!(export(&restored) == all && export(&repaired) == all);
        for args in [
            &["db", "put", "x", "{}"][..],
            &["db", "rm", "2010-01-01T02:00:00"],
            &["db", "compact"],
            &["db", "collections", "--create", "more"],
            &["sync", "tcp:127.0.0.1:1"],
        ] {
            let refused = run(&db, args);
            assert_eq!(refused.code, Some(5), "{args:?}: {refused:?}");
        }
        assert_eq!(state(&original), before, "closed {closed}");
    }
}

#[test]
fn repair_leaves_a_sound_database_as_it_is() {
    for closed in [true, false] {
        let (_directory, db) = database();
        with_history(&db, closed);
        let before = state(&db);
        let said = ok(&db, &["db", "repair"]);
        assert!(said.contains("nothing was changed"), "{said}");
        assert!(ok(&db, &["db", "repair", "--json"]).contains("\"changed\":false"));
        assert_eq!(state(&db), before, "closed {closed}");
        assert_eq!(fs::read_dir(db.parent().unwrap()).unwrap().count(), 1);
    }
}
