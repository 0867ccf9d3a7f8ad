//! The command beside a process that has the database open: the same words, the same codes.

use std::path::Path;

use serde_json::{Value, json};

use super::Served;
use super::command::{Ended, ok, run, run_with_input};

/// What the commands of a person print, one after the other; revisions and sequences are another time's.
fn talk(db: &Path, file: &Path) -> Vec<String> {
    let steps: [(&[&str], &str); 30] = [
        (&["db", "collections", "--create", "plant.readings", "--json"], ""),
        (&["db", "put", "valve-7", "{\"open\": true}", "--json"], ""),
        (&["db", "put", "from-stdin", "-"], "{\"n\": 1}"),
        (&["db", "put", "bad", "-"], "{\"_n\": 1}"),
        (&["db", "put", "valve-7", "{}", "--if-revision", "none"], ""),
        (&["db", "put", "x", "{}", "-c", "plant.none"], ""),
        (&["db", "put", "x", "{}", "-c", "plant.made", "--create-collection"], ""),
        (&["db", "get", "valve-7", "--body"], ""),
        (&["db", "expire", "valve-7", "none", "--at", "2090-01-01T00:00:00Z"], ""),
        (&["db", "expire", "valve-7"], ""),
        (&["db", "import", file.to_str().unwrap(), "-c", "plant.readings", "--json"], ""),
        (&["db", "import", file.to_str().unwrap(), "-c", "plant.readings", "--json"], ""),
        (
            &["db", "import", "-", "--format", "ndjson", "-c", "plant.readings"],
            "{\"_id\": \"r-1\", \"n\": 2}\n",
        ),
        (
            &["db", "import", "-", "--format", "ndjson", "--id-prefix", "p-", "--short-ids", "--json"],
            "{}\n{}\n",
        ),
        (&["db", "import", "-", "--format", "ndjson", "--id-prefix", "p-", "--short-ids", "--json"], "{}\n"),
        (&["db", "rm", "from-stdin", "none", "--json"], ""),
        (&["db", "rm", "x", "--purge", "-c", "plant.made"], ""),
        (&["query", "-c", "plant.readings", "--where", "n>=1498", "--sort", "n:desc", "--json"], ""),
        (&["query", "-c", "plant.readings", "--where", "n<3", "--fields", "_id,n", "--limit", "2"], ""),
        (&["query", "-c", "plant.readings", "--tell", "last=last:_id:n", "--tell", "n=count", "--json"], ""),
        (&["query", "-c", "plant.readings", "--explain", "--json"], ""),
        (&["index", "create", "plant.none", "--on", "n"], ""),
        (&["index", "create", "plant.readings", "--on", "_id"], ""),
        (&["index", "drop", "plant.readings", "n"], ""),
        (&["index", "list", "--json"], ""),
        (&["query", "-c", "plant.none"], ""),
        (&["query", "{\"select\": 1}"], ""),
        (&["query", "--where", "n"], ""),
        (&["db", "ls"], ""),
        (&["db", "collections"], ""),
    ];
    let told = |ended: Ended| {
        let stdout = ended.stdout.lines().map(|line| match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(mut fields)) => {
                fields.remove("_rev");
                json!(fields).to_string()
            }
            _ if line.contains('@') => "a revision".to_owned(),
            _ => line.to_owned(),
        });
        let stdout: Vec<String> = stdout.collect();
        // Where it was made is said once.
        let stderr = ended.stderr.lines().filter(|line| !line.starts_with("made a new"));
        let stderr: Vec<String> =
            stderr.map(|line| line.split(" is at").next().unwrap().to_owned()).collect();
        format!("{:?} {stdout:?} {stderr:?}", ended.code)
    };
    steps
        .iter()
        .map(|(args, input)| format!("{args:?}: {}", told(run_with_input(db, args, input.as_bytes()))))
        .collect()
}

#[test]
fn commands_say_the_same_beside_whoever_has_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("readings.ndjson");
    let lines: String = (0..1_500).map(|n| format!("{{\"_id\": \"r-{n}\", \"n\": {n}}}\n")).collect();
    std::fs::write(&file, lines).unwrap();
    let alone = talk(&directory.path().join("alone.db"), &file);
    let served = Served::start();
    let held = talk(&served.db, &file);
    for (alone, held) in alone.iter().zip(&held) {
        let without_the_other_stored =
            |text: &str| text.split("the stored revision").next().unwrap().to_owned();
        assert_eq!(without_the_other_stored(held), without_the_other_stored(alone));
    }
    assert!(alone[10].contains("1500") && alone.iter().all(|line| !line.contains("in use")), "{alone:#?}");

    // Who may come in stands in files beside the documents.
    ok(&served.db, &["peers", "ls"]);
    ok(&served.db, &["group", "create"]);
    ok(&served.db, &["group", "show"]);
    // What needs it alone says who has it, and what to do.
    for args in [&["db", "compact"][..], &["db", "collections", "--delete", "plant.made"], &["db", "verify"]]
    {
        let ended = run(&served.db, args);
        let told = ended.stderr.contains("in use by process") && ended.stderr.contains("end it first");
        assert!(ended.code == Some(5) && told, "{args:?}: {ended:?}");
    }
    super::end(served);
    assert_eq!(run(&directory.path().join("alone.db"), &["db", "compact"]).code, Some(0));
}

#[test]
fn a_directory_with_a_long_name_is_reached_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("{}.db", "n".repeat(120));
    let served = Served::start_in(directory, &name);
    ok(&served.db, &["db", "put", "a", "{}"]);
    assert_eq!(ok(&served.db, &["db", "changes"]).lines().count(), 1);
    assert_eq!(served.process.terminate(), Some(0));
}
