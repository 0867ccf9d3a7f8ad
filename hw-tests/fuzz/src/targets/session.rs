//! A whole replication session, active or passive, on a store in memory, against a peer that speaks good BLIP and says
//! what it likes: requests of every kind, answers of every kind, in any order, some of them true.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gattway::lab::blip::{BlipConfig, Connection, ErrorReply, Event, MessageNumber, OutgoingMessage};
use gattway::lab::fuzzing::MemoryStore;
use gattway::lab::replica::revision::{SourceId, TreeId, Version, VersionVector};
use gattway::lab::replica::store::{Change, CollectionId, CommitOutcome, ReplicaStore};
use gattway::lab::replicator::checkpoint::Checkpoint;
use gattway::lab::replicator::config::{ActiveConfig, PassiveConfig, REPLY_TIMEOUT, STOP_TIMEOUT};
use gattway::lab::replicator::event::{CommitRequest, SessionEvent};
use gattway::lab::replicator::extension::RevsFormat;
use gattway::lab::replicator::extension::answer::{RevAnswer, encode};
use gattway::lab::replicator::extension::codec::{Content, RevsEncoder};
use gattway::lab::replicator::messages::{PROPERTY_KEYS, profile};
use gattway::lab::replicator::session::Session;
use gattway::lab::time::Instant;
use gattway::replicator::ReplicatorType;

use super::super::choices::Choices;
use super::super::memory;

const COLLECTION: CollectionId = CollectionId(0);
/// Frames carried in one go.
const FRAMES_MAX: usize = 4_096;
/// Memory of a session, its peer and the store, whatever an input of a few KiB says, in bytes.
const MEMORY_MAX: usize = 24 << 20;

/// What a request may be, and one that there is not.
const PROFILES: [&str; profile::ALL.len() + 1] = {
    let mut all = ["?"; profile::ALL.len() + 1];
    let mut n = 0;
    while n < profile::ALL.len() {
        all[n] = profile::ALL[n];
        n += 1;
    }
    all
};
const VALUES: [&str; 17] = [
    "0",
    "1",
    "true",
    "",
    "18446744073709551615",
    "cp-x",
    "own/x",
    "version-vectors",
    "18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ",
    "1@AQEBAQEBAQEBAQEBAQEBAQ",
    "2-cceba90c66c32c7cc39e66573f911ec05507d5e9",
    "1-ab, 1-6fe86833e77d459ae48447b1b12651c52445b4f6",
    "2cceba90c66@Revision+Tree+Encoding",
    "1 9",
    "-1",
    "\"abc\"",
    "doc-1",
];
const IDS: [&str; 6] = ["doc-0", "doc-1", "doc-2", "new", "_design", "other"];

struct World {
    session: Session,
    active: bool,
    store: Arc<MemoryStore>,
    peer: Connection,
    now: Instant,
    /// Frames that the session has not taken, because it accepts no input.
    waiting: Vec<Vec<u8>>,
    commits: Vec<CommitRequest>,
    /// Requests of the session, with their profile.
    asked: Vec<(MessageNumber, String)>,
    /// Revisions sent as `rev` whose answer must be true.
    promised: HashMap<MessageNumber, (String, Version)>,
    /// Revisions that a commit has taken, or knew.
    settled: HashSet<(String, Version)>,
    ended: bool,
}

