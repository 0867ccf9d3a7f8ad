//! Documents and their changes.

use serde_json::{Value, json};

use super::command::{ok, run};
use super::{Served, end};

#[test]
fn a_document_is_saved_against_the_revision_that_was_read() {
    let served = Served::start();
    let http = served.client();
    let made = http.put("/plant/valve-7", "{\"open\": true}");
    assert_eq!(made.status, 201, "{made:?}");
    let first = made.json()["rev"].as_str().unwrap().to_owned();
    assert_eq!(made.header("etag").unwrap(), format!("\"{first}\""));
    let read = http.get("/plant/valve-7");
    assert_eq!((read.status, read.json()), (200, json!({"_id": "valve-7", "_rev": first, "open": true})));
    assert_eq!(read.header("etag"), made.header("etag"));
    let tag = format!("if-none-match: \"{first}\"");
    assert_eq!(http.with("GET", "/plant/valve-7", &[&tag], b"").status, 304);
    assert_eq!(http.with("HEAD", "/plant/valve-7", &[], b"").status, 200);

    // Without the revision, with another one, and with the right one in each of its places.
    for (path, headers, body, status) in [
        ("/plant/valve-7", vec![], json!({}), 409),
        ("/plant/valve-7", vec![], json!({"_rev": "1@AAAAAAAAAAAAAAAAAAAAAA"}), 409),
        ("/plant/valve-7?rev=1-a", vec![], json!({}), 409),
        ("/plant/valve-7", vec!["if-match: \"1-a\""], json!({}), 412),
        ("/plant/valve-7", vec!["if-none-match: *"], json!({}), 412),
        ("/plant/none", vec!["if-match: *"], json!({}), 412),
        ("/plant/none", vec![], json!({"_rev": first}), 409),
    ] {
        let refused = http.with("PUT", path, &headers, body.to_string().as_bytes());
        assert_eq!(refused.status, status, "{path} {headers:?} {body}: {refused:?}");
        let told = refused.json();
        assert!(["error", "reason", "advice"].iter().all(|key| told[key].is_string()), "{told}");
    }
    let rev = |answer: super::client::Answer| {
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["rev"].as_str().unwrap().to_owned()
    };
    let second = rev(http.put("/plant/valve-7", &json!({"_rev": first, "n": 2}).to_string()));
    let third = rev(http.put(&format!("/plant/valve-7?rev={second}"), "{\"n\": 3}"));
    let tag = format!("if-match: \"{third}\"");
    let fourth = rev(http.with("PUT", "/plant/valve-7", &[&tag], b"{\"n\": 4}"));
    rev(http.with("PUT", "/plant/valve-7", &["if-match: *"], b"{\"n\": 5}"));
    rev(http.with("PUT", "/plant/valve-8", &["if-none-match: *"], b"{}"));
    assert_eq!(http.with("DELETE", "/plant/valve-7", &[], b"").status, 409);
    assert_eq!(http.with("DELETE", &format!("/plant/valve-7?rev={fourth}"), &[], b"").status, 409);
    assert_eq!(http.with("DELETE", "/plant/valve-7", &["if-match: *"], b"").status, 200);
    let gone = http.get("/plant/valve-7");
    assert!(gone.status == 404 && gone.json()["reason"].as_str().unwrap().contains("deleted"), "{gone:?}");
    let again = rev(http.put("/plant/valve-7", "{\"n\": 6}"));
    let deleted = http.put("/plant/valve-7", &json!({"_rev": again, "_deleted": true}).to_string());
    assert_eq!(deleted.status, 200, "{deleted:?}");

    // A new ID, collections, and what the database says of documents.
    let named = http.post("/plant", "{\"n\": 1}").json()["id"].as_str().unwrap().to_owned();
    assert_eq!(http.get(&format!("/plant._default/{named}")).json()["n"], 1);
    assert_eq!(http.get("/plant.hall.readings/a").status, 404);
    assert_eq!(http.with("PUT", "/plant.hall.readings", &[], b"").status, 201);
    assert_eq!(http.with("PUT", "/plant.hall.readings", &[], b"").status, 412);
    assert_eq!(http.put("/plant.hall.readings/2026%2F01", "{\"celsius\": 4.5}").status, 201);
    assert_eq!(ok(&served.db, &["db", "ls", "-c", "hall.readings"]), "2026/01\n");
    for (body, words) in [
        ("[1]", "no JSON object"),
        ("{\"a\": 1, \"a\": 2}", "duplicate key"),
        ("{\"_x\": 1}", "begins with `_`"),
        ("{\"_id\": \"b\"}", "its `_id` is"),
        ("{\"n\": 123456789012345678901}", "more than 64 bits"),
        ("{\"n\": ", "no JSON object"),
    ] {
        let refused = http.put("/plant/a", body);
        assert!(refused.status == 400, "{body}: {refused:?}");
        assert!(refused.json()["reason"].as_str().unwrap().contains(words), "{body}: {refused:?}");
    }
    end(served);
}

