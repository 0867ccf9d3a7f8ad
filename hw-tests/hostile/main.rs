//! Attacks on a listening database over real sockets, and what each costs it in memory at most: counted by an allocator,
//! not estimated. The attackers run in the same process and take care to hold next to nothing themselves.
//!
//! The figures are printed; `firmware-notes/hostile-peers.md` has a run of them.

#[path = "../fuzz/src/memory.rs"]
#[allow(dead_code, missing_docs)]
mod memory;

mod attacker;
mod process;
mod replay;
mod returned;
/// Of the table that `cargo run --example hostile` makes.
#[path = "beside/row.rs"]
#[allow(dead_code)]
mod row;
mod server;

use std::time::Duration;

use gattway::lab::blip::frame::FrameType;
use gattway::replicator::{REASSEMBLY_BYTES_MAX, REASSEMBLY_BYTES_SHARED_MAX, Refusals};

use attacker::{Attacker, End};
use server::Server;

const MIB: usize = 1 << 20;
/// What a connection holds while it is busy beside the message under way: deflate states, buffers of the socket, queues.
const BUSY: usize = 2 * MIB;
/// The largest message.
const MESSAGE: usize = 20 * MIB;
/// A buffer that grows has up to a quarter to spare, and while it moves both are there.
const fn growing(bytes: usize) -> usize {
    bytes + bytes * 5 / 4
}
/// The largest share of a connection in the budget of all is free of it.
const OWN: usize = 256 * 1024;

