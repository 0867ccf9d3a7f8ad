//! Syncs over WebSocket between two processes: in secure sessions, and as stock peers with TLS and passwords.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::command::{Process, ok, run};
use crate::database;

fn write(file: &Path, text: &str, mode: u32) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn secure_sessions_run_over_websocket_as_over_anything_else() {
    let ((_gateway, gateway), (_field, field)) = (database(), database());
    ok(&gateway, &["db", "put", "here", "{}"]);
    ok(&field, &["db", "put", "there", "{}"]);
    let mut serve = Process::start(&gateway, &["serve", "--listen", "ws://127.0.0.1:0/plant", "--json"]);
    let url = serve.address();
    assert!(url.starts_with("ws://127.0.0.1:") && url.ends_with("/plant"), "{url}");
    ok(&field, &["sync", &url]);
    assert_eq!(ok(&field, &["db", "ls"]), "here\nthere\n");
    let other = run(&field, &["sync", &url.replace("plant", "other"), "--attempts", "1"]);
    assert_eq!(other.code, Some(6), "{other:?}");
    assert!(other.stderr.contains("it has no database \"other\""), "{other:?}");
    // Both must say so if nobody is to prove anything.
    let plain = run(&field, &["sync", &url, "--plain", "--attempts", "1"]);
    assert_eq!(plain.code, Some(6), "{plain:?}");
    assert_eq!(serve.terminate(), Some(0));
}

#[test]
fn stock_peers_come_in_by_certificate_and_password() {
    let ((place, gateway), (_field, field)) = (database(), database());
    let file = |name: &str| place.path().join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    ok(&gateway, &["db", "put", "here", "{}"]);
    ok(&field, &["db", "put", "there", "{}"]);
    write(&file("users"), "# who\npump:correct horse\n", 0o600);
    write(&file("right"), "correct horse\n", 0o600);
    write(&file("wrong"), "correct house\n", 0o600);
    let serve = ["serve", "--plain", "--listen", "wss://127.0.0.1:0/plant", "--json", "--tls-self-signed"];
    let users = path("users");
    let mut serve = Process::start(&gateway, &[&serve[..], &["--users", &users]].concat());
    let url = serve.address();
    // What is made is kept, is the owner's alone, and holds the certificate to pin.
    let identity = gateway.join("tls.pem");
    assert_eq!(std::fs::metadata(&identity).unwrap().permissions().mode() & 0o777, 0o600);
    let pem = std::fs::read_to_string(&identity).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    write(&file("pin"), &pem[..pem.find(end).unwrap() + end.len()], 0o644);

    let (pin, right, wrong) = (path("pin"), path("right"), path("wrong"));
    let sync = |more: &[&str]| run(&field, &[&["sync", &url, "--plain", "--attempts", "1"], more].concat());
    for (more, said) in [
        (&["--user", "pump", "--password-file", &right][..], "signed by nobody"),
        (&["--pin-cert", &pin], "HTTP 401"),
        (&["--pin-cert", &pin, "--user", "pump", "--password-file", &wrong], "HTTP 401"),
    ] {
        let ended = sync(more);
        assert_eq!(ended.code, Some(6), "{ended:?}");
        assert!(ended.stderr.contains(said) && !ended.stderr.contains("horse"), "{ended:?}");
    }
    assert_eq!(ok(&field, &["db", "ls"]), "there\n");
    let ended = sync(&["--pin-cert", &pin, "--user", "pump", "--password-file", &right]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("NOT encrypted"), "{ended:?}");
    assert_eq!(ok(&field, &["db", "ls"]), "here\nthere\n");
    assert_eq!(serve.terminate(), Some(0));
    assert_eq!(ok(&gateway, &["db", "ls"]), "here\nthere\n");
}

#[test]
fn options_that_do_not_fit_say_what_would() {
    let (place, db) = database();
    let file = |name: &str, text: &str, mode: u32| {
        let path = place.path().join(name);
        write(&path, text, mode);
        path.to_str().unwrap().to_owned()
    };
    let (open, none, bad) =
        (file("open", "a:b\n", 0o644), file("none", "\n", 0o600), file("bad", "a\n", 0o600));
    let text = file("text", "no certificate\n", 0o600);
    for (args, code, said) in [
        (&["serve", "--listen", "wss://127.0.0.1:0/db"][..], 2, "--tls-self-signed"),
        (&["serve", "--listen", "ws://127.0.0.1:0/db", "--tls-self-signed"], 2, "wss://"),
        (&["serve", "--listen", "ws://127.0.0.1:0/db", "--client-roots", &text], 2, "wss://"),
        (&["serve", "--listen", "ws://127.0.0.1:0"], 2, "name is missing"),
        (&["serve", "--listen", "ws://127.0.0.1:0/db", "--users", &open], 4, "chmod"),
        (&["serve", "--listen", "ws://127.0.0.1:0/db", "--users", &none], 4, "no user"),
        (&["serve", "--listen", "ws://127.0.0.1:0/db", "--users", &bad], 4, "line 1"),
        (&["serve", "--listen", "wss://127.0.0.1:0/db", "--tls-cert", &text], 4, "no certificate"),
        (&["sync", "wss://127.0.0.1:1/db", "--pin-cert", &text], 4, "no certificate"),
        (&["sync", "ws://127.0.0.1:1/db", "--header", "X"], 2, "NAME: VALUE"),
        (&["sync", "ws://me:secret@127.0.0.1:1/db"], 2, "give it apart"),
    ] {
        let ended = run(&db, args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(said), "{args:?}: {ended:?}");
    }
}