#[test]
fn many_documents_are_saved_and_listed() {
    let served = Served::start();
    let http = served.client();
    let docs: Vec<Value> = (0..2_500).map(|n| json!({"_id": format!("r-{n:05}"), "n": n})).collect();
    let saved = http.post("/plant/_bulk_docs", &json!({ "docs": docs }).to_string());
    assert_eq!((saved.status, saved.json().as_array().unwrap().len()), (201, 2_500));
    let first = saved.json()[0]["rev"].as_str().unwrap().to_owned();

    // One by one, or all or none.
    let mixed = json!([{"_id": "r-00000", "n": 1}, {"_id": "new"}, {"_id": "_no"}, {"_id": "new"},
        {"_id": "r-00001", "_deleted": true}, {"_id": "r-00000x", "_deleted": true}]);
    let atomic = http.post("/plant/_bulk_docs", &json!({"docs": mixed, "atomic": true}).to_string());
    assert_eq!(atomic.status, 409, "{atomic:?}");
    assert!(
        atomic.json()["reason"].as_str().unwrap().contains("r-00000") && http.get("/plant/new").status == 404
    );
    let each = http.post("/plant/_bulk_docs", &json!({ "docs": mixed }).to_string()).json();
    let words: Vec<&str> =
        each.as_array().unwrap().iter().map(|one| one["error"].as_str().unwrap_or("ok")).collect();
    assert_eq!(words, ["conflict", "ok", "bad_request", "bad_request", "conflict", "not_found"]);
    let atomic =
        json!({"docs": [{"_id": "r-00000", "_rev": first, "_deleted": true}, {"_id": "z"}], "atomic": true});
    assert_eq!(http.post("/plant/_bulk_docs", &atomic.to_string()).status, 201);
    assert_eq!(http.get("/plant/r-00000").status, 404);

    let ids = |path: &str| -> Vec<String> {
        let listed = http.get(path);
        assert_eq!(listed.status, 200, "{listed:?}");
        let rows = listed.json()["rows"].as_array().unwrap().clone();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("/plant/_all_docs").len(), 2_501);
    assert_eq!(ids("/plant/_all_docs?start_key=r-00002&limit=2"), ["r-00002", "r-00003"]);
    assert_eq!(
        ids("/plant/_all_docs?startkey=%22r-02498%22&endkey=%22z%22&inclusive_end=false"),
        ["r-02498", "r-02499"]
    );
    assert_eq!(ids("/plant/_all_docs?prefix=r-0012").len(), 10);
    assert_eq!(ids("/plant/_all_docs?key=new"), ["new"]);
    assert_eq!(ids("/plant/_all_docs?key=none"), [""; 0]);
    assert_eq!(ids("/plant/_all_docs?limit=0"), [""; 0]);
    let whole = http.get("/plant/_all_docs?include_docs=true&limit=1").json();
    assert_eq!((&whole["total_rows"], &whole["rows"][0]["doc"]["_id"]), (&json!(2_501), &json!("new")));
    let asked =
        http.post("/plant/_all_docs?include_docs=true", "{\"keys\": [\"z\", \"none\", \"r-00000\"]}").json();
    assert_eq!(
        (&asked["rows"][0]["doc"]["_id"], &asked["rows"][1]["reason"]),
        (&json!("z"), &json!("missing"))
    );
    assert_eq!(asked["rows"][2]["reason"], "deleted");
    assert_eq!(http.get("/plant/_all_docs?descending=true").status, 400);

    let purged =
        http.post("/plant/_purge", "{\"z\": [\"*\"], \"new\": [\"1-a\"], \"r-00000\": [\"*\"]}").json();
    assert_eq!(purged, json!({"purged": {"r-00000": ["*"], "z": ["*"]}}));
    assert_eq!(http.put("/plant/new/_expiration", "{\"at\": \"2090-01-01T00:00:00Z\"}").status, 200);
    assert_eq!(http.get("/plant/new/_expiration").json()["expires"], "2090-01-01T00:00:00Z");
    assert_eq!(http.with("DELETE", "/plant/new/_expiration", &[], b"").json()["expires"], Value::Null);
    assert_eq!(http.put("/plant/none/_expiration", "{\"in\": \"1d\"}").status, 404);
    assert_eq!(http.put("/plant/new/_expiration", "{}").status, 400);
    end(served);
}