/// The counters are of the whole process: one test at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs an attack and gives what the process held at most beyond what it held before.
async fn peak_of(server: &Server, name: &str, attack: impl FnOnce(Server) + Send + 'static) -> usize {
    server.wait_until_idle().await;
    memory::peak_of_all();
    let before = memory::held_by_all();
    let handle = server.clone();
    tokio::task::spawn_blocking(move || attack(handle)).await.expect("the attacker is no victim");
    let peak = memory::peak_of_all().saturating_sub(before);
    server.wait_until_idle().await;
    println!("{name:<44} {:>9} KiB", peak / 1024);
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_cost_what_their_limits_say() {
    let _alone = ALONE.lock().await;
    let server = Server::start(|_| {}).await;
    let refused = || server.listener.refusals();

    let idle = peak_of(&server, "16 connections that say nothing", |server| {
        let all: Vec<Attacker> = (0..16).map(|_| Attacker::connect(&server)).collect();
        server.wait_for_connections(16);
        drop(all);
    })
    .await
        / 16;
    assert!(idle <= 256 * 1024, "{idle} bytes for a connection that says nothing");

    let peak = peak_of(&server, "a length of 2^63 in a frame head", |server| {
        let mut peer = Attacker::connect(&server);
        peer.raw(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
        assert!(peer.end().is_refusal());
    })
    .await;
    assert!(peak <= BUSY, "{peak}");
    assert_eq!(refused(), refusals(0, 0, 0, 0, 1));

    let peak = peak_of(&server, "a deflate bomb of 128 MiB", |server| {
        let mut peer = Attacker::connect(&server);
        peer.bomb(128 * MIB);
        assert!(peer.end().is_refusal());
    })
    .await;
    assert!(peak <= growing(MESSAGE) + BUSY, "{peak}");
    assert_eq!(refused().limits, 2);

    let peak = peak_of(&server, "one message without an end", |server| {
        let mut peer = Attacker::connect(&server);
        peer.flood(1, 2 * MESSAGE);
        assert!(peer.end().is_refusal());
    })
    .await;
    assert!(peak <= growing(MESSAGE) + BUSY, "{peak}");
    assert_eq!(refused().limits, 3);

    let peak = peak_of(&server, "200 messages without an end", |server| {
        let mut peer = Attacker::connect(&server);
        peer.flood(200, 2 * REASSEMBLY_BYTES_MAX);
        assert!(peer.end().is_refusal());
    })
    .await;
    assert!(peak <= growing(REASSEMBLY_BYTES_MAX) + BUSY, "{peak}");
    assert_eq!(refused().limits, 4);

    let peak = peak_of(&server, "the same by 12 peers at once, all together", |server| {
        let all = (0..12).map(|_| {
            let server = server.clone();
            std::thread::spawn(move || {
                let mut peer = Attacker::connect(&server);
                peer.flood(20, REASSEMBLY_BYTES_MAX - MIB);
                // Held until the others are there.
                std::thread::sleep(Duration::from_millis(300));
                peer.end_within(Duration::from_millis(10))
            })
        });
        let ends: Vec<End> =
            all.collect::<Vec<_>>().into_iter().map(|peer| peer.join().expect("joined")).collect();
        assert!(ends.iter().any(|end| end.is_refusal()), "somebody has to come again later: {ends:?}");
    })
    .await;
    let all = REASSEMBLY_BYTES_SHARED_MAX + 12 * OWN;
    assert!(peak <= all * 5 / 4 + 12 * BUSY, "{peak}");
    assert_eq!(server.shared_bytes(), 0, "given back");

    for (name, profile, text) in [
        ("a list of 2 million numbers", "proposeChanges", "[["),
        ("a list of 1 million empty lists", "changes", "["),
    ]
    .map(|(name, profile, head)| (name, profile, attacker::list_of(head, 4 * MIB - 16)))
    {
        let size = text.len();
        let peak = peak_of(&server, name, move |server| {
            let mut peer = Attacker::connect(&server);
            peer.request(&[("Profile", profile)], &text);
            assert!(peer.hears(FrameType::Error), "refused, and the connection goes on");
        })
        .await;
        // The attacker holds the text too.
        assert!(peak <= 4 * size + BUSY, "{peak} for {size}");
    }

    for (name, head, answer) in [
        ("a document of 18 MiB with a reserved key", r#"{"_id":"x","a":"#, FrameType::Error),
        ("a document of 18 MiB of small numbers", r#"{"a":"#, FrameType::Reply),
    ] {
        let peak = peak_of(&server, name, move |server| {
            let mut peer = Attacker::connect(&server);
            peer.large_rev(head, 18 * MIB);
            assert!(peer.hears(answer), "{name}");
        })
        .await;
        // The message, its text, and what the store makes of it.
        assert!(peak <= 8 * 18 * MIB, "{peak}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_stops_its_own_answers() {
    let _alone = ALONE.lock().await;
    let server = Server::start(|config| config.limits.send = Duration::from_millis(1_500)).await;
    server.fill(20_000);

    let peak = peak_of(&server, "pulls 20,000 documents and reads nothing", |server| {
        let mut peer = Attacker::connect(&server);
        peer.collections();
        peer.request(
            &[("Profile", "subChanges"), ("collection", "0"), ("versioning", "version-vectors")],
            "",
        );
        // Sends as long as the peer owes no answers, which is not long; the session's own time ends it after a minute.
        std::thread::sleep(Duration::from_secs(3));
    })
    .await;
    assert!(peak <= 8 * MIB, "{peak}");

    let peak = peak_of(&server, "asks without end and reads nothing", |server| {
        let mut peer = Attacker::connect(&server);
        peer.collections();
        // An answer of one byte to each; of so many the most wait unheard, for they come faster than any that bring something.
        let question = [("Profile", "norev"), ("collection", "0"), ("id", "x")];
        assert!((0..40).all(|_| peer.ask(&question)), "the pipe takes them");
        assert_eq!(peer.end_unread(Duration::from_secs(3)), End::Open);
    })
    .await;
    assert!(peak <= 16 * MIB, "{peak}");
    assert_eq!(server.listener.refusals().stalled, 0);

    let peak = peak_of(&server, "asks for a checkpoint of 60,000 bytes without end", |server| {
        let mut peer = Attacker::connect(&server);
        peer.collections();
        let client = [("collection", "0"), ("client", "x")];
        peer.request(&[&[("Profile", "setCheckpoint")], &client[..]].concat(), &"x".repeat(60_000));
        assert!(peer.hears(FrameType::Reply), "it is kept");
        let question = [&[("Profile", "getCheckpoint")], &client[..]].concat();
        let asked = (0..40).take_while(|_| peer.ask(&question)).count();
        assert_eq!(peer.end_unread(Duration::from_secs(30)), End::Gone, "asked {asked} times 512");
    })
    .await;
    assert!(peak <= 8 * MIB, "{peak}");
    assert_eq!(server.listener.refusals().stalled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_connections_are_refused_and_the_others_go_on() {
    const MAX: usize = 16;
    let _alone = ALONE.lock().await;
    let server = Server::start(|config| {
        config.connections_max = MAX;
        config.limits.handshake = Duration::from_millis(2_000);
    })
    .await;
    let peak = peak_of(&server, "200 connections where 16 are allowed", |server| {
        let mut first = Attacker::connect(&server);
        first.collections();
        let flood: Vec<Attacker> = (0..200).map(|_| Attacker::connect(&server)).collect();
        server.wait_for_refusals(200 - (MAX as u64 - 1));
        // Who was there is served still.
        first.request(&[("Profile", "getCheckpoint"), ("collection", "0"), ("client", "x")], "");
        assert!(first.hears(FrameType::Error));
        drop(flood);
    })
    .await;
    assert!(peak <= 8 * MIB, "{peak}");
    assert_eq!(server.listener.refusals().connections, 200 - (MAX as u64 - 1));

    // Half-open ones give way by themselves.
    peak_of(&server, "16 connections that never begin", |server| {
        let mut all: Vec<Attacker> = (0..MAX).map(|_| Attacker::connect(&server)).collect();
        for peer in &mut all {
            assert!(peer.end().is_refusal());
        }
    })
    .await;
    assert_eq!(server.listener.refusals().handshakes, MAX as u64);
}

fn refusals(connections: u64, handshakes: u64, stalled: u64, violations: u64, limits: u64) -> Refusals {
    let mut refusals = Refusals::default();
    refusals.connections = connections;
    refusals.handshakes = handshakes;
    refusals.stalled = stalled;
    refusals.violations = violations;
    refusals.limits = limits;
    refusals
}
