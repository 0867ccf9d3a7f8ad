//! Who may come in, and pairing, as programs change them while the gateway goes on.

use serde_json::{Value, json};

use super::client::{Answer, Client};
use super::command::{self, Process};
use super::network::{Machine, TOKEN, listening, wait_for_databases};

/// An ID of nobody.
const STRANGER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn machine() -> Machine {
    Machine::new("listen = \"127.0.0.1:0\"\ntoken-file = \"token\"")
}

/// Waits until the pairing is at this state.
#[track_caller]
fn wait_for(http: &Client, state: &str) -> Value {
    loop {
        let status = http.get("/_pair").json();
        if status["state"] == state {
            return status;
        }
        assert!(status["state"] != "failed", "{status}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn who_may_come_in_is_changed_by_who_has_the_token() {
    let machine = machine();
    let mut process = machine.start();
    let address = listening(&mut process);
    let own = machine.own();
    wait_for_databases(&own);
    let http = Client::Tcp(address.clone(), vec![format!("authorization: Bearer {TOKEN}")]);
    let change = |body: Value| -> Answer { http.post("/_trust", &body.to_string()) };
    let plant = |more: Value| {
        let mut body = json!({"database": "plant", "peer": STRANGER});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    // A stranger can be kept out before it is met, and is unknown until then.
    assert_eq!(change(plant(json!({"role": "read"}))).status, 404);
    let denied = change(plant(json!({"allowed": false}))).json();
    assert_eq!((&denied["database"], &denied["peer"]["allowed"]), (&json!("plant"), &json!(false)));
    let db = machine.directory.path().join("state/plant.db");
    let told = command::ok(&db, &["peers", "ls", "--json"]);
    let of_command: Value =
        serde_json::from_str(told.lines().find(|line| line.contains(STRANGER)).unwrap()).unwrap();
    let lists = own.get("/_trust").json();
    assert_eq!((&lists[0]["database"], &lists[0]["peers"]), (&json!("other"), &json!([])));
    assert_eq!(lists[1]["peers"], json!([of_command]), "as the command tells it");
    // What is not named stays.
    let changed = change(plant(json!({"role": "write"}))).json();
    assert_eq!((&changed["peer"]["allowed"], &changed["peer"]["role"]), (&json!(false), &json!("write")));
    let changed = change(json!({"database": "plant", "peer": "aaaa", "allowed": true})).json();
    assert_eq!((&changed["peer"]["allowed"], &changed["peer"]["role"]), (&json!(true), &json!("write")));
    assert_eq!(change(json!({"database": "plant", "peer": "default", "role": "none"})).status, 200);
    assert_eq!(own.get("/_trust").json()[1]["default"]["role"], "none");
    for (body, status) in [
        (json!({"peer": STRANGER, "allowed": false}), 400), // of which database?
        (json!({"database": "none", "peer": STRANGER}), 404),
        (plant(json!({"role": "admin"})), 400),
        (plant(json!({"denied": true})), 400),
    ] {
        assert_eq!(change(body.clone()).status, status, "{body}");
    }

    // Nobody else changes anything.
    let body = plant(json!({"allowed": false})).to_string();
    let without = Client::Tcp(address, vec![]);
    let evil = ["origin: http://evil.example", "sec-fetch-site: cross-site"];
    for path in ["/_trust", "/_pair"] {
        for header in evil {
            assert_eq!(http.with("POST", path, &[header], body.as_bytes()).status, 403, "{path} {header}");
            assert_eq!(own.with("POST", path, &[header], body.as_bytes()).status, 403, "{path} {header}");
        }
    }
    // Each of them is made to wait a second.
    std::thread::scope(|scope| {
        for (method, path) in [
            ("GET", "/_trust"),
            ("POST", "/_trust"),
            ("GET", "/_pair"),
            ("POST", "/_pair"),
            ("DELETE", "/_pair"),
        ] {
            let (without, body) = (&without, &body);
            scope.spawn(move || {
                assert_eq!(without.with(method, path, &[], body.as_bytes()).status, 401, "{method} {path}");
            });
        }
    });
    assert_eq!(own.get("/_trust").json()[1]["peers"][0]["allowed"], true);
    assert_eq!(process.terminate(), Some(0));
}

/// In a browser it is tried by `hw-tests/foreign/page`.
#[test]
fn the_page_needs_no_token_and_what_it_shows_does() {
    let machine = machine();
    let mut process = machine.start();
    let address = listening(&mut process);
    let own = machine.own();
    wait_for_databases(&own);
    let without = Client::Tcp(address.clone(), vec![]);
    let page = without.with("GET", "/", &["accept: text/html,*/*;q=0.8"], b"");
    let policy = page.header("content-security-policy").unwrap();
    assert_eq!(page.header("content-type").as_deref(), Some("text/html; charset=utf-8"));
    assert!(
        policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    let (text, nonce) = (String::from_utf8(page.body).unwrap(), policy.split('\'').nth(3).unwrap());
    assert!(text.matches(&format!("{nonce}\"").replace("nonce-", "nonce=\"")).count() == 2, "{nonce}");
    assert!(text.contains("data-token=\"needed\""));
    let again = without.with("GET", "/", &["accept: text/html"], b"").header("content-security-policy");
    assert_ne!(again.unwrap(), policy, "each time another one");
    let own_page = own.with("GET", "/", &["accept: text/html"], b"");
    assert!(String::from_utf8(own_page.body).unwrap().contains("data-token=\"none\""));
    assert_eq!(own.get("/").json()["gattway"], "Welcome");
    let refused = |path: &str| without.with("GET", path, &["accept: text/html"], b"").status;
    assert_eq!((refused("/_events"), refused("/_status")), (401, 401));

    // All of it at first, then what has changed.
    let http = Client::Tcp(address, vec![format!("authorization: Bearer {TOKEN}")]);
    let mut events = http.follow("/_events");
    for event in ["trust", "pairing", "history", "status"] {
        assert!(events.next_with(&format!("event: {event}")).is_some(), "{event}");
    }
    let told = |line: Option<String>| -> Value {
        serde_json::from_str(line.unwrap().strip_prefix("data: ").unwrap()).unwrap()
    };
    assert_eq!(told(events.next_with("data: "))["databases"][1]["name"], "plant");
    assert_eq!(own.put("/plant/a", "{}").status, 201);
    assert!(events.next_with("event: status").is_some());
    let status = told(events.next_with("data: "));
    let expected = json!([{"name": "_default", "documents": 1, "update_seq": 1}]);
    assert_eq!(status["databases"][1]["collections"], expected);
    let body = json!({"database": "other", "peer": STRANGER, "allowed": false}).to_string();
    assert_eq!(own.post("/_trust", &body).status, 200);
    assert!(events.next_with("event: trust").is_some());
    assert_eq!(told(events.next_with("data: "))[0]["peers"][0]["allowed"], false);
    let history = own.get("/_history").json();
    let day = &history["databases"][1]["day"];
    assert_eq!((&day["documents"][287], &day["exchanged"][287]), (&json!(1), &json!(0)), "{day}");
    // So many may look.
    let others: Vec<_> = (1..16).map(|_| http.follow("/_events")).collect();
    assert_eq!(own.get("/_events").status, 429);
    drop(others);
    // The end of the process is the end of the stream.
    process.signal("TERM");
    while events.next_with("data: ").is_some() {}
}

#[test]
fn devices_are_paired_over_http_whichever_shows_the_code() {
    let machine = machine();
    let mut process = machine.start();
    listening(&mut process);
    let own = machine.own();
    wait_for_databases(&own);
    assert_eq!(own.get("/_pair").json(), json!({"state": "none"}));
    let device = machine.directory.path().join("device.db");

    // This one shows it.
    let show = json!({"database": "plant", "listen": "tcp:127.0.0.1:0", "role": "write"}).to_string();
    let begun = own.post("/_pair", &show);
    assert_eq!((begun.status, &begun.json()["database"]), (202, &json!("plant")));
    let shown = wait_for(&own, "waiting");
    assert_eq!(own.post("/_pair", &show).status, 409, "one at a time");
    let code = shown["code"].as_str().unwrap();
    machine.write("code", code);
    let (address, file) = (shown["address"].as_str().unwrap(), machine.directory.path().join("code"));
    command::ok(&device, &["pair", address, "--name", "valve", "--code-file", file.to_str().unwrap()]);
    let paired = wait_for(&own, "paired");
    let (peer, id) = (&paired["peer"], command::ok(&device, &["id", "--json"]));
    let id = serde_json::from_str::<Value>(&id).unwrap()["id"].clone();
    assert_eq!((&peer["id"], &peer["name"], &peer["confirmed"]), (&id, &json!("valve"), &json!(true)));
    assert_eq!(paired["code"], Value::Null, "it is good for nothing any more");
    let list = own.get("/_trust").json()[1]["peers"].clone();
    assert_eq!(
        (&list[0]["id"], &list[0]["role"], &list[0]["origin"]),
        (&id, &json!("write"), &json!("paired"))
    );

    // The other one shows it.
    let mut other = Process::start(
        &machine.directory.path().join("other-device.db"),
        &["pair", "--listen", "tcp:127.0.0.1:0", "--json"],
    );
    let address = other.wait_for(|event| event["event"] == "listening")["address"].clone();
    let code = other.wait_for(|event| event["event"] == "code")["code"].clone();
    assert_eq!(own.post("/_pair", &json!({"database": "plant", "connect": address}).to_string()).status, 400);
    let answer = json!({"database": "plant", "connect": address, "code": code}).to_string();
    assert_eq!(own.post("/_pair", &answer).status, 202);
    wait_for(&own, "paired");
    assert_eq!(own.get("/_trust").json()[1]["peers"].as_array().unwrap().len(), 2);

    // It is given up, and nobody comes in there any more.
    assert_eq!(own.post("/_pair", &show).status, 202);
    let shown = wait_for(&own, "waiting");
    assert_eq!(own.with("DELETE", "/_pair", &[], b"").json()["state"], "cancelled");
    let port = shown["address"].as_str().unwrap().strip_prefix("tcp:").unwrap().to_owned();
    while std::net::TcpStream::connect(&port).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(own.with("DELETE", "/_pair", &[], b"").json(), json!({"state": "none"}));
    // No file or socket of this machine is made for it.
    for listen in ["unix:/tmp/x", "stdio", "ws://127.0.0.1:1/plant", "nonsense"] {
        let body = json!({"database": "plant", "listen": listen}).to_string();
        assert_eq!(own.post("/_pair", &body).status, 400, "{listen}");
    }
    assert_eq!(process.terminate(), Some(0));
}
