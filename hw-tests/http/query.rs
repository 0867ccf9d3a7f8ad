//! Queries over HTTP and by the command.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command::{ok, run};
use super::{Served, client, end};

/// Readings of three sensors, a minute apart.
fn fill(http: &client::Client, count: usize) {
    assert_eq!(http.with("PUT", "/plant.hall.readings", &[], b"").status, 201);
    let body = |n: usize| {
        json!({"_id": format!("r-{n:06}"), "sensor": format!("s{}", n % 3), "celsius": n as f64 / 4.0,
            "time": format!("2026-11-{:02}T{:02}:{:02}:00Z", 1 + n / 1440, n / 60 % 24, n % 60)})
    };
    for from in (0..count).step_by(2_000) {
        let docs: Vec<Value> = (from..count.min(from + 2_000)).map(body).collect();
        let saved = http.post("/plant.hall.readings/_bulk_docs", &json!({ "docs": docs }).to_string());
        assert_eq!(saved.status, 201, "{saved:?}");
    }
}

fn ask(http: &client::Client, query: Value) -> Value {
    let answer = http.post("/plant.hall.readings/_query", &query.to_string());
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()
}

#[test]
fn documents_are_found_by_what_is_in_them() {
    let served = Served::start();
    let http = served.client();
    fill(&http, 3_000);
    let newest =
        json!({"selector": {"sensor": "s1"}, "sort": [{"time": "desc"}], "limit": 2, "fields": ["_id"]});
    let first = ask(&http, newest.clone());
    assert_eq!(first["rows"], json!([{"_id": "r-002998"}, {"_id": "r-002995"}]));
    let mut next = newest.clone();
    next["bookmark"] = first["bookmark"].clone();
    assert_eq!(ask(&http, next)["rows"], json!([{"_id": "r-002992"}, {"_id": "r-002989"}]));
    let all = ask(&http, json!({}));
    assert_eq!((all["rows"].as_array().unwrap().len(), &all["bookmark"]), (3_000, &Value::Null));
    assert!(all["rows"][0]["_rev"].is_string() && all["rows"][0]["_id"] == "r-000000");
    let last = json!({"group": ["sensor"], "aggregate": {"celsius": {"last": "celsius", "by": "time"}, "n": "count"}});
    let last = ask(&http, last);
    assert_eq!(last["rows"][2], json!({"sensor": "s2", "celsius": 749.75, "n": 1_000}));
    let hourly = json!({"selector": {"time": {"$lt": "2026-11-02"}}, "group": [{"time": "1h"}],
        "aggregate": {"mean": {"avg": "celsius"}}});
    let hourly = ask(&http, hourly);
    assert_eq!(hourly["rows"].as_array().unwrap().len(), 24);
    assert_eq!(hourly["rows"][1], json!({"time": "2026-11-01T01:00:00Z", "mean": 22.375}));
    let told = http.post("/plant.hall.readings/_explain", &newest.to_string());
    assert_eq!((told.status, &told.json()["order"]), (200, &json!("sorted in memory")));

    let command = |args: &[&str]| ok(&served.db, &[&["query", "-c", "hall.readings"], args].concat());
    // With an index the answers are the same.
    for wrong in [
        json!({}),
        json!({"on": []}),
        json!({"on": ["_id"]}),
        json!({"on": ["a"], "name": "/"}),
        json!({"on": ["a"], "x": 1}),
    ] {
        assert_eq!(http.post("/plant.hall.readings/_index", &wrong.to_string()).status, 400, "{wrong}");
    }
    let index = json!({"on": ["sensor", "time"]}).to_string();
    for _ in 0..2 {
        let made = http.post("/plant.hall.readings/_index", &index);
        assert_eq!((made.status, &made.json()["name"]), (200, &json!("sensor,time")));
    }
    let other = json!({"on": ["sensor"], "name": "sensor,time"}).to_string();
    assert_eq!(http.post("/plant.hall.readings/_index", &other).status, 409);
    let listed = || http.get("/plant.hall.readings/_index").json()["indexes"][0].clone();
    let give_up = Instant::now() + Duration::from_secs(60);
    while listed()["state"] != "ready" {
        assert!(Instant::now() < give_up, "{}", listed());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((&listed()["entries"], &listed()["documents"]), (&json!(3_000), &json!(3_000)));
    let told = http.post("/plant.hall.readings/_explain", &newest.to_string()).json();
    assert_eq!((&told["index"], &told["order"]), (&json!("sensor,time"), &json!("as read")));
    assert_eq!(told["reads"], json!({"sensor": [{"$eq": "s1"}]}));
    assert_eq!(ask(&http, newest.clone())["rows"], first["rows"]);
    assert!(
        ok(&served.db, &["index", "list"])
            .starts_with("hall.readings  sensor,time on sensor, time  ready, 3,000 entries")
    );
    let wanted = ["--where", "sensor=s1", "--sort", "time:desc", "--limit", "2", "--fields", "_id"];
    assert_eq!(command(&wanted), "_id=r-002998\n_id=r-002995\n");
    let lines = command(&[&wanted[..], &["--json"]].concat());
    assert!(
        lines.starts_with("{\"_id\":\"r-002998\"}\n{\"_id\":\"r-002995\"}\n{\"_bookmark\":\""),
        "{lines}"
    );
    assert_eq!(http.with("DELETE", "/plant.hall.readings/_index/sensor,time", &[], b"").status, 200);
    assert_eq!(http.with("DELETE", "/plant.hall.readings/_index/sensor,time", &[], b"").status, 404);
    assert_eq!(ask(&http, newest)["rows"], first["rows"]);
    end(served);
}

#[test]
fn what_is_no_query_is_refused_and_what_is_too_much_too() {
    let served = Served::start();
    let http = served.client();
    let long = "x".repeat(200_000);
    assert_eq!(http.with("PUT", "/plant.hall.readings", &[], b"").status, 201);
    let docs: Vec<Value> =
        (0..100).map(|n| json!({"_id": format!("r{n:03}"), "long": format!("{n} {long}")})).collect();
    for docs in docs.chunks(20) {
        assert_eq!(
            http.post("/plant.hall.readings/_bulk_docs", &json!({ "docs": docs }).to_string()).status,
            201
        );
    }
    let deep = "{\"$not\":".repeat(90) + "{}" + &"}".repeat(90);
    let deeper = "[".repeat(100_000);
    for (query, status) in [
        ("[]", 400),
        ("{\"select\": []}", 400),
        ("{\"selector\": {\"a\": {\"$regex\": \"x\"}}}", 400),
        ("{\"bookmark\": \"AAAA\"}", 400),
        (&format!("{{\"selector\": {deep}}}"), 400),
        (&deeper, 400),
        (&format!("{{\"selector\": {{\"a\": {{\"$in\": [{}1]}}}}}}", "1,".repeat(20_000)), 400),
        (&format!("{{\"sort\": [\"{long}\"]}}"), 400),
        (&format!("{{\"bookmark\": \"{}\"}}", "A".repeat(3 << 20)), 413),
        ("{\"sort\": [\"long\"]}", 413),
        ("{\"group\": [\"long\"]}", 413),
    ] {
        for path in ["/plant.hall.readings/_query", "/plant.hall.readings/_explain"] {
            let refused = http.post(path, query);
            let is_run = path.ends_with("query");
            let expected = if !is_run && query.len() < 30 && status == 413 { 200 } else { status };
            assert_eq!(refused.status, expected, "{path} {query:.80}: {refused:.300?}");
        }
    }
    assert_eq!(http.post("/plant.none/_query", "{}").status, 404);
    let ended = run(&served.db, &["query", "-c", "hall.readings", "--sort", "long"]);
    assert!(ended.code == Some(4) && ended.stderr.contains("make an index"), "{ended:?}");
    end(served);
}

/// Who asks for much and goes leaves no work behind: the process ends at once, and answers others meanwhile.
#[test]
fn the_work_ends_when_the_client_goes() {
    let served = Served::start();
    let http = served.client();
    fill(&http, 20_000);
    let query = "{\"sort\": [\"celsius\"], \"limit\": 1}";
    for _ in 0..64 {
        let mut stream = http.connect();
        let head = "POST /plant.hall.readings/_query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        write!(stream, "{head}content-length: {}\r\n\r\n{query}", query.len()).unwrap();
    }
    let begin = Instant::now();
    assert_eq!(http.get("/plant.hall.readings/r-000001").status, 200);
    let one = begin.elapsed();
    // 64 runs to the end take much longer than to answer one request between their steps.
    assert!(one < Duration::from_secs(20), "{one:?}");
    end(served);
}
