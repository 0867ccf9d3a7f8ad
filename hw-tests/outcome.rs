//! What the commands say and leave behind when not everything could be synced.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod command;

use std::path::{Path, PathBuf};

use command::{Process, ok, run};
use serde_json::{Value, json};

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

/// Adverts that cannot be made are refused before there is a database, also where none would be sent.
#[test]
fn adverts_that_cannot_be_make_no_database() {
    let (_directory, path) = database();
    for listen in ["ble", "tcp:127.0.0.1:0"] {
        let ended = run(&path, &["serve", "--listen", listen, "--advert-fast-interval", "1ms"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("20 ms to 10.24 s"), "{ended:?}");
        assert!(!path.exists(), "made for nothing");
    }
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

/// Names the blob of [`save_blob`].
const BLOB: &str =
    r#"{"n":1,"pic":{"@type":"blob","digest":"sha1-HR5cOC1UTWlaniuITPfRzhLZQ4Q=","length":9}}"#;

fn save_blob(db: &Path) {
    let database = gattway::Database::open(db, gattway::DatabaseConfig::default()).unwrap();
    let blob = database.save_blob(&b"a picture"[..], "image/png").unwrap();
    assert!(BLOB.contains(blob.digest()), "{}", blob.digest());
    database.close().unwrap();
}

/// Nobody has it any more, and documents name it on.
fn lose_blob(db: &Path) {
    std::fs::remove_dir_all(db.join("blobs")).unwrap();
}

/// The JSON lines of an output.
fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A document with a blob whose content cannot come along: refused and named by both sides, on a list, not sent again, and
/// the process does not end as if all were well; in both directions.
#[test]
fn a_document_that_would_not_be_whole_is_named_until_it_is() {
    for pushed in [true, false] {
        let ((_a, here), (_b, there)) = (database(), database());
        let (from, to) = if pushed { (&here, &there) } else { (&there, &here) };
        save_blob(from);
        ok(from, &["db", "put", "photo", BLOB]);
        lose_blob(from);
        ok(from, &["db", "put", "reading", r#"{"n":2}"#]);
        let (direction, opposite) = if pushed { ("sent", "received") } else { ("received", "sent") };
        for run_number in 0..3 {
            let mut server = Process::start(&there, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
            let address = server.address();
            let ended = run(&here, &["sync", &address, "--json"]);
            assert_eq!(ended.code, Some(7), "{pushed} {run_number}: {ended:?}");
            let events = json_lines(&ended.stdout);
            let last = events.last().unwrap();
            assert_eq!((&last["event"], &last["ok"]), (&json!("finished"), &json!(false)), "{last}");
            assert_eq!(last["unsynced"], json!({"documents": 1, "collections": 0}), "{last}");
            assert_eq!(last["documents"], u64::from(run_number == 0), "{last}");
            let unsynced = events.iter().rev().find(|event| event["event"] == "unsynced").unwrap();
            let document = &unsynced["listed"][0];
            assert_eq!((&document["_id"], &document["direction"]), (&json!("photo"), &json!(direction)));
            assert!(document["error"].as_str().unwrap().contains("blob"), "{document}");
            let failed = events.iter().filter(|event| event["event"] == "document").count();
            assert_eq!(failed, usize::from(run_number == 0), "it is tried once");
            if run_number == 0 {
                let told = server.wait_for(|event| event["event"] == "document");
                assert_eq!((&told["_id"], &told["direction"]), (&json!("photo"), &json!(opposite)));
                assert!(told["peer"].as_str().is_some_and(|peer| !peer.is_empty()), "{told}");
            }
            let told = server.wait_for(|event| event["event"] == "unsynced");
            assert_eq!(told["documents"], 1, "{told}");
            assert_eq!(server.terminate(), Some(0));
            for (db, direction) in [(&here, direction), (&there, opposite)] {
                let rows = json_lines(&ok(db, &["db", "unsynced", "--json"]));
                assert_eq!(rows.len(), 1, "{rows:?}");
                assert_eq!((&rows[0]["_id"], &rows[0]["direction"]), (&json!("photo"), &json!(direction)));
                let text = ok(db, &["db", "unsynced"]);
                assert!(text.contains("\"photo\"") && text.contains("blob"), "{text}");
            }
            assert_eq!(ok(to, &["db", "ls"]), "reading\n");
        }
        // Without it the document comes, and nobody lists it any more.
        ok(from, &["db", "put", "photo", r#"{"n":3}"#]);
        let mut server = Process::start(&there, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
        let address = server.address();
        ok(&here, &["sync", &address]);
        assert_eq!(server.terminate(), Some(0));
        assert_eq!(ok(to, &["db", "get", "photo", "--body"]), "{\"n\":3}\n");
        for db in [&here, &there] {
            assert_eq!(ok(db, &["db", "unsynced", "--json"]), "");
        }
    }
}

/// What people see, and `--retry`.
#[test]
fn people_are_told_what_was_not_synced_and_can_try_again() {
    let ((_a, here), (_b, there)) = (database(), database());
    save_blob(&here);
    for n in 0..12 {
        ok(&here, &["db", "put", &format!("photo\u{9b}2J-{n:02}"), BLOB]);
    }
    lose_blob(&here);
    let mut server = Process::start(&there, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    for args in [&["sync", &address][..], &["sync", &address], &["sync", &address, "--retry"]] {
        let ended = run(&here, args);
        assert_eq!(ended.code, Some(7), "{ended:?}");
        for words in ["except for 12 documents", "photo", "blob", "and 2 documents more", "db unsynced"] {
            assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        }
        assert!(!ended.stderr.contains(['\u{1b}', '\u{9b}']), "what a peer writes is text: {}", ended.stderr);
        let tried = ended.stderr.lines().filter(|line| line.starts_with("document ")).count();
        assert_eq!(
            tried,
            if ended.stderr.contains("nothing else to do") && args.len() == 2 { tried } else { 12 }
        );
    }
}

/// Each refused document costs its sender a message: the first are named on both sides, the others counted, whole.
#[test]
fn documents_without_end_that_are_refused_fill_no_card() {
    const REFUSED: u64 = 150;
    let ((_a, here), (_b, there)) = (database(), database());
    let photos: String =
        (0..REFUSED).map(|n| BLOB.replace("\"n\":1", &format!("\"_id\":\"{n}\",\"n\":1")) + "\n").collect();
    save_blob(&here);
    let imported =
        command::run_with_input(&here, &["db", "import", "-", "--format", "ndjson"], photos.as_bytes());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    lose_blob(&here);
    for every_one in [false, true] {
        let mut args = vec!["serve", "--listen", "tcp:127.0.0.1:0", "--json"];
        args.extend(every_one.then_some("--documents"));
        let began = std::time::Instant::now();
        let mut server = Process::start(&there, &args);
        let address = server.address();
        let ended = run(&here, &["sync", &address, "--retry"]);
        assert_eq!(ended.code, Some(7), "{ended:?}");
        let told = ended.stderr.lines().filter(|line| line.starts_with("document ")).count() as u64;
        let counted =
            ended.stderr.lines().find(|line| line.contains("that were not synced; `gattway db unsynced`"));
        let counted = counted.and_then(|line| line.split(' ').find_map(|word| word.parse::<u64>().ok()));
        // The others may have been counted in two lines, had it taken long.
        let at_once = 20 + began.elapsed().as_secs() / 6;
        assert!((20..=at_once).contains(&told), "{told} of at most {at_once}: {}", ended.stderr);
        assert!(counted.is_some_and(|counted| counted <= REFUSED - told), "{}", ended.stderr);
        server.signal("TERM");
        let mut events = Vec::new();
        while let Some(event) = server.event() {
            events.push(event);
        }
        let at_once = 20 + 2 * (began.elapsed().as_secs() / 6 + 1);
        let count = |kind: &str| events.iter().filter(|event| event["event"] == kind).count() as u64;
        let suppressed =
            events.iter().filter(|event| event["event"] == "suppressed" && event["of"] == "document");
        let suppressed: u64 = suppressed.map(|event| event["events"].as_u64().unwrap()).sum();
        assert_eq!(count("document") + suppressed, REFUSED, "each is told or counted");
        if every_one {
            assert_eq!(suppressed, 0, "each was asked for");
        } else {
            assert!(count("document") <= at_once, "{} of at most {at_once}", count("document"));
        }
        assert!(count("unsynced") <= 20 + began.elapsed().as_secs() + 1, "{}", count("unsynced"));
        let newest = events.iter().rev().find(|event| event["event"] == "unsynced").unwrap();
        assert_eq!(newest["documents"], REFUSED, "the newest state is told: {newest}");
    }
}

/// A collection that the peer lacks, or a direction that it refuses, is told and stops nothing; by name it is strict.
#[test]
fn collections_and_directions_that_cannot_be_synced_are_told() {
    let ((_a, here), (_b, there)) = (database(), database());
    ok(&here, &["db", "put", "x", "{}", "-c", "plant.mine", "--create-collection"]);
    ok(&here, &["db", "put", "from-here", "{}"]);
    ok(&there, &["db", "put", "y", "{}", "-c", "plant.theirs", "--create-collection"]);
    ok(&there, &["db", "put", "from-there", "{}"]);
    let mut server = Process::start(&there, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    let ended = run(&here, &["sync", &address]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    for words in ["1 collection", "plant.mine: the peer does not have it", "also has plant.theirs"] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    assert_eq!(ok(&here, &["db", "ls"]), "from-here\nfrom-there\n");
    let told = server.wait_for(|event| event["event"] == "unsynced");
    assert_eq!(told["collections"][0]["name"], "plant.mine", "{told}");
    let strict = run(&here, &["sync", &address, "-c", "plant.mine", "-c", "_default"]);
    assert_eq!(strict.code, Some(6), "{strict:?}");
    ok(&here, &["sync", &address, "-c", "_default"]);
    assert_eq!(server.terminate(), Some(0));

    // What only gives takes nothing: the rest is done, and said.
    ok(&here, &["db", "put", "again", "{}"]);
    ok(&there, &["db", "put", "news", "{}"]);
    let args = ["serve", "--listen", "tcp:127.0.0.1:0", "--json", "--read-only", "-c", "_default"];
    let mut server = Process::start(&there, &args);
    let address = server.address();
    ok(&here, &["db", "collections", "--delete", "plant.mine"]);
    let ended = run(&here, &["sync", &address]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(
        ended.stderr.contains("_default: nothing was sent") && ended.stderr.contains("--pull"),
        "{ended:?}"
    );
    assert_eq!(ok(&here, &["db", "ls"]), "again\nfrom-here\nfrom-there\nnews\n");
    ok(&here, &["sync", &address, "--pull"]);
    assert_eq!(run(&here, &["sync", &address, "--push"]).code, Some(6));
}