#[test]
fn changes_are_followed_as_they_come() {
    let served = Served::start();
    let http = served.client();
    for id in ["a", "b", "c"] {
        http.put(&format!("/plant/{id}"), "{\"n\": 1}");
    }
    http.with("DELETE", "/plant/b", &["if-match: *"], b"");
    let all = http.get("/plant/_changes").json();
    let told: Vec<(u64, &str, bool)> = all["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["seq"].as_u64().unwrap(), row["id"].as_str().unwrap(), row["deleted"] == true))
        .collect();
    assert_eq!(told, [(1, "a", false), (3, "c", false), (4, "b", true)]);
    assert_eq!(all["last_seq"], 4);
    let page = http.get("/plant/_changes?since=1&limit=1&include_docs=true").json();
    assert_eq!((&page["results"][0]["doc"]["n"], &page["last_seq"]), (&json!(1), &json!(3)));
    assert_eq!(http.get("/plant/_changes?since=now").json(), json!({"results": [], "last_seq": 4}));
    let quiet = http.get("/plant/_changes?since=now&feed=longpoll&timeout=1").json();
    assert_eq!(quiet, json!({"results": [], "last_seq": 4}));

    let mut lines = http.follow("/plant/_changes?feed=continuous&since=3&heartbeat=true");
    assert!(lines.next_with("\"id\":\"b\"").unwrap().contains("\"deleted\":true"));
    let mut events =
        http.follow("/plant/_changes?feed=eventsource&since=now&include_docs=true&heartbeat=true");
    let waiting = http.clone();
    let poll = std::thread::spawn(move || waiting.get("/plant/_changes?feed=longpoll&since=4"));
    // What the command saves is a change like any other.
    ok(&served.db, &["db", "put", "d", "{\"n\": 7}"]);
    assert!(lines.next_with("\"id\":\"d\"").unwrap().contains("\"seq\":5"));
    assert_eq!(events.next_with("id: 5").as_deref(), Some("id: 5"));
    assert!(events.next_with("data: ").unwrap().contains("\"n\":7"));
    assert_eq!(poll.join().unwrap().json()["last_seq"], 5);
    for wrong in ["since=x", "heartbeat=x", "feed=x", "limit=-1", "descending=true"] {
        assert_eq!(http.get(&format!("/plant/_changes?{wrong}")).status, 400, "{wrong}");
    }
    // Followers do not hold up the end, and hear of it.
    end(served);
    assert_eq!(events.next_with("data: "), None);
    while lines.line().is_some() {}
}

#[test]
fn what_was_answered_outlives_a_kill() {
    let mut served = Served::start();
    let http = served.client();
    for n in 0..20 {
        assert_eq!(http.put(&format!("/plant/{n}"), "{}").status, 201);
    }
    let docs: Vec<Value> = (0..20).map(|n| json!({"_id": format!("b{n}")})).collect();
    assert_eq!(http.post("/plant/_bulk_docs", &json!({ "docs": docs }).to_string()).status, 201);
    served.process.signal("KILL");
    served.process.child.wait().unwrap();
    // The socket that it has left behind is of no harm.
    assert!(served.db.join("http").exists());
    assert_eq!(ok(&served.db, &["db", "ls"]).lines().count(), 40);
    let again = Served::start_in(served._directory, "plant.db");
    assert_eq!(again.client().get("/plant/b19").status, 200);
    assert_eq!(run(&again.db, &["db", "get", "0"]).code, Some(0));
    end(again);
}
