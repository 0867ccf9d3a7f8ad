//! Imports as people use them: tables and their types, IDs that meet, numbers that go on, files of other kinds.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::command::{Process, ok, run, run_with_input};
use super::{WEATHER, database, documents};

fn summary(stdout: &str) -> Value {
    serde_json::from_str(stdout.trim()).unwrap()
}

/// Readings of a sensor, one an hour.
fn readings(sensor: &str, value: &str) -> String {
    (0..60).map(|n| format!("{{\"sensor\":\"{sensor}\",\"time\":\"12:{n:02}\",\"v\":{value}}}\n")).collect()
}

#[test]
fn readings_of_two_sensors_do_not_overwrite_each_other() {
    let (_directory, db) = database();
    let by_time = ["db", "import", "-", "--format", "ndjson", "--id-from", "time"];
    assert_eq!(run_with_input(&db, &by_time, readings("a", "1").as_bytes()).code, Some(0));
    let second = run_with_input(&db, &by_time, readings("b", "2").as_bytes());
    assert_eq!(second.code, Some(4), "{second:?}");
    for said in [
        "standard input: line 1: document \"12:00\" is there with other content, which was kept; --replace",
        "imported 0 documents, 60 kept with other content",
        "60 records not imported",
        "--id-from sensor,time",
    ] {
        assert!(second.stderr.contains(said), "{said}: {second:?}");
    }
    assert!(!second.stderr.contains("line 11"), "ten are named: {second:?}");
    assert!(documents(&db).iter().all(|document| document["sensor"] == "a"));
    // The whole of it in one input is refused before anything is written.
    let both = readings("c", "1") + &readings("d", "2");
    let refused = run_with_input(&db, &by_time, both.as_bytes());
    assert!(refused.stderr.contains("line 61: the ID \"12:00\" was used on line 1 already"), "{refused:?}");

    let by_both = ["db", "import", "-", "--format", "ndjson", "--id-from", "sensor,time", "--json"];
    let together = run_with_input(&db, &by_both, both.as_bytes());
    assert_eq!((together.code, summary(&together.stdout)["saved"].clone()), (Some(0), json!(120)));
    assert!(documents(&db).iter().any(|document| document["_id"] == "d::12:59"));
    let again = run_with_input(&db, &by_both, both.as_bytes());
    assert_eq!((again.code, summary(&again.stdout)["unchanged"].clone()), (Some(0), json!(120)));
    let mut replace = by_time.to_vec();
    replace.extend(["--replace", "--json"]);
    let replaced = run_with_input(&db, &replace, readings("b", "2").as_bytes());
    assert_eq!((replaced.code, summary(&replaced.stdout)["replaced"].clone()), (Some(0), json!(60)));
}

