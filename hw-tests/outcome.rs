//! What the commands say and leave behind when not everything could be synced.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod command;

use std::path::PathBuf;

use command::{Process, ok, run};

/// A database path in a directory that lives as long as the first value.
fn database() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    (directory, path)
}

/// Collections that `sync` or `serve` made for nothing are taken back, whatever it failed at.
#[test]
fn a_failed_create_collections_leaves_nothing_behind() {
    let ((_a, here), (_b, there)) = (database(), database());
    ok(&there, &["db", "put", "x", "{}"]);
    let nobody = "tcp:127.0.0.1:1";
    let bad: [&[&str]; 3] = [
        // The second name cannot be.
        &["sync", nobody, "--create-collections", "-c", "new.one", "-c", "a b"],
        // Nobody is there.
        &["sync", nobody, "--create-collections", "-c", "new.one", "--attempts", "1"],
        &["serve", "--listen", "tcp:203.0.113.1:9", "--create-collections", "-c", "new.one"],
    ];
    for args in bad {
        let ended = run(&here, args);
        assert_ne!(ended.code, Some(0), "{args:?}: {ended:?}");
        assert_eq!(ok(&here, &["db", "collections"]), "_default  0 documents\n", "after {args:?}");
    }
    // The peer does not have it.
    let mut server = Process::start(&there, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    let ended = run(&here, &["sync", &address, "--create-collections", "-c", "new.one"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.stderr.contains("new.one"), "{ended:?}");
    assert_eq!(ok(&here, &["db", "collections"]), "_default  0 documents\n");
    // What has documents stays, whatever became of the sync.
    ok(&here, &["db", "put", "y", "{}", "-c", "logs", "--create-collection"]);
    run(&here, &["sync", &address, "--create-collections", "-c", "logs"]);
    assert!(ok(&here, &["db", "collections"]).contains("_default.logs  1 document\n"));
}

/// Both forms of a name of the default scope, on the command line and between the peers.
#[test]
fn a_collection_of_the_default_scope_syncs_under_either_name() {
    let ((_a, here), (_b, there)) = (database(), database());
    ok(&here, &["db", "put", "from-here", "{}", "-c", "logs", "--create-collection"]);
    ok(&there, &["db", "put", "from-there", "{}", "-c", "_default.logs", "--create-collection"]);
    let args = ["serve", "--listen", "tcp:127.0.0.1:0", "--json", "-c", "logs"];
    let mut server = Process::start(&there, &args);
    let address = server.address();
    ok(&here, &["sync", &address, "-c", "_default.logs", "-c", "logs"]);
    assert_eq!(ok(&here, &["db", "ls", "-c", "logs"]), "from-here\nfrom-there\n");
}
