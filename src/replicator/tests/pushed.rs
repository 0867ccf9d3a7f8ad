//! What a stock peer has pushed is not listed to it again, unless its database was put back to an older copy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::exchange::{active, fill, passive, stores};
use super::for_seeds;
use super::memory_store::{Backup, MemoryStore};
use super::pair::Pair;
use super::scripted::{Scripted, request};
use crate::blip::{BlipConfig, Event, OutgoingMessage};

use crate::database::{Database, DatabaseConfig};
use crate::replica::revision::VersionVector;
use crate::replica::store::{CollectionId, ReplicaStore};
use crate::replicator::config::{ActiveConfig, CollectionConfig, PassiveConfig, ReplicatorType};
use crate::replicator::pushed::{PREFIX, PushedNote};
use crate::replicator::sequences::{RemoteSequence, SequenceSet};
use crate::replicator::session::Session;

/// Seeds of one test run; a failing one is printed.
const SEEDS: u64 = 300;

/// Bytes of both sides in a run with nothing to do, after a push: two round trips, two entries of a list, a checkpoint.
const IDLE_BYTES_MAX: u64 = 1_200;

/// Full runs after which both are equal, whatever happened before.
const RUNS_MAX: u64 = 6;

fn plain() -> BlipConfig {
    BlipConfig { compression_level: 0, ..BlipConfig::default() }
}

/// The usual peer. Without compression, so that a list shows in the bytes.
fn both_ways() -> ActiveConfig {
    ActiveConfig { blip: plain(), ..active(ReplicatorType::PushAndPull, false) }
}

fn sync(seed: u64, a: &Arc<MemoryStore>, p: &Arc<MemoryStore>, config: ActiveConfig, peer: &str) -> Pair {
    let answering = PassiveConfig { blip: plain(), peer_uid: peer.into(), ..passive(false) };
    let mut pair = Pair::new(seed, config, answering, a, p);
    pair.run().expect("a clean end");
    pair
}

fn bytes(pair: &Pair) -> u64 {
    pair.a.bytes_out + pair.p.bytes_out
}

fn run(seed: u64, a: &Arc<MemoryStore>, p: &Arc<MemoryStore>) -> Pair {
    sync(seed, a, p, both_ways(), "")
}

#[test]
fn what_was_pushed_is_not_listed_again() {
    let (a, p) = stores();
    fill(&a, "a", 500);
    run(1, &a, &p);
    let second = run(2, &a, &p);
    let third = run(3, &a, &p);
    println!("second run {} bytes, third {}", bytes(&second), bytes(&third));
    assert!(bytes(&second) <= IDLE_BYTES_MAX, "{} bytes", bytes(&second));
    assert!(bytes(&third) < bytes(&second), "the position has passed them: {} bytes", bytes(&third));

    // What has changed here since comes, and only that.
    fill(&a, "b", 500);
    run(4, &a, &p);
    (0..20).for_each(|n| p.put(&format!("b{:05}", n * 25), "{\"edited\":true}"));
    let pair = run(5, &a, &p);
    assert_eq!(a.dump(0), p.dump(0));
    assert!(bytes(&pair) <= IDLE_BYTES_MAX + 20 * 300, "{} bytes", bytes(&pair));
    assert!(bytes(&run(6, &a, &p)) <= IDLE_BYTES_MAX);
}

/// The same with real databases and compression, whose versions are those of a clock.
#[test]
fn a_second_run_of_real_databases_costs_what_a_run_without_news_costs() {
    let directory = tempfile::tempdir().expect("a directory");
    let [a, p] = ["a", "p"].map(|name| {
        Arc::new(Database::open(directory.path().join(name), DatabaseConfig::default()).expect("opens"))
    });
    let collection = a.default_collection().expect("open");
    for n in 0..500 {
        collection.put(&format!("reading-{n}"), &serde_json::json!({"n": n})).expect("put");
    }
    let run = |seed: u64| {
        let mut pair = Pair::new(seed, active(ReplicatorType::PushAndPull, false), passive(false), &a, &p);
        pair.run().expect("a clean end");
        bytes(&pair)
    };
    let bytes = [run(1), run(2), run(3)];
    println!("first run {} bytes, second {}, third {}", bytes[0], bytes[1], bytes[2]);
    assert!(bytes[1] <= IDLE_BYTES_MAX, "{} bytes", bytes[1]);
}