impl World {
    fn new(choices: &mut Choices<'_>) -> World {
        let mode = choices.byte();
        let store = Arc::new(MemoryStore::new(1));
        for n in 0..choices.below(6) {
            store.put(&format!("doc-{n}"), r#"{"n":1}"#);
        }
        store.delete("doc-1");
        let extension = mode & 2 != 0;
        let active = mode & 1 != 0;
        let session = match active {
            false => Session::passive(PassiveConfig {
                extension,
                accept_push: mode & 0x30 != 0x10,
                accept_pull: mode & 0x30 != 0x20,
                report_documents: mode & 0x40 != 0,
                ..PassiveConfig::default()
            }),
            true => Session::active(ActiveConfig {
                extension,
                continuous: mode & 4 != 0,
                reset: mode & 8 != 0,
                direction: match mode >> 4 & 3 {
                    1 => ReplicatorType::Push,
                    2 => ReplicatorType::Pull,
                    _ => ReplicatorType::PushAndPull,
                },
                ..ActiveConfig::default()
            }),
        };
        let mut world = World {
            session,
            active,
            store,
            peer: Connection::new(BlipConfig::default()),
            now: Instant::from_micros(5_000_000),
            waiting: Vec::new(),
            commits: Vec::new(),
            asked: Vec::new(),
            promised: HashMap::new(),
            settled: HashSet::new(),
            ended: false,
        };
        world.session.start(world.now, &*world.store);
        world
    }

    /// Carries frames both ways and takes what comes of them; commits wait until somebody makes them.
    fn settle(&mut self) {
        for _ in 0..8 {
            self.waiting.extend(std::iter::from_fn(|| self.peer.poll_frame()).take(FRAMES_MAX));
            let mut taken = 0;
            while taken < self.waiting.len() && self.session.accepts_input() {
                let result = self.session.handle_frame(self.now, &self.waiting[taken], &*self.store);
                assert_eq!(result.is_err(), result.is_err() && self.session.is_finished());
                taken += 1;
            }
            self.waiting.drain(..taken);
            self.commits.extend(std::iter::from_fn(|| self.session.poll_commit()));
            let mut sent = 0;
            while let Some(frame) = self.session.poll_frame(self.now, &*self.store) {
                sent += 1;
                assert!(sent <= FRAMES_MAX, "frames without end");
                // The peer's deflate state may be gone with an error of its own making.
                let _ = self.peer.handle_frame(&frame);
            }
            self.hear();
            self.events();
            if taken == 0 && sent == 0 {
                return;
            }
        }
    }

    fn hear(&mut self) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                Event::Request(request) => {
                    assert!(PROFILES.contains(&request.profile()), "{:?}", request.profile());
                    if !request.no_reply {
                        self.asked.push((request.number, request.profile().to_owned()));
                    }
                }
                Event::Reply { number, result } => {
                    if let Some((id, version)) = self.promised.remove(&number)
                        && result.is_ok()
                    {
                        // What lies about its history can then replace even that, as whoever may write can.
                        let there = self.store.vector(&id).is_some_and(|vector| vector.contains(version));
                        let kept = there || self.settled.contains(&(id.clone(), version));
                        assert!(kept, "{id} {version} was acknowledged and was never there");
                    }
                }
                _ => {}
            }
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            if let SessionEvent::Finished(result) = event {
                assert!(!self.ended, "finished twice");
                self.ended = true;
                if let Err(error) = result {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        assert_eq!(self.ended, self.session.is_finished());
        for name in self.store.checkpoint_names().iter().filter(|name| name.starts_with("own/cp-")) {
            let stored = self.store.checkpoint(COLLECTION, name).expect("in memory").expect("it is named");
            let local = Checkpoint::from_json(&stored.body).local_sequence();
            let last = self.store.last_sequence(COLLECTION);
            assert!(local <= last, "a checkpoint at {local} of {last}");
        }
    }

    /// Makes one of the commits that wait, in any order.
    fn commit(&mut self, which: usize) {
        if self.commits.is_empty() {
            return;
        }
        let request = self.commits.swap_remove(which % self.commits.len());
        let result = request.run(&*self.store, self.session.conflict_policy());
        for (revision, outcome) in request.revisions.iter().zip(result.iter().flatten()) {
            use CommitOutcome::{AlreadyKnown, Inserted, Resolved};
            if matches!(outcome, Inserted { .. } | Resolved { .. } | AlreadyKnown { .. }) {
                self.settled.insert((revision.id.clone(), revision.vector.current));
            }
        }
        self.session.handle_commit(self.now, request.id, result, &*self.store);
    }

    fn request(&mut self, mut message: OutgoingMessage, flags: u8) -> Option<MessageNumber> {
        message.no_reply = flags & 1 != 0;
        message.urgent = flags & 2 != 0;
        message.compressed = flags & 4 != 0;
        self.peer.send_request(message).ok()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        if self.session.poll_at().is_some_and(|at| at <= self.now) {
            self.session.handle_timeout(self.now, &*self.store);
            assert!(self.session.poll_at().is_none_or(|at| at > self.now), "what is due is done");
        }
    }
}

fn version(choices: &mut Choices<'_>) -> Version {
    let (author, time) = (choices.byte() & 3, u64::from(choices.byte()));
    // Author 1 is the store itself.
    let author = SourceId([author; 16]);
    let base = if time & 1 == 0 { 0x18ea_7b9b_f01b_0000 } else { 0 };
    Version { time: base + 1 + time, source: author }
}

fn tree(choices: &mut Choices<'_>) -> TreeId {
    let (generation, digest) = (u32::from(choices.byte() & 3), choices.byte() & 3);
    TreeId::new(generation + 1, &[digest; 20]).expect("within the limits")
}

fn vector(choices: &mut Choices<'_>) -> VersionVector {
    let mut vector = VersionVector::new(version(choices));
    let shape = choices.byte();
    if shape & 0x40 != 0 {
        vector.trees = (0..1 + (shape >> 4 & 3)).map(|_| tree(choices)).collect();
        if shape & 3 == 0 {
            return VersionVector { current: vector.trees[0].version(), ..vector };
        }
    }
    vector.history = (0..shape & 3).map(|_| version(choices)).collect();
    if shape & 0x80 != 0 {
        vector.merged = (0..shape >> 2 & 3).map(|_| version(choices)).collect();
    }
    vector
}

/// A body of a message: free text, or JSON that nearly means something.
fn body(choices: &mut Choices<'_>) -> Bytes {
    match choices.below(4) {
        0 => Bytes::from_static(br#"{"q":1}"#),
        1 => Bytes::from_static(br#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#),
        _ => Bytes::copy_from_slice(choices.blob()),
    }
}

/// A request made of pieces.
fn free_request(world: &mut World, choices: &mut Choices<'_>) {
    let profile = choices.pick(&PROFILES);
    let mut message = OutgoingMessage::request(profile);
    let flags = choices.byte();
    if flags & 0x80 == 0 {
        message = message.with("collection", "0");
    }
    for _ in 0..flags >> 3 & 3 {
        let key = choices.pick(&PROPERTY_KEYS);
        let value = match choices.below(VALUES.len() + 1) {
            at if at < VALUES.len() => VALUES[at].into(),
            _ => choices.text(),
        };
        message = message.with(key, &value);
    }
    let message = message.with_body(body(choices));
    world.request(message, flags);
}

/// A revision as it should be; its acknowledgement must be true.
fn good_rev(world: &mut World, choices: &mut Choices<'_>) {
    let (id, vector) = (choices.pick(&IDS), vector(choices));
    let mut message = OutgoingMessage::request("rev")
        .with("collection", "0")
        .with("id", id)
        .with("rev", &vector.id().to_string())
        .with("sequence", &choices.byte().to_string());
    let history = vector.history_text();
    if !history.is_empty() {
        message = message.with("history", &history);
    }
    let flags = choices.byte();
    if flags & 8 != 0 {
        message = message.with("deleted", "1");
    }
    let message = message.with_body(&br#"{"from":"a peer"}"#[..]);
    if let Some(number) = world.request(message, flags & !1) {
        world.promised.insert(number, (id.to_owned(), vector.current));
    }
}

/// Several revisions by the extension, with sequences of choice.
fn revs(world: &mut World, choices: &mut Choices<'_>) {
    let flags = choices.byte();
    let from = u64::from(choices.byte());
    let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, flags & 8 != 0, from);
    let mut sequence = from;
    for _ in 0..choices.below(8) {
        let shape = choices.byte();
        sequence = if shape & 1 == 0 { sequence.wrapping_add(1) } else { choices.u64() };
        let change = Change {
            sequence,
            id: choices.pick(&IDS).to_owned(),
            vector: vector(choices),
            deleted: shape & 2 != 0,
            body_size: 0,
            remote_ancestor: None,
            body: None,
        };
        let content = match shape >> 2 & 3 {
            0 | 1 => Content::Body(Bytes::from_static(br#"{"by":"revs"}"#)),
            2 => Content::Offer,
            _ => Content::Gone,
        };
        encoder.push(&change, &content);
    }
    let through = if flags & 0x10 == 0 { sequence } else { choices.u64() };
    let body = encoder.finish(through, flags & 0x20 != 0);
    let message = OutgoingMessage::request("revs").with("collection", "0").with_body(body);
    world.request(message, flags & 6);
}

/// A list of changes, as `changes` or `proposeChanges`.
fn list(world: &mut World, choices: &mut Choices<'_>) {
    let flags = choices.byte();
    let entries: Vec<String> = (0..choices.below(12))
        .map(|_| {
            let (sequence, id, vector) = (choices.byte(), choices.pick(&IDS), vector(choices));
            match flags & 8 {
                0 => format!("[{sequence},\"{id}\",\"{}\",{}]", vector.id(), choices.byte() & 7),
                _ => format!("[\"{id}\",\"{}\"]", vector.id()),
            }
        })
        .collect();
    let profile = if flags & 8 == 0 { "changes" } else { "proposeChanges" };
    let body = format!("[{}]", entries.join(","));
    let message = OutgoingMessage::request(profile).with("collection", "0").with_body(body);
    world.request(message, flags & 6);
}

/// An answer to the oldest or any request of the session: what belongs there, or anything.
fn answer(world: &mut World, choices: &mut Choices<'_>) {
    if world.asked.is_empty() {
        return;
    }
    let how = choices.byte();
    let at = if how & 1 == 0 { 0 } else { choices.below(256) % world.asked.len() };
    let (number, profile) = world.asked.remove(at);
    let reply = OutgoingMessage::default();
    let reply = match (how >> 1 & 7, profile.as_str()) {
        (0, _) => {
            let error = ErrorReply::http(400 + i32::from(choices.byte()), "no");
            let _ = world.peer.reply_error(number, &error);
            return;
        }
        (1, _) => reply.with(choices.pick(&PROPERTY_KEYS), choices.pick(&VALUES)).with_body(body(choices)),
        (_, "getCollections") if how & 0x10 != 0 => reply.with("gattway", "1 3").with_body("[{}]"),
        (2, "getCollections") => reply.with_body(r#"[{"local":2,"remote":1,"rev":"1-cc"}]"#),
        (_, "getCollections") => reply.with_body("[{}]"),
        (_, "getCheckpoint" | "setCheckpoint") => reply.with("rev", "1-cc").with_body("{}"),
        (_, "proposeChanges" | "changes") => {
            let answers = ["0", "304", "409", "[]", "[\"1@AQEBAQEBAQEBAQEBAQEBAQ\"]", "{\"status\":409}"];
            let answers: Vec<&str> = (0..choices.below(6)).map(|_| choices.pick(&answers)).collect();
            reply.with_body(format!("[{}]", answers.join(",")))
        }
        (_, "revs") => {
            let answers: Vec<RevAnswer> = (0..choices.below(8))
                .map(|_| match choices.below(5) {
                    0 => RevAnswer::Known,
                    1 => RevAnswer::Wanted,
                    2 => RevAnswer::Conflict(vector(choices)),
                    3 => RevAnswer::Failed(ErrorReply::http(400, "no")),
                    _ => RevAnswer::Stored(choices.u64() >> (choices.byte() & 63)),
                })
                .collect();
            reply.with_body(encode(&answers, RevsFormat::NEWEST))
        }
        _ => reply,
    };
    let _ = world.peer.reply(number, reply);
}

fn step(world: &mut World, choices: &mut Choices<'_>) {
    match choices.below(14) {
        0 | 1 => free_request(world, choices),
        2 | 3 => good_rev(world, choices),
        4 | 5 => revs(world, choices),
        6 => list(world, choices),
        7..=9 => answer(world, choices),
        10 => world.commit(choices.below(256)),
        11 => {
            let edit = choices.byte();
            world.store.put(IDS[usize::from(edit & 3)], r#"{"edited":true}"#);
            if edit & 0x80 == 0 {
                world.session.handle_store_changed(world.now, &*world.store);
            }
        }
        12 => {
            let steps = [1, 250, 1_000, 5_001, 30_000, 61_000];
            world.pass(Duration::from_millis(choices.pick(&steps)));
        }
        _ => {
            // The beginning of every honest passive conversation.
            let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
            let mut message = OutgoingMessage::request("getCollections").with_body(body);
            if choices.bool() {
                message = message.with("gattway", "1");
            }
            world.request(message, 0);
        }
    }
    world.settle();
}

/// Whatever has happened: told to stop, it stops; left alone by its peer, it gives up in time.
fn end(mut world: World, stop: bool) {
    while !world.commits.is_empty() {
        world.commit(0);
        world.settle();
    }
    if stop || !world.active {
        world.session.stop(world.now);
        world.pass(STOP_TIMEOUT);
        world.events();
        assert!(world.session.is_finished(), "stop ends");
        return;
    }
    let limit = world.now + REPLY_TIMEOUT * 2;
    for steps in 0.. {
        assert!(steps < 10_000, "timers without end");
        while world.session.poll_frame(world.now, &*world.store).is_some() {}
        world.events();
        let Some(at) = world.session.poll_at() else { break };
        assert!(at <= limit, "given up in time");
        world.now = at.max(world.now);
        world.session.handle_timeout(world.now, &*world.store);
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let stop = choices.bool();
    let ((), held) = memory::peak(|| {
        let mut world = World::new(&mut choices);
        world.settle();
        while !choices.is_empty() && !world.session.is_finished() {
            step(&mut world, &mut choices);
        }
        end(world, stop);
    });
    assert!(held <= MEMORY_MAX, "{held} bytes held");
}
