//! What somebody does who knows only `--help`: mistakes are told as what they are, and leave nothing behind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::Value;

use super::command::{Process, ok, run, run_with_input};
use super::{WEATHER, database};

#[test]
fn what_cannot_be_taken_makes_no_database() {
    let (directory, db) = database();
    let table = directory.path().join("t.csv");
    std::fs::write(&table, "a,b\n1,2\n").unwrap();
    let table = table.to_str().unwrap();
    let wrong: [(&[&str], i32); 7] = [
        (&["db", "put", "x", "{bad"], 4),
        (&["db", "put", "", "{}"], 4),
        (&["db", "import", table], 4),
        (&["db", "import", table, "--id-from", "c"], 4),
        (&["db", "import", "none.csv", "--id-from", "a"], 4),
        (&["group", "join"], 4),
        (&["pair", "tcp:127.0.0.1:1", "--code-file", "-"], 4),
    ];
    for (args, code) in wrong {
        let ended = run_with_input(&db, args, b"nonsense");
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!(!db.exists() && !ended.stderr.contains("made a new"), "{args:?}: {ended:?}");
    }
}

#[test]
fn errors_name_the_place_and_what_to_do() {
    let (directory, db) = database();
    let folder = directory.path().to_str().unwrap();
    ok(&db, &["db", "put", "x", "{}"]);
    let backup = directory.path().join("b.backup");
    ok(&db, &["db", "backup", backup.to_str().unwrap()]);
    let told: [(&[&str], i32, &str); 5] = [
        (&["db", "import", folder, "--id-from", "a"], 4, "is a directory"),
        (&["sync", "gateway:4985"], 2, "perhaps tcp:gateway:4985 is meant"),
        (&["group", "join"], 4, "nothing was given for the group's code"),
        (&["db", "restore", backup.to_str().unwrap(), "--to", db.to_str().unwrap()], 5, "is there already"),
        (&["db", "unsynced"], 0, ""),
    ];
    for (args, code, words) in told {
        let ended = run(&db, args);
        assert!(ended.code == Some(code) && ended.stderr.contains(words), "{args:?}: {ended:?}");
    }
    let nowhere = Path::new("/proc/nothing/my.db");
    for args in [&["db", "put", "x", "{}"][..], &["sync", "tcp:127.0.0.1:1"], &["group", "create"]] {
        let ended = run(nowhere, args);
        assert_eq!(ended.code, Some(5), "{ended:?}");
        assert!(
            ended.stderr.contains("/proc/nothing/my.db") && ended.stderr.contains("\n  -> "),
            "{ended:?}"
        );
    }
}

#[test]
fn one_document_that_is_not_there_keeps_no_other() {
    let (_directory, db) = database();
    for id in ["a", "b", "c"] {
        ok(&db, &["db", "put", id, "{}"]);
    }
    let ended = run(&db, &["db", "rm", "none", "a", "nor this", "b"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), "a\nb\n"));
    assert!(ended.stderr.contains("\"none\"") && ended.stderr.contains("\"nor this\""), "{ended:?}");
    assert_eq!(ok(&db, &["db", "ls"]), "c\n");
}

/// Names of files are bytes; what they are not is no reason to fail.
#[test]
fn names_that_are_no_text_are_taken() {
    let (directory, _) = database();
    let db = directory.path().join(OsStr::from_bytes(b"w\xff\n.db"));
    let records = directory.path().join(OsStr::from_bytes(b"r\xff.ndjson"));
    std::fs::write(&records, "{\"_id\":\"a\"}\n").unwrap();
    let imported = super::gattway(&db).args(["db", "import"]).arg(&records).output().unwrap();
    assert!(imported.status.success(), "{imported:?}");
    for args in [&["db", "info", "--json"][..], &["db", "repair", "--json"], &["db", "verify", "--json"]] {
        let value: Value = serde_json::from_str(&ok(&db, args)).unwrap();
        assert!(value.is_object(), "{value}");
    }
}

/// Whatever only reads asks the process that has the database; what does not says who has it.
#[test]
fn a_served_database_is_read_as_if_it_were_not() {
    let (directory, db) = database();
    ok(&db, &["db", "import", WEATHER, "--id-from", "date"]);
    ok(&db, &["db", "put", "x", r#"{"n":1}"#, "-c", "plant.y", "--create-collection"]);
    let reads: [&[&str]; 9] = [
        &["db", "get", "2010-07-04T12:00:00"],
        &["db", "get", "x", "-c", "plant.y", "--body"],
        &["db", "ls", "--limit", "3"],
        &["db", "ls", "--prefix", "2010-12-31", "--json"],
        &["db", "export", "--revisions"],
        &["db", "export", "-c", "plant.y"],
        &["db", "collections", "--json"],
        &["db", "unsynced"],
        &["db", "unsynced", "--json"],
    ];
    let alone: Vec<String> = reads.iter().map(|args| ok(&db, args)).collect();
    let mut serve = Process::start(&db, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    serve.address();
    for (args, alone) in reads.iter().zip(&alone) {
        let served = run(&db, args);
        assert_eq!((served.code, &served.stdout), (Some(0), alone), "{args:?}: {}", served.stderr);
    }
    let info: Value = serde_json::from_str(&ok(&db, &["db", "info", "--json"])).unwrap();
    assert_eq!(info["collections"][0]["documents"], 8759);
    // Errors are the same too, with their codes.
    for (args, words) in [
        (&["db", "get", "none"][..], "no document \"none\""),
        (&["db", "ls", "-c", "no.such"], "no collection \"no.such\""),
    ] {
        let ended = run(&db, args);
        assert!(ended.code == Some(3) && ended.stderr.contains(words), "{args:?}: {ended:?}");
    }
    let inside = directory.path().join("out");
    let backup = inside.to_str().unwrap();
    for args in [&["db", "compact"][..], &["db", "repair", "--to", backup]] {
        let ended = run(&db, args);
        let told =
            ended.stderr.contains("is in use by process") && ended.stderr.contains("everything else works");
        assert!(ended.code == Some(5) && told, "{args:?}: {ended:?}");
    }
    assert_eq!(serve.terminate(), Some(0));
}
