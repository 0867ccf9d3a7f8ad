//! Attachments over HTTP, and by the commands beside whoever has the database open.

use std::path::Path;

use serde_json::json;

use super::command::{ok, run, run_with_input};
use super::{Served, end};

/// Longer than what goes at one time, and no multiple of it.
fn picture() -> Vec<u8> {
    (0..300_001u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn an_attachment_is_saved_read_in_ranges_and_taken_away() {
    let served = Served::start();
    let http = served.client();
    let picture = picture();
    let put = |path: &str, headers: &[&str], body: &[u8]| http.with("PUT", path, headers, body);
    let made = put("/plant/valve-7/picture", &["content-type: image/png"], &picture);
    assert_eq!(made.status, 201, "{made:?}");
    let (rev, digest) = (made.json()["rev"].clone(), made.json()["digest"].as_str().unwrap().to_owned());
    assert_eq!(made.json()["length"], 300_001);
    let named = json!({"@type": "blob", "content_type": "image/png", "digest": digest, "length": 300_001});
    let document = http.get("/plant/valve-7").json();
    assert_eq!(document, json!({"_id": "valve-7", "_rev": rev, "picture": named}));

    let read = http.get("/plant/valve-7/picture");
    assert!(read.status == 200 && read.body == picture, "{}", read.head);
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-length", "300001"),
        ("etag", &format!("\"{digest}\"")),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", "attachment"),
        ("content-security-policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    ] {
        assert_eq!(read.header(name).as_deref(), Some(value), "{name}");
    }
    let head = http.with("HEAD", "/plant/valve-7/picture", &[], b"");
    assert_eq!((head.status, head.header("content-length").as_deref()), (200, Some("300001")));
    let tag = format!("if-none-match: \"{digest}\"");
    assert_eq!(http.with("GET", "/plant/valve-7/picture", &[&tag], b"").status, 304);
    for (range, first, last) in [
        ("bytes=0-0", 0, 1),
        ("bytes=65530-65545", 65_530, 65_546),
        ("bytes=299999-", 299_999, 300_001),
        ("bytes=-5", 299_996, 300_001),
    ] {
        let part = http.with("GET", "/plant/valve-7/picture", &[&format!("range: {range}")], b"");
        assert!(part.status == 206 && part.body == picture[first..last], "{range}: {}", part.head);
        let told = format!("bytes {first}-{}/300001", last - 1);
        assert_eq!(part.header("content-range"), Some(told), "{range}");
    }
    let beyond = http.with("GET", "/plant/valve-7/picture", &["range: bytes=300001-"], b"");
    assert_eq!(beyond.status, 416, "{beyond:?}");
    let other = ["range: bytes=0-0", "if-range: \"another\""];
    assert_eq!(http.with("GET", "/plant/valve-7/picture", &other, b"").status, 200);

    // What may be changed is as with the document itself.
    for (path, headers, status) in [
        ("/plant/valve-7/other", vec![], 409),
        ("/plant/valve-7/other?rev=1-a", vec![], 409),
        ("/plant/valve-7/other", vec!["if-match: \"1-a\""], 412),
        ("/plant/none/other", vec!["if-match: *"], 412),
        ("/plant/valve-7/other", vec!["if-none-match: *"], 412),
        ("/plant/valve-7/picture.digest.x", vec!["if-match: *"], 400),
        ("/plant/valve-7/a..b", vec!["if-match: *"], 400),
        ("/plant/valve-7/_rev", vec!["if-match: *"], 400),
        ("/plant.none/valve-7/picture", vec!["if-match: *"], 404),
    ] {
        let refused = put(path, &headers, b"x");
        assert_eq!(refused.status, status, "{path} {headers:?}: {refused:?}");
    }
    let tag = format!("if-match: \"{}\"", rev.as_str().unwrap());
    let second = put("/plant/valve-7/more%5B0%5D", &[&tag], b"");
    assert_eq!((second.status, &second.json()["length"]), (201, &json!(0)), "{second:?}");
    let empty = http.get("/plant/valve-7/more%5B0%5D");
    assert_eq!((empty.status, empty.body.len()), (200, 0), "{empty:?}");
    for path in ["/plant/valve-7/none", "/plant/valve-7/_rev", "/plant/none/picture"] {
        let refused = http.get(path);
        assert!([400, 404].contains(&refused.status), "{path}: {refused:?}");
    }
    assert_eq!(http.with("DELETE", "/plant/valve-7/picture", &[], b"").status, 409);
    assert_eq!(http.with("DELETE", "/plant/valve-7/none", &["if-match: *"], b"").status, 404);
    let gone = http.with("DELETE", "/plant/valve-7/picture", &["if-match: *"], b"");
    assert_eq!((gone.status, gone.json()["digest"].as_str()), (200, Some(&*digest)), "{gone:?}");
    assert_eq!(http.get("/plant/valve-7/picture").status, 404);
    // A document that names what is not here.
    let absent = json!({"p": {"@type": "blob", "digest": "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA="}});
    let refused = http.put("/plant/valve-8", &absent.to_string());
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.json()["reason"].as_str().unwrap().contains("sha1-AAAA"), "{refused:?}");
    end(served);
}

/// A device has little memory: what passes is in it piece by piece, at either end.
#[test]
fn a_long_attachment_takes_little_memory() {
    const LENGTH: usize = 24 << 20;
    let served = Served::start();
    let http = served.client();
    let most = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", served.process.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    };
    http.with("PUT", "/plant/a/p", &[], &[1; 300_000]);
    assert_eq!(http.get("/plant/a/p").status, 200);
    let before = most();
    assert_eq!(http.with("PUT", "/plant/b/p", &[], &vec![2; LENGTH]).status, 201);
    let read = http.get("/plant/b/p");
    assert!(read.body.len() == LENGTH && read.body.iter().all(|byte| *byte == 2));
    let taken = most() - before;
    assert!(taken < LENGTH / 3, "{taken} bytes for an attachment of {LENGTH}");
    end(served);
}

/// The same commands on a database that nobody has open, and on one that a process has.
#[test]
fn commands_attach_and_read_beside_whoever_has_the_database_open() {
    let served = Served::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("valve.png");
    std::fs::write(&file, picture()).unwrap();
    attach_and_read(&served.db, directory.path());
    end(served);
    attach_and_read(&directory.path().join("own.db"), directory.path());
}

fn attach_and_read(db: &Path, directory: &Path) {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let file = path("valve.png");
    ok(db, &["db", "put", "valve 7/ü", r#"{"open":true}"#]);
    let digest = ok(db, &["db", "attach", "valve 7/ü", "pictures[0].raw", &file]).trim_end().to_owned();
    assert!(digest.starts_with("sha1-"), "{digest}");
    let document: serde_json::Value =
        serde_json::from_str(&ok(db, &["db", "get", "valve 7/ü", "--body"])).unwrap();
    assert_eq!(document["pictures"][0]["raw"]["content_type"], "image/png", "{document}");
    let to = path("copy.png");
    ok(db, &["db", "blob", "get", "valve 7/ü", "pictures[0].raw", "-o", &to]);
    assert!(std::fs::read(&to).unwrap() == picture(), "what came out is what went in");
    assert!(!Path::new(&format!("{to}.partial")).exists());
    std::fs::write(&to, "kept").unwrap();
    let missing = run(db, &["db", "blob", "get", "valve 7/ü", "none", "-o", &to]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "kept");
    let args = ["db", "attach", "valve 7/ü", "note", "-", "--type", "text/plain", "--json"];
    let told = run_with_input(db, &args, b"a note");
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&told["length"], &told["content_type"]), (&json!(6), &json!("text/plain")), "{told}");
    assert_eq!(ok(db, &["db", "blob", "get", told["digest"].as_str().unwrap()]), "a note");
    let rows = ok(db, &["db", "blob", "list", "--json"]);
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(
        rows.iter().all(|row| row["documents"] == 1 && row["named_by"][0]["_id"] == "valve 7/ü"),
        "{rows:?}"
    );
    assert!(ok(db, &["db", "blob", "list"]).contains("valve 7/ü in _default"));
    assert!(ok(db, &["db", "info"]).contains("blobs       2, "));
    let exported = run(db, &["db", "export"]);
    assert!(
        exported.code == Some(0) && exported.stderr.contains("1 document names attachments"),
        "{exported:?}"
    );
    assert_eq!(ok(db, &["db", "detach", "valve 7/ü", "note"]).trim_end(), told["digest"]);
    for (args, code) in [
        (&["db", "detach", "valve 7/ü", "note"][..], 3),
        (&["db", "attach", "none", "note", &file], 3),
        (&["db", "attach", "valve 7/ü", "open.x", &file], 4),
        (&["db", "attach", "valve 7/ü", "a..b", &file], 4),
        (&["db", "attach", "valve 7/ü", "note", &path("no such file")], 4),
        (&["db", "blob", "get", "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA="], 3),
        (&["db", "put", "x", r#"{"p":{"@type":"blob","digest":"sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA="}}"#], 4),
    ] {
        let ended = run(db, args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    }
    assert!(ok(db, &["db", "blob", "list"]).contains("no document"), "it stays for a day");
}
