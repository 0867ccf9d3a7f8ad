//! What becomes of the lines of a feed, good and bad.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::database::DatabaseConfig;

/// What was told, by line: the ID, or the reason.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<BTreeMap<u64, Result<String, String>>>>);

impl Told {
    fn note(&self, line: u64, what: Result<String, String>) {
        let earlier = self.0.lock().expect("no panic").insert(line, what);
        assert_eq!(earlier, None, "line {line} was told twice");
    }
}

impl Report for Told {
    fn saved(&self, done: &Done, _: &Saver) -> Result<(), CliError> {
        self.note(done.line, Ok(done.id.clone()));
        Ok(())
    }

    fn rejected(&self, line: u64, error: &CliError) {
        assert!(error.to_string().starts_with(&format!("line {line}: ")), "{error}");
        self.note(line, Err(error.to_string()));
    }

    fn ended(&self, _: Fed) {}
}

type Lines = BTreeMap<u64, Result<String, String>>;

/// Feeds a database with this; gives what was told and the IDs of all documents.
fn fed(input: impl BufRead + Send + 'static, args: EntryArgs) -> (Fed, Lines, Vec<String>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let db = Database::open(directory.path().join("db"), DatabaseConfig::default()).expect("open");
    let collection = db.default_collection().expect("default");
    collection.put("there", &json!({"other": "content"})).expect("put");
    let told = Told::default();
    let fed = feed(db, collection.clone(), input, args, told.clone()).expect("storage is sound");
    let ids = collection.iter().map(|document| document.expect("readable").id().to_owned()).collect();
    let lines = told.0.lock().expect("no panic").clone();
    (fed, lines, ids)
}

/// Lines that cannot be taken, each with a part of what is said.
fn bad_lines() -> Vec<(Vec<u8>, &'static str)> {
    let deep =
        |levels: usize| format!("{{\"_id\":\"x\",\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    let texts = [
        ("not json".to_owned(), "expected ident"),
        ("{\"_id\":\"x\"".to_owned(), "EOF"),
        ("[1]".to_owned(), "an array where a JSON object is expected"),
        ("7".to_owned(), "a number where"),
        ("{\"n\":1}".to_owned(), "no `_id`"),
        ("{\"_id\":1.5}".to_owned(), "neither text nor a whole number"),
        ("{\"_id\":\"_x\"}".to_owned(), "begins with `_`"),
        ("{\"_id\":\"\"}".to_owned(), "empty"),
        ("{\"_id\":\"a\\u0000b\"}".to_owned(), "U+0000"),
        (format!("{{\"_id\":\"{}\"}}", "i".repeat(241)), "241 bytes"),
        ("{\"_id\":\"x\",\"\":1}".to_owned(), "a key at the top level is empty"),
        ("{\"_id\":\"x\",\"_revisions\":{}}".to_owned(), "\"_revisions\""),
        ("{\"_id\":\"x\",\"_removed\":true}".to_owned(), "\"_removed\""),
        ("{\"_id\":\"x\",\"_deleted\":\"yes\"}".to_owned(), "neither true nor false"),
        ("{\"_id\":\"x\",\"a\":1,\"a\":2}".to_owned(), "duplicate key"),
        ("{\"_id\":\"x\",\"a\":{\"b\":1,\"b\":2}}".to_owned(), "duplicate key"),
        ("{\"_id\":\"x\",\"n\":123456789012345678901}".to_owned(), "more than 64 bits"),
        ("{\"_id\":\"x\",\"n\":1e999}".to_owned(), "out of range"),
        ("{\"_id\":\"there\"}".to_owned(), "other content"),
        (deep(100), "nested deeper"),
        (deep(200), "nested deeper"),
        ("{\"_id\":\"x\"} {\"_id\":\"y\"}".to_owned(), "trailing characters"),
    ];
    let mut lines: Vec<(Vec<u8>, &str)> =
        texts.into_iter().map(|(text, said)| (text.into_bytes(), said)).collect();
    lines.push((b"{\"_id\":\"\xff\"}".to_vec(), "unicode"));
    lines.push((b"\0\0".to_vec(), "expected value"));
    lines
}

