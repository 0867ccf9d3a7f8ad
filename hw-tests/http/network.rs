//! The gateway's own sockets: the one beside its process, and the one on a network.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use super::client::Client;
use super::command::{self, Process};

pub(super) const TOKEN: &str = "0123456789abcdef0123";

pub(super) struct Machine {
    pub(super) directory: tempfile::TempDir,
}

impl Machine {
    pub(super) fn new(http: &str) -> Machine {
        let machine = Machine { directory: tempfile::tempdir().unwrap() };
        machine.write("token", &format!("{TOKEN}\n"));
        machine.configure(http);
        machine
    }

    fn configure(&self, http: &str) {
        let upstream = "[upstreams.nobody]\naddress = \"unix:/proc/none/socket\"\ndatabase = \"plant\"\n";
        let databases = "[databases.plant]\ntrust-all = true\n[databases.other]\ntrust-all = true\n";
        self.write("gattway.toml", &format!("[http]\n{http}\n{databases}{upstream}"));
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gattway"));
        let at = self.directory.path();
        command
            .args(args)
            .env_remove("RUST_LOG")
            .env_remove("GATTWAY_DB")
            .env_remove("NOTIFY_SOCKET")
            .env("GATTWAY_CONFIG", at.join("gattway.toml"))
            .env("STATE_DIRECTORY", at.join("state"))
            .env("RUNTIME_DIRECTORY", at.join("run"));
        command
    }

    pub(super) fn start(&self) -> Process {
        Process::of(self.command(&["run", "--json"]))
    }

    pub(super) fn own(&self) -> Client {
        Client::unix(&self.directory.path().join("run/control"))
    }
}