/// Put back to what it was before it made them, before it pushed them, in the middle of it and after it, with and without its
/// checkpoint: it gets what it lacks.
#[test]
fn a_peer_that_was_put_back_gets_everything() {
    for forgets in [false, true] {
        for pushed_before in [0, 250] {
            for edits in [0, 1, 700] {
                let (a, p) = stores();
                fill(&a, "a", pushed_before);
                if pushed_before > 0 {
                    run(1, &a, &p);
                }
                let backup = a.backup();
                fill(&a, "b", 500);
                run(2, &a, &p);
                a.restore(&backup);
                if forgets {
                    a.forget_checkpoints();
                }
                // Many edits of one document: its sequences go on beyond those of what was lost.
                (0..edits).for_each(|n| a.put("c", &format!("{{\"n\":{n}}}")));
                run(3, &a, &p);
                let lacks = 500 + pushed_before + usize::from(edits > 0) - a.count();
                assert_eq!((lacks, a.dump(0) == p.dump(0)), (0, true), "{forgets} {pushed_before} {edits}");
            }
        }
    }
}

/// It was put back, and has the newest of what it pushed from elsewhere, but not the rest.
#[test]
fn what_it_has_from_elsewhere_proves_nothing() {
    for (seed, edits) in (0..20).map(|seed| (seed, seed as usize % 2 * 300)) {
        let (a, p) = stores();
        let other = Arc::new(MemoryStore::new(0xc3));
        let backup = a.backup();
        fill(&a, "a", 100);
        run(seed, &a, &p);
        let config = ActiveConfig { peer_uid: "other".into(), ..both_ways() };
        let newest = CollectionConfig {
            document_ids: Some(vec!["a00099".into()]),
            ..CollectionConfig::new("_default")
        };
        sync(seed, &a, &other, ActiveConfig { collections: vec![newest], ..config.clone() }, "");
        a.restore(&backup);
        // Edits of one document, so that its sequences go on beyond those of what was lost.
        (0..edits).for_each(|n| a.put("mine", &format!("{{\"n\":{n}}}")));
        sync(seed, &a, &other, config, "");
        assert!(a.count() <= 2);
        run(seed, &a, &p);
        run(seed, &a, &p);
        assert_eq!(a.dump(0), p.dump(0));
    }
}

