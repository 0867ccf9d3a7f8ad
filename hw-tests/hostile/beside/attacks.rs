//! What is done to the gateway, each by clients of its own. Strangers have an address; members have the group's key and one identity.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gattway::endpoint::ProtocolType;
use gattway::lab::blip::frame::FrameType;
use gattway::lab::endpoint::framing::{Framing, FramingRole};
use gattway::lab::secure::{GroupOnly, Identity, Keyring, Psk, SecureConfig, SecureEvent, SecureSession};
use gattway::lab::time::Instant;
use gattway::replicator::REASSEMBLY_BYTES_MAX;

use crate::attacker::Attacker;
use crate::gateway::group_key;

/// Connections of who holds as many as it can.
const MANY: usize = 700;
/// Between two connections of one attacker: without it this machine has no free ports after half a minute, for the member neither.
const PAUSE: Duration = Duration::from_millis(1);
/// For a read or a write that the gateway does not serve.
const STUCK: Duration = Duration::from_millis(500);
/// How long a member's unfinished or unread connection stands before it is made anew.
const HELD: Duration = Duration::from_secs(2);

pub struct Attack {
    pub name: &'static str,
    pub does: &'static str,
    /// Attackers beside each other.
    threads: usize,
    /// Attempts after which it counts as under way.
    ready: usize,
    run: fn(&Arc<Scene>),
}

const fn attack(
    name: &'static str,
    does: &'static str,
    threads: usize,
    ready: usize,
    run: fn(&Arc<Scene>),
) -> Attack {
    Attack { name, does, threads, ready, run }
}

pub const ATTACKS: [Attack; 13] = [
    attack("700 half-open", "700 connections without a byte; those that end are made again", 1, MANY, |s| {
        hold(s, 0)
    }),
    attack("700 questions", "the same after the handshake's first 7 bytes", 1, MANY, |s| hold(s, 7)),
    attack("churn", "connects and hangs up, up to 1,000 times a second", 1, 300, churn),
    attack("slow bytes", "64 connections with a byte of a handshake each 100 ms", 1, 640, slow),
    attack("garbage", "4 KiB at random, up to 1,000 times a second", 1, 100, garbage),
    attack("bogus offers", "a stranger's handshakes, in order but of another group", 2, 50, bogus),
    attack(
        "replayed offers",
        "what a member said first, recorded between them, 200 times a second",
        1,
        200,
        replay,
    ),
    attack("hoarding member", "opens sessions and keeps up to 80 of them", 1, 20, hoard),
    attack("ping flood", "a member's pings without end, and their answers read", 2, 20_000, pings),
    attack("message flood", "a member's requests without end, no answer read", 2, 2, messages),
    attack("bombs", "a member's messages that unfold to 128 MiB", 2, 2, bombs),
    attack(
        "unfinished messages",
        "200 messages of 23 MiB together without an end, a member's 3 sessions",
        3,
        3,
        unfinished,
    ),
    attack(
        "pulls that are never read",
        "a member asks for 20,000 documents in 3 sessions, reads none",
        3,
        3,
        unread,
    ),
];

/// One attack while it goes on.
pub struct Scene {
    gateway: SocketAddr,
    /// The first messages of a member.
    heard: Vec<u8>,
    pub made: AtomicUsize,
    over: AtomicBool,
    /// Connections that are cut at the end, so that nobody waits for them.
    streams: Mutex<Vec<TcpStream>>,
}

