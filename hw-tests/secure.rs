//! Secure sessions from outside: what a half-open handshake costs in memory, and how commands meet, refuse and say so.

#![allow(clippy::unwrap_used, unsafe_code)] // a test fails by panicking; counting memory takes an allocator

mod command;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use command::{Process, ok, run};
use gattway::lab::secure::{GroupOnly, Identity, Keyring, Psk, SecureConfig, SecureSession};
use gattway::lab::time::Instant;
use serde_json::Value;

/// Bytes of the heap that one handshake may take at a passive side, whatever the peer sends.
const HALF_OPEN_BYTES_MAX: usize = 6 * 1024;

/// Counts the bytes that are allocated now.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn member(device: u8) -> (SecureConfig, Keyring) {
    let config =
        SecureConfig::new(Arc::new(Identity::from_private([device; 32])), Arc::new(GroupOnly(Psk([9; 32]))));
    let keyring = Keyring::new(&config.identity, &*config.policy);
    // As over a link: the first message is an offer.
    (SecureConfig { fresh: Some([3; 32]), ..config }, keyring)
}

/// At each stage that a peer can bring a handshake to and leave it at. Run by itself: the count is the process's.
#[test]
fn a_half_open_handshake_takes_little_memory() {
    const COUNT: usize = 200;
    let (active, active_keys) = member(1);
    let (passive, passive_keys) = member(2);
    let mut session = SecureSession::active(active, &active_keys, [1; 32], Instant::ZERO).unwrap();
    let offer = session.take_output();
    let nearly = [&[0x47u8, 1, 0, 2][..], &[1; 511]].concat();
    let half = &offer[..offer.len() / 2];
    for (stage, bytes) in
        [("silent", &[][..]), ("half an offer", half), ("an offer", &offer), ("rubbish", &nearly)]
    {
        let before = ALLOCATED.load(Ordering::Relaxed);
        let mut sessions = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            let mut session =
                SecureSession::passive(passive.clone(), passive_keys.clone(), [2; 32], Instant::ZERO);
            session.handle_bytes(bytes).unwrap();
            let _sent = session.take_output();
            sessions.push(session);
        }
        let each = (ALLOCATED.load(Ordering::Relaxed) - before) / COUNT;
        println!("{stage}: {each} bytes a handshake");
        assert!(each <= HALF_OPEN_BYTES_MAX, "{stage}: {each} bytes");
    }
}

fn database(name: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    (directory, path)
}

fn id_of(db: &std::path::Path) -> String {
    let shown: Value = serde_json::from_str(&ok(db, &["id", "--json"])).unwrap();
    shown["id"].as_str().unwrap().to_owned()
}

#[test]
fn each_side_learns_who_the_other_is() {
    let (_a, gateway) = database("gateway");
    let (_b, sensor) = database("sensor");
    let ids = [id_of(&gateway), id_of(&sensor)];
    assert_eq!(ids[0], id_of(&gateway), "the ID changes");
    ok(&sensor, &["db", "put", "valve", "{}"]);
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    let events = ok(&sensor, &["sync", &address, "--json"]);
    let peer = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let peer = peer.filter(|event| event["event"] == "peer").collect::<Vec<_>>();
    assert_eq!((peer.len(), peer[0]["id"].as_str()), (1, Some(&*ids[0])), "{peer:?}");
    let seen = server.wait_for(|event| event["event"] == "peer");
    assert_eq!(seen["id"], *ids[1]);
    let status = server.wait_for(|event| event["event"] == "status");
    assert_eq!(status["secure"], true);
}

#[test]
fn nobody_comes_in_unless_known_and_nothing_is_sent_in_the_clear() {
    let (_a, gateway) = database("gateway");
    let (_b, sensor) = database("sensor");
    // Without a key to show, the active side does not even begin.
    let alone = run(&sensor, &["sync", "tcp:127.0.0.1:1", "--trusted-only"]);
    assert_eq!(alone.code, Some(2), "{alone:?}");
    assert!(alone.stderr.contains("group"), "{alone:?}");
    // A stranger is refused by a database that knows nobody, and told what it is.
    let mut server =
        Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json", "--trusted-only"]);
    let address = server.address();
    let stranger = run(&sensor, &["sync", &address]);
    assert_eq!(stranger.code, Some(6), "{stranger:?}");
    assert!(stranger.stderr.contains("stranger"), "{stranger:?}");
    let refused = server.wait_for(|event| event["event"] == "refused");
    assert!(refused["error"].as_str().unwrap().contains("stranger"), "{refused}");
    // Nor does --plain on one side alone do anything.
    let plain = run(&sensor, &["sync", &address, "--plain"]);
    assert_eq!(plain.code, Some(6), "{plain:?}");
    assert!(
        plain.stderr.contains("--plain on both sides") && plain.stderr.contains("NOT encrypted"),
        "{plain:?}"
    );
    assert_eq!(server.terminate(), Some(0));
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json", "--plain"]);
    let address = server.address();
    let secure = run(&sensor, &["sync", &address]);
    assert_eq!(secure.code, Some(6), "{secure:?}");
    assert!(secure.stderr.contains("--plain on both sides"), "{secure:?}");
    let both = ok(&sensor, &["sync", &address, "--plain", "--json"]);
    assert!(both.contains(r#""secure":false"#) && !both.contains(r#""event":"peer""#), "{both}");
}

#[test]
fn a_copy_of_a_database_is_refused_and_an_open_identity_file_is_not_used() {
    let (_a, gateway) = database("gateway");
    id_of(&gateway);
    let (_b, copy) = database("copy");
    ok(&copy, &["db", "put", "valve", "{}"]);
    std::fs::copy(gateway.join("identity"), copy.join("identity")).unwrap();
    let mut server = Process::start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
    let address = server.address();
    let ended = run(&copy, &["sync", &address, "--attempts", "1"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.stderr.contains("copy"), "{ended:?}");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(copy.join("identity"), mode).unwrap();
    let ended = run(&copy, &["sync", &address]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.contains("chmod 600"), "{ended:?}");
}