fn good_line(n: usize) -> Vec<u8> {
    let body = match n % 4 {
        0 => format!("{{\"_id\":\"good-{n}\"}}"),
        1 => format!("{{\"_id\":\"good-{n}\",\"a\":{{\"\":1,\"_x\":[]}},\"_rev\":\"1@x\"}}"),
        2 => format!(" {{ \"_id\" : \"good-{n}\" , \"n\" : 18446744073709551615 }} "),
        _ => format!("{{\"_id\":\"good-{n}\",\"t\":\"\\u0000\\ud83d\\ude00\"}}"),
    };
    body.into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_good_line_is_saved_and_every_bad_one_is_named(
        picks in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), any::<bool>()), 0..120),
        crlf in any::<bool>(),
    ) {
        let bad = bad_lines();
        let (mut input, mut expected, mut good) = (Vec::new(), Lines::new(), vec!["there".to_owned()]);
        let mut said = BTreeMap::new();
        let mut line = 0;
        for (n, (is_good, pick, is_blank_before)) in picks.iter().enumerate() {
            if *is_blank_before {
                input.extend_from_slice(b"\n");
                line += 1;
            }
            line += 1;
            if *is_good {
                input.extend(good_line(n));
                good.push(format!("good-{n}"));
                expected.insert(line, Ok(format!("good-{n}")));
            } else {
                let (text, reason) = &bad[pick.index(bad.len())];
                input.extend_from_slice(text);
                said.insert(line, *reason);
            }
            input.extend_from_slice(if crlf { b"\r\n" } else { b"\n" });
        }
        let (fed, told, mut ids) = fed(Cursor::new(input), EntryArgs::default());
        prop_assert_eq!((fed.saved as usize, fed.rejected as usize), (expected.len(), said.len()));
        for (line, what) in &told {
            match what {
                Ok(_) => prop_assert_eq!(Some(what), expected.get(line)),
                Err(error) => {
                    let reason = said.get(line);
                    prop_assert!(reason.is_some_and(|reason| error.contains(reason)), "{error} {reason:?}");
                }
            }
        }
        prop_assert_eq!(told.len(), expected.len() + said.len());
        good.sort();
        ids.sort();
        prop_assert_eq!(ids, good);
    }
}

#[test]
fn neither_size_nor_a_broken_input_takes_good_lines_along() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("pulled out"))
        }
    }
    let large = format!("{{\"_id\":\"large\",\"t\":\"{}\"}}\n", "x".repeat(21 << 20));
    let endless = BufReader::new(io::repeat(b'x').take(records::record::RECORD_BYTES_MAX + 5));
    let input = (&b"{\"_id\":\"a\"}\n"[..])
        .chain(Cursor::new(large))
        .chain(&b"{\"_id\":\"b\"}\n"[..])
        .chain(endless)
        .chain(&b"\n{\"_id\":\"c\"}\n{\"_id\":"[..])
        .chain(BufReader::new(Broken));
    let (fed, told, ids) = fed(input, EntryArgs::default());
    assert_eq!(fed, Fed { saved: 3, rejected: 3 });
    assert_eq!(ids, ["a", "b", "c", "there"]);
    let error = |line: u64| told[&line].clone().expect_err("refused");
    assert!(error(2).contains("can be synced"), "{}", error(2));
    assert_eq!(error(4), "line 4: longer than 64 MiB");
    assert_eq!(error(6), "line 6: cannot be read: pulled out");
}

#[test]
fn numbered_lines_never_overwrite_and_replacing_has_to_be_told() {
    let args = EntryArgs { id_prefix: Some("there-".into()), short_ids: true, ..EntryArgs::default() };
    let (_, told, ids) = fed(Cursor::new(b"{\"n\":1}\n\n{\"n\":2}\n"), args);
    assert_eq!(told.values().flatten().collect::<Vec<_>>(), ["there-000001", "there-000002"]);
    assert_eq!(ids.len(), 3);
    let args = EntryArgs { replace: true, ..EntryArgs::default() };
    let (done, _, _) =
        fed(Cursor::new(b"{\"_id\":\"there\"}\n{\"_id\":\"there\",\"_deleted\":true}\n"), args);
    assert_eq!(done, Fed { saved: 2, rejected: 0 });
}

#[test]
fn a_table_is_no_feed() {
    let refused = open(Path::new("x.csv")).err().expect("no feed");
    assert_eq!(refused.exit(), Exit::Usage);
}