impl Scene {
    pub fn new(gateway: SocketAddr, heard: Vec<u8>) -> Arc<Scene> {
        let (made, over, streams) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::default());
        Arc::new(Scene { gateway, heard, made, over, streams })
    }

    pub fn begin(self: &Arc<Scene>, attack: &Attack) -> Vec<JoinHandle<()>> {
        let run = attack.run;
        let one = |_| {
            let scene = Arc::clone(self);
            std::thread::spawn(move || {
                give_way();
                while !scene.is_over() {
                    run(&scene);
                }
            })
        };
        (0..attack.threads).map(one).collect()
    }

    pub fn is_under_way(&self, attack: &Attack) -> bool {
        self.made.load(Ordering::Relaxed) >= attack.ready
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn made(&self, count: usize) {
        self.made.fetch_add(count, Ordering::Relaxed);
    }

    fn connect(&self) -> Option<TcpStream> {
        std::thread::sleep(PAUSE);
        let stream = TcpStream::connect_timeout(&self.gateway, STUCK).ok()?;
        stream.set_read_timeout(Some(STUCK)).ok()?;
        stream.set_write_timeout(Some(STUCK)).ok()?;
        Some(stream)
    }

    /// Until the attack is over, or for so long.
    fn wait(&self, time: Duration) {
        let began = std::time::Instant::now();
        while !self.is_over() && began.elapsed() < time {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An attacker computes elsewhere: here it gets what gateway and member leave of the processor. Threads that it starts do the same.
fn give_way() {
    // On Linux a priority is a thread's, and `None` means this one.
    rustix::process::setpriority_process(None, 19).expect("whoever runs may run less");
}

/// Whether the gateway has ended a connection; what it says is thrown away.
fn has_ended(stream: &mut TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let ended = loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != ErrorKind::WouldBlock,
        }
    };
    let _ = stream.set_nonblocking(false);
    ended
}

fn hold(scene: &Arc<Scene>, first: usize) {
    let mut all: Vec<TcpStream> = Vec::new();
    while !scene.is_over() {
        all.retain_mut(|stream| !has_ended(stream));
        while all.len() < MANY && !scene.is_over() {
            let Some(mut stream) = scene.connect() else { break };
            let _ = stream.write_all(&scene.heard[..first]);
            scene.made(1);
            all.push(stream);
        }
        scene.wait(Duration::from_millis(50));
    }
}

fn churn(scene: &Arc<Scene>) {
    scene.made(usize::from(scene.connect().is_some()));
}

fn slow(scene: &Arc<Scene>) {
    let mut all: Vec<(TcpStream, usize)> = Vec::new();
    while !scene.is_over() {
        all.retain_mut(|(stream, sent)| *sent < scene.heard.len() && !has_ended(stream));
        while all.len() < 64 {
            let Some(stream) = scene.connect() else { break };
            all.push((stream, 0));
        }
        for (stream, sent) in &mut all {
            let _ = stream.write_all(&scene.heard[*sent..=*sent]);
            *sent += 1;
            scene.made(1);
        }
        scene.wait(Duration::from_millis(100));
    }
}

fn garbage(scene: &Arc<Scene>) {
    let Some(mut stream) = scene.connect() else { return };
    let bytes: Vec<u8> = (0..4096).map(|_| fastrand::u8(..)).collect();
    let _ = stream.write_all(&bytes);
    let _ = stream.read(&mut [0; 64]);
    scene.made(1);
}

fn bogus(scene: &Arc<Scene>) {
    let Some(mut stream) = scene.connect() else { return };
    let key = std::array::from_fn(|_| fastrand::u8(..));
    assert!(handshake(&mut stream, fastrand::u8(..), Psk(key)).is_none(), "a stranger came in");
    scene.made(1);
}

fn replay(scene: &Arc<Scene>) {
    let mut kept = VecDeque::new();
    while !scene.is_over() {
        std::thread::sleep(Duration::from_millis(4));
        let Some(mut stream) = scene.connect() else { continue };
        scene.made(usize::from(stream.write_all(&scene.heard).is_ok()));
        kept.push_back(stream);
        if kept.len() > 128 {
            kept.pop_front();
        }
    }
}

/// The active side of a handshake, to its end; `None` if it is refused.
fn handshake(stream: &mut TcpStream, identity: u8, group: Psk) -> Option<SecureSession> {
    let (identity, policy) = (Arc::new(Identity::from_private([identity; 32])), Arc::new(GroupOnly(group)));
    let keyring = Keyring::new(&identity, &*policy);
    let entropy = std::array::from_fn(|_| fastrand::u8(..));
    let config = SecureConfig::new(identity, policy);
    let mut session = SecureSession::active(config, &keyring, entropy, Instant::ZERO).ok()?;
    let mut bytes = [0; 4096];
    loop {
        stream.write_all(&session.take_output()).ok()?;
        while let Some(event) = session.poll_event() {
            if matches!(event, SecureEvent::Established(_)) {
                return Some(session);
            }
        }
        match stream.read(&mut bytes) {
            Ok(0) => return None,
            Ok(count) => session.handle_bytes(&bytes[..count]).ok()?,
            // A busy gateway; the handshake's own time ends it.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
    }
}

/// A session of the hostile member, and who speaks within it.
fn member(scene: &Arc<Scene>) -> Option<Attacker> {
    let mut far = scene.connect()?;
    let session = handshake(&mut far, 77, group_key())?;
    far.set_read_timeout(None).ok()?;
    far.set_write_timeout(None).ok()?;
    let local = TcpListener::bind("127.0.0.1:0").ok()?;
    let attacker = Attacker::connect_to(local.local_addr().ok()?);
    let (near, _) = local.accept().ok()?;
    {
        let mut streams = scene.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.extend([near.try_clone().ok()?, far.try_clone().ok()?]);
    }
    let session = Arc::new(Mutex::new(session));
    let (up, down) = ((near.try_clone().ok()?, far.try_clone().ok()?), (far, near));
    let sealing = Arc::clone(&session);
    std::thread::spawn(move || pass(up.0, up.1, |bytes, far, _| seal(&sealing, bytes, far)));
    std::thread::spawn(move || pass(down.0, down.1, |bytes, near, far| unseal(&session, bytes, near, far)));
    Some(attacker)
}

/// Passes on what comes from one stream, until either ends; then both do.
fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    mut each: impl FnMut(&[u8], &mut TcpStream, &mut TcpStream) -> Option<()>,
) {
    let mut bytes = vec![0; 32 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if each(&bytes[..count], &mut to, &mut from).is_none() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn seal(session: &Mutex<SecureSession>, bytes: &[u8], far: &mut TcpStream) -> Option<()> {
    // Kept while it is written: records have an order.
    let mut session = session.lock().ok()?;
    session.seal(bytes).ok()?;
    far.write_all(&session.take_output()).ok()
}

fn unseal(
    session: &Mutex<SecureSession>,
    bytes: &[u8],
    near: &mut TcpStream,
    far: &mut TcpStream,
) -> Option<()> {
    let mut data = Vec::new();
    {
        let mut session = session.lock().ok()?;
        session.handle_bytes(bytes).ok()?;
        while let Some(event) = session.poll_event() {
            if let SecureEvent::Data(piece) = event {
                data.extend_from_slice(&piece);
            }
        }
        far.write_all(&session.take_output()).ok()?;
    }
    near.write_all(&data).ok()
}

fn hoard(scene: &Arc<Scene>) {
    let mut all = VecDeque::new();
    while !scene.is_over() {
        let Some(mut peer) = member(scene) else { continue };
        peer.request(&[("Profile", "getCheckpoint"), ("collection", "0"), ("client", "x")], "");
        scene.made(1);
        all.push_back(peer);
        if all.len() > 80 {
            all.pop_front();
        }
        scene.wait(Duration::from_millis(10));
    }
}

fn pings(scene: &Arc<Scene>) {
    let Some(mut peer) = member(scene) else { return };
    let framing = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
    let ping = framing.encode_ping(b"", [1, 2, 3, 4]).expect("a byte stream has pings");
    let many = ping.repeat(512);
    while !scene.is_over() {
        peer.raw(&many);
        scene.made(512);
        if peer.end_within(Duration::from_millis(1)) == crate::attacker::End::Gone {
            return;
        }
    }
}

/// Begins as an honest peer does.
fn begun(scene: &Arc<Scene>) -> Option<Attacker> {
    let mut peer = member(scene)?;
    let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
    peer.request(&[("Profile", "getCollections"), ("gattway", "1")], body);
    peer.hears(FrameType::Reply).then_some(peer)
}

fn messages(scene: &Arc<Scene>) {
    let Some(mut peer) = begun(scene) else { return };
    scene.made(1);
    while peer.ask(&[("Profile", "norev"), ("collection", "0"), ("id", "x")]) {}
}

fn bombs(scene: &Arc<Scene>) {
    let Some(mut peer) = member(scene) else { return };
    peer.bomb(128 << 20);
    let _ = peer.end_within(HELD);
    scene.made(1);
}

fn unfinished(scene: &Arc<Scene>) {
    let Some(mut peer) = member(scene) else { return };
    peer.flood(200, REASSEMBLY_BYTES_MAX - (1 << 20));
    scene.made(1);
    scene.wait(HELD);
}

fn unread(scene: &Arc<Scene>) {
    let Some(mut peer) = begun(scene) else { return };
    peer.request(&[("Profile", "subChanges"), ("collection", "0"), ("versioning", "version-vectors")], "");
    scene.made(1);
    scene.wait(HELD);
}