#[test]
fn numbers_go_on_in_the_next_process() {
    let (_directory, db) = database();
    let numbered = ["db", "import", "-", "--format", "ndjson", "--id-prefix", "r-", "--short-ids"];
    for run in 0..2 {
        let input = format!("{{\"run\":{run}}}\n{{\"run\":{run}}}\n");
        assert_eq!(run_with_input(&db, &numbered, input.as_bytes()).code, Some(0));
    }
    let mut serve = Process::start(
        &db,
        &[
            "serve",
            "--listen",
            "tcp:127.0.0.1:0",
            "--json",
            "--import",
            "-",
            "--id-prefix",
            "r-",
            "--short-ids",
        ],
    );
    let mut stdin = serve.stdin.take().unwrap();
    // One line that can be no document takes nothing with it.
    stdin.write_all(b"{\"run\":2}\n{\"\":1}\n{\"a\":1,\"a\":1}\n{\"run\":2}\n").unwrap();
    drop(stdin);
    let told = serve.wait_for(|event| event["event"] == "import_ended");
    assert_eq!((&told["saved"], &told["rejected"]), (&json!(2), &json!(2)));
    // The lines that were not taken, at the end.
    assert_eq!(serve.terminate(), Some(4));
    let ids = ok(&db, &["db", "ls"]);
    assert_eq!(
        ids.lines().collect::<Vec<_>>(),
        ["r-000001", "r-000002", "r-000003", "r-000004", "r-000005", "r-000006"]
    );
    let runs: Vec<Value> = documents(&db).into_iter().map(|document| document["run"].clone()).collect();
    assert_eq!(runs, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn a_column_of_a_table_has_one_type() {
    let (directory, db) = database();
    let table = "\u{feff}id\tprice\tzip\tnote\tok\r\n1\t20.50\t007\t\ttrue\r\n2\t20.55\t12\t\"a\tb\"\tfalse\r\n3\t21\t13\tn/a\t\r\n";
    let path = directory.path().join("prices.tsv.gz");
    let mut file = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
    file.write_all(table.as_bytes()).unwrap();
    file.finish().unwrap();
    let path = path.to_str().unwrap();
    let ended = run(&db, &["db", "import", path, "--id-from", "id", "--types", "ok=bool"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let warning = "column `zip` is text: 1 of 3 cells is no number that a double keeps (line 2: \"007\")";
    assert!(ended.stderr.contains(warning), "{ended:?}");
    assert_eq!(ended.stderr.matches("column ").count(), 1, "{ended:?}");
    assert_eq!(
        documents(&db),
        [
            json!({"_id": "1", "id": 1, "price": 20.5, "zip": "007", "note": null, "ok": true}),
            json!({"_id": "2", "id": 2, "price": 20.55, "zip": "12", "note": "a\tb", "ok": false}),
            json!({"_id": "3", "id": 3, "price": 21.0, "zip": "13", "note": "n/a", "ok": null}),
        ]
    );
    for (types, code, said) in [
        (
            "zip=number",
            4,
            "line 2: `zip` is \"007\", which is no number that a double keeps; nothing was imported",
        ),
        ("zap=number", 2, "--types names a column \"zap\"; there are: id, price, zip, note, ok"),
        ("zip=float", 2, "text, integer, number, bool"),
    ] {
        let refused = run(&db, &["db", "import", path, "--id-from", "id", "--types", types]);
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    for (format, input, said) in [
        ("csv", "a;b\n1;2\n", "--delimiter"),
        ("csv", "a,b\n1,\"2\n3,4\n", "line 2: the quote that opens a cell here is never closed"),
        ("csv", "_id,b\n1,2\nx\0y,4\n", "line 3: a NUL byte"),
        ("ndjson", "{\"_id\":\"a\"}\n{\"_id\":\"x\\u0000y\"}\n", "line 2: \"x\\0y\" cannot be a document ID"),
        (
            "ndjson",
            "{\"_id\":\"a\",\"n\":12345678901234567890123}\n",
            "line 1: the number 12345678901234567890123 would change",
        ),
    ] {
        let refused = run_with_input(&db, &["db", "import", "-", "--format", format], input.as_bytes());
        assert_eq!(refused.code, Some(4), "{refused:?}");
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    let semicolons = ["db", "import", "-", "--format", "csv", "--delimiter", ";", "--id-from", "a"];
    assert_eq!(run_with_input(&db, &semicolons, b"a;b\n9;2\n").code, Some(0));
    assert_eq!(ok(&db, &["db", "get", "9", "--body"]), "{\"a\":9,\"b\":2}\n");
}

/// Standard input that is too long to be read twice: types come from its start, and a cell that does not fit is refused.
#[test]
fn a_long_table_on_standard_input_keeps_its_types() {
    let (_directory, db) = database();
    let mut table = "id,v,note\n".to_owned();
    for n in 0..20_000 {
        table.push_str(&format!("{n},{n},{}\n", "x".repeat(1_750)));
    }
    assert!(table.len() > 33 << 20);
    table.push_str("20000,1.5,x\n");
    let import = ["db", "import", "-", "--format", "csv", "--id-from", "id"];
    let ended = run_with_input(&db, &import, table.as_bytes());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    for said in [
        "line 20002: `v` is \"1.5\", which is no whole number",
        "--types v=text",
        "records before it were imported",
    ] {
        assert!(ended.stderr.contains(said), "{said}: {ended:?}");
    }
    assert_eq!(ok(&db, &["db", "get", "7", "--body"]).matches("\"v\":7").count(), 1);
}

#[test]
fn the_last_of_several_files_wins_when_it_is_told_to() {
    let (directory, db) = database();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let first =
        file("a.ndjson", "{\"_id\":\"x\",\"n\":1}\n{\"_id\":\"y\",\"n\":1}\n{\"_id\":\"x\",\"n\":2}\n");
    let second = file("b.csv", "_id,n\nz,3\nx,3\n");
    let refused = run(&db, &["db", "import", &first, &second]);
    assert!(
        refused.stderr.contains("a.ndjson: line 3: the ID \"x\" was used on line 1 already"),
        "{refused:?}"
    );
    let third = file("c.ndjson", "{\"_id\":\"y\",\"n\":4}\n");
    let refused = run(&db, &["db", "import", &second, &third, &file("d.json", "[{\"_id\":\"z\"}]")]);
    assert!(refused.stderr.contains("line 1: the ID \"z\" was used on line 2 of "), "{refused:?}");
    ok(&db, &["db", "import", &first, &second, "--last-wins"]);
    assert_eq!(
        documents(&db),
        [json!({"_id": "x", "n": 3}), json!({"_id": "y", "n": 1}), json!({"_id": "z", "n": 3})]
    );
}

#[test]
fn what_is_printed_can_be_saved_again_and_nothing_else_passes_for_it() {
    let (_directory, db) = database();
    ok(&db, &["db", "put", "x", "{\"n\":1}"]);
    let printed = ok(&db, &["db", "get", "x"]);
    assert_eq!(run_with_input(&db, &["db", "put", "x", "-"], printed.as_bytes()).code, Some(0));
    for (body, said) in [
        (printed.as_str(), "its `_id` is \"x\", and it would be saved as \"y\""),
        ("{\"_deleted\":true}", "gattway db rm y"),
        ("{\"_exp\":1}", "the key \"_exp\" begins with `_`"),
        ("{\"\":1}", "a key at the top level is empty"),
        ("{\"a\":1,\"a\":2}", "duplicate key \"a\""),
        ("{\"a\":98765432109876543210}", "it has more than 64 bits"),
        ("[1]", "not a JSON object"),
    ] {
        let refused = run_with_input(&db, &["db", "put", "y", "-"], body.as_bytes());
        assert_eq!(refused.code, Some(4), "{body}: {refused:?}");
        assert!(refused.stderr.contains(said) && refused.stderr.contains("\"y\""), "{said}: {refused:?}");
    }
    for id in ["_x", "a\u{1}b", &"i".repeat(241)] {
        assert_eq!(run(&db, &["db", "put", id, "{}"]).code, Some(4), "{id:?}");
    }
    assert_eq!(ok(&db, &["db", "ls"]), "x\n");
}

#[test]
fn the_sample_keeps_its_numbers() {
    let (_directory, db) = database();
    let ended = run(&db, &["db", "import", WEATHER, "--id-from", "date"]);
    assert_eq!((ended.code, ended.stderr.contains("column ")), (Some(0), false), "{ended:?}");
}
