//! Syncs over WebSocket between two processes: in secure sessions, and as stock peers with TLS and passwords.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

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

/// Stands between two ends: passes on in small pieces and late, and cuts each of the first connections after some bytes.
struct Proxy {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl Proxy {
    /// Bytes after which the first connections are cut, from less than a handshake to a good part of the sync.
    const CUTS: [u64; 7] = [1, 200, 1_500, 4_000, 9_000, 20_000, 40_000];

    fn start(to: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for from in listener.incoming() {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let left = Proxy::CUTS.get(number as usize).copied().unwrap_or(u64::MAX);
                let (from, to) = (from.unwrap(), TcpStream::connect(&to).unwrap());
                let left = Arc::new(AtomicU64::new(left));
                for (from, to, seed) in [(&from, &to, number), (&to, &from, number + 1_000)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let left = Arc::clone(&left);
                    thread::spawn(move || Proxy::pass(from, to, &left, fastrand::Rng::with_seed(seed)));
                }
            }
        });
        Proxy { address, connections }
    }

    /// Passes on until one end has ended, or both directions together have had so many bytes.
    fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicU64, mut random: fastrand::Rng) {
        let mut bytes = [0; 600];
        to.set_nodelay(true).unwrap();
        loop {
            let size = random.usize(1..=bytes.len());
            let Ok(read @ 1..) = from.read(&mut bytes[..size]) else { break };
            if random.u8(0..16) == 0 {
                thread::sleep(Duration::from_millis(random.u64(0..5)));
            }
            let (first, second) = bytes[..read].split_at(random.usize(0..=read));
            if to.write_all(first).and_then(|()| to.write_all(second)).is_err() {
                break;
            }
            let taken =
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(read as u64));
            if taken.is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

/// A network that delays, splits and cuts costs attempts and no document: all are there in the end, on both sides.
#[test]
fn a_sync_over_tls_gets_through_a_network_that_cuts_delays_and_splits() {
    const DOCUMENTS: usize = 150;
    let ((place, gateway), (_field, field)) = (database(), database());
    for (db, side) in [(&gateway, "here"), (&field, "there")] {
        // Text that deflate cannot shorten much, so that there is something to cut.
        let mut random = fastrand::Rng::with_seed(7);
        let mut text = || (0..400).map(|_| random.alphanumeric()).collect::<String>();
        let lines: String = (0..DOCUMENTS)
            .map(|n| format!("{{\"_id\":\"{side}-{n:03}\",\"text\":\"{}\"}}\n", text()))
            .collect();
        let ended = crate::command::run_with_input(
            db,
            &["db", "import", "-", "--format", "ndjson"],
            lines.as_bytes(),
        );
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let args = ["serve", "--plain", "--listen", "wss://127.0.0.1:0/plant", "--json", "--tls-self-signed"];
    let mut serve = Process::start(&gateway, &args);
    let url = serve.address();
    let pem = std::fs::read_to_string(gateway.join("tls.pem")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let pin = place.path().join("pin");
    write(&pin, &pem[..pem.find(end).unwrap() + end.len()], 0o644);
    let there = url.strip_prefix("wss://").unwrap().strip_suffix("/plant").unwrap();
    let proxy = Proxy::start(there.to_owned());
    let through = format!("wss://{}/plant", proxy.address);
    let sync = |attempts: &str| {
        let pin = pin.to_str().unwrap();
        run(
            &field,
            &["sync", &through, "--plain", "--pin-cert", pin, "--attempts", attempts, "--retry-wait", "0.1"],
        )
    };
    // As many attempts as are allowed, and then it says why.
    let given_up = sync("2");
    assert_eq!(given_up.code, Some(6), "{given_up:?}");
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 2);
    let ended = sync("20");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let connections = proxy.connections.load(Ordering::SeqCst);
    assert!(connections >= 6, "only {} connections: hardly any was cut", connections);
    assert_eq!(serve.terminate(), Some(0));
    let exported = ok(&gateway, &["db", "export", "--revisions"]);
    assert_eq!(exported.lines().count(), 2 * DOCUMENTS);
    assert_eq!(ok(&field, &["db", "export", "--revisions"]), exported);
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