/// Waits until both databases are answered for.
pub(super) fn wait_for_databases(http: &Client) {
    while http.get("/_all_dbs").json() != json!(["other", "plant"]) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

pub(super) fn listening(process: &mut Process) -> String {
    let event = process.wait_for(|event| event["event"] == "http_listening");
    event["address"].as_str().unwrap().split_once("://").unwrap().1.to_owned()
}

#[test]
fn the_gateway_answers_who_has_the_token() {
    let machine =
        Machine::new("listen = \"127.0.0.1:0\"\ntoken-file = \"token\"\nhosts = [\"gate.example\"]");
    let mut process = machine.start();
    let address = listening(&mut process);
    let own = machine.own();
    wait_for_databases(&own);
    let http = Client::Tcp(address.clone(), vec![format!("authorization: Bearer {TOKEN}")]);
    assert_eq!(http.put("/plant/a", "{}").status, 201);
    assert_eq!(own.get("/plant/a").status, 200);
    assert_eq!(own.put("/other/b", "{}").status, 201);
    let db = machine.directory.path().join("state/plant.db");
    assert_eq!(command::ok(&db, &["db", "ls"]), "a\n");
    // In the directory of a database, there is that one alone.
    let beside = Client::unix(&db.join("http"));
    assert_eq!((beside.get("/plant/a").status, beside.get("/other/b").status), (200, 404));
    assert_eq!(beside.get("/_db/a").status, 200);

    let without = Client::Tcp(address.clone(), vec![]);
    for (headers, status) in [
        (vec![], 401),
        (vec!["authorization: Bearer 0123456789abcdef0124"], 401),
        (vec!["authorization: Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM="], 401),
    ] {
        let refused = without.with("GET", "/plant/a", &headers, b"");
        assert_eq!(refused.status, status, "{refused:?}");
        assert_eq!(refused.header("www-authenticate").as_deref(), Some("Bearer realm=\"gattway\""));
    }
    assert_eq!(without.get("/healthz").json(), json!({"ok": true}));
    let named = |host: &str, headers: &[&str]| {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!(
            "GET /plant/a HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n{more}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        super::client::read(stream).unwrap().status
    };
    assert_eq!((named("gate.example", &[]), named("evil.example", &[])), (200, 403));
    assert_eq!(named("gate.example", &["origin: http://gate.example"]), 200);
    assert_eq!(named("gate.example", &["origin: https://evil.example"]), 403);
    // What is for the owner's own commands is not there.
    for (method, path) in [("POST", "/_command"), ("POST", "/_save"), ("GET", "/_backup")] {
        assert!([404, 405].contains(&http.with(method, path, &[], b"{}").status), "{path}");
    }

    // The gateway itself.
    let told = own.get("/_status").json()["http"].clone();
    let expected =
        json!({"name": "http", "address": format!("http://{address}"), "listening": true, "failures": 0});
    assert_eq!(told, expected);
    let told = machine.command(&["status"]).output().unwrap();
    let line = format!("\nhttp: listens on http://{address}\n");
    assert!(String::from_utf8_lossy(&told.stdout).contains(&line), "{told:?}");
    assert_eq!(own.get("/_status").json()["databases"][1]["name"], "plant");
    assert_eq!(own.get("/_peers").json(), json!([]));
    assert_eq!(
        own.post("/_sync", "{\"order\": \"pause\", \"name\": \"nobody\"}").json(),
        json!({"syncs": 1})
    );
    assert_eq!(own.post("/_sync", "{\"order\": \"now\", \"name\": \"none\"}").status, 404);
    assert_eq!(own.post("/_sync", "{\"order\": \"begin\"}").status, 400);
    let paused = own.get("/_status").json()["databases"][1]["upstreams"][0]["activity"].clone();
    assert_eq!(paused, "paused");
    let resumed = machine.command(&["resume", "nobody", "--json"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&resumed.stdout), "{\"syncs\":1}\n", "{resumed:?}");
    // Another gateway does not take its socket away.
    let second = machine.command(&["run"]).output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("another gateway runs"), "{second:?}");
    assert_eq!(own.get("/healthz").status, 200);

    // Another configuration, and a token that is too short.
    machine.configure("");
    process.signal("HUP");
    process.wait_for(|event| event["event"] == "reloaded");
    assert!(std::net::TcpStream::connect(&address).is_err(), "it is closed");
    assert_eq!(own.get("/_status").json()["http"], json!(null));
    machine.write("short", "12345\n");
    machine.configure("listen = \"127.0.0.1:0\"\ntoken-file = \"short\"");
    process.signal("HUP");
    let failed = process.wait_for(|event| event["event"] == "http_failed");
    assert!(failed["error"].as_str().unwrap().contains("too short"), "{failed}");
    let told = own.get("/_status").json()["http"].clone();
    assert!(told["listening"] == false && told["error"] == failed["error"], "{told}");
    let told = machine.command(&["status"]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.contains("\nhttp: does not listen on 127.0.0.1:0\n") && told.contains("too short"),
        "{told}"
    );
    assert_eq!(process.terminate(), Some(0));
    assert!(!machine.directory.path().join("run/control").exists());
}

#[test]
fn a_network_hears_the_token_only_in_tls() {
    let machine = Machine::new("listen = \"0.0.0.0:0\"\ntoken-file = \"token\"");
    let refused = machine.command(&["config", "check"]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(4) && told.contains("could read the token"), "{told}");
    for (http, words) in [
        ("listen = \"127.0.0.1:0\"", "there is no token"),
        ("listen = \"127.0.0.1\"\ntoken-file = \"token\"", "is no address"),
        ("listen = \"127.0.0.1:0\"\ntoken = \"x\"", "there is no such key"),
    ] {
        machine.configure(http);
        let refused = machine.command(&["config", "check"]).output().unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains(words), "{http}: {refused:?}");
    }
    if cfg!(feature = "websocket") {
        machine.configure("listen = \"0.0.0.0:0\"\ntoken-file = \"token\"\ntls-self-signed = true");
        let mut process = machine.start();
        let certificate = process.wait_for(|event| event["event"] == "http_certificate");
        assert!(certificate["pem"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        let address = listening(&mut process);
        let port = address.rsplit_once(':').unwrap().1;
        // Without TLS nothing is answered.
        let mut plain = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        std::io::Write::write_all(&mut plain, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        assert!(super::client::read(plain).is_none());
        let script = format!(
            "import ssl, urllib.request\nc = ssl.create_default_context()\nc.check_hostname = False\nc.verify_mode = ssl.CERT_NONE\n\
             r = urllib.request.Request('https://localhost:{port}/_all_dbs', headers={{'authorization': 'Bearer {TOKEN}'}})\n\
             print(urllib.request.urlopen(r, context=c).status)\n"
        );
        let asked = Command::new("python3").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&asked.stdout), "200\n", "{asked:?}");
        assert_eq!(process.terminate(), Some(0));
    }
}