/// A note in which 10 revisions of the peer are, 1 to 10 there and here, and in which one session has begun.
fn noted() -> (MemoryStore, PushedNote) {
    let (store, id) = (MemoryStore::new(1), CollectionId(0));
    fill(&store, "a", 10);
    store.set_checkpoint(id, "cp", None, bytes::Bytes::from_static(br#"{"local":10}"#)).expect("in memory");
    let load = || PushedNote::load(&store, id, "peer", "cp").expect("in memory");
    let mut note = load();
    assert_eq!(note.subscribe(&store, 0).expect("in memory").left_out, SequenceSet::new());
    (1..=10).for_each(|n| note.came(&RemoteSequence::Number(n), Some(n)));
    note.checkpoint_set(br#"{"local":10}"#);
    note.save(&store);
    let mut note = load();
    let listing = note.subscribe(&store, 0).expect("in memory");
    let left_out: Vec<u64> = listing.left_out.ranges().flatten().collect();
    assert_eq!(
        (listing.since, left_out),
        (0, (1..=8).collect()),
        "the newest and the last of the rest are listed"
    );
    (store, note)
}

/// What it is, and how the peer gives it.
type Sign<'a> = (&'a str, &'a dyn Fn(&MemoryStore, &mut PushedNote));

/// Each sign that a peer was put back, alone: nothing is left out any more, in a later session either, until all is listed.
#[test]
fn each_sign_that_a_peer_was_put_back_counts() {
    let document = |store: &MemoryStore, id: &str| {
        store.revision(CollectionId(0), id).expect("in memory").expect("there")
    };
    let signs: [Sign<'_>; 6] = [
        ("wants what it pushed", &|_, note| note.answered(10, false)),
        ("proposes it anew", &|store, note| note.proposed(&document(store, "a00003"), None)),
        ("pushes with a sequence that was passed", &|_, note| {
            note.came(&RemoteSequence::Number(7), Some(11))
        }),
        ("finds it known with such a sequence", &|_, note| note.came(&RemoteSequence::Number(7), None)),
        ("sets a lower checkpoint", &|_, note| note.checkpoint_set(br#"{"local":9}"#)),
        ("never came to answer", &|_, note| note.proof_is_missing()),
    ];
    for (what, sign) in signs {
        let (store, mut note) = noted();
        sign(&store, &mut note);
        assert_eq!(note.take_put_back(), Some(0), "{what}");
        assert!(note.is_urgent(), "{what}");
        note.save(&store);
        for all_listed in [false, true] {
            let mut note = PushedNote::load(&store, CollectionId(0), "peer", "cp").expect("in memory");
            let listing = note.subscribe(&store, 10).expect("in memory");
            assert_eq!((listing.since, listing.left_out), (0, SequenceSet::new()), "{what}");
            if all_listed {
                note.all_listed();
                note.save(&store);
            }
        }
        let mut note = PushedNote::load(&store, CollectionId(0), "peer", "cp").expect("in memory");
        assert_eq!(note.subscribe(&store, 10).expect("in memory").since, 10, "{what}: it is listed once");
    }
}

/// That a peer was put back is kept until it has answered all that is then listed to it, also by a peer that had been told the end
/// of the feed before.
#[test]
fn a_peer_that_was_put_back_is_owed_the_list_until_it_has_answered() {
    for answers in [false, true] {
        let (store, mut note) = noted();
        note.save(&store);
        let store = Arc::new(store);
        let config = PassiveConfig { peer_uid: "peer".into(), ..passive(false) };
        let mut scripted = Scripted::new(Session::passive(config), Arc::clone(&store));
        let body = r#"{"checkpoint_ids":["cp"],"collections":["_default"]}"#;
        let ask = OutgoingMessage::request("getCollections").with_body(body);
        assert!(scripted.ask(ask).0.expect("answered").is_ok());
        let listed = |scripted: &mut Scripted, events: Vec<Event>, answers: bool| {
            let mut listed = 0;
            for event in events {
                let Event::Request(request) = event else { continue };
                if request.no_reply {
                    continue;
                }
                let rows: Vec<serde_json::Value> = serde_json::from_slice(&request.body).expect("a list");
                listed += rows.len();
                if answers {
                    let reply = OutgoingMessage::default().with_body(format!("{:?}", vec![0; rows.len()]));
                    scripted.peer.reply(request.number, reply).expect("open");
                }
            }
            listed
        };
        let subscribe =
            request("subChanges").with("versioning", "version-vectors").with("continuous", "true");
        scripted.peer.send_request(subscribe).expect("small");
        let events = scripted.settle();
        assert_eq!(listed(&mut scripted, events, true), 2, "the newest and the last");
        scripted.settle();
        let revision = store.checkpoint(CollectionId(0), "cp").expect("in memory").expect("there").revision;
        let lower = request("setCheckpoint").with("client", "cp").with("rev", &revision);
        scripted.peer.send_request(lower.with_body(r#"{"local":9}"#)).expect("small");
        let events = scripted.settle();
        assert_eq!(listed(&mut scripted, events, answers), 10, "all of it");
        scripted.settle();
        scripted.session.close(&*store);
        let mut note = PushedNote::load(&*store, CollectionId(0), "peer", "cp").expect("in memory");
        let since = note.subscribe(&*store, 10).expect("in memory").since;
        assert_eq!(since, if answers { 10 } else { 0 }, "answered: {answers}");
    }
}

/// What is no sign: knowing what it proposes on, a rev that is new, answers that all is there. What comes before the old notes
/// have proved right, or is not covered by the checkpoint, is not noted.
#[test]
fn only_what_is_proved_and_covered_is_noted() {
    let (store, mut note) = noted();
    let here = store.revision(CollectionId(0), "a00003").expect("in memory").expect("there");
    note.proposed(&here, Some(&here.vector));
    fill(&store, "b", 4);
    (11..=13).for_each(|n| note.came(&RemoteSequence::Number(n), Some(n)));
    let noted = |note: &mut PushedNote| {
        note.subscribe(&store, 0).expect("in memory").left_out.ranges().flatten().count()
    };
    note.checkpoint_set(br#"{"local":12}"#);
    note.save(&store);
    let load = || PushedNote::load(&store, CollectionId(0), "peer", "cp").expect("in memory");
    assert_eq!(noted(&mut load()), 8, "nothing was proved yet");
    note.answered(10, true);
    note.answered(9, true);
    note.checkpoint_set(br#"{"local":12}"#);
    note.save(&store);
    assert_eq!(note.take_put_back(), None);
    assert_eq!(noted(&mut load()), 10, "12 of which two are listed; the 13th is not covered");
    // What has changed here since is not in it: the newest left is listed in its place.
    store.put("b00001", "{}");
    assert_eq!(noted(&mut load()), 10);
    // Without the checkpoint it is nothing.
    store.forget_checkpoints();
    assert_eq!(noted(&mut load()), 0);
}

/// What is over goes from the note, and nothing else does; each change of it is kept.
#[test]
fn a_note_loses_what_is_over_and_keeps_the_rest() {
    let load =
        |store: &MemoryStore| PushedNote::load(store, CollectionId(0), "peer", "cp").expect("in memory");
    let left_out = |store: &MemoryStore, note: &mut PushedNote, since| {
        let listing = note.subscribe(store, since).expect("in memory");
        listing.left_out.ranges().flatten().collect::<Vec<u64>>()
    };
    // The peer asks from a place after which nothing is left that could prove the rest.
    let (store, mut note) = noted();
    ["a00008", "a00009"].iter().for_each(|id| store.put(id, "{}"));
    assert!(left_out(&store, &mut note, 8).is_empty());
    note.save(&store);
    assert!(left_out(&store, &mut load(&store), 0).is_empty(), "what cannot be proved is over");
    // It has passed all, and has nothing to propose.
    let (store, mut note) = noted();
    note.subscribe(&store, 10).expect("in memory");
    note.nothing_proposed();
    note.save(&store);
    assert!(left_out(&store, &mut load(&store), 0).is_empty());
    // It has passed one of two runs.
    let (store, mut note) = noted();
    [10, 9].into_iter().for_each(|sequence| note.answered(sequence, true));
    fill(&store, "b", 6);
    (0..3).for_each(|n| note.came(&RemoteSequence::Number(21 + n), Some(14 + n)));
    note.checkpoint_set(br#"{"local":23}"#);
    note.save(&store);
    let mut note = load(&store);
    note.subscribe(&store, 0).expect("in memory");
    note.nothing_proposed();
    assert_eq!(left_out(&store, &mut note, 0), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14], "it has passed none");
    note.subscribe(&store, 10).expect("in memory");
    note.nothing_proposed();
    note.save(&store);
    assert_eq!(left_out(&store, &mut load(&store), 0), [14]);
    // How far the peer's checkpoint is, although it covers nothing new.
    let (store, mut note) = noted();
    note.checkpoint_set(br#"{"local":15}"#);
    note.save(&store);
    let mut note = load(&store);
    note.came(&RemoteSequence::Number(15), None);
    assert_eq!(note.take_put_back(), Some(0), "it was passed");
}

/// The note of one peer says nothing to another, and nobody can write or read it as a checkpoint.
#[test]
fn a_note_is_for_one_peer_alone() {
    let (a, p) = stores();
    fill(&a, "a", 50);
    sync(1, &a, &p, both_ways(), "one");
    let notes = |p: &MemoryStore| p.checkpoint_names().into_iter().filter(|n| n.starts_with(PREFIX)).count();
    assert_eq!(notes(&p), 1);
    // The same checkpoint under another name gets the whole list.
    assert!(bytes(&sync(2, &a, &p, both_ways(), "two")) > IDLE_BYTES_MAX);
    assert!(bytes(&sync(3, &a, &p, both_ways(), "one")) <= IDLE_BYTES_MAX);
}

/// Without its checkpoint a note is nothing, and one that cannot be read makes everything be listed.
#[test]
fn a_note_that_does_not_fit_leaves_nothing_out() {
    let (a, p) = stores();
    fill(&a, "a", 50);
    run(1, &a, &p);
    let name = p.own_checkpoint(PREFIX);
    let revision = p.checkpoint(CollectionId(0), &name).expect("in memory").expect("there").revision;
    let garbage = bytes::Bytes::from_static(b"\xff\x01garbage");
    p.set_checkpoint(CollectionId(0), &name, Some(&revision), garbage).expect("in memory");
    assert!(bytes(&run(2, &a, &p)) > IDLE_BYTES_MAX);
    assert!(bytes(&run(3, &a, &p)) < IDLE_BYTES_MAX, "it is listed once");
}

struct World {
    rng: fastrand::Rng,
    /// The stock peer, and our side.
    a: Arc<MemoryStore>,
    p: Arc<MemoryStore>,
    /// Another peer of both.
    c: Arc<MemoryStore>,
    /// Which of the three pairs speak the extension: a and p, c and p, a and c.
    extension: [bool; 3],
    backups: Vec<Backup>,
}

impl World {
    fn edit(&mut self, store: &MemoryStore) {
        let documents = self.rng.usize(1..80);
        for _ in 0..self.rng.usize(0..50) {
            let id = format!("d{:03}", self.rng.usize(0..documents));
            match self.rng.u8(0..8) {
                0 => store.delete(&id),
                _ => store.put(&id, &format!("{{\"x\":{}}}", self.rng.u32(0..1_000))),
            }
        }
        store.advance_clock(self.rng.u64(0..20));
    }

    fn meet(&mut self, which: usize) {
        let (from, to) = self.pair(which);
        let (from, to) = (&from, &to);
        let config = ActiveConfig {
            continuous: self.rng.u8(0..4) == 0,
            checkpoint_interval: Duration::from_millis(self.rng.u64(0..3)),
            ..config_of(which, self.extension[which])
        };
        let continuous = config.continuous;
        let mut pair =
            Pair::new(self.rng.u64(..), config, passive(self.extension[which]), from, to).without_events();
        if self.rng.bool() {
            return pair.run_and_cut(self.rng.u64(0..80));
        }
        pair.run_for(Duration::from_millis(if continuous { 50 } else { 100_000 }));
        if continuous && self.rng.bool() {
            self.edit(from);
            self.edit(to);
            pair.run_for(Duration::from_millis(300));
        }
        for side in [&mut pair.a, &mut pair.p] {
            side.session.close(&*side.store);
        }
    }

    fn pair(&self, which: usize) -> (Arc<MemoryStore>, Arc<MemoryStore>) {
        match which {
            0 => (self.a.clone(), self.p.clone()),
            1 => (self.c.clone(), self.p.clone()),
            _ => (self.a.clone(), self.c.clone()),
        }
    }

    fn step(&mut self) {
        let (a, p, c) = (self.a.clone(), self.p.clone(), self.c.clone());
        match self.rng.u8(0..16) {
            0..=2 => self.edit(&a),
            3 => self.edit(&p),
            4..=8 => self.meet(0),
            12 => self.edit(&c),
            13 | 14 => self.meet(1),
            15 => self.meet(2),
            9 | 10 => self.backups.push(a.backup()),
            _ if !self.backups.is_empty() => {
                a.restore(&self.backups[self.rng.usize(0..self.backups.len())]);
                if self.rng.u8(0..3) == 0 {
                    a.forget_checkpoints();
                }
            }
            _ => {}
        }
    }
}

/// One of the pairs, as the active side has it.
fn config_of(which: usize, extension: bool) -> ActiveConfig {
    ActiveConfig { extension, peer_uid: ["peer", "peer of c", "c"][which].into(), ..both_ways() }
}

/// Documents that are not the same everywhere, with all versions.
fn different(stores: &[&Arc<MemoryStore>]) -> Vec<(String, Vec<Option<VersionVector>>)> {
    let ids: BTreeSet<String> = stores.iter().flat_map(|store| store.dump(0).into_keys()).collect();
    let vectors = |id: String| {
        let vectors: Vec<_> = stores.iter().map(|store| store.vector(&id)).collect();
        let current = |n: usize| vectors[n].as_ref().map(|vector| vector.current);
        (1..stores.len()).any(|n| current(n) != current(0)).then_some((id, vectors))
    };
    ids.into_iter().filter_map(vectors).collect()
}

fn one_seed(seed: u64) {
    let (a, p) = stores();
    let mut rng = fastrand::Rng::with_seed(seed);
    let extension = [rng.bool(), rng.bool(), rng.bool()];
    let c = Arc::new(MemoryStore::new(0xc3));
    let mut world = World { rng, a, p, c, extension, backups: Vec::new() };
    for _ in 0..world.rng.usize(0..40) {
        world.step();
    }
    let (a, p, c) = (world.a.clone(), world.p.clone(), world.c.clone());
    let equal = (0..RUNS_MAX).any(|n| {
        for which in 0..2 {
            let (from, to) = world.pair(which);
            let config = config_of(which, world.extension[which]);
            Pair::new(n, config, passive(world.extension[which]), &from, &to).run().expect("a clean end");
        }
        a.dump(0) == p.dump(0) && c.dump(0) == p.dump(0)
    });
    assert!(equal, "after {RUNS_MAX} runs: {:#?}", different(&[&a, &p, &c]));
    for n in 0..2 {
        run(n, &a, &p);
    }
    let idle = run(seed, &a, &p);
    assert!(bytes(&idle) <= IDLE_BYTES_MAX, "nothing is listed for ever: {} bytes", bytes(&idle));
    assert_eq!(a.dump(0), p.dump(0));
}

#[test]
fn random_pushes_and_restores_end_equal() {
    for_seeds(SEEDS, one_seed);
}
